use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::localhost;

/// A database of vulnerabilities on localhost that answers as OSV's does: <https://google.github.io/osv.dev/api/>.
///
/// ```
/// let osv = velox_testkit::Osv::start();
/// osv.vulnerable("example.com/acme/lib", "1.0.0", &serde_json::json!({ "id": "GO-2024-1", "summary": "leaks" }));
/// assert!(osv.url().starts_with("http://127.0.0.1:"));
/// ```
pub struct Osv {
    state: Arc<OsvState>,
    address: SocketAddr,
    // Held for its end.
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct OsvState {
    entries: Mutex<BTreeMap<String, Value>>,
    /// Ids by module and version.
    known: Mutex<BTreeMap<(String, String), Vec<String>>>,
    asked: Mutex<Vec<String>>,
}

impl Osv {
    /// An empty one on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let (runtime, listener) = localhost::listen();
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(OsvState::default());
        let served = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { state, address, _runtime: runtime }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A vulnerability (<https://ossf.github.io/osv-schema/>) of a module at a version, without its `v`.
    pub fn vulnerable(&self, module: &str, version: &str, entry: &Value) -> &Self {
        let id = entry["id"].as_str().expect("an id").to_owned();
        locked(&self.state.entries).insert(id.clone(), entry.clone());
        locked(&self.state.known).entry((module.to_owned(), version.to_owned())).or_default().push(id);
        self
    }

    /// What it was asked about so far, `module version` each.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.state.asked).clone()
    }
}

/// The second vulnerability and those behind it come on a page of their own, so that paging is tried as well.
async fn answer(
    state: Arc<OsvState>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if let Some(id) = path.strip_prefix("/v1/vulns/") {
        let entry = locked(&state.entries).get(id).cloned();
        return Ok(match entry {
            Some(entry) => reply(StatusCode::OK, &entry),
            None => reply(StatusCode::NOT_FOUND, &json!({ "code": 5, "message": "Bug not found." })),
        });
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(queries) = asked["queries"].as_array().filter(|_| path == "/v1/querybatch") else {
        return Ok(reply(StatusCode::BAD_REQUEST, &json!({ "code": 3, "message": "Invalid query." })));
    };
    let results: Vec<Value> = queries
        .iter()
        .map(|query| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (module, version) = (text(&query["package"]["name"]), text(&query["version"]));
            let ids =
                locked(&state.known).get(&(module.clone(), version.clone())).cloned().unwrap_or_default();
            let from: usize = text(&query["page_token"]).parse().unwrap_or(0);
            if from == 0 {
                locked(&state.asked).push(format!("{module} {version}"));
            }
            match ids.get(from) {
                Some(id) if ids.len() > from + 1 => {
                    json!({ "vulns": [{ "id": id }], "next_page_token": (from + 1).to_string() })
                }
                Some(id) => json!({ "vulns": [{ "id": id }] }),
                None => json!({}),
            }
        })
        .collect();
    Ok(reply(StatusCode::OK, &json!({ "results": results })))
}

fn reply(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
