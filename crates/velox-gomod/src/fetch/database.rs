//! The checksum database that GOSUMDB names, with its state and its cache where the go command has them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tokio::runtime::Handle;
use url::Url;

use super::{Failure, Proxies, goproxy::Source};
use crate::sumdb::{Cause, Client, Lookup, note::Verifier};

/// The key of the public database, as the go command has it built in.
const PUBLIC: (&str, &str) =
    ("sum.golang.org", "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8");
/// The public database as it is reached from mainland China.
const CHINA: (&str, &str) = ("sum.golang.google.cn", "https://sum.golang.google.cn");

/// What GOSUMDB says (<https://go.dev/ref/mod#environment-variables>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumDb {
    key: String,
    name: String,
    /// Given, and asked past all proxies.
    base: Option<Url>,
}

/// A GOSUMDB that is neither `off` nor a database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("GOSUMDB is neither `off` nor a database's key, with or without a URL: {0}")]
pub struct SumDbError(String);

impl SumDb {
    /// Reads the value that `go env GOSUMDB` gives; `None` for `off`.
    ///
    /// # Errors
    /// A value that names no database.
    pub fn parse(text: &str) -> Result<Option<Self>, SumDbError> {
        if text == "off" {
            return Ok(None);
        }
        let mut fields = text.split_ascii_whitespace();
        let wrong = |why: &str| SumDbError(why.to_owned());
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

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is asked: at the first proxy that says that it passes questions on to the database, else at the database
    /// itself (<https://go.dev/design/25530-sumdb#proxying-a-checksum-database>).
    pub(super) async fn base(&self, proxies: &Proxies) -> Result<Url, String> {
        if let Some(base) = &self.base {
            return Ok(base.clone());
        }
        let name = &self.name;
        for entry in &proxies.list.0 {
            let Source::Proxy(proxy) = &entry.source else { break };
            match proxies.read(proxy, &format!("sumdb/{name}/supported")).await {
                Ok(_) => {
                    return Url::parse(&format!("{}/sumdb/{name}", trimmed(proxy)))
                        .map_err(|e| e.to_string());
                }
                Err(Failure::NotFound(_)) => {}
                Err(_) if entry.after_any_error => {}
                Err(failure) => return Err(format!("{}: {failure}", super::host(proxy))),
            }
        }
        Url::parse(&format!("https://{name}")).map_err(|error| error.to_string())
    }
}

/// A database with a way to ask it.
pub(super) struct Database(Client<Outside>);

struct Outside {
    settings: SumDb,
    proxies: Proxies,
    /// `$GOPATH/pkg/sumdb`
    state: PathBuf,
    /// `GOMODCACHE/cache/download/sumdb`
    cache: PathBuf,
    base: OnceLock<Result<Url, String>>,
    runtime: Handle,
}

impl Database {
    pub(super) fn new(settings: SumDb, proxies: Proxies, state: PathBuf, cache: PathBuf) -> Self {
        let (base, runtime) = (OnceLock::new(), Handle::current());
        Self(Client::new(Outside { settings, proxies, state, cache, base, runtime }))
    }

    /// The sums of a module version (with `/go.mod` behind it: of its go.mod). Blocks: never to be called from a task.
    pub(super) fn sums(&self, path: &str, version: &str) -> Result<Vec<String>, crate::sumdb::Error> {
        let lines = self.0.lookup(path, version)?;
        Ok(lines.iter().filter_map(|line| line.split_ascii_whitespace().nth(2)).map(str::to_owned).collect())
    }
}

impl Outside {
    fn base(&self) -> Result<Url, String> {
        let find = || self.runtime.block_on(self.settings.base(&self.proxies));
        self.base.get_or_init(find).clone()
    }
}

fn trimmed(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

impl Lookup for Outside {
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, Cause> {
        let base = self.base()?;
        let path = path.trim_start_matches('/');
        let answer = self.runtime.block_on(self.proxies.read(&base, path));
        answer.map_err(|failure| format!("{}: {failure}", super::host(&base)).into())
    }

    fn read_config(&self, file: &str) -> Result<Vec<u8>, Cause> {
        if file == "key" {
            return Ok(self.settings.key.clone().into_bytes());
        }
        let path = self.state.join(file);
        Ok(read_locked(&path).map_err(|error| cannot("read", &path, &error))?.unwrap_or_default())
    }

    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, Cause> {
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

fn cannot(action: &str, path: &Path, error: &io::Error) -> Cause {
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
        assert_eq!(SumDb::parse("off"), Ok(None));
        let public = SumDb::parse("sum.golang.org").unwrap().unwrap();
        assert_eq!((public.name.as_str(), public.base), ("sum.golang.org", None));
        let china = SumDb::parse("sum.golang.google.cn").unwrap().unwrap();
        assert_eq!(china.name, "sum.golang.org");
        assert_eq!(china.base.unwrap().host_str(), Some("sum.golang.google.cn"));
        for wrong in ["", "nonsense", "sum.golang.org https://a b", "sum.golang.org ::"] {
            assert!(SumDb::parse(wrong).is_err(), "{wrong}");
        }
    }
}
