//! `vx new plugin`: from an empty directory to a running binary.

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy, assert_contains};

#[test]
fn new_plugin_reports_what_it_created() {
    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    // Only this proxy: otherwise the newest release would be a real one.
    let sandbox = Sandbox::behind(&proxy).env("GOPROXY", proxy.url());
    let shown = sandbox.vx_shown("new plugin my-plugin --module github.com/me/my-plugin");
    insta::assert_snapshot!("created", shown);
    let again = sandbox.vx_shown("new plugin my-plugin");
    insta::assert_snapshot!("there_already", again);
    let json = sandbox.vx_shown("new plugin other --dir deep/er --format json");
    assert!(
        json.contains(r#""event":"plugin_created""#) && json.contains(r#""module":"example.com/other""#),
        "{json}"
    );
    assert!(sandbox.has("deep/er/.gitignore"));
    let wrong: String = [
        "new plugin My_Plugin",
        "new plugin func",
        "new plugin fine --module 'not a path'",
        "new plugin",
        "new",
    ]
    .iter()
    .map(|line| format!("$ vx {line}\n{}\n", sandbox.vx_shown(line)))
    .collect();
    insta::assert_snapshot!("wrong_names", wrong);
    assert_eq!(sandbox.entries("."), ["deep", "my-plugin"], "nothing is left of what was refused");
}

/// The plugin's own tests, then a binary with it.
#[test]
fn new_plugin_passes_its_tests_and_compiles() {
    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::behind(&proxy);
    sandbox.vx("new plugin hello-there").ok();
    let unformatted = sandbox.run("gofmt -l hello-there");
    assert_eq!(unformatted, "");
    sandbox.run("go -C hello-there vet ./...");
    let tested = sandbox.run("go -C hello-there test -count=1 -v ./...");
    assert!(tested.contains("--- PASS: TestWhole") && !tested.contains("FAIL"), "{tested}");
    let untidy = sandbox.run("go -C hello-there mod tidy -diff");
    assert_eq!(untidy, "", "its go.mod and go.sum are complete");

    sandbox.vx(&format!("build --roadrunner {RELEASE} --with ./hello-there")).ok();
    let plugin = sandbox.module_in("rr", "example.com/hello-there").unwrap();
    assert!(plugin.contains(" => "), "it is not the directory's: {plugin}");
}

/// The steps of its README, with the small RoadRunner in place of the real one.
#[cfg(unix)]
#[test]
fn new_plugin_runs_in_its_server() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::Stdio,
    };

    let proxy = acme_proxy();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::behind(&proxy);
    sandbox.vx("new plugin hello --dir .").ok();
    // A port that no other test uses.
    let rr = sandbox.read(".rr.yaml");
    let sandbox = sandbox.file(".rr.yaml", rr.replace("tcp://127.0.0.1:6001", "unix://rr.sock"));

    let mut child = sandbox
        .vx_command(&format!("run --roadrunner {RELEASE} serve"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut started = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut started).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{started}{message}");
    assert_contains(&message, &[r#""greeting": "Hello""#, r#""hello""#]);
}
