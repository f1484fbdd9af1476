//! The compile cache that a team shares: for the go command it is a program that speaks GOCACHEPROG.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;
use velox_gocache::Stats;

use crate::{
    error::Error, event::CompileCacheStats, lock::TargetVariant, request::BuildRequest, toolchain::Toolchain,
};

/// The variable that carries [`CompileCacheConfig`] to the program.
const VARIABLE: &str = "VX_COMPILE_CACHE";
/// How long the remote may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a build waits at its end for what is still to be sent.
const FLUSH: Duration = Duration::from_secs(30);

/// What the program is told.
#[derive(Serialize, Deserialize)]
struct CompileCacheConfig {
    gocache: PathBuf,
    remote: Url,
    read_only: bool,
    namespace: String,
    stats: PathBuf,
}

/// How one compile is told to use it.
pub(crate) struct CompileCacheSession {
    pub(crate) environment: Vec<(&'static str, String)>,
    stats: PathBuf,
}

/// The remote that flags, the environment or the configuration name.
///
/// # Errors
/// One that is none.
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
    // A directory may be named as seen from the configuration.
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

/// Finds out early whether the configuration names a remote that is none.
pub(crate) fn check(request: &BuildRequest) -> Result<(), Error> {
    remote(request).map(drop)
}

/// Whether there is a remote to look for compiled packages in.
pub(crate) fn is_wanted(request: &BuildRequest) -> bool {
    remote(request).is_ok_and(|remote| remote.is_some())
}

impl CompileCacheSession {
    /// `None`: no remote is wanted. Where one is and can't be used, the answer's trouble says why, and the compile goes
    /// on without.
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
            return unused("the remote isn't used, since --offline forbids it");
        }
        if !go.settings().gocacheprog.is_empty() {
            return unused("GOCACHEPROG is set: your own program is used, not the remote");
        }
        // https://go.dev/doc/go1.24#go-command
        if !speaks_gocacheprog(go_version) {
            return unused("the remote isn't used: that needs Go 1.24 or newer");
        }
        let Some(program) = quoted(&program.to_string_lossy()) else {
            return unused("the remote isn't used: the path of vx has both kinds of quotes");
        };
        let stats = scratch.join(format!("cache-{}-{}.json", variant.target.os, variant.target.arch));
        let instructions = CompileCacheConfig {
            gocache: go.settings().gocache.clone(),
            remote,
            read_only: request.manifest.cache.read_only
                || request.environment.get("VX_REMOTE_CACHE_READ_ONLY").is_some_and(|value| value == "1"),
            namespace: format!("{go_version}-{}-{}", variant.target.os, variant.target.arch),
            stats: stats.clone(),
        };
        let instructions = serde_json::to_string(&instructions)
            .map_err(|error| Error::build(format!("can't instruct the compile cache: {error}")))?;
        let environment = vec![("GOCACHEPROG", format!("{program} compile-cache")), (VARIABLE, instructions)];
        Ok(Some(Ok(Self { environment, stats })))
    }

    /// What it did, once the compile is over.
    pub(crate) fn finish(&self) -> CompileCacheStats {
        let stats = std::fs::read_to_string(&self.stats).ok();
        let Some(stats) = stats.and_then(|text| serde_json::from_str::<Stats>(&text).ok()) else {
            let trouble = Some("the compile cache ended early".to_owned());
            return CompileCacheStats { trouble, ..CompileCacheStats::default() };
        };
        let Stats { local_hits, remote_hits, misses, bytes_down, bytes_up, trouble, .. } = stats;
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

/// Serves the go command that this process is the GOCACHEPROG of.
///
/// # Errors
/// A process that no build of ours started, and a GOCACHE that can't be used.
pub async fn serve_compile_cache(
    environment: BTreeMap<String, String>,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), Error> {
    let text = environment.get(VARIABLE).ok_or_else(|| {
        Error::configuration("this command is for the go command, which `vx build` tells to run it")
    })?;
    let CompileCacheConfig { gocache, remote, read_only, namespace, stats } = serde_json::from_str(text)
        .map_err(|error| Error::build(format!("can't read {VARIABLE}: {error}")))?;
    let options = velox_gocache::Options {
        gocache,
        remote: Some(remote),
        read_only,
        namespace,
        environment,
        timeout: ANSWER,
        flush: FLUSH,
    };
    let did = velox_gocache::serve(options, stdin, stdout)
        .await
        .map_err(|error| Error::build(format!("the compile cache failed: {error}")))?;
    let text = serde_json::to_string(&did).unwrap_or_default();
    std::fs::write(&stats, text).map_err(|error| Error::file("write", &stats, &error))
}

/// `go1.24` and later, prereleases included; what isn't a release is new.
fn speaks_gocacheprog(version: &str) -> bool {
    let Some(rest) = version.strip_prefix("go1.") else { return true };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().map_or(true, |minor| minor >= 24)
}

/// A field as the go command splits GOCACHEPROG: quotes of one kind around it, and no escapes.
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
            assert_eq!(speaks_gocacheprog(version), expected, "{version}");
        }
    }

    #[test]
    fn a_path_with_spaces_is_one_field() {
        assert_eq!(quoted("/a b/vx").as_deref(), Some("'/a b/vx'"));
        assert_eq!(quoted("/it's/vx").as_deref(), Some("\"/it's/vx\""));
        assert_eq!(quoted("/'\"/vx"), None);
    }
}
