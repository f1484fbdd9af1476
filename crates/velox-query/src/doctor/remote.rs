//! Checks of the network: module proxies, checksum database, forges, private hosts.

use std::{path::Path, time::SystemTime};

use jiff::{Timestamp, tz::TimeZone};
use velox_fetch::{
    forge::{ForgeError, RateLimit, TokenInfo, ssh_agent_key_count},
    probe::{ProxyProbe, probe_proxies, probe_sum_db},
    proxy::{ProxyErrorKind, ProxyList},
    sumdb::SumDbConfig,
};
use velox_manifest::{Forge, Origin};

use super::{Diagnosis, DoctorContext};

/// A public module to request from proxies; a "not found" response is also a success.
const PROBE_MODULE: &str = "github.com/roadrunner-server/errors";
const MIN_REMAINING_REQUESTS: u64 = 20;
const TOKEN_EXPIRY_WARNING_DAYS: i64 = 7;

pub(super) async fn proxies(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    const DEFAULT: &str = "set the default: `go env -w GOPROXY=https://proxy.golang.org,direct`";
    let (Some(go), Some(client)) = (context.go, context.environment.proxy_client()) else {
        return Vec::new();
    };
    let list = match ProxyList::parse(&go.proxy) {
        Ok(list) => list,
        Err(error) => return vec![Diagnosis::error("proxy", error.to_string(), DEFAULT)],
    };
    if go.proxy == "off" {
        let remedy = "unset it with `go env -u GOPROXY`, or build from the caches with `--offline`";
        return vec![Diagnosis::error("proxy", "GOPROXY=off: no module can be downloaded", remedy)];
    }
    if !list.has_proxy() {
        let message = "GOPROXY names no proxy: modules come from their repositories, which is slow";
        return vec![Diagnosis::warning("proxy", message, DEFAULT)];
    }
    let (client, netrc) = match client {
        Ok(client) => client,
        Err(error) => return vec![Diagnosis::of_error("proxy", &error)],
    };
    let probes = probe_proxies(&client, &list, &netrc, PROBE_MODULE).await;
    let last = probes.len().saturating_sub(1);
    let working = probes.iter().position(|probe| probe.error.is_none());
    let position = |index: usize| match working {
        Some(working) if working < index => ProxyPosition::AfterWorking,
        Some(_) => ProxyPosition::BeforeWorking,
        None if index == last => ProxyPosition::Last,
        None => ProxyPosition::Other,
    };
    probes.into_iter().enumerate().map(|(index, probe)| proxy(probe, position(index))).collect()
}

/// The position of a proxy in GOPROXY.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ProxyPosition {
    /// A proxy before it serves modules.
    AfterWorking,
    /// Only proxies after it do.
    BeforeWorking,
    /// The last of those that all fail.
    Last,
    /// Another of those.
    Other,
}

fn proxy(probe: ProxyProbe, position: ProxyPosition) -> Diagnosis {
    let name = &probe.host;
    let Some(error) = probe.error else {
        return Diagnosis::ok("proxy", format!("{name} is reachable"));
    };
    // A proxy of selected modules refuses the others; those that it serves can still be built.
    let refuses = matches!(error.kind, ProxyErrorKind::Status(403));
    if position == ProxyPosition::AfterWorking || (refuses && position == ProxyPosition::BeforeWorking) {
        let message = match refuses {
            true => format!(
                "{name} refuses {PROBE_MODULE}: {error}; builds succeed with the modules that it serves"
            ),
            false => format!("{name} does not serve modules: {error}; a proxy before it does"),
        };
        let remedy = format!("remove {name} from GOPROXY if no module needs it");
        return Diagnosis::warning("proxy", message, remedy);
    }
    let message = format!("{name} does not serve modules: {error}");
    let remedy = match error.kind {
        ProxyErrorKind::Unauthorized | ProxyErrorKind::Status(403) => {
            format!("add credentials for {name} to ~/.netrc, or to the file that NETRC names")
        }
        ProxyErrorKind::Certificate => {
            "set SSL_CERT_FILE to the trusted certificates, for example of a company's own authority"
                .to_owned()
        }
        ProxyErrorKind::Disallowed => format!("use https:// for {name} in GOPROXY"),
        _ => "check the network, GOPROXY and HTTPS_PROXY".to_owned(),
    };
    // After a comma in GOPROXY, the next proxy is only used for modules that are not found.
    match probe.falls_through && position != ProxyPosition::Last {
        true => Diagnosis::warning("proxy", format!("{message}; the next proxy is used"), remedy),
        false => Diagnosis::error("proxy", message, remedy),
    }
}

pub(super) async fn sum_db(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(go) = context.go else { return Vec::new() };
    let database = match SumDbConfig::parse(&go.sum_db) {
        Ok(Some(database)) => database,
        Ok(None) => {
            let remedy = "unset it with `go env -u GOSUMDB`; GONOSUMDB is enough for private modules";
            let message = "GOSUMDB=off: modules are trusted on first use";
            return vec![Diagnosis::warning("sumdb", message, remedy)];
        }
        Err(error) => {
            return vec![Diagnosis::error("sumdb", error.to_string(), "unset it with `go env -u GOSUMDB`")];
        }
    };
    if go.no_sum_db == "*" {
        let message = "GONOSUMDB=*: modules are trusted on first use";
        let remedy = "list only the private modules, such as GONOSUMDB=git.example.com";
        return vec![Diagnosis::warning("sumdb", message, remedy)];
    }
    let (Ok(list), Some(Ok((client, netrc)))) =
        (ProxyList::parse(&go.proxy), context.environment.proxy_client())
    else {
        // Already reported by the proxy check.
        return Vec::new();
    };
    vec![match probe_sum_db(&client, &list, &netrc, &database).await {
        Ok(host) => Diagnosis::ok("sumdb", format!("{host} is reachable")),
        Err((host, why)) => {
            let message = format!("failed to reach the checksum database {host}: {why}");
            Diagnosis::error("sumdb", message, "check the network and HTTPS_PROXY, or set GOSUMDB")
        }
    }]
}

/// The forge-specific parts of a check.
struct ForgeCheck<'a> {
    check: &'static str,
    forge: &'a Forge,
    /// Common names of the token variable.
    variables: [&'static str; 2],
    /// The token scopes that give access to private repositories; one is sufficient.
    scopes: &'static [&'static str],
    scope_help: &'static str,
}

pub(super) async fn github(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let check = ForgeCheck {
        check: "github",
        forge: &context.request.manifest.github,
        variables: ["GITHUB_TOKEN", "GH_TOKEN"],
        scopes: &["repo"],
        scope_help: "the scope `repo`, or a fine-grained token with read access to repository contents",
    };
    let facts = context.environment.github_token().await;
    facts.map(|facts| check.diagnose(context, facts)).unwrap_or_default()
}

pub(super) async fn gitlab(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let manifest = &context.request.manifest;
    let forge = &manifest.gitlab;
    let is_used = manifest.plugins.iter().any(|plugin| matches!(plugin.origin, Origin::GitLab { .. }));
    if !is_used && forge.token.is_none() && !forge.is_self_hosted() {
        return Vec::new();
    }
    let check = ForgeCheck {
        check: "gitlab",
        forge,
        variables: ["GITLAB_TOKEN", "CI_JOB_TOKEN"],
        scopes: &["api", "read_api"],
        scope_help: "the scope `read_api`, and `read_repository` for git",
    };
    let facts = context.environment.gitlab_token().await;
    facts.map(|facts| check.diagnose(context, facts)).unwrap_or_default()
}

impl ForgeCheck<'_> {
    fn diagnose(&self, context: &DoctorContext<'_>, facts: Result<TokenInfo, ForgeError>) -> Vec<Diagnosis> {
        let Self { check, forge, .. } = *self;
        let TokenInfo { host, scopes, expires, quota } = match facts {
            Ok(facts) => facts,
            Err(error) => return vec![self.failure(&error)],
        };
        let token = match (&forge.token, &scopes) {
            (None, _) => "no token".to_owned(),
            (Some(_), None) => "token accepted".to_owned(),
            (Some(_), Some(scopes)) if scopes.is_empty() => "token accepted, no scopes".to_owned(),
            (Some(_), Some(scopes)) => format!("token accepted, scopes: {}", scopes.join(", ")),
        };
        let remaining = quota.map(|quota| format!(", {}", format_quota(quota))).unwrap_or_default();
        let message = format!("{host} is reachable; {token}{remaining}");
        let lacks_scope = forge.token.is_some()
            && scopes.is_some_and(|scopes| !scopes.iter().any(|it| self.scopes.contains(&it.as_str())));
        let mut diagnoses = vec![match quota {
            _ if lacks_scope => {
                Diagnosis::warning(check, message, format!("private repositories need {}", self.scope_help))
            }
            Some(RateLimit { remaining, .. }) if remaining < MIN_REMAINING_REQUESTS => {
                let remedy = match forge.token {
                    Some(_) => "wait for the reset",
                    None => "set a token: the limit is far higher with one",
                };
                Diagnosis::warning(check, message, remedy)
            }
            _ => Diagnosis::ok(check, message),
        }];
        let days = expires.as_deref().and_then(days_until);
        if let (Some(expires), Some(days)) = (expires, days.filter(|it| *it <= TOKEN_EXPIRY_WARNING_DAYS)) {
            let remedy = format!("create a new token and set it under [{check}.token]");
            diagnoses.push(match days {
                ..0 => Diagnosis::error(check, format!("the token for {host} expired on {expires}"), remedy),
                _ => Diagnosis::warning(check, format!("the token for {host} expires on {expires}"), remedy),
            });
        }
        diagnoses.extend(self.unused_variable(context));
        diagnoses
    }

    fn failure(&self, error: &ForgeError) -> Diagnosis {
        let Self { check, forge, .. } = self;
        let remedy = match error {
            ForgeError::Unauthorized { had_token: true, .. } => {
                format!("create a new token and set it under [{check}.token]; the old one may have expired")
            }
            error => error.help().first().cloned().unwrap_or_else(|| "try again later".to_owned()),
        };
        // Public plugins are downloaded from module proxies.
        match forge.is_self_hosted() || forge.token.is_some() {
            true => Diagnosis::error(check, error.to_string(), remedy),
            false => Diagnosis::warning(check, error.to_string(), remedy),
        }
    }

    /// Warns about a token in the environment that the configuration doesn't use.
    fn unused_variable(&self, context: &DoctorContext<'_>) -> Option<Diagnosis> {
        let Self { check, forge, .. } = self;
        let is_configured = context.request.source.is_some();
        let name = self.variables.into_iter().find(|name| context.variable(name).is_some());
        let name = name.filter(|_| is_configured && forge.token.is_none())?;
        let remedy = format!("for private plugins, add token = \"${{{name}}}\" under [{check}.token]");
        let message = format!("{name} is set, but velox.toml does not use it");
        Some(Diagnosis { remedy: Some(remedy), ..Diagnosis::ok(check, message) })
    }
}

fn format_quota(RateLimit { remaining, limit, reset }: RateLimit) -> String {
    let reset = Timestamp::from_second(reset).map(|at| at.strftime(" until %H:%M UTC").to_string());
    format!("{remaining} of {limit} requests left{}", reset.unwrap_or_default())
}

/// The days until a date such as `2024-07-01` or `2024-07-01 10:00:00 UTC`.
fn days_until(expires: &str) -> Option<i64> {
    let date: jiff::civil::Date = expires.get(..10)?.parse().ok()?;
    let today = TimeZone::UTC.to_datetime(Timestamp::try_from(SystemTime::now()).ok()?).date();
    Some(i64::from(today.until(date).ok()?.get_days()))
}

pub(super) async fn ssh(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let has_private_hosts = context.go.is_some_and(|go| !go.private_hosts.is_empty());
    let keys = match context.variable("SSH_AUTH_SOCK") {
        Some(socket) => Some(ssh_agent_key_count(Path::new(socket)).await),
        None => None,
    };
    vec![match keys {
        None if has_private_hosts => Diagnosis::warning(
            "ssh",
            "no ssh-agent is running",
            "start one and run `ssh-add`: hosts of GOPRIVATE without a token are reached over ssh",
        ),
        None => Diagnosis::ok("ssh", "no ssh-agent is running (only private hosts need it)"),
        Some(None) => Diagnosis::warning(
            "ssh",
            "SSH_AUTH_SOCK is set, but no ssh-agent responds",
            "start one: `eval $(ssh-agent)`, then `ssh-add`",
        ),
        Some(Some(0)) => Diagnosis::warning("ssh", "the ssh-agent has no keys", "add a key with `ssh-add`"),
        Some(Some(1)) => Diagnosis::ok("ssh", "the ssh-agent has 1 key"),
        Some(Some(keys)) => Diagnosis::ok("ssh", format!("the ssh-agent has {keys} keys")),
    }]
}

/// Checks git access to the hosts in GOPRIVATE.
pub(super) async fn private_hosts(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(go) = context.go.filter(|go| !go.private_hosts.is_empty()) else { return Vec::new() };
    let hosts = &go.private_hosts;
    let Some(git) = context.git else {
        let hosts = hosts.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("git is not installed, but GOPRIVATE covers {hosts}");
        return vec![Diagnosis::error("private", message, "install git")];
    };
    let mut diagnoses = Vec::new();
    for host in hosts {
        // A configured repository also checks permissions.
        let module = context.request.manifest.plugins.iter().find_map(|plugin| match &plugin.origin {
            Origin::Module(path) if path.value.starts_with(&format!("{host}/")) => Some(&path.value),
            _ => None,
        });
        let path = match module {
            Some(module) => module.split('/').take(3).collect::<Vec<_>>().join("/"),
            None => format!("{host}/vx-doctor/no-such-repository"),
        };
        let arguments = ["ls-remote", "--heads", &format!("https://{path}")];
        diagnoses.push(match context.environment.run_git(git, &arguments).await {
            Ok(output) if output.status.success() => Diagnosis::ok("private", format!("git can read {path}")),
            Ok(output) => git_failure(host, module.map(String::as_str), &output.stderr),
            Err(error) => Diagnosis::of_error("private", &error),
        });
    }
    diagnoses
}

/// Classifies a git failure by its output, which `LC_ALL=C` keeps stable: git has no exit codes for it.
fn git_failure(host: &str, module: Option<&str>, lines: &[String]) -> Diagnosis {
    const UNREACHABLE: [&str; 7] = [
        "Could not resolve",
        "Failed to connect",
        "Connection refused",
        "timed out",
        "No route to host",
        "Could not connect",
        "certificate",
    ];
    const DENIED: [&str; 6] = [
        "Permission denied (publickey",
        "Authentication failed",
        "could not read Username",
        "terminal prompts disabled",
        "returned error: 401",
        "returned error: 403",
    ];
    let text = lines.join("\n");
    let has_any = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    let last = lines.iter().rev().find(|line| line.contains("fatal:") || line.contains("ERROR"));
    let why = last.or(lines.last()).map_or("no reason", |line| line.trim_start_matches("fatal: ").trim());
    if has_any(&UNREACHABLE) {
        let message = format!("git failed to reach {host}: {why}");
        return Diagnosis::error("private", message, "check the network, the VPN and HTTPS_PROXY");
    }
    if text.contains("Host key verification failed") {
        let message = format!("unknown ssh host key of {host}");
        return Diagnosis::error("private", message, format!("connect once by hand: `ssh git@{host}`"));
    }
    let is_denied = has_any(&DENIED);
    let message = format!("{host} requires credentials: {why}");
    let remedy =
        "set a token in velox.toml, add a key to the ssh-agent, or configure a git credential helper";
    match module {
        Some(_) if is_denied => Diagnosis::error("private", message, remedy),
        None if is_denied => Diagnosis::warning("private", message, remedy),
        Some(module) => Diagnosis::error(
            "private",
            format!("git failed to read {module}: {why}"),
            "check that the repository exists and that this user may read it",
        ),
        None => Diagnosis::ok("private", format!("git can reach {host}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Health;

    #[test]
    fn git_failures_are_classified() {
        let state =
            |module: Option<&str>, line: &str| git_failure("git.test", module, &[line.to_owned()]).state;
        let nothing = "fatal: unable to access 'https://git.test/': Could not resolve host: git.test";
        assert_eq!(state(None, nothing), Health::Error);
        let prompt = "fatal: could not read Username for 'https://git.test': terminal prompts disabled";
        assert_eq!(state(None, prompt), Health::Warning);
        assert_eq!(state(Some("git.test/a/b"), prompt), Health::Error);
        let missing = "fatal: repository 'https://git.test/a/b/' not found";
        assert_eq!(state(None, missing), Health::Ok);
        assert_eq!(state(Some("git.test/a/b"), missing), Health::Error);
        assert_eq!(state(None, "Host key verification failed."), Health::Error);
    }

    #[test]
    fn the_days_until_a_token_expires_are_counted() {
        assert!(days_until("2020-01-01 00:00:00 UTC").unwrap() < 0);
        assert!(days_until("2999-01-01").unwrap() > TOKEN_EXPIRY_WARNING_DAYS);
        assert_eq!(days_until("soon"), None);
    }
}
