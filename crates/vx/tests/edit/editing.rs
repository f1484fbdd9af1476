//! The commands that change velox.toml, as a user types them.

use std::fs;

use velox_testkit::{Fault, ModuleProxy, TestForge, plugin, roadrunner};

use crate::{
    init::on_a_terminal,
    support::sandbox::{CommandOutput, RELEASE, Sandbox, assert_contains, configuration, skip},
};

/// A proxy with a small RoadRunner and plugins of several majors.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    for (module, versions) in [
        ("github.com/acme/hello", &["v1.0.0", "v1.1.0", "v1.2.0-rc.1"][..]),
        ("github.com/acme/hello/v2", &["v2.0.0", "v2.1.0"]),
        ("github.com/acme/bye", &["v1.0.0", "v1.1.0"]),
        ("github.com/acme/bye/sub", &["v1.0.0"]),
    ] {
        for version in versions {
            let name = module.trim_start_matches("github.com/acme/").split('/').next().unwrap();
            proxy.module(module, version, plugin(module, name).says(version).files());
        }
    }
    proxy.query("github.com/acme/bye", "main", "v1.0.0");
    proxy
}

const MODULES: &str = "\
# Our server.
[roadrunner]
ref = \"v2025.0.77\"

# Says hello.
[plugins.hello]
module_name = \"github.com/acme/hello\"
tag = \"v1.0.0\" # for now

[log]
level = \"info\"
";

const MANUAL: &str = "\
[roadrunner]
ref = \"v2025.0.77\"

[github.plugins]
# Says hello.
hello = { ref = \"v1.0.0\", owner = \"acme\", repository = \"hello\" } # for now

[log]
level = \"info\"
";

/// The lines of `new` that `old` lacks.
fn new_lines<'a>(old: &str, new: &'a str) -> Vec<&'a str> {
    new.lines().filter(|line| !line.is_empty() && !old.lines().any(|known| known == *line)).collect()
}

#[test]
fn add_takes_the_version_of_the_release_and_locks_it() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES);
    let message = sandbox.vx("add fileserver");
    message.ok();
    assert!(message.stderr().contains("Added fileserver v5.1.9"), "{}", message.stderr());
    // One warning for RoadRunner, which is resolved first, and all other modules.
    assert_eq!(
        message.stderr().matches("not verified by a checksum database").count(),
        1,
        "{}",
        message.stderr()
    );
    assert_eq!(
        new_lines(MODULES, &sandbox.read("velox.toml")),
        [
            "[plugins.fileserver]",
            "module_name = \"github.com/roadrunner-server/fileserver/v5\"",
            "tag = \"v5.1.9\""
        ]
    );
    sandbox.vx("lock --check").ok();
    sandbox.vx("remove fileserver").ok();
    assert_eq!(sandbox.read("velox.toml"), MODULES);
    sandbox.vx("lock --check").ok();
    assert!(!sandbox.read("velox.lock").contains("name = \"fileserver\""));
}

#[test]
fn dependencies_are_named_added_and_missed() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES);
    sandbox
        .vx("add fileserver")
        .succeeds_with(&["warning: missing plugins: logger (for fileserver)", "`vx add logger`"]);
    sandbox
        .vx("add status --with-dependencies")
        .succeeds_with(&["Added status v5.1.9", "Added logger v5.1.9"]);
    let complete = sandbox.vx("add rpc");
    complete.ok();
    assert!(!complete.stderr().contains("missing plugins"), "{}", complete.stderr());
    sandbox.vx("lock --check").ok();

    // By module path and by the catalogue's name.
    sandbox.vx("remove github.com/roadrunner-server/logger").succeeds_with(&[
        "warning: plugins fileserver, rpc and status do not start without logger",
        "help: remove them too: `vx remove fileserver rpc status`",
        "Removed logger",
    ]);
    sandbox.vx("add gzip@v5.3.0 boltdb@v5.1.9 --no-lock").succeeds_with(&[
        "warning: missing plugins: server (for http), http (for gzip), logger (for boltdb, http, server)",
        "`vx add server http logger`",
        "warning: plugin boltdb has no effect without jobs or kv",
    ]);
    let named = MODULES.replace("[plugins.hello]", "[plugins.files]\nmodule_name = \"github.com/roadrunner-server/fileserver/v5\"\ntag = \"v5.1.9\"\n\n[plugins.hello]");
    let sandbox = sandbox.file("velox.toml", named);
    sandbox.vx("update fileserver").ok();
    sandbox.vx("remove fileserver").succeeds_with(&["Removed files"]);
    assert!(!sandbox.read("velox.toml").contains("fileserver"));
}

#[test]
fn add_on_a_terminal_asks_for_dependencies() {
    let proxy = proxy();
    for (keys, plugins) in [(&b"\r"[..], &["fileserver", "logger"][..]), (b"j\r", &["fileserver"])] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES);
        let Some(shown) = on_a_terminal(&sandbox, "add fileserver --no-lock", keys) else {
            return skip("add_on_a_terminal_asks_for_dependencies", "util-linux's script is not here");
        };
        assert!(shown.contains("Missing plugins: logger (for fileserver). Add them?"), "{shown}");
        let text = sandbox.read("velox.toml");
        let tables = new_lines(MODULES, &text).into_iter().filter(|line| line.starts_with('['));
        let expected = plugins.iter().map(|name| format!("[plugins.{name}]"));
        assert_eq!(tables.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{shown}");
    }
}

#[test]
fn add_keeps_the_format_of_the_file() {
    let proxy = proxy();
    let modules = Sandbox::behind(&proxy).file("velox.toml", MODULES);
    modules.vx("add acme/bye github.com/acme/hello/v2@v2.0.0 --no-lock").ok();
    assert_eq!(
        new_lines(MODULES, &modules.read("velox.toml")),
        [
            "module_name = \"github.com/acme/hello/v2\"",
            "tag = \"v2.0.0\" # for now",
            "[plugins.bye]",
            "module_name = \"github.com/acme/bye\"",
            "tag = \"v1.1.0\"",
        ]
    );
    assert!(!modules.has("velox.lock"), "--no-lock leaves it to the next build");

    let manual = Sandbox::behind(&proxy).file("velox.toml", MANUAL);
    let message = manual.vx("add --no-lock gitlab.com/group/sub/x@v1.0.0 acme/bye@main http@v5.2.0");
    message.ok();
    let unchecked =
        "not verified because of --no-lock: gitlab.com/group/sub/x@v1.0.0, github.com/acme/bye@main";
    assert!(message.stderr().contains(unchecked), "{}", message.stderr());
    assert_eq!(
        new_lines(MANUAL, &manual.read("velox.toml")),
        [
            "bye = { ref = \"main\", owner = \"acme\", repository = \"bye\" }",
            "http = { ref = \"v5.2.0\", owner = \"roadrunner-server\", repository = \"http\" }",
            "[gitlab.plugins]",
            "x = { ref = \"v1.0.0\", owner = \"group/sub\", repository = \"x\" }",
        ]
    );
    manual.vx("add example.com/x@v1.0.0").fails_with(2, &["vx migrate"]);
}

#[test]
fn add_with_replacement_and_name() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES);
    let sandbox = sandbox.files("mine", plugin("github.com/acme/bye", "bye").says("mine").files());
    sandbox.vx("add acme/bye@v1.0.0 --replace ./mine --name farewell").ok();
    assert_eq!(
        new_lines(MODULES, &sandbox.read("velox.toml")),
        [
            "[plugins.farewell]",
            "module_name = \"github.com/acme/bye\"",
            "tag = \"v1.0.0\"",
            "replace = \"./mine\"",
        ]
    );
    assert!(sandbox.read("velox.lock").contains("./mine"));
    sandbox.vx("add acme/bye --replace mine").fails_with(2, &["./mine"]);
    sandbox.vx("remove farewell").ok();
    sandbox.vx("add ./mine").succeeds_with(&["Added bye latest (github.com/acme/bye)"]);
    assert!(sandbox.read("velox.lock").contains("./mine"));
    sandbox.vx("add . ./nothing").fails_with(2, &["go.mod"]);
    // A directory is written relative to the file.
    sandbox.vx("remove bye").ok();
    let deeper = sandbox.vx_command("add .").current_dir(sandbox.at("mine")).output().unwrap();
    assert!(deeper.status.success(), "{}", String::from_utf8_lossy(&deeper.stderr));
    let text = sandbox.read("velox.toml").replace("./mine/.", "./mine");
    assert_eq!(
        new_lines(MODULES, &text),
        [
            "[plugins.bye]",
            "module_name = \"github.com/acme/bye\"",
            "tag = \"latest\"",
            "replace = \"./mine\"",
        ]
    );
    sandbox.vx("remove bye").ok();
    sandbox.vx("add acme/bye@v1.0.0 --replace ./mine --name farewell").ok();
    sandbox.vx("add acme/bye kv --name x").fails_with(2, &["--name"]);
    sandbox
        .vx("add acme/bye@v1.1.0 --name x")
        .fails_with(2, &["is already in the configuration as `farewell`"]);
    sandbox.vx("add acme/bye@v1.1.0 --name farewell --no-lock").ok();
    assert!(sandbox.read("velox.toml").contains("tag = \"v1.1.0\""), "{}", sandbox.read("velox.toml"));
}

#[test]
fn failed_edit_changes_neither_file_nor_lock() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES);
    sandbox.vx("lock").ok();
    let locked = sandbox.read("velox.lock");
    sandbox
        .vx("add acme/bye@v1.1.1")
        .fails_with(1, &["similar versions: v1.1.0, v1.0.0", "`velox.toml` was not changed"]);
    sandbox.vx("add htttp").fails_with(2, &["did you mean `http`"]);
    sandbox.vx("remove helo").fails_with(2, &["did you mean `hello`?"]);
    sandbox.vx("remove hello").fails_with(2, &["a configuration needs at least one plugin"]);
    sandbox.vx("add kv -c -").fails_with(2, &["`<stdin>` is not a regular file"]);
    proxy.fail("bye", Fault::Status(500));
    sandbox.vx("add acme/bye@v1.0.0").fails(1);
    assert_eq!((sandbox.read("velox.toml"), sandbox.read("velox.lock")), (MODULES.to_owned(), locked));
    assert_eq!(sandbox.entries("."), ["velox.lock", "velox.toml"], "nothing half written stays");
}

#[test]
fn add_first_plugin_to_file_without_plugins() {
    let proxy = proxy();
    for text in ["", "[log]\nlevel = \"info\"\n"] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", text);
        sandbox.vx("add fileserver --no-lock").ok();
        let expected = "[roadrunner]\nref = \"v2025.0.77\"\n\n[plugins.fileserver]\n";
        let written = sandbox.read("velox.toml");
        assert!(written.starts_with(text) && written.contains(expected), "{written}");
    }
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", "[roadrunner]\nref = \"v2025.0.77\"\n");
    sandbox.vx("add acme/hello").ok();
    assert_eq!(
        sandbox.read("velox.toml"),
        "[roadrunner]\nref = \"v2025.0.77\"\n\n[plugins.hello]\nmodule_name = \"github.com/acme/hello/v2\"\ntag = \"v2.1.0\"\n"
    );
}

#[test]
fn outdated_reports_proxies_that_list_no_versions() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES).env("GOPROXY", proxy.url());
    proxy.fail("acme/hello", Fault::Status(403));
    let message = sandbox.vx("outdated").ok();
    assert_contains(
        &message,
        &["failed to list the versions of\n  hello: 127.0.0.1:", "403", "1 plugin is up to date"],
    );
    assert!(!message.contains("everything"), "{message}");
}

#[test]
fn pre_releases_are_offered_on_request() {
    let proxy = proxy();
    let file = MODULES.replace("v1.0.0\" # for now", "v1.1.0\" # for now");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    let offered = |command: &str| {
        let text = sandbox.vx(command).ok();
        text.lines().any(|line| line.contains("v1.2.0-rc.1"))
    };
    assert!(!offered("outdated --all") && offered("outdated --pre"));
    sandbox.vx("update --no-lock").ok();
    assert!(!sandbox.read("velox.toml").contains("rc.1"), "{}", sandbox.read("velox.toml"));
    sandbox.vx("update --pre --no-lock").succeeds_with(&["hello", "v1.2.0-rc.1"]);
    sandbox.vx("outdated").ok();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", configuration("bye@v1.0.0"));
    sandbox.vx("add github.com/acme/hello --no-lock --pre").ok();
    assert!(sandbox.read("velox.toml").contains("v2.1.0"), "{}", sandbox.read("velox.toml"));
    proxy.module(
        "github.com/acme/hello/v2",
        "v2.2.0-rc.1",
        plugin("github.com/acme/hello/v2", "hello").files(),
    );
    sandbox.vx("add github.com/acme/hello --no-lock").ok();
    assert!(!sandbox.read("velox.toml").contains("rc.1"), "{}", sandbox.read("velox.toml"));
    sandbox.vx("add github.com/acme/hello --no-lock --pre").ok();
    assert!(sandbox.read("velox.toml").contains("v2.2.0-rc.1"), "{}", sandbox.read("velox.toml"));
}

#[test]
fn what_a_directory_of_modules_lacks_is_reported_once() {
    let text = configuration(
        "github.com/roadrunner-server/http/v5@v5.3.0 github.com/roadrunner-server/kv/v5@v5.1.0",
    );
    // GitHub doesn't answer.
    let sandbox =
        Sandbox::new().file("velox.toml", text).own_caches().env("https_proxy", "http://proxy.invalid:9");
    fs::create_dir(sandbox.at("empty")).unwrap();
    for (name, why) in [("empty", "not found"), ("missing", "no such directory")] {
        let directory = sandbox.at(name).display().to_string();
        let output =
            CommandOutput::from(sandbox.vx_command("lock").env("GOPROXY", format!("file://{directory}")));
        let cause = format!("RoadRunner and 2 other modules: {directory}: {why}; then: failed to reach");
        output.fails_with(1, &[&cause]);
        assert_eq!(output.stderr().matches(why).count(), 1, "{}", output.stderr());
        let others = output.stderr().contains("help: the others: plugin http, plugin kv");
        assert_eq!(others, name == "empty", "{}", output.stderr());
    }
}

#[test]
fn an_unreachable_proxy_is_reported_once() {
    let sandbox = Sandbox::new()
        .file(
            "velox.toml",
            configuration("hello@v1.0.0 bye@v1.0.0 github.com/roadrunner-server/http/v5@v5.3.0"),
        )
        // Neither cached modules nor GitHub answer for one of them.
        .own_caches()
        .env("https_proxy", "http://proxy.invalid:9")
        .proxy("http://127.0.0.1:9");
    let cause = "RoadRunner and 3 other modules: failed to reach 127.0.0.1:9: connection refused";
    for (command, code, text) in [
        ("build", 1, cause),
        ("lock", 1, cause),
        ("add kv", 1, "of RoadRunner: failed to reach 127.0.0.1:9: connection refused"),
        (
            "update --no-lock",
            1,
            "error: failed to list the versions of `hello`, `bye`, `http`: 127.0.0.1:9: ",
        ),
        ("outdated", 1, "roadrunner, hello, bye, http: 127.0.0.1:9: "),
        ("init -c new.toml --default", 1, "127.0.0.1:9: "),
    ] {
        let output = sandbox.vx(command);
        let shown = output.shown().to_lowercase();
        assert_eq!((output.code(), shown.matches("refused").count()), (Some(code), 1), "{command}: {shown}");
        assert!(shown.contains(&text.to_lowercase()), "{command}: {shown}");
    }
    let sandbox = sandbox.without("https_proxy").proxy("https://proxy.invalid");
    for command in ["lock", "add kv", "update --no-lock", "outdated", "init -c new.toml --default"] {
        let output = sandbox.vx(command);
        let shown = output.shown();
        let is_told_once = shown.matches("proxy.invalid: ").count() == 1;
        assert!(output.code() == Some(1) && is_told_once, "{command}: {shown}");
    }
}

#[test]
fn outdated_and_update_agree_on_newer_versions() {
    let proxy = proxy();
    let file = format!("{MODULES}\n[plugins.bye]\nmodule_name = \"github.com/acme/bye\"\ntag = \"main\"\n");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    sandbox.vx("lock").ok();
    insta::assert_snapshot!(sandbox.vx("outdated").ok(), @"
    NAME   REQUESTED  LOCKED  COMPATIBLE  LATEST
    hello  v1.0.0     v1.0.0  v1.1.0      v2.1.0
    bye    main       v1.0.0  v1.1.0      -

    1 plugin is up to date (--all to show)
    ");
    insta::assert_snapshot!(sandbox.vx("outdated --all").ok(), @"
    NAME        REQUESTED   LOCKED      COMPATIBLE  LATEST
    roadrunner  v2025.0.77  v2025.0.77  v2025.0.77  -
    hello       v1.0.0      v1.0.0      v1.1.0      v2.1.0
    bye         main        v1.0.0      v1.1.0      -
    ");
    let json: serde_json::Value = serde_json::from_str(&sandbox.vx("outdated --format json").ok()).unwrap();
    assert_eq!(json["plugins"][1]["newest_major"]["module"], "github.com/acme/hello/v2");

    proxy.query("github.com/acme/bye", "main", "v1.1.0");
    let lock = sandbox.read("velox.lock");
    for flags in ["", "--major"] {
        let dry = sandbox.vx(&format!("update --dry-run {flags}"));
        dry.succeeds_with(&["Updated hello v1.0.0 -> v", "note: nothing was written (--dry-run)"]);
    }
    assert_eq!((sandbox.read("velox.toml"), sandbox.read("velox.lock")), (file.clone(), lock));
    sandbox.vx("update hello").ok();
    assert_eq!(new_lines(&file, &sandbox.read("velox.toml")), ["tag = \"v1.1.0\" # for now"]);
    assert!(sandbox.read("velox.lock").contains("github.com/acme/bye v1.0.0"), "what isn't named stays");
    let message = sandbox.vx("update");
    message.ok();
    assert!(
        sandbox.read("velox.lock").contains("github.com/acme/bye v1.1.0"),
        "a branch moves in the lock: {}",
        message.stderr()
    );
    sandbox.vx("update --major").ok();
    assert_eq!(
        new_lines(&file, &sandbox.read("velox.toml")),
        ["module_name = \"github.com/acme/hello/v2\"", "tag = \"v2.1.0\" # for now"]
    );
    sandbox.vx("update helo").fails_with(2, &["did you mean `hello`?"]);

    let newer = roadrunner("v2025").files();
    proxy.module("github.com/roadrunner-server/roadrunner/v2025", "v2025.1.0", newer);
    let message = sandbox.vx("update roadrunner --no-lock --format json").ok();
    let event: serde_json::Value = serde_json::from_str(message.trim()).unwrap();
    assert_eq!(
        (event["event"].as_str(), event["changes"][0]["to"].as_str()),
        (Some("edited"), Some("v2025.1.0"))
    );
    assert!(sandbox.read("velox.toml").contains("ref = \"v2025.1.0\""));
}

#[test]
fn update_skips_retracted_versions() {
    let proxy = proxy();
    let mut files = plugin("github.com/acme/bye", "bye").files();
    let go_mod = String::from_utf8(files["go.mod"].clone()).unwrap() + "\nretract [v1.1.1, v1.2.0]\n";
    files.insert("go.mod".into(), go_mod.into());
    proxy.module("github.com/acme/bye", "v1.2.0", files);
    let file = MANUAL.replace("hello", "bye");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    sandbox.vx("update --no-lock").ok();
    assert!(sandbox.read("velox.toml").contains("ref = \"v1.1.0\""), "{}", sandbox.read("velox.toml"));
}

#[test]
fn update_never_asks_proxies_for_private_modules() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy)
        .file("velox.toml", MODULES)
        .env("GONOPROXY", "github.com/acme")
        .env("GOVCS", "*:off");
    sandbox.vx("update --no-lock").fails_with(1, &["error: failed to list the versions of `hello`"]);
    assert!(!proxy.requests().iter().any(|path| path.contains("acme")), "{:?}", proxy.requests());
    assert_eq!(sandbox.read("velox.toml"), MODULES);
}

#[test]
fn update_keeps_variables_and_replacements() {
    let proxy = proxy();
    let file = MANUAL.replace("\"v1.0.0\"", "\"${HELLO:-v1.0.0}\"").replace(
        "[log]",
        "[github.plugins.bye]\nref = \"v1.0.0\"\nowner = \"acme\"\nrepository = \"bye\"\nreplace = \"../bye\"\n\n[log]",
    );
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    let message = sandbox.vx("update --no-lock");
    message.ok();
    assert_eq!(sandbox.read("velox.toml"), file);
    assert!(
        message.stderr().contains("contains a variable") && message.stderr().contains("is replaced"),
        "{}",
        message.stderr()
    );
}

#[test]
fn migrate_keeps_the_lock_valid() {
    let proxy = proxy();
    let file = MANUAL.replace(
        "[log]",
        "bye = { ref = \"v1.0.0\", owner = \"acme\", repository = \"bye\", folder = \"sub\" }\n\n[log]",
    );
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    sandbox.vx("migrate --check").fails_with(1, &["vx migrate"]);
    sandbox.vx("lock").ok();
    let locked = sandbox.read("velox.lock");
    proxy.forget_requests();
    sandbox.vx("migrate").ok();
    assert_eq!(proxy.requests(), [""; 0], "the lock knows all modules");
    assert_eq!(
        new_lines(&file, &sandbox.read("velox.toml")),
        [
            "[plugins]",
            "hello = { module_name = \"github.com/acme/hello\", tag = \"v1.0.0\" } # for now",
            "bye = { module_name = \"github.com/acme/bye/sub\", tag = \"v1.0.0\" }",
        ]
    );
    sandbox.vx("lock --check").ok();
    assert_eq!(sandbox.read("velox.lock").matches("v1.0.0").count(), locked.matches("v1.0.0").count());
    sandbox.vx("migrate --check").ok();
    sandbox.vx("migrate").ok();
}

#[test]
fn migrate_without_lock_resolves_module_paths() {
    let proxy = proxy();
    let file = MANUAL.replace("{ ref = \"v1.0.0\"", "{ ref = \"v1.0.0\", replace = \"./mine\"");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &file);
    let sandbox = sandbox.files("mine", plugin("github.com/acme/other", "hello").files());
    sandbox.vx("migrate").ok();
    assert!(
        sandbox.read("velox.toml").contains("module_name = \"github.com/acme/other\""),
        "{}",
        sandbox.read("velox.toml")
    );
    assert!(!sandbox.has("velox.lock"));
    sandbox.vx("build --dry-run").ok();
}

#[cfg(unix)]
#[test]
fn add_keeps_symlinks_and_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("real/velox.toml", MODULES);
    let (real, link) = (sandbox.at("real/velox.toml"), sandbox.at("velox.toml"));
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    sandbox.vx("add kv@v5.1.0 --no-lock").ok();
    assert!(link.is_symlink() && sandbox.read("velox.toml").contains("[plugins.kv]"));
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn update_reads_tags_of_self_hosted_forges() {
    let forge = TestForge::start();
    let repository = forge.github("roadrunner-server/roadrunner");
    roadrunner("v2025").commit_to(&repository).tag(RELEASE).tag("v2025.1.0");
    for (name, module) in [("hello", "127.0.0.1/acme/hello"), ("bye", "127.0.0.1/acme/bye")] {
        let repository = forge.github(&format!("acme/{name}"));
        repository.files(plugin(module, name).files()).commit("first").tag("v1.0.0").tag("v1.1.0");
        let module = format!("{module}/v2");
        repository.files(plugin(&module, name).files()).commit("second").tag("v2.0.0");
    }
    let project = forge.gitlab("acme/deep/down/other").id(7);
    project
        .files(plugin("gitlab.test/acme/other", "other").files())
        .commit("first")
        .tag("v0.3.0")
        .tag("v0.4.0");
    let file = format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[github.endpoint]\nendpoint = \"{}\"\n\n\
         [github.plugins]\nhello = {{ ref = \"v1.0.0\", owner = \"acme\", repository = \"hello\" }}\n\n\
         [gitlab.endpoint]\nendpoint = \"{}\"\n\n\
         [gitlab.plugins]\nother = {{ ref = \"v0.3.0\", repository = \"7\" }}\n",
        forge.github_url(),
        forge.gitlab_url()
    );
    // The names are private, so no proxy is used.
    let sandbox = Sandbox::new().own_module_cache().env("GOPROXY", "off").file("velox.toml", &file);
    insta::assert_snapshot!(sandbox.vx("outdated").ok(), @"
    NAME        REQUESTED   LOCKED  COMPATIBLE  LATEST
    roadrunner  v2025.0.77  -       v2025.1.0   -
    hello       v1.0.0      -       v1.1.0      v2.0.0
    other       v0.3.0      -       v0.4.0      -
    ");
    sandbox.vx("update --no-lock").ok();
    let changed = [
        "hello = { ref = \"v1.1.0\", owner = \"acme\", repository = \"hello\" }",
        "other = { ref = \"v0.4.0\", repository = \"7\" }",
    ];
    assert_eq!(new_lines(&file, &sandbox.read("velox.toml")), changed);
    sandbox.vx("update hello --major --no-lock").ok();
    assert!(
        sandbox.read("velox.toml").contains("hello = { ref = \"v2.0.0\""),
        "{}",
        sandbox.read("velox.toml")
    );
    sandbox.vx("add acme/bye@v1.0.0 --no-lock").ok();
    let bye = "bye = { ref = \"v1.0.0\", owner = \"acme\", repository = \"bye\" }";
    assert!(sandbox.read("velox.toml").contains(bye), "{}", sandbox.read("velox.toml"));
    sandbox.vx("add http@v5.3.0 --no-lock").fails_with(2, &["is not on a forge"]);
}
