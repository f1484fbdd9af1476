//! The tables of docs/migrating-from-velox.md: every row names its test in a hidden comment, either one of this file or
//! `FILE TEST`, a test of another file.

#![cfg(target_os = "linux")]

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use serde_json::{Value, json};
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

use crate::{
    server::{CALL, go_arch},
    support::{
        book::{page, top},
        sandbox::{CommandOutput, RELEASE, Sandbox, acme_proxy, assert_contains},
        service::RunningService,
    },
};

const PAGE: &str = "docs/migrating-from-velox.md";

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
                seen.insert(test.clone());
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
    for test in ROWS {
        assert!(seen.contains(*test), "{PAGE} has no row for the test {test}");
    }
}

/// A user with the small RoadRunner, `github.com/acme/hello` and `example.com/acme/hello` behind a module proxy.
fn user(configuration: &str) -> Sandbox {
    static PROXY: LazyLock<ModuleProxy> = LazyLock::new(|| {
        let proxy = acme_proxy();
        proxy.plugin("github.com/acme/hello", "v1.1.0");
        let demanding =
            plugin("example.com/acme/demanding", "demanding").requires("example.com/acme/hello", "v1.1.0");
        proxy.module("example.com/acme/demanding", "v1.0.0", demanding.files());
        proxy
    });
    Sandbox::behind(&PROXY).file("velox.toml", configuration)
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

rows! {
    // Keys

    plugins_tag {
        let user = user(&modules("[plugins.bye]\nmodule_name = \"example.com/acme/bye\"\ntag = \"main\"\n"));
        assert_eq!(version_of(&plan(&user, ""), "bye"), "v1.0.0");
        let user = self::user(&modules("").replace("tag = \"v1.0.0\"", "tag = \"latest\""));
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
    replaces_with_a_directory {
        let fork = plugin("example.com/acme/hello", "hello").says("from the fork");
        let user = user(&modules("[[replaces]]\nold = \"example.com/acme/hello\"\nnew = \"./fork\"\n"));
        let user = user.files("fork", fork.files());
        user.vx("build").ok();
        assert_contains(&user.module_in("rr", "example.com/acme/hello").unwrap(), &["=> ./replace/"]);
    }
    excludes {
        let user = user(&modules("[[excludes]]\nmodule = \"example.com/acme/hello\"\nversion = \"v1.1.0\"\n"));
        assert_contains(go_mod(&plan(&user, "")), &["exclude example.com/acme/hello v1.1.0"]);
    }

    // Command line

    completion_command {
        let user = user("");
        assert_eq!(user.vx("completion bash").ok(), user.vx("completions bash").ok());
    }

    // Environment

    stamp_variables {
        let user = user(&modules("")).env("APP_VERSION", "1.2.3").env("BUILD_TIME", "2026-01-02T03:04:05+0000");
        let plan = plan(&user, "");
        assert_eq!((&plan["stamp_version"], &plan["stamp_time"]), (&json!("1.2.3"), &json!("2026-01-02T03:04:05+0000")));
    }
    source_date_epoch {
        let user = user(&modules("")).env("SOURCE_DATE_EPOCH", "0");
        assert_eq!(plan(&user, "")["stamp_time"], "1970-01-01T00:00:00Z");
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

    // What is built

    plain_build {
        let user = user(&modules(""));
        user.vx("build").ok();
        assert_eq!(user.entries("."), ["rr", "velox.lock", "velox.toml"]);
        assert_eq!(setting(&user, "rr", "CGO_ENABLED").as_deref(), Some("0"));
        assert_eq!(setting(&user, "rr", "-trimpath").as_deref(), Some("true"));
        let symbols = CommandOutput::from(user.command("go", &["tool", "nm", "rr"]));
        assert!(symbols.code() != Some(0) || symbols.stdout().is_empty(), "{}", symbols.stdout());
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

    // The build server

    api_fields {
        let machine = user("");
        let service = RunningService::start(&mut machine.vx_command("server --data data"));
        let answer = service.post(CALL, &json!({
            "rr_version": RELEASE,
            "plugins": [{"module_name": "example.com/acme/hello", "tag": "v1.0.0"}],
            "request_id": "11111111-1111-4111-8111-111111111111",
            "force_rebuild": true,
            "replaces": [{"old": "example.com/acme/hello", "new": "github.com/acme/hello@v1.1.0"}],
            "excludes": [{"module": "example.com/acme/hello", "version": "v1.1.0"}],
            "debug": true,
        }));
        assert_eq!(answer.status, 200, "{answer:?}");
        fs::write(machine.at("rr"), service.get(answer.json()["path"].as_str().unwrap()).body).unwrap();
        let info = BuildInfo::read(&machine.at("rr")).unwrap();
        assert!(info.settings.contains(&("-tags".to_owned(), "debug".to_owned())), "{:?}", info.settings);
        let hello = info.deps.iter().find(|it| it.path == "example.com/acme/hello").unwrap();
        assert_eq!(hello.replace.as_ref().map(|it| it.path.as_str()), Some("github.com/acme/hello"));
        // Without a target_platform: the host's.
        assert!(info.settings.contains(&("GOARCH".to_owned(), go_arch().to_owned())), "{:?}", info.settings);
    }
}
