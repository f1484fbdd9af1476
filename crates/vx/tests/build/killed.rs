//! kill -9 and concurrent builds: the output directory never holds a partial file; the next build succeeds.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use velox_gomod::buildinfo::BuildInfo;

use crate::support::sandbox::{Sandbox, exclusive, long, module_tree};

const CONFIGURATION: &str = r#"
[roadrunner]
ref = "v2025.1.15"

[plugins.logger]
module_name = "github.com/roadrunner-server/logger/v5"
tag = "v5.1.9"

[plugins.rpc]
module_name = "github.com/roadrunner-server/rpc/v5"
tag = "v5.1.9"
"#;

/// When to kill: a delay after the first event of a phase.
const KILL_TIMES: [(&str, u64); 20] = [
    ("resolve", 0),
    ("resolve", 20),
    ("resolve", 60),
    ("fetch", 0),
    ("fetch", 40),
    ("prepare", 0),
    ("prepare", 5),
    ("compile", 0),
    ("compile", 20),
    ("compile", 100),
    ("compile", 300),
    ("link", 0),
    ("link", 30),
    ("link", 100),
    ("link", 400),
    ("link", 800),
    ("verify", 0),
    ("publish", 0),
    ("publish", 3),
    ("publish", 10),
];

fn start(sandbox: &Sandbox, out: &str) -> Child {
    let mut command = sandbox.vx_command(&format!("build -c velox.toml -o {out} --format json -v"));
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Reads events until the phase begins, and drains the rest in a thread; false if the build ended first.
fn reached(child: &mut Child, phase: &str) -> bool {
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let found = events.any(|line| {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        event["event"] == "phase_started" && event["phase"] == phase
    });
    std::thread::spawn(move || events.for_each(drop));
    found
}

/// Asserts that the directory holds a complete binary or none, and otherwise only hidden temporary files.
fn assert_whole(out: &Path) {
    for entry in fs::read_dir(out).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name == "rr" {
            BuildInfo::read(&entry.path()).unwrap();
        } else {
            assert!(name.starts_with(".rr.") && name.ends_with(".tmp"), "{name}");
        }
    }
}

#[test]
fn build_succeeds_after_kill_9_at_any_moment() {
    let Some(_tree) = module_tree("kill -9 at twenty moments of a build") else { return };
    let _exclusive = exclusive();
    let sandbox = Sandbox::new().file("velox.toml", CONFIGURATION);
    let out = sandbox.at("out");
    let mut killed = 0;
    let moments = KILL_TIMES.iter().step_by(long(3, 1));
    let enough = moments.len() * 3 / 4;
    for &(phase, after) in moments {
        let mut child = start(&sandbox, "out");
        if reached(&mut child, phase) {
            std::thread::sleep(Duration::from_millis(after));
            killed += usize::from(child.kill().is_ok());
        }
        child.wait().unwrap();
        assert_whole(&out);
    }
    assert!(killed >= enough, "only {killed} builds were still running when they were to be killed");

    // Kills during downloads into a separate module cache.
    let fetching = Sandbox::new().own_module_cache().file("velox.toml", CONFIGURATION);
    for (phase, after) in [("resolve", 20), ("fetch", 30)] {
        let mut child = start(&fetching, "out");
        assert!(reached(&mut child, phase));
        std::thread::sleep(Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    fetching.vx("build -c velox.toml -o out").ok();

    sandbox.vx("build -c velox.toml -o out").ok();
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["rr"], "unfinished files of killed builds are removed");
    // A go command may briefly outlive its vx and keep writing to a removed workspace.
    sandbox.vx("fetch -c velox.toml").ok();
    let workspaces = fs::read_dir(sandbox.at("../cache/workspaces-v0")).unwrap().count();
    assert_eq!(workspaces, 0, "workspaces of killed builds are removed");
}

#[test]
fn concurrent_builds_in_one_directory_both_succeed() {
    let Some(_tree) = module_tree("two builds at once") else { return };
    let _exclusive = exclusive();
    let sandbox = Sandbox::new().file("velox.toml", CONFIGURATION);
    let (mut one, mut other) = (start(&sandbox, "out"), start(&sandbox, "out"));
    for child in [&mut one, &mut other] {
        assert!(reached(child, "publish"));
    }
    assert!(one.wait().unwrap().success());
    assert!(other.wait().unwrap().success());
    assert_whole(&sandbox.at("out"));
    assert_eq!(fs::read_dir(sandbox.at("out")).unwrap().count(), 1);
}
