//! The checksum database that GOSUMDB names, with its state and its cache where the go command has them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tokio::runtime::Handle;
use url::Url;

use super::{
    SumDbError,
    client::{BoxError, ClientOps, SumDbClient},
    note::Verifier,
};
use crate::proxy::{ProxyClient, ProxyError, ProxySource, proxy_host};

/// The key of the public database, as the go command has it built in.
const PUBLIC: (&str, &str) =
    ("sum.golang.org", "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8");
/// The public database as it is reached from mainland China.
const CHINA: (&str, &str) = ("sum.golang.google.cn", "https://sum.golang.google.cn");

/// What GOSUMDB says (<https://go.dev/ref/mod#environment-variables>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumDbConfig {
    key: String,
    name: String,
    /// Given, and asked past all proxies.
    base: Option<Url>,
}

/// A GOSUMDB that is neither `off` nor a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("GOSUMDB is neither `off` nor a database's key, with or without a URL: {0}")]
pub struct ParseSumDbError(String);

impl SumDbConfig {
    /// Reads the value that `go env GOSUMDB` gives; `None` for `off`.
    ///
    /// # Errors
    /// A value that names no database.
    pub fn parse(text: &str) -> Result<Option<Self>, ParseSumDbError> {
        if text == "off" {
            return Ok(None);
        }
        let mut fields = text.split_ascii_whitespace();
        let wrong = |why: &str| ParseSumDbError(why.to_owned());
        let (first, second) = (fields.next().ok_or_else(|| wrong("it is empty"))?, fields.next());
        if fields.next().is_some() {
            return Err(wrong("it has more than two fields"));
        }
        let (first, second) = if first == CHINA.0 { (PUBLIC.0, Some(CHINA.1)) } else { (first, second) };
        let key = if first == PUBLIC.0 { PUBLIC.1 } else { first };
        let name = Verifier::parse(key).map_err(|error| wrong(&error.to_string()))?.name().to_owned();
        let base = second.map(Url::parse).transpose().map_err(|_| wrong("the second field is no URL"))?;
        if Url::parse(&format!("https://{name}")).is_err() || name.ends_with('/') {
            return Err(wrong("its name is no host"));
        }
        Ok(Some(Self { key: key.to_owned(), name, base }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is asked: at the first proxy that says that it passes questions on to the database, else at the database
    /// itself (<https://go.dev/design/25530-sumdb#proxying-a-checksum-database>).
    pub(crate) async fn base(&self, proxies: &ProxyClient) -> Result<Url, String> {
        if let Some(base) = &self.base {
            return Ok(base.clone());
        }
        let name = &self.name;
        for entry in &proxies.list.0 {
            let ProxySource::Proxy(proxy) = &entry.source else { break };
            match proxies.read(proxy, &format!("sumdb/{name}/supported")).await {
                Ok(_) => {
                    return Url::parse(&format!("{}/sumdb/{name}", trimmed(proxy)))
                        .map_err(|e| e.to_string());
                }
                Err(ProxyError::NotFound(_)) => {}
                Err(_) if entry.after_any_error => {}
                Err(failure) => return Err(format!("{}: {failure}", proxy_host(proxy))),
            }
        }
        Url::parse(&format!("https://{name}")).map_err(|error| error.to_string())
    }
}

/// A database with a way to ask it.
pub(crate) struct ChecksumDatabase(SumDbClient<SumDbStorage>);

struct SumDbStorage {
    settings: SumDbConfig,
    proxies: ProxyClient,
    /// `$GOPATH/pkg/sumdb`
    state: PathBuf,
    /// `GOMODCACHE/cache/download/sumdb`
    cache: PathBuf,
    base: OnceLock<Result<Url, String>>,
    runtime: Handle,
}

impl Database {
    pub(crate) fn new(settings: SumDbConfig, proxies: ProxyClient, state: PathBuf, cache: PathBuf) -> Self {
        let (base, runtime) = (OnceLock::new(), Handle::current());
        Self(SumDbClient::new(SumDbStorage { settings, proxies, state, cache, base, runtime }))
    }

    /// The sums of a module version (with `/go.mod` behind it: of its go.mod). Blocks: never to be called from a task.
    pub(crate) fn sums(&self, path: &str, version: &str) -> Result<Vec<String>, SumDbError> {
        let lines = self.0.lookup(path, version)?;
        Ok(lines.iter().filter_map(|line| line.split_ascii_whitespace().nth(2)).map(str::to_owned).collect())
    }
}

impl SumDbStorage {
    fn base(&self) -> Result<Url, String> {
        let find = || self.runtime.block_on(self.settings.base(&self.proxies));
        self.base.get_or_init(find).clone()
    }
}

fn trimmed(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

impl ClientOps for SumDbStorage {
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, BoxError> {
        let base = self.base()?;
        let path = path.trim_start_matches('/');
        let answer = self.runtime.block_on(self.proxies.read(&base, path));
        answer.map_err(|failure| format!("{}: {failure}", proxy_host(&base)).into())
    }

    fn read_config(&self, file: &str) -> Result<Vec<u8>, BoxError> {
        if file == "key" {
            return Ok(self.settings.key.clone().into_bytes());
        }
        let path = self.state.join(file);
        Ok(read_locked(&path).map_err(|error| cannot("read", &path, &error))?.unwrap_or_default())
    }

    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, BoxError> {
        let path = self.state.join(file);
        let write = || {
            let mut file = open_locked(&path)?;
            let mut known = Vec::new();
            file.read_to_end(&mut known)?;
            if !known.is_empty() && known != old {
                return Ok(false);
            }
            if let Err(error) = replace(&mut file, new) {
                // On a full disk the old tree has its room still.
                let _ = replace(&mut file, &known);
                return Err(error);
            }
            Ok(true)
        };
        write().map_err(|error| cannot("write", &path, &error))
    }

    fn read_cache(&self, file: &str) -> Option<Vec<u8>> {
        // One that is just being made is empty.
        read_locked(&self.cache.join(file)).ok()?.filter(|content| !content.is_empty())
    }

    fn write_cache(&self, file: &str, content: &[u8]) {
        let write = |path: &Path| {
            let mut file = open_locked(path)?;
            // Half of it would be taken for all of it later; an empty one for none.
            replace(&mut file, content).or_else(|_| file.set_len(0))
        };
        // What can't be kept is asked for again.
        let _ = write(&self.cache.join(file));
    }
}

/// As the go command's `lockedfile` reads.
fn read_locked(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.lock_shared()?;
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(Some(content))
}

fn replace(file: &mut File, content: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(content)?;
    file.set_len(content.len() as u64)
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> BoxError {
    format!("can't {action} {}: {error}", path.display()).into()
}

fn open_locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gosumdb_names_a_database_by_its_key_or_by_a_known_name() {
        assert_eq!(SumDbConfig::parse("off"), Ok(None));
        let public = SumDbConfig::parse("sum.golang.org").unwrap().unwrap();
        assert_eq!((public.name.as_str(), public.base), ("sum.golang.org", None));
        let china = SumDbConfig::parse("sum.golang.google.cn").unwrap().unwrap();
        assert_eq!(china.name, "sum.golang.org");
        assert_eq!(china.base.unwrap().host_str(), Some("sum.golang.google.cn"));
        for wrong in ["", "nonsense", "sum.golang.org https://a b", "sum.golang.org ::"] {
            assert!(SumDbConfig::parse(wrong).is_err(), "{wrong}");
        }
    }
}
