//! The manual, statement by statement: tables, hint boxes and the full example.
//!
//! github.com and gitlab.com are the testkit's forge, redirected by HTTPS_PROXY and a certificate authority,
//! so that vx needs no test hooks. RoadRunner is one that compiles in a second; plugins are real or generated.

use std::{fs, path::PathBuf, process::Command};

use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{
    Internet, ModuleProxy, Repo, RoadRunnerTree, Sshd, TestForge, plugin, roadrunner, roadrunner_with,
};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains, exclusive, module_tree, skip};

struct Company {
    forge: TestForge,
    roadrunner: Repo,
    _internet: Internet,
    _proxy: ModuleProxy,
    sandbox: Sandbox,
}

/// The plugins of every RoadRunner, which the company's module proxy has.
const BUILT_IN: [(&str, &str); 2] = [
    ("github.com/roadrunner-server/informer/v5", "v5.0.77"),
    ("github.com/roadrunner-server/resetter/v5", "v5.0.77"),
];

/// A RoadRunner that only prints its version.
fn small(major: &str) -> RoadRunnerTree {
    roadrunner_with(major, &BUILT_IN)
}

/// A machine behind a company proxy, with RoadRunner at `RELEASE` and on `master`.
fn company() -> Company {
    let forge = TestForge::start();
    let repository = forge.github("roadrunner-server/roadrunner");
    small("v2025").commit_to(&repository).tag(RELEASE).branch("master").default_branch("master");
    let internet = Internet::start(&forge);
    let proxy = ModuleProxy::start();
    for (path, version) in BUILT_IN {
        proxy.plugin(path, version);
    }
    let sandbox = Sandbox::behind(&proxy).envs(internet.environment());
    Company { forge, roadrunner: repository, _internet: internet, _proxy: proxy, sandbox }
}

impl Company {
    /// Publishes a plugin as `github.com/acme/NAME`.
    fn plugin(self, name: &str, tag: &str) -> Self {
        let files = plugin(&format!("github.com/acme/{name}"), name).says(&format!("{name} {tag}")).files();
        self.forge.github(&format!("acme/{name}")).files(files).commit("first").tag(tag);
        self
    }

    /// Publishes a private plugin that requires a token; returns a configuration with both.
    fn hidden_plugin(&self) -> String {
        self.forge.github_token("ghp_secret");
        let hidden = self.forge.github("acme/hidden").private().token("ghp_secret");
        hidden.files(plugin("github.com/acme/hidden", "hidden").files()).commit("first").tag("v1.0.0");
        let hidden = with(RELEASE, r#"hidden = { ref = "v1.0.0", owner = "acme", repository = "hidden" }"#);
        format!("[github.token]\ntoken = \"${{RT_TOKEN}}\"\n\n{hidden}")
    }

    fn configured(mut self, text: &str) -> Self {
        self.sandbox = self.sandbox.file("velox.toml", text);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sandbox = self.sandbox.env(name, value);
        self
    }

    /// Runs the manual's command: `vx build -c velox.toml -o DIR`.
    fn build(&self) -> Built {
        self.sandbox.vx("build -c velox.toml -o out").ok();
        let binary = self.sandbox.at("out/rr");
        let info = BuildInfo::read(&binary).unwrap();
        let version = self.sandbox.run("out/rr --version");
        Built { binary, info, version }
    }

    fn fails(&self) -> String {
        self.sandbox.vx("build -c velox.toml -o out").fails(1)
    }
}

struct Built {
    binary: PathBuf,
    info: BuildInfo,
    version: String,
}

impl Built {
    fn module(&self, path: &str) -> Option<String> {
        self.info.deps.iter().find(|module| module.path == path).map(|module| match &module.replace {
            Some(new) => format!("{} => {} {}", module.version, new.path, new.version),
            None => module.version.clone(),
        })
    }
}

/// `[roadrunner]` with this ref, and one line of `[github.plugins]`.
fn with(reference: &str, line: &str) -> String {
    format!("[roadrunner]\nref = \"{reference}\"\n\n[github.plugins]\n{line}\n")
}

const HELLO: &str = r#"hello = { ref = "v1.0.0", owner = "acme", repository = "hello" }"#;

#[test]
fn manual_example_builds_verbatim() {
    let Some(_tree) = module_tree("the manual's file verbatim") else { return };
    let _exclusive = exclusive();
    let company = company();
    // As old as these plugins: a newer RoadRunner raises go.temporal.io/api beyond the manual's temporal.
    let tree = roadrunner("v2025").files();
    let newer = String::from_utf8(tree["go.mod"].clone()).unwrap();
    let (direct, _indirect) = newer.split_once("\n)\n").unwrap();
    let older = direct.replace("fileserver/v5 v5.1.9", "fileserver/v5 v5.0.1").replace("v5.1.9", "v5.0.2");
    company.roadrunner.files(tree).file("go.mod", format!("{older}\n)\n")).commit("as it was in July 2024");
    company.forge.github_token("a-github-token");
    for (id, name) in [(36_405_203, "test_plugin_1"), (36_405_235, "test_plugin_2")] {
        let project =
            company.forge.gitlab(&format!("rustatian/{name}")).id(id).private().token("a-gitlab-token");
        project.files(plugin(&format!("gitlab.com/rustatian/{name}"), name).files()).commit("first");
    }
    let manual = include_str!("../manual.toml");
    let company = company
        .configured(manual)
        // Another master of RoadRunner is in the module tree.
        .env("GONOPROXY", "github.com/roadrunner-server/roadrunner")
        .env("RT_TOKEN", "a-github-token")
        .env("GL_TOKEN", "a-gitlab-token")
        .env("VERSION", "2024.2.1")
        .env("TIME", "2024-09-12");
    let built = company.build();

    assert!(built.version.contains("2024.2.1 (build time: 2024-09-12"), "{}", built.version);
    let mut checked = 0;
    for line in manual.lines().filter(|line| line.contains("owner = ") && !line.contains("rustatian")) {
        let quoted: Vec<&str> = line.split('"').collect();
        let module = format!("github.com/{}/{}/v5", quoted[3], quoted[5]);
        assert_eq!(built.module(&module).as_deref(), Some(quoted[1]), "{line}");
        checked += 1;
    }
    assert_eq!(checked, 32);
    for name in ["test_plugin_1", "test_plugin_2"] {
        let version = built.module(&format!("gitlab.com/rustatian/{name}")).unwrap();
        assert!(version.starts_with("v0.0.0-20240101"), "{version}");
    }
    let asked = company.forge.requests();
    assert!(asked.iter().any(|request| request.path.contains("/projects/36405203") && request.had_token));
}

#[test]
fn ref_is_a_tag_a_branch_or_a_commit_of_roadrunner() {
    let company = company().plugin("hello", "v1.0.0");
    // No proxy has the branch master of the real RoadRunner: the forge decides.
    let modules = company.sandbox.value("GOPROXY").split(',').next().unwrap().to_owned();
    let mut sandbox = company.sandbox.env("GOPROXY", format!("{modules},direct"));
    for (reference, version) in [(RELEASE, "2025.0.77 "), ("master", "2025.0.77 "), ("", "2025.0.77 ")] {
        let text = if reference.is_empty() {
            format!("[github.plugins]\n{HELLO}\n")
        } else {
            with(reference, HELLO)
        };
        sandbox = sandbox.file("velox.toml", text);
        sandbox.vx("build -c velox.toml -o out").ok();
        let message = sandbox.run("out/rr --version");
        assert!(message.contains(version), "{reference}: {message}");
    }
}

#[test]
fn module_path_of_roadrunner_follows_its_go_mod() {
    let company = company().plugin("hello", "v1.0.0");
    let mut sandbox = company.sandbox;
    // Each release's go.mod has its own module path, which the version stamp must follow.
    for (major, tag) in [("v2", "v2.99.1"), ("v2023", "v2023.99.1"), ("v3", "v3.99.1")] {
        small(major).commit_to(&company.roadrunner).tag(tag);
        sandbox = sandbox.file("velox.toml", with(tag, HELLO));
        sandbox.vx("build -c velox.toml -o out").ok();
        let binary = sandbox.at("out/rr");
        let info = BuildInfo::read(&binary).unwrap();
        assert_eq!(info.path, format!("github.com/roadrunner-server/roadrunner/{major}/cmd/rr"));
        let message = sandbox.run("out/rr --version");
        assert!(message.contains(tag.trim_start_matches('v')), "{message}");
    }
}

#[test]
fn debug_keeps_symbols() {
    let plain = company().plugin("hello", "v1.0.0").configured(&with(RELEASE, HELLO));
    let debug = company()
        .plugin("hello", "v1.0.0")
        .configured(&format!("{}\n[debug]\nenabled = true\n", with(RELEASE, HELLO)));
    let (plain, debug) = (plain.build(), debug.build());
    let has_symbols = |built: &Built| {
        let bytes = fs::read(&built.binary).unwrap();
        bytes.windows(7).any(|window| window == b".symtab")
    };
    assert!(!has_symbols(&plain) && has_symbols(&debug));
    for (name, value) in [("-tags", "debug"), ("-gcflags", "all=-N -l")] {
        let setting = (name.to_owned(), value.to_owned());
        assert!(debug.info.settings.contains(&setting), "{:?}", debug.info.settings);
    }
}

#[test]
fn ref_of_a_plugin_is_a_tag_a_commit_or_a_branch() {
    let company = company();
    let hello = company.forge.github("acme/hello");
    hello.files(plugin("github.com/acme/hello", "hello").files()).commit("first").tag("v1.0.0");
    let next = hello.file("README.md", "more").commit("second").branch("next").head();
    let pseudo = format!("v1.0.1-0.20240101000100-{}", &next[..12]);
    let mut sandbox = company.sandbox;
    for (reference, version) in [
        ("v1.0.0", "v1.0.0"),
        (next.as_str(), pseudo.as_str()),
        (&next[..8], &pseudo),
        ("next", &pseudo),
        ("latest", "v1.0.0"),
    ] {
        sandbox = sandbox.file("velox.toml", with(RELEASE, &HELLO.replacen("v1.0.0", reference, 1)));
        sandbox.vx("build -c velox.toml -o out").ok();
        let found = sandbox.module_in("out/rr", "github.com/acme/hello");
        assert_eq!(found.as_deref(), Some(version), "{reference}");
    }
}

#[test]
fn folder_holds_a_plugin_with_its_own_go_mod() {
    let company = company();
    let souin = company.forge.github("darkweak-fork/souin");
    let files = plugin("github.com/darkweak-fork/souin/plugins/roadrunner", "cache")
        .folder("plugins/roadrunner")
        .files();
    souin
        .file("go.mod", "module github.com/darkweak-fork/souin\n\ngo 1.22\n")
        .files(files)
        .commit("first")
        .tag("v1.6.18");
    let line = |reference: &str| {
        format!(
            r#"cache = {{ ref = "{reference}", owner = "darkweak-fork", repository = "souin", folder="plugins/roadrunner" }}"#
        )
    };
    // Without a tag for the folder, Go makes a pseudo-version of the commit tagged at the root.
    let company = company.configured(&with(RELEASE, &line("v1.6.18")));
    let built = company.build();
    let pseudo = format!("v0.0.0-20240101000000-{}", &souin.head()[..12]);
    assert_eq!(built.module("github.com/darkweak-fork/souin/plugins/roadrunner"), Some(pseudo));

    souin.file("README.md", "more").commit("second").tag("plugins/roadrunner/v1.7.0");
    let company = company.configured(&with(RELEASE, &line("v1.7.0")));
    let built = company.build();
    assert_eq!(built.module("github.com/darkweak-fork/souin/plugins/roadrunner").as_deref(), Some("v1.7.0"));
}

#[test]
fn replace_takes_a_remote_module_at_the_ref_of_the_entry() {
    let company = company();
    // A fork keeps the module line of the original. The original doesn't exist: it must not be fetched.
    let fork = company.forge.github("owner2/repo2");
    fork.files(plugin("github.com/owner/repo", "mine").files()).commit("first").branch("master");
    let line = r#"mine = { ref = "master", owner = "owner", repository = "repo", replace="github.com/owner2/repo2" }"#;
    let built = company.configured(&with(RELEASE, line)).build();
    let replaced = built.module("github.com/owner/repo").unwrap();
    let expected = format!(" => github.com/owner2/repo2 v0.0.0-20240101000000-{}", &fork.head()[..12]);
    assert!(replaced.ends_with(&expected), "{replaced}");
}

#[test]
fn replace_takes_a_local_directory_relative_to_the_configuration() {
    let mut company = company();
    company.sandbox =
        company.sandbox.files("../plugins/mine", plugin("github.com/owner/repo", "mine").files());
    let line =
        r#"mine = { ref = "master", owner = "owner", repository = "repo", replace="../plugins/mine" }"#;
    let company = company.configured(&with(RELEASE, line));
    let built = company.build();
    let replaced = built.module("github.com/owner/repo").unwrap();
    assert!(replaced.contains(" => ./replace/github.com_owner_repo "), "{replaced}");
    assert!(
        company.forge.requests().iter().all(|request| !request.path.contains("/owner/")),
        "the original isn't asked for"
    );
}

#[test]
fn version_and_time_are_written_into_the_binary() {
    let company = company()
        .plugin("hello", "v1.0.0")
        .configured(&with(RELEASE, HELLO))
        .env("VERSION", "v9.8.7")
        .env("TIME", "2026-01-02T03:04:05+0000");
    let built = company.build();
    assert!(built.version.contains("9.8.7 (build time: 2026-01-02T03:04:05+0000"), "{}", built.version);
}

#[test]
fn undefined_stamp_arguments_count_as_unset() {
    let company = company()
        .plugin("hello", "v1.0.0")
        .configured(&with(RELEASE, HELLO))
        .env("APP_VERSION", "undefined")
        .env("BUILD_TIME", "undefined")
        .env("CGO_ENABLED", "0");
    let version = company.build().version;
    assert!(version.contains("2025.0.77 (build time: 2024-01-01T00:00:00Z"), "{version}");
}

#[test]
fn tokens_from_environment_variables_are_never_shown() {
    let company = company();
    let text = company.hidden_plugin();
    let company = company.configured(&text).env("RT_TOKEN", "ghp_secret");
    let ran = company.sandbox.vx("build -c velox.toml -o out -vv");
    ran.ok();
    assert!(!ran.stdout().contains("ghp_secret") && !ran.stderr().contains("ghp_secret"));
    let secret = Command::new("grep")
        .args(["-rlF", "ghp_secret"])
        .arg(company.sandbox.path().parent().unwrap())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&secret.stdout), "", "the token is in no file");
}

#[test]
fn rate_limit_error_names_the_reset_time() {
    let company = company();
    company
        .forge
        .github("acme/hello")
        .files(plugin("github.com/acme/hello", "hello").files())
        .commit("first");
    company.forge.github_rate_limits(0, 5000);
    let company = company.configured(&with("master", &HELLO.replacen("v1.0.0", "main", 1)));
    // git needs no API; without git the rate limit applies.
    let programs = company.sandbox.home().join("bin");
    fs::create_dir(&programs).unwrap();
    let go = company.sandbox.run("sh -c 'command -v go'");
    std::os::unix::fs::symlink(go.trim(), programs.join("go")).unwrap();
    let company = company.env("PATH", &programs.to_string_lossy());
    let message = company.fails();
    assert!(
        message.contains("rate limit") && message.contains("UTC") && message.contains("token"),
        "{message}"
    );
}

#[test]
fn private_repositories_over_ssh() {
    let company = company();
    let hidden = company.forge.github("acme/hidden").private();
    hidden.files(plugin("github.com/acme/hidden", "hidden").files()).commit("first").tag("v1.0.0");
    let sshd = match Sshd::start() {
        Ok(sshd) => sshd,
        Err(why) => return skip("private repositories over ssh", &why.to_string()),
    };
    sshd.repository("acme/hidden", &hidden).unwrap();
    let mut company = company
        .configured(&with(RELEASE, r#"hidden = { ref = "v1.0.0", owner = "acme", repository = "hidden" }"#));
    company.sandbox = company.sandbox.envs(sshd.environment());
    // The manual's second step, with a new HOME.
    for variable in ["GOPRIVATE", "GONOSUMDB"] {
        company.sandbox.run(&format!("go env -w '{variable}=github.com/acme/*,gitlab.com/acme/*'"));
    }
    // `go env -w` has no effect on variables that the environment sets.
    company.sandbox = company.sandbox.without("GONOSUMDB").env("GOSUMDB", "off");
    let built = company.build();
    assert_eq!(built.module("github.com/acme/hidden").as_deref(), Some("v1.0.0"));
    assert!(
        company.forge.requests().iter().all(|request| !request.path.starts_with("/repos/acme/")),
        "only over ssh"
    );
}

#[test]
fn private_repositories_over_https_with_configured_token() {
    let company = company();
    let text = company.hidden_plugin();
    let company =
        company.configured(&text).env("RT_TOKEN", "ghp_secret").env("GOPRIVATE", "github.com/acme/*");
    assert_eq!(company.build().module("github.com/acme/hidden").as_deref(), Some("v1.0.0"));
}

#[test]
fn gitlab_plugins_by_id_and_by_path() {
    let company = company();
    let token = "glpat-secret";
    for (id, name) in [(11, "one"), (12, "two")] {
        let project = company.forge.gitlab(&format!("acme/tools/{name}")).id(id).private().token(token);
        project
            .files(plugin(&format!("gitlab.com/acme/tools/{name}"), name).files())
            .commit("first")
            .tag("v1.0.0");
    }
    let text = format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[gitlab.token]\ntoken = \"${{GL_TOKEN}}\"\n\n\
         [gitlab.endpoint]\nendpoint = \"https://gitlab.com\"\n\n[gitlab.plugins]\n\
         one = {{ ref = \"main\", owner = \"acme\", repository = \"11\" }}\n\
         two = {{ ref = \"v1.0.0\", owner = \"acme\", repository = \"acme/tools/two\" }}\n"
    );
    let built = company.configured(&text).env("GL_TOKEN", token).build();
    assert_eq!(built.module("gitlab.com/acme/tools/two").as_deref(), Some("v1.0.0"));
    let one = built.module("gitlab.com/acme/tools/one").unwrap();
    // main is at v1.0.0.
    assert_eq!(one, "v1.0.0");
}

#[test]
fn compile_error_names_plugin_and_advice() {
    // A plugin of another major version than RoadRunner's is another module: the binary would contain both.
    let company = company();
    let old = company.forge.github("acme/broken");
    old.files(plugin("github.com/acme/broken", "broken").compile_error().files())
        .commit("first")
        .tag("v1.0.0");
    let company = company
        .configured(&with(RELEASE, r#"broken = { ref = "v1.0.0", owner = "acme", repository = "broken" }"#));
    let message = company.fails();
    assert_contains(
        &message,
        &[
            "undefined: missing",
            "plugin broken (github.com/acme/broken v1.0.0)",
            "velox.toml:5:",
            "all of the same major",
        ],
    );
}

#[test]
fn options_c_and_o_name_configuration_and_output() {
    let company = company().plugin("hello", "v1.0.0");
    let mut sandbox = company.sandbox.file("configurations/mine.toml", with(RELEASE, HELLO));
    fs::create_dir_all(sandbox.home().join("Downloads")).unwrap();
    sandbox.vx("build -c configurations/mine.toml -o ../home/Downloads").ok();
    assert!(sandbox.has("../home/Downloads/rr"));
    // A missing directory is created; a file name needs another option.
    sandbox = sandbox.file("keep", "");
    sandbox.vx("build -c configurations/mine.toml -o new/folder").ok();
    assert!(sandbox.has("new/folder/rr"));
    sandbox.vx("build -c configurations/mine.toml --output-file bin/server").ok();
    assert!(sandbox.has("bin/server"));
}

#[test]
fn log_level_and_mode_control_the_output() {
    let company = company().plugin("hello", "v1.0.0");
    let mut sandbox = company.sandbox;
    let text = |level: &str, mode: &str| {
        format!("{}\n[log]\nlevel = \"{level}\"\nmode = \"{mode}\"\n", with(RELEASE, HELLO))
    };
    sandbox = sandbox.file("velox.toml", text("info", "production"));
    let production = sandbox.vx("build -c velox.toml --dry-run");
    assert!(production.ok().contains("github.com/acme/hello"));
    assert!(production.stderr().lines().count() > 0);
    for line in production.stderr().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "INFO", "{line}");
        line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(!line["msg"].as_str().unwrap().is_empty(), "{line}");
    }
    assert!(production.stderr().contains(r#""msg":"Resolved RoadRunner "#), "{}", production.stderr());
    let events = sandbox.vx("build -c velox.toml --dry-run --format json");
    assert_eq!(events.stderr(), "", "--format json wins");
    let aligned = sandbox.vx("build -c velox.toml --dry-run --format human").stderr();
    assert!(aligned.starts_with("    Resolved RoadRunner "), "--format human wins: {aligned}");
    // Errors have the level and the place.
    sandbox = sandbox.file("velox.toml", text("info", "production").replace("acme", "nobody"));
    let failed = sandbox.vx("build -c velox.toml --out out").fails(1);
    let last: serde_json::Value = serde_json::from_str(failed.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["level"], &last["file"], &last["line"]),
        (&"ERROR".into(), &"velox.toml".into(), &5.into()),
        "{failed}"
    );
    assert!(last["help"].is_array(), "{failed}");
    sandbox = sandbox.file("velox.toml", text("info", "raw"));
    let raw = sandbox.vx("build -c velox.toml --dry-run").stderr();
    assert!(raw.starts_with("Resolved RoadRunner "), "{raw}");
    for mode in ["off", "none"] {
        sandbox = sandbox.file("velox.toml", text("info", mode));
        assert_eq!(sandbox.vx("build -c velox.toml -o out").stderr(), "");
    }
    sandbox = sandbox.file("velox.toml", text("info", "development"));
    let development = sandbox.vx("build -c velox.toml --dry-run");
    assert!(development.ok().contains("github.com/acme/hello"));
    assert!(!development.stderr().starts_with('{'));
    sandbox = sandbox.file("velox.toml", text("error", "development"));
    assert_eq!(sandbox.vx("build -c velox.toml -o out").stderr(), "");
    assert!(!sandbox.vx("build -c velox.toml -o out -v").stderr().is_empty(), "flags win");
}

#[test]
fn self_hosted_github_and_gitlab() {
    let forge = TestForge::start();
    let repository = forge.github("roadrunner-server/roadrunner");
    roadrunner("v2025").commit_to(&repository).tag(RELEASE);
    forge
        .github("acme/hello")
        .files(plugin("ghe.test/acme/hello", "hello").files())
        .commit("first")
        .tag("v1.0.0");
    let project = forge.gitlab("acme/deep/down/other").id(7);
    project.files(plugin("gitlab.test/acme/deep/down/other", "other").files()).commit("first").tag("v0.3.0");
    let text = format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[github.endpoint]\nendpoint = \"{}\"\n\n[github.plugins]\n{HELLO}\n\n\
         [gitlab.endpoint]\nendpoint = \"{}\"\n\n[gitlab.plugins]\n\
         other = {{ ref = \"v0.3.0\", owner = \"acme\", repository = \"7\" }}\n",
        forge.github_url(),
        forge.gitlab_url()
    );
    let sandbox = Sandbox::new().own_module_cache().file("velox.toml", text);
    sandbox.vx("build -c velox.toml -o out").ok();
    assert_eq!(sandbox.module_in("out/rr", "ghe.test/acme/hello").as_deref(), Some("v1.0.0"));
    assert_eq!(sandbox.module_in("out/rr", "gitlab.test/acme/deep/down/other").as_deref(), Some("v0.3.0"));
}
