//! Plugin selectors: `http`, `acme/http@main`, `github.com/acme/http/v2@v2.1.0`.

use tokio::sync::OnceCell;
use velox_build::{Error, MajorVersions, QuerySession, RoadRunnerRelease, VersionSubject, Versions};
use velox_gomod::{
    module::{major_suffix, with_major},
    semver,
};
use velox_manifest::{
    Diagnostic, Replacement, VersionConstraint,
    catalogue::{self, KnownPlugin},
};

use crate::{
    generation::{major, plugin_major_of},
    last_part, without_major,
};

/// A selected plugin with its module path and ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedPlugin {
    /// The name for a new entry of velox.toml.
    pub name: String,
    /// The module path, with its major version.
    pub module: String,
    /// The tag, branch or commit.
    pub reference: String,
    /// Whether the user specified the ref; else it is an existing version.
    pub is_explicit: bool,
    /// The replacement, of a plugin in a local directory.
    pub replace: Option<Replacement>,
}

/// A parsed selector: `NAME[@REF]`, `OWNER/REPOSITORY[@REF]` or `MODULE[@REF]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PluginSelector {
    name: String,
    /// The module path, with a major version if the user specified one; empty for a name that the catalogue lacks.
    path: String,
    known: Option<&'static KnownPlugin>,
    reference: Option<String>,
}

/// Resolves selectors, in order, to the versions of the RoadRunner release, else to the newest ones: of RoadRunner's
/// own plugins, to the newest ones at the major version of the release's plugins.
/// `OWNER/REPOSITORY` is a repository on `github_host`. With `prereleases`, a plugin without a ref gets its newest version,
/// which may be a pre-release.
pub async fn select_plugins(
    session: &QuerySession<'_>,
    selectors: &[String],
    github_host: &str,
    prereleases: bool,
) -> Result<Vec<SelectedPlugin>, Error> {
    let release = OnceCell::new();
    // Resolved on first use.
    let release = async || release.get_or_try_init(|| session.release()).await;
    let mut selected: Vec<(usize, SelectedPlugin)> = Vec::new();
    let mut unresolved = Vec::new();
    for (index, text) in selectors.iter().enumerate() {
        let mut plugin = PluginSelector::parse(text, github_host);
        if plugin.path.is_empty() {
            plugin.find_in(release().await?)?;
        }
        let has_module = |reference: &&String| {
            plugin.has_major() || semver::is_valid(reference) || major_of_constraint(reference).is_some()
        };
        let Some(reference) = plugin.reference.as_ref().filter(has_module) else {
            let takes_newest = prereleases && plugin.reference.is_none();
            match plugin.released(release().await?)?.filter(|_| !takes_newest) {
                Some(plugin) => selected.push((index, plugin)),
                None => unresolved.push((index, plugin)),
            }
            continue;
        };
        let module = match plugin.has_major() {
            true => plugin.path.clone(),
            false => with_major_of(&plugin.path, reference),
        };
        selected.push((index, plugin.select(module, reference)));
    }
    if !unresolved.is_empty() {
        let release = release().await?;
        let start = |plugin: &PluginSelector| VersionSubject::Module(plugin.start(release));
        let subjects: Vec<VersionSubject> = unresolved.iter().map(|(_, plugin)| start(plugin)).collect();
        let versions = session.versions(&subjects).await?;
        for ((index, plugin), versions) in unresolved.into_iter().zip(versions) {
            selected.push((index, plugin.newest(&versions, release, prereleases)?));
        }
    }
    selected.sort_by_key(|(index, _)| *index);
    Ok(selected.into_iter().map(|(_, plugin)| plugin).collect())
}

impl PluginSelector {
    fn parse(text: &str, github_host: &str) -> Self {
        let text = text.trim().trim_start_matches("https://");
        let (path, reference) = match text.rsplit_once('@') {
            Some((path, reference)) => (path, Some(reference.to_owned()).filter(|it| !it.is_empty())),
            None => (text, None),
        };
        let path = path.trim_end_matches('/').trim_end_matches(".git");
        let known = catalogue::find(path);
        let (name, path) = match (known, path.split_once('/')) {
            (Some(known), None) => (path.to_owned(), known.module.clone()),
            (Some(known), Some(_)) => (known.name.clone(), path.to_owned()),
            (None, None) => (path.to_owned(), String::new()),
            (None, Some((owner, repository))) if !owner.contains('.') && !repository.contains('/') => {
                (repository.to_owned(), format!("{github_host}/{path}"))
            }
            (None, Some(_)) => (last_part(path).to_owned(), path.to_owned()),
        };
        Self { name, path, known, reference }
    }

    /// Finds the module path of an unknown name in the release.
    fn find_in(&mut self, release: &RoadRunnerRelease) -> Result<(), Error> {
        let mut modules = release.plugins.iter().map(|plugin| &plugin.path);
        let Some(module) = modules.find(|module| last_part(module) == self.name) else {
            return Err(self.unknown(release).into());
        };
        without_major(module).clone_into(&mut self.path);
        Ok(())
    }

    fn unknown(&self, release: &RoadRunnerRelease) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(format!("unknown plugin `{}`", self.name));
        let nearest = catalogue::nearest(&self.name);
        if !nearest.is_empty() {
            let names: Vec<&str> = nearest.iter().map(|plugin| plugin.name.as_str()).collect();
            diagnostic = diagnostic.help(format!("did you mean `{}`?", names.join("`, `")));
        }
        diagnostic = diagnostic.help(
            "use a module path (github.com/acme/plugin), a GitHub OWNER/REPOSITORY or a directory (./my-plugin)",
        );
        if release.plugins.is_empty() {
            diagnostic = diagnostic.help(format!("{} contains no plugins", release.module));
        }
        diagnostic
    }

    fn has_major(&self) -> bool {
        !major_suffix(&self.path).is_empty()
    }

    fn select(&self, module: String, reference: &str) -> SelectedPlugin {
        SelectedPlugin {
            name: self.name.clone(),
            module,
            reference: reference.to_owned(),
            is_explicit: self.reference.is_some(),
            replace: None,
        }
    }

    /// The major version that the plugin must have for this release, unless the user specified one.
    fn required_major(&self, release: &RoadRunnerRelease) -> Option<u64> {
        let is_free = catalogue::is_official(&self.path) && !self.has_major();
        is_free.then(|| plugin_major_of(release)).flatten()
    }

    /// The plugin at the version of the release, or at the known major version if the user specified a ref.
    fn released(&self, release: &RoadRunnerRelease) -> Result<Option<SelectedPlugin>, Error> {
        let is_this = |path: &str| match self.has_major() {
            true => path == self.path,
            false => without_major(path) == self.path,
        };
        // A go.mod can require two major versions of a plugin; the container has one.
        let registered = release.plugins.iter().find(|plugin| is_this(&plugin.path));
        let registered = registered.map(|plugin| (&plugin.path, &plugin.version));
        let required = || {
            let lines = release.go_mod.require.iter().filter(|line| is_this(&line.path));
            lines.map(|line| (&line.path, &line.version)).max_by_key(|(path, version)| major(path, version))
        };
        Ok(match (registered.or_else(required), self.reference.as_deref()) {
            (Some((path, version)), None) => Some(self.select(path.clone(), version)),
            (Some((path, _)), Some(reference)) => match VersionConstraint::of(reference) {
                // The newest major version that it allows is selected from those that exist.
                Some(constraint) if !constraint.majors().contains(&major(path, "v1.0.0")) => None,
                _ => Some(self.select(path.clone(), reference)),
            },
            (None, Some(reference)) => {
                let Some(known) = self.known else { return Ok(None) };
                let module = match self.required_major(release) {
                    Some(major) if known.majors.contains(&major) => known.module_path_at(major),
                    Some(_) => return Err(self.wrong_generation(&Versions::default(), release)),
                    None => known.module_path(),
                };
                Some(self.select(module, reference))
            }
            (None, None) => None,
        })
    }

    /// The module path for listing versions.
    fn start(&self, release: &RoadRunnerRelease) -> String {
        match (self.required_major(release), self.known.filter(|_| !self.has_major())) {
            (Some(major), _) => with_major(&self.path, major),
            (None, Some(known)) => known.module_path(),
            (None, None) => self.path.clone(),
        }
    }

    /// The newest version, of the specified or required major version if there is one.
    fn newest(
        &self,
        versions: &Versions,
        release: &RoadRunnerRelease,
        prereleases: bool,
    ) -> Result<SelectedPlugin, Error> {
        let required = self.required_major(release).map(|major| with_major(&self.path, major));
        let constraint = self.reference.as_deref().and_then(VersionConstraint::of);
        if let Some(constraint) = &constraint {
            let is_allowed = |found: &&MajorVersions| constraint.newest(&found.versions).is_some();
            return match versions.majors.iter().rev().find(is_allowed) {
                Some(found) => {
                    Ok(self.select(found.module.clone(), self.reference.as_deref().unwrap_or_default()))
                }
                None => Err(self.none_found(versions)),
            };
        }
        let found = match &required {
            Some(module) => versions.of(module),
            None if self.has_major() => versions.of(&self.path),
            None => versions.newest_major_with(prereleases),
        };
        let module = found.map_or(&self.path, |found| &found.module).clone();
        if let Some(reference) = self.reference.as_ref() {
            return Ok(self.select(required.unwrap_or(module), reference));
        }
        match found.and_then(|found| found.newest_with(prereleases)) {
            Some(version) => Ok(self.select(module, version)),
            None if required.is_some() && (!versions.majors.is_empty() || self.known.is_some()) => {
                Err(self.wrong_generation(versions, release))
            }
            None => Err(self.none_found(versions)),
        }
    }

    fn none_found(&self, versions: &Versions) -> Error {
        let constraint =
            self.reference.as_ref().map(|reference| format!(" for {reference}")).unwrap_or_default();
        let help = format!("use a tag, a branch or a commit: `vx add {}@main`", self.path);
        versions.none_found(&format!("{}{constraint}", self.path), &help)
    }

    /// The error that the plugin has no version for the plugins of the release.
    fn wrong_generation(&self, versions: &Versions, release: &RoadRunnerRelease) -> Error {
        let version = &release.module.version;
        let major = plugin_major_of(release).unwrap_or_default();
        let error = Error::configuration(format!(
            "no version of {} for RoadRunner {version}, whose plugins have major version v{major}",
            self.path
        ));
        let listed = versions.majors.iter().map(|found| found.module.clone()).collect();
        let known = || self.known.map(|known| known.majors.iter().map(|major| known.module_path_at(*major)));
        let others =
            if versions.majors.is_empty() { known().into_iter().flatten().collect() } else { listed };
        let others: Vec<String> = others;
        let newer = others.iter().any(|path| self::major(path, "") > major);
        let error = match others.is_empty() {
            true => error,
            false => error.help(format!("it exists as {}", others.join(", "))),
        };
        match catalogue::generations().first().filter(|newest| newer && newest.plugins > major) {
            Some(newest) => error.help(format!(
                "these versions are for {}; `vx migrate --to v3` moves the configuration to it",
                newest.roadrunner
            )),
            None => error.help("use a RoadRunner release that has it"),
        }
    }
}

/// The only major version of a constraint.
fn major_of_constraint(reference: &str) -> Option<u64> {
    VersionConstraint::of(reference)?.major()
}

fn with_major_of(path: &str, version: &str) -> String {
    if let Some(major) = major_of_constraint(version) {
        return with_major(path, major);
    }
    match semver::major(version) {
        None | Some("v0" | "v1") => path.to_owned(),
        Some(major) => format!("{path}/{major}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_parsed() {
        let http = "github.com/roadrunner-server/http";
        for (text, name, path, reference) in [
            ("http", "http", http, None),
            ("http@v5.2.0", "http", http, Some("v5.2.0")),
            ("acme/http@x", "http", "github.com/acme/http", Some("x")),
            ("https://github.com/acme/http.git", "http", "github.com/acme/http", None),
            ("example.com/a/b/v3@latest", "b", "example.com/a/b/v3", Some("latest")),
            ("roadrunner-server/http/v5", "http", "roadrunner-server/http/v5", None),
        ] {
            let plugin = PluginSelector::parse(text, "github.com");
            let parsed = (plugin.name.as_str(), plugin.path.as_str(), plugin.reference.as_deref());
            assert_eq!(parsed, (name, path, reference), "{text}");
        }
        assert_eq!(PluginSelector::parse("appLogger@main", "github.com").name, "appLogger");
        assert_eq!(PluginSelector::parse("no-such-plugin", "github.com").path, "");
    }
}
