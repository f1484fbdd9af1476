use std::{collections::BTreeMap, path::PathBuf};

use velox_manifest::{BuildArgs, Dependencies, Diagnostic, GoTarget, Manifest};

use crate::{
    error::Error,
    go_variables::{GoVariable, GoVariables, InstructionSet},
    request::{BuildOptions, BuildRequest},
};

/// The effective settings: the manifest, overridden by the options. The environment has the defaults.
#[derive(Debug, Clone)]
pub(crate) struct BuildSettings {
    /// Not empty, without duplicates.
    pub(crate) targets: Vec<GoTarget>,
    pub(crate) debug: bool,
    pub(crate) race: bool,
    pub(crate) strict: bool,
    pub(crate) cgo: bool,
    pub(crate) dependencies: Option<Dependencies>,
    pub(crate) arguments: BuildArgs,
    /// The instruction sets that are not the default.
    pub(crate) instruction_sets: Vec<InstructionSet>,
    /// The Go variables that decided about the binaries.
    pub(crate) variables: Vec<GoVariable>,
    /// GOMODCACHE, if it is known without the go command.
    pub(crate) module_cache: Option<PathBuf>,
    /// A warning about Go variables without an effect.
    pub(crate) ignored: Option<Diagnostic>,
}

impl BuildRequest {
    /// The targets of the build.
    ///
    /// # Errors
    /// An invalid Go variable.
    pub fn targets(&self) -> Result<Vec<GoTarget>, Error> {
        BuildSettings::new(&self.manifest, &self.options, &self.environment).map(|settings| settings.targets)
    }

    /// The Go variables that decide about the binaries.
    ///
    /// # Errors
    /// An invalid Go variable.
    pub fn go_variables(&self) -> Result<Vec<GoVariable>, Error> {
        BuildSettings::new(&self.manifest, &self.options, &self.environment)
            .map(|settings| settings.variables)
    }
}

impl BuildSettings {
    pub(crate) fn new(
        manifest: &Manifest,
        options: &BuildOptions,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let go_variables = GoVariables::read(environment);
        let mut variables = Vec::new();
        let race = options.compile.race || manifest.build_args.race || manifest.debug.race;
        // The race detector is a C library: https://go.dev/doc/articles/race_detector#Requirements
        let cgo = go_variables.cgo()?;
        let mut targets: Vec<GoTarget> = Vec::new();
        let requested = if options.compile.targets.is_empty() {
            manifest.targets.iter().map(|target| target.value.clone()).collect()
        } else {
            options.compile.targets.clone()
        };
        for target in requested {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if targets.is_empty() {
            let (target, decided) = go_variables.target()?.unwrap_or_else(|| (GoTarget::host(), Vec::new()));
            targets.push(target);
            variables.extend(decided);
        }
        let mut instruction_sets = Vec::new();
        for (set, variable) in go_variables.instruction_sets()? {
            if targets.iter().any(|target| set.applies_to(target)) {
                instruction_sets.push(set);
                variables.push(variable);
            }
        }
        let with_cgo = race || cgo.is_some();
        variables.extend(cgo.filter(|_| !race));
        Ok(Self {
            targets,
            debug: options.compile.debug || manifest.debug.enabled,
            race,
            strict: options.versions.strict || manifest.strict,
            cgo: with_cgo,
            dependencies: options.versions.dependencies.or(manifest.roadrunner.dependencies),
            arguments: manifest.build_args.clone(),
            instruction_sets,
            variables,
            module_cache: go_variables.module_cache(),
            ignored: go_variables.ignored(),
        })
    }

    /// Symbols are removed unless debugging is enabled.
    pub(crate) fn strip(&self) -> bool {
        !self.debug && self.arguments.strip.unwrap_or(true)
    }

    /// The compiler flags, as one argument of `go build`.
    pub(crate) fn compiler_flags(&self) -> Option<&'static str> {
        if self.debug {
            // All packages: breakpoints are mostly set in plugins.
            Some("-gcflags=all=-N -l")
        } else if self.strip() {
            // The linker would drop the debug information; generating it takes a third of the compile.
            Some("-gcflags=all=-dwarf=false")
        } else {
            None
        }
    }

    /// The arguments of `go build` that decide how a package is compiled.
    pub(crate) fn compile_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-trimpath".to_owned(), "-buildvcs=false".to_owned()];
        arguments.extend(self.compiler_flags().map(str::to_owned));
        if self.race {
            arguments.push("-race".to_owned());
        }
        let tags = self.tags();
        if !tags.is_empty() {
            arguments.push(format!("-tags={}", tags.join(",")));
        }
        arguments.extend(self.arguments.flags.iter().cloned());
        arguments
    }

    /// The build tags. As in Velox, debug symbols come with RoadRunner's `debug` tag and its profiler.
    pub(crate) fn tags(&self) -> Vec<String> {
        let mut tags = self.arguments.tags.clone();
        if self.debug && !tags.iter().any(|tag| tag == "debug") {
            tags.push("debug".to_owned());
        }
        tags
    }

    /// The file name of the binary, with the target if there are several.
    pub(crate) fn binary_name(&self, target: &GoTarget) -> String {
        let extension = if target.os == "windows" { ".exe" } else { "" };
        match self.targets.as_slice() {
            [_] => format!("rr{extension}"),
            _ => format!("rr-{}-{}{extension}", target.os, target.arch),
        }
    }
}
