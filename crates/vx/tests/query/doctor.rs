//! `vx doctor`: checks of the machine, each with a remedy.

#![cfg(unix)]

use std::{fs, os::unix::net::UnixListener};

use velox_testkit::{Fault, Internet, ModuleProxy, Repo, TestForge};

use crate::support::sandbox::{CommandOutput, Sandbox, assert_contains};

const TOKEN: &str = "ghp_s3cret";

const FILE: &str = r#"
[roadrunner]
ref = "v2025.1.15"

[github.token]
token = "${RT_TOKEN}"

[github.plugins]
http = { ref = "v5.3.0", owner = "roadrunner-server", repository = "http" }

[gitlab.token]
token = "${GL_TOKEN}"

[gitlab.plugins]
far = { ref = "v1.0.0", owner = "acme", repository = "far" }
"#;

/// A healthy machine; each test breaks something.
struct Machine {
    sandbox: Sandbox,
    forge: TestForge,
    proxy: ModuleProxy,
    _internet: Internet,
}

fn machine() -> Machine {
    let forge = TestForge::start();
    forge.github_token(TOKEN);
    forge.token_facts(TOKEN, &["repo", "read:org"], None);
    forge.gitlab_token("glpat_s3cret");
    forge.token_facts("glpat_s3cret", &["read_api", "read_repository"], Some("2999-01-01"));
    // Only the two forges are reachable.
    let (internet, proxy) = (Internet::start(&forge).offline(), ModuleProxy::start());
    let sandbox = Sandbox::new()
        .envs(internet.environment())
        .env("NO_PROXY", "127.0.0.1")
        .env("GOPROXY", proxy.url())
        .env("RT_TOKEN", TOKEN)
        .env("GL_TOKEN", "glpat_s3cret")
        .file("velox.toml", FILE);
    let sandbox = sandbox.own_caches();
    Machine { sandbox, forge, proxy, _internet: internet }
}

impl Machine {
    /// The output of `vx doctor`, which exits with this code, with placeholders for what differs between machines.
    fn says(&self, code: i32) -> String {
        self.says_to("doctor", code)
    }

    fn says_to(&self, arguments: &str, code: i32) -> String {
        let message = self.sandbox.vx(arguments);
        assert_eq!(message.code(), Some(code), "{}{}", message.stdout(), message.stderr());
        let report = message.stdout() + &message.stderr();
        assert!(!report.contains("s3cret"), "a token is never shown: {report}");
        let (proxy, home) = (self.proxy.url(), self.sandbox.path());
        let places = home.parent().unwrap().to_string_lossy().into_owned();
        report.replace(proxy.trim_start_matches("http://"), "[PROXY]").replace(&places, "[HOME]")
    }

    /// The lines about one thing.
    fn about(&self, check: &str, code: i32) -> String {
        about(&self.says(code), check)
    }

    fn with(mut self, change: impl FnOnce(Sandbox) -> Sandbox) -> Self {
        self.sandbox = change(self.sandbox);
        self
    }
}

fn about(report: &str, check: &str) -> String {
    let mut lines = report.lines().peekable();
    let mut found = String::new();
    while let Some(line) = lines.next() {
        if line.split_whitespace().nth(1) == Some(check) {
            found += &format!("{line}\n");
            if let Some(help) = lines.next_if(|line| line.starts_with("   ")) {
                found += &format!("{help}\n");
            }
        }
    }
    found
}

#[test]
fn doctor_finds_no_problem_on_a_healthy_machine() {
    let machine = machine();
    let report = machine.says(0);
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"go\d+\.\d+(\.\d+)?, \S+ \(.*\)", "[GO]");
    settings.add_filter(r"\d+\.\d+\.\d+(\.\S+)?, \S+git", "[GIT]");
    settings.add_filter(r"\d+ (B|KiB|MiB|GiB|TiB) free for .*", "[SPACE]");
    settings.add_filter(r"\d+ (B|KiB|MiB|GiB)\)", "[SIZE])");
    settings.add_filter(r"until \d\d:\d\d UTC", "until [TIME]");
    settings.bind(|| insta::assert_snapshot!(report));

    let json = machine.says_to("doctor --format json", 0);
    let events: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["errors"]), (&"diagnosed".into(), &0.into()));
    assert!(events.iter().all(|event| event["v"] == 1));
    let github = events.iter().find(|event| event["check"] == "github").unwrap();
    assert_eq!((&github["state"], &github["remedy"]), (&"ok".into(), &serde_json::Value::Null));
    assert_eq!(machine.says_to("doctor -q", 0).matches("ok ").count(), 0, "only what is wrong");

    let mut asked: Vec<String> = machine
        .forge
        .requests()
        .into_iter()
        .map(|it| format!("{}{} {}", it.host, it.path, it.had_token))
        .collect();
    asked.sort();
    asked.dedup();
    assert_eq!(
        asked,
        ["api.github.com/rate_limit true", "gitlab.com/api/v4/personal_access_tokens/self true"],
        "nothing of GitHub's rate limit is spent"
    );
}

#[test]
fn doctor_reports_rejected_narrow_and_expired_tokens() {
    let wrong = machine().with(|sandbox| sandbox.env("RT_TOKEN", "ghp_other_s3cret"));
    let report = wrong.about("github", 1);
    assert!(
        report.contains("api.github.com refuses the token") && report.contains("make a new token"),
        "{report}"
    );

    let narrow = machine();
    narrow.forge.token_facts(TOKEN, &["read:user"], None);
    narrow.forge.token_facts("glpat_s3cret", &["read_user"], Some("2020-01-01"));
    let report = narrow.says(1);
    assert!(about(&report, "github").contains("private repositories need `repo`"), "{report}");
    let gitlab = about(&report, "gitlab");
    assert!(gitlab.contains("private repositories need `read_api`"), "{report}");
    assert!(gitlab.contains("error    gitlab   the token for gitlab.com ends on 2020-01-01"), "{report}");

    let none = machine().with(|sandbox| {
        sandbox.without("RT_TOKEN").without("GL_TOKEN").env("GITHUB_TOKEN", "ghp_unused_s3cret")
    });
    none.forge.github_rate_limits(5, 5000);
    let report = none.about("github", 0);
    assert_contains(
        &report,
        &["no token, 5 of 5 requests are left", "GITHUB_TOKEN is set, and velox.toml doesn't use it"],
    );
}

#[test]
fn doctor_reports_failing_forges() {
    let machine = machine();
    for (fault, sign) in [
        (Fault::GarbageJson, "answers something else than its API says"),
        (Fault::Status(503), "answers 503"),
        (Fault::HangUp, "can't reach"),
        (Fault::RateLimited { reset_in: 1000 }, "rate limit is used up"),
        (Fault::TooManyRequests { retry_after: 30 }, "rate limit is used up"),
    ] {
        machine.forge.fault(fault.clone()).on("GET", "/rate_limit");
        let report = machine.about("github", 1);
        assert!(report.contains(sign) && report.contains("help: "), "{fault:?}: {report}");
        machine.forge.clear_faults();
    }
    let machine = machine.with(|sandbox| sandbox.without("RT_TOKEN"));
    machine.forge.fault(Fault::Status(503)).on("GET", "/rate_limit");
    let report = machine.about("github", 0);
    assert!(report.starts_with("warning"), "public plugins come through the proxies: {report}");
}

#[test]
fn doctor_checks_proxies_and_checksum_database() {
    let machine = machine();
    machine.proxy.fail("@v/list", Fault::Status(503));
    let report = machine.about("proxy", 1);
    assert!(report.contains("error    proxy    [PROXY] doesn't serve modules: 503"), "{report}");
    machine.proxy.heal();
    machine.proxy.fail("@v/list", Fault::Status(401));
    let report = machine.about("proxy", 1);
    assert!(report.contains("~/.netrc"), "{report}");
    machine.proxy.heal();

    let url = machine.proxy.url();
    let user = url.replace("http://", "http://me:s3cret@");
    for (list, code, sign) in [
        (user, 1, "which isn't sent over plain HTTP"),
        (format!("http://127.0.0.1:9|{url}"), 0, "warning  proxy    127.0.0.1:9 doesn't serve modules"),
        (format!("http://127.0.0.1:9,{url}"), 1, "error    proxy    127.0.0.1:9 doesn't serve modules"),
        ("off".to_owned(), 1, "GOPROXY=off"),
        ("direct".to_owned(), 0, "GOPROXY names no proxy"),
        ("ftp://me:s3cret@x".to_owned(), 1, "entry 1 of GOPROXY is no https"),
        ("file:///nowhere/at/all".to_owned(), 1, "there is no such directory"),
    ] {
        let ran = CommandOutput::from(machine.sandbox.vx_command("doctor").env("GOPROXY", &list));
        assert_eq!(ran.code(), Some(code), "{list}: {}", ran.stdout());
        let report = about(&ran.stdout(), "proxy");
        assert!(report.contains(sign) && !ran.stdout().contains("s3cret"), "{list}: {report}");
    }

    let machine = machine.with(|sandbox| sandbox.env("GONOSUMDB", "").env("GOSUMDB", "sum.golang.org"));
    let report = machine.about("sumdb", 1);
    assert!(report.contains("the checksum database can't be asked: sum.golang.org"), "{report}");
    let machine = machine.with(|sandbox| sandbox.env("GOSUMDB", "off"));
    assert!(machine.about("sumdb", 0).contains("GOSUMDB=off"));
}

#[test]
fn doctor_checks_caches_programs_and_configuration() {
    let machine = machine().with(|sandbox| sandbox.file("in-the-way", ""));
    let cache = machine.sandbox.at("in-the-way/cache");
    let machine = machine.with(|sandbox| sandbox.env("VX_CACHE_DIR", cache));
    let report = machine.about("caches", 1);
    assert!(
        report.contains("vx's cache can't be written") && report.contains("set VX_CACHE_DIR"),
        "{report}"
    );

    let machine = machine.with(|sandbox| sandbox.env("PATH", "/nowhere"));
    let report = machine.says(1);
    assert_contains(
        &report,
        &[
            "ok       go       there is no go command on the PATH: the right one is downloaded",
            "warning  git      there is no git on the PATH",
        ],
    );
    let machine = machine.with(|sandbox| sandbox.env("GOTOOLCHAIN", "local"));
    let report = machine.about("go", 1);
    assert_contains(&report, &["error", "GOTOOLCHAIN=local allows no other", "go.dev/dl"]);

    let machine = machine.with(|sandbox| sandbox.file("velox.toml", "[roadrunner]\nreff = 'x'\n"));
    let report = machine.about("config", 1);
    assert!(report.contains("unknown key `reff`") && report.contains("vx build --dry-run"), "{report}");

    fs::remove_file(machine.sandbox.at("velox.toml")).unwrap();
    assert_eq!(machine.about("config", 1), "", "a machine can be looked at without a configuration");
    let offline = machine.says_to("doctor --offline", 1);
    assert_eq!(about(&offline, "github") + &about(&offline, "proxy"), "", "nothing is asked");
}

#[test]
fn doctor_checks_private_hosts_and_ssh_agent() {
    let machine = machine();
    // git's own redirection stands in for a company's host.
    let private = |machine: Machine, address: &str| {
        let key = format!("url.{address}.insteadOf");
        machine.with(|sandbox| {
            sandbox
                .env("GOPRIVATE", "git.example.com/*")
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", key)
                .env("GIT_CONFIG_VALUE_0", "https://git.example.com/acme/mine")
        })
    };
    let file = "[roadrunner]\nref = 'v2025.1.15'\n\n[plugins.mine]\n\
                module_name = 'git.example.com/acme/mine/v2'\ntag = 'v2.0.0'\n";
    let repository = Repo::new().file("go.mod", "module git.example.com/acme/mine/v2\n").commit("first");
    machine.forge.host_github("acme/mine", &repository);
    let address = repository.url();
    let machine = private(machine.with(|sandbox| sandbox.file("velox.toml", file)), &address);
    let report = machine.says(0);
    assert!(about(&report, "private").contains("git reads git.example.com/acme/mine"), "{report}");
    assert!(about(&report, "ssh").contains("warning  ssh      no ssh-agent is running"), "{report}");

    let missing = private(machine, &format!("{address}-not"));
    let report = missing.about("private", 1);
    // A forge doesn't tell a stranger whether there is such a repository.
    assert!(report.contains("git.example.com answers git, and wants credentials"), "{report}");
    let dead = private(missing, "http://127.0.0.1:9/");
    let report = dead.about("private", 1);
    assert!(report.contains("git can't reach git.example.com"), "{report}");

    // A socket without an agent behind it.
    let socket = dead.sandbox.at("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    let silent = dead.with(|sandbox| sandbox.env("SSH_AUTH_SOCK", socket));
    assert!(silent.about("ssh", 1).contains("no ssh-agent answers there"));
}
