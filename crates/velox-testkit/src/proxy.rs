use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;

use semver::{BuildMetadata, Prerelease, Version};
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    Files, Repo, localhost,
    sumdb::{TestSumDb, go_sum_lines},
    tls::TestAuthority,
};

/// Where a redirect leads.
const MOVED: &str = "/moved";
/// When modules made of files were published.
const PUBLISHED: &str = "2024-01-01T00:00:00Z";

/// A Go module proxy on localhost, over modules that a test makes: <https://go.dev/ref/mod#goproxy-protocol>.
///
/// ```
/// # use velox_testkit::{ModuleProxy, plugin};
/// let proxy = ModuleProxy::start();
/// proxy.roadrunner("v2025.0.77").plugin("example.com/acme/hello", "v1.0.0");
/// proxy.module("example.com/acme/bye", "v1.0.0", plugin("example.com/acme/bye", "farewell").files());
/// assert!(proxy.url().starts_with("http://127.0.0.1:"));
/// ```
///
/// It passes questions on to a checksum database of its own, which vouches for all that it serves: [`gosumdb`](Self::gosumdb).
pub struct ModuleProxy {
    state: Arc<ProxyState>,
    scheme: &'static str,
    address: SocketAddr,
    ca: String,
    // Held for its end; None only while being dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

/// What a [`ModuleProxy`] does wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// This status instead of an answer.
    Status(u16),
    /// The connection ends in the middle of the body.
    Cut,
    /// The answer comes after this time.
    Slow(Duration),
    /// A zip or go.mod with a line too much: it doesn't have the sum that it had before.
    Altered,
    /// 429 with a `Retry-After` of so many seconds.
    Busy(u64),
    /// The connection ends before an answer.
    Reset,
    /// The second half of the body comes after this time.
    Stalls(Duration),
    /// A redirect to where the same is served.
    Moved,
    /// An answer of so many bytes, whatever was asked.
    Endless(usize),
}

struct ProxyState {
    sum_db: TestSumDb,
    served: Mutex<BTreeMap<String, Vec<u8>>>,
    login: Mutex<Option<String>>,
    modules: Mutex<BTreeMap<String, ProxyModule>>,
    faults: Mutex<Vec<PlannedFault>>,
    requests: Mutex<Vec<String>>,
}

struct PlannedFault {
    part: String,
    fault: Fault,
    left: Option<usize>,
    /// Requests that are answered well before.
    spared: usize,
}

#[derive(Clone, Default)]
struct ProxyModule {
    versions: BTreeMap<String, Files>,
    queries: BTreeMap<String, String>,
    repository: Option<(Repo, String)>,
}

impl ModuleProxy {
    /// An empty proxy that listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::listen("http", None)
    }

    /// As [`start`](Self::start), over HTTPS, with a certificate that only this authority ([`ca`](Self::ca)) vouches for.
    pub fn start_tls() -> Self {
        let authority = TestAuthority::new().expect("a certificate authority");
        let mut config = authority.server("127.0.0.1").expect("a certificate");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut proxy = Self::listen("https", Some(acceptor));
        proxy.ca = authority.pem;
        proxy
    }

    fn listen(scheme: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let (runtime, listener) = localhost::listen();
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(ProxyState {
            sum_db: TestSumDb::new(),
            served: Mutex::default(),
            login: Mutex::default(),
            modules: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
        });
        let served = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                let tls = tls.clone();
                // A client that goes away is no concern of the proxy's.
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let http = http1::Builder::new();
                    match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                        Some(tls) => {
                            let stream = tls.accept(stream).await.ok()?;
                            http.serve_connection(TokioIo::new(stream), service).await.ok()
                        }
                    }
                });
            }
        });
        Self { state, scheme, address, ca: String::new(), runtime: Some(runtime) }
    }

    /// Adds a version of a module.
    pub fn module(&self, path: &str, version: &str, files: Files) -> &Self {
        self.state.modules().entry(path.to_owned()).or_default().versions.insert(version.to_owned(), files);
        self
    }

    /// Adds the small RoadRunner at a version of a year (`v2025.0.77`).
    pub fn roadrunner(&self, version: &str) -> &Self {
        let year = version.split('.').next().unwrap_or(version);
        let path = format!("github.com/roadrunner-server/roadrunner/{year}");
        self.module(&path, version, crate::roadrunner(year).files())
    }

    /// Adds a plugin with the name that its module path ends with.
    pub fn plugin(&self, path: &str, version: &str) -> &Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.module(path, version, crate::plugin(path, name).files())
    }

    /// Lets a query (a branch's name, a commit) mean a version that was added with [`module`](Self::module).
    pub fn query(&self, path: &str, query: &str, version: &str) -> &Self {
        self.state
            .modules()
            .entry(path.to_owned())
            .or_default()
            .queries
            .insert(query.to_owned(), version.to_owned());
        self
    }

    /// Serves a module from a folder ("" is the top) of a repository, as it is at each request: its tags are versions (in a
    /// folder those that begin with `FOLDER/`), and branches and commits are pseudo-versions.
    pub fn from_repo(&self, path: &str, repo: &Repo, folder: &str) -> &Self {
        let repository = Some((repo.clone(), folder.trim_matches('/').to_owned()));
        self.state.modules().entry(path.to_owned()).or_default().repository = repository;
        self
    }

    /// Does `fault` to every request whose path (escaped, as sent) contains `part`, until [`heal`](Self::heal).
    pub fn fail(&self, part: &str, fault: Fault) -> &Self {
        self.plan(part, fault, None)
    }

    /// Does `fault` to the next `times` requests whose path contains `part`.
    pub fn fail_times(&self, part: &str, fault: Fault, times: usize) -> &Self {
        self.plan(part, fault, Some(times))
    }

    /// Does `fault` to every request whose path contains `part`, but the first `spared`.
    pub fn fail_after(&self, spared: usize, part: &str, fault: Fault) -> &Self {
        locked(&self.state.faults).push(PlannedFault { part: part.to_owned(), fault, left: None, spared });
        self
    }

    fn plan(&self, part: &str, fault: Fault, left: Option<usize>) -> &Self {
        locked(&self.state.faults).push(PlannedFault { part: part.to_owned(), fault, left, spared: 0 });
        self
    }

    /// Serves these bytes at a path (escaped, as sent), in place of what belongs there.
    pub fn serve(&self, path: &str, content: impl Into<Vec<u8>>) -> &Self {
        locked(&self.state.served).insert(path.to_owned(), content.into());
        self
    }

    /// Answers only those who log in so; the others get 401.
    pub fn demand_login(&self, name: &str, password: &str) {
        let login = STANDARD.encode(format!("{name}:{password}"));
        *locked(&self.state.login) = Some(format!("Basic {login}"));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        locked(&self.state.faults).clear();
    }

    /// Its address, for GOPROXY.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The certificate authority of [`start_tls`](Self::start_tls), in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// A value of GOSUMDB: the database's key. It is asked through this proxy.
    pub fn gosumdb(&self) -> String {
        self.state.sum_db.key()
    }

    /// A value of GOSUMDB that names the database's own address besides: it is asked past all proxies.
    pub fn gosumdb_direct(&self) -> String {
        format!("{} {}{}", self.gosumdb(), self.url(), TestSumDb::path())
    }

    /// Lets the database vouch for another sum of a version that it wasn't asked about yet; with `/go.mod` behind the
    /// version, of its go.mod.
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

    /// Lets the database forget all but its first `count` records.
    pub fn shrink_sum_db(&self, count: usize) {
        self.state.sum_db.shrink(count);
    }

    /// Lets the database tell another history, signed by the same key.
    pub fn fork_sum_db(&self) {
        self.state.sum_db.fork();
    }

    /// Lets another key sign the database's trees in the name of the known one.
    pub fn forge_sum_db(&self) {
        self.state.sum_db.sign_by_another();
    }

    /// The paths of all requests so far, in order.
    pub fn requests(&self) -> Vec<String> {
        locked(&self.state.requests).clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        locked(&self.state.requests).clear();
    }

    /// Writes all modules below `directory` as files, and gives the directory's `file://` address for GOPROXY.
    /// Pseudo-versions of branches are among them, as are the branches' own `.info` files.
    pub fn write_to(&self, directory: &Path) -> std::io::Result<String> {
        for (path, module) in self.state.modules().iter() {
            let escaped = escape(path);
            let mut files = vec![format!("{escaped}/@v/list")];
            let versions = module.listed(path);
            let found = module.branches().into_iter().filter_map(|query| {
                files.push(format!("{escaped}/@v/{}.info", escape(&query)));
                module.resolve(path, &query).map(|found| found.version)
            });
            let found: Vec<_> = found.collect();
            for version in versions.iter().chain(&found) {
                files.extend(
                    ["info", "mod", "zip"].map(|kind| format!("{escaped}/@v/{}.{kind}", escape(version))),
                );
            }
            for file in files {
                let Some(content) = module.answer(path, file.split_at(escaped.len() + 1).1) else { continue };
                let target = directory.join(&file);
                if let Some(parent) = target.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::fs::write(target, content)?;
            }
        }
        Ok(format!("file://{}", directory.canonicalize()?.display()))
    }
}

impl Drop for ModuleProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ProxyState {
    fn modules(&self) -> MutexGuard<'_, BTreeMap<String, ProxyModule>> {
        locked(&self.modules)
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        let mut faults = locked(&self.faults);
        let planned = faults.iter_mut().find(|fault| fault.left != Some(0) && path.contains(&fault.part))?;
        if planned.spared > 0 {
            planned.spared -= 1;
            return None;
        }
        planned.left = planned.left.map(|left| left - 1);
        Some(planned.fault)
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
        // Git takes its time: nobody else has to wait for it.
        let found = self.modules().get(&module)?.clone();
        found.answer(&module, &question)
    }

    /// The lines of go.sum for `ESCAPED-PATH@ESCAPED-VERSION`.
    fn lines(&self, escaped: &str) -> Option<String> {
        let (path, version) = escaped.split_once('@')?;
        let (path, version) = (unescape(path)?, unescape(version)?);
        let module = self.modules().get(&path)?.clone();
        let found = module.resolve(&path, &version).filter(|found| found.version == version)?;
        let files = module.files(&found)?;
        let go_mod = module.answer(&path, &format!("@v/{}.mod", escape(&version)))?;
        Some(go_sum_lines(&path, &version, &files, &go_mod))
    }
}

/// A version that a query means.
struct ResolvedVersion {
    version: String,
    time: String,
    commit: Option<String>,
}

impl ProxyModule {
    /// The answer to what follows `MODULE/` in an address.
    fn answer(&self, path: &str, question: &str) -> Option<Vec<u8>> {
        if question == "@v/list" {
            return Some(
                self.listed(path)
                    .iter()
                    .map(|version| format!("{version}\n"))
                    .collect::<String>()
                    .into_bytes(),
            );
        }
        if question == "@latest" {
            return self.resolve(path, &self.latest(path)?).map(|found| self.info(&found));
        }
        let (query, kind) = question.strip_prefix("@v/")?.rsplit_once('.')?;
        let found = self.resolve(path, &unescape(query)?)?;
        match kind {
            "info" => Some(self.info(&found)),
            // Queries are for .info alone.
            "mod" | "zip" if found.version != unescape(query)? => None,
            "mod" => {
                Some(self.files(&found)?.remove("go.mod").unwrap_or(format!("module {path}\n").into_bytes()))
            }
            "zip" => Some(archive(path, &found.version, &self.files(&found)?)),
            _ => None,
        }
    }

    fn info(&self, found: &ResolvedVersion) -> Vec<u8> {
        let mut info = json!({"Version": found.version, "Time": found.time});
        if let (Some(commit), Some((repo, folder))) = (&found.commit, &self.repository) {
            info["Origin"] = json!({"VCS": "git", "URL": repo.url(), "Hash": commit});
            if !folder.is_empty() {
                info["Origin"]["Subdir"] = Value::String(folder.clone());
            }
        }
        info.to_string().into_bytes()
    }

    /// Releases and pre-releases, oldest first; pseudo-versions are never listed.
    fn listed(&self, path: &str) -> Vec<String> {
        let mut versions: Vec<String> =
            self.versions.keys().filter(|version| !is_pseudo(version)).cloned().collect();
        if let Some((repo, folder)) = &self.repository {
            versions
                .extend(tags(repo, folder, path, None).into_iter().map(|(version, _)| format!("v{version}")));
        }
        versions.sort_by_key(|version| parse(version));
        versions.dedup();
        versions
    }

    /// The newest release, else the newest pre-release, else the default branch:
    /// <https://go.dev/ref/mod#version-queries>
    fn latest(&self, path: &str) -> Option<String> {
        let listed = self.listed(path);
        let release = |version: &&String| parse(version).is_some_and(|version| version.pre.is_empty());
        let newest =
            listed.iter().rfind(release).or(listed.last()).or(self.versions.keys().next_back()).cloned();
        newest.or_else(|| self.repository.as_ref().map(|_| "HEAD".to_owned()))
    }

    fn branches(&self) -> Vec<String> {
        let mut names: Vec<String> = self.queries.keys().cloned().collect();
        if let Some((repo, _)) = &self.repository {
            let heads = repo.git(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"]);
            names.extend(heads.lines().map(str::to_owned));
        }
        names
    }

    fn resolve(&self, path: &str, query: &str) -> Option<ResolvedVersion> {
        let asked = self.queries.get(query).map_or(query, String::as_str);
        if self.versions.contains_key(asked) {
            return Some(ResolvedVersion {
                version: asked.to_owned(),
                time: PUBLISHED.to_owned(),
                commit: None,
            });
        }
        let (repo, folder) = self.repository.as_ref()?;
        let tags = tags(repo, folder, path, None);
        let (version, commit) =
            if let Some((_, tag)) = tags.iter().find(|(version, _)| format!("v{version}") == asked) {
                (Some(asked.to_owned()), repo.find(tag)?)
            } else if is_pseudo(asked) {
                (None, repo.find(asked.rsplit('-').next()?)?)
            } else {
                (None, repo.find(asked)?)
            };
        // A commit that has a tag is that version.
        let tagged = || tags.iter().rev().find(|(_, tag)| repo.find(tag).as_ref() == Some(&commit));
        let version = match version {
            Some(version) => version,
            None if is_pseudo(asked) => {
                let version = pseudo(repo, folder, path, &commit);
                (version == asked).then_some(version)?
            }
            None => tagged()
                .map_or_else(|| pseudo(repo, folder, path, &commit), |(version, _)| format!("v{version}")),
        };
        let time = committed(repo, &commit, "%Y-%m-%dT%H:%M:%SZ");
        Some(ResolvedVersion { version, time, commit: Some(commit) })
    }

    /// A module's files: no links, and nothing of the modules in its folders (<https://go.dev/ref/mod#zip-files>).
    fn files(&self, found: &ResolvedVersion) -> Option<Files> {
        let Some(commit) = &found.commit else { return self.versions.get(&found.version).cloned() };
        let (repo, folder) = self.repository.as_ref()?;
        let top = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let tree = repo.git(["ls-tree", "-r", "-z", commit]);
        let names: Vec<&str> = tree
            .split('\0')
            .filter(|line| line.starts_with("100"))
            .filter_map(|line| line.split_once('\t')?.1.strip_prefix(&top))
            .collect();
        let nested: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_suffix("go.mod").filter(|folder| folder.ends_with('/')))
            .collect();
        let own = names.iter().filter(|name| !nested.iter().any(|folder| name.starts_with(folder)));
        own.map(|name| Some(((*name).to_owned(), repo.read(commit, &format!("{top}{name}"))?))).collect()
    }
}

/// The versions that a repository's tags give a module, oldest first, and the tags' full names; with a commit only
/// those of its ancestors.
fn tags(repo: &Repo, folder: &str, path: &str, merged: Option<&str>) -> Vec<(Version, String)> {
    let mut arguments = vec!["tag", "--list"];
    arguments.extend(merged.iter().flat_map(|commit| ["--merged", commit]));
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut tags: Vec<(Version, String)> = repo
        .git(arguments)
        .lines()
        .filter_map(|tag| Some((parse(tag.strip_prefix(&prefix)?)?, format!("refs/tags/{tag}"))))
        .filter(|(version, _)| major(path).map_or(version.major < 2, |major| major == version.major))
        .collect();
    tags.sort();
    tags
}

/// <https://go.dev/ref/mod#pseudo-versions>
fn pseudo(repo: &Repo, folder: &str, path: &str, commit: &str) -> String {
    let suffix =
        format!("{}-{}", committed(repo, commit, "%Y%m%d%H%M%S"), commit.get(..12).unwrap_or(commit));
    match tags(repo, folder, path, Some(commit)).pop() {
        None => format!("v{}.0.0-{suffix}", major(path).unwrap_or(0)),
        Some((base, _)) if base.pre.is_empty() => {
            format!("v{}.{}.{}-0.{suffix}", base.major, base.minor, base.patch + 1)
        }
        Some((base, _)) => format!("v{}.{}.{}-{}.0.{suffix}", base.major, base.minor, base.patch, base.pre),
    }
}

fn committed(repo: &Repo, commit: &str, format: &str) -> String {
    repo.git(["show", "--no-patch", "--format=%cd", &format!("--date=format-local:{format}"), commit])
}

/// The major version that a module path ends with, if it does.
fn major(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_prefix('v')?.parse().ok().filter(|major| *major > 1)
}

fn parse(version: &str) -> Option<Version> {
    Version::parse(version.strip_prefix('v')?).ok().filter(|version| version.build == BuildMetadata::EMPTY)
}

/// Whether a version ends with a time and the start of a commit's id.
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

/// Upper case letters as `!` and the lower case one: <https://go.dev/ref/mod#goproxy-protocol>
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

/// None where the text isn't what [`escape`] makes.
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

type ProxyBody = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(
    state: Arc<ProxyState>,
    request: Request<hyper::body::Incoming>,
) -> std::io::Result<Response<ProxyBody>> {
    // Branches with a slash come as %2F.
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    locked(&state.requests).push(path.clone());
    let login = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if locked(&state.login).as_deref().is_some_and(|wanted| login != Some(wanted)) {
        return Ok(whole(StatusCode::UNAUTHORIZED, b"who are you?\n".to_vec()));
    }
    let (path, fault) = match path.strip_prefix(MOVED) {
        Some(path) => (path.to_owned(), None),
        None => (path.clone(), state.fault(&path)),
    };
    if let Some(Fault::Slow(time)) = fault {
        tokio::time::sleep(time).await;
    }
    match fault {
        Some(Fault::Reset) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Endless(size)) => return Ok(whole(StatusCode::OK, vec![b' '; size])),
        Some(Fault::Busy(seconds)) => {
            let mut answer = whole(StatusCode::TOO_MANY_REQUESTS, b"not so fast\n".to_vec());
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return Ok(answer);
        }
        Some(Fault::Moved) => {
            let mut answer = whole(StatusCode::FOUND, Vec::new());
            let to = HeaderValue::try_from(format!("{MOVED}{path}")).map_err(std::io::Error::other)?;
            answer.headers_mut().insert(header::LOCATION, to);
            return Ok(answer);
        }
        _ => {}
    }
    if let Some(Fault::Status(code)) = fault {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Ok(whole(status, format!("{path}: {status}, as the test wants it\n").into_bytes()));
    }
    let (asked, source) = (path.clone(), Arc::clone(&state));
    let found = tokio::task::spawn_blocking(move || source.content(&asked)).await;
    let mut content = match found {
        Ok(Some(content)) => content,
        Ok(None) => return Ok(whole(StatusCode::NOT_FOUND, format!("not found: {path}\n").into_bytes())),
        Err(error) => return Ok(whole(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n").into_bytes())),
    };
    if matches!(fault, Some(Fault::Altered)) {
        content = altered(&path, content);
    }
    match fault {
        Some(Fault::Cut) => Ok(halved(content, Duration::from_millis(50), true)),
        Some(Fault::Stalls(time)) => Ok(halved(content, time, false)),
        _ => Ok(whole(StatusCode::OK, content)),
    }
}

fn whole(status: StatusCode, content: Vec<u8>) -> Response<ProxyBody> {
    let mut answer =
        Response::new(Full::new(Bytes::from(content)).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    if status != StatusCode::OK {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    answer
}

/// Says how long the body is, sends half of it, and after some time the rest, or ends the connection.
fn halved(content: Vec<u8>, time: Duration, cut: bool) -> Response<ProxyBody> {
    let length = content.len();
    let mut half = Bytes::from(content);
    let rest = half.split_off(length / 2);
    // The head and the half are on their way before the connection ends.
    let end = async move {
        tokio::time::sleep(time).await;
        if cut { Err(std::io::Error::other("cut, as the test wants it")) } else { Ok(Frame::data(rest)) }
    };
    let parts = futures::stream::once(async { Ok(Frame::data(half)) }).chain(futures::stream::once(end));
    let mut answer = Response::new(ProxyBody::new(StreamBody::new(parts)));
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    answer
}

/// A zip with another file, anything else with another line.
fn altered(path: &str, mut content: Vec<u8>) -> Vec<u8> {
    if !path.ends_with(".zip") {
        content.extend_from_slice(b"// altered\n");
        return content;
    }
    let mut zip = ZipWriter::new_append(Cursor::new(content)).expect("the proxy's own zip");
    let (module, rest) = path.trim_start_matches('/').split_once("/@v/").unwrap_or_default();
    let version = rest.trim_end_matches(".zip");
    let name = format!(
        "{}@{}/altered.txt",
        unescape(module).unwrap_or_default(),
        unescape(version).unwrap_or_default()
    );
    zip.start_file(name, SimpleFileOptions::default()).expect("a zip in memory");
    zip.finish().expect("a zip in memory").into_inner()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
