use std::process::ExitCode;

use velox_build::{Error, Event, Note, QuerySession, RoadRunnerRelease, VersionSubject, Versions};
use velox_gomod::{module::split_path_version, semver};
use velox_manifest::{
    Diagnostic, ManifestFormat, Replacement, catalogue,
    edit::{NewOrigin, NewPlugin},
};

use crate::{
    cli,
    commands::edit::session::{Editing, base, error},
    report::Change,
    settings::Settings,
};

/// A plugin as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    /// Module path, with its major where the user wrote one.
    path: String,
    /// The module path at the major that vx knows.
    known: Option<String>,
    reference: Option<String>,
}

/// Why there is nothing to add.
pub(crate) enum Refusal {
    Usage(Diagnostic),
    Failed(Error),
}

/// `vx add`.
pub(crate) async fn add(settings: Settings, arguments: cli::Add) -> ExitCode {
    let mut editing = match Editing::open(settings, &arguments.edit) {
        Ok(editing) => editing,
        Err(code) => return code,
    };
    if arguments.plugins.len() > 1 && (arguments.name.is_some() || arguments.replace.is_some()) {
        let help = "add that one plugin with a command of its own";
        return editing.refused(error("--name and --replace are for one plugin".to_owned(), help));
    }
    let github = editing.manifest().github.host().to_owned();
    match plan(&editing.session(), &arguments.plugins, &github).await {
        Ok(plugins) => {
            let mut unchecked = Vec::new();
            for (named, module, reference) in plugins {
                let (name, replace) = (arguments.name.as_deref(), arguments.replace.as_ref());
                if let Err(diagnostic) = write(&mut editing, &named, name, &module, &reference, replace) {
                    return editing.refused(diagnostic);
                }
                if named.reference.is_some() {
                    unchecked.push(format!("{reference} of {module}"));
                }
            }
            if arguments.edit.no_lock && !unchecked.is_empty() {
                let text = format!(
                    "with --no-lock nobody was asked whether there is {}: the next build, or `vx lock`, does it",
                    unchecked.join(", ")
                );
                editing.prepared.report.report(Event::Note(Note::Text { text }));
            }
            editing.save(!arguments.edit.no_lock).await
        }
        Err(Refusal::Usage(diagnostic)) => editing.refused(diagnostic),
        Err(Refusal::Failed(error)) => editing.prepared.failed(&error),
    }
}

/// Every plugin with its module path and its ref.
pub(crate) async fn plan(
    session: &QuerySession<'_>,
    plugins: &[String],
    github: &str,
) -> Result<Vec<(Named, String, String)>, Refusal> {
    let mut named = Vec::new();
    let mut release = None;
    for text in plugins {
        let plugin = match Named::parse(text, github) {
            Ok(plugin) => plugin,
            // A name that isn't in the catalogue may be one that this RoadRunner was released with.
            Err(unknown) => {
                let release = released(session, &mut release).await?;
                unknown.among(release).ok_or_else(|| Refusal::Usage(unknown.diagnostic(release)))?
            }
        };
        named.push(plugin);
    }

    // Each with its place among the arguments, which is its place in the file.
    let mut planned = Vec::new();
    let mut open = Vec::new();
    for (place, plugin) in named.into_iter().enumerate() {
        let reference = plugin.reference.clone().unwrap_or_default();
        let has_major = split_path_version(&plugin.path).is_some_and(|(_, suffix)| !suffix.is_empty());
        let is_version = semver::is_valid(&reference);
        if !reference.is_empty() && (has_major || is_version) {
            let module = if has_major { plugin.path.clone() } else { at_major_of(&plugin.path, &reference) };
            planned.push((place, (plugin, module, reference)));
            continue;
        }
        let release = released(session, &mut release).await?;
        let own = release.go_mod.require.iter().find(|line| match has_major {
            true => line.path == plugin.path,
            false => base(&line.path) == plugin.path,
        });
        match (own, reference.is_empty()) {
            (Some(line), true) => planned.push((place, (plugin, line.path.clone(), line.version.clone()))),
            (Some(line), false) => planned.push((place, (plugin, line.path.clone(), reference))),
            (None, false) if plugin.known.is_some() => {
                let module = plugin.known.clone().unwrap_or_default();
                planned.push((place, (plugin, module, reference)));
            }
            (None, _) => open.push((place, plugin)),
        }
    }
    let subjects: Vec<VersionSubject> =
        open.iter().map(|(_, plugin)| VersionSubject::Module(start(plugin))).collect();
    if !open.is_empty() {
        let answers = session.versions(&subjects).await.map_err(Refusal::Failed)?;
        for ((place, plugin), versions) in open.into_iter().zip(answers) {
            planned.push((place, newest(plugin, &versions).map_err(Refusal::Usage)?));
        }
    }
    planned.sort_by_key(|(place, _)| *place);
    Ok(planned.into_iter().map(|(_, plugin)| plugin).collect())
}

/// Where to look for versions from.
fn start(plugin: &Named) -> String {
    let has_major = split_path_version(&plugin.path).is_some_and(|(_, suffix)| !suffix.is_empty());
    if has_major { plugin.path.clone() } else { plugin.known.clone().unwrap_or_else(|| plugin.path.clone()) }
}

async fn released<'a>(
    session: &QuerySession<'_>,
    release: &'a mut Option<RoadRunnerRelease>,
) -> Result<&'a RoadRunnerRelease, Refusal> {
    if release.is_none() {
        *release = Some(session.release().await.map_err(Refusal::Failed)?);
    }
    release
        .as_ref()
        .ok_or_else(|| Refusal::Usage(error("RoadRunner wasn't found".to_owned(), "check its `ref`")))
}

/// The newest release: of the major that was asked for, else of all.
fn newest(plugin: Named, versions: &Versions) -> Result<(Named, String, String), Diagnostic> {
    let has_major = split_path_version(&plugin.path).is_some_and(|(_, suffix)| !suffix.is_empty());
    let major = if has_major { versions.of(&plugin.path) } else { versions.newest_major() };
    match (&plugin.reference, major) {
        (Some(reference), major) => {
            let module = major.map_or_else(|| plugin.path.clone(), |major| major.module.clone());
            let reference = reference.clone();
            Ok((plugin, module, reference))
        }
        (None, Some(major)) if major.newest().is_some() => {
            let (module, version) = (major.module.clone(), major.newest().unwrap_or_default().to_owned());
            Ok((plugin, module, version))
        }
        (None, _) => {
            let why = versions.trouble.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let message = format!("no version of {} was found{why}", plugin.path);
            Err(error(message, &format!("name a branch or a commit: `vx add {}@main`", plugin.path)))
        }
    }
}

fn at_major_of(path: &str, version: &str) -> String {
    match semver::major(version) {
        None | Some("v0" | "v1") => path.to_owned(),
        Some(major) => format!("{path}/{major}"),
    }
}

impl Named {
    /// `http`, `acme/http` of the host `github`, `github.com/acme/http/v2`, each with `@REF` or without.
    fn parse(text: &str, github: &str) -> Result<Self, Unknown> {
        let plain = text.trim().trim_start_matches("https://");
        let (path, reference) = match plain.rsplit_once('@') {
            Some((path, reference)) => (path, Some(reference.to_owned())),
            None => (plain, None),
        };
        let path = path.trim_end_matches('/').trim_end_matches(".git");
        let known = catalogue::find(path);
        let (name, path) = match (known, path.split_once('/')) {
            (Some(known), None) => (path.to_owned(), known.module.clone()),
            (Some(known), Some(_)) => (known.name.clone(), path.to_owned()),
            (None, None) => return Err(Unknown { name: path.to_owned(), reference }),
            (None, Some((owner, repository))) if !owner.contains('.') && !repository.contains('/') => {
                (repository.to_owned(), format!("{github}/{path}"))
            }
            (None, Some(_)) => (base(path).rsplit('/').next().unwrap_or(path).to_owned(), path.to_owned()),
        };
        Ok(Self { name, path, known: known.map(|known| known.module_path()), reference })
    }
}

/// A name that isn't in the catalogue.
struct Unknown {
    name: String,
    reference: Option<String>,
}

impl Unknown {
    fn among(&self, release: &RoadRunnerRelease) -> Option<Named> {
        let mut modules = release.plugins.iter().map(|plugin| &plugin.path);
        let module = modules.find(|module| base(module).rsplit('/').next() == Some(&self.name))?;
        Some(Named {
            name: self.name.clone(),
            path: base(module).to_owned(),
            known: Some(module.clone()),
            reference: self.reference.clone(),
        })
    }

    fn diagnostic(&self, release: &RoadRunnerRelease) -> Diagnostic {
        let help = "write a module path (github.com/acme/plugin), or OWNER/REPOSITORY of GitHub";
        let mut diagnostic = error(format!("no plugin is known by the name `{}`", self.name), help);
        let near: Vec<&str> =
            catalogue::nearest(&self.name).iter().map(|plugin| plugin.name.as_str()).collect();
        if !near.is_empty() {
            diagnostic.help.insert(0, format!("did you mean {}?", near.join(", ")));
        }
        if release.plugins.is_empty() {
            diagnostic.help.push(format!("{} has no plugins of its own to look among", release.module.path));
        }
        diagnostic
    }
}

/// Adds the plugin, or changes the one that is the same module.
fn write(
    editing: &mut Editing,
    named: &Named,
    name: Option<&str>,
    module: &str,
    reference: &str,
    replace: Option<&Replacement>,
) -> Result<(), Diagnostic> {
    let manifest = editing.manifest();
    let same = manifest.plugins.iter().find(|plugin| plugin.is_module(module, manifest));
    if let Some(same) = same {
        let (known, from) = (same.name.value.clone(), same.reference.value.clone());
        if let Some(name) = name.filter(|name| *name != known) {
            let message =
                format!("{module} is there already, and called `{known}`: --name {name} can't rename it");
            return Err(error(message, "leave --name out, or change the name in the file"));
        }
        let name = known;
        editing.editor.set_ref(&name, reference)?;
        editing.editor.set_module(&name, module)?;
        if let Some(replace) = replace {
            editing.editor.set_replace(&name, Some(replace))?;
        }
        editing.changes.push(Change {
            change: "updated",
            name,
            module: Some(module.to_owned()),
            from: Some(from),
            to: Some(reference.to_owned()),
        });
        return Ok(());
    }
    let origin = match editing.editor.format() {
        ManifestFormat::Modules => NewOrigin::Module(module.to_owned()),
        ManifestFormat::Manual | ManifestFormat::Ancestor => repository_of(editing, module)?,
    };
    let name = name.unwrap_or(&named.name).to_owned();
    editing.editor.add(&NewPlugin {
        name: name.clone(),
        origin,
        reference: reference.to_owned(),
        replace: replace.cloned(),
    })?;
    editing.changes.push(Change {
        change: "added",
        name,
        module: Some(module.to_owned()),
        from: None,
        to: Some(reference.to_owned()),
    });
    Ok(())
}

/// The manual's format knows repositories of its two forges, and nothing else.
fn repository_of(editing: &Editing, module: &str) -> Result<NewOrigin, Diagnostic> {
    let path = base(module);
    let manifest = editing.manifest();
    let below = |host: &str| path.strip_prefix(&format!("{host}/")).map(str::to_owned);
    if let Some(rest) = below(manifest.github.host()) {
        let mut parts = rest.splitn(3, '/').map(str::to_owned);
        if let (Some(owner), Some(repository)) = (parts.next(), parts.next()) {
            return Ok(NewOrigin::GitHub { owner, repository, folder: parts.next() });
        }
    }
    if let Some(rest) = below(manifest.gitlab.host())
        && let Some((owner, repository)) = rest.rsplit_once('/')
    {
        return Ok(NewOrigin::GitLab {
            owner: owner.to_owned(),
            repository: repository.to_owned(),
            folder: None,
        });
    }
    Err(error(
        format!("{module} is on neither of the forges that this file's format names plugins by"),
        "`vx migrate` moves the file to the newest format, which names them by module path",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parsed(text: &str) -> (String, String, Option<String>) {
        let Named { name, path, reference, .. } = Named::parse(text, "github.com").ok().unwrap();
        (name, path, reference)
    }

    #[test]
    fn plugins_are_named_in_many_ways() {
        let is = |name: &str, path: &str, reference: Option<&str>| {
            (name.to_owned(), path.to_owned(), reference.map(str::to_owned))
        };
        let http = "github.com/roadrunner-server/http";
        assert_eq!(parsed("http"), is("http", http, None));
        assert_eq!(parsed("http@v5.2.0"), is("http", http, Some("v5.2.0")));
        assert_eq!(parsed("appLogger@main").0, "appLogger");
        assert_eq!(parsed("acme/http@x"), is("http", "github.com/acme/http", Some("x")));
        assert_eq!(parsed("https://github.com/acme/http.git"), is("http", "github.com/acme/http", None));
        assert_eq!(parsed("example.com/a/b/v3@latest"), is("b", "example.com/a/b/v3", Some("latest")));
        assert_eq!(parsed("roadrunner-server/http/v5").1, "roadrunner-server/http/v5");
        assert!(Named::parse("no-such-plugin", "github.com").is_err());
    }
}
