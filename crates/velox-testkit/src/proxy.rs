use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use semver::{BuildMetadata, Prerelease, Version};
use serde_json::json;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    Files,
    fault::{Fault, FaultRule, FaultRules, MOVED},
    http::{self, HttpReply, HttpRequest, decode},
    localhost::{LocalServer, locked},
    sumdb::{TestSumDb, go_sum_lines},
};

const PUBLICATION_TIME: &str = "2024-01-01T00:00:00Z";

/// A Go module proxy on localhost, over modules made by a test: <https://go.dev/ref/mod#goproxy-protocol>.
///
/// ```
/// # use velox_testkit::{ModuleProxy, plugin};
/// let proxy = ModuleProxy::start();
/// proxy.roadrunner("v2025.0.77").plugin("example.com/acme/hello", "v1.0.0");
/// proxy.module("example.com/acme/bye", "v1.0.0", plugin("example.com/acme/bye", "farewell").files());
/// assert!(proxy.url().starts_with("http://127.0.0.1:"));
/// ```
///
/// It also serves a checksum database of its modules: [`gosumdb`](Self::gosumdb).
pub struct ModuleProxy {
    state: Arc<ModuleProxyState>,
    server: LocalServer,
    /// The certificate authority of a proxy over HTTPS, in PEM.
    ca: Option<String>,
}

#[derive(Default)]
struct ModuleProxyState {
    sum_db: TestSumDb,
    served: Mutex<BTreeMap<String, Vec<u8>>>,
    login: Mutex<Option<String>>,
    modules: Mutex<BTreeMap<String, ProxyModule>>,
    faults: FaultRules,
    requests: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct ProxyModule {
    versions: BTreeMap<String, Files>,
    /// Versions by branch or commit.
    queries: BTreeMap<String, String>,
}

impl ModuleProxy {
    /// Starts an empty proxy on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let state = Arc::new(ModuleProxyState::default());
        let served = Arc::clone(&state);
        Self { state, server: http::start(move |request| served.reply(request)), ca: None }
    }

    /// Starts an empty proxy over HTTPS, with a certificate of the authority [`ca`](Self::ca).
    #[cfg(feature = "tls")]
    pub fn start_tls() -> Self {
        let state = Arc::new(ModuleProxyState::default());
        let served = Arc::clone(&state);
        let (server, ca) = http::start_tls(move |request| served.reply(request));
        Self { state, server, ca: Some(ca) }
    }

    /// Adds a version of a module.
    pub fn module(&self, path: &str, version: &str, files: Files) -> &Self {
        self.state.modules().entry(path.to_owned()).or_default().versions.insert(version.to_owned(), files);
        self
    }

    /// Adds the small RoadRunner at a version such as `v2025.0.77`.
    pub fn roadrunner(&self, version: &str) -> &Self {
        let year = version.split('.').next().unwrap_or(version);
        let path = format!("github.com/roadrunner-server/roadrunner/{year}");
        self.module(&path, version, crate::roadrunner(year).files())
    }

    /// Adds a RoadRunner that only has plugins `github.com/roadrunner-server/NAME/MAJOR` of this testkit, such as
    /// `v3.0.0` with `http logger` at `v6.1.0`. The plugins that every RoadRunner has are added.
    pub fn release(&self, version: &str, plugins: &str, plugin_version: &str) -> &Self {
        let major_of = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
        let names = ["informer", "resetter"].into_iter().chain(plugins.split_whitespace());
        let suffix = major_of(plugin_version);
        let paths: Vec<String> =
            names.map(|name| format!("github.com/roadrunner-server/{name}/{suffix}")).collect();
        let requirements: Vec<_> = paths.iter().map(|path| (path.as_str(), plugin_version)).collect();
        for path in &paths {
            self.plugin(path, plugin_version);
        }
        let tree = crate::roadrunner_with(&major_of(version), &requirements);
        self.module(tree.module(), version, tree.files())
    }

    /// Adds a plugin named after the last element of its module path, without the major version.
    pub fn plugin(&self, path: &str, version: &str) -> &Self {
        let is_major =
            |part: &&str| part.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
        let name = path.rsplit('/').find(|part| !is_major(part)).unwrap_or(path);
        self.module(path, version, crate::plugin(path, name).files())
    }

    /// Resolves a query (a branch, a commit) to a version that was added with [`module`](Self::module).
    pub fn query(&self, path: &str, query: &str, version: &str) -> &Self {
        self.state
            .modules()
            .entry(path.to_owned())
            .or_default()
            .queries
            .insert(query.to_owned(), version.to_owned());
        self
    }

    /// Makes every request fail whose path (escaped, as sent) contains `part`, until [`heal`](Self::heal).
    pub fn fail(&self, part: &str, fault: Fault) -> FaultRule {
        self.state.faults.add(fault).on("*", &format!("*{part}*"))
    }

    /// Serves these bytes at a path (escaped, as sent) instead of the correct content.
    pub fn serve(&self, path: &str, content: impl Into<Vec<u8>>) -> &Self {
        locked(&self.state.served).insert(path.to_owned(), content.into());
        self
    }

    /// Requires these credentials; other requests get 401.
    pub fn demand_login(&self, name: &str, password: &str) {
        let login = STANDARD.encode(format!("{name}:{password}"));
        *locked(&self.state.login) = Some(format!("Basic {login}"));
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.state.faults.clear();
    }

    /// The URL, for GOPROXY.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.ca.is_some() { "https" } else { "http" }, self.server.address)
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    /// The certificate authority of [`start_tls`](Self::start_tls), in PEM.
    pub fn ca(&self) -> &str {
        self.ca.as_deref().unwrap_or_default()
    }

    /// A GOSUMDB value: the database's key; the database is accessed through this proxy.
    pub fn gosumdb(&self) -> String {
        self.state.sum_db.key()
    }

    /// A GOSUMDB value with the database's own URL, which is accessed without a proxy.
    pub fn gosumdb_direct(&self) -> String {
        format!("{} {}{}", self.gosumdb(), self.url(), TestSumDb::path())
    }

    /// Makes the database record another checksum for a version not recorded yet; append `/go.mod` to the
    /// version for its go.mod.
    pub fn vouch(&self, path: &str, version: &str, sum: &str) -> &Self {
        let released = version.trim_end_matches("/go.mod");
        let escaped = format!("{}@{}", escape(path), escape(released));
        let honest = self.state.lines(&escaped).unwrap_or_default();
        let start = format!("{path} {version} ");
        let lines = honest.lines().map(|line| match line.starts_with(&start) {
            true => format!("{start}{sum}\n"),
            false => format!("{line}\n"),
        });
        self.state.sum_db.record(&escaped, lines.collect());
        self
    }

    /// Keeps only the database's first `count` records.
    pub fn shrink_sum_db(&self, count: usize) {
        self.state.sum_db.shrink(count);
    }

    /// Replaces the database's history with another one, signed by the same key.
    pub fn fork_sum_db(&self) {
        self.state.sum_db.fork();
    }

    /// Signs the database's trees with another key under the known name.
    pub fn forge_sum_db(&self) {
        self.state.sum_db.sign_by_another();
    }

    /// The paths of all requests so far, in order.
    pub fn requests(&self) -> Vec<String> {
        locked(&self.state.requests).clone()
    }

    /// Clears the recorded requests.
    pub fn forget_requests(&self) {
        locked(&self.state.requests).clear();
    }
}

impl ModuleProxyState {
    fn modules(&self) -> MutexGuard<'_, BTreeMap<String, ProxyModule>> {
        locked(&self.modules)
    }

    fn reply(&self, request: &HttpRequest) -> HttpReply {
        // Slashes in branch names are sent as %2F.
        let path = decode(&request.path);
        locked(&self.requests).push(path.clone());
        let login = request.header("authorization");
        if locked(&self.login).as_deref().is_some_and(|wanted| login != Some(wanted)) {
            return HttpReply::text(401, "unauthorized\n");
        }
        if let Some(path) = path.strip_prefix(MOVED) {
            return self.correct(path);
        }
        match self.faults.take(request, &[&path]) {
            Some(fault) => fault.apply(request, || self.correct(&path)),
            None => self.correct(&path),
        }
    }

    fn correct(&self, path: &str) -> HttpReply {
        match self.content(path) {
            Some(content) => HttpReply::new(200, "application/octet-stream", content),
            None => HttpReply::text(404, &format!("not found: {path}\n")),
        }
    }

    fn content(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(content) = locked(&self.served).get(path) {
            return Some(content.clone());
        }
        if let Some(asked) = path.strip_prefix(&TestSumDb::path()) {
            return self.sum_db.answer(asked.strip_prefix('/')?, |version| self.lines(version));
        }
        let (module, question) =
            path.strip_prefix('/')?.rsplit_once("/@").map(|(module, rest)| (module, format!("@{rest}")))?;
        let module = unescape(module)?;
        self.modules().get(&module)?.answer(&module, &question)
    }

    /// The go.sum lines of `ESCAPED-PATH@ESCAPED-VERSION`.
    fn lines(&self, escaped: &str) -> Option<String> {
        let (path, version) = escaped.split_once('@')?;
        let (path, version) = (unescape(path)?, unescape(version)?);
        let modules = self.modules();
        let files = modules.get(&path)?.versions.get(&version)?;
        Some(go_sum_lines(&path, &version, files, &go_mod(&path, files)))
    }
}

impl ProxyModule {
    /// The response to the path after `MODULE/`.
    fn answer(&self, path: &str, question: &str) -> Option<Vec<u8>> {
        if question == "@v/list" {
            return Some(
                self.listed().iter().map(|version| format!("{version}\n")).collect::<String>().into_bytes(),
            );
        }
        if question == "@latest" {
            return Some(info(&self.latest()?));
        }
        let (query, kind) = question.strip_prefix("@v/")?.rsplit_once('.')?;
        let query = unescape(query)?;
        let version = self.queries.get(&query).unwrap_or(&query);
        let files = self.versions.get(version)?;
        match kind {
            "info" => Some(info(version)),
            // Queries are valid for .info only.
            "mod" | "zip" if *version != query => None,
            "mod" => Some(go_mod(path, files)),
            "zip" => Some(archive(path, version, files)),
            _ => None,
        }
    }

    /// Releases and pre-releases, oldest first, without pseudo-versions.
    fn listed(&self) -> Vec<String> {
        let mut versions: Vec<String> =
            self.versions.keys().filter(|version| !is_pseudo(version)).cloned().collect();
        versions.sort_by_key(|version| parse(version));
        versions
    }

    /// The newest release, else the newest pre-release, else any version: <https://go.dev/ref/mod#version-queries>
    fn latest(&self) -> Option<String> {
        let listed = self.listed();
        let release = |version: &&String| parse(version).is_some_and(|version| version.pre.is_empty());
        listed.iter().rfind(release).or(listed.last()).or(self.versions.keys().next_back()).cloned()
    }
}

fn info(version: &str) -> Vec<u8> {
    json!({"Version": version, "Time": PUBLICATION_TIME}).to_string().into_bytes()
}

fn go_mod(path: &str, files: &Files) -> Vec<u8> {
    files.get("go.mod").cloned().unwrap_or_else(|| format!("module {path}\n").into_bytes())
}

fn parse(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v')?).ok().filter(|version| version.build == BuildMetadata::EMPTY)
}

/// Whether a version ends with a timestamp and the start of a commit id.
fn is_pseudo(version: &str) -> bool {
    let Some(Version { pre, .. }) = parse(version) else { return false };
    let ends_well = |pre: &Prerelease| {
        let (before, commit) = pre.rsplit_once('-')?;
        let time = before.rsplit('.').next()?;
        Some(commit.len() == 12 && time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit()))
    };
    ends_well(&pre).unwrap_or(false)
}

fn archive(path: &str, version: &str, files: &Files) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(format!("{path}@{version}/{name}"), SimpleFileOptions::default())
            .expect("a zip in memory");
        zip.write_all(content).expect("a zip in memory");
    }
    zip.finish().expect("a zip in memory").into_inner()
}

/// Replaces upper-case letters by `!` and the lower-case letter: <https://go.dev/ref/mod#goproxy-protocol>
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            escaped.push('!');
        }
        escaped.push(c.to_ascii_lowercase());
    }
    escaped
}

/// Reverses [`escape`]; `None` for text that it can't return.
fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match c {
            '!' => plain.push(letters.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase()),
            c if c.is_ascii_uppercase() => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}
