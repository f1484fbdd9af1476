//! The shared compile cache, which the go command uses through the GOCACHEPROG protocol.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;
use velox_gocache::{GoCacheStats, SignatureVerifier};

use crate::{
    error::Error, event::CompileCacheStats, keys::verifying::VerifyingKey, lock::TargetVariant,
    request::BuildRequest, shared_caches::SharedCaches, toolchain::Toolchain,
};

/// The environment variable with the [`CompileCacheConfig`].
const CONFIG_VARIABLE: &str = "VX_COMPILE_CACHE";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration of the GOCACHEPROG process.
#[derive(Serialize, Deserialize)]
struct CompileCacheConfig {
    gocache: PathBuf,
    remotes: Vec<Url>,
    read_only: bool,
    trusted_key: Option<String>,
    namespace: String,
    stats: PathBuf,
}

/// The use of the shared compile cache by one compile.
pub(crate) struct CompileCacheSession {
    pub(crate) environment: Vec<(&'static str, String)>,
    stats: PathBuf,
}

impl CompileCacheSession {
    /// `None`: no remote is configured. `Err`: it can't be used, for the reason in `trouble`.
    pub(crate) fn new(
        request: &BuildRequest,
        has_failed: &dyn Fn(&Url) -> bool,
        go: &Toolchain,
        go_version: &str,
        variant: &TargetVariant,
        scratch: &Path,
    ) -> Result<Option<Result<Self, CompileCacheStats>>, Error> {
        let caches = SharedCaches::of(request)?;
        if caches.remotes.is_empty() {
            return Ok(None);
        }
        let unused = |why: &str| {
            Ok(Some(Err(CompileCacheStats { trouble: Some(why.to_owned()), ..CompileCacheStats::default() })))
        };
        let Some(program) = &request.options.cache.program else { return Ok(None) };
        let mut remotes: Vec<Url> = caches.usable(request).cloned().collect();
        if remotes.is_empty() {
            return unused("remote cache not used: --offline forbids it");
        }
        // The first one gets the uploads.
        let read_only = caches.read_only || caches.first_usable(request).is_none_or(has_failed);
        remotes.retain(|remote| !has_failed(remote));
        if remotes.is_empty() {
            // The reason is known already.
            return Ok(Some(Err(CompileCacheStats::default())));
        }
        if !go.settings.gocacheprog.is_empty() {
            return unused("remote cache not used: GOCACHEPROG is set");
        }
        // https://go.dev/doc/go1.24#go-command
        if !supports_gocacheprog(go_version) {
            return unused("remote cache not used: it requires Go 1.24 or newer");
        }
        let Some(program) = quoted(&program.to_string_lossy()) else {
            return unused("remote cache not used: the path of vx contains single and double quotes");
        };
        let stats = scratch.join(format!("cache-{}-{}.json", variant.target.os, variant.target.arch));
        let config = CompileCacheConfig {
            gocache: go.settings.gocache.clone(),
            remotes,
            read_only,
            trusted_key: caches.trusted_key.clone(),
            namespace: format!("{go_version}-{}-{}", variant.target.os, variant.target.arch),
            stats: stats.clone(),
        };
        let config = serde_json::to_string(&config).map_err(|error| {
            Error::build(format!("internal error: failed to configure the compile cache: {error}"))
        })?;
        let environment =
            vec![("GOCACHEPROG", format!("{program} compile-cache")), (CONFIG_VARIABLE, config)];
        Ok(Some(Ok(Self { environment, stats })))
    }

    /// The statistics of the finished compile, and the remotes that failed.
    pub(crate) fn finish(&self) -> (CompileCacheStats, Vec<Url>) {
        let stats = std::fs::read_to_string(&self.stats).ok();
        let Some(stats) = stats.and_then(|text| serde_json::from_str::<GoCacheStats>(&text).ok()) else {
            let trouble = Some("the compile cache process exited early".to_owned());
            return (CompileCacheStats { trouble, ..CompileCacheStats::default() }, Vec::new());
        };
        let GoCacheStats { local_hits, remote_hits, misses, bytes_down, bytes_up, trouble, disabled, .. } =
            stats;
        let stats =
            CompileCacheStats { binaries: 0, local_hits, remote_hits, misses, bytes_down, bytes_up, trouble };
        (stats, disabled)
    }
}

impl CompileCacheStats {
    pub(crate) fn add(&mut self, other: Self) {
        self.binaries += other.binaries;
        self.local_hits += other.local_hits;
        self.remote_hits += other.remote_hits;
        self.misses += other.misses;
        self.bytes_down += other.bytes_down;
        self.bytes_up += other.bytes_up;
        if let Some(trouble) = other.trouble {
            self.add_trouble(trouble);
        }
    }

    pub(crate) fn add_trouble(&mut self, trouble: String) {
        self.trouble = Some(match self.trouble.take() {
            Some(known) if known.contains(&trouble) => known,
            Some(known) => format!("{known}; {trouble}"),
            None => trouble,
        });
    }
}

/// Runs the GOCACHEPROG process of a go command.
///
/// # Errors
/// It was not started by a build of vx, or GOCACHE can't be used.
pub async fn serve_compile_cache(
    environment: BTreeMap<String, String>,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), Error> {
    let text = environment
        .get(CONFIG_VARIABLE)
        .ok_or_else(|| Error::configuration("this command is run by the go command during `vx build`"))?;
    let CompileCacheConfig { gocache, remotes, read_only, trusted_key, namespace, stats } =
        serde_json::from_str(text)
            .map_err(|error| Error::build(format!("failed to parse {CONFIG_VARIABLE}: {error}")))?;
    let trusted_key =
        trusted_key.map(|pem| VerifyingKey::parse("of the cache", pem.as_bytes())).transpose()?;
    let trusted_key = trusted_key.map(|key| {
        SignatureVerifier(Arc::new(move |message: &[u8], signature: &[u8]| key.verifies(message, signature)))
    });
    let options = velox_gocache::GoCacheOptions {
        gocache,
        remotes,
        read_only,
        trusted_key,
        namespace,
        environment,
        timeout: REQUEST_TIMEOUT,
        flush: FLUSH_TIMEOUT,
    };
    let report = velox_gocache::serve(options, stdin, stdout)
        .await
        .map_err(|error| Error::build(format!("the compile cache failed: {error}")))?;
    let text = serde_json::to_string(&report).unwrap_or_default();
    std::fs::write(&stats, text).map_err(|error| Error::file("write", &stats, &error))
}

/// Go 1.24 and later, with its prereleases, and development versions.
fn supports_gocacheprog(version: &str) -> bool {
    let Some(rest) = version.strip_prefix("go1.") else { return true };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().map_or(true, |minor| minor >= 24)
}

/// Quotes a field of GOCACHEPROG: the go command knows no escapes.
fn quoted(field: &str) -> Option<String> {
    match (field.contains('\''), field.contains('"')) {
        (false, _) => Some(format!("'{field}'")),
        (true, false) => Some(format!("\"{field}\"")),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gocacheprog_came_with_go_1_24() {
        for (version, expected) in [
            ("go1.23.9", false),
            ("go1.24", true),
            ("go1.24rc1", true),
            ("go1.26.8", true),
            ("devel x", true),
        ] {
            assert_eq!(supports_gocacheprog(version), expected, "{version}");
        }
    }

    #[test]
    fn a_path_with_spaces_is_one_field() {
        assert_eq!(quoted("/a b/vx").as_deref(), Some("'/a b/vx'"));
        assert_eq!(quoted("/it's/vx").as_deref(), Some("\"/it's/vx\""));
        assert_eq!(quoted("/'\"/vx"), None);
    }
}
