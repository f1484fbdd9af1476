//! The shared compile cache, which the go command uses through the GOCACHEPROG protocol.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;
use velox_gocache::GoCacheStats;

use crate::{
    error::Error, event::CompileCacheStats, lock::TargetVariant, request::BuildRequest, toolchain::Toolchain,
};

/// The environment variable with the [`CompileCacheConfig`].
const CONFIG_VARIABLE: &str = "VX_COMPILE_CACHE";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration of the GOCACHEPROG process.
#[derive(Serialize, Deserialize)]
struct CompileCacheConfig {
    gocache: PathBuf,
    remote: Url,
    read_only: bool,
    namespace: String,
    stats: PathBuf,
}

/// The use of the shared compile cache by one compile.
pub(crate) struct CompileCacheSession {
    pub(crate) environment: Vec<(&'static str, String)>,
    stats: PathBuf,
}

/// The remote that the options, the environment or the manifest name.
fn remote(request: &BuildRequest) -> Result<Option<Url>, Error> {
    let variable = request.environment.get("VX_REMOTE_CACHE").filter(|value| !value.is_empty()).cloned();
    let configured = request.manifest.cache.remote.as_ref();
    let (text, span) = match request.options.cache.remote.clone().or(variable) {
        Some(text) => (text, None),
        None => match configured {
            Some(remote) => (remote.value.clone(), remote.span.clone()),
            None => return Ok(None),
        },
    };
    if matches!(text.as_str(), "" | "off" | "none") {
        return Ok(None);
    }
    // A directory is relative to the configuration file.
    let text =
        if text.contains("://") { text } else { request.base.join(text).to_string_lossy().into_owned() };
    velox_gocache::parse_remote(&text).map(Some).map_err(|error| {
        let mut failed = Error::configuration(error.to_string());
        if let Some(diagnostic) = failed.diagnostics.first_mut() {
            diagnostic.span = span;
        }
        failed
    })
}

/// Fails early if the remote is invalid.
pub(crate) fn check(request: &BuildRequest) -> Result<(), Error> {
    remote(request).map(drop)
}

pub(crate) fn is_wanted(request: &BuildRequest) -> bool {
    remote(request).is_ok_and(|remote| remote.is_some())
}

impl CompileCacheSession {
    /// `None`: no remote is configured. `Err`: it can't be used, for the reason in `trouble`.
    pub(crate) fn new(
        request: &BuildRequest,
        go: &Toolchain,
        go_version: &str,
        variant: &TargetVariant,
        scratch: &Path,
    ) -> Result<Option<Result<Self, CompileCacheStats>>, Error> {
        let Some(remote) = remote(request)? else { return Ok(None) };
        let unused = |why: &str| {
            Ok(Some(Err(CompileCacheStats { trouble: Some(why.to_owned()), ..CompileCacheStats::default() })))
        };
        let Some(program) = &request.options.cache.program else { return Ok(None) };
        if request.options.is_offline() && remote.scheme() != "file" {
            return unused("remote cache not used: --offline forbids it");
        }
        if !go.settings().gocacheprog.is_empty() {
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
            gocache: go.settings().gocache.clone(),
            remote,
            read_only: request.manifest.cache.read_only
                || request.environment.get("VX_REMOTE_CACHE_READ_ONLY").is_some_and(|value| value == "1"),
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

    /// The statistics of the finished compile.
    pub(crate) fn finish(&self) -> CompileCacheStats {
        let stats = std::fs::read_to_string(&self.stats).ok();
        let Some(stats) = stats.and_then(|text| serde_json::from_str::<GoCacheStats>(&text).ok()) else {
            let trouble = Some("the compile cache process exited early".to_owned());
            return CompileCacheStats { trouble, ..CompileCacheStats::default() };
        };
        let GoCacheStats { local_hits, remote_hits, misses, bytes_down, bytes_up, trouble, .. } = stats;
        CompileCacheStats { local_hits, remote_hits, misses, bytes_down, bytes_up, trouble }
    }
}

impl CompileCacheStats {
    pub(crate) fn add(&mut self, other: Self) {
        self.local_hits += other.local_hits;
        self.remote_hits += other.remote_hits;
        self.misses += other.misses;
        self.bytes_down += other.bytes_down;
        self.bytes_up += other.bytes_up;
        self.trouble = self.trouble.take().or(other.trouble);
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
    let CompileCacheConfig { gocache, remote, read_only, namespace, stats } = serde_json::from_str(text)
        .map_err(|error| Error::build(format!("failed to parse {CONFIG_VARIABLE}: {error}")))?;
    let options = velox_gocache::GoCacheOptions {
        gocache,
        remote: Some(remote),
        read_only,
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
