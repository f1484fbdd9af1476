//! Configurations as Velox reads them: unknown keys, the first format, YAML and JSON, paths from the working directory.

use std::{fs, process::Command, time::Duration};

use velox_testkit::{ModuleProxy, plugin};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains};

fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    for name in ["hello", "bye"] {
        let module = format!("github.com/acme/{name}");
        for version in ["v1.0.0", "v1.1.0"] {
            proxy.module(&module, version, plugin(&module, name).says(version).files());
        }
    }
    proxy
}

const MODULES: &str = "[roadrunner]\nref = \"v2025.0.77\"\n\n[plugins.hello]\nmodule_name = \"github.com/acme/hello\"\n\
                       tag = \"v1.0.0\"\n";

const FIRST: &str = "[roadrunner]\nref = \"v2025.0.77\"\n\n[github_token]\ntoken = \"${RT_TOKEN}\"\n\n[plugins]\n\
                     # Says hello.\nhello = { ref = \"v1.0.0\", owner = \"acme\", repository = \"hello\" }\n";

const YAML: &str = "# Our server.\nroadrunner:\n  ref: v2025.0.77\ngithub:\n  token: {token: $RT_TOKEN}\n  plugins:\n\
                    \x20   hello: {ref: v1.0.0, owner: acme, repository: hello}\n";

const JSON: &str = "{\"roadrunner\": {\"ref\": \"v2025.0.77\"},\n \"plugins\": {\"hello\": {\"module_name\": \
                    \"github.com/acme/hello\", \"tag\": \"v1.0.0\", \"docs_url\": \"x\"}}}\n";

#[test]
fn unknown_keys_are_warnings_of_every_command() {
    let proxy = proxy();
    let text = MODULES.to_owned() + "docs_url = \"https://example.com\"\n\n[build]\noutput = \"rr\"\n";
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", &text);
    let warnings =
        ["warning: unknown key `docs_url` in `[plugins.hello]`", "velox.toml:7:1", "unknown table `[build]`"];
    for command in ["lock", "list", "outdated", "add bye", "check", "build --dry-run", "update"] {
        let output = match command {
            "add bye" => sandbox.vx("add github.com/acme/bye@v1.0.0"),
            command => sandbox.vx(command),
        };
        assert_contains(&(output.ok() + &output.stderr()), &warnings);
    }
    let events = sandbox.vx("lock --format json").events();
    let of_key = events.iter().find(|event| event["event"] == "warning" && event["line"] == 7).unwrap();
    assert_eq!((&of_key["file"], &of_key["label"]), (&"velox.toml".into(), &"unknown, and ignored".into()));

    let errors = ["error: unknown key `docs_url`", "error: unknown table `[build]`", "velox.toml:7:1"];
    sandbox.vx("build --strict --dry-run").fails_with(2, &errors);
    sandbox.vx("check --deny-warnings").fails(1);
    let strict = Sandbox::behind(&proxy).file("velox.toml", format!("strict = true\n{text}"));
    strict.vx("lock").fails_with(2, &["error: unknown key `docs_url`"]);
    let misspelled = Sandbox::behind(&proxy).file("velox.toml", text.replace("docs_url", "taag"));
    misspelled.vx("lock").fails_with(2, &["unknown key `taag` in `[plugins.hello]`; did you mean `tag`?"]);
}

#[test]
fn the_first_format_is_read_and_migrated() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", FIRST).env("RT_TOKEN", "undefined");
    sandbox.vx("lock").ok();
    sandbox
        .vx("add github.com/acme/bye@v1.0.0")
        .fails_with(2, &["first format", "vx migrate --config velox.toml"]);
    sandbox.vx("migrate --check").fails(1);
    sandbox.vx("migrate").ok();
    insta::assert_snapshot!(sandbox.read("velox.toml"), @r#"
    [roadrunner]
    ref = "v2025.0.77"

    [github.token]
    token = "${RT_TOKEN}"

    [plugins]
    # Says hello.
    hello = { module_name = "github.com/acme/hello", tag = "v1.0.0" }
    "#);
    sandbox.vx("lock --check").ok();
    for (name, text) in [
        ("headers", FIRST.replace("[plugins]\n# Says hello.\nhello = { ref = \"v1.0.0\", owner = \"acme\", repository = \"hello\" }",
            "[plugins.hello]\nref = \"v1.0.0\"\nowner = \"acme\"\nrepository = \"hello\"")),
        ("inline", FIRST.replace("[github_token]\ntoken = \"${RT_TOKEN}\"\n", "").replace("[roadrunner]\n",
            "github_token = { token = \"${RT_TOKEN}\" }\n[roadrunner]\n")),
        ("case", FIRST.replace("[github_token]", "[GitHub_Token]").replace("[plugins]", "[Plugins]").replace("owner", "Owner")),
    ] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", &text);
        sandbox.vx("migrate").ok();
        let migrated = sandbox.read("velox.toml");
        assert!(migrated.contains("module_name") && migrated.contains("github.token"), "{name}:\n{migrated}");
    }
}

#[test]
fn yaml_and_json_are_read_and_migrated() {
    let proxy = proxy();
    for (name, text) in [("velox.yaml", YAML), ("velox.yml", YAML), ("velox.json", JSON)] {
        let sandbox = Sandbox::behind(&proxy).file(name, text);
        let config = format!("--config {name}");
        sandbox.vx("lock").fails_with(2, &["velox.toml` not found", &format!("use `--config {name}`")]);
        sandbox.vx(&format!("lock {config}")).ok();
        assert!(sandbox.has("velox.lock"));
        assert_contains(&sandbox.vx(&format!("list {config}")).ok(), &["hello"]);
        assert_contains(&sandbox.vx(&format!("outdated {config}")).ok(), &["v1.1.0"]);
        let refused = [&format!("`{name}` is not TOML"), "vx migrate --config"];
        for command in ["add github.com/acme/bye@v1.0.0", "remove hello", "update"] {
            sandbox.vx(&format!("{command} {config}")).fails_with(2, &refused.map(|text| text as &str));
        }
        sandbox.vx(&format!("migrate --check {config}")).fails(1);
        sandbox.vx(&format!("migrate {config}")).ok();
        assert_eq!(sandbox.read(name), text);
        sandbox.vx("lock --check").ok();
        assert_contains(
            &sandbox.read("velox.toml"),
            &["module_name = \"github.com/acme/hello\"", "tag = \"v1.0.0\""],
        );
        sandbox.vx(&format!("migrate {config}")).fails_with(2, &["`velox.toml` already exists"]);
    }
}

#[test]
fn errors_in_yaml_and_json_have_a_caret() {
    let proxy = proxy();
    let shown = |name: &str, text: &str| {
        let sandbox = Sandbox::behind(&proxy).file(name, text);
        sandbox.vx_shown(&format!("build --config {name}"))
    };
    let answers = [
        shown("velox.yaml", &YAML.replace("ref: v1.0.0", "reff: v1.0.0")),
        shown("velox.yml", "roadrunner:\n  ref: v1\n  ref: v2\n"),
        shown("velox.yaml", "roadrunner: [\n"),
        shown("velox.json", &JSON.replace("\"tag\"", "\"taag\"")),
        shown("velox.json", "{\"roadrunner\": {\"ref\" \"v1\"}}\n"),
    ];
    insta::assert_snapshot!(answers.join("\n=====\n"));
}

#[test]
fn replacements_are_found_in_the_working_directory_too() {
    let proxy = proxy();
    let text = MODULES.to_owned() + "\n[[replaces]]\nold = \"github.com/acme/hello\"\nnew = \"./fork\"\n";
    let files = || plugin("github.com/acme/hello", "hello").says("fork").files();
    let sandbox = Sandbox::behind(&proxy).file("conf/velox.toml", text).files("fork", files());
    sandbox.vx("lock --config conf/velox.toml").succeeds_with(&[
        "warning: `./fork` is taken from the working directory",
        "conf/velox.toml:10:7",
        "write it relative to this file: \"../fork\"",
    ]);
    let lock = sandbox.read("conf/velox.lock");
    assert!(!lock.contains(&*sandbox.path().to_string_lossy()), "{lock}");
    sandbox.vx("lock --check --config conf/velox.toml").ok();
    let sandbox = sandbox.files("conf/fork", files());
    sandbox
        .vx("lock --config conf/velox.toml")
        .fails_with(2, &["`./fork` is two modules", "conf/fork` and `", "conf/velox.toml:10:7"]);
}

#[test]
fn a_version_without_its_v_gets_advice_in_every_place() {
    let proxy = proxy();
    let advice = ["did you mean `v1.0.0`?"];
    let manual = "[roadrunner]\nref = \"v2025.0.77\"\n[github.plugins]\n\
                  hello = { ref = \"1.0.0\", owner = \"acme\", repository = \"hello\" }\n";
    for text in [
        MODULES.replace("v1.0.0", "1.0.0"),
        manual.to_owned(),
        MODULES.to_owned() + "[[excludes]]\nmodule = \"github.com/acme/bye\"\nversion = \"1.0.0\"\n",
        MODULES.to_owned()
            + "[[replaces]]\nold = \"github.com/acme/bye@1.0.0\"\nnew = \"github.com/acme/hello@v1.0.0\"\n",
    ] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", text).env("GONOPROXY", "none");
        let output = sandbox.vx("lock");
        assert_ne!(output.code(), Some(0));
        assert_contains(&output.stderr(), &advice);
    }
    let sandbox = Sandbox::behind(&proxy);
    let output = sandbox.vx("build --dry-run --roadrunner v2025.0.77 --with github.com/acme/hello@1.0.0");
    assert_contains(&output.stderr(), &advice);
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", MODULES.replace("v2025.0.77", "2025.0.77"));
    assert_contains(&sandbox.vx("lock").stderr(), &["did you mean `v2025.0.77`?"]);
}

#[test]
fn what_is_no_regular_file_ends_with_an_error() {
    let sandbox = Sandbox::new().file("directory/x", "");
    let sandbox = sandbox.file("huge.toml", vec![b'#'; (16 << 20) + 1]);
    sandbox.run("mkfifo pipe");
    for (name, why) in [
        ("directory", "is a directory"),
        ("/dev/null", "no plugins configured in `/dev/null`"),
        ("/dev/zero", "larger than 16 MiB"),
        ("huge.toml", "larger than 16 MiB"),
        ("pipe", "no program writes to this pipe"),
    ] {
        sandbox.vx(&format!("list --config {name}")).fails_with(2, &[name, why]);
    }
    // As `--config <(generate)` in a shell does.
    let (pipe, text) = (sandbox.at("pipe"), MODULES.replace("tag", "taag"));
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        fs::write(pipe, text)
    });
    sandbox.vx("list --config pipe").fails_with(2, &["did you mean `tag`?", "pipe:6:1"]);
    writer.join().unwrap().unwrap();
    let mut shell = sandbox
        .command("bash", &["-c", "exec \"$0\" list --config <(cat huge.toml)", crate::support::sandbox::VX]);
    assert_contains(
        &crate::support::sandbox::CommandOutput::from(&mut shell as &mut Command).fails(2),
        &["larger than 16 MiB"],
    );
}
