//! The caches that machines share: their settings, and what a build has found out about them.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use url::Url;

use velox_gocache::{ArtifactName, RemoteArtifactError, is_registry, registry_reference};
use velox_manifest::Diagnostic;

use crate::{
    error::Error,
    event::CompileCacheStats,
    keys::verifying::VerifyingKey,
    request::{BuildRequest, PublicCaches},
};

/// The shared caches of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedCaches {
    /// In the order in which they are asked.
    pub(crate) remotes: Vec<Url>,
    /// Whether the first one gets no uploads; the others never get any.
    pub(crate) read_only: bool,
    /// Whether they keep finished binaries.
    pub(crate) artifacts: bool,
    /// The key in PEM that verifies caches in registries.
    pub(crate) trusted_key: Option<String>,
}

impl SharedCaches {
    /// The caches that the options, the environment or the manifest name.
    ///
    /// # Errors
    /// An invalid location.
    pub(crate) fn of(request: &BuildRequest) -> Result<Self, Error> {
        let BuildRequest { options, environment, manifest, .. } = request;
        let variable = environment.get("VX_REMOTE_CACHE").filter(|value| !value.is_empty()).cloned();
        let remotes = match options.cache.remote.clone().or(variable) {
            Some(text) if matches!(text.as_str(), "" | "off" | "none") => Vec::new(),
            Some(text) => vec![location(request, &text, None)?],
            None => manifest
                .cache
                .remotes
                .iter()
                .filter(|remote| !matches!(remote.value.as_str(), "off" | "none"))
                .map(|remote| location(request, &remote.value, remote.span.clone()))
                .collect::<Result<_, _>>()?,
        };
        let read_only = environment.get("VX_REMOTE_CACHE_READ_ONLY").is_some_and(|value| value == "1");
        let mut trusted_key = trusted_key(request)?;
        let unpinned = |remote: &&Url| {
            is_registry(remote) && registry_reference(remote).is_ok_and(|it| it.digest().is_none())
        };
        if let Some(remote) = remotes.iter().find(unpinned)
            && trusted_key.is_none()
        {
            let known = options.cache.public_caches.as_ref().filter(|public| public.has(remote));
            let Some(known) = known else {
                let named = manifest.cache.remotes.iter().find(|it| it.value == remote.as_str());
                let error = Diagnostic::error(format!(
                    "the cache {remote} has neither a digest nor a trusted key"
                ))
                .at(named.and_then(|remote| remote.span.clone()))
                .label("anybody who can move this tag decides what you build")
                .help("add the digest that `vx cache publish` printed: oci://REGISTRY/NAME:TAG@sha256:…")
                .help(
                    "or set trusted_key in [cache] (VX_REMOTE_CACHE_KEY) to the public key of its publisher",
                );
                return Err(error.into());
            };
            trusted_key = Some(known.trusted_key.clone());
        }
        Ok(Self {
            remotes,
            trusted_key,
            read_only: manifest.cache.read_only || read_only,
            artifacts: manifest.cache.artifacts,
        })
    }

    /// Those that a build may use: with `--offline`, directories.
    pub(crate) fn usable<'a>(&'a self, request: &BuildRequest) -> impl Iterator<Item = &'a Url> + use<'a> {
        let is_offline = request.options.is_offline();
        self.remotes.iter().filter(move |remote| !is_offline || remote.scheme() == "file")
    }

    /// The one that gets uploads, if the build may use it; caches in registries never get any.
    pub(crate) fn first_usable(&self, request: &BuildRequest) -> Option<&Url> {
        let is_first = |first: &&Url| Some(*first) == self.remotes.first() && !is_registry(first);
        self.usable(request).next().filter(is_first)
    }
}

/// What this build knows about the binaries in its shared caches.
#[derive(Debug, Default)]
pub(crate) struct SharedArtifacts {
    state: Mutex<SharedState>,
}

/// The state of [`SharedArtifacts`].
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    pub(crate) stats: CompileCacheStats,
    pub(crate) asked: BTreeSet<ArtifactName>,
    /// Caches that failed: nothing else is requested from them.
    pub(crate) failed: BTreeSet<Url>,
    /// Binaries that the first cache has, but damaged.
    pub(crate) damaged: BTreeSet<ArtifactName>,
}

impl SharedArtifacts {
    pub(crate) fn state(&self) -> MutexGuard<'_, SharedState> {
        // A panic never leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statistics so far; `None`: no cache was used.
    pub(crate) fn stats(&self) -> Option<CompileCacheStats> {
        let stats = self.state().stats.clone();
        (stats != CompileCacheStats::default()).then_some(stats)
    }

    /// Whether a cache failed.
    pub(crate) fn has_failed(&self, remote: &Url) -> bool {
        self.state().failed.contains(remote)
    }

    /// Records caches that failed.
    pub(crate) fn add_failed(&self, remotes: impl IntoIterator<Item = Url>) {
        self.state().failed.extend(remotes);
    }

    pub(crate) fn trouble(&self, remote: &Url, error: &RemoteArtifactError) {
        let mut state = self.state();
        let text = match error {
            RemoteArtifactError::Remote(why) => {
                state.failed.insert(remote.clone());
                format!("remote cache disabled: {why}")
            }
            _ => error.to_string(),
        };
        state.stats.add_trouble(text);
    }
}

impl PublicCaches {
    fn has(&self, remote: &Url) -> bool {
        let reference = registry_reference(remote);
        reference.is_ok_and(|it| format!("{}/{}", it.registry(), it.repository()) == self.repository)
    }

    /// The cache of a RoadRunner release, if there is one.
    pub(crate) fn of_release(&self, version: &str) -> Option<String> {
        let is_published = self.releases.iter().any(|release| release == version);
        is_published.then(|| format!("oci://{}:{version}", self.repository))
    }
}

/// The key that the environment or the manifest names, in PEM.
fn trusted_key(request: &BuildRequest) -> Result<Option<String>, Error> {
    let variable = request.environment.get("VX_REMOTE_CACHE_KEY").filter(|value| !value.is_empty());
    let (text, span) = match (variable, &request.manifest.cache.trusted_key) {
        (Some(text), _) => (text, None),
        (None, Some(key)) => (&key.value, key.span.clone()),
        (None, None) => return Ok(None),
    };
    let placed = |error: Error| error.at(&span);
    let pem = if text.trim_start().starts_with("-----BEGIN") {
        VerifyingKey::parse("in trusted_key", text.as_bytes()).map_err(placed)?;
        text.clone()
    } else {
        let path = request.base.join(text);
        VerifyingKey::read(&path).map_err(placed)?;
        std::fs::read_to_string(&path).map_err(|error| Error::file("read", &path, &error))?
    };
    Ok(Some(pem))
}

/// A location from the configuration or the command line; a directory is relative to the configuration file.
fn location(request: &BuildRequest, text: &str, span: Option<Range<usize>>) -> Result<Url, Error> {
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => request.base.join(text).to_string_lossy().into_owned(),
    };
    velox_gocache::parse_cache(&text).map_err(|error| {
        let mut failed = Error::configuration(error.to_string());
        if let Some(diagnostic) = failed.diagnostics.first_mut() {
            diagnostic.span = span;
        }
        failed
    })
}
