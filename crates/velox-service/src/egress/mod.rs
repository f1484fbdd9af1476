//! The egress proxy, a job's only network access.
//!
//! ```text
//!   job ── GOPROXY ──► /TOKEN/mod/…    module proxy: forwards to the operator's own proxies
//!       ── HTTPS_PROXY ──► CONNECT     tunnel to version control hosts
//! ```
//!
//! One listener on the loopback interface serves all jobs; each job has a token that is revoked when it ends.
//! Hosts in the operator's settings may have private addresses. All other hosts (redirects, tunnels) must
//! resolve to public addresses, and the connection uses the checked address. Downloaded bytes are counted.

pub(crate) mod address;
mod tunnel;
mod upstream;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use prometheus_client::metrics::counter::Counter;
use tokio_util::{io::ReaderStream, sync::CancellationToken};
use velox_fetch::goenv::GoEnv;

use self::upstream::{GoProxyRequest, HostTimeouts, Upstream, UpstreamResponse};
use crate::options::BuildPolicy;

/// The delay before accepting again after an error, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The HTTP proxy that serves the jobs of one service.
pub(crate) struct EgressProxy {
    address: SocketAddr,
    state: Arc<ProxyState>,
    server: tokio::task::JoinHandle<()>,
    /// Patterns of the modules that may be fetched from version control.
    direct: Vec<String>,
    /// The GOSUMDB of jobs.
    sum_db: String,
}

struct ProxyState {
    upstream: Upstream,
    /// The running jobs, by token.
    jobs: Mutex<HashMap<String, Arc<JobTraffic>>>,
    /// The hosts that tunnels may connect to.
    tunnel_hosts: Vec<String>,
    downloaded: Counter,
}

struct JobTraffic {
    downloaded: AtomicU64,
    downloaded_by_all: Counter,
    max_bytes: u64,
    limit_exceeded: CancellationToken,
    job_ended: CancellationToken,
    /// Denied connections, one message each.
    denials: Mutex<BTreeSet<String>>,
    /// The places below GOMODCACHE of the downloaded modules.
    modules: Mutex<BTreeSet<String>>,
    timeouts: HostTimeouts,
}

/// A job's access to the proxy, revoked when dropped.
pub(crate) struct ProxyAccess {
    token: String,
    address: SocketAddr,
    state: Arc<ProxyState>,
    traffic: Arc<JobTraffic>,
}

impl EgressProxy {
    /// Starts the proxy with the service's environment. Must be called inside a tokio runtime.
    pub(crate) fn start(
        environment: &BTreeMap<String, String>,
        policy: &BuildPolicy,
        downloaded: Counter,
    ) -> io::Result<Self> {
        Self::with_timeout(environment, policy, downloaded, upstream::RESPONSE_TIMEOUT)
    }

    fn with_timeout(
        environment: &BTreeMap<String, String>,
        policy: &BuildPolicy,
        downloaded: Counter,
        response_timeout: Duration,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let state = Arc::new(ProxyState {
            upstream: Upstream::new(environment, response_timeout)?,
            jobs: Mutex::default(),
            tunnel_hosts: tunnel::allowed_hosts(&policy.direct),
            downloaded,
        });
        let sum_db = upstream::sum_db_of_job(&GoEnv::read(environment, None).value("GOSUMDB"));
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, state, server, direct: policy.direct.clone(), sum_db })
    }

    /// Grants access to one job, which may download up to `max_bytes`.
    pub(crate) fn grant(&self, max_bytes: u64) -> ProxyAccess {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let traffic = Arc::new(JobTraffic {
            downloaded: AtomicU64::new(0),
            downloaded_by_all: self.state.downloaded.clone(),
            max_bytes,
            limit_exceeded: CancellationToken::new(),
            job_ended: CancellationToken::new(),
            denials: Mutex::default(),
            modules: Mutex::default(),
            timeouts: HostTimeouts::default(),
        });
        self.state.jobs().insert(token.clone(), Arc::clone(&traffic));
        ProxyAccess { token, address: self.address, state: Arc::clone(&self.state), traffic }
    }

    /// The environment variables that make a job use the proxy.
    pub(crate) fn environment(&self, access: &ProxyAccess) -> Vec<(&'static str, String)> {
        let https_proxy = format!("http://job:{}@{}", access.token, self.address);
        let git_only = self.direct.iter().map(|pattern| format!("{pattern}:git,"));
        vec![
            ("GOPROXY", access.go_proxy()),
            ("GOSUMDB", self.sum_db.clone()),
            ("GONOPROXY", if self.direct.is_empty() { "none".to_owned() } else { self.direct.join(",") }),
            ("GOVCS", git_only.collect::<String>() + "*:off"),
            ("HTTPS_PROXY", https_proxy.clone()),
            ("https_proxy", https_proxy),
        ]
    }
}

impl Drop for EgressProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl ProxyAccess {
    /// The port that the job may connect to.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns once the job has exceeded its download limit.
    pub(crate) async fn limit_exceeded(&self) {
        self.traffic.limit_exceeded.cancelled().await;
    }

    /// The denied connections so far, one message each.
    pub(crate) fn denials(&self) -> Vec<String> {
        self.traffic.denials().iter().cloned().collect()
    }

    /// The files and directories below GOMODCACHE that the job's downloads fill.
    pub(crate) fn modules(&self) -> Vec<String> {
        self.traffic.modules.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Replaces the proxy's address and removes its token in a text for users.
    pub(crate) fn redact(&self, text: &str) -> String {
        let text = text.replace(&self.go_proxy(), "GOPROXY").replace(&self.address.to_string(), "GOPROXY");
        text.replace(&self.token, "")
    }

    fn go_proxy(&self) -> String {
        format!("http://{}/{}/mod", self.address, self.token)
    }
}

impl Drop for ProxyAccess {
    fn drop(&mut self) {
        self.state.jobs().remove(&self.token);
        self.traffic.job_ended.cancel();
    }
}

impl JobTraffic {
    fn denials(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        self.downloaded_by_all.inc_by(bytes as u64);
        let sum = self.downloaded.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if sum > self.max_bytes {
            self.limit_exceeded.cancel();
            return Err(io::Error::other("download limit exceeded"));
        }
        Ok(())
    }
}

impl ProxyState {
    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Arc<JobTraffic>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn job(&self, token: &str) -> Option<Arc<JobTraffic>> {
        self.jobs().get(token).cloned()
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return tunnel::open(&self, request).await;
        }
        if request.uri().authority().is_some() {
            return text_response(StatusCode::FORBIDDEN, "plain HTTP is not allowed in builds");
        }
        if request.method() != Method::GET {
            return text_response(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed");
        }
        let path = request.uri().path().trim_start_matches('/');
        let job = path.split_once("/mod/").and_then(|(token, rest)| Some((self.job(token)?, rest)));
        let Some((traffic, rest)) = job else {
            return text_response(StatusCode::FORBIDDEN, "unknown job token");
        };
        let request = decode_path(rest).filter(|_| request.uri().query().is_none());
        let Some(request) = request.as_deref().and_then(GoProxyRequest::parse) else {
            return text_response(StatusCode::NOT_FOUND, "not found: not a module proxy path");
        };
        let response = self.upstream.fetch(&request, &traffic.timeouts).await;
        if let (UpstreamResponse::File(_) | UpstreamResponse::Http(_), Some(places)) =
            (&response, request.cached_module())
        {
            traffic.modules.lock().unwrap_or_else(PoisonError::into_inner).extend(places);
        }
        match response {
            UpstreamResponse::Status(status, message) => text_response(status, &message),
            UpstreamResponse::File(file) => counted_response(ReaderStream::new(file), traffic),
            UpstreamResponse::Http(response) => {
                let stream = response.bytes_stream();
                counted_response(
                    stream.map_err(|_| io::Error::other("the upstream proxy's response ended early")),
                    traffic,
                )
            }
        }
    }
}

/// Decodes the percent escapes of a path once: the go command requests `github.com/%21acme`. `None` for an
/// escaped separator or NUL, a dot segment, or a path that isn't UTF-8.
fn decode_path(path: &str) -> Option<Cow<'_, str>> {
    let decoded = percent_decode_str(path).decode_utf8().ok()?;
    let separators = |text: &str| text.matches(['/', '\\', '\0']).count();
    let is_plain = separators(path) == separators(&decoded)
        && decoded.split('/').all(|segment| !matches!(segment, "." | ".."));
    is_plain.then_some(decoded)
}

async fn serve(listener: tokio::net::TcpListener, state: Arc<ProxyState>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = Arc::clone(&state).handle(request);
                async { Ok::<_, Infallible>(response.await) }
            });
            // A job may close its connection at any time.
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

fn counted_response(
    stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    traffic: Arc<JobTraffic>,
) -> Response<Body> {
    let counted = stream.map(move |chunk| {
        let chunk = chunk?;
        traffic.count(chunk.len())?;
        Ok(Frame::data(chunk))
    });
    Response::new(StreamBody::new(counted).boxed_unsync())
}

fn text_response(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use reqwest::redirect::Policy;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use velox_fetch::http::HttpOptions;

    use super::*;

    /// A server that sends a fixed response and counts its connections.
    async fn server(response: String) -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        (address, connections)
    }

    fn response(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }

    fn egress_proxy(goproxy: &str, direct: &[&str]) -> EgressProxy {
        with_environment(&[("GOPROXY", goproxy)], direct)
    }

    fn with_environment(environment: &[(&str, &str)], direct: &[&str]) -> EgressProxy {
        let environment = environment.iter().chain(&[("GOENV", "off")]);
        let environment: BTreeMap<String, String> =
            environment.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let direct = direct.iter().map(|pattern| (*pattern).to_owned()).collect();
        let policy = BuildPolicy { direct, ..BuildPolicy::default() };
        EgressProxy::with_timeout(&environment, &policy, Counter::default(), Duration::from_secs(2)).unwrap()
    }

    async fn get(access: &ProxyAccess, path: &str) -> (u16, String) {
        let client = HttpOptions::default().client(Policy::none()).unwrap();
        let response = async {
            let response = client.get(format!("{}/{path}", access.go_proxy())).send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
        };
        response.await.unwrap_or((0, "breaks off".to_owned()))
    }

    const LIST: &str = "example.com/acme/hello/@v/list";

    #[tokio::test]
    async fn only_operator_configured_hosts_may_be_private() {
        let (canary, connections) = server(response("200 OK", "", "secret")).await;
        for to in [
            format!("http://{canary}/"),
            format!("http://localhost:{}/", canary.port()),
            format!("http://127.1:{}/", canary.port()),
            format!("http://[::ffff:127.0.0.1]:{}/", canary.port()),
            format!("http://user:word@{canary}/"),
            "file:///etc/passwd".to_owned(),
        ] {
            let (proxy, _) = server(response("302 Found", &format!("Location: {to}\r\n"), "")).await;
            let egress = egress_proxy(&format!("http://{proxy}"), &[]);
            let (status, message) = get(&egress.grant(1 << 20), LIST).await;
            assert_eq!(status, 502, "{to}: {message}");
            assert!(!message.contains("secret"), "{message}");
            let is_refused = message.contains("is not a public address");
            assert!(is_refused || to.starts_with("file:"), "{to}: {message}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 0);
        let egress = egress_proxy(&format!("http://{canary}"), &[]);
        assert_eq!(get(&egress.grant(1 << 20), LIST).await, (200, "secret".to_owned()));
        assert_eq!(egress.state.downloaded.get(), "secret".len() as u64);
    }

    #[tokio::test]
    async fn hosts_without_a_proxy_are_checked_too() {
        let (canary, connections) = server(response("200 OK", "", "secret")).await;
        let (forward, _) = server(response("200 OK", "", "by proxy")).await;
        let forward = format!("http://{forward}");
        for variables in [
            &[("HTTPS_PROXY", forward.as_str()), ("NO_PROXY", "*")][..],
            &[("HTTPS_PROXY", &forward), ("HTTP_PROXY", &forward), ("NO_PROXY", "localhost,127.0.0.1")],
            &[("HTTPS_PROXY", &forward)],
            &[("https_proxy", &forward), ("no_proxy", "127.0.0.0/8,localhost")],
        ] {
            for to in [
                format!("http://localhost:{}/", canary.port()),
                format!("http://a.localhost:{}/", canary.port()),
                format!("http://{canary}/"),
            ] {
                let (proxy, _) = server(response("302 Found", &format!("Location: {to}\r\n"), "")).await;
                let goproxy = format!("http://{proxy}");
                let egress = with_environment(&[variables, &[("GOPROXY", &goproxy)]].concat(), &[]);
                let (status, message) = get(&egress.grant(1 << 20), LIST).await;
                // Another name may be requested through the proxy.
                assert!(status == 502 || message == "by proxy", "{variables:?} {to}: {status} {message}");
            }
        }
        assert_eq!(connections.load(Ordering::SeqCst), 0);
        let (proxy, _) = server(response("302 Found", "Location: http://public.example/\r\n", "")).await;
        let goproxy = format!("http://{proxy}");
        let variables = [("HTTP_PROXY", forward.as_str()), ("NO_PROXY", "127.0.0.1"), ("GOPROXY", &goproxy)];
        let egress = with_environment(&variables, &[]);
        assert_eq!(get(&egress.grant(1 << 20), LIST).await, (200, "by proxy".to_owned()));
    }

    #[tokio::test]
    async fn silent_hosts_are_not_requested_again_and_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                held.push(stream);
            }
        });
        let egress = egress_proxy(&format!("http://{address}"), &[]);
        let access = egress.grant(1 << 20);
        for _ in 0..10 {
            let (status, message) = get(&access, LIST).await;
            assert_eq!(status, 504, "{message}");
            assert!(message.contains("did not respond within 2 seconds"), "{message}");
        }
        assert!(requests.load(Ordering::SeqCst) <= 2, "{requests:?}");
        assert_eq!(get(&egress.grant(1 << 20), LIST).await.0, 504, "another job requests it again");
        assert!(requests.load(Ordering::SeqCst) <= 4, "{requests:?}");
    }

    #[tokio::test]
    async fn proxy_list_fallback_follows_go() {
        let (gone, _) = server(response("410 Gone", "", "")).await;
        let (failing, _) = server(response("500 Internal Server Error", "", "")).await;
        let (good, _) = server(response("200 OK", "", "v1.0.0")).await;
        for (list, status) in [
            (format!("http://{gone},http://{good}"), 200),
            (format!("http://{failing},http://{good}"), 500),
            (format!("http://{failing}|http://{good}"), 200),
            (format!("http://{gone},direct"), 410),
            (format!("http://{gone},off"), 410),
            ("off".to_owned(), 404),
            ("file:///nowhere".to_owned(), 404),
        ] {
            let egress = egress_proxy(&list, &[]);
            assert_eq!(get(&egress.grant(1 << 20), LIST).await.0, status, "{list}");
        }
    }

    #[test]
    fn escapes_are_decoded_once() {
        for (path, decoded) in [
            ("github.com/%21acme/x/@v/list", Some("github.com/!acme/x/@v/list")),
            (
                "github.com/!acme/x/@v/v1.0.0%2Bincompatible.mod",
                Some("github.com/!acme/x/@v/v1.0.0+incompatible.mod"),
            ),
            ("%67ithub.com/a/%40v/list", Some("github.com/a/@v/list")),
            ("github.com/%2521acme", Some("github.com/%21acme")),
            ("github.com/%zz", Some("github.com/%zz")),
            ("github.com%2fa/@v/list", None),
            ("github.com%2Fa/@v/list", None),
            ("github.com/a%5cb/@v/list", None),
            ("github.com/a%00/@v/list", None),
            ("github.com/%2e%2e/a/@v/list", None),
            ("github.com/.%2E/a/@v/list", None),
            ("github.com/%2e/a/@v/list", None),
            ("github.com/../a/@v/list", None),
            ("github.com/%ff/@v/list", None),
        ] {
            assert_eq!(decode_path(path).as_deref(), decoded, "{path}");
        }
        for path in [
            "github.com/%2521acme/x/@v/list",
            "github.com/%zz/@v/list",
            "sumdb/sum.golang.org/lookup/%252e%252e",
        ] {
            assert_eq!(decode_path(path).as_deref().and_then(GoProxyRequest::parse), None, "{path}");
        }
    }

    #[tokio::test]
    async fn access_ends_with_the_job_and_at_the_limit() {
        let (proxy, _) = server(response("200 OK", "", &"x".repeat(1000))).await;
        let egress = egress_proxy(&format!("http://{proxy}"), &[]);
        let access = egress.grant(1500);
        assert_eq!(get(&access, LIST).await.0, 200);
        assert_eq!(get(&access, "../../x").await.0, 403);
        assert_eq!(get(&access, "etc/passwd").await.0, 404);
        assert_eq!(get(&access, LIST).await.1, "breaks off");
        access.limit_exceeded().await;
        let shown = access.redact(&format!("reading {}/x: 404", access.go_proxy()));
        assert_eq!(shown, "reading GOPROXY/x: 404");
        let (ended, token) = (egress.grant(1500), access.token.clone());
        drop(access);
        let revoked = ProxyAccess {
            token,
            address: ended.address,
            state: Arc::clone(&ended.state),
            traffic: Arc::clone(&ended.traffic),
        };
        assert_eq!(get(&revoked, LIST).await.0, 403);
    }

    async fn connect(access: &ProxyAccess, login: Option<&str>, to: &str) -> String {
        use data_encoding::BASE64;
        let mut stream = TcpStream::connect(access.address).await.unwrap();
        let login =
            login.map(|login| format!("Proxy-Authorization: Basic {}\r\n", BASE64.encode(login.as_bytes())));
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", login.unwrap_or_default());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = vec![0; 1024];
        let length = stream.read(&mut response).await.unwrap();
        String::from_utf8_lossy(&response[..length]).lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn tunnels_reach_only_allowed_hosts() {
        let (canary, connections) = server(response("200 OK", "", "secret")).await;
        let egress = egress_proxy("off", &["github.com/acme/*", "localhost.acme.dev", "localhost/*"]);
        let access = egress.grant(1 << 20);
        let login = format!("job:{}", access.token);
        for (login, to, status) in [
            (None, "github.com:443".to_owned(), "407"),
            (Some("job:wrong"), "github.com:443".to_owned(), "407"),
            (Some(login.as_str()), canary.to_string(), "403"),
            (Some(&login), format!("localhost:{}", canary.port()), "403"),
            (Some(&login), "localhost:443".to_owned(), "403"),
            (Some(&login), "github.com:22".to_owned(), "403"),
            (Some(&login), "gitlab.com:443".to_owned(), "403"),
            (Some(&login), "169.254.169.254:443".to_owned(), "403"),
        ] {
            let message = connect(&access, login, &to).await;
            assert!(message.contains(status), "{to}: {message}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 0);
    }
}
