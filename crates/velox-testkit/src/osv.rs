use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    http::{self, HttpReply, HttpRequest},
    localhost::{self, LocalServer, locked},
};

/// A vulnerability database on localhost with OSV's API: <https://google.github.io/osv.dev/api/>.
///
/// ```
/// let osv = velox_testkit::Osv::start();
/// let entry = serde_json::json!({ "id": "GO-2024-1", "summary": "leaks" });
/// osv.vulnerable("example.com/acme/lib", "1.0.0", &entry);
/// assert!(osv.url().starts_with("http://127.0.0.1:"));
/// ```
pub struct Osv {
    state: Arc<OsvState>,
    server: LocalServer,
}

#[derive(Default)]
struct OsvState {
    entries: Mutex<BTreeMap<String, Value>>,
    /// Ids by module and version.
    ids: Mutex<BTreeMap<(String, String), Vec<String>>>,
    queries: Mutex<Vec<String>>,
}

impl Osv {
    /// Starts an empty database on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let (state, bound) = (Arc::new(OsvState::default()), localhost::bind());
        let (served, address) = (Arc::clone(&state), bound.address);
        let server = bound.serve(move |stream| {
            let state = Arc::clone(&served);
            http::serve(stream, None, address, Arc::new(move |request: &HttpRequest| state.reply(request)))
        });
        Self { state, server }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.server.address)
    }

    /// Adds a vulnerability (<https://ossf.github.io/osv-schema/>) of a module at a version, without its `v`.
    pub fn vulnerable(&self, module: &str, version: &str, entry: &Value) -> &Self {
        let id = entry["id"].as_str().expect("an id").to_owned();
        locked(&self.state.entries).insert(id.clone(), entry.clone());
        locked(&self.state.ids).entry((module.to_owned(), version.to_owned())).or_default().push(id);
        self
    }

    /// The queries so far, each as `module version`.
    pub fn queries(&self) -> Vec<String> {
        locked(&self.state.queries).clone()
    }
}

impl OsvState {
    fn reply(&self, request: &HttpRequest) -> HttpReply {
        if let Some(id) = request.path.strip_prefix("/v1/vulns/") {
            return match locked(&self.entries).get(id) {
                Some(entry) => HttpReply::json(200, entry),
                None => HttpReply::json(404, &json!({ "code": 5, "message": "Bug not found." })),
            };
        }
        let batch: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match batch["queries"].as_array().filter(|_| request.path == "/v1/querybatch") {
            Some(queries) => {
                let results: Vec<Value> = queries.iter().map(|query| self.query(query)).collect();
                HttpReply::json(200, &json!({ "results": results }))
            }
            None => HttpReply::json(400, &json!({ "code": 3, "message": "Invalid query." })),
        }
    }

    /// One vulnerability per page, to test paging.
    fn query(&self, query: &Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (module, version) = (text(&query["package"]["name"]), text(&query["version"]));
        let from: usize = text(&query["page_token"]).parse().unwrap_or(0);
        if from == 0 {
            locked(&self.queries).push(format!("{module} {version}"));
        }
        let ids = locked(&self.ids).get(&(module, version)).cloned().unwrap_or_default();
        match ids.get(from) {
            Some(id) if ids.len() > from + 1 => {
                json!({ "vulns": [{ "id": id }], "next_page_token": (from + 1).to_string() })
            }
            Some(id) => json!({ "vulns": [{ "id": id }] }),
            None => json!({}),
        }
    }
}
