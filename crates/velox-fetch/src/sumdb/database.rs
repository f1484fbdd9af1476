use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tokio::runtime::Handle;
use url::Url;

use super::{
    SumDbConfig, SumDbError,
    client::{ClientOps, IoError, SumDbClient},
};
use crate::proxy::{ProxyClient, proxy_host};

/// A client of the configured checksum database that shares the go command's state and cache.
pub(crate) struct ChecksumDatabase(SumDbClient<SumDbStorage>);

struct SumDbStorage {
    config: SumDbConfig,
    proxies: ProxyClient,
    /// `$GOPATH/pkg/sumdb`
    state: PathBuf,
    /// `GOMODCACHE/cache/download/sumdb`
    cache: PathBuf,
    base: OnceLock<Result<Url, String>>,
    runtime: Handle,
}

impl ChecksumDatabase {
    pub(crate) fn new(config: SumDbConfig, proxies: ProxyClient, state: PathBuf, cache: PathBuf) -> Self {
        let (base, runtime) = (OnceLock::new(), Handle::current());
        Self(SumDbClient::new(SumDbStorage { config, proxies, state, cache, base, runtime }))
    }

    /// The checksums of a module version, or of its go.mod with `VERSION/go.mod`; never empty. Blocks the
    /// thread, so it must not be called from an async task.
    pub(crate) fn sums(&self, path: &str, version: &str) -> Result<Vec<String>, SumDbError> {
        let lines = self.0.lookup(path, version)?;
        let sums: Vec<_> =
            lines.iter().filter_map(|line| Some(line.split_ascii_whitespace().nth(2)?.to_owned())).collect();
        if sums.is_empty() { Err(SumDbError::NoSum(format!("{path}@{version}"))) } else { Ok(sums) }
    }
}

impl ClientOps for SumDbStorage {
    fn read_remote(&self, path: &str) -> Result<Vec<u8>, IoError> {
        let find = || self.runtime.block_on(self.config.base_url(&self.proxies));
        let base = self.base.get_or_init(find).clone()?;
        let path = path.trim_start_matches('/');
        let answer = self.runtime.block_on(self.proxies.read(&base, path));
        answer.map_err(|error| format!("{}: {error}", proxy_host(&base)).into())
    }

    fn read_config(&self, file: &str) -> Result<Vec<u8>, IoError> {
        if file == "key" {
            return Ok(self.config.key().to_owned().into_bytes());
        }
        let path = self.state.join(file);
        Ok(read_locked(&path).map_err(|error| failed("read", &path, &error))?.unwrap_or_default())
    }

    fn write_config(&self, file: &str, old: &[u8], new: &[u8]) -> Result<bool, IoError> {
        let path = self.state.join(file);
        let write = || {
            let mut file = open_locked(&path)?;
            let mut known = Vec::new();
            file.read_to_end(&mut known)?;
            if !known.is_empty() && known != old {
                return Ok(false);
            }
            if let Err(error) = replace(&mut file, new) {
                // Restore the old content, which fits even on a full disk.
                let _ = replace(&mut file, &known);
                return Err(error);
            }
            Ok(true)
        };
        write().map_err(|error| failed("write", &path, &error))
    }

    fn read_cache(&self, file: &str) -> Option<Vec<u8>> {
        // An empty file was just created by another process.
        read_locked(&self.cache.join(file)).ok()?.filter(|content| !content.is_empty())
    }

    fn write_cache(&self, file: &str, content: &[u8]) {
        let write = |path: &Path| {
            let mut file = open_locked(path)?;
            // Truncate after a failed write: empty files are ignored, partial ones aren't.
            replace(&mut file, content).or_else(|_| file.set_len(0))
        };
        let _ = write(&self.cache.join(file));
    }
}

/// Reads a file under the lock of the go command's `lockedfile` package.
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

fn failed(action: &str, path: &Path, error: &io::Error) -> IoError {
    format!("failed to {action} `{}`: {error}", path.display()).into()
}

fn open_locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}
