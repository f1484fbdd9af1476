//! Plugin selectors: `http`, `acme/http@main`, `github.com/acme/http/v2@v2.1.0`.

use velox_build::{Error, QuerySession, RoadRunnerRelease, VersionSubject, Versions};
use velox_gomod::{module::split_path_version, semver};
use velox_manifest::{Diagnostic, catalogue};

use crate::{last_part, without_major};

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
}

/// A parsed selector: `NAME[@REF]`, `OWNER/REPOSITORY[@REF]` or `MODULE[@REF]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PluginSelector {
    name: String,
    /// The module path, with a major version if the user specified one.
    path: String,
    /// The module path at the major version of the catalogue or the release.
    known: Option<String>,
    reference: Option<String>,
}

/// Resolves selectors, in order, to the versions of the RoadRunner release, else to the newest ones.
/// `OWNER/REPOSITORY` is a repository on `github_host`.
pub async fn select_plugins(
    session: &QuerySession<'_>,
    selectors: &[String],
    github_host: &str,
) -> Result<Vec<SelectedPlugin>, Error> {
    let mut release = Release { session, release: None };
    let mut selected: Vec<(usize, SelectedPlugin)> = Vec::new();
    let mut unresolved = Vec::new();
    for (index, text) in selectors.iter().enumerate() {
        let plugin = match PluginSelector::parse(text, github_host) {
            Ok(plugin) => plugin,
            Err(unknown) => unknown.find_in(release.get().await?)?,
        };
        let Some(reference) = plugin
            .reference
            .as_ref()
            .filter(|reference| !reference.is_empty() && (plugin.has_major() || semver::is_valid(reference)))
        else {
            match plugin.released(release.get().await?) {
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
        let subjects: Vec<VersionSubject> =
            unresolved.iter().map(|(_, plugin)| VersionSubject::Module(plugin.start())).collect();
        for ((index, plugin), versions) in unresolved.into_iter().zip(session.versions(&subjects).await?) {
            selected.push((index, plugin.newest(&versions)?));
        }
    }
    selected.sort_by_key(|(index, _)| *index);
    Ok(selected.into_iter().map(|(_, plugin)| plugin).collect())
}

/// The RoadRunner release, resolved on first use.
struct Release<'a> {
    session: &'a QuerySession<'a>,
    release: Option<RoadRunnerRelease>,
}

impl Release<'_> {
    async fn get(&mut self) -> Result<&RoadRunnerRelease, Error> {
        let release = match self.release.take() {
            Some(release) => release,
            None => self.session.release().await?,
        };
        Ok(self.release.insert(release))
    }
}

impl PluginSelector {
    fn parse(text: &str, github_host: &str) -> Result<Self, UnknownPlugin> {
        let text = text.trim().trim_start_matches("https://");
        let (path, reference) = match text.rsplit_once('@') {
            Some((path, reference)) => (path, Some(reference.to_owned())),
            None => (text, None),
        };
        let path = path.trim_end_matches('/').trim_end_matches(".git");
        let known = catalogue::find(path);
        let (name, path) = match (known, path.split_once('/')) {
            (Some(known), None) => (path.to_owned(), known.module.clone()),
            (Some(known), Some(_)) => (known.name.clone(), path.to_owned()),
            (None, None) => return Err(UnknownPlugin { name: path.to_owned(), reference }),
            (None, Some((owner, repository))) if !owner.contains('.') && !repository.contains('/') => {
                (repository.to_owned(), format!("{github_host}/{path}"))
            }
            (None, Some(_)) => (last_part(path).to_owned(), path.to_owned()),
        };
        Ok(Self { name, path, known: known.map(|known| known.module_path()), reference })
    }

    fn has_major(&self) -> bool {
        split_path_version(&self.path).is_some_and(|(_, suffix)| !suffix.is_empty())
    }

    fn select(&self, module: String, reference: &str) -> SelectedPlugin {
        SelectedPlugin {
            name: self.name.clone(),
            module,
            reference: reference.to_owned(),
            is_explicit: self.reference.is_some(),
        }
    }

    /// The plugin at the version of the release, or at the known major version if the user specified a ref.
    fn released(&self, release: &RoadRunnerRelease) -> Option<SelectedPlugin> {
        let line = release.go_mod.require.iter().find(|line| match self.has_major() {
            true => line.path == self.path,
            false => without_major(&line.path) == self.path,
        });
        let reference = self.reference.as_deref().filter(|reference| !reference.is_empty());
        match (line, reference) {
            (Some(line), None) => Some(self.select(line.path.clone(), &line.version)),
            (Some(line), Some(reference)) => Some(self.select(line.path.clone(), reference)),
            (None, Some(reference)) => Some(self.select(self.known.clone()?, reference)),
            (None, None) => None,
        }
    }

    /// The module path for listing versions.
    fn start(&self) -> String {
        let known = self.known.as_ref().filter(|_| !self.has_major());
        known.unwrap_or(&self.path).clone()
    }

    /// The newest version, of the specified major version if there is one.
    fn newest(&self, versions: &Versions) -> Result<SelectedPlugin, Error> {
        let major = if self.has_major() { versions.of(&self.path) } else { versions.newest_major() };
        let module = major.map_or(&self.path, |major| &major.module).clone();
        if let Some(reference) = self.reference.as_ref() {
            return Ok(self.select(module, reference));
        }
        match major.and_then(|major| major.newest()) {
            Some(version) => Ok(self.select(module, version)),
            None => {
                let cause = versions.error.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                Err(Error::configuration(format!("no version of {} found{cause}", self.path))
                    .help(format!("use a branch or a commit: `vx add {}@main`", self.path)))
            }
        }
    }
}

struct UnknownPlugin {
    name: String,
    reference: Option<String>,
}

impl UnknownPlugin {
    /// Finds the plugin in the release.
    fn find_in(self, release: &RoadRunnerRelease) -> Result<PluginSelector, Error> {
        let mut modules = release.plugins.iter().map(|plugin| &plugin.path);
        let Some(module) = modules.find(|module| last_part(module) == self.name) else {
            return Err(Error::many(velox_build::ErrorKind::Configuration, vec![self.diagnostic(release)]));
        };
        Ok(PluginSelector {
            path: without_major(module).to_owned(),
            known: Some(module.clone()),
            name: self.name,
            reference: self.reference,
        })
    }

    fn diagnostic(&self, release: &RoadRunnerRelease) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(format!("unknown plugin `{}`", self.name));
        let nearest = catalogue::nearest(&self.name);
        if !nearest.is_empty() {
            let names: Vec<&str> = nearest.iter().map(|plugin| plugin.name.as_str()).collect();
            diagnostic = diagnostic.help(format!("did you mean {}?", names.join(", ")));
        }
        diagnostic =
            diagnostic.help("use a module path (github.com/acme/plugin) or a GitHub OWNER/REPOSITORY");
        if release.plugins.is_empty() {
            diagnostic = diagnostic.help(format!("{} contains no plugins", release.module));
        }
        diagnostic
    }
}

fn with_major_of(path: &str, version: &str) -> String {
    match semver::major(version) {
        None | Some("v0" | "v1") => path.to_owned(),
        Some(major) => format!("{path}/{major}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

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
            let plugin = PluginSelector::parse(text, "github.com").ok().unwrap();
            let parsed = (plugin.name.as_str(), plugin.path.as_str(), plugin.reference.as_deref());
            assert_eq!(parsed, (name, path, reference), "{text}");
        }
        assert_eq!(PluginSelector::parse("appLogger@main", "github.com").ok().unwrap().name, "appLogger");
        assert!(PluginSelector::parse("no-such-plugin", "github.com").is_err());
    }
}
