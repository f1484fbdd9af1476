//! The compile cache shared by a team.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::sandbox::{CommandOutput, Sandbox, acme_proxy, compile_cache_of, configuration};

fn compiled(output: &CommandOutput) -> Vec<String> {
    output.ok();
    let events = output.events().into_iter();
    let is_package = |event: &Value| event["phase"] == "compile" && event["done"].as_u64() > Some(0);
    let compiled = events.filter(|event| event["event"] == "progress" && is_package(event));
    compiled.map(|event| event["item"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn remote_cache_spares_other_machines_the_compile() {
    let proxy = acme_proxy();
    let remote = tempfile::tempdir().unwrap();
    let text = configuration("hello@v1.0.0")
        + &format!("\n[cache]\nremote = \"{}\"\nartifacts = false\n", remote.path().display());
    let first = Sandbox::behind(&proxy).file("velox.toml", &text);
    let filled = compile_cache_of(&first.vx("build -o out --format json"));
    assert!(filled["bytes_up"].as_u64() > Some(0) && filled["remote_hits"] == 0, "{filled}");
    assert_eq!(filled["trouble"], Value::Null);

    // Another machine with only the lock.
    let other =
        Sandbox::behind(&proxy).file("velox.toml", &text).file("velox.lock", first.read("velox.lock"));
    let gocache = other.at("gocache");
    let other = other.env("GOCACHE", &gocache).env("VX_REMOTE_CACHE_READ_ONLY", "1");
    let used = compile_cache_of(&other.vx("build -o out --format json"));
    assert!(used["remote_hits"].as_u64() > Some(50) && used["bytes_down"].as_u64() > Some(0), "{used}");
    assert_eq!((&used["bytes_up"], &used["trouble"]), (&Value::from(0), &Value::Null));
    assert!(first.bytes("out/rr") == other.bytes("out/rr"), "the two servers differ");

    // GOCACHE has the downloaded packages: without the remote only new ones are compiled.
    let off = "build -o out --format json --remote-cache off --no-cache -vv";
    assert_eq!(compiled(&other.vx(off)), [""; 0]);
    let other = other.plugins("hello@v1.0.0 bye@v1.0.0");
    let packages = compiled(&other.vx(off));
    assert!(packages.contains(&"example.com/acme/bye".to_owned()) && packages.len() < 10, "{packages:?}");
    let other = other.file("velox.toml", &text);
    other.vx("build -o out --no-cache").succeeds_with(&[" local hits, "]);
}

#[test]
fn dead_or_silent_remote_cache_fails_no_build() {
    let proxy = acme_proxy();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let held = std::thread::spawn(move || {
        // Accepts every connection and never responds.
        silent.incoming().take(64).collect::<Vec<_>>()
    });
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("build -o out --format json").ok();
    let mut sandbox = sandbox
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "a-secret-key")
        .env("AWS_REGION", "here");
    for endpoint in ["http://127.0.0.1:1", silent_url.as_str()] {
        sandbox = sandbox.env("AWS_ENDPOINT", endpoint);
        let ran = sandbox.vx("build -o out --format json --no-cache --remote-cache s3://bucket/prefix");
        let trouble = compile_cache_of(&ran)["trouble"].as_str().unwrap().to_owned();
        assert!(trouble.contains("remote cache disabled"), "{trouble}");
        assert!(!ran.stdout().contains("a-secret-key") && !ran.stderr().contains("a-secret-key"));
    }
    sandbox
        .vx("build -o out --no-cache --remote-cache s3://bucket/prefix")
        .succeeds_with(&["Cached", "remote cache disabled"]);
    // An unwritable location: a directory below a file.
    let sandbox = sandbox.file("file", "");
    let ran = sandbox.vx("build -o out --format json --no-cache --remote-cache ./file/cache");
    assert!(compile_cache_of(&ran)["trouble"].is_string(), "{}", ran.stdout());
    drop(held);
}
