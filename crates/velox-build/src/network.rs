//! Network access of a build: tokens, proxies and certificates for HTTP, git and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use url::Url;
use velox_fetch::{
    Redactor,
    download::{DownloadOptions, Fetcher},
    forge::{ForgeClient, GitAccess, GitOptions, TokenKind},
    http::HttpOptions,
    modcache::ModCache,
    proxy::{self, Netrc, ProxyList},
    sumdb::SumDbConfig,
};
use velox_manifest::{Forge, check::can_be_token};

use crate::{
    error::Error,
    event::{Event, Note},
    forges::{ForgeAccess, Forges},
    process::CommandRunner,
    request::BuildRequest,
    toolchain::GoSettings,
};

/// The maximum number of concurrent downloads. The go command uses the number of cores.
const MAX_DOWNLOADS: usize = 24;

/// The child processes, forges and module proxies of a build.
pub(crate) struct Network {
    pub(crate) children: CommandRunner,
    pub(crate) forges: Forges,
    /// `None`: only the go command can download.
    pub(crate) fetcher: Option<Fetcher>,
}

impl Network {
    pub(crate) async fn new(
        request: &BuildRequest,
        settings: &GoSettings,
        scratch: &Path,
        plain: &CommandRunner,
    ) -> Result<Self, Error> {
        let (github, gitlab) = (configured(&request.manifest.github), configured(&request.manifest.gitlab));
        let git = plain.find("git");
        let access = access(request, settings, &github, &gitlab, git.as_deref()).await;
        let secrets = access.environment(&request.environment);
        let tokens: Vec<SecretString> = [&github, &gitlab]
            .into_iter()
            .filter_map(|forge| forge.token.clone())
            .filter(|token| can_be_token(token.expose_secret()))
            .collect();
        let children = CommandRunner {
            secrets: Arc::new(secrets),
            redactor: Arc::new(Redactor::new(tokens)),
            ..plain.clone()
        };
        let reporter = Arc::clone(&plain.reporter);
        let http = ForgeClient::new(HttpOptions::from_environment(&request.environment))
            .map_err(no_https)?
            .on_wait(Arc::new(move |host, seconds| {
                reporter.report(Event::Note(Note::RateLimitWait { host: host.to_owned(), seconds }));
            }));
        let environment = children
            .inherited
            .iter()
            .map(|(name, value)| (name.clone(), SecretString::from(value.clone())))
            .chain(children.secrets.iter().cloned())
            .collect();
        let git = GitOptions {
            program: git.unwrap_or_else(|| PathBuf::from("git")),
            environment,
            scratch: scratch.join("git"),
        };
        let fetcher = fetcher(request, settings)?;
        Ok(Self { children, forges: Forges { http, github, gitlab, git }, fetcher })
    }
}

/// The downloader; `None` if the Go settings need features that only the go command has.
fn fetcher(request: &BuildRequest, settings: &GoSettings) -> Result<Option<Fetcher>, Error> {
    let own_credentials = !matches!(settings.goauth.as_str(), "" | "netrc" | "off");
    let (Ok(proxies), Ok(sum_db)) =
        (ProxyList::parse(&settings.goproxy), SumDbConfig::parse(&settings.gosumdb))
    else {
        // The go command reports the invalid setting.
        return Ok(None);
    };
    if request.options.is_offline() || own_credentials || !proxies.has_proxy() {
        return Ok(None);
    }
    let (client, netrc) = credentials(request, settings)?;
    let first_path = std::env::split_paths(&settings.gopath).next().unwrap_or_default();
    Ok(Some(Fetcher::new(DownloadOptions {
        client,
        cache: ModCache::new(&settings.gomodcache),
        proxies,
        no_proxy: settings.gonoproxy.clone(),
        sum_db,
        no_sum_db: settings.gonosumdb.clone(),
        sum_db_state: first_path.join("pkg/sumdb"),
        netrc,
        writable: settings.writable_modules(),
        max_downloads: MAX_DOWNLOADS,
    })))
}

/// The HTTP client and credentials for module proxies.
pub(crate) fn credentials(
    request: &BuildRequest,
    settings: &GoSettings,
) -> Result<(reqwest::Client, Netrc), Error> {
    let netrc = match settings.goauth.as_str() {
        "off" => Netrc::default(),
        _ => Netrc::from_environment(&request.environment),
    };
    Ok((client(&request.environment)?, netrc))
}

/// A client without credentials that follows redirects.
pub(crate) fn client(environment: &BTreeMap<String, String>) -> Result<reqwest::Client, Error> {
    HttpOptions::from_environment(environment).client(proxy::redirect_policy()).map_err(no_https)
}

/// A client for status requests, with short timeouts and without waiting for rate limits.
pub(crate) fn impatient(request: &BuildRequest) -> Result<ForgeClient, velox_fetch::http::HttpClientError> {
    ForgeClient::new(HttpOptions {
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(15),
        max_wait: Duration::ZERO,
        ..HttpOptions::from_environment(&request.environment)
    })
}

/// An HTTP client with the proxies and certificates of the environment, without redirects.
///
/// # Errors
/// An unreadable certificate file or an invalid proxy URL.
pub fn http_client(environment: &BTreeMap<String, String>) -> Result<reqwest::Client, Error> {
    HttpOptions::from_environment(environment).client(reqwest::redirect::Policy::none()).map_err(no_https)
}

fn no_https(error: velox_fetch::http::HttpClientError) -> Error {
    Error::build(format!("failed to set up HTTPS: {error}"))
}

fn configured(forge: &Forge) -> ForgeAccess {
    let endpoint = forge.endpoint.as_ref().map(|endpoint| endpoint.value.clone());
    ForgeAccess { endpoint, token: forge.token.clone() }
}

/// The access of git: the configured tokens, and ssh for the hosts of GOPRIVATE without a token, if an ssh
/// agent has keys and the user's git configuration does not rewrite their URLs.
async fn access(
    request: &BuildRequest,
    settings: &GoSettings,
    github: &ForgeAccess,
    gitlab: &ForgeAccess,
    git: Option<&Path>,
) -> GitAccess {
    let mut tokens = Vec::new();
    for (forge, public, user) in
        [(github, "https://github.com", TokenKind::GitHub), (gitlab, "https://gitlab.com", TokenKind::GitLab)]
    {
        let host = forge.endpoint.clone().or_else(|| Url::parse(public).ok());
        if let (Some(host), Some(token)) = (host, forge.token.clone()) {
            tokens.push((host, token, user));
        }
    }
    let mut ssh_hosts = Vec::new();
    let socket = request.environment.get("SSH_AUTH_SOCK").map(Path::new);
    if let (Some(git), Some(_)) = (git, socket)
        && velox_fetch::forge::ssh_agent_has_keys(socket).await
    {
        for host in private_hosts(settings) {
            let has_token = tokens.iter().any(|(url, _, _)| url.host_str() == Some(host.as_str()));
            if !has_token && !velox_fetch::forge::has_url_rewrite(git, &request.environment, &host).await {
                ssh_hosts.push(host);
            }
        }
    }
    GitAccess { tokens, ssh_hosts }
}

/// The hosts of GOPRIVATE's and GONOPROXY's patterns (`github.com/company/*` → `github.com`).
pub(crate) fn private_hosts(settings: &GoSettings) -> BTreeSet<String> {
    [&settings.goprivate, &settings.gonoproxy]
        .into_iter()
        .flat_map(|patterns| patterns.split(','))
        .filter_map(|pattern| pattern.trim().split('/').next())
        .filter(|host| host.contains('.') && !host.contains(['*', '?', '[']))
        .map(str::to_owned)
        .collect()
}
