//! The tables of docs/migrating-from-velox.md: every row names its test in a hidden comment, either one of this file or
//! `FILE TEST`, a test of another file.

#![cfg(target_os = "linux")]

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::LazyLock};

use serde_json::{Value, json};
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

use crate::support::{
    book::{page, top},
    sandbox::{CommandOutput, RELEASE, Sandbox, acme_proxy, assert_contains},
    service::{Answer, Service},
};

const PAGE: &str = "docs/migrating-from-velox.md";
const CALL: &str = "/api.service.v1.BuildService/Build";

/// One test for each row, and the list of their names.
macro_rules! rows {
    ($($test:ident $body:block)*) => {
        $(#[test] fn $test() $body)*
        const ROWS: &[&str] = &[$(stringify!($test)),*];
    };
}

/// The rows of the page's tables, each with its line and the content of its comment.
fn documented_rows() -> Vec<(String, String)> {
    let text = page(PAGE).text;
    let mut lines = text.lines().enumerate().peekable();
    let mut rows = Vec::new();
    while let Some((at, line)) = lines.next() {
        let is_head = lines.peek().is_some_and(|(_, next)| next.starts_with("|---"));
        if !line.starts_with('|') || line.starts_with("|---") || is_head {
            continue;
        }
        let place = format!("{PAGE}:{}", at + 1);
        let comment = line.split_once("<!-- ").and_then(|(_, rest)| rest.split_once(" -->"));
        let (test, _) = comment.unwrap_or_else(|| panic!("{place}: a row without a test"));
        rows.push((place, test.to_owned()));
    }
    rows
}

#[test]
fn every_row_has_a_test_and_every_test_a_row() {
    let mut seen = BTreeSet::new();
    for (place, test) in documented_rows() {
        match test.split_once(' ') {
            None => {
                assert!(ROWS.contains(&&*test), "{place}: there is no test {test}");
                assert!(seen.insert(test.clone()), "{place}: {test} is the test of another row");
            }
            Some((file, name)) => {
                let source = fs::read_to_string(top().join("crates").join(file))
                    .unwrap_or_else(|error| panic!("{place}: {file}: {error}"));
                let is_test = source.split("#[test]").chain(source.split("#[tokio::test]")).any(|part| {
                    let part = part.trim_start().trim_start_matches("async ");
                    part.starts_with(&format!("fn {name}("))
                });
                assert!(is_test, "{place}: {file} has no test {name}");
            }
        }
    }
    assert!(seen.len() >= 40, "{seen:?}");
    for test in ROWS {
        assert!(seen.contains(*test), "{PAGE} has no row for the test {test}");
    }
}

/// A user with the small RoadRunner, `github.com/acme/hello` and `example.com/acme/hello` behind a module proxy.
fn user(configuration: &str) -> Sandbox {
    static PROXY: LazyLock<ModuleProxy> = LazyLock::new(|| {
        let proxy = acme_proxy();
        proxy.plugin("github.com/acme/hello", "v1.0.0").plugin("github.com/acme/hello", "v1.1.0");
        proxy.query("github.com/acme/hello", "main", "v1.1.0");
        let demanding =
            plugin("example.com/acme/demanding", "demanding").requires("example.com/acme/hello", "v1.1.0");
        proxy.module("example.com/acme/demanding", "v1.0.0", demanding.files());
        let broken = plugin("example.com/acme/broken", "broken").compile_error();
        proxy.module("example.com/acme/broken", "v1.0.0", broken.files());
        let nested = plugin("github.com/acme/many/plugins/roadrunner", "roadrunner");
        proxy.module("github.com/acme/many/plugins/roadrunner", "v1.0.0", nested.files());
        proxy
    });
    Sandbox::behind(&PROXY).file("velox.toml", configuration)
}

/// RoadRunner and one plugin in the manual's format, and more.
fn manual(more: &str) -> String {
    format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[github.plugins]\n\
         hello = {{ ref = \"v1.0.0\", owner = \"acme\", repository = \"hello\" }}\n\n{more}"
    )
}

/// RoadRunner and one plugin in the newest format, and more.
fn modules(more: &str) -> String {
    format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.hello]\nmodule_name = \"example.com/acme/hello\"\n\
         tag = \"v1.0.0\"\n\n{more}"
    )
}

/// What `vx build` would build, without compiling it.
fn plan(user: &Sandbox, arguments: &str) -> Value {
    let run = user.vx(&format!("build --dry-run --format json {arguments}"));
    run.ok();
    run.events().pop().unwrap()
}

/// The version of a plugin in a plan.
fn version_of(plan: &Value, name: &str) -> String {
    let plugins = plan["plugins"].as_array().unwrap();
    let plugin = plugins.iter().find(|plugin| plugin["name"] == name).unwrap_or_else(|| panic!("{plan}"));
    plugin["version"].as_str().unwrap().to_owned()
}

fn go_mod(plan: &Value) -> &str {
    plan["go_mod"].as_str().unwrap()
}

/// A build setting of a binary, as `go version -m` shows it.
fn setting(user: &Sandbox, binary: &str, name: &str) -> Option<String> {
    let info = BuildInfo::read(&user.at(binary)).unwrap();
    info.settings.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// A build service in a sandbox of [`user`].
struct BuildServer {
    _machine: Sandbox,
    service: Service,
}

impl BuildServer {
    fn start() -> Self {
        let machine = user("");
        let service = Service::start(&mut machine.vx_command("server --data data"));
        Self { _machine: machine, service }
    }

    /// Calls Velox's method with fields beside those of a valid request.
    fn call(&self, more: Value) -> Answer {
        let mut body = json!({
            "rr_version": RELEASE,
            "plugins": [{"module_name": "example.com/acme/hello", "tag": "v1.0.0"}],
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let headers = [("Content-Type", "application/json")];
        self.service.ask("POST", CALL, &headers, body.to_string().as_bytes())
    }

    /// The binary of a finished call.
    fn binary(&self, answer: &Answer) -> Vec<u8> {
        assert_eq!(answer.status, 200, "{answer:?}");
        let path = answer.json()["path"].as_str().unwrap().to_owned();
        let binary = self.service.get(&path);
        assert_eq!(binary.status, 200, "{binary:?}");
        binary.body
    }
}

fn build_info(binary: &[u8]) -> BuildInfo {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), binary).unwrap();
    BuildInfo::read(file.path()).unwrap()
}

rows! {
    // Formats

    format_with_build_args {
        let user = user(&manual("[velox]\nbuild_args = [\"-trimpath\", \"-ldflags\", \"-s -X \
            github.com/roadrunner-server/roadrunner/v2025/internal/meta.version=${VERSION}\"]\n"));
        assert_eq!(plan(&user.env("VERSION", "9.9.9"), "")["stamp_version"], "9.9.9");
    }
    format_of_the_manual {
        assert_eq!(version_of(&plan(&user(&manual("")), ""), "hello"), "v1.0.0");
    }
    format_of_modules {
        assert_eq!(version_of(&plan(&user(&modules("")), ""), "hello"), "v1.0.0");
    }
    two_formats_in_one_file {
        let both = manual("[plugins.bye]\nmodule_name = \"example.com/acme/bye\"\ntag = \"v1.0.0\"\n");
        user(&both).vx("build").fails_with(2, &["velox.toml:"]);
    }

    first_format {
        let first = format!(
            "[github_token]\ntoken = \"${{T}}\"\n\n[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins]\n\
             hello = {{ ref = \"v1.0.0\", owner = \"acme\", repository = \"hello\" }}\n"
        );
        assert_eq!(version_of(&plan(&user(&first), ""), "hello"), "v1.0.0");
    }
    yaml_and_json {
        let yaml = format!(
            "roadrunner:\n  ref: {RELEASE}\ngithub:\n  plugins:\n    hello: {{ref: v1.0.0, owner: acme, repository: hello}}\n"
        );
        let json = json!({
            "roadrunner": {"ref": RELEASE},
            "plugins": {"hello": {"module_name": "example.com/acme/hello", "tag": "v1.0.0"}},
        });
        let user = user("").file("velox.yaml", &yaml).file("velox.yml", &yaml).file("velox.json", json.to_string());
        for file in ["velox.yaml", "velox.yml", "velox.json"] {
            assert_eq!(version_of(&plan(&user, &format!("-c {file}")), "hello"), "v1.0.0", "{file}");
        }
    }
    unknown_keys {
        let more = "docs_url = \"https://docs.roadrunner.dev\"\n\n[build]\noutput = \"rr\"\n";
        for text in [modules(more), manual("").replace("repository = \"hello\"", "repository = \"hello\", docs_url = \"x\"")] {
            let user = user(&text);
            user.vx("build --dry-run").succeeds_with(&["warning: unknown key `docs_url`"]);
            assert_ne!(user.vx("check --deny-warnings").code(), Some(0));
            assert_ne!(user.vx("build --dry-run --strict").code(), Some(0));
        }
        user(&modules(more)).vx("build --dry-run").succeeds_with(&["warning: unknown table `[build]`"]);
    }
    misspelled_keys {
        for (right, wrong) in [("ref =", "reff ="), ("[roadrunner]", "[roadruner]"), ("module_name", "modul_name")] {
            let text = modules("").replacen(right, wrong, 1);
            user(&text).vx("build").fails_with(2, &["did you mean"]);
        }
    }
    duplicate_key {
        let twice = modules("").replace("[roadrunner]\n", "[roadrunner]\nref = \"v2025.0.1\"\n");
        user(&twice).vx("build").fails_with(2, &["velox.toml:3:", "2 |", "3 |"]);
    }
    letter_case {
        let text = manual("").replace("[roadrunner]\nref", "[RoadRunner]\nRef").replace("owner =", "OWNER =");
        assert_eq!(version_of(&plan(&user(&text), ""), "hello"), "v1.0.0");
    }
    empty_values {
        let text = manual("[log]\nlevel = \"\"\nmode = \"\"\n").replace("owner =", "replace = \"\", folder = \"\", owner =");
        assert_eq!(version_of(&plan(&user(&text), ""), "hello"), "v1.0.0");
    }
    values_of_another_type {
        let user = user(&manual("[debug]\nenabled = \"true\"\n"));
        user.vx("build --dry-run").succeeds_with(&["warning: `debug.enabled` is a string"]);
    }
    dollar_without_braces {
        let arguments = "[velox]\nbuild_args = [\"-ldflags\", \"-X \
            github.com/roadrunner-server/roadrunner/v2025/internal/meta.version=$VERSION\"]\n";
        assert_eq!(plan(&user(&manual(arguments)).env("VERSION", "9.9.9"), "")["stamp_version"], "9.9.9");
    }
    placeholders {
        let user = user(&modules("[github.token]\ntoken = \"${RT_TOKEN}\"\n"));
        let user = user.env("RT_TOKEN", "undefined").env("APP_VERSION", "undefined").env("BUILD_TIME", "undefined");
        assert_eq!(plan(&user, "")["stamp_version"], RELEASE.trim_start_matches('v'));
    }
    variables_in_values {
        let user = user(&modules("").replace("tag = \"v1.0.0\"", "tag = \"${HELLO:-v1.1.0}\""));
        assert_eq!(version_of(&plan(&user, ""), "hello"), "v1.1.0");
        assert_eq!(version_of(&plan(&user.env("HELLO", "v1.0.0"), ""), "hello"), "v1.0.0");
    }
    unset_token {
        let user = user(&manual("[github.token]\ntoken = \"${RT_TOKEN}\"\n\n[gitlab.token]\ntoken = \"${GL_TOKEN}\"\n"));
        assert_eq!(version_of(&plan(&user, ""), "hello"), "v1.0.0");
    }

    // Keys

    roadrunner_ref {
        let user = user(&modules(""));
        assert_eq!(plan(&user, "")["version"], RELEASE);
    }
    debug_enabled {
        let user = user(&modules("[debug]\nenabled = true\n"));
        user.vx("build").ok();
        assert_eq!(setting(&user, "rr", "-tags").as_deref(), Some("debug"));
        assert_eq!(setting(&user, "rr", "-gcflags").as_deref(), Some("all=-N -l"));
    }
    debug_race {
        let user = user(&modules("[debug]\nrace = true\n"));
        user.vx("build").ok();
        assert_eq!(setting(&user, "rr", "-race").as_deref(), Some("true"));
        assert_eq!(setting(&user, "rr", "CGO_ENABLED").as_deref(), Some("1"));
    }
    log_level {
        let user = user(&modules("[log]\nlevel = \"error\"\nmode = \"development\"\n"));
        assert_eq!(user.vx("build --dry-run").stderr(), "");
    }
    log_mode {
        let user = user(&modules("[log]\nlevel = \"debug\"\nmode = \"production\"\n"));
        user.vx("build --dry-run").ok();
    }
    github_plugins {
        let many = "many = { ref = \"v1.0.0\", owner = \"acme\", repository = \"many\", folder = \"plugins/roadrunner\" }";
        let user = user(&manual("").replace("[github.plugins]\n", &format!("[github.plugins]\n{many}\n")));
        let plan = plan(&user, "");
        assert_eq!((version_of(&plan, "hello").as_str(), version_of(&plan, "many").as_str()), ("v1.0.0", "v1.0.0"));
    }
    leading_slash {
        for folder in ["/plugins/roadrunner", "plugins/roadrunner/", "plugins/roadrunner"] {
            let many = format!(
                "many = {{ ref = \"v1.0.0\", owner = \"acme\", repository = \"many\", folder = \"{folder}\" }}"
            );
            let user = user(&manual("").replace("[github.plugins]\n", &format!("[github.plugins]\n{many}\n")));
            assert_eq!(version_of(&plan(&user, ""), "many"), "v1.0.0", "{folder}");
        }
    }
    plugins_tag {
        let user = user(&modules("[plugins.bye]\nmodule_name = \"example.com/acme/bye\"\ntag = \"main\"\n"));
        assert_eq!(version_of(&plan(&user, ""), "bye"), "v1.0.0");
        let user = user_with_tag("latest");
        assert_eq!(version_of(&plan(&user, ""), "hello"), "v1.1.0");
    }
    replaces {
        let user = user(&modules("[[replaces]]\nold = \"example.com/acme/hello\"\nnew = \"github.com/acme/hello@v1.1.0\"\n"));
        assert_contains(go_mod(&plan(&user, "")), &["example.com/acme/hello => github.com/acme/hello v1.1.0"]);
    }
    replaces_of_one_version {
        let lines = "[[replaces]]\nold = \"example.com/acme/hello@v1.0.0\"\nnew = \"github.com/acme/hello@v1.1.0\"\n";
        let plan = plan(&user(&modules(lines)), "");
        assert_contains(go_mod(&plan), &["example.com/acme/hello v1.0.0 => github.com/acme/hello v1.1.0"]);
    }
    replaces_twice {
        let line = "[[replaces]]\nold = \"example.com/acme/hello\"\nnew = \"github.com/acme/hello@v1.1.0\"\n";
        user(&modules(&line.repeat(2))).vx("build").fails_with(2, &["velox.toml:", "example.com/acme/hello"]);
    }
    replaces_with_a_directory {
        let fork = plugin("example.com/acme/hello", "hello").says("from the fork");
        let user = user(&modules("[[replaces]]\nold = \"example.com/acme/hello\"\nnew = \"./fork\"\n"));
        let user = user.files("fork", fork.files());
        user.vx("build").ok();
        assert_contains(&user.module_in("rr", "example.com/acme/hello").unwrap(), &["=> ./replace/"]);
    }
    replaces_seen_from_the_working_directory {
        let text = modules("[[replaces]]\nold = \"example.com/acme/hello\"\nnew = \"./fork\"\n");
        let user = user("").file("conf/velox.toml", text);
        let user = user.files("fork", plugin("example.com/acme/hello", "hello").files());
        user.vx("build -c conf/velox.toml --dry-run").succeeds_with(&["warning: ", "working directory"]);
    }
    excludes {
        let user = user(&modules("[[excludes]]\nmodule = \"example.com/acme/hello\"\nversion = \"v1.1.0\"\n"));
        assert_contains(go_mod(&plan(&user, "")), &["exclude example.com/acme/hello v1.1.0"]);
    }
    excludes_of_no_version {
        let line = "[[excludes]]\nmodule = \"example.com/acme/hello\"\nversion = \"newest\"\n";
        user(&modules(line)).vx("build").fails_with(2, &["velox.toml:10:", "newest"]);
    }
    no_plugins {
        user(&format!("[roadrunner]\nref = \"{RELEASE}\"\n")).vx("build").fails_with(2, &["plugins"]);
    }
    target_platform {
        let user = user(&modules("[target_platform]\nos = \"darwin\"\narch = \"arm64\"\n"));
        assert_eq!(plan(&user, "")["targets"], json!(["darwin/arm64"]));
    }
    half_a_target_platform {
        let user = user(&modules("[target_platform]\narch = \"riscv64\"\n"));
        assert_eq!(plan(&user, "")["targets"], json!(["linux/riscv64"]));
    }
    target_platform_windows {
        let user = user(&modules("[target_platform]\nos = \"windows\"\narch = \"amd64\"\n"));
        assert_eq!(plan(&user, "")["targets"], json!(["windows/amd64"]));
    }

    // Command line

    build_with_config_and_out {
        let user = user("").file("conf/mine.toml", modules(""));
        user.vx("build -c conf/mine.toml -o bin").ok();
        assert_contains(&user.run("bin/rr --version"), &["rr version 2025.0.77"]);
        assert_eq!(user.vx("build --config=conf/mine.toml --out=bin --dry-run").code(), Some(0));
        assert_eq!(user.vx("build -c=conf/mine.toml -o=bin --dry-run").code(), Some(0));
    }
    build_without_flags {
        let user = user(&modules(""));
        user.vx("build").ok();
        assert!(user.has("rr"));
    }
    version_flag {
        let version = user("").vx("--version").ok();
        assert_eq!(version, concat!("vx ", env!("CARGO_PKG_VERSION"), "\n"));
        assert_eq!(user("").vx("-v").ok(), version);
    }
    help_flag {
        assert_contains(&user("").vx("--help").ok(), &["Usage: vx"]);
        assert_contains(&user("").vx("build -h").ok(), &["Usage: vx build"]);
    }

    options_before_the_command {
        let user = user("").file("mine.toml", modules(""));
        for line in ["-c mine.toml build -o out", "-c=mine.toml -o=out build", "-o out build -c mine.toml"] {
            user.vx(&format!("{line} --dry-run")).ok();
        }
    }
    options_given_twice {
        user("").file("mine.toml", modules("")).vx("build -c other.toml -c mine.toml --dry-run").ok();
    }
    completion_command {
        let user = user("");
        assert_eq!(user.vx("completion bash").ok(), user.vx("completions bash").ok());
    }
    words_after_the_command {
        for line in ["build velox.toml", "build -c velox.toml ."] {
            assert_eq!(user(&modules("")).vx(line).code(), Some(2), "{line}");
        }
    }
    server_address {
        let machine = user("");
        let mut server = machine.vx_command("server --data data -a 127.0.0.1:0 --format json");
        let mut running = server.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(running.stdout.take().unwrap()), &mut line).unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        assert_contains(&line, &["\"serving\"", "http://127.0.0.1:"]);
    }

    // Environment

    goos_and_goarch {
        let user = user(&modules("")).env("GOOS", "windows").env("GOARCH", "arm64");
        assert_eq!(plan(&user, "")["targets"], json!(["windows/arm64"]));
        assert_eq!(plan(&user, "--target linux/amd64")["targets"], json!(["linux/amd64"]));
    }
    instruction_set {
        let user = user(&modules("")).env("GOOS", "linux").env("GOARCH", "arm").env("GOARM", "5");
        user.vx("lock").ok();
        assert_contains(&user.read("velox.lock"), &["GOARM=5"]);
    }
    modcacherw {
        let user = user(&modules("")).own_caches().env("GOFLAGS", "-modcacherw");
        user.vx("build --dry-run").ok();
        let module = Path::new(&user.value("GOMODCACHE")).join("example.com/acme/hello@v1.0.0");
        assert!(!fs::metadata(module).unwrap().permissions().readonly());
    }
    ignored_go_settings {
        let user = user(&modules("")).env("GOFLAGS", "-tags=acme").env("GOEXPERIMENT", "nogreenteagc");
        user.vx("build --dry-run").succeeds_with(&["GOFLAGS=-tags=acme, GOEXPERIMENT=nogreenteagc are ignored"]);
    }
    contradicting_stamp {
        let user = user(&modules("")).env("APP_VERSION", "1.0.0");
        user.vx("build").succeeds_with(&["`rr --version` will print 1.0.0, from APP_VERSION"]);
        assert_contains(&user.run("./rr --version"), &["rr version 1.0.0"]);
    }
    stamp_variables {
        let user = user(&modules("")).env("APP_VERSION", "1.2.3").env("BUILD_TIME", "2026-01-02T03:04:05+0000");
        let plan = plan(&user, "");
        assert_eq!((&plan["stamp_version"], &plan["stamp_time"]), (&json!("1.2.3"), &json!("2026-01-02T03:04:05+0000")));
    }
    source_date_epoch {
        let user = user(&modules("")).env("SOURCE_DATE_EPOCH", "0");
        assert_eq!(plan(&user, "")["stamp_time"], "1970-01-01T00:00:00Z");
    }
    cgo_enabled {
        let user = user(&modules(""));
        user.vx("build").ok();
        assert_eq!(setting(&user, "rr", "CGO_ENABLED").as_deref(), Some("0"));
    }
    go_settings {
        let user = user(&modules("")).own_caches();
        user.vx("build --dry-run").ok();
        let cache = Path::new(&user.value("GOMODCACHE")).join("cache/download/example.com/acme/hello/@v/v1.0.0.zip");
        assert!(cache.is_file());
        user.vx("build --offline --dry-run").ok();
    }

    cgo_enabled_in_the_environment {
        let user = user(&modules("")).env("CGO_ENABLED", "1");
        user.vx("build").ok();
        assert_eq!(setting(&user, "rr", "CGO_ENABLED").as_deref(), Some("1"));
    }

    // Exit codes

    exit_code_of_success {
        assert_eq!(user(&modules("")).vx("build --dry-run").code(), Some(0));
    }
    exit_code_of_a_failed_build {
        let missing = modules("").replace("tag = \"v1.0.0\"", "tag = \"v1.7.7\"");
        assert_eq!(user(&missing).vx("build").code(), Some(1));
    }
    exit_code_of_a_wrong_configuration {
        for wrong in ["", "[roadrunner]\nreff = 1\n", "[plugins.x]\ntag = \"v1.0.0\"\n"] {
            assert_eq!(user(wrong).vx("build").code(), Some(2), "{wrong}");
        }
        assert_eq!(user("").vx("build -c missing.toml").code(), Some(2));
        assert_eq!(user("").vx("bulid").code(), Some(2));
    }

    // Log lines

    log_stream {
        let run = logged("development");
        assert_contains(&run.stderr(), &["Resolved"]);
        assert_contains(&run.ok(), &["example.com/acme/hello", "v1.0.0"]);
    }
    log_mode_development {
        assert_contains(&logged("development").stderr(), &["    Resolved RoadRunner "]);
    }
    log_mode_raw {
        let lines = logged("raw").stderr();
        assert!(lines.lines().any(|line| line.starts_with("Resolved RoadRunner ")), "{lines}");
    }
    log_mode_off {
        for mode in ["none", "off"] {
            assert_eq!(logged(mode).stderr(), "", "{mode}");
        }
    }
    unknown_log_mode {
        assert_contains(&logged("dev").stderr(), &["warning: invalid value `dev` for `mode`", "    Resolved RoadRunner "]);
    }
    log_mode_production {
        assert!(log_lines(&logged("production")).iter().all(Value::is_object));
    }
    log_field_time {
        for line in log_lines(&logged("production")) {
            line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
    }
    log_field_level {
        for line in log_lines(&logged("production")) {
            assert_eq!(line["level"], "INFO", "{line}");
        }
    }
    log_field_msg {
        let lines = log_lines(&logged("production"));
        let resolved = |line: &Value| line["msg"].as_str().unwrap().starts_with("Resolved RoadRunner ");
        assert!(lines.iter().any(resolved), "{lines:?}");
    }
    log_fields_of_an_error {
        let wrong = modules("[log]\nmode = \"production\"\n").replace("v1.0.0", "v1.7.7");
        let run = user(&wrong).vx("build");
        let line = log_lines(&run).pop().unwrap();
        assert_eq!((&line["level"], &line["file"], &line["line"]), (&json!("ERROR"), &json!("velox.toml"), &json!(6)));
        assert!(line["help"].is_array(), "{line}");
    }

    // What is built

    binary_name {
        let user = user(&modules(""));
        user.vx("build -o out").ok();
        assert_eq!(user.entries("out"), ["rr"]);
    }
    informer_and_resetter {
        let plan = plan(&user(&modules("")), "");
        for name in ["informer", "resetter"] {
            let plugins = plan["plugins"].as_array().unwrap();
            assert!(plugins.iter().any(|it| it["name"] == name && it["added"] == true), "{plan}");
        }
    }

    raised_plugin {
        let demanding = "[plugins.demanding]\nmodule_name = \"example.com/acme/demanding\"\ntag = \"v1.0.0\"\n";
        let user = user(&modules(demanding));
        let plan = plan(&user, "");
        assert_eq!(plan["raised"].as_array().unwrap().len(), 1, "{plan}");
        user.vx("build --dry-run --strict").fails_with(1, &["v1.1.0"]);
    }
    stripped_binary {
        let user = user(&modules(""));
        user.vx("build").ok();
        assert_eq!(setting(&user, "rr", "-trimpath").as_deref(), Some("true"));
        let symbols = CommandOutput::from(user.command("go", &["tool", "nm", "rr"]));
        assert!(symbols.code() != Some(0) || symbols.stdout().is_empty(), "{}", symbols.stdout());
    }
    no_leftovers {
        let user = user(&modules(""));
        user.vx("build -o out").ok();
        let left = |folder: &Path| fs::read_dir(folder).into_iter().flatten().count();
        assert_eq!((left(&user.at("out")), left(&user.path())), (1, 3), "rr; out, velox.toml and velox.lock");
    }

    // Image

    image_entry_point {
        // The script without an image: `vx` is the one under test.
        let user = user("");
        let vx = Path::new(env!("CARGO_BIN_EXE_vx")).parent().unwrap().display().to_string();
        let path = format!("{vx}:{}", user.value("PATH"));
        let user = user.env("PATH", path);
        let entry_point = top().join("packaging/docker-entrypoint");
        let run = |arguments: &[&str]| CommandOutput::from(user.command(&entry_point, arguments));
        assert_contains(&run(&["build", "--help"]).ok(), &["Usage: vx build"]);
        assert_eq!(run(&["sh", "-c", "echo from sh"]).ok(), "from sh\n");
        assert_eq!(run(&["build", "-c", "missing.toml"]).code(), Some(2));
    }
    image_files {
        let dockerfile = fs::read_to_string(top().join("packaging/Dockerfile")).unwrap();
        assert_contains(&dockerfile, &["/usr/bin/vx\n", "/etc/velox.toml\n", "GOTOOLCHAIN=auto", "-alpine\n", " gcc musl-dev"]);
    }
    image_tags {
        let tags = CommandOutput::from(Command::new(top().join("scripts/image-tags")).arg("v3.1.0")).ok();
        assert_eq!(tags, "3.1.0\n3.1\n3\nlatest\n");
    }

    // The build server

    api_path_of_the_binary {
        let server = BuildServer::start();
        let answer = server.call(json!({}));
        let info = build_info(&server.binary(&answer));
        assert!(info.deps.iter().any(|it| it.path == "example.com/acme/hello" && it.version == "v1.0.0"));
    }
    api_fields {
        let server = BuildServer::start();
        let answer = server.call(json!({
            "request_id": "11111111-1111-4111-8111-111111111111",
            "force_rebuild": true,
            "replaces": [{"old": "example.com/acme/hello", "new": "github.com/acme/hello@v1.1.0"}],
            "excludes": [{"module": "example.com/acme/hello", "version": "v1.1.0"}],
            "debug": true,
        }));
        let info = build_info(&server.binary(&answer));
        assert!(info.settings.contains(&("-tags".to_owned(), "debug".to_owned())), "{:?}", info.settings);
        let hello = info.deps.iter().find(|it| it.path == "example.com/acme/hello").unwrap();
        assert_eq!(hello.replace.as_ref().map(|it| it.path.as_str()), Some("github.com/acme/hello"));
    }
    api_target_platform_of_the_host {
        let server = BuildServer::start();
        let info = build_info(&server.binary(&server.call(json!({}))));
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        assert!(info.settings.contains(&("GOARCH".to_owned(), arch.to_owned())), "{:?}", info.settings);
    }
    api_logs {
        let server = BuildServer::start();
        let answer = server.call(json!({}));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.json().get("logs").is_none_or(Value::is_string), "{answer:?}");
    }
    api_local_replacement {
        let server = BuildServer::start();
        let answer = server.call(json!({"replaces": [{"old": "example.com/acme/hello", "new": "../hello"}]}));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_argument")), "{answer:?}");
        assert_contains(answer.json()["message"].as_str().unwrap(), &["replaces[0].new"]);
    }
    api_race {
        let server = BuildServer::start();
        assert_eq!(server.call(json!({"race": true})).json()["code"], "failed_precondition");
    }
    api_failed_build {
        let server = BuildServer::start();
        let broken = json!({"plugins": [{"module_name": "example.com/acme/broken", "tag": "v1.0.0"}]});
        let answer = server.call(broken);
        assert_eq!((answer.status, &answer.json()["code"]), (500, &json!("internal")), "{answer:?}");
        assert_contains(answer.json()["message"].as_str().unwrap(), &["undefined: missing"]);
    }
    api_invalid_request {
        let server = BuildServer::start();
        let answer = server.call(json!({"request_id": "no uuid"}));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_argument")), "{answer:?}");
        assert_contains(answer.json()["message"].as_str().unwrap(), &["request_id"]);
    }
}

/// A dry run with this log mode.
fn logged(mode: &str) -> CommandOutput {
    let run = user(&modules(&format!("[log]\nmode = \"{mode}\"\n"))).vx("build --dry-run");
    run.ok();
    run
}

fn log_lines(run: &CommandOutput) -> Vec<Value> {
    let lines: Vec<Value> = run.stderr().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty());
    lines
}

fn user_with_tag(tag: &str) -> Sandbox {
    user(&modules("").replace("tag = \"v1.0.0\"", &format!("tag = \"{tag}\"")))
}
