//! Resolves refs with forges: branches, projects given by id, and self-hosted forges.

use std::{fs, path::Path};

use velox_fetch::{
    forge::{ForgeCommit, ForgeError, RemoteRepository},
    modcache::ModCache,
};
use velox_gomod::{
    modfile,
    module::{ModuleVersion, major_suffix, path_major_matches},
    modzip, pseudo, semver,
};

use super::{majors::compare_roadrunner, resolved::ResolvedModule};
use crate::{
    error::Error,
    event::{Event, Note, Reporter},
    module_request::{ModuleRequest, RepositoryLocation},
};

/// How many of the newest tags are checked for being an ancestor of the commit.
const MAX_ANCESTOR_TAGS: usize = 25;

/// A ref that was found in a repository.
pub(super) struct LocatedModule {
    pub(super) repository: RemoteRepository,
    pub(super) folder: String,
    pub(super) commit: ForgeCommit,
    pub(super) tag: Option<String>,
    /// The module path in go.mod.
    pub(super) module: String,
    /// The path in the module cache: the same, unless it replaces another module.
    pub(super) path: String,
    pub(super) go_mod: String,
}

/// Resolves the ref of `request` and reads the go.mod there.
pub(super) async fn locate(
    repository: RemoteRepository,
    place: &RepositoryLocation,
    request: &ModuleRequest,
) -> Result<LocatedModule, ForgeError> {
    let go_mod_path =
        if place.folder.is_empty() { "go.mod".to_owned() } else { format!("{}/go.mod", place.folder) };
    let resolved = resolve(&repository, place, request.reference.as_deref()).await?;
    let missing = || ForgeError::NotFound {
        what: format!("{go_mod_path} at {}", request.reference.as_deref().unwrap_or("the default branch")),
        host: repository.host(),
    };
    let go_mod = repository.file(&go_mod_path, &resolved.commit.id).await?.ok_or_else(missing)?;
    let module = modfile::module_line(&go_mod).ok_or_else(missing)?;
    Ok(LocatedModule {
        folder: place.folder.clone(),
        commit: resolved.commit,
        tag: resolved.tag,
        path: module.clone(),
        module,
        go_mod,
        repository,
    })
}

/// Resolves a ref. A tag with the folder as prefix takes precedence (`plugins/roadrunner/v1.6.18`,
/// <https://go.dev/ref/mod#vcs-version>); `latest` is the highest release tag, or else the default branch.
async fn resolve(
    repository: &RemoteRepository,
    place: &RepositoryLocation,
    reference: Option<&str>,
) -> Result<velox_fetch::forge::ResolvedRef, ForgeError> {
    let prefix = tag_prefix(&place.folder);
    match reference {
        Some("latest") => {
            let compare = if place.is_roadrunner() { compare_roadrunner } else { semver::compare };
            let tags = repository.tags().await?;
            let released = tags.iter().filter_map(|tag| {
                let version = tag.name.strip_prefix(&prefix).filter(|version| semver::is_release(version))?;
                Some((version, tag.name.as_str()))
            });
            let newest = released.max_by(|(one, _), (other, _)| compare(one, other));
            repository.resolve(newest.map(|(_, tag)| tag)).await
        }
        Some(reference) if !prefix.is_empty() && semver::is_valid(reference) => {
            match repository.resolve(Some(&format!("{prefix}{reference}"))).await {
                Err(ForgeError::NotFound { .. }) => repository.resolve(Some(reference)).await,
                result => result,
            }
        }
        reference => repository.resolve(reference).await,
    }
}

pub(crate) fn tag_prefix(folder: &str) -> String {
    if folder.is_empty() { String::new() } else { format!("{folder}/") }
}

impl LocatedModule {
    /// The Go version of this commit: its tag, or a pseudo-version based on its highest ancestor tag
    /// (<https://go.dev/ref/mod#pseudo-versions>).
    pub(super) async fn version(&self) -> Result<String, ForgeError> {
        let prefix = tag_prefix(&self.folder);
        let suffix = major_suffix(&self.path);
        let fits = |version: &str| {
            semver::canonical(version).as_deref() == Some(version)
                && !pseudo::is_pseudo_version(version)
                && path_major_matches(version, suffix)
        };
        if let Some(version) =
            self.tag.as_deref().and_then(|tag| tag.strip_prefix(&prefix)).filter(|v| fits(v))
        {
            return Ok(version.to_owned());
        }
        let tags = self.repository.tags().await?;
        let mut candidates: Vec<(&str, &str)> = tags
            .iter()
            .filter_map(|tag| Some((tag.name.strip_prefix(&prefix)?, tag.commit.as_str())))
            .filter(|(version, _)| fits(version))
            .collect();
        candidates.sort_by(|a, b| semver::compare(b.0, a.0));
        if let Some((version, _)) = candidates.iter().find(|(_, commit)| *commit == self.commit.id) {
            return Ok((*version).to_owned());
        }
        let mut base = "";
        for (version, commit) in candidates.into_iter().take(MAX_ANCESTOR_TAGS) {
            if self.repository.is_ancestor(commit, &self.commit.id).await? {
                base = version;
                break;
            }
        }
        let major = suffix.trim_start_matches(['/', '.']);
        let revision = self.commit.id.get(..12).unwrap_or(&self.commit.id);
        Ok(pseudo::pseudo_version(major, base, self.commit.time, revision))
    }

    /// Downloads the module into the module cache, in the layout of the go command.
    ///
    /// No checksum database can verify it: the first use is trusted and reported.
    pub(super) async fn store(
        self,
        cache: &ModCache,
        scratch: &Path,
        reporter: &dyn Reporter,
    ) -> Result<ResolvedModule, Error> {
        let version = self.version().await.map_err(|error| forge_error(&self.module, &error))?;
        let version = ModuleVersion::new(&self.path, version);
        let tree = scratch.join(&self.commit.id);
        self.repository
            .tree(&self.commit.id, &tree)
            .await
            .map_err(|error| forge_error(&self.module, &error))?;

        let root = if self.folder.is_empty() { tree.clone() } else { tree.join(&self.folder) };
        if root != tree && !root.join("LICENSE").exists() && tree.join("LICENSE").is_file() {
            // The zip of a nested module includes the repository's license
            // (https://go.dev/ref/mod#vcs-license).
            fs::copy(tree.join("LICENSE"), root.join("LICENSE"))
                .map_err(|error| Error::file("copy into", &root, &error))?;
        }
        let zip = scratch.join(format!("{}.zip", self.commit.id));
        let zip_error = |error: String| {
            Error::build(format!(
                "failed to create the module zip of {}@{}: {error}",
                version.path, version.version
            ))
        };
        modzip::create_from_dir(&root, &version, &zip).map_err(|error| zip_error(error.to_string()))?;
        let time =
            jiff::Timestamp::from_second(self.commit.time).map(|time| time.to_string()).unwrap_or_default();
        let info = serde_json::json!({ "Version": version.version, "Time": time }).to_string();
        let sums =
            cache.store(&version, &info, &self.go_mod, &zip).map_err(|error| zip_error(error.to_string()))?;
        reporter.report(Event::Note(Note::TrustedOnFirstUse {
            module: format!("{}@{}", version.path, version.version),
            sum: sums.zip.clone(),
        }));
        Ok(ResolvedModule {
            module: version,
            commit: Some(self.commit.id),
            time: Some(self.commit.time),
            tree: root,
            go_mod: self.go_mod,
            zip_sum: sums.zip,
            mod_sum: sums.go_mod,
        })
    }
}

fn forge_error(module: &str, error: &ForgeError) -> Error {
    let mut failed = Error::build(format!("failed to download {module}: {error}"));
    for help in error.help() {
        failed = failed.help(help);
    }
    failed
}
