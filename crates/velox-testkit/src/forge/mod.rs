//! One listener that is GitHub, GitLab and a git host at once, over [`Repo`]s.

mod git_view;
mod github;
mod gitlab;
mod go_get;
mod smart_http;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    Repo,
    fault::{Fault, FaultRule, FaultRules},
    http::{self, HttpReply, HttpRequest},
    localhost::{self, LocalServer, locked},
};

/// A forge on localhost: GitHub's REST API, GitLab's REST API and git's smart HTTP protocol over [`Repo`]s,
/// as far as vx, the go command and Velox use them.
///
/// Its own port serves GitHub Enterprise Server ([`github_url`](TestForge::github_url)) and GitLab below a
/// path ([`gitlab_url`](TestForge::gitlab_url)); an [`Internet`](crate::Internet) makes it github.com and
/// gitlab.com.
///
/// ```
/// # use velox_testkit::TestForge;
/// let forge = TestForge::start();
/// let repo = forge.github("acme/plugin").file("go.mod", "module github.com/acme/plugin\n").commit("first");
/// let clone = format!("{}/acme/plugin.git", forge.github_url());
/// assert_eq!(repo.url(), clone);
/// ```
pub struct TestForge {
    pub(crate) shared: Arc<ForgeServer>,
    _server: LocalServer,
}

pub(crate) struct ForgeServer {
    pub(crate) address: SocketAddr,
    state: Mutex<ForgeState>,
    faults: FaultRules,
}

#[derive(Default)]
struct ForgeState {
    repos: Vec<HostedRepo>,
    github_tokens: Vec<String>,
    gitlab_tokens: Vec<String>,
    /// Scopes and expiry of tokens.
    facts: HashMap<String, (Vec<String>, Option<String>)>,
    requests: Vec<RecordedRequest>,
    rates: github::GitHubRateLimits,
}

#[derive(Clone)]
struct HostedRepo {
    kind: HostKind,
    path: String,
    id: u64,
    repo: Repo,
}

/// The kind of forge behind a host name or a path of the localhost port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostKind {
    GitHub,
    GitLab,
}

/// A request received by the forge, or by the [`Internet`](crate::Internet) in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// `GET`, `HEAD`, `POST`; `CONNECT` for a host that the Internet tunnels or refuses.
    pub method: String,
    /// The host name without a port: `127.0.0.1`, or the name that the client connected to.
    pub host: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query after the `?`; empty without one.
    pub query: String,
    /// Whether a header had a credential, correct or not.
    pub had_token: bool,
    /// The `User-Agent` header; empty without one.
    pub user_agent: String,
}

impl TestForge {
    /// Starts a forge without repositories on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let bound = localhost::bind();
        let shared = Arc::new(ForgeServer {
            address: bound.address,
            state: Mutex::default(),
            faults: FaultRules::default(),
        });
        let server = Arc::clone(&shared);
        let server = bound.serve(move |stream| Arc::clone(&server).connection(stream, None));
        Self { shared, _server: server }
    }

    /// Creates an empty GitHub repository `owner/name`.
    pub fn github(&self, path: &str) -> Repo {
        let repo = Repo::new();
        self.host_github(path, &repo);
        repo
    }

    /// Creates an empty GitLab project `group/…/project`.
    pub fn gitlab(&self, path: &str) -> Repo {
        let repo = Repo::new();
        self.host_gitlab(path, &repo);
        repo
    }

    /// Publishes an existing repository as the GitHub repository `owner/name`.
    pub fn host_github(&self, path: &str, repo: &Repo) {
        repo.set_address(format!("{}/{path}.git", self.github_url()));
        self.shared.host(HostKind::GitHub, path, repo);
    }

    /// Publishes an existing repository as the GitLab project `group/…/project`.
    pub fn host_gitlab(&self, path: &str, repo: &Repo) {
        repo.set_address(format!("{}/{path}.git", self.gitlab_url()));
        self.shared.host(HostKind::GitLab, path, repo);
    }

    /// The base URL of a GitHub Enterprise Server, whose REST API is below `/api/v3`.
    pub fn github_url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The base URL of a self-hosted GitLab below a sub-path, whose REST API is below `/gitlab/api/v4`.
    pub fn gitlab_url(&self) -> String {
        format!("http://{}{}", self.shared.address, gitlab::SUB_PATH)
    }

    /// Adds a token of a GitHub user who can read public repositories only. ([`Repo::token`] adds one that
    /// can also read that repository.)
    pub fn github_token(&self, token: &str) {
        self.shared.state().github_tokens.push(token.to_owned());
    }

    /// Sets a token's scopes and expiry (`2024-07-01`) on either forge. A GitHub token without them is
    /// fine-grained; GitHub doesn't report its scopes.
    pub fn token_facts(&self, token: &str, scopes: &[&str], expires: Option<&str>) {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.shared.state().facts.insert(token.to_owned(), (scopes, expires.map(str::to_owned)));
    }

    /// Adds a token of a GitLab user who can read public projects only.
    pub fn gitlab_token(&self, token: &str) {
        self.shared.state().gitlab_tokens.push(token.to_owned());
    }

    /// Sets the hourly GitHub API limits without a token and with one; initially 60 and 5000, as at
    /// [github.com](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
    pub fn github_rate_limits(&self, anonymous: u64, with_token: u64) {
        self.shared.state().rates.set_limits(anonymous, with_token);
    }

    /// Makes requests fail: all of them, until the returned rule is narrowed down.
    pub fn fault(&self, fault: Fault) -> FaultRule {
        self.shared.faults.add(fault)
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().requests.clone()
    }
}

impl Drop for TestForge {
    fn drop(&mut self) {
        // An Internet may still hold the state; remove the directories now.
        let repos = std::mem::take(&mut self.shared.state().repos);
        drop(repos);
    }
}

impl std::fmt::Debug for TestForge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestForge").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

fn route(shared: &ForgeServer, request: &HttpRequest) -> HttpReply {
    let path = request.path.as_str();
    match request.host.as_str() {
        "api.github.com" => github::rest(shared, request, path),
        "codeload.github.com" => github::codeload(shared, request, path),
        "gitlab.com" => gitlab_host(shared, request, path),
        _ => {
            if let Some(rest) = below(path, gitlab::SUB_PATH) {
                gitlab_host(shared, request, rest)
            } else if let Some(rest) = below(path, "/api/v3") {
                github::rest(shared, request, rest)
            } else if let Some(rest) = below(path, "/codeload") {
                github::codeload(shared, request, rest)
            } else {
                smart_http::answer(shared, request, HostKind::GitHub, path)
                    .or_else(|| go_get::answer(shared, request, HostKind::GitHub, path))
                    .unwrap_or_else(|| HttpReply::text(404, "Not Found"))
            }
        }
    }
}

fn gitlab_host(shared: &ForgeServer, request: &HttpRequest, path: &str) -> HttpReply {
    if let Some(rest) = below(path, "/api/v4") {
        return gitlab::rest(shared, request, rest);
    }
    smart_http::answer(shared, request, HostKind::GitLab, path)
        .or_else(|| go_get::answer(shared, request, HostKind::GitLab, path))
        .unwrap_or_else(|| HttpReply::text(404, "Not Found"))
}

fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// Validity of a request's credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenCheck {
    Missing,
    /// Not a known token.
    Unknown,
    Valid,
}

impl ForgeServer {
    /// Serves the requests of one connection. `name` is the host name of the client's TLS connection.
    pub(crate) async fn connection<S>(self: Arc<Self>, stream: S, name: Option<String>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let address = self.address;
        http::serve(stream, name, address, Arc::new(move |request: &HttpRequest| self.reply(request))).await;
    }

    fn reply(&self, request: &HttpRequest) -> HttpReply {
        self.record(RecordedRequest {
            method: request.method.to_string(),
            host: request.host.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            had_token: request.had_token(),
            user_agent: request.header("user-agent").unwrap_or_default().to_owned(),
        });
        let path = request.path.as_str();
        let own = below(path, gitlab::SUB_PATH).unwrap_or(path);
        let bare = below(own, "/api/v3").or_else(|| below(own, "/api/v4")).unwrap_or(own);
        match self.faults.take(request, &[path, own, bare]) {
            Some(fault) => fault.apply(request, || route(self, request)),
            None => route(self, request),
        }
    }

    fn state(&self) -> MutexGuard<'_, ForgeState> {
        locked(&self.state)
    }

    pub(crate) fn record(&self, request: RecordedRequest) {
        self.state().requests.push(request);
    }

    fn host(&self, kind: HostKind, path: &str, repo: &Repo) {
        assert!(self.find(kind, path).is_none(), "{path} exists already");
        let mut state = self.state();
        let id = 1000 + state.repos.len() as u64;
        state.repos.push(HostedRepo { kind, path: path.to_owned(), id, repo: repo.clone() });
    }

    /// Paths are case-insensitive on both forges.
    fn find(&self, kind: HostKind, path: &str) -> Option<HostedRepo> {
        self.state().repos.iter().find(|it| it.kind == kind && it.path.eq_ignore_ascii_case(path)).cloned()
    }

    fn find_by_id(&self, kind: HostKind, id: u64) -> Option<HostedRepo> {
        self.state().repos.iter().find(|it| it.kind == kind && it.id() == id).cloned()
    }

    fn check_token(&self, kind: HostKind, token: Option<&str>) -> TokenCheck {
        let Some(token) = token else { return TokenCheck::Missing };
        let state = self.state();
        let users = match kind {
            HostKind::GitHub => &state.github_tokens,
            HostKind::GitLab => &state.gitlab_tokens,
        };
        let known = users.iter().any(|it| it == token)
            || state.repos.iter().any(|it| it.kind == kind && it.has_token(token));
        if known { TokenCheck::Valid } else { TokenCheck::Unknown }
    }
}

impl HostedRepo {
    fn id(&self) -> u64 {
        self.repo.access().id.unwrap_or(self.id)
    }

    fn is_private(&self) -> bool {
        self.repo.access().private
    }

    fn has_token(&self, token: &str) -> bool {
        self.repo.access().tokens.iter().any(|it| it == token)
    }

    fn visible_to(&self, token: Option<&str>) -> bool {
        !self.is_private() || token.is_some_and(|token| self.has_token(token))
    }

    /// The last part of the path.
    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// All but the last part of the path.
    fn owner(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(owner, _)| owner)
    }
}
