//! `vx doctor`.

#![cfg(unix)]

use std::{fs, os::unix::net::UnixListener};

use velox_testkit::{Fault, Internet, ModuleProxy, Repo, TestForge};

use crate::support::sandbox::{CommandOutput, Sandbox};

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

/// A machine without problems; each test breaks something.
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
    /// The output of `vx doctor`, which must exit with this code, without machine-specific parts.
    fn says(&self, code: i32) -> String {
        self.says_to("doctor", code)
    }

    fn says_to(&self, arguments: &str, code: i32) -> String {
        let said = self.sandbox.vx(arguments);
        assert_eq!(said.code(), Some(code), "{}{}", said.stdout(), said.stderr());
        let told = said.stdout() + &said.stderr();
        assert!(!told.contains("s3cret"), "a token is never shown: {told}");
        let (proxy, home) = (self.proxy.url(), self.sandbox.path());
        let places = home.parent().unwrap().to_string_lossy().into_owned();
        told.replace(proxy.trim_start_matches("http://"), "[PROXY]").replace(&places, "[HOME]")
    }

    /// The lines of one check.
    fn about(&self, check: &str, code: i32) -> String {
        about(&self.says(code), check)
    }

    fn with(mut self, change: impl FnOnce(Sandbox) -> Sandbox) -> Self {
        self.sandbox = change(self.sandbox);
        self
    }
}

fn about(told: &str, check: &str) -> String {
    let mut lines = told.lines().peekable();
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
fn no_problems() {
    let machine = machine();
    let told = machine.says(0);
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"go\d+\.\d+(\.\d+)?, \S+ \(.*\)", "[GO]");
    settings.add_filter(r"\d+\.\d+\.\d+(\.\S+)?, \S+git", "[GIT]");
    settings.add_filter(r"[\d.]+ (B|KiB|MiB|GiB|TiB) free for .*", "[SPACE]");
    settings.add_filter(r"[\d.]+ (B|KiB|MiB|GiB)\)", "[SIZE])");
    settings.add_filter(r"until \d\d:\d\d UTC", "until [TIME]");
    settings.bind(|| insta::assert_snapshot!(told));

    let json = machine.says_to("doctor --format json", 0);
    let events: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["errors"]), (&"diagnosed".into(), &0.into()));
    assert!(events.iter().all(|event| event["v"] == 1));
    let github = events.iter().find(|event| event["check"] == "github").unwrap();
    assert_eq!((&github["state"], &github["remedy"]), (&"ok".into(), &serde_json::Value::Null));
    assert_eq!(machine.says_to("doctor -q", 0).matches("ok ").count(), 0, "only problems");

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
        "GitHub's rate limit is not used"
    );
}

#[test]
fn token_problems() {
    let wrong = machine().with(|sandbox| sandbox.env("RT_TOKEN", "ghp_other_s3cret"));
    let told = wrong.about("github", 1);
    assert!(
        told.contains("api.github.com rejected the token") && told.contains("create a new token"),
        "{told}"
    );

    let narrow = machine();
    narrow.forge.token_facts(TOKEN, &["read:user"], None);
    narrow.forge.token_facts("glpat_s3cret", &["read_user"], Some("2020-01-01"));
    let told = narrow.says(1);
    assert!(about(&told, "github").contains("private repositories need the scope `repo`"), "{told}");
    let gitlab = about(&told, "gitlab");
    assert!(gitlab.contains("private repositories need the scope `read_api`"), "{told}");
    assert!(gitlab.contains("error    gitlab   the token for gitlab.com expired on 2020-01-01"), "{told}");

    let none = machine().with(|sandbox| {
        sandbox.without("RT_TOKEN").without("GL_TOKEN").env("GITHUB_TOKEN", "ghp_unused_s3cret")
    });
    none.forge.github_rate_limits(5, 5000);
    let told = none.about("github", 0);
    assert!(told.contains("no token, 5 of 5 requests left"), "{told}");
    assert!(told.contains("GITHUB_TOKEN is set, but velox.toml does not use it"), "{told}");
}

#[test]
fn forge_failures() {
    let machine = machine();
    for (fault, sign) in [
        (Fault::GarbageJson, "unexpected response"),
        (Fault::Status(503), "returned status 503"),
        (Fault::HangUp, "failed to reach"),
        (Fault::RateLimited { reset_in: 1000 }, "rate limit exceeded"),
        (Fault::TooManyRequests { retry_after: 30 }, "rate limit exceeded"),
    ] {
        machine.forge.fault(fault.clone()).on("GET", "/rate_limit");
        let told = machine.about("github", 1);
        assert!(told.contains(sign) && told.contains("help: "), "{fault:?}: {told}");
        machine.forge.clear_faults();
    }
    let machine = machine.with(|sandbox| sandbox.without("RT_TOKEN"));
    machine.forge.fault(Fault::Status(503)).on("GET", "/rate_limit");
    let told = machine.about("github", 0);
    assert!(told.starts_with("warning"), "public plugins come through the proxies: {told}");
}

#[test]
fn proxies_and_the_checksum_database() {
    let machine = machine();
    machine.proxy.fail("@v/list", Fault::Status(503));
    let told = machine.about("proxy", 1);
    assert!(told.contains("error    proxy    [PROXY] does not serve modules: 503"), "{told}");
    machine.proxy.heal();
    machine.proxy.fail("@v/list", Fault::Status(401));
    let told = machine.about("proxy", 1);
    assert!(told.contains("~/.netrc"), "{told}");
    machine.proxy.heal();

    let url = machine.proxy.url();
    let user = url.replace("http://", "http://me:s3cret@");
    for (list, code, sign) in [
        (user, 1, "which is not sent over plain HTTP"),
        (format!("http://127.0.0.1:9|{url}"), 0, "warning  proxy    127.0.0.1:9 does not serve modules"),
        (format!("http://127.0.0.1:9,{url}"), 1, "error    proxy    127.0.0.1:9 does not serve modules"),
        // A proxy before it serves modules.
        (format!("{url},http://127.0.0.1:9"), 0, "warning  proxy    127.0.0.1:9 does not serve modules"),
        ("off".to_owned(), 1, "GOPROXY=off"),
        ("direct".to_owned(), 0, "GOPROXY names no proxy"),
        ("ftp://me:s3cret@x".to_owned(), 1, "entry 1 is neither an https"),
        ("file:///nowhere/at/all".to_owned(), 1, "no such directory"),
    ] {
        let ran = CommandOutput::from(machine.sandbox.vx_command("doctor").env("GOPROXY", &list));
        assert_eq!(ran.code(), Some(code), "{list}: {}", ran.stdout());
        let told = about(&ran.stdout(), "proxy");
        assert!(told.contains(sign) && !ran.stdout().contains("s3cret"), "{list}: {told}");
    }

    // A proxy of a company's own modules refuses the probe; builds with them succeed.
    let own = ModuleProxy::start();
    own.fail("@v/list", Fault::Status(403));
    let both = format!("{},{url}", own.url());
    let ran = CommandOutput::from(machine.sandbox.vx_command("doctor").env("GOPROXY", &both));
    assert_eq!(ran.code(), Some(0), "{}", ran.stdout());
    let told = about(&ran.stdout(), "proxy");
    assert!(told.contains("builds succeed with the modules that it serves"), "{told}");

    let machine = machine.with(|sandbox| sandbox.env("GONOSUMDB", "").env("GOSUMDB", "sum.golang.org"));
    let told = machine.about("sumdb", 1);
    assert!(told.contains("failed to reach the checksum database sum.golang.org"), "{told}");
    let machine = machine.with(|sandbox| sandbox.env("GOSUMDB", "off"));
    assert!(machine.about("sumdb", 0).contains("GOSUMDB=off"));
}

#[test]
fn go_git_caches_and_configuration() {
    let machine = machine().with(|sandbox| sandbox.file("in-the-way", ""));
    let cache = machine.sandbox.at("in-the-way/cache");
    let machine = machine.with(|sandbox| sandbox.env("VX_CACHE_DIR", cache));
    let told = machine.about("caches", 1);
    assert!(told.contains("vx cache is not writable") && told.contains("set VX_CACHE_DIR"), "{told}");

    let machine = machine.with(|sandbox| sandbox.env("PATH", "/nowhere"));
    let told = machine.says(1);
    assert!(
        told.contains("ok       go       no go command on PATH: the required version is downloaded"),
        "{told}"
    );
    assert!(told.contains("warning  git      no git on PATH"), "{told}");
    let machine = machine.with(|sandbox| sandbox.env("GOTOOLCHAIN", "local"));
    let told = machine.about("go", 1);
    assert!(told.contains("error") && told.contains("GOTOOLCHAIN=local forbids"), "{told}");
    assert!(told.contains("go.dev/dl"), "{told}");

    let machine = machine.with(|sandbox| sandbox.file("velox.toml", "[roadrunner]\nreff = 'x'\n"));
    let told = machine.about("config", 1);
    assert!(told.contains("unknown key `reff`") && told.contains("vx build --dry-run"), "{told}");

    fs::remove_file(machine.sandbox.at("velox.toml")).unwrap();
    assert_eq!(machine.about("config", 1), "", "no configuration is required");
    let offline = machine.says_to("doctor --offline", 1);
    assert_eq!(about(&offline, "github") + &about(&offline, "proxy"), "", "no network");
}

#[test]
fn private_hosts_and_the_agent() {
    let machine = machine();
    // git's URL redirection stands in for a company's host.
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
    let told = machine.says(0);
    assert!(about(&told, "private").contains("git can read git.example.com/acme/mine"), "{told}");
    assert!(about(&told, "ssh").contains("warning  ssh      no ssh-agent is running"), "{told}");

    let missing = private(machine, &format!("{address}-not"));
    let told = missing.about("private", 1);
    // A forge doesn't reveal to anonymous clients whether a repository exists.
    assert!(told.contains("git.example.com requires credentials"), "{told}");
    let dead = private(missing, "http://127.0.0.1:9/");
    let told = dead.about("private", 1);
    assert!(told.contains("git failed to reach git.example.com"), "{told}");

    // A socket without an agent.
    let socket = dead.sandbox.at("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    let silent = dead.with(|sandbox| sandbox.env("SSH_AUTH_SOCK", socket));
    assert!(silent.about("ssh", 1).contains("no ssh-agent responds"));
}
