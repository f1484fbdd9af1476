//! The local part of a build on a build service: the lock file and the output directory.

use std::{collections::BTreeMap, path::PathBuf};

use velox_gomod::pseudo::is_pseudo_version;
use velox_manifest::{Dependencies, Diagnostic, GoTarget, Manifest, VersionConstraint};

use crate::{
    artifact::publish::{TEMPORARY_PREFIX, is_executable, unwritable},
    atomic_file::{AtomicFile, FileMode},
    context::{report_versions, stamp, summary},
    digest,
    error::Error,
    event::{BuildSummary, Event, RaisedPlugin, Reporter},
    go_variables::GoVariable,
    lock::{Lock, LockFile, RequestedVersions},
    request::{BuildRequest, Goal, Output},
    settings::BuildSettings,
    stamp::Stamp,
};

/// The local part of a remote build.
pub struct RemoteBuild<'a> {
    request: &'a BuildRequest,
    output: &'a Output,
    settings: BuildSettings,
    requested: RequestedVersions,
    found: LockFile,
    is_matching: bool,
}

/// The effective settings of a remote build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBuildSettings {
    /// Not empty.
    pub targets: Vec<GoTarget>,
    /// `--debug`.
    pub debug: bool,
    /// `--race`.
    pub race: bool,
    /// `--strict`.
    pub strict: bool,
    /// `--dependencies`.
    pub dependencies: Option<Dependencies>,
    /// The version stamp, if set explicitly.
    pub stamp_version: Option<String>,
    /// The build time, if set explicitly.
    pub stamp_time: Option<String>,
}

/// The refs of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedRefs {
    /// A tag or a commit of RoadRunner.
    pub roadrunner: String,
    /// The Go version (`1.26.8`).
    pub go: String,
    /// The plugins' versions, by the user's names.
    pub plugins: BTreeMap<String, String>,
}

impl LockedRefs {
    /// The refs that a service resolves to the versions of this lock.
    #[must_use]
    pub fn of(lock: &Lock) -> Self {
        let version = &lock.roadrunner.version;
        let roadrunner = match &lock.roadrunner.commit {
            Some(commit) if is_pseudo_version(version) => commit.clone(),
            _ => version.clone(),
        };
        let locked = lock.plugins.iter().filter(|plugin| plugin.from.is_some());
        let plugins = locked.map(|plugin| (plugin.name.clone(), plugin.version.clone())).collect();
        let go = lock.go_version.trim_start_matches("go").to_owned();
        Self { roadrunner, go, plugins }
    }
}

/// What happened to the lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockUpdate {
    /// It was written.
    Written,
    /// Unchanged: it is up to date, or has no path.
    Stays,
    /// Unchanged, although the versions differ.
    Differs,
    /// Not written, for this reason.
    Unwritable(String),
}

impl<'a> RemoteBuild<'a> {
    /// Fails early.
    ///
    /// # Errors
    /// The output can't be written; with `--locked`, no lock matches.
    pub fn new(request: &'a BuildRequest) -> Result<Self, Error> {
        let Goal::Build(output) = &request.goal else {
            return Err(Error::configuration("only builds can run on a build service"));
        };
        let manifest = request.manifest.with_plugin_replacements();
        let settings = BuildSettings::new(&manifest, &request.options, &request.environment)?;
        check_variables(&settings)?;
        output.check(&settings)?;
        output.probe(&settings)?;
        let requested = RequestedVersions::new(&manifest, &settings, &request.base);
        let found = LockFile::read(request)?;
        let is_matching = match found.matching(&requested) {
            Ok(_) => true,
            Err(differences) if request.options.versions.locked => return Err(found.mismatch(&differences)),
            Err(_) => false,
        };
        Ok(Self { request, output, settings, requested, found, is_matching })
    }

    /// A warning about Go variables without an effect.
    #[must_use]
    pub fn ignored_variables(&self) -> Option<Diagnostic> {
        self.settings.ignored.clone()
    }

    /// The effective settings.
    #[must_use]
    pub fn settled(&self) -> RemoteBuildSettings {
        let BuildRequest { options, environment, .. } = self.request;
        let (stamp_version, stamp_time) = Stamp::given(&options.stamp, &self.settings.arguments, environment);
        RemoteBuildSettings {
            targets: self.settings.targets.clone(),
            debug: self.settings.debug,
            race: self.settings.race,
            strict: self.settings.strict,
            dependencies: self.settings.dependencies,
            stamp_version: stamp_version.map(|(version, _)| version),
            stamp_time: stamp_time.map(|(time, _)| time),
        }
    }

    /// The refs of the lock, if it matches. `None` with `--strict` and raised plugins: the service could not
    /// distinguish raised versions from requested ones.
    #[must_use]
    pub fn exact(&self) -> Option<LockedRefs> {
        let lock = self.matching_lock()?;
        if self.settings.strict && !lock.raised.is_empty() {
            return None;
        }
        Some(LockedRefs::of(lock))
    }

    /// Converts the locks of the service, one for each target, to a local lock. `modules` has the module
    /// paths of the plugins by name.
    ///
    /// # Errors
    /// An invalid lock, or with `--locked` other versions than in the local one.
    pub fn adopt(&self, texts: &[String], modules: &BTreeMap<String, String>) -> Result<Option<Lock>, Error> {
        let mut adopted: Option<Lock> = None;
        for text in texts {
            let lock = self.localize(Lock::parse("the lock of the build service", text)?, modules);
            match &mut adopted {
                None => adopted = Some(lock),
                Some(first) => {
                    first.adopt_targets(&lock);
                    first.go_sum.merge(lock.go_sum);
                }
            }
        }
        Ok(adopted)
    }

    /// Writes the lock file, if a local build would.
    ///
    /// # Errors
    /// With `--locked`, other versions than in the local lock.
    pub fn keep(&self, adopted: &Lock) -> Result<LockUpdate, Error> {
        let Some(lock) = self.matching_lock() else {
            if !self.request.updates_lock || self.request.lock.is_none() {
                return Ok(LockUpdate::Stays);
            }
            return Ok(match self.found.write(adopted) {
                Ok(()) => LockUpdate::Written,
                Err(why) => LockUpdate::Unwritable(why),
            });
        };
        if lock.go_mod == adopted.go_mod {
            return Ok(LockUpdate::Stays);
        }
        if self.request.options.versions.locked {
            return Err(Error::build(format!(
                "the build service resolved other versions than {}",
                self.found.name()
            ))
            .help("build on this machine, or update the lock with `vx lock`")
            .output(differences(lock.go_mod.text(), adopted.go_mod.text())));
        }
        Ok(LockUpdate::Differs)
    }

    /// Reports the versions of the lock.
    pub fn report_versions(&self, lock: &Lock, reporter: &dyn Reporter) {
        let stamp = stamp(self.request, &self.settings, lock);
        if let Some(contradiction) = stamp.contradiction(&lock.roadrunner.version) {
            reporter.report(Event::Warning(contradiction));
        }
        report_versions(lock, reporter);
    }

    /// The summary of a local build with this lock, without binaries.
    #[must_use]
    pub fn summary(&self, lock: &Lock) -> BuildSummary {
        summary(self.request, &self.settings, lock, self.request.lock.clone())
    }

    /// The output path of a target.
    #[must_use]
    pub fn place(&self, target: &GoTarget) -> PathBuf {
        self.output.file(&self.settings.binary_name(target))
    }

    /// Whether the output path has this binary.
    #[must_use]
    pub fn is_there(&self, target: &GoTarget, size: u64, sha256: &str) -> bool {
        let file = self.place(target);
        file.metadata().is_ok_and(|data| data.is_file() && data.len() == size)
            && is_executable(&file)
            && digest::of_file(&file).is_ok_and(|(_, found)| found == sha256)
    }

    /// Creates a temporary file for the download of a binary.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn create_binary(&self, target: &GoTarget) -> Result<AtomicFile, Error> {
        let path = self.place(target);
        AtomicFile::create(&path, TEMPORARY_PREFIX, FileMode::Executable)
            .map_err(|error| unwritable(&path, &error))
    }

    /// Renames a downloaded binary to its output path.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn persist_binary(&self, binary: AtomicFile, target: &GoTarget) -> Result<PathBuf, Error> {
        binary.rename().map_err(|error| unwritable(&self.place(target), &error))
    }

    fn matching_lock(&self) -> Option<&Lock> {
        self.found.lock.as_ref().filter(|_| self.is_matching)
    }

    fn localize(&self, mut lock: Lock, modules: &BTreeMap<String, String>) -> Lock {
        let names: BTreeMap<&str, &str> =
            modules.iter().map(|(name, module)| (module.as_str(), name.as_str())).collect();
        let name_of = |module: &str| names.get(module).map(|name| (*name).to_owned());
        lock.roadrunner.from.clone_from(&self.requested.roadrunner);
        for plugin in lock.plugins.iter_mut().filter(|plugin| plugin.from.is_some()) {
            let Some(name) = name_of(&plugin.module) else { continue };
            plugin.from = self.requested.plugins.get(&name).cloned();
            if let Some(asked) = reference(&self.request.manifest, &name) {
                plugin.asked = asked;
            }
            plugin.name = name;
        }
        lock.plugins.sort_by(|one, other| one.name.cmp(&other.name));
        for RaisedPlugin { name, module, asked, .. } in &mut lock.raised {
            if let Some(local_name) = name_of(module) {
                // What a constraint selected stays exact.
                let local = reference(&self.request.manifest, &local_name)
                    .filter(|local| VersionConstraint::of(local).is_none());
                *asked = local.unwrap_or_else(|| asked.clone());
                *name = local_name;
            }
        }
        lock.settings.clone_from(&self.requested.settings);
        lock
    }
}

/// A build service compiles for an operating system and an architecture: the rest of the environment can't
/// reach it, and must not be lost silently.
fn check_variables(settings: &BuildSettings) -> Result<(), Error> {
    let rest = |variable: &&GoVariable| !matches!(variable.name, "GOOS" | "GOARCH");
    match settings.variables.iter().find(rest) {
        None => Ok(()),
        Some(variable) => Err(Error::configuration(format!("{variable} is not supported by remote builds"))
            .help("a build service compiles for an operating system and an architecture, without cgo")
            .help(format!("unset {}, or build on this machine with `--remote off`", variable.name))),
    }
}

fn reference(manifest: &Manifest, name: &str) -> Option<String> {
    let plugin = manifest.plugins.iter().find(|plugin| plugin.name.value == name)?;
    Some(plugin.reference.value.clone())
}

/// A line diff of two go.mod files.
fn differences(here: &str, there: &str) -> Vec<String> {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other.trim() == line.trim());
    let only = |one: &str, other: &str, sign: char| -> Vec<String> {
        one.lines().filter(|line| lacks(other, line)).map(|line| format!("{sign} {}", line.trim())).collect()
    };
    [only(here, there, '-'), only(there, here, '+')].concat()
}
