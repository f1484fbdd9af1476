//! RoadRunner 3 with its v6 plugins beside v2025 with v5 plugins.

use velox_testkit::{Files, ModuleProxy, plugin, roadrunner_with};

use crate::support::sandbox::{Sandbox, assert_contains};

const OFFICIAL: &str = "github.com/roadrunner-server";

/// Both RoadRunners. RoadRunner 3 has nsq, and tcp is optional there.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.release("v2024.3.5", "http logger rpc server tcp", "v5.0.0");
    proxy.release("v2025.0.77", "http logger rpc server tcp", "v5.1.0");
    let own: Vec<String> = ["informer", "resetter", "http", "logger", "rpc", "server", "nsq", "tcp"]
        .map(|name| format!("{OFFICIAL}/{name}/v6"))
        .into();
    for path in &own {
        proxy.plugin(path, "v6.0.0");
    }
    proxy.plugin(&own[2], "v6.1.0").plugin(&own[2], "v6.2.0-rc.1");
    proxy
        .plugin(&format!("{OFFICIAL}/http/v5"), "v5.2.0")
        .plugin(&format!("{OFFICIAL}/websockets/v3"), "v3.1.0");
    for (path, version) in
        [("api/v4", "v4.1.0"), ("pool", "v1.1.3"), ("api-go/v6", "v6.0.0"), ("pool/v2", "v2.0.0")]
    {
        proxy.plugin(&format!("{OFFICIAL}/{path}"), version);
    }
    let registered: Vec<(&str, &str)> = own[..7].iter().map(|path| (path.as_str(), "v6.0.0")).collect();
    let tree = roadrunner_with("v3", &registered);
    let mut files: Files = tree.files();
    let interfaces = format!(
        "\nrequire (\n\t{OFFICIAL}/api-go/v6 v6.0.0\n\t{OFFICIAL}/pool/v2 v2.0.0\n)\n\nrequire {OFFICIAL}/api/v4 v4.1.0 // indirect\n"
    );
    files.entry("go.mod".to_owned()).or_default().extend(interfaces.into_bytes());
    proxy.module(tree.module(), "v3.0.0", files);
    third_party(&proxy);
    proxy
}

/// `ported` has a version for RoadRunner 3, `old` has none, `plain` needs none.
fn third_party(proxy: &ModuleProxy) {
    let add = |module: &str, version: &str, requires: &[(&str, &str)]| {
        let name = module.split('/').nth(2).unwrap();
        let files = requires.iter().fold(plugin(module, name), |plugin, (path, version)| {
            plugin.requires(&format!("{OFFICIAL}/{path}"), version)
        });
        proxy.module(module, version, files.files());
    };
    add("github.com/acme/ported", "v1.4.0", &[("api/v4", "v4.1.0")]);
    add("github.com/acme/ported/v2", "v2.0.0", &[("api-go/v6", "v6.0.0")]);
    add("github.com/acme/old", "v1.0.0", &[("api/v4", "v4.1.0")]);
    add("github.com/acme/old", "v1.2.0", &[("api/v4", "v4.1.0"), ("pool", "v1.1.3"), ("http/v5", "v5.1.0")]);
    add("github.com/acme/plain", "v0.3.0", &[]);
}

fn sandbox(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).env("GOPROXY", proxy.url())
}

fn modules(roadrunner: &str, plugins: &[(&str, &str, &str)]) -> String {
    let table = |(name, module, tag): &(&str, &str, &str)| {
        let module = if module.contains('.') { (*module).to_owned() } else { format!("{OFFICIAL}/{module}") };
        format!("\n[plugins.{name}]\nmodule_name = \"{module}\"\ntag = \"{tag}\" # kept\n")
    };
    let tables: String = plugins.iter().map(table).collect();
    format!("[roadrunner]\nref = \"{roadrunner}\"\n{tables}")
}

const V2025: [(&str, &str, &str); 4] = [
    ("http", "http/v5", "v5.1.0"),
    ("tcp", "tcp/v5", "v5.1.0"),
    ("ported", "github.com/acme/ported", "v1.4.0"),
    ("plain", "github.com/acme/plain", "v0.3.0"),
];

const OLD: (&str, &str, &str) = ("old", "github.com/acme/old", "v1.0.0");

#[test]
fn migrate_to_v3_moves_roadrunner_and_its_plugins() {
    let proxy = proxy();
    let text = modules("v2025.0.77", &V2025);
    let sandbox = sandbox(&proxy).file("velox.toml", &text);
    let plan = sandbox.vx("migrate --to v3 --dry-run");
    insta::assert_snapshot!("dry_run", plan.stdout());
    assert_eq!((plan.code(), sandbox.read("velox.toml")), (Some(0), text.clone()));
    sandbox.vx("migrate --to v3 --check").fails(1);

    let message = sandbox.vx("migrate --to v3");
    message.ok();
    assert_contains(
        &message.stderr(),
        &[
            "Updated roadrunner v2025.0.77 -> v3.0.0 (github.com/roadrunner-server/roadrunner/v3)",
            "Updated http v5.1.0 -> v6.1.0 (github.com/roadrunner-server/http/v6)",
            "Updated tcp v5.1.0 -> v6.0.0",
            "Updated ported v1.4.0 -> v2.0.0 (github.com/acme/ported/v2)",
        ],
    );
    let migrated = modules(
        "v3.0.0",
        &[
            ("http", "http/v6", "v6.1.0"),
            ("tcp", "tcp/v6", "v6.0.0"),
            ("ported", "github.com/acme/ported/v2", "v2.0.0"),
            ("plain", "github.com/acme/plain", "v0.3.0"),
        ],
    );
    assert_eq!(sandbox.read("velox.toml"), migrated);
    sandbox.vx("lock --check").ok();
    sandbox.vx("build").ok();
    let again = sandbox.vx("migrate --to v3 --check");
    again.ok();
    assert!(again.stdout().contains("velox.toml stays unchanged"), "{}", again.stdout());
}

#[test]
fn migrate_to_v3_keeps_the_format_of_the_file() {
    let proxy = proxy();
    let manual = "[velox]\nbuild_args = []\n\n[roadrunner]\nref = \"v2025.0.77\"\n\n[github.plugins]\n\
                  http = { ref = \"v5.1.0\", owner = \"roadrunner-server\", repository = \"http\" } # ours\n\
                  ported = { ref = \"v1.4.0\", owner = \"acme\", repository = \"ported\" }\n\
                  rpc = { ref = \"${RPC}\", owner = \"roadrunner-server\", repository = \"rpc\" }\n";
    let sandbox = sandbox(&proxy).env("RPC", "v5.1.0").file("velox.toml", manual);
    let message = sandbox.vx("migrate --to v3.0.0 --no-lock");
    message.fails(1);
    assert_contains(&message.stdout(), &["the ref of `rpc` contains a variable", "v6.0.0"]);
    let expected = manual
        .replace("v2025.0.77", "v3.0.0")
        .replace("\"v5.1.0\"", "\"v6.1.0\"")
        .replace("v1.4.0", "v2.0.0");
    assert_eq!(sandbox.read("velox.toml"), expected);
    sandbox.env("RPC", "v6.0.0").vx("lock").ok();
}

#[test]
fn migrate_to_v3_names_plugins_that_have_no_version_for_it() {
    let proxy = proxy();
    let mut plugins = V2025.to_vec();
    plugins.extend([OLD, ("ws", "websockets/v3", "v3.1.0")]);
    let text = modules("v2025.0.77", &plugins);
    let sandbox = sandbox(&proxy).file("velox.toml", text + "\n[plugins.mine]\nmodule_name = \"example.com/mine\"\ntag = \"latest\"\nreplace = \"./mine\"\n");
    let mine = plugin("example.com/mine", "mine").requires(&format!("{OFFICIAL}/api/v4"), "v4.1.0");
    let sandbox = sandbox.files("mine", mine.files());
    let message = sandbox.vx("migrate --to v3");
    assert_eq!(message.code(), Some(1), "{}", message.stderr());
    insta::assert_snapshot!("blocked", message.stdout());
    let written = sandbox.read("velox.toml");
    assert_contains(
        &written,
        &["ref = \"v3.0.0\"", "http/v6", "module_name = \"github.com/acme/old\"\ntag = \"v1.0.0\""],
    );
    let json = sandbox.vx("migrate --to v3 --dry-run --format json");
    assert_eq!(json.code(), Some(1));
    assert_contains(
        &json.stdout(),
        &[r#""event":"finding""#, r#""event":"planned""#, r#""rule":"interface""#],
    );
}

#[test]
fn migrate_to_v3_checks_the_configuration_of_roadrunner() {
    let proxy = proxy();
    let rr_yaml = "version: \"3\"\nhttp:\n  middleware: [static, gzip]\n\notel:\n  exporter: zipkin\n\namqp:\n  addr: amqp://guest:s3cret@host:5672\n";
    let sandbox = sandbox(&proxy)
        .file("velox.toml", modules("v2025.0.77", &V2025))
        .file(".rr.yaml", rr_yaml)
        .file("other/.rr.yaml", "version: \"3\"\nenvfile: missing.env\ntcp: {}\n");
    let found = sandbox.vx("migrate --to v3 --dry-run");
    found.ok();
    let shown = found.stdout();
    insta::assert_snapshot!("rr_config", shown.split("--- velox.toml").next().unwrap());
    assert!(!found.stdout().contains("s3cret"), "{}", found.stdout());
    assert_eq!(sandbox.read(".rr.yaml"), rr_yaml);

    let other = sandbox.vx("migrate --to v3 --dry-run --rr-config other/.rr.yaml");
    assert_contains(&other.ok(), &["--> other/.rr.yaml:2:10", "`missing.env` does not exist"]);
    assert!(!other.stdout().contains("tcp is no longer"), "tcp is in velox.toml: {}", other.stdout());
    sandbox.vx("migrate --to v3 --rr-config no.yaml").fails_with(2, &["failed to read", "no.yaml"]);
    sandbox.vx("migrate --rr-config .rr.yaml").fails_with(2, &["--to"]);
    // Once moved, its order is the new one.
    sandbox.vx("migrate --to v3").ok();
    assert_eq!(sandbox.vx("migrate --to v3 --dry-run").ok(), "velox.toml stays unchanged\n");
}

#[test]
fn migrate_to_an_unknown_roadrunner_changes_nothing() {
    let proxy = proxy();
    let text = modules("v2025.0.77", &V2025);
    let sandbox = sandbox(&proxy).file("velox.toml", &text);
    sandbox.vx("migrate --to v4").fails_with(2, &["no version of RoadRunner v4 found", "--to master"]);
    sandbox.vx("migrate --to v3.9.9").fails(1);
    assert_eq!(sandbox.read("velox.toml"), text);
    sandbox.vx("migrate --dry-run").fails_with(2, &["--to"]);
}

#[test]
fn add_takes_the_major_version_of_the_release() {
    let proxy = proxy();
    let newer = sandbox(&proxy).file("velox.toml", modules("v3.0.0", &[("rpc", "rpc/v6", "v6.0.0")]));
    newer.vx("add http tcp logger@main --no-lock").ok();
    assert_contains(
        &newer.read("velox.toml"),
        &["/http/v6\"\ntag = \"v6.0.0\"", "/tcp/v6\"\ntag = \"v6.0.0\"", "/logger/v6\"\ntag = \"main\""],
    );
    let older = sandbox(&proxy).file("velox.toml", modules("v2025.0.77", &[("rpc", "rpc/v5", "v5.1.0")]));
    older.vx("add http --no-lock").ok();
    assert!(older.read("velox.toml").contains("/http/v5\"\ntag = \"v5.1.0\""));
    older.vx("add nsq").fails_with(
        2,
        &[
            "no version of github.com/roadrunner-server/nsq for RoadRunner v2025.0.77",
            "nsq/v6",
            "vx migrate --to v3",
        ],
    );
    older
        .vx("add nsq@main")
        .fails_with(2, &["for RoadRunner v2025.0.77, whose plugins have major version v5"]);
}

#[test]
fn init_takes_the_newest_generation() {
    let proxy = proxy();
    let sandbox = sandbox(&proxy);
    sandbox.vx("init --default").ok();
    assert_contains(
        &sandbox.read("velox.toml"),
        &["ref = \"v3.0.0\"", "/nsq/v6\"", "/http/v6\"\ntag = \"v6.0.0\""],
    );
    sandbox.vx("lock").ok();
    sandbox.vx("init --default --force --roadrunner v2025.0.77").ok();
    let older = sandbox.read("velox.toml");
    assert!(older.contains("/tcp/v5\"") && !older.contains("/v6\""), "{older}");
    sandbox.vx("init --force --roadrunner v2025.0.77 --plugin nsq").fails_with(2, &["nsq"]);
}

#[test]
fn outdated_stays_within_the_generation() {
    let proxy = proxy();
    let sandbox = sandbox(&proxy).file("velox.toml", modules("v2024.3.5", &[("http", "http/v5", "v5.0.0")]));
    insta::assert_snapshot!("outdated", sandbox.vx("outdated").ok());
    sandbox.vx("update http --no-lock").ok();
    assert!(sandbox.read("velox.toml").contains("/http/v5\"\ntag = \"v5.2.0\""));
    let update = sandbox.vx("update --major roadrunner http --no-lock");
    update.ok();
    assert!(update.stderr().contains("vx migrate --to v3.0.0"), "{}", update.stderr());
    assert_contains(&sandbox.read("velox.toml"), &["ref = \"v2025.0.77\"", "/http/v5\"\ntag = \"v5.2.0\""]);
    let shown = sandbox.vx("outdated").ok();
    assert!(shown.starts_with("everything is up to date\n\nRoadRunner v3.0.0 is available"), "{shown}");

    let wrong = sandbox
        .file("velox.toml", modules("v3.0.0", &[("http", "http/v5", "v5.2.0"), ("rpc", "rpc/v6", "v6.0.0")]));
    let shown = wrong.vx("outdated").ok();
    assert!(shown.contains("v6.1.0") && shown.contains("2 plugins are up to date"), "{shown}");
}

#[test]
fn check_names_the_version_for_the_release() {
    let proxy = proxy();
    let plugins =
        [("http", "http/v5", "v5.2.0"), ("tcp", "tcp/v5", "v5.1.0"), OLD, ("logger", "logger/v6", "v6.0.0")];
    let sandbox = sandbox(&proxy).file("velox.toml", modules("v3.0.0", &plugins));
    let checked = sandbox.vx("check");
    assert_eq!(checked.code(), Some(1));
    assert_contains(
        &checked.stdout(),
        &[
            "plugin http has major version v5, but the plugins of RoadRunner v3.0.0 have v6",
            "use github.com/roadrunner-server/http/v6 v6.0.0",
            "use github.com/roadrunner-server/tcp/v6 v6.0.0, the newest version for this RoadRunner",
            "plugin old requires github.com/roadrunner-server/api/v4, but RoadRunner v3.0.0 requires \
             github.com/roadrunner-server/api-go/v6",
        ],
    );
    let older = sandbox.file(
        "velox.toml",
        modules("v2025.0.77", &[("nsq", "nsq/v6", "v6.0.0"), ("http", "http/v6", "v6.0.0")]),
    );
    let checked = older.vx("check");
    assert_contains(
        &checked.stdout(),
        &[
            "plugin nsq has major version v6, but the plugins of RoadRunner v2025.0.77 have v5",
            "RoadRunner v2025.0.77 was released without it",
            "use github.com/roadrunner-server/http/v5 v5.1.0",
        ],
    );
}

#[test]
fn new_plugin_is_for_the_plugins_of_the_release() {
    let proxy = proxy();
    let sandbox = sandbox(&proxy);
    for (arguments, logs, version) in
        [("", "slog", "v3.0.0"), ("--roadrunner v2025.0.77", "zap", "v2025.0.77")]
    {
        let name = format!("with-{logs}");
        let created = sandbox.vx(&format!("new plugin {name} {arguments}"));
        assert!(created.ok().contains(&format!("for RoadRunner {version}")), "{}", created.stdout());
        assert!(sandbox.read(&format!("{name}/plugin.go")).contains(&format!("*{logs}.Logger")));
        assert!(sandbox.read(&format!("{name}/velox.toml")).contains(&format!("ref = \"{version}\"")));
    }
    sandbox.vx("new plugin x --roadrunner v9.9.9").fails(1);
    let offline = sandbox.env("GOPROXY", "off").vx("new plugin without-proxies");
    assert_contains(
        &offline.stderr(),
        &["the latest RoadRunner release is unknown", "the plugin is for v2025.1.15"],
    );
}

#[test]
fn an_edit_warns_of_another_major_version() {
    let proxy = proxy();
    let sandbox = sandbox(&proxy).file("velox.toml", modules("v2025.0.77", &V2025));
    let message =
        "warning: plugin http has major version v6, but the plugins of RoadRunner v2025.0.77 have v5";
    let help = "help: use github.com/roadrunner-server/http/v5 v5.1.0, which RoadRunner v2025.0.77 was released with";
    sandbox.vx("add http@v6.0.0").succeeds_with(&[message, help]);
    // `vx update --major` brings it back.
    let updated = sandbox.vx("update --major http");
    updated.ok();
    assert_contains(
        &sandbox.read("velox.toml"),
        &["github.com/roadrunner-server/http/v5\"\ntag = \"v5.2.0\""],
    );
    assert!(!updated.stderr().contains("has major version"), "{}", updated.stderr());
}
