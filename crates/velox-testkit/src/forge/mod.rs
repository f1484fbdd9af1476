//! One listener that is GitHub, GitLab and a git host at once, over [`Repo`]s.

mod answer;
mod faults;
mod git_view;
mod github;
mod gitlab;
mod go_get;
mod smart_http;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

pub use faults::{Fault, FaultRule};

use crate::{Repo, localhost};
use answer::{ForgeRequest, ForgeResponse};

/// A forge on localhost: GitHub's REST API, GitLab's REST API and git's smart HTTP protocol over [`Repo`]s.
///
/// Through its own port it is an Enterprise Server ([`github_url`](Forge::github_url)) and a GitLab below a sub-path
/// ([`gitlab_url`](Forge::gitlab_url)). With [`Internet`](crate::Internet) before it, it is github.com and gitlab.com.
///
/// ```
/// # use velox_testkit::Forge;
/// let forge = Forge::start();
/// let repo = forge.github("acme/plugin").file("go.mod", "module github.com/acme/plugin\n").commit("first");
/// let clone = format!("{}/acme/plugin.git", forge.github_url());
/// assert_eq!(repo.url(), clone);
/// ```
pub struct TestForge {
    pub(crate) shared: Arc<ForgeServer>,
    runtime: Option<tokio::runtime::Runtime>,
}

pub(crate) struct ForgeServer {
    pub(crate) address: SocketAddr,
    state: Mutex<ForgeState>,
    faults: faults::FaultRules,
}

#[derive(Default)]
struct ForgeState {
    repos: Vec<HostedRepo>,
    gitlab_names: Vec<String>,
    github_tokens: Vec<String>,
    gitlab_tokens: Vec<String>,
    /// What tokens may do, and when they end.
    facts: HashMap<String, (Vec<String>, Option<String>)>,
    requests: Vec<RecordedRequest>,
    rates: github::RateLimits,
}

#[derive(Clone)]
struct HostedRepo {
    kind: ForgeKind,
    path: String,
    id: u64,
    repo: Repo,
}

/// Which forge a host name, or a part of the localhost port, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForgeKind {
    GitHub,
    GitLab,
}

/// A request that the forge (or the [`Internet`](crate::Internet) before it) was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// `GET`, `HEAD`, `POST`; `CONNECT` for a host that the Internet tunnels or refuses.
    pub method: String,
    /// The host's name without a port: `127.0.0.1`, or what the client believes that it talks to.
    pub host: String,
    /// The path as it was sent, without the query.
    pub path: String,
    /// What follows the `?`; empty without one.
    pub query: String,
    /// There was a credential in a header, of whatever kind and whether it was right or not.
    pub had_token: bool,
    /// The `User-Agent` header; empty without one.
    pub user_agent: String,
}

impl RecordedRequest {
    pub(crate) fn connect(host: &str) -> Self {
        Self {
            method: "CONNECT".to_owned(),
            host: host.to_owned(),
            path: String::new(),
            query: String::new(),
            had_token: false,
            user_agent: String::new(),
        }
    }
}

impl TestForge {
    /// Starts a forge without repositories on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let (runtime, listener) = localhost::listen();
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared =
            Arc::new(ForgeServer { address, state: Mutex::default(), faults: faults::FaultRules::default() });
        let server = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(Arc::clone(&server), stream, None));
            }
        });
        Self { shared, runtime: Some(runtime) }
    }

    /// A new, empty GitHub repository `owner/name`.
    pub fn github(&self, path: &str) -> Repo {
        let repo = Repo::new();
        self.host_github(path, &repo);
        repo
    }

    /// A new, empty GitLab project `group/…/project`.
    pub fn gitlab(&self, path: &str) -> Repo {
        let repo = Repo::new();
        self.host_gitlab(path, &repo);
        repo
    }

    /// Shows a repository that exists already as the GitHub repository `owner/name`.
    pub fn host_github(&self, path: &str, repo: &Repo) {
        repo.set_address(format!("{}/{path}.git", self.github_url()));
        self.shared.host(ForgeKind::GitHub, path, repo);
    }

    /// Shows a repository that exists already as the GitLab project `group/…/project`.
    pub fn host_gitlab(&self, path: &str, repo: &Repo) {
        repo.set_address(format!("{}/{path}.git", self.gitlab_url()));
        self.shared.host(ForgeKind::GitLab, path, repo);
    }

    /// The base URL as that of a GitHub Enterprise Server, whose REST API is below `/api/v3`.
    pub fn github_url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The base URL as that of a self-hosted GitLab below a sub-path, whose REST API is below `/gitlab/api/v4`.
    pub fn gitlab_url(&self) -> String {
        format!("http://{}{}", self.shared.address, gitlab::SUB_PATH)
    }

    /// Makes `token` one of a GitHub user who sees the public repositories only.
    /// ([`Repo::token`] makes one that sees that repository too.)
    pub fn github_token(&self, token: &str) {
        self.shared.state().github_tokens.push(token.to_owned());
    }

    /// Says of a token of either forge what it may do and when it ends (`2024-07-01`): scopes as the forge names them. A
    /// GitHub token without this is a fine-grained one, which GitHub says nothing of.
    pub fn token_facts(&self, token: &str, scopes: &[&str], expires: Option<&str>) {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.shared.state().facts.insert(token.to_owned(), (scopes, expires.map(str::to_owned)));
    }

    /// Makes `token` one of a GitLab user who sees the public projects only.
    pub fn gitlab_token(&self, token: &str) {
        self.shared.state().gitlab_tokens.push(token.to_owned());
    }

    /// How many GitHub API requests an hour are allowed without a token and with one; 60 and 5000 at first, as at
    /// [github.com](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
    pub fn github_rate_limits(&self, anonymous: u64, with_token: u64) {
        self.shared.state().rates.set_limits(anonymous, with_token);
    }

    /// Makes requests fail: all of them, until the rule that this gives narrows it down.
    pub fn fault(&self, fault: Fault) -> FaultRule {
        self.shared.faults.add(fault)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// What was asked since the start or the last [`clear_requests`](Forge::clear_requests), in order.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().requests.clone()
    }

    /// Forgets what was asked.
    pub fn clear_requests(&self) {
        self.shared.state().requests.clear();
    }
}

impl Drop for TestForge {
    fn drop(&mut self) {
        localhost::stop(self.runtime.take());
        // An Internet may still hold the rest; the directories go now.
        let repos = std::mem::take(&mut self.shared.state().repos);
        drop(repos);
    }
}

impl std::fmt::Debug for TestForge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forge").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

/// Answers the requests of one connection. `name` is the host that the client's TLS believes in.
pub(crate) async fn serve<S>(shared: Arc<ForgeServer>, stream: S, name: Option<String>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (shared, name) = (Arc::clone(&shared), name.clone());
        async move { respond(&shared, request, name).await }
    });
    // A client that hangs up is its own affair.
    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

const LARGEST_REQUEST: usize = 16 << 20;

async fn respond(
    shared: &Arc<ForgeServer>,
    request: hyper::Request<Incoming>,
    name: Option<String>,
) -> Result<hyper::Response<answer::ResponseBody>, answer::ConnectionCut> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(ForgeResponse::text(413, "too large a request").finish(&parts.method)),
    };
    let asked = ForgeRequest::new(parts, body, name, shared.address);
    shared.record(RecordedRequest {
        method: asked.method.to_string(),
        host: asked.host.clone(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        had_token: asked.had_token(),
        user_agent: asked.header("user-agent").unwrap_or_default().to_owned(),
    });
    let method = asked.method.clone();
    let fault = shared.faults.take(&asked);
    if let Some(answer) = fault.as_ref().and_then(|fault| faults::instead(fault, &asked)) {
        return Ok(answer.finish(&method));
    }
    let worker = Arc::clone(shared);
    // The git program is asked, which blocks.
    let answer = tokio::task::spawn_blocking(move || route(&worker, &asked))
        .await
        .unwrap_or_else(|error| ForgeResponse::text(500, &format!("the test forge itself failed: {error}")));
    match fault {
        Some(fault) => faults::spoil(&fault, answer, &method),
        None => Ok(answer.finish(&method)),
    }
}

fn route(shared: &ForgeServer, asked: &ForgeRequest) -> ForgeResponse {
    let path = asked.path.as_str();
    match asked.host.as_str() {
        "api.github.com" => github::rest(shared, asked, path),
        "codeload.github.com" => github::codeload(shared, asked, path),
        host if shared.is_gitlab(host) => gitlab_host(shared, asked, path),
        _ => {
            if let Some(rest) = below(path, gitlab::SUB_PATH) {
                gitlab_host(shared, asked, rest)
            } else if let Some(rest) = below(path, "/api/v3") {
                github::rest(shared, asked, rest)
            } else if let Some(rest) = below(path, "/codeload") {
                github::codeload(shared, asked, rest)
            } else {
                github_host(shared, asked, path)
            }
        }
    }
}

fn github_host(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    smart_http::answer(shared, asked, ForgeKind::GitHub, path)
        .or_else(|| go_get::answer(shared, asked, ForgeKind::GitHub, path))
        .unwrap_or_else(|| github::web(shared, asked, path))
}

fn gitlab_host(shared: &ForgeServer, asked: &ForgeRequest, path: &str) -> ForgeResponse {
    if let Some(rest) = below(path, "/api/v4") {
        return gitlab::rest(shared, asked, rest);
    }
    smart_http::answer(shared, asked, ForgeKind::GitLab, path)
        .or_else(|| go_get::answer(shared, asked, ForgeKind::GitLab, path))
        .unwrap_or_else(|| gitlab::web(shared, asked, path))
}

fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// Who asks, as far as one repository is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenCheck {
    Anonymous,
    /// A credential that no user of the forge has.
    Stranger,
    Known,
}

impl ForgeServer {
    fn state(&self) -> MutexGuard<'_, ForgeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, request: RecordedRequest) {
        self.state().requests.push(request);
    }

    pub(crate) fn add_gitlab_name(&self, name: &str) {
        self.state().gitlab_names.push(name.to_ascii_lowercase());
    }

    fn is_gitlab(&self, host: &str) -> bool {
        host == "gitlab.com" || self.state().gitlab_names.iter().any(|it| it == host)
    }

    fn host(&self, kind: ForgeKind, path: &str, repo: &Repo) {
        let mut state = self.state();
        assert!(
            !state.repos.iter().any(|it| it.kind == kind && it.path.eq_ignore_ascii_case(path)),
            "{path} is there already"
        );
        let id = 1000 + state.repos.len() as u64;
        state.repos.push(HostedRepo { kind, path: path.to_owned(), id, repo: repo.clone() });
    }

    fn find(&self, kind: ForgeKind, path: &str) -> Option<HostedRepo> {
        // Both forges take a path in whatever case.
        self.state().repos.iter().find(|it| it.kind == kind && it.path.eq_ignore_ascii_case(path)).cloned()
    }

    fn find_by_id(&self, kind: ForgeKind, id: u64) -> Option<HostedRepo> {
        self.state().repos.iter().find(|it| it.kind == kind && it.id() == id).cloned()
    }

    fn caller(&self, kind: ForgeKind, token: Option<&str>) -> TokenCheck {
        let Some(token) = token else { return TokenCheck::Anonymous };
        let state = self.state();
        let users = match kind {
            ForgeKind::GitHub => &state.github_tokens,
            ForgeKind::GitLab => &state.gitlab_tokens,
        };
        let known = users.iter().any(|it| it == token)
            || state.repos.iter().filter(|it| it.kind == kind).any(|it| it.owns(token));
        if known { TokenCheck::Known } else { TokenCheck::Stranger }
    }
}

impl HostedRepo {
    fn id(&self) -> u64 {
        self.repo.access().id.unwrap_or(self.id)
    }

    fn is_private(&self) -> bool {
        self.repo.access().private
    }

    fn owns(&self, token: &str) -> bool {
        self.repo.access().tokens.iter().any(|it| it == token)
    }

    fn visible_to(&self, token: Option<&str>) -> bool {
        !self.is_private() || token.is_some_and(|token| self.owns(token))
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

/// How long a slow body pauses between two pieces, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
