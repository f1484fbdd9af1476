//! `vx run`: builds where needed, then runs the binary.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
    time::{Duration, Instant},
};

use velox_testkit::{ModuleProxy, plugin};

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy, configuration};

fn machine() -> (Sandbox, ModuleProxy) {
    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0").file(".rr.yaml", "version: \"3\"\n");
    (sandbox, proxy)
}

#[test]
fn run_builds_once_and_prints_nothing_of_its_own() {
    let (sandbox, proxy) = machine();
    // The build is for this machine, whatever target the configuration has.
    let file = configuration("hello@v1.0.0") + "\n[target_platform]\nos = \"windows\"\narch = \"arm64\"\n";
    let sandbox = sandbox.file("velox.toml", file);
    let first = sandbox.vx("run -- --version");
    assert!(first.ok().starts_with("rr version 2025.0.77 "), "{}", first.stdout());

    // After the build, neither go nor the network is needed, and stderr is RoadRunner's.
    proxy.forget_requests();
    let sandbox = sandbox.env("PATH", "/nowhere");
    let again = sandbox.vx("run --version");
    assert_eq!((again.ok(), again.stderr()), (first.stdout(), String::new()));
    assert_eq!(proxy.requests(), [""; 0]);
    assert_eq!(sandbox.entries("."), [".rr.yaml", "velox.lock", "velox.toml"], "no binary is left here");

    // RoadRunner's own failure and exit code.
    let failed = sandbox.vx("run fly -c .rr.yaml");
    assert!(failed.fails(1).contains("there is no command \"fly\""), "{}", failed.stderr());
}

/// Runs `vx` with these arguments until RoadRunner has started, then sends a signal; returns standard error.
#[cfg(unix)]
fn served(sandbox: &Sandbox, arguments: &str, signal: rustix::process::Signal) -> String {
    let mut child =
        sandbox.vx_command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert!(line.contains("RoadRunner server started; version: 2025.0.77"), "{line}{message}");
    // RoadRunner stopped its plugins and exited.
    assert_eq!(child.wait().unwrap().code(), Some(0), "{message}");
    message
}

#[cfg(unix)]
#[test]
fn run_forwards_signals_to_roadrunner() {
    use rustix::process::Signal;

    let (sandbox, _proxy) = machine();
    for signal in [Signal::INT, Signal::TERM] {
        let message = served(&sandbox, "run serve -c .rr.yaml", signal);
        assert!(message.contains("hello v1.0.0\n"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn run_without_velox_toml_builds_what_the_configuration_needs() {
    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::behind(&proxy).file(
        "conf/rr.yaml",
        "version: \"3\"\nfileserver: { address: \"127.0.0.1:0\", serve: [{ prefix: \"/\", root: . }] }\n",
    );
    let message =
        served(&sandbox, "run --roadrunner v2025.0.77 serve -c conf/rr.yaml", rustix::process::Signal::TERM);
    assert!(
        message
            .contains("RoadRunner v2025.0.77 with the plugins that conf/rr.yaml needs: fileserver, logger;"),
        "{message}"
    );
    assert_eq!(sandbox.entries("."), ["conf"]);
    sandbox.vx("run serve -c none.yaml").fails_with(2, &["found neither velox.toml nor `none.yaml`"]);
    let sandbox = sandbox.file(".rr.yaml", "version: [");
    sandbox.vx("run serve").fails_with(2, &[".rr.yaml:1:", "invalid YAML"]);
}

#[cfg(unix)]
#[test]
fn run_recompiles_a_changed_local_plugin() {
    let (sandbox, _proxy) = machine();
    let mine = |says: &str| plugin("example.com/me/mine", "mine").says(says);
    let serve = "run --with ./mine --without hello serve -c .rr.yaml";

    let sandbox = sandbox.files("mine", mine("first").files());
    let message = served(&sandbox, serve, rustix::process::Signal::TERM);
    assert!(message.contains("first\n"), "{message}");
    let sandbox = sandbox.files("mine", mine("second").files());
    let message = served(&sandbox, serve, rustix::process::Signal::TERM);
    assert!(message.contains("second\n") && !message.contains("hello"), "{message}");
    assert!(!sandbox.has("velox.lock"));

    let sandbox = sandbox.files("mine", mine("third").compile_error().files());
    let since = Instant::now();
    let message = sandbox.vx(serve).fails(1);
    assert!(message.contains("undefined: missing") && message.contains("mine"), "{message}");
    // Progress is reported after two seconds, which a busy machine needs.
    assert!(
        since.elapsed() >= Duration::from_secs(2) || !message.contains("Resolved"),
        "only the failure is reported: {message}"
    );
}

#[test]
fn run_with_json_prints_events_on_stderr() {
    let (sandbox, _proxy) = machine();
    let message = sandbox.vx("run --format json -- --version");
    assert!(message.ok().starts_with("rr version "), "stdout is the server's");
    let stderr = message.stderr();
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "finished");
    assert_eq!(last["binaries"].as_array().unwrap().len(), 1);
    assert!(message.stderr().contains(r#""event":"resolved""#));

    let wrong = sandbox.file("velox.toml", "[roadrunner]\nreff = 'v1'\n").vx("run --format json");
    assert!(wrong.fails(2).contains(r#""exit_code":2"#), "{}", wrong.stderr());
    assert_eq!(wrong.stdout(), "");
}
