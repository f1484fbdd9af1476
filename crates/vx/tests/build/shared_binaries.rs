//! Finished binaries in the caches that a team shares.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use serde_json::Value;
use velox_testkit::ModuleProxy;

use crate::support::sandbox::{Sandbox, acme_proxy, compile_cache_of, configuration};

fn with_cache(lines: &str) -> String {
    format!("{}\n[cache]\n{lines}\n", configuration("hello@v1.0.0"))
}

/// A machine without Go, without modules and without a network, which has only a configuration and a lock.
fn empty_machine(text: &str, lock: &str) -> Sandbox {
    let sandbox = Sandbox::new().own_caches().file("velox.toml", text).file("velox.lock", lock);
    let no_programs = sandbox.at("no-programs");
    sandbox.env("PATH", no_programs).env("GOPROXY", "off")
}

/// A machine that compiles.
fn machine(proxy: &ModuleProxy, text: &str) -> Sandbox {
    Sandbox::behind(proxy).file("velox.toml", text)
}

/// The stored binaries of a shared directory.
fn stored(remote: &Path) -> Vec<PathBuf> {
    let entries = |directory: PathBuf| -> Vec<PathBuf> {
        fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let shards = entries(remote.join("v1/artifacts"));
    shards.into_iter().flat_map(entries).flat_map(entries).collect()
}

#[test]
fn binary_of_another_machine_needs_no_go_and_no_modules() {
    let proxy = acme_proxy();
    let remote = tempfile::tempdir().unwrap();
    let text = with_cache(&format!("remote = \"{}\"", remote.path().display()));
    let first = machine(&proxy, &text);
    let report = compile_cache_of(&first.vx("build -o out --sbom cyclonedx --format json"));
    assert_eq!((&report["binaries"], &report["trouble"]), (&Value::from(0), &Value::Null));
    assert_eq!(stored(remote.path()).len(), 1);

    let lock = first.read("velox.lock");
    let other = empty_machine(&text, &lock);
    let ran = other.vx("build --locked -o out --sbom cyclonedx --archive --format json");
    let report = compile_cache_of(&ran);
    assert_eq!((&report["binaries"], &report["misses"]), (&Value::from(1), &Value::from(0)), "{report}");
    assert!(report["bytes_down"].as_u64() > Some(0), "{report}");
    assert_eq!(ran.events().pop().unwrap()["binaries"][0]["reused"], true);
    assert!(first.bytes("out/rr") == other.bytes("out/rr"), "the binaries differ");
    assert_eq!(first.read("out/rr.cdx.json"), other.read("out/rr.cdx.json"));
    for cache in ["GOMODCACHE", "GOCACHE"] {
        assert!(!Path::new(&other.value(cache)).exists(), "{cache} was used");
    }
    // From now on it is in the store of this machine.
    fs::remove_dir_all(remote.path()).unwrap();
    other.vx("build --locked -o out").ok();

    // Also with --offline: a directory is not the network.
    let remote = tempfile::tempdir().unwrap();
    first.vx(&format!("build -o out --no-cache --remote-cache {}", remote.path().display())).ok();
    let third = empty_machine(&text, &lock);
    third
        .vx(&format!("build --offline -o out --remote-cache {}", remote.path().display()))
        .succeeds_with(&["downloading the binary", "1 binary from the shared cache"]);
    let ran = third.run("out/rr --version");
    assert!(ran.contains("2025.0.77"), "{ran}");
}

#[test]
fn binaries_are_not_shared_on_request_and_not_written_read_only() {
    let proxy = acme_proxy();
    let remote = tempfile::tempdir().unwrap();
    let location = format!("remote = \"{}\"", remote.path().display());
    let without = with_cache(&format!("{location}\nartifacts = false"));
    machine(&proxy, &without).vx("build -o out").ok();
    assert!(stored(remote.path()).is_empty() && remote.path().join("v1/packs").exists());
    let text = with_cache(&location);
    machine(&proxy, &text).env("VX_REMOTE_CACHE_READ_ONLY", "1").vx("build -o out").ok();
    assert!(stored(remote.path()).is_empty());

    let first = machine(&proxy, &text);
    first.vx("build -o out").ok();
    assert_eq!(stored(remote.path()).len(), 1);
    let other = empty_machine(&without, &first.read("velox.lock"));
    other.vx("build -o out").fails_with(1, &["no go command"]);
}

#[test]
fn damaged_binary_is_compiled_and_replaced() {
    let proxy = acme_proxy();
    let remote = tempfile::tempdir().unwrap();
    let text = with_cache(&format!("remote = \"{}\"", remote.path().display()));
    let first = machine(&proxy, &text);
    first.vx("build -o out").ok();
    let lock = first.read("velox.lock");
    let [stored] = stored(remote.path()).try_into().unwrap();
    let good = fs::read(&stored).unwrap();
    let other_key =
        String::from_utf8_lossy(&good).split('\n').next().unwrap().replace("\"key\":\"", "\"key\":\"0");
    let header = good.iter().position(|byte| *byte == b'\n').unwrap();
    let mut changed = good.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 0xff;
    for (content, why) in [
        (changed, "checksum mismatch in rr"),
        (good[..good.len() / 2].to_vec(), "truncated"),
        ([other_key.as_bytes(), &good[header..]].concat(), "another key"),
        (Vec::new(), "invalid header"),
    ] {
        fs::write(&stored, content).unwrap();
        let other = machine(&proxy, &text).file("velox.lock", &lock);
        let trouble = compile_cache_of(&other.vx("build -o out --format json"))["trouble"].to_string();
        assert!(trouble.contains("damaged binary in the remote cache") && trouble.contains(why), "{trouble}");
        assert!(first.bytes("out/rr") == other.bytes("out/rr"), "the binaries differ");
        empty_machine(&text, &lock).vx("build -o out").ok();
    }
    // An intact binary, but of another configuration.
    let bye = machine(&proxy, &text.replace("hello", "bye"));
    bye.vx("build -o out").ok();
    let foreign = self::stored(remote.path()).into_iter().find(|path| *path != stored).unwrap();
    let foreign = fs::read(foreign).unwrap();
    let end = foreign.iter().position(|byte| *byte == b'\n').unwrap();
    let (good, mut header): (Value, Value) =
        (serde_json::from_slice(&good[..header]).unwrap(), serde_json::from_slice(&foreign[..end]).unwrap());
    header["key"] = good["key"].clone();
    header["configuration"] = good["configuration"].clone();
    fs::write(&stored, [header.to_string().as_bytes(), &foreign[end..]].concat()).unwrap();
    empty_machine(&text, &lock).vx("build -o out").fails_with(1, &["no go command"]);
    let other = machine(&proxy, &text).file("velox.lock", &lock);
    other.vx("build -o out").succeeds_with(&["it is not the binary of this lock"]);
    assert!(first.bytes("out/rr") == other.bytes("out/rr"), "the binaries differ");
}

#[test]
fn silent_cache_is_given_up_and_not_asked_again() {
    let proxy = acme_proxy();
    let first = machine(&proxy, &with_cache(""));
    first.vx("build -o out").ok();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    std::thread::spawn(move || silent.incoming().take(64).collect::<Vec<_>>());
    let other = machine(&proxy, &with_cache("remote = \"s3://bucket/prefix\""))
        .file("velox.lock", first.read("velox.lock"))
        .env("AWS_ENDPOINT", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "a-secret-key")
        .env("AWS_REGION", "here");
    let report = compile_cache_of(&other.vx("build -o out --format json"));
    let (trouble, hits) = (report["trouble"].as_str().unwrap(), &report["local_hits"]);
    assert_eq!(trouble, "remote cache disabled: looking for a binary took longer than 5 s");
    assert_eq!(*hits, 0, "the compile cache was not used: {report}");
}

#[test]
fn several_caches_are_asked_in_order_and_the_first_is_written() {
    let proxy = acme_proxy();
    let (own, team) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (own, team) = (own.path(), team.path());
    let first = machine(&proxy, &with_cache(&format!("remote = \"{}\"", team.display())));
    first.vx("build -o out").ok();
    let lock = first.read("velox.lock");
    let count = |directory: &Path| file_count(&directory.join("v1"));
    let filled = count(team);

    let chain = with_cache(&format!("remotes = [\"{}\", \"{}\"]", own.display(), team.display()));
    let report = compile_cache_of(&empty_machine(&chain, &lock).vx("build -o out --format json"));
    assert_eq!(report["binaries"], 1, "{report}");
    // Another stamp is another binary, of the same packages.
    let other = machine(&proxy, &chain).file("velox.lock", &lock);
    let gocache = other.at("gocache");
    let other = other.env("GOCACHE", gocache);
    let report = compile_cache_of(&other.vx("build -o out --stamp-version other --format json"));
    assert!(report["remote_hits"].as_u64() > Some(50) && report["trouble"].is_null(), "{report}");
    assert_eq!(count(team), filled, "only the first cache is written");
    assert_eq!(stored(own).len(), 1);

    // The own cache has all of it now.
    let third =
        machine(&proxy, &with_cache(&format!("remote = \"{}\"", own.display()))).file("velox.lock", &lock);
    let gocache = third.at("gocache");
    let third = third.env("GOCACHE", gocache);
    let report = compile_cache_of(&third.vx("build -o out --stamp-version third --format json"));
    assert!(report["remote_hits"].as_u64() > Some(50), "{report}");

    let both = with_cache("remote = \"a\"\nremotes = [\"b\"]");
    machine(&proxy, &both)
        .vx("build")
        .fails_with(2, &["`remote` and `remotes` are both set", "a single one"]);
    machine(&proxy, &with_cache("remotes = [\"ftp://host/x\"]"))
        .vx("build")
        .fails_with(2, &["velox.toml:", "ftp://host/x"]);
}

/// The number of files below a directory.
fn file_count(directory: &Path) -> usize {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { file_count(&path) } else { 1 })
        .sum()
}
