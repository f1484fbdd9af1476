use std::collections::BTreeMap;

use velox_manifest::{BuildArgs, Dependencies, GoTarget, Manifest};

use crate::Options;

/// What the manifest and the flags say together; flags win.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) target: GoTarget,
    pub(crate) debug: bool,
    pub(crate) race: bool,
    pub(crate) strict: bool,
    pub(crate) cgo: bool,
    pub(crate) dependencies: Option<Dependencies>,
    pub(crate) arguments: BuildArgs,
}

impl Settings {
    pub(crate) fn new(
        manifest: &Manifest,
        options: &Options,
        environment: &BTreeMap<String, String>,
        host: GoTarget,
    ) -> Self {
        let race = options.race || manifest.build_args.race;
        // The race detector is a C library: https://go.dev/doc/articles/race_detector#Requirements
        let cgo = race || environment.get("CGO_ENABLED").is_some_and(|value| value == "1");
        Self {
            target: options
                .target
                .clone()
                .or_else(|| manifest.target.as_ref().map(|target| target.value.clone()))
                .unwrap_or(host),
            debug: options.debug || manifest.debug,
            race,
            strict: options.strict || manifest.strict,
            cgo,
            dependencies: options.dependencies.or(manifest.roadrunner.dependencies),
            arguments: manifest.build_args.clone(),
        }
    }

    /// Symbols go, unless someone wants to debug.
    pub(crate) fn strip(&self) -> bool {
        !self.debug && self.arguments.strip.unwrap_or(true)
    }

    /// The name of the binary for the target.
    pub(crate) fn binary_name(&self) -> &'static str {
        if self.target.os == "windows" { "rr.exe" } else { "rr" }
    }
}
