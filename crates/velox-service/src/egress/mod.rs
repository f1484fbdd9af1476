//! The way out: what a job may reach of the network.
//!
//! ```text
//!   job ── GOPROXY ──► /SECRET/mod/…   a module proxy: the operator's own are asked on the job's behalf
//!       ── HTTPS_PROXY ──► CONNECT     a tunnel to the hosts of modules that may come from their version control
//! ```
//!
//! One listener on the loopback device serves all jobs of a service; each has a secret of its own, which ends with it.
//! What the operator's settings name may be anywhere; all else that an answer leads to has to be public, and is connected
//! to by the very address that was looked at. What is downloaded is counted.

pub(crate) mod address;
mod tunnel;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
use prometheus_client::metrics::counter::Counter;
use tokio_util::{io::ReaderStream, sync::CancellationToken};
use velox_fetch::goenv::GoEnv;

use self::upstream::{Asked, Found, Upstream};
use crate::Policy;

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Content = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Serves the jobs of a service.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
    /// Of the modules that may come from their version control.
    direct: Vec<String>,
    database: String,
}

struct Shared {
    upstream: Upstream,
    /// By their secrets.
    accounts: Mutex<HashMap<String, Arc<Account>>>,
    /// The hosts that tunnels may lead to.
    tunnels: Vec<String>,
    /// What all jobs have downloaded.
    downloaded: Counter,
}

/// What a job has downloaded, and may.
struct Account {
    downloaded: AtomicU64,
    by_all: Counter,
    limit: u64,
    /// It has more than it may.
    spent: CancellationToken,
    /// The job is over.
    over: CancellationToken,
    /// Where it wanted to get and may not, a sentence each.
    refused: Mutex<BTreeSet<String>>,
}

/// A job's way out, as long as it is held.
pub(crate) struct Pass {
    secret: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    account: Arc<Account>,
}

impl Relay {
    /// Listens for the jobs of a service with this environment, and counts what they download; to be called inside a tokio
    /// runtime.
    pub(crate) fn start(
        environment: &BTreeMap<String, String>,
        policy: &Policy,
        downloaded: Counter,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Upstream::new(environment)?,
            accounts: Mutex::default(),
            tunnels: tunnel::hosts(&policy.direct),
            downloaded,
        });
        let database = upstream::database_of_job(&GoEnv::read(environment, None).value("GOSUMDB"));
        let server = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, server, direct: policy.direct.clone(), database })
    }

    /// A way out for one job, which may download so many bytes.
    pub(crate) fn open(&self, limit: u64) -> Pass {
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let [spent, over] = [(); 2].map(|()| CancellationToken::new());
        let (downloaded, by_all) = (AtomicU64::new(0), self.shared.downloaded.clone());
        let refused = Mutex::default();
        let account = Arc::new(Account { downloaded, by_all, limit, spent, over, refused });
        self.shared.accounts().insert(secret.clone(), Arc::clone(&account));
        Pass { secret, address: self.address, shared: Arc::clone(&self.shared), account }
    }

    /// What the job's environment says of its way out.
    pub(crate) fn environment(&self, pass: &Pass) -> Vec<(&'static str, String)> {
        let tunnel = format!("http://job:{}@{}", pass.secret, self.address);
        let by_git = self.direct.iter().map(|pattern| format!("{pattern}:git,"));
        vec![
            ("GOPROXY", pass.proxy()),
            ("GOSUMDB", self.database.clone()),
            ("GONOPROXY", if self.direct.is_empty() { "none".to_owned() } else { self.direct.join(",") }),
            ("GOVCS", by_git.collect::<String>() + "*:off"),
            ("HTTPS_PROXY", tunnel.clone()),
            ("https_proxy", tunnel),
        ]
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Pass {
    /// The port that the job may connect to.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends when the job has downloaded more than it may.
    pub(crate) async fn spent(&self) {
        self.account.spent.cancelled().await;
    }

    /// Where the job wanted to get so far and may not, a sentence each.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.account.refusals().iter().cloned().collect()
    }

    /// A text for people, in which the way out is called what it stands for.
    pub(crate) fn hidden(&self, text: &str) -> String {
        let text = text.replace(&self.proxy(), "GOPROXY").replace(&self.address.to_string(), "GOPROXY");
        text.replace(&self.secret, "")
    }

    fn proxy(&self) -> String {
        format!("http://{}/{}/mod", self.address, self.secret)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.shared.accounts().remove(&self.secret);
        self.account.over.cancel();
    }
}

impl Account {
    fn refusals(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what arrived.
    fn take(&self, bytes: usize) -> io::Result<()> {
        self.by_all.inc_by(bytes as u64);
        let sum = self.downloaded.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if sum > self.limit {
            self.spent.cancel();
            return Err(io::Error::other("the build may not download any more"));
        }
        Ok(())
    }
}

impl Shared {
    fn accounts(&self) -> MutexGuard<'_, HashMap<String, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account(&self, secret: &str) -> Option<Arc<Account>> {
        self.accounts().get(secret).cloned()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return tunnel::open(&self, request).await;
        }
        // A whole address is for other hosts: nothing but tunnels leads there.
        if request.uri().authority().is_some() {
            return refusal(StatusCode::FORBIDDEN, "a build reaches nothing over plain HTTP");
        }
        if request.method() != Method::GET {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "a module proxy is only read");
        }
        let path = request.uri().path().trim_start_matches('/');
        let asked = path.split_once("/mod/").and_then(|(secret, rest)| Some((self.account(secret)?, rest)));
        let Some((account, rest)) = asked else {
            return refusal(StatusCode::FORBIDDEN, "no build has this address");
        };
        let Some(asked) = Asked::parse(rest).filter(|_| request.uri().query().is_none()) else {
            return refusal(StatusCode::NOT_FOUND, "not found: no path of a module proxy");
        };
        match self.upstream.fetch(&asked).await {
            Found::Nothing(status, words) => refusal(status, &words),
            Found::File(file) => content(Box::pin(ReaderStream::new(file)), account),
            Found::Response(response) => {
                let stream =
                    response.bytes_stream().map_err(|_| io::Error::other("the proxy's answer breaks off"));
                content(Box::pin(stream), account)
            }
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files: others are closed meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = Arc::clone(&shared).answer(request);
                async { Ok::<_, std::convert::Infallible>(answer.await) }
            });
            // A job that goes away is no concern of the relay's.
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

fn content(stream: Content, account: Arc<Account>) -> Response<Body> {
    let counted = stream.map(move |chunk| {
        let chunk = chunk?;
        account.take(chunk.len())?;
        Ok(Frame::data(chunk))
    });
    Response::new(StreamBody::new(counted).boxed_unsync())
}

fn refusal(status: StatusCode, words: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(words.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Says what it is told to, once for each connection, and counts these.
    async fn server(answer: String) -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (address, asked)
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }

    fn text(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    }

    fn relay(goproxy: &str, direct: &[&str]) -> Relay {
        let environment: BTreeMap<String, String> =
            [("GOPROXY", goproxy), ("GOENV", "off")].map(|(name, value)| (name.into(), value.into())).into();
        let direct = direct.iter().map(|pattern| (*pattern).to_owned()).collect();
        Relay::start(&environment, &Policy { direct, ..Policy::default() }, Counter::default()).unwrap()
    }

    async fn get(pass: &Pass, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy();
        let client = client.tls_backend_preconfigured(rustls_config()).build().unwrap();
        let answer = async {
            let response = client.get(format!("{}/{path}", pass.proxy())).send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
        };
        answer.await.unwrap_or((0, "breaks off".to_owned()))
    }

    fn rustls_config() -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    }

    const LIST: &str = "example.com/acme/hello/@v/list";

    #[tokio::test]
    async fn what_the_operator_names_is_asked_and_nothing_else_on_this_machine() {
        let (canary, asked) = server(text("secret")).await;
        for to in [
            format!("http://{canary}/"),
            format!("http://localhost:{}/", canary.port()),
            format!("http://127.1:{}/", canary.port()),
            format!("http://[::ffff:127.0.0.1]:{}/", canary.port()),
            format!("http://user:word@{canary}/"),
            "file:///etc/passwd".to_owned(),
        ] {
            let (proxy, _) = server(redirect(&to)).await;
            let relay = relay(&format!("http://{proxy}"), &[]);
            let (status, said) = get(&relay.open(1 << 20), LIST).await;
            assert_eq!(status, 502, "{to}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        let relay = relay(&format!("http://{canary}"), &[]);
        assert_eq!(get(&relay.open(1 << 20), LIST).await, (200, "secret".to_owned()));
        assert_eq!(relay.shared.downloaded.get(), "secret".len() as u64);
    }

    #[tokio::test]
    async fn a_list_is_followed_as_the_go_command_does() {
        let gone = "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        let ill = "HTTP/1.1 500 Ill\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        let (gone, _) = server(gone).await;
        let (ill, _) = server(ill).await;
        let (good, _) = server(text("v1.0.0")).await;
        for (list, status) in [
            (format!("http://{gone},http://{good}"), 200),
            (format!("http://{ill},http://{good}"), 500),
            (format!("http://{ill}|http://{good}"), 200),
            (format!("http://{gone},direct"), 410),
            (format!("http://{gone},off"), 410),
            ("off".to_owned(), 404),
            ("file:///nowhere".to_owned(), 404),
        ] {
            let relay = relay(&list, &[]);
            assert_eq!(get(&relay.open(1 << 20), LIST).await.0, status, "{list}");
        }
    }

    #[tokio::test]
    async fn a_way_out_ends_with_its_job_and_at_its_limit() {
        let (proxy, _) = server(text(&"x".repeat(1000))).await;
        let relay = relay(&format!("http://{proxy}"), &[]);
        let pass = relay.open(1500);
        assert_eq!(get(&pass, LIST).await.0, 200);
        assert_eq!(get(&pass, "../../x").await.0, 403);
        assert_eq!(get(&pass, "etc/passwd").await.0, 404);
        assert_eq!(get(&pass, LIST).await.1, "breaks off");
        pass.spent().await;
        let shown = pass.hidden(&format!("reading {}/x: 404", pass.proxy()));
        assert_eq!(shown, "reading GOPROXY/x: 404");
        let (ended, secret) = (relay.open(1500), pass.secret.clone());
        drop(pass);
        let stolen = Pass {
            secret,
            address: ended.address,
            shared: Arc::clone(&ended.shared),
            account: Arc::clone(&ended.account),
        };
        assert_eq!(get(&stolen, LIST).await.0, 403);
    }

    async fn connect(pass: &Pass, login: Option<&str>, to: &str) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut stream = TcpStream::connect(pass.address).await.unwrap();
        let login = login.map(|login| format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(login)));
        let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n", login.unwrap_or_default());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn tunnels_lead_to_the_hosts_of_allowed_modules_only() {
        let (canary, asked) = server(text("secret")).await;
        let relay = relay("off", &["github.com/acme/*", "localhost.acme.dev", "localhost/*"]);
        let pass = relay.open(1 << 20);
        let login = format!("job:{}", pass.secret);
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
            let said = connect(&pass, login, &to).await;
            assert!(said.contains(status), "{to}: {said}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }
}
