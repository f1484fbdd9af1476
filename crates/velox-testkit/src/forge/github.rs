//! GitHub's REST API and codeload, as described at <https://docs.github.com/en/rest>.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{ForgeServer, HostKind, HostedRepo, TokenCheck, git_view};
use crate::{
    fault::{now, rate_limited},
    http::{HttpReply, HttpRequest, decode},
};

const RATE_WINDOW_SECONDS: u64 = 3600;

/// [Rate limits](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api), counted for each token.
pub(super) struct GitHubRateLimits {
    anonymous: u64,
    with_token: u64,
    spent: BTreeMap<Option<String>, RateWindow>,
}

#[derive(Clone, Copy)]
struct RateWindow {
    used: u64,
    reset: u64,
}

impl Default for GitHubRateLimits {
    fn default() -> Self {
        Self { anonymous: 60, with_token: 5000, spent: BTreeMap::new() }
    }
}

impl GitHubRateLimits {
    pub(super) fn set_limits(&mut self, anonymous: u64, with_token: u64) {
        (self.anonymous, self.with_token) = (anonymous, with_token);
    }

    /// Spends `cost` of the limit; returns the limit, the window, and whether the request is allowed.
    fn spend(&mut self, token: Option<String>, cost: u64) -> (u64, RateWindow, bool) {
        let limit = if token.is_some() { self.with_token } else { self.anonymous };
        let fresh = RateWindow { used: 0, reset: now() + RATE_WINDOW_SECONDS };
        let window = self.spent.entry(token).or_insert(fresh);
        if window.reset <= now() {
            *window = fresh;
        }
        let allowed = window.used + cost <= limit;
        if allowed {
            window.used += cost;
        }
        (limit, *window, allowed)
    }
}

fn error(status: u16, message: &str, page: &str) -> HttpReply {
    HttpReply::json(
        status,
        &json!({
            "message": message,
            "documentation_url": format!("https://docs.github.com/rest{page}"),
            "status": status.to_string(),
        }),
    )
}

fn not_found(page: &str) -> HttpReply {
    error(404, "Not Found", page)
}

/// Handles a REST API request; `path` is below the API's base.
pub(super) fn rest(shared: &ForgeServer, request: &HttpRequest, path: &str) -> HttpReply {
    let token = request.authorization();
    if shared.check_token(HostKind::GitHub, token.as_deref()) == TokenCheck::Unknown {
        // https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api#failed-login-limit
        return error(401, "Bad credentials", "");
    }
    let is_limits = path == "/rate_limit";
    let (limit, window, allowed) = shared.state().rates.spend(token.clone(), u64::from(!is_limits));
    if !allowed {
        return rate_limited(limit, window.reset);
    }
    let remaining = limit.saturating_sub(window.used);
    let facts = token.as_ref().and_then(|token| shared.state().facts.get(token).cloned());
    let mut reply = if is_limits {
        // https://docs.github.com/en/rest/rate-limit/rate-limit
        let core =
            json!({"limit": limit, "used": window.used, "remaining": remaining, "reset": window.reset});
        HttpReply::json(200, &json!({"resources": {"core": core, "search": core}, "rate": core}))
    } else {
        call(shared, request, token.as_deref(), path)
    };
    // https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
    if let Some((scopes, expires)) = facts {
        reply = reply.header("x-oauth-scopes", scopes.join(", "));
        if let Some(expires) = expires {
            reply = reply.header("github-authentication-token-expiration", expires);
        }
    }
    reply
        .header("x-ratelimit-limit", limit)
        .header("x-ratelimit-remaining", remaining)
        .header("x-ratelimit-used", window.used)
        .header("x-ratelimit-reset", window.reset)
        .header("x-ratelimit-resource", "core")
}

fn call(shared: &ForgeServer, request: &HttpRequest, token: Option<&str>, path: &str) -> HttpReply {
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let ["repos", owner, name, rest @ ..] = parts.as_slice() else { return not_found("") };
    let found = shared.find(HostKind::GitHub, &format!("{owner}/{name}"));
    let Some(hosted) = found.filter(|it| it.visible_to(token)) else {
        return not_found("/repos/repos#get-a-repository");
    };
    match rest {
        [] => describe(&hosted),
        ["commits", name @ ..] => commit(&hosted, &name.join("/")),
        ["contents", path @ ..] => contents(&hosted, request, &path.join("/")),
        ["tags"] => tags(&hosted, request),
        ["compare", range @ ..] => compare(&hosted, &range.join("/")),
        // https://docs.github.com/en/rest/repos/contents#download-a-repository-archive-tar
        ["tarball", name @ ..] => HttpReply::redirect(&codeload_url(request, &hosted, &name.join("/"))),
        _ => not_found(""),
    }
}

/// <https://docs.github.com/en/rest/repos/repos#get-a-repository>
fn describe(hosted: &HostedRepo) -> HttpReply {
    HttpReply::json(
        200,
        &json!({
            "id": hosted.id(),
            "name": hosted.name(),
            "full_name": hosted.path,
            "private": hosted.is_private(),
            "visibility": if hosted.is_private() { "private" } else { "public" },
            "default_branch": git_view::default_branch(&hosted.repo),
        }),
    )
}

/// <https://docs.github.com/en/rest/commits/commits#get-a-commit>
fn commit(hosted: &HostedRepo, name: &str) -> HttpReply {
    let repo = &hosted.repo;
    match git_view::resolve(repo, name).and_then(|id| git_view::commit(repo, &id)) {
        Some(commit) => {
            HttpReply::json(200, &json!({"sha": commit.id, "commit": {"committer": {"date": commit.date}}}))
        }
        None => error(422, &format!("No commit found for SHA: {name}"), "/commits/commits#get-a-commit"),
    }
}

/// <https://docs.github.com/en/rest/repos/contents#get-repository-content>, in the
/// [raw media type](https://docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api#media-types).
fn contents(hosted: &HostedRepo, request: &HttpRequest, path: &str) -> HttpReply {
    let page = "/repos/contents#get-repository-content";
    let repo = &hosted.repo;
    let name = request.parameter("ref").unwrap_or_else(|| git_view::default_branch(repo));
    let Some(commit) = git_view::resolve(repo, &name) else {
        return error(404, &format!("No commit found for the ref {name}"), page);
    };
    if !request.header("accept").unwrap_or_default().contains(".raw") {
        return error(415, "this forge has contents in the raw media type only", page);
    }
    match repo.read(&commit, path.trim_matches('/')) {
        Some(content) => HttpReply::new(200, "application/vnd.github.raw+json; charset=utf-8", content),
        None => not_found(page),
    }
}

/// <https://docs.github.com/en/rest/repos/repos#list-repository-tags>
fn tags(hosted: &HostedRepo, request: &HttpRequest) -> HttpReply {
    let tags = git_view::tags(&hosted.repo).into_iter().rev();
    let tags = tags.map(|tag| json!({"name": tag.name, "commit": {"sha": tag.commit}})).collect();
    paged(request, tags)
}

/// <https://docs.github.com/en/rest/commits/commits#compare-two-commits>
fn compare(hosted: &HostedRepo, range: &str) -> HttpReply {
    let page = "/commits/commits#compare-two-commits";
    let repo = &hosted.repo;
    let Some((base, head)) = range.split_once("...") else { return not_found(page) };
    let ends = git_view::resolve(repo, base).zip(git_view::resolve(repo, head));
    let Some((base_id, head_id)) = ends else { return not_found(page) };
    let status = match git_view::merge_base(repo, &base_id, &head_id) {
        None => return error(404, &format!("No common ancestor between {base} and {head}."), page),
        Some(_) if base_id == head_id => "identical",
        Some(common) if common == base_id => "ahead",
        Some(common) if common == head_id => "behind",
        Some(_) => "diverged",
    };
    HttpReply::json(200, &json!({"status": status}))
}

/// <https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api>
fn paged(request: &HttpRequest, all: Vec<Value>) -> HttpReply {
    let number = |name: &str| request.parameter(name).and_then(|text| text.parse::<usize>().ok());
    let size = number("per_page").unwrap_or(30).clamp(1, 100);
    let page = number("page").unwrap_or(1).max(1);
    let last = all.len().div_ceil(size).max(1);
    let shown: Vec<Value> = all.into_iter().skip((page - 1).saturating_mul(size)).take(size).collect();
    let reply = HttpReply::json(200, &shown.into());
    if page >= last {
        return reply;
    }
    let link = |page: usize, relation: &str| {
        format!("<{}{}?per_page={size}&page={page}>; rel=\"{relation}\"", request.origin(), request.path)
    };
    reply.header("link", format!("{}, {}", link(page + 1, "next"), link(last, "last")))
}

/// A token for one private repository at codeload, distinct from the caller's.
fn pass(hosted: &HostedRepo) -> Option<String> {
    let access = hosted.repo.access();
    let token = access.tokens.first().filter(|_| access.private)?;
    let digest = Sha256::digest(format!("codeload {} {token}", hosted.path));
    Some(digest.iter().take(15).map(|byte| format!("{byte:02X}")).collect())
}

fn codeload_url(request: &HttpRequest, hosted: &HostedRepo, name: &str) -> String {
    // Without subdomain isolation an Enterprise Server serves it below a path:
    // https://docs.github.com/en/enterprise-server@latest/admin/configuring-settings/hardening-security-for-your-enterprise/enabling-subdomain-isolation
    let is_github_com = request.host == "github.com" || request.host.ends_with(".github.com");
    let base = if is_github_com {
        "https://codeload.github.com".to_owned()
    } else {
        format!("{}/codeload", request.origin())
    };
    let pass = pass(hosted).map(|pass| format!("?token={pass}")).unwrap_or_default();
    format!("{base}/{}/legacy.tar.gz/{name}{pass}", hosted.path)
}

/// The archive server: `/OWNER/NAME/legacy.tar.gz/REF`.
pub(super) fn codeload(shared: &ForgeServer, request: &HttpRequest, path: &str) -> HttpReply {
    let archive = || {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let [owner, project, format, name @ ..] = parts.as_slice() else { return None };
        let hosted = shared.find(HostKind::GitHub, &format!("{owner}/{project}"))?;
        let passed = request.parameter("token").is_some_and(|given| Some(given) == pass(&hosted));
        if format != "legacy.tar.gz" || !passed && !hosted.visible_to(request.authorization().as_deref()) {
            return None;
        }
        let id = git_view::resolve(&hosted.repo, &name.join("/"))?;
        let root = format!("{}-{}-{}", hosted.owner(), hosted.name(), id.get(..7)?);
        Some(HttpReply::new(200, "application/x-gzip", git_view::archive(&hosted.repo, &id, &root)?))
    };
    archive().unwrap_or_else(|| HttpReply::text(404, "404: Not Found"))
}
