//! An HTTPS proxy with its own certificate authority that answers for github.com and gitlab.com.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::{
    TestForge,
    authority::TestAuthority,
    forge::{ForgeServer, RecordedRequest},
    localhost::{self, LocalServer, locked},
};

const PUBLIC_NAMES: [&str; 5] =
    ["github.com", "www.github.com", "api.github.com", "codeload.github.com", "gitlab.com"];

/// An HTTPS proxy ([`CONNECT`](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)) on localhost that
/// answers github.com, api.github.com, codeload.github.com and gitlab.com from a [`TestForge`], with
/// certificates of its own test CA. Other hosts are tunnelled unchanged, or refused when
/// [`offline`](Internet::offline).
///
/// Programs use it through [`environment`](Internet::environment), as behind a TLS-inspecting company proxy:
///
/// ```
/// # use velox_testkit::{Internet, TestForge};
/// let forge = TestForge::start();
/// forge.github("acme/plugin").file("README.md", "hello\n").commit("first");
/// let internet = Internet::start(&forge).offline();
/// let status = std::process::Command::new("git")
///     .args(["ls-remote", "--quiet", "https://github.com/acme/plugin"])
///     .envs(internet.environment())
///     .env("GIT_CONFIG_GLOBAL", "/dev/null")
///     .status()?;
/// assert!(status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Internet {
    proxy: Arc<InternetProxy>,
    server: LocalServer,
    dir: TempDir,
}

struct InternetProxy {
    forge: Arc<ForgeServer>,
    authority: TestAuthority,
    state: Mutex<InternetState>,
}

#[derive(Default)]
struct InternetState {
    offline: bool,
    names: Vec<String>,
    acceptors: BTreeMap<String, TlsAcceptor>,
}

impl Internet {
    /// Starts the proxy on a free port of 127.0.0.1.
    pub fn start(forge: &TestForge) -> Self {
        let dir = tempfile::Builder::new().prefix("testkit-ca-").tempdir().expect("a temporary directory");
        let authority = TestAuthority::new().expect("a certificate authority");
        std::fs::write(dir.path().join(CA_FILE), &authority.pem).expect("a file for the test CA");
        let mut bundle = authority.pem.clone();
        bundle.push_str(&system_roots());
        std::fs::write(dir.path().join(BUNDLE_FILE), bundle).expect("a file for all CAs");
        let state =
            InternetState { names: PUBLIC_NAMES.map(str::to_owned).to_vec(), ..InternetState::default() };
        let proxy =
            Arc::new(InternetProxy { forge: Arc::clone(&forge.shared), authority, state: Mutex::new(state) });
        let server = Arc::clone(&proxy);
        let server = localhost::bind().serve(move |stream| Arc::clone(&server).connection(stream));
        Self { proxy, server, dir }
    }

    /// Refuses every host that the forge doesn't serve.
    #[must_use]
    pub fn offline(self) -> Self {
        self.proxy.state().offline = true;
        self
    }

    /// Makes the forge serve another host name, as a GitHub Enterprise Server (REST below `/api/v3`).
    #[must_use]
    pub fn github_at(self, name: &str) -> Self {
        self.proxy.state().names.push(name.to_ascii_lowercase());
        self
    }

    /// The proxy's URL.
    pub fn proxy_url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// A file with the test CA's certificate alone, in PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join(CA_FILE)
    }

    /// The environment variables that make a program use this proxy and trust its CA.
    pub fn environment(&self) -> Vec<(String, String)> {
        let (proxy, bundle) = (self.proxy_url(), self.dir.path().join(BUNDLE_FILE).display().to_string());
        // This overrides the caller's NO_PROXY, which may contain github.com.
        let local = "127.0.0.1,localhost".to_owned();
        [
            ("HTTPS_PROXY", proxy.clone()),
            ("https_proxy", proxy),
            ("NO_PROXY", local.clone()),
            ("no_proxy", local),
            ("SSL_CERT_FILE", bundle.clone()),
            ("GIT_SSL_CAINFO", bundle),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl std::fmt::Debug for Internet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Internet").field("server", &self.server).finish_non_exhaustive()
    }
}

const CA_FILE: &str = "ca.pem";
/// The test CA's certificate and the system's trusted ones.
const BUNDLE_FILE: &str = "bundle.pem";

/// Certificate bundles of Linux distributions and BSDs, the same as
/// [Go's](https://go.dev/src/crypto/x509/root_linux.go).
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

fn system_roots() -> String {
    SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

impl InternetProxy {
    fn state(&self) -> MutexGuard<'_, InternetState> {
        locked(&self.state)
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&self);
            async move { Ok::<_, Infallible>(proxy.connect(request).await) }
        });
        // A disconnected client is not an error.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    }

    async fn connect(self: Arc<Self>, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(authority) =
            request.uri().authority().filter(|_| request.method() == Method::CONNECT).cloned()
        else {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "this proxy supports CONNECT only\n");
        };
        let name = authority.host().to_ascii_lowercase();
        if self.state().names.contains(&name) {
            let Some(acceptor) = self.acceptor(&name) else {
                return refuse(StatusCode::BAD_GATEWAY, "failed to make a certificate for this name\n");
            };
            tokio::spawn(async move {
                if let Ok(stream) = hyper::upgrade::on(request).await
                    && let Ok(stream) = acceptor.accept(TokioIo::new(stream)).await
                {
                    Arc::clone(&self.forge).connection(stream, Some(name)).await;
                }
            });
            return Response::new(Full::default());
        }
        self.forge.record(RecordedRequest {
            method: "CONNECT".to_owned(),
            host: name.clone(),
            path: String::new(),
            query: String::new(),
            had_token: false,
            user_agent: String::new(),
        });
        if self.state().offline {
            return refuse(StatusCode::FORBIDDEN, "the test is offline\n");
        }
        let target = (name, authority.port_u16().unwrap_or(443));
        match TcpStream::connect(target).await {
            Ok(mut upstream) => {
                tokio::spawn(async move {
                    if let Ok(stream) = hyper::upgrade::on(request).await {
                        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(stream), &mut upstream).await;
                    }
                });
                Response::new(Full::default())
            }
            Err(error) => refuse(StatusCode::BAD_GATEWAY, &format!("{error}\n")),
        }
    }

    fn acceptor(&self, name: &str) -> Option<TlsAcceptor> {
        let mut state = self.state();
        if let Some(acceptor) = state.acceptors.get(name) {
            return Some(acceptor.clone());
        }
        let acceptor = TlsAcceptor::from(Arc::new(self.authority.server(name)?));
        state.acceptors.insert(name.to_owned(), acceptor.clone());
        Some(acceptor)
    }
}

fn refuse(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(why.to_owned()));
    *response.status_mut() = status;
    response
}
