//! What a build asks over the network: module proxies, the checksum database, the forges, private hosts.

use std::path::Path;

use jiff::{Timestamp, tz::TimeZone};
use velox_fetch::{ForgeError, Quota, TokenFacts, ssh_agent_keys};
use velox_gomod::fetch::{ProxyList, SumDb, probe_proxies, probe_sum_db};
use velox_manifest::{Forge, Origin};

use super::{Diagnosis, DoctorContext, Health};

/// A module that every public proxy has; one that hasn't says so, which is an answer as well.
const KNOWN: &str = "github.com/roadrunner-server/errors";
/// Fewer requests than that are soon used up.
const FEW: u64 = 20;
/// A token that ends within so many days is told of.
const SOON: i64 = 7;

pub(super) async fn proxies(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(go) = context.go else { return Vec::new() };
    let list = match ProxyList::parse(&go.proxy) {
        Ok(list) => list,
        Err(error) => {
            let remedy = "mend it: `go env -w GOPROXY=https://proxy.golang.org,direct`";
            return vec![Diagnosis::error("proxy", error.to_string(), remedy)];
        }
    };
    if !list.has_proxy() {
        let value = &go.proxy;
        return vec![match value.as_str() {
            "off" => Diagnosis::error(
                "proxy",
                "GOPROXY=off: no module can be fetched",
                "unset it: `go env -u GOPROXY`, or build with --offline what the caches hold",
            ),
            _ => Diagnosis::warning(
                "proxy",
                "GOPROXY names no proxy: every module is fetched from its own repository, which is slow",
                "`go env -w GOPROXY=https://proxy.golang.org,direct`",
            ),
        }];
    }
    let (client, netrc) = match context.environment.proxy_client() {
        Some(Ok(client)) => client,
        Some(Err(error)) => return vec![super::broken("proxy", &error)],
        None => return Vec::new(),
    };
    let probes = probe_proxies(&client, &list, &netrc, KNOWN).await;
    let last = probes.len().saturating_sub(1);
    let tell = |(index, probe): (usize, velox_gomod::fetch::Probe)| {
        let name = &probe.name;
        let Some(trouble) = probe.trouble else {
            return Diagnosis::ok("proxy", format!("{name} answers"));
        };
        let message = format!("{name} doesn't serve modules: {trouble}");
        let refused = trouble.starts_with("401") || trouble.starts_with("403") || trouble.starts_with("407");
        let remedy = match refused {
            true => format!("credentials for {name} go into ~/.netrc (NETRC names another file)"),
            false if trouble.contains("certificate") => {
                "SSL_CERT_FILE names the certificates to trust, for a company's own authority".to_owned()
            }
            false if trouble.contains("plain HTTP") => format!("name {name} with https:// in GOPROXY"),
            false => "check the network, GOPROXY and HTTPS_PROXY".to_owned(),
        };
        // Behind a comma the next proxy is asked for what isn't found, and not after a failure.
        let goes_on = probe.passed_over && index < last;
        match goes_on {
            true => Diagnosis::warning("proxy", format!("{message}; the next one is asked"), remedy),
            false => Diagnosis::error("proxy", message, remedy),
        }
    };
    probes.into_iter().enumerate().map(tell).collect()
}

pub(super) async fn sum_db(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(go) = context.go else { return Vec::new() };
    let settings = go;
    let database = match SumDb::parse(&settings.sum_db) {
        Ok(Some(database)) => database,
        Ok(None) => {
            return vec![Diagnosis::warning(
                "sumdb",
                "GOSUMDB=off: the first use of a module is trusted, whatever it is",
                "`go env -u GOSUMDB`; GONOSUMDB is enough for private modules",
            )];
        }
        Err(error) => return vec![Diagnosis::error("sumdb", error.to_string(), "`go env -u GOSUMDB`")],
    };
    if settings.no_sum_db == "*" {
        return vec![Diagnosis::warning(
            "sumdb",
            "GONOSUMDB=*: the database is asked about no module, and the first use of each is trusted",
            "name the private ones alone, such as GONOSUMDB=git.example.com",
        )];
    }
    let (Ok(list), Some(Ok((client, netrc)))) =
        (ProxyList::parse(&settings.proxy), context.environment.proxy_client())
    else {
        // The proxies' own check says why.
        return Vec::new();
    };
    match probe_sum_db(&client, &list, &netrc, &database).await {
        Ok(host) => vec![Diagnosis::ok("sumdb", format!("{host} answers"))],
        Err((host, why)) => vec![Diagnosis::error(
            "sumdb",
            format!("the checksum database can't be asked: {host}: {why}"),
            "check the network and HTTPS_PROXY; GOSUMDB names another database",
        )],
    }
}

pub(super) async fn github(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let forge = &context.request.manifest.github;
    let Some(facts) = context.environment.github_token().await else { return Vec::new() };
    let needed = |scopes: &[String]| {
        let reads = scopes.iter().any(|scope| scope == "repo");
        (!reads)
            .then_some("`repo`, or for this a fine-grained token that may read the repositories' contents")
    };
    tell_forge("github", "GitHub", forge, context, facts, needed)
}

pub(super) async fn gitlab(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let manifest = &context.request.manifest;
    let forge = &manifest.gitlab;
    let used = manifest.plugins.iter().any(|plugin| matches!(plugin.origin, Origin::GitLab { .. }));
    if !used && forge.token.is_none() && forge.endpoint.is_none() {
        return Vec::new();
    }
    let Some(facts) = context.environment.gitlab_token().await else { return Vec::new() };
    let needed = |scopes: &[String]| {
        let reads = scopes.iter().any(|scope| matches!(scope.as_str(), "api" | "read_api"));
        (!reads).then_some("`read_api`, and `read_repository` for git")
    };
    tell_forge("gitlab", "GitLab", forge, context, facts, needed)
}

/// What a forge said of itself and of the token.
fn tell_forge(
    check: &'static str,
    name: &str,
    forge: &Forge,
    context: &DoctorContext<'_>,
    facts: Result<TokenFacts, ForgeError>,
    needed: impl Fn(&[String]) -> Option<&'static str>,
) -> Vec<Diagnosis> {
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let remedy = match &error {
                ForgeError::Unauthorized { had_token: true, .. } => {
                    format!("make a new token, and set it under [{check}.token]; has the old one expired?")
                }
                error => error.help().first().cloned().unwrap_or_else(|| "try again later".to_owned()),
            };
            // Public plugins come through the module proxies.
            let needs_it = forge.endpoint.is_some() || forge.token.is_some();
            let message = format!("{name}: {error}");
            return vec![match needs_it {
                true => Diagnosis::error(check, message, remedy),
                false => Diagnosis::warning(check, message, remedy),
            }];
        }
    };
    let TokenFacts { host, scopes, expires, quota } = &facts;
    let mut findings = Vec::new();
    let with = match (&forge.token, scopes) {
        (None, _) => "no token".to_owned(),
        (Some(_), None) => "the token is good".to_owned(),
        (Some(_), Some(scopes)) if scopes.is_empty() => "the token is good, and has no scopes".to_owned(),
        (Some(_), Some(scopes)) => format!("the token is good, with the scopes {}", scopes.join(", ")),
    };
    let left = quota.map(|quota| format!(", {}", told(quota))).unwrap_or_default();
    let message = format!("{host} answers; {with}{left}");
    let missing = scopes.as_deref().filter(|_| forge.token.is_some()).and_then(&needed);
    findings.push(match (missing, quota) {
        (Some(missing), _) => {
            Diagnosis::warning(check, message, format!("private repositories need {missing}"))
        }
        (None, Some(Quota { remaining, .. })) if *remaining < FEW => {
            let remedy = match forge.token {
                Some(_) => "wait for the reset",
                None => "set a token: with one the limit is far higher",
            };
            Diagnosis::warning(check, message, remedy)
        }
        _ => Diagnosis::ok(check, message),
    });
    let days = expires.as_deref().and_then(days_until);
    if let (Some(expires), Some(days)) = (expires, days.filter(|days| *days <= SOON)) {
        let message = format!("the token for {host} ends on {expires}");
        let state = if days < 0 { Health::Error } else { Health::Warning };
        let remedy = Some(format!("make a new one, and set it under [{check}.token]"));
        findings.push(Diagnosis { check, state, message, remedy });
    }
    findings.extend(unused(check, forge, context));
    findings
}

fn told(Quota { remaining, limit, reset }: Quota) -> String {
    let at = Timestamp::from_second(reset).map(|at| at.strftime("%H:%M UTC").to_string());
    let reset = at.map(|at| format!(" until {at}")).unwrap_or_default();
    format!("{remaining} of {limit} requests are left{reset}")
}

/// `2024-07-01`, `2024-07-01 10:00:00 UTC`.
fn days_until(expires: &str) -> Option<i64> {
    let date: jiff::civil::Date = expires.get(..10)?.parse().ok()?;
    let today = TimeZone::UTC.to_datetime(Timestamp::now()).date();
    Some(i64::from(today.until(date).ok()?.get_days()))
}

/// A token that waits in the environment for a configuration to name it.
fn unused(check: &'static str, forge: &Forge, context: &DoctorContext<'_>) -> Option<Diagnosis> {
    let names = match check {
        "github" => ["GITHUB_TOKEN", "GH_TOKEN"],
        _ => ["GITLAB_TOKEN", "CI_JOB_TOKEN"],
    };
    let set = |name: &&str| context.request.environment.get(*name).is_some_and(|value| !value.is_empty());
    let name = names.into_iter().find(set).filter(|_| context.configured && forge.token.is_none())?;
    let message = format!("{name} is set, and velox.toml doesn't use it");
    let remedy = Some(format!("for private plugins: token = \"${{{name}}}\" under [{check}.token]"));
    Some(Diagnosis { check, state: Health::Ok, message, remedy })
}

pub(super) async fn ssh(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let socket = context.request.environment.get("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty());
    let private = context.go.is_some_and(|go| !go.private_hosts.is_empty());
    let hosts = "hosts of GOPRIVATE without a token are reached over ssh";
    match socket {
        None if private => {
            vec![Diagnosis::warning(
                "ssh",
                "no ssh-agent is running",
                format!("{hosts}: start one, and ssh-add"),
            )]
        }
        None => vec![Diagnosis::ok("ssh", "no ssh-agent is running (it is needed for private hosts only)")],
        Some(socket) => vec![match ssh_agent_keys(Path::new(socket)).await {
            None => Diagnosis::warning(
                "ssh",
                "SSH_AUTH_SOCK is set, and no ssh-agent answers there",
                "start one: `eval $(ssh-agent)`, then `ssh-add`",
            ),
            Some(0) => Diagnosis::warning("ssh", "the ssh-agent holds no key", "`ssh-add` gives it yours"),
            Some(1) => Diagnosis::ok("ssh", "the ssh-agent holds one key"),
            Some(keys) => Diagnosis::ok("ssh", format!("the ssh-agent holds {keys} keys")),
        }],
    }
}

/// Whether git reaches the hosts that GOPRIVATE keeps from the proxies.
pub(super) async fn private(context: &DoctorContext<'_>) -> Vec<Diagnosis> {
    let Some(go) = context.go else { return Vec::new() };
    let hosts = &go.private_hosts;
    if hosts.is_empty() {
        return Vec::new();
    }
    let Some(git) = context.git else {
        let message = format!("GOPRIVATE covers {}, and there is no git", join(hosts.iter()));
        return vec![Diagnosis::error("private", message, "install git")];
    };
    let mut findings = Vec::new();
    for host in hosts {
        // A repository that the configuration names tells more than the host itself does.
        let module = context.request.manifest.plugins.iter().find_map(|plugin| match &plugin.origin {
            Origin::Module(path) if path.value.starts_with(&format!("{host}/")) => Some(path.value.clone()),
            _ => None,
        });
        let path = match &module {
            Some(module) => module.split('/').take(3).collect::<Vec<_>>().join("/"),
            None => format!("{host}/vx-doctor/no-such-repository"),
        };
        let url = format!("https://{path}");
        findings.push(match context.environment.run_git(git, &["ls-remote", "--heads", &url]).await {
            Ok(finished) if finished.status.success() => {
                Diagnosis::ok("private", format!("git reads {path}"))
            }
            Ok(finished) => judged(host, module.as_deref(), &finished.stderr),
            Err(error) => super::broken("private", &error),
        });
    }
    findings
}

/// What git's own words mean; these are the same in every version, untranslated.
fn judged(host: &str, module: Option<&str>, lines: &[String]) -> Diagnosis {
    let text = lines.join("\n");
    let says = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
    let last = lines.iter().rev().find(|line| line.contains("fatal:") || line.contains("ERROR"));
    let why = last.or(lines.last()).map_or("no reason", |line| line.trim_start_matches("fatal: ").trim());
    if says(&[
        "Could not resolve",
        "Failed to connect",
        "Connection refused",
        "timed out",
        "No route to host",
        "Could not connect",
        "SSL certificate",
        "certificate",
    ]) {
        let message = format!("git can't reach {host}: {why}");
        return Diagnosis::error("private", message, "check the network, the VPN, HTTPS_PROXY");
    }
    if says(&["Host key verification failed"]) {
        let message = format!("git doesn't know the host key of {host}");
        return Diagnosis::error("private", message, format!("connect once by hand: `ssh git@{host}`"));
    }
    if says(&[
        "Permission denied (publickey",
        "Authentication failed",
        "could not read Username",
        "terminal prompts disabled",
        "returned error: 401",
        "returned error: 403",
    ]) {
        let message = format!("{host} answers git, and wants credentials: {why}");
        let remedy = "set a token in velox.toml, add a key to the ssh-agent, or a credential helper to git";
        return match module {
            Some(_) => Diagnosis::error("private", message, remedy),
            None => Diagnosis::warning("private", message, remedy),
        };
    }
    match module {
        Some(module) => Diagnosis::error(
            "private",
            format!("git can't read {module}: {why}"),
            "does the repository exist, and may this user read it?",
        ),
        None => Diagnosis::ok("private", format!("git reaches {host}")),
    }
}

fn join<'a>(words: impl Iterator<Item = &'a String>) -> String {
    words.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_words_are_understood() {
        let state = |module: Option<&str>, line: &str| judged("git.test", module, &[line.to_owned()]).state;
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
    fn the_days_of_a_token_are_counted() {
        assert!(days_until("2020-01-01 00:00:00 UTC").unwrap() < 0);
        assert!(days_until("2999-01-01").unwrap() > SOON);
        assert_eq!(days_until("soon"), None);
    }
}
