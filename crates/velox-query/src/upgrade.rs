//! The move of a configuration to another RoadRunner, with the plugins that work with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_build::{
    BuildRequest, Error, ErrorKind, QuerySession, Reporter, RoadRunnerRelease, VersionSubject, Versions,
};
use velox_gomod::{
    modfile::{GoMod, Require},
    module::{ModuleVersion, with_major},
    semver,
};
use velox_manifest::{
    Level, Origin, Plugin, VersionConstraint,
    catalogue::{self, ROADRUNNER_MODULE},
};

use crate::{
    CheckRule, Finding,
    generation::{major, plugin_major_of, release_at},
    interfaces::{LOGGER, UsedInterfaces},
    without_major,
};

/// The branch that is used if a major version of RoadRunner has no release.
const DEFAULT_BRANCH: &str = "master";
/// The plugins whose go.mod files name the interface modules of a release.
const INTERFACE_USERS: [&str; 4] = [
    "github.com/roadrunner-server/informer",
    "github.com/roadrunner-server/jobs",
    LOGGER,
    "github.com/roadrunner-server/server",
];

/// The changes that move a configuration to another RoadRunner.
#[derive(Debug, Clone)]
pub struct UpgradePlan {
    /// RoadRunner at its exact version.
    pub roadrunner: ModuleVersion,
    /// The ref to write.
    pub reference: String,
    /// The major version of its plugins.
    pub plugin_major: u64,
    /// Whether there is no release of the requested major version.
    pub is_unreleased: bool,
    /// The plugins, in file order.
    pub plugins: Vec<PluginUpgrade>,
}

/// The change of a plugin.
#[derive(Debug, Clone)]
pub struct PluginUpgrade {
    /// The name in the configuration.
    pub name: String,
    /// The change.
    pub step: UpgradeStep,
}

/// What happens to a plugin.
#[derive(Debug, Clone)]
pub enum UpgradeStep {
    /// It works with the new RoadRunner as it is.
    Unchanged,
    /// It moves to this version.
    Update(ModuleVersion),
    /// No version of it works with the new RoadRunner.
    Blocked(Box<Finding>),
}

/// Plans the move to `target`: a major version such as `v3`, for its newest release, or a tag, branch or commit.
///
/// # Errors
/// RoadRunner can't be resolved, or an interruption.
pub async fn plan_upgrade(
    request: &BuildRequest,
    target: &str,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<UpgradePlan, Error> {
    let session = QuerySession::new(request, Arc::clone(&reporter), cancel.clone())?;
    let release_of = async |reference: &str| release_at(request, reference, &reporter, &cancel).await;
    let (reference, is_unreleased) = match newest_of_major(&session, target).await? {
        None => (target.to_owned(), false),
        Some(Ok(version)) => (version, false),
        Some(Err(error)) => match release_of(DEFAULT_BRANCH).await {
            Ok(release) if release.module.path == format!("{ROADRUNNER_MODULE}/{target}") => {
                (release.module.version, true)
            }
            Err(interrupted) if interrupted.kind == ErrorKind::Interrupted => return Err(interrupted),
            _ => return Err(error),
        },
    };
    let release = release_of(&reference).await?;
    let Some(plugin_major) = plugin_major_of(&release) else {
        let message = format!("RoadRunner {} contains no plugins", release.module.version);
        return Err(Error::configuration(message).help("select a release that has some"));
    };
    let used = used_interfaces(&session, &release).await?;
    let planner = Planner { session: &session, release: &release, plugin_major, used };
    let mut plugins = Vec::new();
    let mut listed = planner.official_versions().await?;
    for plugin in &session.manifest().plugins {
        let identity = plugin.identity(session.manifest());
        let step = match &plugin.replace {
            Some(_) => planner.replaced(plugin).await?,
            None => match listed.remove(&identity) {
                Some(versions) => planner.official(plugin, &identity, versions),
                None => planner.third_party(plugin).await?,
            },
        };
        plugins.push(PluginUpgrade { name: plugin.name.value.clone(), step });
    }
    let roadrunner = release.module.clone();
    Ok(UpgradePlan { roadrunner, reference, plugin_major, is_unreleased, plugins })
}

/// The newest release of a major version; `None` if `target` is not a major version.
async fn newest_of_major(
    session: &QuerySession<'_>,
    target: &str,
) -> Result<Option<Result<String, Error>>, Error> {
    let digits = target.strip_prefix('v').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let versions = session.versions(&[VersionSubject::RoadRunner]).await?.pop().unwrap_or_default();
    let newest = versions.of(&format!("{ROADRUNNER_MODULE}/{target}")).and_then(|major| major.newest());
    Ok(Some(newest.map(str::to_owned).ok_or_else(|| {
        let help = format!("name a tag, a branch or a commit: `--to {DEFAULT_BRANCH}`");
        versions.none_found(&format!("RoadRunner {target}"), &help)
    })))
}

async fn used_interfaces(
    session: &QuerySession<'_>,
    release: &RoadRunnerRelease,
) -> Result<UsedInterfaces, Error> {
    let is_user = |plugin: &&ModuleVersion| INTERFACE_USERS.contains(&without_major(&plugin.path));
    let users: Vec<Plugin> = release.plugins.iter().filter(is_user).map(plugin_at).collect();
    let go_mods = session.plugin_go_mods(&users).await?;
    let known: Vec<(ModuleVersion, GoMod)> = go_mods.into_iter().filter_map(Result::ok).collect();
    let requirements = known.iter().map(|(module, it)| (module.path.as_str(), it.require.as_slice()));
    Ok(UsedInterfaces::new(release, requirements))
}

/// A plugin at an exact version.
fn plugin_at(module: &ModuleVersion) -> Plugin {
    Plugin {
        name: module.path.clone().into(),
        origin: Origin::Module(module.path.clone().into()),
        reference: module.version.clone().into(),
        replace: None,
    }
}

struct Planner<'a> {
    session: &'a QuerySession<'a>,
    release: &'a RoadRunnerRelease,
    plugin_major: u64,
    used: UsedInterfaces,
}

impl Planner<'_> {
    /// The versions of RoadRunner's own plugins for this release, by [`Plugin::identity`].
    async fn official_versions(&self) -> Result<BTreeMap<String, Versions>, Error> {
        let manifest = self.session.manifest();
        let plugins = manifest.plugins.iter().filter(|plugin| plugin.replace.is_none());
        let official: BTreeSet<String> = plugins
            .map(|plugin| plugin.identity(manifest))
            .filter(|identity| catalogue::is_official(identity))
            .collect();
        let subject = |identity: &String| VersionSubject::Module(with_major(identity, self.plugin_major));
        let subjects: Vec<VersionSubject> = official.iter().map(subject).collect();
        let versions = self.session.versions(&subjects).await?;
        Ok(official.into_iter().zip(versions).collect())
    }

    /// One of RoadRunner's own plugins, which has a version for each release.
    fn official(&self, plugin: &Plugin, identity: &str, versions: Versions) -> UpgradeStep {
        let path = with_major(identity, self.plugin_major);
        let newest = versions.of(&path).and_then(|major| major.newest());
        let released = self.release.plugins.iter().find(|plugin| plugin.path == path);
        let released = released.map(|plugin| plugin.version.as_str());
        let version = match (newest, released) {
            // A commit of RoadRunner is tested with the versions that it names.
            (_, Some(released)) if !is_release(&self.release.module.version) => released,
            (Some(newest), Some(released)) if semver::compare(newest, released).is_lt() => released,
            (Some(version), _) | (None, Some(version)) => version,
            (None, None) => {
                let mut reasons = Vec::new();
                if let Some(known) = catalogue::find(identity) {
                    let paths: Vec<String> =
                        known.majors.iter().map(|major| known.module_path_at(*major)).collect();
                    reasons.push(format!("it exists as {}", paths.join(", ")));
                    if let Some(other) = &known.replaced_by {
                        reasons.push(format!("it was replaced by {other}"));
                    }
                }
                if reasons.is_empty() {
                    reasons.extend(versions.error);
                }
                let name = &plugin.name.value;
                return self.blocked(
                    plugin,
                    &self.not_for_this(),
                    &format!("there is no {path}"),
                    &reasons,
                    &format!("remove it: `vx remove {name}`"),
                );
            }
        };
        let current = plugin.module_path(self.session.manifest());
        let reference = &plugin.reference.value;
        let is_current = current.as_ref() == Some(&path)
            && match VersionConstraint::of(reference) {
                Some(constraint) => constraint.matches(version),
                None => semver::is_valid(reference) && semver::compare(reference, version).is_ge(),
            };
        match is_current {
            true => UpgradeStep::Unchanged,
            false => UpgradeStep::Update(ModuleVersion::new(path, version)),
        }
    }

    /// A plugin of somebody else: it stays if its go.mod requires nothing of another generation.
    async fn third_party(&self, plugin: &Plugin) -> Result<UpgradeStep, Error> {
        let mut reasons = match self.reasons(plugin).await? {
            Ok(reasons) if reasons.is_empty() => return Ok(UpgradeStep::Unchanged),
            Ok(reasons) => reasons,
            Err(error) => vec![error.to_string()],
        };
        let subject = VersionSubject::Plugin(plugin.name.value.clone());
        let versions = self.session.versions(&[subject]).await?.pop().unwrap_or_default();
        let mut label = format!("stays at {}", plugin.reference.value);
        for (index, major) in versions.majors.iter().rev().enumerate() {
            let Some(version) = major.newest() else { continue };
            let mut candidate = plugin.clone();
            candidate.reference.value = version.to_owned();
            if let Origin::Module(path) = &mut candidate.origin {
                path.value.clone_from(&major.module);
            }
            match self.reasons(&candidate).await? {
                Ok(found) if found.is_empty() => {
                    return Ok(UpgradeStep::Update(ModuleVersion::new(&major.module, version)));
                }
                Ok(found) if index == 0 => {
                    reasons = found;
                    label = format!("the newest version is {version}");
                }
                _ => {}
            }
        }
        let help = format!(
            "wait for a version of it, use a fork with `replace`, or remove it: `vx remove {}`",
            plugin.name.value
        );
        let version = &self.release.module.version;
        Ok(self.blocked(plugin, &format!("no version for RoadRunner {version}"), &label, &reasons, &help))
    }

    /// A plugin that a directory or another module replaces: it is the user's to port.
    async fn replaced(&self, plugin: &Plugin) -> Result<UpgradeStep, Error> {
        let reasons = match self.reasons(plugin).await? {
            Ok(reasons) if reasons.is_empty() => return Ok(UpgradeStep::Unchanged),
            Ok(reasons) => reasons,
            Err(error) => vec![error.to_string()],
        };
        let replacement =
            plugin.replace.as_ref().map(|replace| replace.value.to_string()).unwrap_or_default();
        let help = "port the replacement to the interfaces of the new RoadRunner, or remove `replace`";
        Ok(self.blocked(
            plugin,
            &self.not_for_this(),
            &format!("its replacement {replacement} is for another one"),
            &reasons,
            help,
        ))
    }

    /// Why a plugin does not work with the release: none, or one sentence for each requirement of its go.mod.
    async fn reasons(&self, plugin: &Plugin) -> Result<Result<Vec<String>, Error>, Error> {
        let go_mod = self.session.plugin_go_mods(std::slice::from_ref(plugin)).await?.pop();
        let (module, go_mod) = match go_mod {
            Some(Ok(found)) => found,
            Some(Err(error)) => return Ok(Err(error)),
            None => return Ok(Err(Error::build("internal error: a plugin was not resolved"))),
        };
        let version = &self.release.module.version;
        let conflicts = self.used.conflicts(&go_mod.require).into_iter().map(|conflict| {
            let used = match conflict.used.as_slice() {
                [] => "log/slog".to_owned(),
                used => used.join(" and "),
            };
            format!(
                "its go.mod requires {} {}, RoadRunner {version} uses {used}",
                conflict.path, conflict.version
            )
        });
        let is_other = |line: &&Require| {
            !line.indirect
                && self.release.plugins.iter().any(|plugin| {
                    without_major(&plugin.path) == without_major(&line.path) && plugin.path != line.path
                })
        };
        let others = go_mod.require.iter().filter(is_other).map(|line| {
            let (path, other) = (&line.path, &line.version);
            format!(
                "its go.mod requires {path} {other}, the plugins of RoadRunner {version} have v{}",
                self.plugin_major
            )
        });
        let own =
            catalogue::is_official(&module.path) && major(&module.path, &module.version) != self.plugin_major;
        let own = own.then(|| format!("its module path is {}", module.path));
        Ok(Ok(own.into_iter().chain(conflicts).chain(others).collect()))
    }

    fn not_for_this(&self) -> String {
        format!("not for RoadRunner {}", self.release.module.version)
    }

    fn blocked(
        &self,
        plugin: &Plugin,
        what: &str,
        label: &str,
        reasons: &[String],
        help: &str,
    ) -> UpgradeStep {
        let message = format!("plugin {}: {what}", plugin.name.value);
        let span = plugin.reference.span.clone();
        let finding = Finding::new(CheckRule::Interface, Level::Error, message, span, label);
        let finding = reasons.iter().fold(finding, |finding, reason| finding.because(reason.as_str()));
        UpgradeStep::Blocked(Box::new(finding.remedy(help)))
    }
}

/// Whether a version is neither a pre-release nor a pseudo-version.
fn is_release(version: &str) -> bool {
    semver::prerelease(version).is_none_or(str::is_empty)
}
