//! Settings of the environment: Go's variables, and the version stamp.

use std::fs;

use velox_gomod::buildinfo::BuildInfo;
use velox_manifest::GoTarget;
use velox_testkit::ModuleProxy;

use crate::support::sandbox::{CommandOutput, RELEASE, Sandbox, acme_proxy, assert_contains, program, skip};

fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).plugins("hello@v1.0.0")
}

/// The messages of a successful command.
#[track_caller]
fn logged(output: &CommandOutput) -> String {
    output.ok();
    output.stderr()
}

/// The build settings in a binary, such as `GOARM`.
fn setting(sandbox: &Sandbox, binary: &str, name: &str) -> Option<String> {
    let info = BuildInfo::read(&sandbox.at(binary)).unwrap();
    info.settings.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

#[test]
fn goos_and_goarch_select_the_target_unless_a_flag_or_the_file_does() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).env("GOOS", "windows").env("GOARCH", "arm64");
    let log = logged(&sandbox.vx("build -o out"));
    assert_contains(&log, &["for windows/arm64 (GOOS=windows, GOARCH=arm64)"]);
    assert_eq!(sandbox.entries("out"), ["rr.exe"]);
    assert_eq!(setting(&sandbox, "out/rr.exe", "GOARCH").as_deref(), Some("arm64"));
    assert_contains(&sandbox.read("velox.lock"), &["platform = \"windows/arm64\""]);

    // Half a target is completed by this machine.
    let GoTarget { os, arch } = GoTarget::host();
    let sandbox = sandbox.env("GOOS", "freebsd").env("GOARCH", "");
    sandbox.vx("lock").succeeds_with(&[&format!("for freebsd/{arch} (GOOS=freebsd)")]);
    assert_contains(&sandbox.read("velox.lock"), &[&format!("platform = \"freebsd/{arch}\"")]);
    sandbox.vx("lock --check").succeeds_with(&["is up to date for freebsd/"]);
    sandbox.vx("build --dry-run").succeeds_with(&["dry run for freebsd/"]);

    let log = logged(&sandbox.vx(&format!("build -o flag --target {os}/{arch}")));
    assert!(!log.contains("GOOS"), "{log}");
    assert_eq!(sandbox.entries("flag"), [if os == "windows" { "rr.exe" } else { "rr" }]);
    let text =
        sandbox.read("velox.toml") + &format!("\n[target_platform]\nos = \"{os}\"\narch = \"{arch}\"\n");
    let log = logged(&sandbox.file("velox.toml", text).vx("build -o file"));
    assert!(!log.contains("GOOS"), "{log}");
}

#[test]
fn the_go_env_file_selects_the_target_too() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).file("go.env", "GOARCH=arm\nGOOS=linux\nGOARM=5\n");
    let file = sandbox.at("go.env");
    let sandbox = sandbox.env("GOENV", &file);
    let named = format!("GOARM=5 in {}", file.display());
    sandbox.vx("build -o out").succeeds_with(&["for linux/arm (GOOS=linux in", &named]);
    assert_eq!(setting(&sandbox, "out/rr", "GOARM").as_deref(), Some("5"));
    sandbox
        .file("go.env", "GOARCH=amd46\n")
        .vx("build -o out")
        .fails_with(2, &["invalid GOARCH=amd46 in", "did you mean `amd64`?", "go env -u GOARCH"]);
}

#[test]
fn an_instruction_set_is_compiled_locked_and_another_artifact() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build -o plain --target linux/amd64").ok();
    assert_eq!(setting(&sandbox, "plain/rr", "GOAMD64").as_deref(), Some("v1"));
    let sandbox = sandbox.env("GOAMD64", "v3");
    let log = logged(&sandbox.vx("build -o v3 --target linux/amd64 --no-smoke-test"));
    assert_contains(&log, &["for linux/amd64 (GOAMD64=v3)"]);
    assert!(!log.contains("cached"), "{log}");
    assert_eq!(setting(&sandbox, "v3/rr", "GOAMD64").as_deref(), Some("v3"));
    assert_contains(&sandbox.read("velox.lock"), &["instruction_set = \"GOAMD64=v3\""]);
    let again = logged(&sandbox.vx("build -o again --target linux/amd64 --locked --no-smoke-test"));
    assert_contains(&again, &["cached", "GOAMD64=v3"]);
    // A variable of another architecture has no effect, and a lock names no other variable.
    let log = logged(&sandbox.vx("build -o arm --target linux/arm64"));
    assert!(!log.contains("GOAMD64"), "{log}");
    let lock = sandbox.read("velox.lock").replace("GOAMD64=v3", "GOFLAGS=-toolexec=/bin/sh");
    sandbox
        .file("velox.lock", lock)
        .vx("build")
        .fails_with(2, &["velox.lock", "`GOFLAGS` is not a variable"]);
}

#[test]
#[cfg(target_os = "linux")]
fn the_compiler_collects_garbage_as_the_user_says_or_as_memory_allows() {
    let proxy = acme_proxy();
    let go = program("go").unwrap().canonicalize().unwrap();
    let wrapper = format!(
        "#!/bin/sh\nunset GOROOT\n[ \"$1\" = build ] && echo \"$GOGC $GOMEMLIMIT\" >>\"$USED\"\nexec {} \"$@\"\n",
        go.display()
    );
    for (set, expected) in
        [(&[][..], None), (&[("GOGC", "77")], Some("77 ")), (&[("GOMEMLIMIT", "3GiB")], Some(" 3GiB"))]
    {
        let mut sandbox = machine(&proxy).script("mine", &wrapper);
        let used = sandbox.at("used");
        sandbox = sandbox.env("USED", used);
        for (name, value) in set {
            sandbox = sandbox.env(name, value);
        }
        sandbox.vx(&format!("build -o out --go {}", sandbox.at("bin/mine").display())).ok();
        let used = sandbox.read("used");
        let line = used.lines().last().unwrap();
        match expected {
            Some(expected) => assert_eq!(line, expected),
            // What the machine has decides.
            None => assert!(line == " " || line.starts_with("400 ") || line.starts_with("off "), "{line:?}"),
        }
    }
}

#[test]
fn bad_go_variables_are_configuration_errors() {
    let proxy = acme_proxy();
    for (name, value) in [
        ("GOOS", "windos"),
        ("GOARCH", "x86_64"),
        ("GOARM", "8"),
        ("GOAMD64", "3"),
        ("GOARM64", "v1"),
        ("GO386", "387"),
        ("CGO_ENABLED", "true"),
    ] {
        let sandbox = machine(&proxy).env(name, value);
        for command in ["build -o out", "lock", "build --dry-run", "run -- --version", "fetch", "list"] {
            sandbox.vx(command).fails_with(2, &[&format!("invalid {name}={value}: ")]);
        }
        assert!(!sandbox.has("out") && !sandbox.has("velox.lock"));
    }
}

#[test]
fn run_needs_a_binary_of_this_machine() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).env("GOOS", "windows");
    sandbox.vx("run -- --version").fails_with(2, &["GOOS and GOARCH select windows/", "vx run"]);
}

#[test]
fn remote_builds_take_the_target_but_no_instruction_set() {
    let proxy = acme_proxy();
    for (name, value) in [("GOAMD64", "v3"), ("CGO_ENABLED", "1")] {
        let command = "build --remote http://127.0.0.1:9 --target linux/amd64";
        machine(&proxy).env(name, value).vx(command).fails_with(
            2,
            &[&format!("{name}={value} is not supported by remote builds"), &format!("unset {name}")],
        );
    }
}

#[test]
fn ignored_go_settings_are_named() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy)
        .env("GOFLAGS", "-tags=acme '-ldflags=-s -w' -modcacherw -p=2")
        .env("GOEXPERIMENT", "nogreenteagc");
    for command in ["lock", "build -o out"] {
        sandbox.vx(command).succeeds_with(&[
            "warning: GOFLAGS=-tags=acme, GOFLAGS=-ldflags=-s -w, GOEXPERIMENT=nogreenteagc are ignored",
            "build_args",
        ]);
    }
    let sandbox = sandbox.env("GOFLAGS", "-mod=mod -trimpath").env("GOEXPERIMENT", "");
    let log = logged(&sandbox.vx("build -o out"));
    assert!(!log.contains("ignored"), "{log}");
}

#[cfg(unix)]
#[test]
fn modcacherw_leaves_the_module_cache_writable() {
    use std::{
        os::unix::fs::PermissionsExt as _,
        path::{Path, PathBuf},
    };
    fn read_only(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> =
            entries.filter(|path| path.is_dir()).flat_map(|path| read_only(&path)).collect();
        if fs::metadata(directory).unwrap().permissions().mode() & 0o200 == 0 {
            found.push(directory.to_owned());
        }
        found
    }
    let proxy = acme_proxy();
    for (flags, expected) in [("-modcacherw", false), ("-modcacherw=true", false), ("", true)] {
        let sandbox = machine(&proxy);
        let cache = sandbox.at("../modules");
        let sandbox = sandbox.env("GOMODCACHE", &cache).env("GOFLAGS", flags);
        sandbox.vx("fetch").ok();
        let found = read_only(&cache);
        assert_eq!(!found.is_empty(), expected, "{flags}: {found:?}");
        let writable = sandbox.env("GOFLAGS", "-modcacherw");
        writable.command("go", &["clean", "-modcache"]).status().unwrap();
    }
}

#[test]
fn a_stamp_of_something_else_is_honored_and_warned_of() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).env("APP_VERSION", "1.0.0");
    let warning =
        format!("`rr --version` will print 1.0.0, from APP_VERSION, but this is RoadRunner {RELEASE}");
    sandbox.vx("build -o out").succeeds_with(&[
        &warning,
        "Stamped 1.0.0 (APP_VERSION), ",
        "unset APP_VERSION",
    ]);
    // Also when the store has the binary.
    sandbox.vx("build -o again").succeeds_with(&[&warning, "cached"]);

    let arguments = "build_args = ['-trimpath', '-ldflags', '-X github.com/roadrunner-server/roadrunner/v2023/internal/meta.version=v2023.1.4 -X github.com/roadrunner-server/roadrunner/v2023/internal/meta.buildTime=10:00:00']";
    let toml = format!(
        "[velox]\n{arguments}\n\n[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.hello]\nmodule_name = \"example.com/acme/hello\"\ntag = \"v1.0.0\"\n"
    );
    let sandbox = sandbox.file("velox.toml", toml);
    sandbox.vx("build -o args").succeeds_with(&[
        "will print 2023.1.4, from build_args",
        "Stamped 2023.1.4 (build_args), 10:00:00 (build_args)",
        "remove the `-X",
    ]);

    for (version, arguments) in [("undefined", ""), (RELEASE, ""), ("1.0.0", "--stamp-version 1.0.0")] {
        let sandbox = machine(&proxy).env("APP_VERSION", version);
        let log = logged(&sandbox.vx(&format!("build -o out {arguments}")));
        assert!(!log.contains("will print"), "{version}: {log}");
    }
}

#[test]
fn debug_builds_compile_every_package_for_a_debugger() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build -o plain").ok();
    let log = logged(&sandbox.vx("build --debug -o debug -v"));
    assert!(!log.contains("cached"), "{log}");
    let lock = sandbox.read("velox.lock");
    assert_contains(&lock, &["\"debug\""]);
    assert_eq!(setting(&sandbox, "debug/rr", "-gcflags").as_deref(), Some("all=-N -l"));
    assert_eq!(setting(&sandbox, "debug/rr", "-tags").as_deref(), Some("debug"));
    assert_contains(&sandbox.vx("inspect debug/rr").ok(), &["debug"]);
}

#[test]
fn the_race_detector_needs_a_c_compiler_and_this_platform() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    let foreign = if GoTarget::host().os == "windows" { "linux/amd64" } else { "windows/amd64" };
    sandbox
        .vx(&format!("build --race --target {foreign}"))
        .fails_with(2, &["race detector", foreign, "C compiler"]);
    let without = machine(&proxy).env("CC", "/nowhere/cc");
    without.vx("build --race").fails_with(1, &["the race detector requires a C compiler", "`/nowhere/cc`"]);
    let without = without.env("CGO_ENABLED", "1");
    without.vx("build").fails_with(1, &["CGO_ENABLED=1 requires a C compiler", "`/nowhere/cc`"]);
    if program("gcc").is_none() {
        return skip("a build with the race detector", "no gcc");
    }
    sandbox.vx("build --race -o out").ok();
    assert_eq!(setting(&sandbox, "out/rr", "-race").as_deref(), Some("true"));
    assert_eq!(setting(&sandbox, "out/rr", "CGO_ENABLED").as_deref(), Some("1"));
}

#[test]
fn half_a_target_in_the_file_is_completed_by_the_environment() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).env("GOARCH", "arm64");
    let half = sandbox.read("velox.toml") + "\n[target_platform]\nos = \"windows\"\n";
    let sandbox = sandbox.file("velox.toml", half);
    sandbox.vx("lock").ok();
    assert_contains(&sandbox.read("velox.lock"), &["platform = \"windows/arm64\""]);
    let sandbox = sandbox.env("GOARCH", "armv9");
    sandbox.vx("lock").fails_with(2, &["invalid GOARCH: ", "`armv9`"]);
}

#[test]
fn a_token_in_place_of_a_version_is_never_shown() {
    let proxy = acme_proxy();
    let toml = |variable: &str| {
        format!(
            "[roadrunner]\nref = \"{RELEASE}\"\n\n[plugins.hello]\nmodule_name = \"example.com/acme/hello\"\ntag = \"${{{variable}}}\"\n"
        )
    };
    for (variable, value) in [("RT_TOKEN", "s3cr3t-value"), ("HELLO_VERSION", "ghp_s3cr3t")] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", toml(variable)).env(variable, value);
        let output = sandbox.vx("build -o out");
        let shown = output.fails(2) + &output.stdout();
        assert_contains(&shown, &[&format!("environment variable `{variable}` has a token, not a version")]);
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}
