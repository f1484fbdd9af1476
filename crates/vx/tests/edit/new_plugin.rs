//! `vx new plugin`: from nothing to a server that answers.

use std::fs;

use crate::support::place::place;
use crate::support::sandbox::Sandbox;
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::ModuleProxy;

const RELEASE: &str = "v2025.0.77";

#[test]
fn what_is_said() {
    let place = place();
    let shown = place.vx(&["new", "plugin", "my-plugin", "--module", "github.com/me/my-plugin"]);
    insta::assert_snapshot!("created", shown);
    let again = place.vx(&["new", "plugin", "my-plugin"]);
    insta::assert_snapshot!("there_already", again);
    let json = place.vx(&["new", "plugin", "other", "--dir", "deep/er", "--format", "json"]);
    assert!(
        json.contains(r#""event":"plugin_created""#) && json.contains(r#""module":"example.com/other""#),
        "{json}"
    );
    assert!(place.path().join("deep/er/.gitignore").is_file());
    let wrong: String = [
        &["new", "plugin", "My_Plugin"][..],
        &["new", "plugin", "func"],
        &["new", "plugin", "fine", "--module", "not a path"],
        &["new", "plugin"],
        &["new"],
    ]
    .iter()
    .map(|arguments| format!("$ vx {}\n{}\n", arguments.join(" "), place.vx(arguments)))
    .collect();
    insta::assert_snapshot!("wrong_names", wrong);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "nothing is left of what was refused");
}

/// The plugin's own tests, then a server with it, which is told by its rpc plugin's neighbour that it started.
#[test]
fn it_passes_its_own_tests_and_compiles_into_a_server() {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::new().own_module_cache().proxy(&proxy.url());
    sandbox.vx(&["new", "plugin", "hello-there"]).ok();
    let unformatted = sandbox.run("gofmt", &["-l", "hello-there"]);
    assert_eq!(unformatted, "");
    sandbox.run("go", &["-C", "hello-there", "vet", "./..."]);
    let tested = sandbox.run("go", &["-C", "hello-there", "test", "-count=1", "-v", "./..."]);
    assert!(tested.contains("--- PASS: TestWhole") && !tested.contains("FAIL"), "{tested}");
    let untidy = sandbox.run("go", &["-C", "hello-there", "mod", "tidy", "-diff"]);
    assert_eq!(untidy, "", "its go.mod and go.sum are complete");

    sandbox.vx(&["build", "--roadrunner", RELEASE, "--with", "./hello-there"]).ok();
    let info = BuildInfo::read(&sandbox.path().join("rr")).unwrap();
    let plugin = info.deps.iter().find(|module| module.path == "example.com/hello-there").unwrap();
    assert!(plugin.replace.is_some(), "it is the directory's");
}

/// As its README says, with the small RoadRunner in the place of the real one.
#[cfg(unix)]
#[test]
fn it_runs_in_the_server_that_comes_with_it() {
    use std::{
        io::{BufRead, BufReader, Read},
        process::Stdio,
    };

    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    let sandbox = Sandbox::new().own_module_cache().proxy(&proxy.url());
    sandbox.vx(&["new", "plugin", "hello", "--dir", "."]).ok();
    // No port that another test has.
    let rr = fs::read_to_string(sandbox.path().join(".rr.yaml")).unwrap();
    let sandbox = sandbox.file(".rr.yaml", rr.replace("tcp://127.0.0.1:6001", "unix://rr.sock"));

    let mut child = sandbox
        .command(env!("CARGO_BIN_EXE_vx"), &["run", "--roadrunner", RELEASE, "serve"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut started = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut started).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{started}{said}");
    assert!(said.contains(r#""greeting": "Hello""#), "{said}");
    assert!(said.contains(r#""hello""#), "the rpc plugin has it: {said}");
}
