use std::process::ExitCode;

use velox_build::{Error, VersionSubject, Versions};
use velox_gomod::{module::split_path_version, semver};

use crate::{
    cli::{self, Format},
    commands::edit::session::{Editing, ROADRUNNER},
    report::{self, text},
    settings::Settings,
};

/// A plugin, or RoadRunner itself, among the versions that there are.
pub(crate) struct Standing {
    pub(crate) name: String,
    pub(crate) subject: VersionSubject,
    /// As far as it is known.
    pub(crate) module: String,
    pub(crate) asked: String,
    pub(crate) locked: Option<String>,
    pub(crate) replaced: bool,
    pub(crate) versions: Versions,
}

impl Standing {
    /// The newest version of the same module path.
    pub(crate) fn newest_of_same(&self) -> Option<(&str, &str)> {
        let version =
            self.locked.as_deref().filter(|_| !semver::is_valid(&self.asked)).unwrap_or(&self.asked);
        let suffix =
            split_path_version(&self.module).map(|(_, suffix)| suffix).filter(|suffix| !suffix.is_empty());
        let fits = |module: &str| match suffix {
            Some(suffix) => split_path_version(module).is_some_and(|(_, other)| other == suffix),
            None => module == self.module,
        };
        let by_version = |major: &&velox_build::Major| {
            let first = major.versions.first().and_then(|known| semver::major(known));
            let number = |major: Option<&str>| {
                if major == Some("v0") { Some("v1".to_owned()) } else { major.map(str::to_owned) }
            };
            number(first).is_some() && number(first) == number(semver::major(version))
        };
        let major = self.versions.majors.iter().find(|major| fits(&major.module));
        let major = major.or_else(|| self.versions.majors.iter().find(by_version))?;
        Some((major.module.as_str(), major.newest()?))
    }

    /// The newest version of the newest major.
    pub(crate) fn newest_of_all(&self) -> Option<(&str, &str)> {
        let major = self.versions.newest_major()?;
        Some((major.module.as_str(), major.newest()?))
    }

    fn is_outdated(&self) -> bool {
        let now = self.locked.as_deref().unwrap_or(&self.asked);
        let newer = |newest: Option<(&str, &str)>| {
            newest.is_some_and(|(_, version)| semver::compare(version, now).is_gt())
        };
        let other = self
            .newest_of_all()
            .is_some_and(|(module, _)| Some(module) != self.newest_of_same().map(|(m, _)| m));
        newer(self.newest_of_same()) || newer(self.newest_of_all()) || other
    }
}

/// The plugins of these names (`roadrunner` is RoadRunner itself) with the versions that there are.
pub(crate) async fn standings(editing: &Editing, names: &[String]) -> Result<Vec<Standing>, Error> {
    let manifest = editing.manifest();
    let locked = velox_build::locked_versions(&editing.prepared.request)?;
    let mut standings = Vec::new();
    for name in names {
        if name == ROADRUNNER && !manifest.plugins.iter().any(|plugin| plugin.name.value == *name) {
            let asked = manifest.roadrunner.reference.as_ref();
            standings.push(Standing {
                name: name.clone(),
                subject: VersionSubject::RoadRunner,
                module: locked.roadrunner.as_ref().map(|locked| locked.path.clone()).unwrap_or_default(),
                asked: asked.map_or_else(|| "(default branch)".to_owned(), |asked| asked.value.clone()),
                locked: locked.roadrunner.as_ref().map(|locked| locked.version.clone()),
                replaced: false,
                versions: Versions::default(),
            });
            continue;
        }
        let Some(plugin) = manifest.plugins.iter().find(|plugin| plugin.name.value == *name) else {
            continue;
        };
        let at_lock = locked.plugins.get(name);
        standings.push(Standing {
            name: name.clone(),
            subject: VersionSubject::Plugin(name.clone()),
            module: at_lock
                .map(|locked| locked.path.clone())
                .or_else(|| plugin.module_path(manifest))
                .unwrap_or_default(),
            asked: plugin.reference.value.clone(),
            locked: at_lock.map(|locked| locked.version.clone()),
            replaced: plugin.replace.is_some(),
            versions: Versions::default(),
        });
    }
    let subjects: Vec<VersionSubject> = standings.iter().map(|standing| standing.subject.clone()).collect();
    let answers = editing.session().versions(&subjects).await?;
    for (standing, versions) in standings.iter_mut().zip(answers) {
        standing.versions = versions;
    }
    Ok(standings)
}

/// `vx outdated`.
pub(crate) async fn outdated(settings: Settings, arguments: cli::Outdated) -> ExitCode {
    let edit = cli::Edit { config: arguments.config, go: arguments.go, no_lock: true };
    let editing = match Editing::open(settings, &edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    let mut names = vec![ROADRUNNER.to_owned()];
    names.extend(editing.editor.names().into_iter().filter(|name| name != ROADRUNNER));
    let standings = match standings(&editing, &names).await {
        Ok(standings) => standings,
        Err(error) => return editing.prepared.failed(&error),
    };
    let text = match editing.prepared.format {
        Format::Json => json(&standings),
        Format::Human => human(&standings, arguments.all),
    };
    match report::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
    }
}

fn human(standings: &[Standing], all: bool) -> String {
    let shown: Vec<&Standing> = standings.iter().filter(|standing| all || standing.is_outdated()).collect();
    let trouble: String = standings
        .iter()
        .filter_map(|standing| Some((standing, standing.versions.trouble.as_ref()?)))
        .map(|(standing, why)| format!("  {}: {}\n", standing.name, text::clean(why)))
        .collect();
    let trouble = match trouble.is_empty() {
        true => trouble,
        false => format!("can't tell which versions there are of\n{trouble}"),
    };
    let newest = standings
        .iter()
        .filter(|standing| !standing.is_outdated() && standing.versions.trouble.is_none())
        .count();
    let other = if shown.is_empty() { "" } else { "the other " };
    let rest = match (newest, all) {
        (0, _) | (_, true) => String::new(),
        (newest, false) if newest == standings.len() => "everything is at its newest version\n".to_owned(),
        (1, false) if shown.is_empty() => "one is at its newest version (--all shows it)\n".to_owned(),
        (1, false) => "the other one is at its newest version (--all shows it)\n".to_owned(),
        (newest, false) => format!("{other}{newest} are at their newest versions (--all shows them)\n"),
    };
    let table = if shown.is_empty() { String::new() } else { table(&shown) };
    let parts = [table, rest, trouble];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn table(shown: &[&Standing]) -> String {
    let mut rows = vec![["NAME", "ASKED", "LOCKED", "SAME MAJOR", "NEWEST MAJOR"].map(str::to_owned)];
    for standing in shown {
        let or_none = |version: Option<&str>| version.unwrap_or("-").to_owned();
        let same = standing.newest_of_same();
        let newest = standing.newest_of_all().filter(|newest| Some(*newest) != same);
        rows.push([
            standing.name.clone(),
            standing.asked.clone(),
            or_none(standing.locked.as_deref()),
            or_none(same.map(|(_, version)| version)),
            newest.map_or_else(|| "-".to_owned(), |(_, version)| version.to_owned()),
        ]);
    }
    text::table(&rows)
}

fn json(standings: &[Standing]) -> String {
    let pair = |newest: Option<(&str, &str)>| {
        newest.map(|(module, version)| serde_json::json!({ "module": module, "version": version }))
    };
    let plugins: Vec<serde_json::Value> = standings
        .iter()
        .map(|standing| {
            serde_json::json!({
                "name": standing.name,
                "module": Some(&standing.module).filter(|module| !module.is_empty()),
                "asked": standing.asked,
                "locked": standing.locked,
                "same_major": pair(standing.newest_of_same()),
                "newest_major": pair(standing.newest_of_all()),
                "outdated": standing.is_outdated(),
                "trouble": standing.versions.trouble,
            })
        })
        .collect();
    format!("{}\n", serde_json::json!({ "v": 1, "event": "outdated", "plugins": plugins }))
}
