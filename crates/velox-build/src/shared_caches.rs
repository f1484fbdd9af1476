//! The settings of the caches that machines share.

use std::ops::Range;

use url::Url;

use crate::{error::Error, request::BuildRequest};

/// The shared caches of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedCaches {
    /// In the order in which they are asked.
    pub(crate) remotes: Vec<Url>,
    /// Whether the first one gets no uploads; the others never get any.
    pub(crate) read_only: bool,
    /// Whether they keep finished binaries.
    pub(crate) artifacts: bool,
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
        Ok(Self {
            remotes,
            read_only: manifest.cache.read_only || read_only,
            artifacts: manifest.cache.artifacts,
        })
    }

    /// Those that a build may use: with `--offline`, directories.
    pub(crate) fn usable<'a>(&'a self, request: &BuildRequest) -> impl Iterator<Item = &'a Url> + use<'a> {
        let is_offline = request.options.is_offline();
        self.remotes.iter().filter(move |remote| !is_offline || remote.scheme() == "file")
    }

    /// The one that gets uploads, if the build may use it.
    pub(crate) fn first_usable(&self, request: &BuildRequest) -> Option<&Url> {
        self.usable(request).next().filter(|first| Some(*first) == self.remotes.first())
    }
}

/// A location from the configuration or the command line; a directory is relative to the configuration file.
fn location(request: &BuildRequest, text: &str, span: Option<Range<usize>>) -> Result<Url, Error> {
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => request.base.join(text).to_string_lossy().into_owned(),
    };
    velox_gocache::parse_remote(&text).map_err(|error| {
        let mut failed = Error::configuration(error.to_string());
        if let Some(diagnostic) = failed.diagnostics.first_mut() {
            diagnostic.span = span;
        }
        failed
    })
}
