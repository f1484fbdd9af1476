use std::collections::BTreeMap;

use velox_manifest::{BuildArgs, Dependencies, GoTarget, Manifest};

use crate::request::BuildOptions;

/// What the manifest and the flags say together; flags win.
#[derive(Debug, Clone)]
pub(crate) struct BuildSettings {
    /// At least one, none twice.
    pub(crate) targets: Vec<GoTarget>,
    pub(crate) debug: bool,
    pub(crate) race: bool,
    pub(crate) strict: bool,
    pub(crate) cgo: bool,
    pub(crate) dependencies: Option<Dependencies>,
    pub(crate) arguments: BuildArgs,
}

impl BuildSettings {
    pub(crate) fn new(
        manifest: &Manifest,
        options: &BuildOptions,
        environment: &BTreeMap<String, String>,
    ) -> Self {
        let race = options.compile.race || manifest.build_args.race;
        // The race detector is a C library: https://go.dev/doc/articles/race_detector#Requirements
        let cgo = race || environment.get("CGO_ENABLED").is_some_and(|value| value == "1");
        let mut targets: Vec<GoTarget> = Vec::new();
        let asked = if options.compile.targets.is_empty() {
            manifest.targets.iter().map(|target| target.value.clone()).collect()
        } else {
            options.compile.targets.clone()
        };
        for target in asked {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if targets.is_empty() {
            targets.push(GoTarget::host());
        }
        Self {
            targets,
            debug: options.compile.debug || manifest.debug,
            race,
            strict: options.versions.strict || manifest.strict,
            cgo,
            dependencies: options.versions.dependencies.or(manifest.roadrunner.dependencies),
            arguments: manifest.build_args.clone(),
        }
    }

    /// Symbols go, unless someone wants to debug.
    pub(crate) fn strip(&self) -> bool {
        !self.debug && self.arguments.strip.unwrap_or(true)
    }

    /// What the compiler is told, as an argument of `go build`.
    pub(crate) fn compiler_flags(&self) -> Option<&'static str> {
        if self.debug {
            // As Velox does it: a main package that a debugger can step through.
            Some("-gcflags=-N -l")
        } else if self.strip() {
            // What the linker would leave out needn't be made: a third of the compile goes into it.
            Some("-gcflags=all=-dwarf=false")
        } else {
            None
        }
    }

    /// The build tags; the profiler of RoadRunner's own `debug` tag comes with debug symbols, as Velox has it.
    pub(crate) fn tags(&self) -> Vec<String> {
        let mut tags = self.arguments.tags.clone();
        if self.debug && !tags.iter().any(|tag| tag == "debug") {
            tags.push("debug".to_owned());
        }
        tags
    }

    /// The name of the binary for a target: it carries the target where there are several.
    pub(crate) fn binary_name(&self, target: &GoTarget) -> String {
        let extension = if target.os == "windows" { ".exe" } else { "" };
        match self.targets.as_slice() {
            [_] => format!("rr{extension}"),
            _ => format!("rr-{}-{}{extension}", target.os, target.arch),
        }
    }
}
