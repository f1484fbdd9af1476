//! `velox.lock`: reproducible builds on any machine, with and without a network.

use std::fs;

use velox_testkit::{Fault, plugin};

use crate::support::sandbox::{Sandbox, VX, acme_proxy, configuration};

const HELLO: &str = "example.com/acme/hello";
const BYE: &str = "example.com/acme/bye";

#[test]
fn second_build_needs_neither_network_nor_go() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("build -o out").ok();
    let (first, locked) = (sandbox.bytes("out/rr"), sandbox.read("velox.lock"));

    proxy.forget_requests();
    fs::remove_dir_all(sandbox.at("out")).unwrap();
    let sandbox = sandbox.env("PATH", "/nowhere");
    sandbox.vx("build -o out --locked").succeeds_with(&[", cached)"]);
    assert_eq!(proxy.requests(), [""; 0]);
    assert_eq!(sandbox.bytes("out/rr"), first);
    assert_eq!(sandbox.read("velox.lock"), locked);
}

#[test]
fn changed_configuration_updates_only_what_changed() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("bye@main");
    sandbox.vx("build -o out").ok();
    proxy.query("example.com/acme/bye", "main", "v1.1.0");

    let sandbox = sandbox.plugins("bye@main hello@v1.0.0");
    sandbox.vx("lock --check").fails_with(2, &["plugin hello: the lock has nothing"]);
    sandbox.vx("build -o out --locked").fails_with(2, &["vx lock"]);

    sandbox.vx("build -o out").ok();
    assert_eq!(sandbox.module_in("out/rr", BYE).as_deref(), Some("v1.0.0"));
    assert_eq!(sandbox.module_in("out/rr", HELLO).as_deref(), Some("v1.0.0"));
    sandbox.vx("lock --check").ok();

    sandbox.vx("lock --upgrade hello").ok();
    assert!(
        sandbox.read("velox.lock").contains("example.com/acme/bye v1.0.0"),
        "only what was named is upgraded"
    );
    sandbox.vx("lock --upgrade").ok();
    sandbox.vx("build -o out --locked").ok();
    assert_eq!(sandbox.module_in("out/rr", BYE).as_deref(), Some("v1.1.0"));
}

#[test]
fn locked_without_lock_fails_and_writes_nothing() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    for arguments in ["build --locked", "lock --check", "fetch --locked"] {
        sandbox.vx(arguments).fails_with(2, &["velox.lock does not exist, but is required"]);
    }
    sandbox.vx("build --dry-run").ok();
    assert!(!sandbox.has("velox.lock"), "a dry run leaves no lock");
    assert_eq!(sandbox.entries("."), ["velox.toml"]);
}

#[test]
fn offline_build_works_after_fetch() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("fetch").ok();
    proxy.forget_requests();
    sandbox.vx("build -o out --offline --locked").ok();
    assert_eq!(proxy.requests(), [""; 0]);

    // On a machine that never fetched, the error lists the missing modules.
    let other =
        Sandbox::behind(&proxy).plugins("hello@v1.0.0").file("velox.lock", sandbox.read("velox.lock"));
    other.vx("build -o out --offline").fails_with(1, &["example.com/acme/hello v1.0.0\n", "vx fetch"]);
    assert_eq!(proxy.requests(), [""; 0]);
    other.vx("fetch --locked").ok();
    other.vx("build -o out --offline").ok();
}

#[test]
fn same_lock_builds_same_bytes_on_another_machine() {
    let proxy = acme_proxy();
    let text = configuration("hello@v1.0.0 bye@main");
    let one = Sandbox::behind(&proxy).file("velox.toml", &text);
    one.vx("build -o out").ok();
    proxy.query("example.com/acme/bye", "main", "v1.1.0");
    // Another directory, home and user; no compile cache.
    let other = Sandbox::behind(&proxy)
        .file("deep/er/velox.toml", &text)
        .file("deep/er/velox.lock", one.read("velox.lock"));
    let cache = other.at("gocache");
    let other = other.env("GOCACHE", cache).env("TZ", "Asia/Tokyo").env("USER", "somebody");
    let other = other.by_another_user("a lock from another machine");
    other.vx("build -c deep/er/velox.toml -o out --locked").ok();
    assert!(one.bytes("out/rr") == other.bytes("out/rr"), "the two servers differ");
}

#[test]
fn corrupt_lock_fails_until_vx_lock_rewrites_it() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("lock").ok();
    let good = sandbox.read("velox.lock");
    let merge = good.replace("[roadrunner]", "<<<<<<< HEAD\n[roadrunner]");
    let newer = good.replace("format = 1", "format = 99");
    let mut sandbox = sandbox;
    for (text, sign) in [
        (&good[..good.len() / 2], "failed to parse"),
        (&merge, "merge conflict"),
        (&newer, "format 99"),
        ("\u{0}\u{1}", "failed to parse"),
    ] {
        sandbox = sandbox.file("velox.lock", text);
        sandbox.vx("build -o out").fails_with(2, &[sign, "vx lock"]);
        assert_eq!(sandbox.read("velox.lock"), text, "nothing is overwritten unasked");
    }
    sandbox.vx("lock").ok();
    assert_eq!(sandbox.read("velox.lock"), good);
}

#[test]
fn changed_checksum_in_lock_fails_the_build() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("lock").ok();
    let line = sandbox
        .read("velox.lock")
        .lines()
        .find(|line| line.starts_with("example.com/acme/hello v1.0.0 h1:"))
        .unwrap()
        .to_owned();
    let other = "example.com/acme/hello v1.0.0 h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let spoiled = sandbox.read("velox.lock").replace(&line, other);
    let sandbox = sandbox.file("velox.lock", spoiled);
    sandbox.vx("build -o out").fails_with(1, &["example.com/acme/hello", "checksum"]);
    assert!(!sandbox.has("out/rr"));
}

#[test]
fn changed_module_is_rejected_when_lock_is_updated() {
    let proxy = acme_proxy();
    let one = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    one.vx("lock").ok();
    // No checksum database covers it; the old lock's checksum still applies when the lock is updated.
    proxy.fail("hello/@v/v1.0.0.zip", Fault::Altered);
    let other =
        Sandbox::behind(&proxy).plugins("hello@v1.0.0 bye@v1.0.0").file("velox.lock", one.read("velox.lock"));
    other.vx("lock").fails_with(1, &["checksum mismatch for example.com/acme/hello v1.0.0"]);
    assert_eq!(other.read("velox.lock"), one.read("velox.lock"));
}

#[test]
fn invalid_flags_fail_before_any_request() {
    let proxy = acme_proxy();
    let text = configuration("hello@v1.0.0");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &text);
    let nowhere = sandbox.at("nowhere").display().to_string();
    let folder = sandbox.path().display().to_string();
    for (code, flags, sign) in [
        (2, "--output-file velox.toml", "velox.toml already exists and is not an executable"),
        (1, "-o /proc/nowhere", "failed to write `/proc/nowhere/rr`"),
        (2, "--stamp-version '1\n2'", "control character"),
        (2, "--remote-cache s4://bucket", "s4://bucket"),
        (2, &format!("--go {nowhere}"), "nowhere does not exist"),
        (2, &format!("--go {folder}"), "work is a directory"),
        (1, "--go /bin/true", "is the program of --go a go command?"),
    ] {
        for dry in ["", "--dry-run"] {
            sandbox.vx(&format!("build {flags} {dry}")).fails_with(code, &[sign]);
        }
    }
    assert_eq!(proxy.requests(), [""; 0], "reported before any request");
    assert_eq!(sandbox.read("velox.toml"), text);
    sandbox.vx("lock --upgrade helo").fails_with(2, &["no plugin named `helo`", "did you mean `hello`?"]);
    sandbox
        .vx("lock --upgrade x")
        .fails_with(2, &["no plugin named `x`", "the plugins are: roadrunner, hello"]);

    let replaced = format!("{text}replace = \"./mine\"\n");
    let sandbox =
        sandbox.file("velox.toml", replaced).file("mine/deep/go.mod", "module example.com/acme/hello\n");
    sandbox.vx("lock").fails_with(2, &["mine has no go.mod", "mine/deep: use that directory"]);
    let sandbox =
        sandbox.file("mine/go.mod", "module example.com/acme/hello\n").file("mine/a_test.go", "package a\n");
    sandbox.vx("lock").fails_with(2, &["has a go.mod, but no Go package"]);
}

#[test]
fn several_targets_build_in_one_run_with_archives() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("build -o out --target linux/amd64 --target windows/amd64 --archive").ok();
    assert_eq!(
        sandbox.entries("out"),
        [
            "checksums.txt",
            "roadrunner-2025.0.77-linux-amd64.tar.gz",
            "roadrunner-2025.0.77-windows-amd64.zip",
            "rr-linux-amd64",
            "rr-windows-amd64.exe",
        ]
    );
    sandbox.run("sh -c 'cd out && sha256sum -c --strict checksums.txt'");
    let listed = sandbox.run("tar -tzf out/roadrunner-2025.0.77-linux-amd64.tar.gz");
    assert!(listed.starts_with("roadrunner-2025.0.77-linux-amd64/rr\n"), "{listed}");
    assert_eq!(sandbox.read("velox.lock").matches("[[target]]").count(), 2);

    // The same targets from the configuration, and one of them from the same lock.
    let text = configuration("hello@v1.0.0")
        + "\n[[targets]]\nos = \"linux\"\narch = \"amd64\"\n\n[[targets]]\nos = \"windows\"\narch = \"amd64\"\n";
    let sandbox = sandbox.file("velox.toml", text);
    let message = sandbox.vx("build -o out --locked");
    message.ok();
    assert_eq!(message.stderr().matches(", cached)").count(), 2, "{}", message.stderr());
    sandbox.vx("build -o one --locked --target linux/amd64").ok();
    assert_eq!(sandbox.bytes("out/rr-linux-amd64"), sandbox.bytes("one/rr"));
    sandbox.vx("build --output-file rr").fails_with(2, &["several targets"]);
}

#[test]
fn local_replacement_is_compiled_as_it_is_now() {
    let proxy = acme_proxy();
    let sandbox =
        Sandbox::behind(&proxy).file("velox.toml", configuration("hello@v1.0.0") + "replace = \"./mine\"\n");
    let sandbox = sandbox.files("mine", plugin("example.com/acme/hello", "hello").says("one").files());
    sandbox.vx("build -o out").ok();
    let (first, locked) = (sandbox.bytes("out/rr"), sandbox.read("velox.lock"));
    let sandbox = sandbox.files("mine", plugin("example.com/acme/hello", "hello").says("two").files());
    sandbox.vx("build -o out --locked").ok();
    assert_ne!(sandbox.bytes("out/rr"), first);
    assert_eq!(sandbox.read("velox.lock"), locked, "other code with the same needs fits the same lock");

    // A changed requirement makes the lock stale.
    let needy = plugin(HELLO, "hello").imports(BYE, "v1.1.0");
    let sandbox = sandbox.files("mine", needy.files());
    sandbox.vx("build -o out --locked").fails_with(2, &["plugin hello"]);
    sandbox.vx("build -o out").ok();
    assert_eq!(sandbox.module_in("out/rr", BYE).as_deref(), Some("v1.1.0"));
}

#[test]
fn cache_is_listed_verified_pruned_and_cleared() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    let directory = sandbox.vx("cache dir").ok();
    assert!(sandbox.vx("cache info").ok().contains("0 binaries"));
    sandbox.vx("build -o out").ok();
    assert!(sandbox.vx("cache info").ok().contains("1 binary"));

    // A corrupted artifact is never returned.
    let kept = sandbox.run(&format!("find {} -name rr -type f", directory.trim()));
    let mut bytes = fs::read(kept.trim()).unwrap();
    bytes[0] ^= 1;
    fs::write(kept.trim(), bytes).unwrap();
    let rebuilt = sandbox.vx("build -o again");
    rebuilt.succeeds_with(&["Compiled"]);
    assert!(sandbox.bytes("again/rr") == sandbox.bytes("out/rr"));

    assert!(sandbox.vx("cache verify").ok().contains("all cached binaries are intact"));
    assert!(sandbox.vx("cache prune --max-size 1K").ok().contains("removed 1 binary"));
    assert!(sandbox.vx("cache clear --format json").ok().contains("\"artifacts\":0"));
    sandbox.vx("build -o again --no-cache").ok();
}

#[test]
fn user_environment_changes_no_byte() {
    let proxy = acme_proxy();
    let one = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    one.vx("build -o out").ok();

    let other = Sandbox::behind(&proxy)
        .plugins("hello@v1.0.0")
        .file("velox.lock", one.read("velox.lock"))
        .file("home/goenv", "GOARM=5\nGOEXPERIMENT=nogreenteagc\nGOFIPS140=latest\n");
    let goenv = other.at("home/goenv");
    let mut other = other
        .env("GOENV", goenv)
        .env("GOFLAGS", "-race -tags=debug -ldflags=-s -trimpath=false -mod=vendor -modcacherw")
        // The go command itself fetches modules when it has its own credentials.
        .env("GOAUTH", "git /")
        .env("LANG", "de_DE.UTF-8")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TZ", "Pacific/Kiritimati")
        .env("GOGC", "50")
        .env("CC", "/nowhere/cc")
        .env("GOWORK", "/nowhere/go.work");
    other.run(&format!("sh -c 'umask 077 && exec {VX} build -o out --locked'"));
    assert!(one.bytes("out/rr") == other.bytes("out/rr"), "the two servers differ");

    // Again with a module cache filled by vx and an empty artifact store.
    other = other.without("GOAUTH").env("VX_CACHE_DIR", one.path().join("../other-cache"));
    let empty = other.at("../empty-modules");
    other = other.env("GOMODCACHE", empty);
    other.vx("build -o again --locked").ok();
    assert!(one.bytes("out/rr") == other.bytes("again/rr"), "native fetching differs");
}

#[test]
fn tampered_lock_is_rejected_and_left_alone() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("lock").ok();
    let good = sandbox.read("velox.lock");
    let hello = "example.com/acme/hello v1.0.0";
    let without = |sign: &str| {
        good.lines()
            .filter(|line| !line.starts_with(sign))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut sandbox = sandbox;
    for (what, text, sign) in [
        (
            "another version",
            good.replace("version = \"v1.0.0\"", "version = \"v1.1.0\""),
            "plugin hello is v1.1.0",
        ),
        ("a sum less", without(&format!("{hello} h1:")), "no sum for example.com/acme/hello"),
        (
            "another go.mod",
            good.replace(&format!("\t{hello}"), "\texample.com/acme/hello v1.1.0"),
            "in go.mod",
        ),
        (
            "a directory of this machine",
            good.replace("sum = '''", "sum = '''\n")
                .replace("\n'''\nsum", "\nreplace example.com/acme/hello => ../../../../etc\n'''\nsum"),
            "outside of ./replace",
        ),
        (
            "a module that leaves",
            good.replace(&format!("\"{hello}\""), "\"../../../etc/hello v1.0.0\""),
            "failed to parse",
        ),
        (
            "a module that is a flag",
            good.replace(&format!("\"{hello}\""), "\"-modfile=/etc/hosts v1.0.0\""),
            "failed to parse",
        ),
        ("an unknown key", good.replace("[roadrunner]", "[roadrunner]\nsneaky = 1"), "failed to parse"),
    ] {
        assert_ne!(text, good, "{what}");
        sandbox = sandbox.file("velox.lock", &text);
        for arguments in ["fetch --locked", "build -o out"] {
            sandbox.vx(arguments).fails_with(2, &[sign, "vx lock"]);
        }
        assert_eq!(sandbox.read("velox.lock"), text, "{what}: nothing is overwritten unasked");
        assert!(!sandbox.has("out/rr"), "{what}");
    }
    sandbox.vx("lock").ok();
    assert_eq!(sandbox.read("velox.lock"), good);
}

/// What an edit adds to a lock, and what is said of it.
fn edits(good: &str, bye_sums: &str) -> Vec<(String, &'static str)> {
    let go_mod = |line: &str| good.replacen("\n'''\nsum", &format!("\n{line}\n'''\nsum"), 1);
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old} in {good}");
        good.replace(old, new)
    };
    let sum = |lines: &str| good.replacen("sum = '''\n", &format!("sum = '''\n{lines}"), 1);
    let without = |start: &str| {
        let lines = good.lines().filter(|line| !line.starts_with(start)).map(|line| format!("{line}\n"));
        lines.collect::<String>()
    };
    const SUM: &str = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let bye = "example.com/acme/bye v1.0.0";
    let swapped = go_mod(&format!("replace example.com/acme/hello => {bye}"));
    let swapped = swapped.replacen("sum = '''\n", &format!("sum = '''\n{bye_sums}"), 1);
    let added = "[[plugin]]\nname = \"extra\"\nasked = \"v1.0.0\"\nmodule = \"example.com/acme/bye\"\nversion = \"v1.0.0\"\n\n[[plugin]]";
    vec![
        (swapped, "go.mod: only the lock replaces example.com/acme/hello with example.com/acme/bye v1.0.0"),
        (
            go_mod("replace golang.org/x/nothing => example.com/acme/bye v1.0.0"),
            "go.mod: only the lock replaces golang.org/x/nothing",
        ),
        (with("[[plugin]]", added), "plugin extra: only the lock has it (example.com/acme/bye v1.0.0)"),
        (
            with("module = \"example.com/acme/hello\"", "module = \"example.com/acme/bye\""),
            "plugin hello: the lock has example.com/acme/bye, which the configuration doesn't name",
        ),
        (
            with("acme/hello v1.0.0", "acme/hello v1.1.0")
                .replace(
                    "module = \"example.com/acme/hello\"\nversion = \"v1.0.0\"",
                    "module = \"example.com/acme/hello\"\nversion = \"v1.1.0\"",
                )
                .replace(
                    "from = \"example.com/acme/hello v1.1.0\"",
                    "from = \"example.com/acme/hello v1.0.0\"",
                ),
            "plugin hello: the lock has v1.1.0, the configuration requests v1.0.0",
        ),
        (
            go_mod("exclude golang.org/x/nothing v1.0.0"),
            "go.mod: only the lock excludes golang.org/x/nothing",
        ),
        (
            go_mod("require example.com/acme/bye v1.0.0"),
            "go.mod: only the lock requires example.com/acme/bye",
        ),
        (go_mod("toolchain go1.99.0"), "`toolchain go1.99.0`"),
        (
            go_mod("require example.com/acme/bye v1.0.0 // indirect"),
            "go.mod: nothing requires example.com/acme/bye v1.0.0",
        ),
        (sum(bye_sums), "go.sum: nothing requires example.com/acme/bye v1.0.0"),
        (
            sum(&format!("{bye}/go.mod {SUM}\n")),
            "go.sum: nothing requires example.com/acme/bye v1.0.0/go.mod",
        ),
        (
            sum(&format!("example.com/acme/hello v1.1.0/go.mod {SUM}\n")),
            "go.sum: nothing requires example.com/acme/hello v1.1.0/go.mod",
        ),
        (
            without("example.com/acme/hello v1.0.0 h1:"),
            "the lock has no sum for example.com/acme/hello v1.0.0",
        ),
        (
            without("example.com/acme/hello v1.0.0/go.mod h1:"),
            "the lock has no sum for example.com/acme/hello v1.0.0/go.mod",
        ),
    ]
}

#[test]
fn whatever_only_the_lock_has_is_a_difference() {
    let proxy = acme_proxy();
    let other = Sandbox::behind(&proxy).plugins("bye@v1.0.0");
    other.vx("lock").ok();
    let sums = other.read("velox.lock");
    let sums: String = sums
        .lines()
        .filter(|line| line.starts_with("example.com/acme/bye v1.0.0"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(sums.lines().count(), 2);

    let mut sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    sandbox.vx("build -o out").ok();
    let good = sandbox.read("velox.lock");
    for (edited, said) in edits(&good, &sums) {
        sandbox = sandbox.file("velox.lock", edited.replace('\r', ""));
        for command in ["build -o out --locked", "lock --check"] {
            sandbox.vx(command).fails_with(2, &["velox.lock does not match the configuration", said]);
        }
        sandbox.vx("list").succeeds_with(&["vx lock"]);
    }
    // An ordinary build resolves everything again, and says why.
    let (swapped, said) = edits(&good, &sums).swap_remove(0);
    let sandbox = sandbox.file("velox.lock", swapped);
    sandbox.vx("build -o out").succeeds_with(&["warning: ", said, "resolved again"]);
    assert_eq!(sandbox.read("velox.lock"), good);

    // Sums that nothing needs are removed: earlier versions of vx left some behind.
    let unused = good.replacen("sum = '''\n", &format!("sum = '''\n{sums}"), 1);
    let sandbox = sandbox.file("velox.lock", &unused);
    let output = sandbox.vx("build -o out").ok();
    assert!(!output.contains("warning"), "{output}");
    assert_eq!(sandbox.read("velox.lock"), good);
    // They also decide about no later version.
    let sandbox = sandbox.file("velox.lock", unused).plugins("hello@v1.0.0 bye@v1.1.0");
    sandbox.vx("lock").ok();
    assert!(!sandbox.read("velox.lock").contains("acme/bye v1.0.0"));

    // Also where the caches have nothing to compare with.
    let (edited, said) = edits(&good, &sums).swap_remove(5);
    let sandbox = sandbox.plugins("hello@v1.0.0").file("velox.lock", edited).cold();
    sandbox.vx("lock --check").fails_with(2, &[said]);
    let sandbox = sandbox.cold();
    sandbox.vx("build -o cold --locked").fails_with(2, &[said]);
    assert!(!sandbox.has("cold"));
}
