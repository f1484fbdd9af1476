//! The compile cache that a team shares.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::support::sandbox::{Ran, Sandbox};
use serde_json::Value;
use velox_testkit::ModuleProxy;

const CONFIGURATION: &str = "[roadrunner]\nref = \"v2025.0.77\"\n\n[plugins.hello]\nmodule_name = \"example.com/acme/hello\"\ntag = \"v1.0.0\"\n";
const BUILD: [&str; 5] = ["build", "-o", "out", "--format", "json"];

fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner("v2025.0.77").plugin("example.com/acme/hello", "v1.0.0");
    proxy
}

fn machine(proxy: &ModuleProxy, configuration: &str) -> Sandbox {
    Sandbox::new().own_module_cache().proxy(&proxy.url()).file("velox.toml", configuration)
}

/// `compile_cache` of the last event.
fn did(ran: &Ran) -> Value {
    let events = ran.ok();
    let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "finished");
    last["compile_cache"].clone()
}

/// The packages that were compiled.
fn compiled(ran: &Ran) -> Vec<String> {
    let events = ran.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let compiled = events.iter().filter(|event| event["event"] == "progress" && event["phase"] == "compile");
    compiled.map(|event| event["item"].as_str().unwrap().to_owned()).collect()
}

fn server(sandbox: &Sandbox) -> Vec<u8> {
    fs::read(sandbox.path().join("out/rr")).unwrap()
}

#[test]
fn what_one_machine_compiled_no_other_compiles() {
    let proxy = proxy();
    let remote = tempfile::tempdir().unwrap();
    let configuration = format!("{CONFIGURATION}\n[cache]\nremote = \"{}\"\n", remote.path().display());
    let first = machine(&proxy, &configuration);
    let filled = did(&first.vx(&BUILD));
    assert!(filled["bytes_up"].as_u64() > Some(0) && filled["remote_hits"] == 0, "{filled}");
    assert_eq!(filled["trouble"], Value::Null);

    // Another machine, with nothing but the lock.
    let other = machine(&proxy, &configuration)
        .file("velox.lock", fs::read_to_string(first.path().join("velox.lock")).unwrap());
    let gocache = other.path().join("gocache");
    let other = other.env("GOCACHE", &gocache).env("VX_REMOTE_CACHE_READ_ONLY", "1");
    let used = did(&other.vx(&BUILD));
    assert!(used["remote_hits"].as_u64() > Some(100) && used["bytes_down"].as_u64() > Some(0), "{used}");
    assert_eq!((&used["bytes_up"], &used["trouble"]), (&Value::from(0), &Value::Null));
    assert!(server(&first) == server(&other), "the two servers differ");

    // What came is the go command's own: without the remote nothing is compiled either, but what is new.
    let off = [&BUILD[..], &["--remote-cache", "off", "--no-cache", "-vv"]].concat();
    assert_eq!(compiled(&other.vx(&off)), [""; 0]);
    proxy.plugin("example.com/acme/bye", "v1.0.0");
    let more = "\n[plugins.bye]\nmodule_name = \"example.com/acme/bye\"\ntag = \"v1.0.0\"\n";
    let other = other.file("velox.toml", configuration + more);
    let packages = compiled(&other.vx(&off));
    assert!(packages.contains(&"example.com/acme/bye".to_owned()) && packages.len() < 10, "{packages:?}");
    let told = other.vx(&["build", "-o", "out", "--no-cache"]);
    told.ok();
    assert!(told.stderr().contains("from here, "), "{}", told.stderr());
}

#[test]
fn a_remote_that_is_dead_or_silent_stops_no_build() {
    let proxy = proxy();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let held = std::thread::spawn(move || {
        // Every connection is taken, and never answered.
        silent.incoming().take(64).collect::<Vec<_>>()
    });
    let sandbox = machine(&proxy, CONFIGURATION);
    let since = Instant::now();
    sandbox.vx(&BUILD).ok();
    let plain = since.elapsed();
    let mut sandbox = sandbox
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "a-secret-key")
        .env("AWS_REGION", "here");
    for endpoint in ["http://127.0.0.1:1", silent_url.as_str()] {
        sandbox = sandbox.env("AWS_ENDPOINT", endpoint);
        let since = Instant::now();
        let arguments = ["--no-cache", "--remote-cache", "s3://bucket/prefix"];
        let ran = sandbox.vx(&[&BUILD[..], &arguments].concat());
        let trouble = did(&ran)["trouble"].as_str().unwrap().to_owned();
        assert!(trouble.contains("the remote was given up"), "{trouble}");
        assert!(since.elapsed() < plain * 2 + Duration::from_secs(15), "{:?}, {plain:?}", since.elapsed());
        assert!(!ran.stdout().contains("a-secret-key") && !ran.stderr().contains("a-secret-key"));
    }
    let told = sandbox.vx(&["build", "-o", "out", "--no-cache", "--remote-cache", "s3://bucket/prefix"]);
    told.ok();
    assert!(told.stderr().contains("Cached") && told.stderr().contains("given up"), "{}", told.stderr());
    // A place that can't be written: a folder below a file.
    let file = sandbox.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("cache").display().to_string();
    let ran = sandbox.vx(&[&BUILD[..], &["--no-cache", "--remote-cache", &below]].concat());
    assert!(did(&ran)["trouble"].is_string(), "{}", ran.stdout());
    drop(held);
}
