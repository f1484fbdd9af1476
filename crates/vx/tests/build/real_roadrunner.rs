//! The real RoadRunner, from the module tree that VX_TEST_GOPROXY names.
//!
//! One cold build of all 35 plugins, whose caches the other tests reuse. With VX_TEST_COLD=1 (`make
//! acceptance`) each test starts with empty caches.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Instant};

use serde_json::Value;
use velox_gomod::{buildinfo::BuildInfo, modfile::GoMod, semver};
use velox_manifest::catalogue;

use crate::support::sandbox::{Sandbox, exclusive, long, module_tree, skip};

const ALL_35: &str = include_str!("../real-35-plugins.toml");
const V3: &str = include_str!("../real-v3.toml");
const MANUAL: &str = include_str!("../manual.toml");

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    if std::env::var_os("VX_TEST_COLD").is_some() { sandbox.cold() } else { sandbox }
}

fn build(sandbox: &Sandbox, arguments: &str) -> std::path::PathBuf {
    let since = Instant::now();
    sandbox.vx(&format!("build -o out {arguments}")).ok();
    println!("vx build {arguments}: {:.1} s", since.elapsed().as_secs_f64());
    sandbox.at("out/rr")
}

/// The module versions in a binary, by module path.
fn versions(binary: &Path) -> BTreeMap<String, String> {
    let info = BuildInfo::read(binary).unwrap();
    info.deps.into_iter().map(|module| (module.path, module.version)).collect()
}

/// The versions in a release's go.mod, by module path.
fn release(tree: &Path, module: &str, version: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(tree.join(format!("{module}/@v/{version}.mod"))).unwrap();
    GoMod::parse(&text).unwrap().require.into_iter().map(|line| (line.path, line.version)).collect()
}

/// The tags of the `[plugins.NAME]` tables, by module path.
fn configured_tags(text: &str) -> BTreeMap<String, String> {
    let value = |line: &str| line.split('"').nth(1).unwrap().to_owned();
    let tags = text.lines().filter(|line| line.starts_with("tag")).map(value);
    let modules = text.lines().filter(|line| line.starts_with("module_name")).map(value);
    modules.zip(tags).collect()
}

#[test]
fn all_35_plugins_build_at_exact_versions() {
    let Some(tree) = module_tree("the real RoadRunner with all its plugins") else { return };
    let _exclusive = exclusive();
    let sandbox = sandbox().file("velox.toml", ALL_35);
    let binary = build(&sandbox, "-c velox.toml");

    let version = sandbox.run("out/rr --version");
    assert!(version.contains("2025.1.15 "), "{version}");
    let inside = versions(&binary);
    let asked = configured_tags(ALL_35);
    assert_eq!(asked.len(), 35);
    for (module, tag) in &asked {
        assert_eq!(inside.get(module), Some(tag), "{module}");
    }
    let release = release(&tree, "github.com/roadrunner-server/roadrunner/v2025", "v2025.1.15");
    let strangers: Vec<_> =
        inside.iter().filter(|(path, version)| release.get(*path) != Some(*version)).collect();
    assert!(strangers.is_empty(), "not what the release's go.mod names: {strangers:?}");
    assert!(inside.len() > 150, "{} modules", inside.len());

    // As `endure: {print_graph: true}` prints them.
    let since = Instant::now();
    let dot = sandbox.vx("graph --format dot").ok();
    println!("vx graph: {:.1} s", since.elapsed().as_secs_f64());
    assert_eq!(dot.lines().filter(|line| line.contains(" -> ")).count(), 134, "{dot}");
    let since = Instant::now();
    assert_eq!(sandbox.vx("graph --format dot").ok(), dot);
    println!("vx graph again: {:.3} s", since.elapsed().as_secs_f64());
    assert!(!sandbox.vx("graph").ok().contains("does not start"));
}

/// Plugins of all sizes; the first two are the ones that share most with other plugins.
const PREDICTED: [&str; 10] = [
    "otel",
    "kafka",
    "roadrunner_temporal",
    "redis",
    "http",
    "google_pub_sub",
    "fileserver",
    "nats",
    "sqs",
    "grpc",
];

#[test]
fn predicted_sizes_are_those_of_real_builds() {
    let Some(_tree) = module_tree("the sizes of the real RoadRunner without some plugins") else { return };
    let _exclusive = exclusive();
    let sandbox = sandbox().file("velox.toml", ALL_35);
    sandbox.vx("lock -q").ok();
    let size = |arguments: &str| -> Value {
        let since = Instant::now();
        let events = sandbox.vx(&format!("size --format json {arguments}")).events();
        println!("vx size {arguments}: {:.1} s", since.elapsed().as_secs_f64());
        events.into_iter().find(|event| event["event"] == "size").unwrap()
    };
    let bytes = |binary: &Path| fs::metadata(binary).unwrap().len();
    let all = size("");
    let real = bytes(&build(&sandbox, "-q"));
    assert!(all["total"].as_u64().unwrap().abs_diff(real) < real / 1000, "{} or {real}", all["total"]);
    for name in &PREDICTED[..long(2, PREDICTED.len())] {
        let predicted = size(&format!("--without {name}"))["prediction"]["bytes"].as_u64().unwrap();
        let real = bytes(&build(&sandbox, &format!("-q --without {name}")));
        let error = (predicted as f64 - real as f64) / real as f64 * 100.0;
        println!("without {name}: predicted {predicted}, built {real}: {error:+.2} %");
        assert!(error.abs() < 5.0, "{name}: {error} %");
    }
}

/// Differences of another Go version or machine.
const SIZE_TOLERANCE_BYTES: u64 = 30_000;

/// The catalogue's sizes of plugins are those of the releases. `INSTA_UPDATE=always` writes them.
#[test]
fn the_sizes_of_the_catalogue_are_measured() {
    let Some(_tree) = module_tree("the sizes of the real plugins") else { return };
    let _exclusive = exclusive();
    let mut measured: BTreeMap<String, u64> = BTreeMap::new();
    for configuration in [ALL_35, V3] {
        let sandbox = sandbox().file("velox.toml", configuration);
        let events = sandbox.vx("size --format json --target linux/amd64").events();
        let size = events.iter().find(|event| event["event"] == "size").unwrap();
        let plugins = size["plugins"].as_array().unwrap().iter();
        measured.extend(plugins.map(|plugin| {
            let bytes = plugin["exclusive"].as_u64().unwrap();
            (plugin["module"].as_str().unwrap().to_owned(), bytes.next_multiple_of(1000))
        }));
    }
    // RoadRunner imports some plugins itself.
    measured.retain(|_, bytes| *bytes > 0);
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let lines: String =
            measured.iter().map(|(module, bytes)| format!("\"{module}\" = {bytes}\n")).collect();
        let text = format!(
            "# Bytes of packages that only this plugin imports, in a binary with all plugins of its RoadRunner release for\n\
             # linux/amd64. Written by `INSTA_UPDATE=always cargo test -p vx --test build -- sizes_of_the_catalogue`.\n\n{lines}"
        );
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../velox-manifest/sizes.toml");
        fs::write(file, text).unwrap();
        return;
    }
    for (module, bytes) in measured {
        let known = catalogue::plugin_size(&module).unwrap_or_else(|| panic!("{module} has no size"));
        let tolerance = SIZE_TOLERANCE_BYTES.max(bytes / 10);
        assert!(known.abs_diff(bytes) < tolerance, "{module}: {known} in the catalogue, {bytes} measured");
    }
}

#[test]
fn manual_plugins_build_on_their_release() {
    let Some(_tree) = module_tree("the manual's plugins on RoadRunner v2024.2.1") else { return };
    let _exclusive = exclusive();
    // The example's GitLab plugins belong to the GitLab projects of its author.
    let github = MANUAL.split("[gitlab]").next().unwrap();
    let text = github.replacen("ref = \"master\"", "ref = \"v2024.2.1\"", 1);
    let sandbox = sandbox().file("velox.toml", text);
    let binary = build(&sandbox, "-c velox.toml");

    let version = sandbox.run("out/rr --version");
    assert!(version.contains("2024.2.1 "), "{version}");
    let inside = versions(&binary);
    let mut checked = 0;
    for line in github.lines().filter(|line| line.contains("owner = ")) {
        let quoted: Vec<&str> = line.split('"').collect();
        let (tag, owner, repository) = (quoted[1], quoted[3], quoted[5]);
        assert_eq!(
            inside.get(&format!("github.com/{owner}/{repository}/v5")).map(String::as_str),
            Some(tag),
            "{line}"
        );
        checked += 1;
    }
    assert_eq!(checked, 32);
}

const SMALL: &str = r#"
[roadrunner]
ref = "v2025.1.15"

[github.plugins]
http = { ref = "v5.3.0", owner = "roadrunner-server", repository = "http" }
server = { ref = "v5.2.10", owner = "roadrunner-server", repository = "server" }
rpc = { ref = "v5.1.9", owner = "roadrunner-server", repository = "rpc" }
logger = { ref = "v5.1.9", owner = "roadrunner-server", repository = "logger" }
"#;

#[test]
fn four_plugins_serve_a_php_request() {
    let Some(_tree) = module_tree("a small server with a PHP worker") else { return };
    if Command::new("php").arg("--version").output().is_err() {
        return skip("a small server with a PHP worker", "there is no php on the PATH (Debian: php-cli)");
    }
    let _exclusive = exclusive();
    let sandbox = sandbox().file("velox.toml", SMALL);
    let binary = build(&sandbox, "-c velox.toml");
    answers_with_php(&binary, &sandbox);
}

/// Starts the server with a PHP worker: an HTTP request, `rr workers` and `rr reset`.
fn answers_with_php(binary: &Path, sandbox: &Sandbox) {
    let mut server = velox_testkit::worker::serve(binary, &sandbox.path()).unwrap();
    let answer = server.get("/").unwrap();
    assert!(answer.contains("hello"), "{answer}");
    let workers = server.command("workers").unwrap();
    assert!(workers.contains("Workers of [http]"), "{workers}");
    let reset = server.command("reset").unwrap();
    assert!(reset.to_lowercase().contains("http"), "{reset}");
    assert!(server.get("/").unwrap().contains("hello"));
    server.stop().unwrap();
}

#[test]
fn an_older_plugin_lowers_only_what_it_does_not_compile_with() {
    let Some(tree) = module_tree("an older http on RoadRunner v2025.1.15") else { return };
    let _exclusive = exclusive();
    let sandbox = sandbox().file("velox.toml", SMALL.replace("v5.3.0", "v5.2.0"));
    let inside = versions(&build(&sandbox, "-c velox.toml"));
    assert_eq!(inside["github.com/roadrunner-server/http/v5"], "v5.2.0");
    let release = release(&tree, "github.com/roadrunner-server/roadrunner/v2025", "v2025.1.15");
    let lower = inside.iter().filter(|(path, version)| {
        release.get(*path).is_some_and(|tested| semver::compare(version, tested).is_lt())
    });
    // http v5.2.0 calls a function that is a constant in the otelhttp of this release.
    let lock = sandbox.read("velox.lock");
    assert!(lock.contains("[[lowered]]"), "{lock}");
    for (module, version) in lower.filter(|(module, _)| !module.ends_with("/http/v5")) {
        let told = format!("module = \"{module}\"\nfrom = \"{}\"\nto = \"{version}\"", release[module]);
        assert!(lock.contains(&told), "{told}");
    }
}

#[test]
fn roadrunner_3_has_its_own_majors_of_informer_and_resetter() {
    let Some(_tree) = module_tree("RoadRunner 3") else { return };
    let _exclusive = exclusive();
    let sandbox = sandbox().file("velox.toml", V3);
    let binary = build(&sandbox, "-c velox.toml");

    let inside = versions(&binary);
    for (module, tag) in &configured_tags(V3) {
        assert_eq!(inside.get(module), Some(tag), "{module}");
    }
    for name in ["informer", "resetter"] {
        let module = format!("github.com/roadrunner-server/{name}");
        assert!(inside.contains_key(&format!("{module}/v6")), "{name}");
        assert!(!inside.contains_key(&format!("{module}/v5")), "{name}");
    }
    if Command::new("php").arg("--version").output().is_err() {
        return skip("RoadRunner 3 with a PHP worker", "there is no php on the PATH (Debian: php-cli)");
    }
    answers_with_php(&binary, &sandbox);
}

#[test]
fn cross_compiled_binaries_have_native_formats_and_names() {
    let Some(_tree) = module_tree("other targets") else { return };
    let _exclusive = exclusive();
    let sandbox = sandbox().file("velox.toml", SMALL);
    // The magic number of the file header, and the machine type if the format has one.
    for (target, name, magic, machine) in [
        ("linux/arm64", "rr", &b"\x7fELF"[..], (18, &b"\xb7\x00"[..])),
        ("darwin/arm64", "rr", &b"\xcf\xfa\xed\xfe"[..], (4, &b"\x0c\x00\x00\x01"[..])),
        ("windows/amd64", "rr.exe", &b"MZ"[..], (0, &b"MZ"[..])),
    ] {
        let out = format!("out-{}", target.replace('/', "-"));
        sandbox.vx(&format!("build -c velox.toml -o {out} --target {target}")).ok();
        let file = sandbox.at(&out).join(name);
        let bytes = fs::read(&file).unwrap();
        assert!(bytes.starts_with(magic), "{target}");
        assert!(bytes[machine.0..].starts_with(machine.1), "{target}");
        let settings: BTreeMap<_, _> = BuildInfo::read(&file).unwrap().settings.into_iter().collect();
        assert_eq!(format!("{}/{}", settings["GOOS"], settings["GOARCH"]), target);
        assert_eq!(sandbox.entries(&out).len(), 1);
    }
}
