//! A container registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use data_encoding::HEXLOWER;
use hyper::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    fault::{Fault, FaultRule, FaultRules},
    http::{self, Delivery, HttpReply, HttpRequest},
    localhost::{LocalServer, locked},
};

const SERVICE: &str = "testkit-registry";

/// A container registry on localhost, in memory:
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>. It verifies what is pushed.
///
/// ```
/// # use velox_testkit::TestRegistry;
/// let registry = TestRegistry::start();
/// let digest = registry.put_blob("acme/app", b"content");
/// assert_eq!(registry.blob("acme/app", &digest).as_deref(), Some(&b"content"[..]));
/// ```
pub struct TestRegistry {
    state: Arc<RegistryState>,
    server: LocalServer,
    /// Holds the certificate of the authority of a registry over HTTPS.
    ca: Option<(TempDir, PathBuf)>,
}

#[derive(Default)]
struct RegistryState {
    content: Mutex<RegistryContent>,
    faults: FaultRules,
    requests: Mutex<Vec<String>>,
    sent_bytes: AtomicU64,
}

#[derive(Default)]
struct RegistryContent {
    repositories: BTreeMap<String, RegistryImages>,
    uploads: BTreeMap<String, Vec<u8>>,
    login: Option<RegistryLoginRule>,
    /// The scopes of each token.
    tokens: BTreeMap<String, Vec<String>>,
    /// Read-only tags.
    immutable_tags: BTreeSet<String>,
    cut_uploads: Option<(usize, usize)>,
    has_no_referrers: bool,
    counter: usize,
}

#[derive(Default)]
struct RegistryImages {
    blobs: BTreeMap<String, Vec<u8>>,
    /// The media type and the content by digest.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, String>,
}

struct RegistryLoginRule {
    password: String,
    with_tokens: bool,
    public_pull: bool,
}

impl TestRegistry {
    /// Starts an empty registry on a free port of 127.0.0.1, without authentication.
    pub fn start() -> Self {
        let state = Arc::new(RegistryState::default());
        let served = Arc::clone(&state);
        Self { state, server: http::start(move |request| served.reply(request)), ca: None }
    }

    /// Starts an empty registry over HTTPS, with a certificate of the authority [`ca_file`](Self::ca_file).
    #[cfg(feature = "tls")]
    pub fn start_tls() -> Self {
        let state = Arc::new(RegistryState::default());
        let served = Arc::clone(&state);
        let (server, ca) = http::start_tls(move |request| served.reply(request));
        let directory =
            tempfile::Builder::new().prefix("testkit-ca-").tempdir().expect("a temporary directory");
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, ca).expect("a file for the certificate");
        Self { state, server, ca: Some((directory, file)) }
    }

    /// The certificate authority of a registry over HTTPS, a PEM file.
    pub fn ca_file(&self) -> Option<&std::path::Path> {
        self.ca.as_ref().map(|(_, file)| file.as_path())
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    /// Demands this password, with any user name (`Basic`).
    pub fn password(&self, password: &str) -> &Self {
        self.set_login(password, false, false)
    }

    /// Demands tokens, which the registry's own token service gives for this password (`Bearer`). With
    /// `public_pull`, everyone may pull.
    pub fn token_service(&self, password: &str, public_pull: bool) -> &Self {
        self.set_login(password, true, public_pull)
    }

    fn set_login(&self, password: &str, with_tokens: bool, public_pull: bool) -> &Self {
        let rule = RegistryLoginRule { password: password.to_owned(), with_tokens, public_pull };
        self.state.content().login = Some(rule);
        self
    }

    /// Forgets all tokens, as if they had expired.
    pub fn expire_tokens(&self) {
        self.state.content().tokens.clear();
    }

    /// Refuses pushes to this tag.
    pub fn immutable_tag(&self, tag: &str) -> &Self {
        self.state.content().immutable_tags.insert(tag.to_owned());
        self
    }

    /// Turns the referrers API off.
    pub fn without_referrers(&self) -> &Self {
        self.state.content().has_no_referrers = true;
        self
    }

    /// The next `times` uploads of data keep only the first `bytes`, then the connection ends.
    pub fn cut_uploads(&self, bytes: usize, times: usize) -> &Self {
        self.state.content().cut_uploads = Some((bytes, times));
        self
    }

    /// Adds a fault; see [`FaultRule`].
    pub fn fault(&self, fault: Fault) -> FaultRule {
        self.state.faults.add(fault)
    }

    /// All requests so far: `METHOD PATH[?QUERY]`.
    pub fn requests(&self) -> Vec<String> {
        locked(&self.state.requests).clone()
    }

    /// Forgets the recorded requests, and the bytes sent.
    pub fn clear_requests(&self) {
        locked(&self.state.requests).clear();
        self.state.sent_bytes.store(0, Ordering::Relaxed);
    }

    /// The bytes of all bodies sent so far.
    pub fn sent_bytes(&self) -> u64 {
        self.state.sent_bytes.load(Ordering::Relaxed)
    }

    /// Adds a blob and returns its digest.
    pub fn put_blob(&self, repository: &str, content: &[u8]) -> String {
        let digest = digest_of(content);
        self.put_lie(repository, &digest, content);
        digest
    }

    /// Adds a blob with a digest that it doesn't have.
    pub fn put_lie(&self, repository: &str, digest: &str, content: &[u8]) -> &Self {
        self.state.content().images(repository).blobs.insert(digest.to_owned(), content.to_owned());
        self
    }

    /// Adds a manifest with a tag and returns its digest. What it refers to isn't checked.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &[u8]) -> String {
        let digest = digest_of(manifest);
        let mut content = self.state.content();
        let images = content.images(repository);
        images.manifests.insert(digest.clone(), (media_type.to_owned(), manifest.to_owned()));
        images.tags.insert(tag.to_owned(), digest.clone());
        digest
    }

    /// The content of a blob.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        self.state.content().images(repository).blobs.get(digest).cloned()
    }

    /// The manifest of a tag or a digest.
    pub fn manifest(&self, repository: &str, version: &str) -> Option<Value> {
        let mut content = self.state.content();
        let (_, _, bytes) = content.images(repository).manifest(version)?;
        serde_json::from_slice(bytes).ok()
    }

    /// The tags of a repository.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.state.content().images(repository).tags.keys().cloned().collect()
    }
}

impl std::fmt::Debug for TestRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestRegistry").field("server", &self.server).finish_non_exhaustive()
    }
}

impl RegistryImages {
    /// The digest, the media type and the content.
    fn manifest(&self, version: &str) -> Option<(&str, &str, &[u8])> {
        let digest = self.tags.get(version).map_or(version, String::as_str);
        let (digest, (media_type, bytes)) = self.manifests.get_key_value(digest)?;
        Some((digest, media_type, bytes))
    }
}

impl RegistryContent {
    fn images(&mut self, repository: &str) -> &mut RegistryImages {
        self.repositories.entry(repository.to_owned()).or_default()
    }

    fn next(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    /// Whether the request may do this, or the reply that asks for credentials.
    fn authorize(&self, request: &HttpRequest, repository: &str, action: &str) -> Result<(), HttpReply> {
        let Some(rule) = &self.login else { return Ok(()) };
        let sent = request.authorization();
        let (is_allowed, challenge) = if rule.with_tokens {
            let needed = format!("{repository} {action}");
            let granted =
                sent.is_some_and(|token| self.tokens.get(&token).is_some_and(|it| it.contains(&needed)));
            let realm = format!("{}/token", request.origin());
            let scope = if repository.is_empty() {
                String::new()
            } else {
                format!(
                    ",scope=\"repository:{repository}:{}\"",
                    if action == "push" { "pull,push" } else { action }
                )
            };
            (granted, format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}"))
        } else {
            (sent.as_ref() == Some(&rule.password), format!("Basic realm=\"{SERVICE}\""))
        };
        if is_allowed {
            return Ok(());
        }
        let denied = failure(401, "UNAUTHORIZED", "authentication required");
        Err(denied.header("www-authenticate", challenge))
    }

    /// <https://distribution.github.io/distribution/spec/auth/token/>
    fn token(&mut self, request: &HttpRequest) -> HttpReply {
        let Some(rule) = &self.login else { return failure(404, "NOT_FOUND", "no token service") };
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let refresh = form.split('&').find_map(|pair| pair.strip_prefix("refresh_token="));
        let sent = request.authorization().or_else(|| refresh.map(http::decode));
        let is_known = sent.as_ref() == Some(&rule.password);
        if sent.is_some() && !is_known {
            return failure(401, "UNAUTHORIZED", "incorrect username or password");
        }
        let in_form = form.split('&').filter_map(|pair| pair.strip_prefix("scope="));
        let scopes: Vec<String> = request
            .parameters("scope")
            .chain(in_form.map(|it| http::decode(&it.replace('+', " "))))
            .flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let mut granted = Vec::new();
        for scope in &scopes {
            let Some((name, actions)) = scope.strip_prefix("repository:").and_then(|it| it.rsplit_once(':'))
            else {
                return failure(400, "UNSUPPORTED", "invalid scope");
            };
            let actions =
                actions.split(',').filter(|action| is_known || (rule.public_pull && *action == "pull"));
            granted.extend(actions.map(|action| format!("{name} {action}")));
        }
        let token = format!("token-{}", self.next());
        self.tokens.insert(token.clone(), granted);
        HttpReply::json(200, &json!({"token": token, "expires_in": 300}))
    }
}

impl RegistryState {
    fn content(&self) -> MutexGuard<'_, RegistryContent> {
        locked(&self.content)
    }

    fn reply(&self, request: &HttpRequest) -> HttpReply {
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        locked(&self.requests).push(format!("{} {}{query}", request.method, request.path));
        let reply = match self.faults.take(request, &[&request.path]) {
            Some(fault) => fault.apply(request, || self.correct(request)),
            None => self.correct(request),
        };
        self.sent_bytes.fetch_add(reply.body.len() as u64, Ordering::Relaxed);
        reply
    }

    fn correct(&self, request: &HttpRequest) -> HttpReply {
        let mut content = self.content();
        if request.path == "/token" {
            return content.token(request);
        }
        let Some(path) = request.path.strip_prefix("/v2/") else {
            return failure(404, "NOT_FOUND", "no such path");
        };
        let Some((name, kind, rest)) = ["/blobs/uploads/", "/blobs/", "/manifests/"]
            .iter()
            .find_map(|kind| path.split_once(kind).map(|(name, rest)| (name, *kind, rest)))
        else {
            return match content.authorize(request, "", "") {
                Ok(()) if path.is_empty() => HttpReply::json(200, &json!({})),
                Ok(()) => failure(404, "NOT_FOUND", "no such path"),
                Err(denied) => denied,
            };
        };
        let is_read = request.method == Method::GET || request.method == Method::HEAD;
        let action = if is_read && kind != "/blobs/uploads/" { "pull" } else { "push" };
        if let Err(denied) = content.authorize(request, name, action) {
            return denied;
        }
        match (kind, is_read) {
            ("/blobs/uploads/", _) => upload(&mut content, request, name, rest),
            ("/blobs/", true) => match content.images(name).blobs.get(rest) {
                Some(blob) => ranged(request, blob).header("docker-content-digest", rest),
                None => failure(404, "BLOB_UNKNOWN", "blob unknown to registry"),
            },
            ("/manifests/", true) => match content.images(name).manifest(rest) {
                Some((digest, kind, bytes)) => {
                    HttpReply::new(200, kind, bytes).header("docker-content-digest", digest)
                }
                None => failure(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            },
            ("/manifests/", false) if request.method == Method::PUT => {
                put_manifest(&mut content, request, name, rest)
            }
            _ => failure(405, "UNSUPPORTED", "unsupported"),
        }
    }
}

fn upload(content: &mut RegistryContent, request: &HttpRequest, name: &str, id: &str) -> HttpReply {
    let accepted = |id: &str, data: &[u8]| {
        HttpReply::text(202, "")
            .header("location", format!("/v2/{name}/blobs/uploads/{id}?state=x"))
            .header("range", format!("0-{}", data.len().saturating_sub(1)))
    };
    if request.method == Method::POST {
        if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from"))
            && content.authorize(request, &from, "pull").is_ok()
            && let Some(blob) = content.images(&from).blobs.get(&digest).cloned()
        {
            content.images(name).blobs.insert(digest.clone(), blob);
            return HttpReply::text(201, "").header("location", format!("/v2/{name}/blobs/{digest}"));
        }
        let id = format!("upload-{}", content.next());
        content.uploads.insert(id.clone(), Vec::new());
        return accepted(&id, &[]);
    }
    let cut = content.cut_uploads.filter(|(_, times)| *times > 0 && !request.body.is_empty());
    let Some(data) = content.uploads.get_mut(id) else {
        return failure(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    match request.method {
        Method::PATCH => {
            let start =
                request.header("content-range").and_then(|range| range.split_once('-')?.0.parse().ok());
            if start.is_some_and(|start: usize| start != data.len()) {
                return failure(416, "BLOB_UPLOAD_INVALID", "range invalid");
            }
            let kept = cut.map_or(request.body.len(), |(bytes, _)| bytes.min(request.body.len()));
            data.extend_from_slice(request.body.get(..kept).unwrap_or_default());
            let reply = accepted(id, data);
            match cut {
                Some((bytes, times)) => {
                    content.cut_uploads = Some((bytes, times - 1));
                    HttpReply { delivery: Delivery::HangUp, ..reply }
                }
                None => reply,
            }
        }
        Method::GET => HttpReply { status: 204, ..accepted(id, data) },
        Method::DELETE => {
            content.uploads.remove(id);
            HttpReply::text(204, "")
        }
        Method::PUT => {
            data.extend_from_slice(&request.body);
            let actual = digest_of(data);
            if request.parameter("digest").as_ref() != Some(&actual) {
                return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            let data = std::mem::take(data);
            content.uploads.remove(id);
            content.images(name).blobs.insert(actual.clone(), data);
            HttpReply::text(201, "").header("docker-content-digest", actual)
        }
        _ => failure(405, "UNSUPPORTED", "unsupported"),
    }
}

fn put_manifest(
    content: &mut RegistryContent,
    request: &HttpRequest,
    name: &str,
    version: &str,
) -> HttpReply {
    let digest = digest_of(&request.body);
    if version.contains(':') && version != digest {
        return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
    }
    if content.immutable_tags.contains(version) {
        return failure(409, "TAG_INVALID", "the tag is immutable");
    }
    let Ok(manifest) = serde_json::from_slice::<Value>(&request.body) else {
        return failure(400, "MANIFEST_INVALID", "manifest invalid");
    };
    let images = content.images(name);
    let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
    let is_known = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        images.blobs.contains_key(digest) || images.manifests.contains_key(digest)
    };
    let config = manifest.get("config").cloned();
    let parts = config.into_iter().chain(list("layers")).chain(list("manifests"));
    if let Some(missing) = parts.into_iter().find(|part| !is_known(part)) {
        return failure(
            404,
            "MANIFEST_BLOB_UNKNOWN",
            &format!("blob unknown to registry: {}", missing["digest"]),
        );
    }
    let kind = request.header("content-type").unwrap_or_default().to_owned();
    images.manifests.insert(digest.clone(), (kind, request.body.to_vec()));
    if !version.contains(':') {
        images.tags.insert(version.to_owned(), digest.clone());
    }
    let reply = HttpReply::text(201, "").header("docker-content-digest", digest);
    match manifest["subject"]["digest"].as_str() {
        Some(subject) if !content.has_no_referrers => reply.header("oci-subject", subject),
        _ => reply,
    }
}

/// The part of a blob that `Range: bytes=N-` asks for.
fn ranged(request: &HttpRequest, blob: &[u8]) -> HttpReply {
    let start =
        request.header("range").and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match start.and_then(|start: usize| Some((start, blob.get(start..)?))) {
        Some((start, rest)) => HttpReply::new(206, "application/octet-stream", rest).header(
            "content-range",
            format!("bytes {start}-{}/{}", blob.len().saturating_sub(1), blob.len()),
        ),
        None => HttpReply::new(200, "application/octet-stream", blob),
    }
}

fn failure(status: u16, code: &str, message: &str) -> HttpReply {
    HttpReply::json(status, &json!({"errors": [{"code": code, "message": message}]}))
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}
