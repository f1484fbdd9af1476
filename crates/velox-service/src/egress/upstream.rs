//! The operator's module proxies and checksum database, asked on a job's behalf.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
};

use percent_encoding::percent_decode_str;
use reqwest::{
    Client, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
    redirect::Policy,
};
use secrecy::ExposeSecret;
use tokio::{fs::File, sync::OnceCell};
use url::Url;
use velox_fetch::{
    goenv::GoEnv,
    http::{HttpOptions, ProxySettings},
    proxy::{Netrc, ProxyList},
};
use velox_gomod::module::{self, match_prefix_patterns, unescape_path, unescape_version};

use super::address::{PublicOnly, check_literal};

/// As many as the go command follows.
const REDIRECTS: usize = 10;
/// How much of an answer's words on an error is passed on.
const SHOWN: usize = 1 << 10;
/// The public database as it is reached from mainland China.
const CHINA: (&str, &str) = ("sum.golang.google.cn", "https://sum.golang.google.cn");

/// What a job asks for: a path of the proxy protocol (<https://go.dev/ref/mod#goproxy-protocol>), or one of the checksum
/// database behind it (<https://go.dev/design/25530-sumdb#proxying-a-checksum-database>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Module { path: String, file: String },
    Database { name: String, file: String },
}

impl Asked {
    /// `None`: it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("sumdb/") {
            let (name, file) = rest.split_once('/')?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!@+/".contains(c);
            let safe =
                file.chars().all(plain) && file.split('/').all(|part| !matches!(part, "" | "." | ".."));
            let known = matches!(file, "supported" | "latest")
                || file.starts_with("lookup/")
                || file.starts_with("tile/");
            return (safe && known).then(|| Self::Database { name: name.to_owned(), file: file.to_owned() });
        }
        let (escaped, file) = match text.split_once("/@v/") {
            Some((escaped, "list")) => (escaped, "@v/list".to_owned()),
            Some((escaped, file)) => {
                let (version, kind) = file.rsplit_once('.')?;
                let known = matches!(kind, "info" | "mod" | "zip") && unescape_version(version).is_ok();
                known.then(|| (escaped, format!("@v/{file}")))?
            }
            None => (text.strip_suffix("/@latest")?, "@latest".to_owned()),
        };
        let path = unescape_path(escaped).ok()?;
        module::check_path(&path).ok()?;
        Some(Self::Module { path, file: format!("{escaped}/{file}") })
    }
}

/// What was found.
pub(super) enum Found {
    File(File),
    Response(Response),
    /// The status and the words for it.
    Nothing(StatusCode, String),
}

/// Who is asked, and how.
pub(super) struct Upstream {
    proxies: ProxyList,
    no_proxy: String,
    database: Option<Database>,
    netrc: Netrc,
    /// The hosts and ports that the operator names: these may be anywhere.
    named: BTreeSet<(String, u16)>,
    /// For what the operator names.
    trusting: Client,
    /// For what answers lead to.
    guarded: Client,
    /// The operator's own HTTPS_PROXY.
    pub(super) proxy: Option<Url>,
}

struct Database {
    name: String,
    /// Where it is asked past all proxies.
    own: Url,
    /// Whether the operator wants it to be asked there.
    direct: bool,
    base: OnceCell<Url>,
}

impl Upstream {
    /// What a service with this environment asks.
    pub(super) fn new(environment: &BTreeMap<String, String>) -> io::Result<Self> {
        let operator = GoEnv::read(environment, None);
        let proxies = ProxyList::parse(&operator.value("GOPROXY")).map_err(io::Error::other)?;
        let database = Database::new(&operator.value("GOSUMDB"))?;
        let mut named: BTreeSet<(String, u16)> =
            proxies.proxies().filter_map(|(url, _)| place(url)).collect();
        named.extend(database.as_ref().and_then(|database| place(&database.own)));
        let netrc = netrc_file(environment)
            .filter(|_| operator.value("GOAUTH") != "off")
            .and_then(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default();
        let options = http_options(environment);
        let client = |guarded: bool| {
            let builder = options.builder(Policy::none()).map_err(io::Error::other)?;
            // Behind a proxy of the operator's it is that proxy which connects: what it may reach is for it to say.
            let alone = options.proxy.https.is_none() && options.proxy.http.is_none();
            let builder = if guarded && alone { builder.dns_resolver(PublicOnly) } else { builder };
            builder.build().map_err(io::Error::other)
        };
        Ok(Self {
            no_proxy: operator.value("GONOPROXY"),
            netrc: Netrc::parse(&netrc),
            trusting: client(false)?,
            guarded: client(true)?,
            proxy: proxy_of(&options)?,
            proxies,
            database,
            named,
        })
    }

    pub(super) async fn fetch(&self, asked: &Asked) -> Found {
        match asked {
            Asked::Module { path, .. } if match_prefix_patterns(&self.no_proxy, path) => {
                let why = "this service's GONOPROXY keeps it from the module proxies";
                Found::Nothing(StatusCode::NOT_FOUND, why.to_owned())
            }
            Asked::Module { file, .. } => self.in_turn(file).await,
            Asked::Database { name, file } => self.of_database(name, file).await,
        }
    }

    /// As GOPROXY's list says it.
    async fn in_turn(&self, file: &str) -> Found {
        let mut last =
            Found::Nothing(StatusCode::NOT_FOUND, "GOPROXY=off: no module proxy is asked".to_owned());
        for (proxy, after_any_error) in self.proxies.proxies() {
            last = self.from(proxy, file).await;
            match &last {
                Found::Nothing(StatusCode::NOT_FOUND | StatusCode::GONE, _) => {}
                Found::Nothing(..) if after_any_error => {}
                _ => break,
            }
        }
        last
    }

    async fn of_database(&self, name: &str, file: &str) -> Found {
        let Some(database) = self.database.as_ref().filter(|database| database.name == name) else {
            return Found::Nothing(StatusCode::NOT_FOUND, format!("GOSUMDB doesn't name {name}"));
        };
        let base = match database.base.get_or_try_init(|| self.base(database)).await {
            Ok(base) => base,
            Err(found) => return found,
        };
        if file == "supported" {
            return Found::Nothing(StatusCode::OK, String::new());
        }
        self.from(base, file).await
    }

    /// The first proxy that passes questions on to the database, else the database itself.
    async fn base(&self, database: &Database) -> Result<Url, Found> {
        let through = self.proxies.proxies().filter(|_| !database.direct);
        for (proxy, after_any_error) in through {
            let base = format!("sumdb/{}", database.name);
            match self.from(proxy, &format!("{base}/supported")).await {
                Found::Response(_) | Found::File(_) => {
                    let base = format!("{}/{base}", proxy.as_str().trim_end_matches('/'));
                    return Url::parse(&base).map_err(|error| trouble(&error));
                }
                Found::Nothing(StatusCode::NOT_FOUND | StatusCode::GONE, _) => {}
                Found::Nothing(..) if after_any_error => {}
                failed @ Found::Nothing(..) => return Err(failed),
            }
        }
        Ok(database.own.clone())
    }

    async fn from(&self, proxy: &Url, file: &str) -> Found {
        if proxy.scheme() == "file" {
            return from_folder(proxy, file).await;
        }
        let url = format!("{}/{file}", proxy.as_str().trim_end_matches('/'));
        match Url::parse(&url) {
            Ok(url) => self.get(url).await.unwrap_or_else(|error| trouble(&error)),
            Err(error) => trouble(&error),
        }
    }

    /// Follows redirects, each by the rules for where it leads.
    async fn get(&self, mut url: Url) -> io::Result<Found> {
        let first = place(&url);
        let login = self.login(&url)?;
        let (_, _) = (url.set_username(""), url.set_password(None));
        for _ in 0..=REDIRECTS {
            let here = place(&url);
            let named = here.as_ref().is_some_and(|here| self.named.contains(here));
            if !named {
                check_literal(&url)?;
            }
            let client = if named { &self.trusting } else { &self.guarded };
            let mut request = client.get(url.clone());
            if let Some((name, password)) =
                login.as_ref().filter(|_| here == first && url.scheme() == "https")
            {
                request = request.basic_auth(name, Some(password.expose_secret()));
            }
            let response = request.send().await.map_err(|error| io::Error::other(cause(&error)))?;
            if !response.status().is_redirection() {
                return Ok(judged(response).await);
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
            let to = url.join(to).map_err(|_| io::Error::other("it redirects to what is no address"))?;
            match (url.scheme(), to.scheme()) {
                (_, "https") | ("http", "http") => url = to,
                _ => return Err(io::Error::other("it redirects away from HTTPS")),
            }
            let (_, _) = (url.set_username(""), url.set_password(None));
        }
        Err(io::Error::other("it redirects more than 10 times"))
    }

    /// As the go command finds it: in the URL, else in netrc; over HTTPS only.
    fn login(&self, url: &Url) -> io::Result<Option<(String, secrecy::SecretString)>> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let has_own = !url.username().is_empty() || url.password().is_some();
        if url.scheme() != "https" {
            let why = "GOPROXY has a password for it, which isn't sent over plain HTTP";
            return if has_own { Err(io::Error::other(why)) } else { Ok(None) };
        }
        if has_own {
            return Ok(Some((decoded(url.username()), decoded(url.password().unwrap_or_default()).into())));
        }
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        Ok(self.netrc.get(&host).map(|(name, password)| (name.to_owned(), password.clone())))
    }
}

impl Database {
    /// `None`: GOSUMDB is off.
    fn new(setting: &str) -> io::Result<Option<Self>> {
        if setting == "off" {
            return Ok(None);
        }
        let mut fields = setting.split_ascii_whitespace();
        let (first, second) = (fields.next().unwrap_or_default(), fields.next());
        let (key, second) =
            if first == CHINA.0 { ("sum.golang.org", Some(CHINA.1)) } else { (first, second) };
        let name = key.split('+').next().unwrap_or_default();
        let own = second.map_or_else(|| format!("https://{name}"), str::to_owned);
        let own = Url::parse(&own).map_err(|_| io::Error::other("GOSUMDB names no address"))?;
        Ok(Some(Self { name: name.to_owned(), own, direct: second.is_some(), base: OnceCell::new() }))
    }
}

/// The GOSUMDB of a job: without the address, so that it asks the service.
pub(super) fn database_of_job(setting: &str) -> String {
    let first = setting.split_ascii_whitespace().next().unwrap_or_default();
    if first == CHINA.0 { "sum.golang.org".to_owned() } else { first.to_owned() }
}

fn place(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

fn trouble(error: &dyn std::error::Error) -> Found {
    Found::Nothing(StatusCode::BAD_GATEWAY, error.to_string())
}

async fn judged(response: Response) -> Found {
    let status = response.status();
    if status == StatusCode::OK {
        return Found::Response(response);
    }
    let kind = response.headers().get(CONTENT_TYPE);
    let is_text = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let mut response = response;
    let chunk = if is_text { response.chunk().await.ok().flatten() } else { None };
    let words = chunk.map(|chunk| String::from_utf8_lossy(chunk.get(..SHOWN).unwrap_or(&chunk)).into_owned());
    // A success that isn't one says nothing of a module.
    let status = if status.is_success() { StatusCode::BAD_GATEWAY } else { status };
    Found::Nothing(status, words.unwrap_or_default())
}

async fn from_folder(proxy: &Url, file: &str) -> Found {
    let Ok(folder) = proxy.to_file_path() else {
        return Found::Nothing(StatusCode::BAD_GATEWAY, "GOPROXY names no folder of this machine".to_owned());
    };
    match File::open(folder.join(file)).await {
        Ok(file) => Found::File(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Found::Nothing(StatusCode::NOT_FOUND, "not found".to_owned())
        }
        Err(error) => trouble(&error),
    }
}

/// The innermost cause: reqwest's own words name the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::addr_eq(cause, error) { "it can't be reached".to_owned() } else { cause.to_string() }
}

/// Where the go command looks for it.
fn netrc_file(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let name = if cfg!(windows) { "_netrc" } else { ".netrc" };
    variable("NETRC").or_else(|| Some(variable("HOME").or_else(|| variable("USERPROFILE"))?.join(name)))
}

fn http_options(environment: &BTreeMap<String, String>) -> HttpOptions {
    let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
    let either = |lower: &str, upper: &str| variable(lower).or_else(|| variable(upper));
    HttpOptions {
        ca_bundle: variable("SSL_CERT_FILE").map(PathBuf::from),
        proxy: ProxySettings {
            https: either("https_proxy", "HTTPS_PROXY"),
            http: either("http_proxy", "HTTP_PROXY"),
            no_proxy: either("no_proxy", "NO_PROXY"),
        },
        ..HttpOptions::default()
    }
}

fn proxy_of(options: &HttpOptions) -> io::Result<Option<Url>> {
    let Some(text) = &options.proxy.https else { return Ok(None) };
    let text = if text.contains("://") { text.clone() } else { format!("http://{text}") };
    Url::parse(&text).map(Some).map_err(|_| io::Error::other("HTTPS_PROXY is no URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_protocol_are_asked_for() {
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
            assert!(Asked::parse(path).is_some(), "{path}");
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
            assert_eq!(Asked::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_job_asks_the_database_through_the_service() {
        for (setting, job) in [
            ("sum.golang.org", "sum.golang.org"),
            ("off", "off"),
            ("sum.acme.dev+a+b https://sums.acme.dev", "sum.acme.dev+a+b"),
            ("sum.golang.google.cn", "sum.golang.org"),
        ] {
            assert_eq!(database_of_job(setting), job);
        }
    }
}
