//! Forwards requests of jobs to the operator's module proxies and checksum database.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error as _,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use reqwest::{
    Client, ClientBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{fs::File, sync::OnceCell};
use url::{Host, Url};
use velox_fetch::{
    goenv::GoEnv,
    http::{HttpOptions, ProxySettings, root_cause},
    proxy::{Netrc, ProxyList},
};
use velox_gomod::module::{self, match_prefix_patterns, unescape_path, unescape_version};

use super::address::{PublicResolver, check_ip_literal};

/// The go command's own limit.
const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout for the start of a response, and between two parts of it.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout for a whole response.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(600);
/// The number of timeouts of a host after which a job doesn't request anything else from it.
const MAX_TIMEOUTS: u32 = 2;
/// The maximum length of an upstream's error message that is passed on.
const MAX_ERROR_BODY_BYTES: usize = 1 << 10;
/// The mirror of sum.golang.org in mainland China, built into the go command.
const SUMDB_CHINA_MIRROR: (&str, &str) = ("sum.golang.google.cn", "https://sum.golang.google.cn");

/// A request of the go command: a path of the module proxy protocol
/// (<https://go.dev/ref/mod#goproxy-protocol>) or of a proxied checksum database
/// (<https://go.dev/design/25530-sumdb#proxying-a-checksum-database>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GoProxyRequest {
    Module { path: String, file: String },
    SumDb { name: String, file: String },
}

impl GoProxyRequest {
    /// Parses a path; `None` if it belongs to neither protocol.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("sumdb/") {
            let (name, file) = rest.split_once('/')?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~!@+/".contains(c);
            let is_safe =
                file.chars().all(is_plain) && file.split('/').all(|part| !matches!(part, "" | "." | ".."));
            let is_known = matches!(file, "supported" | "latest")
                || file.starts_with("lookup/")
                || file.starts_with("tile/");
            return (is_safe && is_known)
                .then(|| Self::SumDb { name: name.to_owned(), file: file.to_owned() });
        }
        let (escaped, file) = match text.split_once("/@v/") {
            Some((escaped, "list")) => (escaped, "@v/list".to_owned()),
            Some((escaped, file)) => {
                let (version, kind) = file.rsplit_once('.')?;
                let is_known = matches!(kind, "info" | "mod" | "zip") && unescape_version(version).is_ok();
                is_known.then(|| (escaped, format!("@v/{file}")))?
            }
            None => (text.strip_suffix("/@latest")?, "@latest".to_owned()),
        };
        let path = unescape_path(escaped).ok()?;
        module::check_path(&path).ok()?;
        Some(Self::Module { path, file: format!("{escaped}/{file}") })
    }

    /// The places below GOMODCACHE of a requested module: its zip and the directory that it is unpacked to.
    pub(super) fn cached_module(&self) -> Option<[String; 2]> {
        let Self::Module { file, .. } = self else { return None };
        let (path, version) = file.strip_suffix(".zip")?.split_once("/@v/")?;
        Some([format!("cache/download/{file}"), format!("{path}@{version}")])
    }
}

/// The hosts that didn't respond to requests of a job.
#[derive(Debug, Default)]
pub(super) struct HostTimeouts(Mutex<HashMap<String, u32>>);

impl HostTimeouts {
    /// Whether further requests would only delay the failure of the build.
    fn is_unresponsive(&self, host: &str) -> bool {
        self.lock().get(host).is_some_and(|count| *count >= MAX_TIMEOUTS)
    }

    fn count(&self, host: &str) {
        *self.lock().entry(host.to_owned()).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The response to a [`GoProxyRequest`].
pub(super) enum UpstreamResponse {
    File(File),
    Http(Response),
    /// A status and its message.
    Status(StatusCode, String),
}

impl UpstreamResponse {
    fn not_found(message: impl Into<String>) -> Self {
        Self::Status(StatusCode::NOT_FOUND, message.into())
    }

    fn bad_gateway(error: impl ToString) -> Self {
        Self::Status(StatusCode::BAD_GATEWAY, error.to_string())
    }

    /// Whether the next proxy of the list is tried after this response.
    fn falls_through(&self, after_any_error: bool) -> bool {
        match self {
            Self::Status(StatusCode::NOT_FOUND | StatusCode::GONE, _) => true,
            Self::Status(..) => after_any_error,
            Self::File(_) | Self::Http(_) => false,
        }
    }
}

/// Clients and settings of the operator's upstreams.
pub(super) struct Upstream {
    proxies: ProxyList,
    no_proxy: String,
    sum_db: Option<SumDbSource>,
    netrc: Netrc,
    /// Hosts and ports configured by the operator, which may have private addresses.
    trusted: BTreeSet<(String, u16)>,
    /// Connects to `trusted` hosts.
    trusted_client: Client,
    /// Connects to public addresses only, never through a proxy.
    public_client: Client,
    /// Connects through the operator's proxies only, which resolve host names and have access rules of their own.
    proxied_client: Client,
    /// Which URLs are requested through the operator's proxies (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
    proxy_rules: Matcher,
    /// The operator's HTTPS_PROXY.
    proxy: Option<Url>,
    response_timeout: Duration,
}

struct SumDbSource {
    name: String,
    url: Url,
    /// Whether GOSUMDB contains a URL, which bypasses the module proxies.
    is_direct: bool,
    base: OnceCell<Url>,
}

impl Upstream {
    pub(super) fn new(
        environment: &BTreeMap<String, String>,
        response_timeout: Duration,
    ) -> io::Result<Self> {
        let operator = GoEnv::read(environment, None);
        let proxies = ProxyList::parse(&operator.value("GOPROXY")).map_err(io::Error::other)?;
        let sum_db = SumDbSource::parse(&operator.value("GOSUMDB"))?;
        let urls = proxies.proxies().map(|(url, _)| url).chain(sum_db.as_ref().map(|sum_db| &sum_db.url));
        let trusted = urls.filter_map(host_and_port).collect();
        let netrc = match operator.value("GOAUTH").as_str() {
            "off" => Netrc::default(),
            _ => Netrc::from_environment(environment),
        };
        let options = HttpOptions {
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: response_timeout,
            ..HttpOptions::from_environment(environment)
        };
        let client = |proxy: ProxySettings| {
            let options = HttpOptions { proxy, ..options.clone() };
            options.builder(Policy::none()).map_err(io::Error::other)
        };
        let built = |builder: ClientBuilder| builder.build().map_err(io::Error::other);
        let always_proxied = ProxySettings { no_proxy: None, ..options.proxy.clone() };
        Ok(Self {
            no_proxy: operator.value("GONOPROXY"),
            netrc,
            trusted_client: built(client(options.proxy.clone())?)?,
            public_client: built(client(ProxySettings::default())?.dns_resolver(PublicResolver))?,
            proxied_client: built(client(always_proxied)?)?,
            proxy_rules: proxy_rules(&options.proxy),
            proxy: proxy_url(&options)?,
            trusted,
            proxies,
            sum_db,
            response_timeout,
        })
    }

    pub(super) async fn fetch(&self, request: &GoProxyRequest, timeouts: &HostTimeouts) -> UpstreamResponse {
        match request {
            GoProxyRequest::Module { path, .. } if match_prefix_patterns(&self.no_proxy, path) => {
                UpstreamResponse::not_found("the service's GONOPROXY excludes this module from its proxies")
            }
            GoProxyRequest::Module { file, .. } => self.fetch_from_list(file, timeouts).await,
            GoProxyRequest::SumDb { name, file } => self.fetch_sum_db(name, file, timeouts).await,
        }
    }

    /// Tries the proxies of GOPROXY in order.
    async fn fetch_from_list(&self, file: &str, timeouts: &HostTimeouts) -> UpstreamResponse {
        let mut last = UpstreamResponse::not_found("GOPROXY=off: module downloads are disabled");
        for (proxy, after_any_error) in self.proxies.proxies() {
            last = self.fetch_from(proxy, file, timeouts).await;
            if !last.falls_through(after_any_error) {
                break;
            }
        }
        last
    }

    async fn fetch_sum_db(&self, name: &str, file: &str, timeouts: &HostTimeouts) -> UpstreamResponse {
        let Some(sum_db) = self.sum_db.as_ref().filter(|sum_db| sum_db.name == name) else {
            return UpstreamResponse::not_found(format!("GOSUMDB does not name {name}"));
        };
        let base = match sum_db.base.get_or_try_init(|| self.sum_db_base(sum_db, timeouts)).await {
            Ok(base) => base,
            Err(error) => return error,
        };
        if file == "supported" {
            return UpstreamResponse::Status(StatusCode::OK, String::new());
        }
        self.fetch_from(base, file, timeouts).await
    }

    /// Returns the first module proxy that serves the database, else the URL of the database.
    async fn sum_db_base(
        &self,
        sum_db: &SumDbSource,
        timeouts: &HostTimeouts,
    ) -> Result<Url, UpstreamResponse> {
        for (proxy, after_any_error) in self.proxies.proxies().filter(|_| !sum_db.is_direct) {
            let path = format!("sumdb/{}", sum_db.name);
            match self.fetch_from(proxy, &format!("{path}/supported"), timeouts).await {
                UpstreamResponse::Http(_) | UpstreamResponse::File(_) => {
                    let base = format!("{}/{path}", proxy.as_str().trim_end_matches('/'));
                    return Url::parse(&base).map_err(UpstreamResponse::bad_gateway);
                }
                error if error.falls_through(after_any_error) => {}
                error => return Err(error),
            }
        }
        Ok(sum_db.url.clone())
    }

    async fn fetch_from(&self, base: &Url, file: &str, timeouts: &HostTimeouts) -> UpstreamResponse {
        if base.scheme() == "file" {
            return open_file(base, file).await;
        }
        let host = base.host_str().unwrap_or_default();
        let late = || {
            let message =
                format!("{host} did not respond within {} seconds", self.response_timeout.as_secs());
            UpstreamResponse::Status(StatusCode::GATEWAY_TIMEOUT, message)
        };
        if timeouts.is_unresponsive(host) {
            return late();
        }
        let Ok(url) = Url::parse(&format!("{}/{file}", base.as_str().trim_end_matches('/'))) else {
            return UpstreamResponse::bad_gateway("GOPROXY has an invalid URL");
        };
        match tokio::time::timeout(self.response_timeout, self.get(url)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                timeouts.count(host);
                late()
            }
            Ok(Err(error)) => UpstreamResponse::bad_gateway(error),
            Err(_) => {
                timeouts.count(host);
                late()
            }
        }
    }

    /// Sends the request and follows redirects, checking each host.
    async fn get(&self, mut url: Url) -> io::Result<UpstreamResponse> {
        let origin = host_and_port(&url);
        let credentials = self.credentials(&url)?;
        for _ in 0..=MAX_REDIRECTS {
            let (_, _) = (url.set_username(""), url.set_password(None));
            let host = host_and_port(&url);
            let is_trusted = host.as_ref().is_some_and(|host| self.trusted.contains(host));
            if !is_trusted {
                check_ip_literal(&url)?;
            }
            let client = match is_trusted {
                true => &self.trusted_client,
                false if self.is_proxied(&url) => &self.proxied_client,
                false => &self.public_client,
            };
            let mut request = client.get(url.clone()).timeout(TOTAL_TIMEOUT);
            if let Some((user, password)) = &credentials
                && host == origin
                && url.scheme() == "https"
            {
                request = request.basic_auth(user, Some(password.expose_secret()));
            }
            let response = request.send().await.map_err(|error| match error.is_timeout() {
                true => io::ErrorKind::TimedOut.into(),
                // reqwest's own message contains the URL.
                false => io::Error::other(
                    error.source().map_or_else(|| "the host cannot be reached".to_owned(), root_cause),
                ),
            })?;
            if !response.status().is_redirection() {
                return Ok(check_status(response).await);
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = url.join(location.unwrap_or_default());
            let target = target.map_err(|_| io::Error::other("invalid redirect location"))?;
            match (url.scheme(), target.scheme()) {
                (_, "https") | ("http", "http") => url = target,
                _ => return Err(io::Error::other("redirect from https to an insecure URL")),
            }
        }
        Err(io::Error::other("more than 10 redirects"))
    }

    /// Whether the operator's settings request the URL through a proxy.
    fn is_proxied(&self, url: &Url) -> bool {
        url.as_str().parse().is_ok_and(|uri| self.proxy_rules.intercept(&uri).is_some())
    }

    /// The operator's proxy for tunnels to this host; `None`: connect directly.
    pub(super) fn tunnel_proxy(&self, host: &Host) -> Option<&Url> {
        let url = Url::parse(&format!("https://{host}/")).ok()?;
        self.proxy.as_ref().filter(|_| self.is_proxied(&url))
    }

    /// Returns the credentials from the URL or netrc, like the go command; they are sent over HTTPS only.
    fn credentials(&self, url: &Url) -> io::Result<Option<(String, SecretString)>> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let has_own = !url.username().is_empty() || url.password().is_some();
        if url.scheme() != "https" {
            let message = "GOPROXY has a password, which is not sent over plain HTTP";
            return if has_own { Err(io::Error::other(message)) } else { Ok(None) };
        }
        if has_own {
            return Ok(Some((decode(url.username()), decode(url.password().unwrap_or_default()).into())));
        }
        let machine = &url[url::Position::BeforeHost..url::Position::AfterPort];
        Ok(self.netrc.get(machine).map(|(user, password)| (user.to_owned(), password.clone())))
    }
}

impl SumDbSource {
    /// Parses the value of GOSUMDB; `None` for `off`.
    fn parse(setting: &str) -> io::Result<Option<Self>> {
        if setting == "off" {
            return Ok(None);
        }
        let mut fields = setting.split_ascii_whitespace();
        let (key, url) = match (fields.next().unwrap_or_default(), fields.next()) {
            (key, _) if key == SUMDB_CHINA_MIRROR.0 => ("sum.golang.org", Some(SUMDB_CHINA_MIRROR.1)),
            other => other,
        };
        let name = key.split('+').next().unwrap_or_default();
        let is_direct = url.is_some();
        let url = url.map_or_else(|| format!("https://{name}"), str::to_owned);
        let url = Url::parse(&url).map_err(|_| io::Error::other("GOSUMDB has an invalid URL"))?;
        Ok(Some(Self { name: name.to_owned(), url, is_direct, base: OnceCell::new() }))
    }
}

/// The GOSUMDB of a job: without a URL, so that the job uses this proxy.
pub(super) fn sum_db_of_job(setting: &str) -> String {
    let key = setting.split_ascii_whitespace().next().unwrap_or_default();
    if key == SUMDB_CHINA_MIRROR.0 { "sum.golang.org".to_owned() } else { key.to_owned() }
}

fn host_and_port(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

async fn check_status(mut response: Response) -> UpstreamResponse {
    let status = response.status();
    if status == StatusCode::OK {
        return UpstreamResponse::Http(response);
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_text = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let chunk = if is_text { response.chunk().await.ok().flatten() } else { None };
    let message = chunk.map(|chunk| {
        String::from_utf8_lossy(chunk.get(..MAX_ERROR_BODY_BYTES).unwrap_or(&chunk)).into_owned()
    });
    // Other 2xx statuses are invalid in the protocol.
    let status = if status.is_success() { StatusCode::BAD_GATEWAY } else { status };
    UpstreamResponse::Status(status, message.unwrap_or_default())
}

async fn open_file(base: &Url, file: &str) -> UpstreamResponse {
    let Ok(folder) = base.to_file_path() else {
        return UpstreamResponse::bad_gateway("GOPROXY has a file URL without a local path");
    };
    match File::open(folder.join(file)).await {
        Ok(file) => UpstreamResponse::File(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => UpstreamResponse::not_found("not found"),
        Err(error) => UpstreamResponse::bad_gateway(error),
    }
}

/// The rules of the proxy variables, as reqwest applies them.
fn proxy_rules(settings: &ProxySettings) -> Matcher {
    let mut rules = Matcher::builder();
    if let Some(https) = &settings.https {
        rules = rules.https(https.clone());
    }
    if let Some(http) = &settings.http {
        rules = rules.http(http.clone());
    }
    if let Some(none) = &settings.no_proxy {
        rules = rules.no(none.clone());
    }
    rules.build()
}

fn proxy_url(options: &HttpOptions) -> io::Result<Option<Url>> {
    let Some(text) = &options.proxy.https else { return Ok(None) };
    let text = if text.contains("://") { text.clone() } else { format!("http://{text}") };
    Url::parse(&text).map(Some).map_err(|_| io::Error::other("HTTPS_PROXY is not a URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protocol_paths_are_accepted() {
        for path in [
            "github.com/!acme/x/v2/@v/list",
            "github.com/!acme/x/v2/@v/v2.0.1.info",
            "github.com/!acme/x/@v/master.info",
            "golang.org/toolchain/@v/v0.0.1-go1.26.8.linux-amd64.zip",
            "gopkg.in/yaml.v3/@latest",
            "sumdb/sum.golang.org/supported",
            "sumdb/sum.golang.org/tile/8/0/x001/067.p/123",
            "sumdb/sum.golang.org/lookup/github.com/!acme/x@v1.0.0+incompatible",
        ] {
            assert!(GoProxyRequest::parse(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "../@v/list",
            "github.com/../../etc/passwd/@v/list",
            "github.com/a/@v/../../../../etc/passwd.zip",
            "github.com/a/@v/v1.0.0.exe",
            "github.com/a/@v/",
            "github.com/a",
            "localhost/a/@v/list",
            "github.com/Acme/@v/list",
            "sumdb/sum.golang.org/../../x",
            "sumdb/sum.golang.org/lookup/../x",
            "sumdb/sum.golang.org/other",
            "sumdb/sum.golang.org/lookup/%2e%2e",
            "github.com/a?x=/@v/list",
            "http://other/@v/list",
        ] {
            assert_eq!(GoProxyRequest::parse(path), None, "{path}");
        }
    }

    #[test]
    fn jobs_ask_the_service_for_checksums() {
        for (setting, job) in [
            ("sum.golang.org", "sum.golang.org"),
            ("off", "off"),
            ("sum.acme.dev+a+b https://sums.acme.dev", "sum.acme.dev+a+b"),
            ("sum.golang.google.cn", "sum.golang.org"),
        ] {
            assert_eq!(sum_db_of_job(setting), job);
        }
    }
}
