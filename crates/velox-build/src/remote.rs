//! A build that is done on another machine, as far as it concerns this one: the lock beside the configuration, and where
//! the binaries go.

use std::{collections::BTreeMap, path::PathBuf};

use velox_gomod::pseudo::is_pseudo_version;
use velox_manifest::{Dependencies, GoTarget, Manifest};

use crate::{
    artifact::publish::{TEMPORARY_PREFIX, is_executable, unwritable},
    atomic_file::{AtomicFile, FileMode},
    context::{report_versions, summary},
    digest,
    error::Error,
    event::{BuildSummary, RaisedPlugin, Reporter},
    lock::{Lock, LockFile, RequestedVersions},
    request::{BuildRequest, Goal, Output},
    settings::BuildSettings,
    stamp::Stamp,
};

/// What this machine has to do with a build that is done elsewhere.
pub struct RemoteBuild<'a> {
    request: &'a BuildRequest,
    output: &'a Output,
    settings: BuildSettings,
    asked: RequestedVersions,
    found: LockFile,
    /// Whether the lock that was found says what the configuration asks for.
    fits: bool,
}

/// What flags, configuration and environment say together of a build that is done elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBuildSettings {
    /// What to compile for; at least one.
    pub targets: Vec<GoTarget>,
    /// Keep debug symbols.
    pub debug: bool,
    /// Go's race detector.
    pub race: bool,
    /// A raised plugin is an error.
    pub strict: bool,
    /// Which dependencies it starts from.
    pub dependencies: Option<Dependencies>,
    /// The version that the binary says, where one was given.
    pub stamp_version: Option<String>,
    /// The build time that the binary says, where one was given.
    pub stamp_time: Option<String>,
}

/// The exact refs of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedRefs {
    /// RoadRunner's: a tag, or a commit.
    pub roadrunner: String,
    /// The plugins' versions, by the user's names.
    pub plugins: BTreeMap<String, String>,
}

/// What became of the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockUpdate {
    /// It was written.
    Written,
    /// It says the same already, or has no place.
    Stays,
    /// It says something else, and stays.
    Differs,
    /// It can't be written; says why.
    Unwritable(String),
}

impl<'a> RemoteBuild<'a> {
    /// Finds out what would fail later.
    ///
    /// # Errors
    /// The binaries can't be written where they should be; with `--locked`, there is no lock that fits.
    pub fn new(request: &'a BuildRequest) -> Result<Self, Error> {
        let Goal::Build(output) = &request.goal else {
            return Err(Error::configuration("only a build can be done elsewhere"));
        };
        let manifest = request.manifest.with_plugin_replacements();
        let settings = BuildSettings::new(&manifest, &request.options, &request.environment);
        output.check(&settings)?;
        output.probe(&settings)?;
        let asked = RequestedVersions::new(&manifest, &settings, &request.base);
        let found = LockFile::read(request)?;
        let fits = match found.matching(&asked) {
            Ok(_) => true,
            Err(differences) if request.options.versions.locked => return Err(found.mismatch(&differences)),
            Err(_) => false,
        };
        Ok(Self { request, output, settings, asked, found, fits })
    }

    /// What is to be built, and how.
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
            stamp_version,
            stamp_time,
        }
    }

    /// The exact refs, where the lock fits. With `strict` only where they are those that were asked for, since what was
    /// raised isn't told from what was asked for elsewhere.
    #[must_use]
    pub fn exact(&self) -> Option<LockedRefs> {
        let lock = self.fitting()?;
        if self.settings.strict && !lock.raised.is_empty() {
            return None;
        }
        let version = &lock.roadrunner.version;
        let roadrunner = match &lock.roadrunner.commit {
            Some(commit) if is_pseudo_version(version) => commit.clone(),
            _ => version.clone(),
        };
        let locked = lock.plugins.iter().filter(|plugin| plugin.from.is_some());
        let plugins = locked.map(|plugin| (plugin.name.clone(), plugin.version.clone())).collect();
        Some(LockedRefs { roadrunner, plugins })
    }

    /// The lock that another machine made (one for each target) as it would have been made here. `modules` has the module
    /// paths of the configuration's plugins, by their names.
    ///
    /// # Errors
    /// It can't be read; with `--locked`, it has other versions than the lock here.
    pub fn adopt(&self, texts: &[String], modules: &BTreeMap<String, String>) -> Result<Option<Lock>, Error> {
        let mut adopted: Option<Lock> = None;
        for text in texts {
            let lock = self.in_own_words(Lock::parse("the lock of the build service", text)?, modules);
            match &mut adopted {
                None => adopted = Some(lock),
                Some(first) => {
                    first.adopt_targets(&lock);
                    first.go_sum = union(&first.go_sum, &lock.go_sum);
                }
            }
        }
        Ok(adopted)
    }

    /// Keeps an adopted lock beside the configuration, as a build here does.
    ///
    /// # Errors
    /// With `--locked`, it has other versions than the lock here.
    pub fn keep(&self, adopted: &Lock) -> Result<LockUpdate, Error> {
        let Some(known) = self.fitting() else {
            if !self.request.updates_lock || self.request.lock.is_none() {
                return Ok(LockUpdate::Stays);
            }
            return Ok(match self.found.write(adopted) {
                Ok(()) => LockUpdate::Written,
                Err(why) => LockUpdate::Unwritable(why),
            });
        };
        if known.go_mod == adopted.go_mod {
            return Ok(LockUpdate::Stays);
        }
        if self.request.options.versions.locked {
            return Err(Error::build(format!(
                "the build service chose other versions than {} has",
                self.found.name()
            ))
            .help("build on this machine, or bring the lock up to date: `vx lock`")
            .output(differences(&known.go_mod, &adopted.go_mod)));
        }
        Ok(LockUpdate::Differs)
    }

    /// Reports the versions of the lock.
    pub fn report_versions(&self, lock: &Lock, reporter: &dyn Reporter) {
        report_versions(lock, reporter);
    }

    /// The summary of a local build with this lock, without binaries.
    #[must_use]
    pub fn summary(&self, lock: &Lock) -> BuildSummary {
        summary(self.request, &self.settings, lock, self.request.lock.clone())
    }

    /// Where the binary for a target goes.
    #[must_use]
    pub fn place(&self, target: &GoTarget) -> PathBuf {
        self.output.file(&self.settings.binary_name(target))
    }

    /// Whether the binary is there already.
    #[must_use]
    pub fn is_there(&self, target: &GoTarget, size: u64, sha256: &str) -> bool {
        let file = self.place(target);
        file.metadata().is_ok_and(|data| data.is_file() && data.len() == size)
            && is_executable(&file)
            && digest::of_file(&file).is_ok_and(|(_, found)| found == sha256)
    }

    /// An empty file beside the binary's place, for the download.
    ///
    /// # Errors
    /// It can't be created.
    pub fn create_binary(&self, target: &GoTarget) -> Result<AtomicFile, Error> {
        let place = self.place(target);
        AtomicFile::create(&place, TEMPORARY_PREFIX, FileMode::Executable)
            .map_err(|error| unwritable(&place, &error))
    }

    /// Renames a downloaded binary into its place.
    ///
    /// # Errors
    /// It can't be written.
    pub fn persist_binary(&self, binary: AtomicFile, target: &GoTarget) -> Result<PathBuf, Error> {
        binary.persist().map_err(|error| unwritable(&self.place(target), &error))
    }

    fn fitting(&self) -> Option<&Lock> {
        self.found.lock.as_ref().filter(|_| self.fits)
    }

    fn in_own_words(&self, mut lock: Lock, modules: &BTreeMap<String, String>) -> Lock {
        let names: BTreeMap<&str, &str> =
            modules.iter().map(|(name, module)| (module.as_str(), name.as_str())).collect();
        let own = |module: &str| names.get(module).map(|name| (*name).to_owned());
        lock.roadrunner.from.clone_from(&self.asked.roadrunner);
        for plugin in lock.plugins.iter_mut().filter(|plugin| plugin.from.is_some()) {
            let Some(name) = own(&plugin.module) else { continue };
            plugin.from = self.asked.plugins.get(&name).cloned();
            if let Some(asked) = reference(&self.request.manifest, &name) {
                plugin.asked = asked;
            }
            plugin.name = name;
        }
        lock.plugins.sort_by(|one, other| one.name.cmp(&other.name));
        for RaisedPlugin { name, module, asked, .. } in &mut lock.raised {
            if let Some(known) = own(module) {
                *asked = reference(&self.request.manifest, &known).unwrap_or_else(|| asked.clone());
                *name = known;
            }
        }
        lock.settings.clone_from(&self.asked.settings);
        lock
    }
}

fn reference(manifest: &Manifest, name: &str) -> Option<String> {
    let plugin = manifest.plugins.iter().find(|plugin| plugin.name.value == name)?;
    Some(plugin.reference.value.clone())
}

/// The lines of both, each once; go.sum is sorted.
fn union(one: &str, other: &str) -> String {
    let mut lines: Vec<&str> = one.lines().chain(other.lines()).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

/// The lines of a go.mod that the other lacks, with a sign for the side that has them.
fn differences(here: &str, there: &str) -> Vec<String> {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other.trim() == line.trim());
    let only = |one: &str, other: &str, sign: char| -> Vec<String> {
        one.lines().filter(|line| lacks(other, line)).map(|line| format!("{sign} {}", line.trim())).collect()
    };
    [only(here, there, '-'), only(there, here, '+')].concat()
}
