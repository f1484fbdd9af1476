//! The existing versions of a module, over all its majors.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
};

use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream};
use serde::Deserialize;
use velox_fetch::{
    download::{DownloadError, Fetcher},
    forge::ForgeTag,
};
use velox_gomod::{
    module::{major_suffix, path_major_matches, with_major, without_major},
    semver,
};
use velox_manifest::catalogue::{self, ROADRUNNER_MODULE};

use super::{
    forge::tag_prefix,
    majors::{FIRST_YEAR, number, number_of_suffix, rank},
};
use crate::{
    download_failure::{advice, fault, of_go, of_listing},
    error::{Blame, Error},
    forges::Forges,
    module_request::RepositoryLocation,
    toolchain::{ModuleMode, Toolchain},
};

/// How many majors above the highest known one are requested: some plugins skipped numbers.
const MAJORS_AHEAD: u64 = 4;
const MAX_CONCURRENT_LISTS: usize = 24;

/// The number of yearly majors of RoadRunner that are queried for a branch or a commit.
const MAX_YEARS: u64 = 6;

/// The existing versions of a module or repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// From the lowest major to the highest.
    pub majors: Vec<MajorVersions>,
    /// Why no versions are known.
    pub error: Option<String>,
}

/// The versions of one major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MajorVersions {
    /// The module path, with its major suffix.
    pub module: String,
    /// From the lowest to the highest.
    pub versions: Vec<String>,
}

impl MajorVersions {
    /// The newest release, or else the newest pre-release.
    #[must_use]
    pub fn newest(&self) -> Option<&str> {
        let released = self.versions.iter().rfind(|version| semver::is_release(version));
        released.or(self.versions.last()).map(String::as_str)
    }

    /// As [`Self::newest`], or with `prereleases` the newest of all.
    #[must_use]
    pub fn newest_with(&self, prereleases: bool) -> Option<&str> {
        if prereleases { self.versions.last().map(String::as_str) } else { self.newest() }
    }
}

impl Versions {
    /// The versions of a module path.
    #[must_use]
    pub fn of(&self, module: &str) -> Option<&MajorVersions> {
        self.majors.iter().find(|major| major.module == module)
    }

    /// The highest major with a release, or else the highest.
    #[must_use]
    pub fn newest_major(&self) -> Option<&MajorVersions> {
        let released = self
            .majors
            .iter()
            .rfind(|major| major.versions.iter().any(|version| semver::is_release(version)));
        released.or(self.majors.last())
    }

    /// As [`Self::newest_major`], or with `prereleases` the highest of all.
    #[must_use]
    pub fn newest_major_with(&self, prereleases: bool) -> Option<&MajorVersions> {
        if prereleases { self.majors.last() } else { self.newest_major() }
    }

    /// The error that there is no version of `subject`, with `help`; or that its versions can't be listed.
    #[must_use]
    pub fn none_found(&self, subject: &str, help: &str) -> Error {
        let cause = self.error.as_deref();
        if let Some(cause) = cause.filter(|cause| fault(cause) != Blame::Request) {
            let error = Error::build(format!("failed to list the versions of {subject}: {cause}"));
            return advice(cause).into_iter().fold(error.fault(fault(cause)), Error::help);
        }
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        Error::configuration(format!("no version of {subject} found{cause}")).help(help)
    }

    /// The three versions most similar to `wanted`, the best first.
    #[must_use]
    pub fn nearest(&self, wanted: &str) -> Vec<&str> {
        let mut near: Vec<(f64, &str)> = self
            .majors
            .iter()
            .flat_map(|major| &major.versions)
            .map(|version| (strsim::jaro_winkler(version, wanted), version.as_str()))
            .collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        near.into_iter().take(3).map(|(_, version)| version).collect()
    }
}

/// The upward search for the majors of one module.
pub(crate) struct MajorSearch {
    /// The index of the result that the majors belong to.
    subject: usize,
    base: String,
    first: u64,
    /// The majors to request next.
    pending: Range<u64>,
    /// The highest major to request.
    last: u64,
    found: Vec<MajorVersions>,
    error: Option<String>,
}

impl MajorSearch {
    pub(crate) fn new(subject: usize, path: &str) -> Self {
        let suffix = major_suffix(path);
        Self::within(subject, path, number_of_suffix(suffix)..=u64::MAX)
    }

    /// Only these majors; of a gopkg.in path, its own.
    pub(crate) fn within(subject: usize, path: &str, majors: RangeInclusive<u64>) -> Self {
        let (base, majors) = match is_gopkg_in(path) {
            true => (path, 1..=1),
            false => (without_major(path), majors),
        };
        let (first, last) = (*majors.start().max(&1), *majors.end().max(&1));
        let end = first.saturating_add(MAJORS_AHEAD + 1).min(last.saturating_add(1));
        let base = base.to_owned();
        Self { subject, base, first, pending: first..end, last, found: Vec::new(), error: None }
    }

    fn record(&mut self, module: String, versions: Result<Vec<String>, String>) {
        match versions {
            Ok(versions) if versions.is_empty() => {}
            Ok(versions) => self.found.push(MajorVersions { module, versions }),
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }

    fn advance(&mut self) {
        let highest = self.found.iter().filter_map(|major| Some(number(major.versions.last()?))).max();
        let start = self.pending.end;
        let end = highest.map_or(start, |it| it + MAJORS_AHEAD + 1);
        self.pending = start..end.min(self.last.saturating_add(1));
    }
}

/// Whether it is a gopkg.in path: its major suffix has another form, and it gets no new majors.
fn is_gopkg_in(path: &str) -> bool {
    path.starts_with("gopkg.in/")
}

/// Runs all searches and returns the versions by subject. Without `go`, only the proxies are queried.
pub(crate) fn list_versions<'a>(
    fetcher: Option<&'a Fetcher>,
    go: Option<&'a Toolchain>,
    mut searches: Vec<MajorSearch>,
    subjects: usize,
) -> LocalBoxFuture<'a, Result<Vec<Versions>, Error>> {
    async move {
        loop {
            let requests: Vec<(usize, u64, String)> = searches
                .iter()
                .enumerate()
                .flat_map(|(index, search)| {
                    search.pending.clone().map(move |major| (index, major, with_major(&search.base, major)))
                })
                .collect();
            if requests.is_empty() {
                break;
            }
            let lists: Vec<_> = stream::iter(requests)
                .map(async |(index, major, path)| {
                    let list = match fetcher {
                        Some(fetcher) => fetcher.versions(&path).await,
                        None => Err(DownloadError::NeedsGo { module: path.clone(), tried: Vec::new() }),
                    };
                    (index, major, path, list)
                })
                .buffered(MAX_CONCURRENT_LISTS)
                .collect()
                .await;
            // A path that no proxy has may be in version control only: its first major is requested there.
            let is_first = |index: usize, major: u64| searches.get(index).is_some_and(|it| it.first == major);
            let for_go: Vec<&str> = lists
                .iter()
                .filter(|(index, major, _, list)| match list {
                    Ok(versions) => versions.is_empty() && is_first(*index, *major),
                    Err(error) => matches!(error, DownloadError::NeedsGo { .. }),
                })
                .map(|(_, _, path, _)| path.as_str())
                .collect();
            let mut by_go = match go {
                Some(go) => list_by_go(go, &for_go).await?,
                None => BTreeMap::new(),
            };
            for (index, _, path, list) in lists {
                let versions =
                    by_go.remove(&path).unwrap_or_else(|| list.map_err(|error| of_listing(&error)));
                if let Some(search) = searches.get_mut(index) {
                    search.record(path, versions);
                }
            }
            searches.iter_mut().for_each(MajorSearch::advance);
        }
        let mut results = vec![Versions::default(); subjects];
        for search in searches {
            if let Some(result) = results.get_mut(search.subject) {
                result.majors.extend(search.found);
                result.error = result.error.take().or(search.error);
            }
        }
        for result in &mut results {
            result.majors.sort_by_key(|major| rank(&major.module));
            if !result.majors.is_empty() {
                result.error = None;
            }
        }
        Ok(results)
    }
    .boxed_local()
}

/// The module paths from which the majors of RoadRunner are searched upward.
pub(crate) fn roadrunner_starts() -> Vec<String> {
    vec![with_major(ROADRUNNER_MODULE, 2), with_major(ROADRUNNER_MODULE, FIRST_YEAR)]
}

/// The paths that a module may have at a branch or a commit: proxies serve only the one that go.mod declares.
pub(crate) fn candidate_paths(root: &str) -> Vec<String> {
    let known = catalogue::find(root).filter(|plugin| plugin.module == root);
    let known = known.and_then(|plugin| plugin.majors.last().copied()).unwrap_or(1);
    let years = if root == ROADRUNNER_MODULE { FIRST_YEAR..FIRST_YEAR + MAX_YEARS } else { 0..0 };
    let newest = if root == ROADRUNNER_MODULE { 3 } else { known };
    (1..=newest + MAJORS_AHEAD).chain(years).map(|major| with_major(root, major)).collect()
}

/// The versions that the proxies have of a module, over all its majors.
pub(crate) async fn proxy_versions(fetcher: &Fetcher, module: &str) -> Versions {
    let base = without_major(module);
    let starts = match base {
        ROADRUNNER_MODULE => roadrunner_starts(),
        _ if is_gopkg_in(base) => vec![module.to_owned()],
        _ => vec![base.to_owned()],
    };
    let searches = starts.iter().map(|start| MajorSearch::new(0, start)).collect();
    let versions = list_versions(Some(fetcher), None, searches, 1).await;
    // Only the go command can fail.
    versions.ok().and_then(|mut versions| versions.pop()).unwrap_or_default()
}

/// The versions of repositories by the indexes of their subjects, from their tags.
pub(crate) fn list_tags<'a>(
    forges: &'a Forges,
    repositories: &'a [(usize, RepositoryLocation, String)],
) -> LocalBoxFuture<'a, Vec<(usize, Versions)>> {
    async move {
        stream::iter(repositories)
            .map(async |(index, place, module)| {
                let versions = match forges.repository(place).tags().await {
                    Ok(tags) => by_major(&tags, &tag_prefix(&place.folder), module),
                    Err(error) => Versions { majors: Vec::new(), error: Some(error.to_string()) },
                };
                (*index, versions)
            })
            .buffered(MAX_CONCURRENT_LISTS)
            .collect()
            .await
    }
    .boxed_local()
}

fn by_major(tags: &[ForgeTag], prefix: &str, module: &str) -> Versions {
    let base = without_major(module);
    let mut versions: Vec<&str> = tags
        .iter()
        .filter_map(|tag| tag.name.strip_prefix(prefix))
        .filter(|version| semver::is_valid(version))
        .collect();
    versions.sort_by(|a, b| semver::compare(a, b));
    let majors = versions.chunk_by(|a, b| number(a) == number(b)).map(|versions| MajorVersions {
        module: with_major(base, versions.first().map_or(1, |version| number(version))),
        versions: versions.iter().map(|version| (*version).to_owned()).collect(),
    });
    let mut majors: Vec<MajorVersions> = majors.collect();
    majors.sort_by_key(|major| rank(&major.module));
    Versions { majors, error: None }
}

/// Lists versions with one go command, for modules that the proxies lack or must not be queried for.
async fn list_by_go(
    go: &Toolchain,
    modules: &[&str],
) -> Result<BTreeMap<String, Result<Vec<String>, String>>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListedVersions {
        path: String,
        #[serde(default)]
        versions: Vec<String>,
        error: Option<ListError>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ListError {
        err: String,
    }
    if modules.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Outside of any module, so that no go.mod in a parent directory changes the result.
    let outside = tempfile::tempdir()
        .map_err(|error| Error::file("create a directory in", &std::env::temp_dir(), &error))?;
    let arguments: Vec<&str> =
        ["list", "-m", "-e", "-versions", "-json", "--"].into_iter().chain(modules.iter().copied()).collect();
    let finished = go.run(ModuleMode::Complete, None, &arguments, outside.path(), None).await?;
    let mut results = BTreeMap::new();
    for listed in serde_json::Deserializer::from_str(&finished.stdout).into_iter::<ListedVersions>() {
        let ListedVersions { path, versions, error } = listed.map_err(|error| {
            Error::build(format!("failed to parse the output of `go list -m -versions`: {error}"))
                .output(finished.stderr.clone())
        })?;
        let suffix = major_suffix(&path).to_owned();
        let versions: Vec<String> =
            versions.into_iter().filter(|version| path_major_matches(version, &suffix)).collect();
        let result = match error {
            Some(error) if versions.is_empty() => {
                Err(of_go(error.err.lines().next().unwrap_or_default().trim(), &path))
            }
            _ => Ok(versions),
        };
        results.insert(path, result);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::majors::compare_roadrunner;

    /// Runs a search over the given majors; returns the requests of each round.
    fn search(path: &str, existing: &[(&str, &[&str])]) -> (Vec<Vec<String>>, MajorSearch) {
        let mut search = MajorSearch::new(0, path);
        let mut rounds = Vec::new();
        while !search.pending.is_empty() {
            let paths: Vec<String> =
                search.pending.clone().map(|major| with_major(&search.base, major)).collect();
            for path in &paths {
                let versions =
                    existing.iter().find(|(module, _)| module == path).map(|(_, versions)| *versions);
                let versions = versions.unwrap_or_default().iter().map(|it| (*it).to_owned()).collect();
                search.record(path.clone(), Ok(versions));
            }
            search.advance();
            rounds.push(paths);
        }
        (rounds, search)
    }

    #[test]
    fn versions_of_roadrunner_are_in_the_order_of_their_releases() {
        let versions =
            ["v1.9.2", "v2.12.3", "v2023.3.12", "v2024.1.0", "v2025.1.15", "v3.0.0-rc.1", "v3.0.0", "v4.0.0"];
        let mut sorted = versions.to_vec();
        sorted.reverse();
        sorted.sort_by(|one, other| compare_roadrunner(one, other));
        assert_eq!(sorted, versions);
        let tags = versions.map(|name| ForgeTag { name: name.to_owned(), commit: String::new() });
        let newest =
            by_major(&tags, "", ROADRUNNER_MODULE).newest_major().map(|major| major.versions.clone());
        assert_eq!(newest.as_deref(), Some(&["v4.0.0".to_owned()][..]));
        let newest =
            by_major(&tags[..7], "", ROADRUNNER_MODULE).newest_major().map(|major| major.module.clone());
        assert_eq!(newest.as_deref(), Some("github.com/roadrunner-server/roadrunner/v3"));
    }

    #[test]
    fn majors_are_searched_upward_over_gaps() {
        let existing =
            [("a.b/c", &["v0.9.0", "v1.0.0"][..]), ("a.b/c/v4", &["v4.0.0"]), ("a.b/c/v8", &["v8.0.0-rc.1"])];
        let (rounds, found) = search("a.b/c", &existing);
        assert_eq!(rounds[0], ["a.b/c", "a.b/c/v2", "a.b/c/v3", "a.b/c/v4", "a.b/c/v5"]);
        assert_eq!(
            rounds[1..],
            [
                vec!["a.b/c/v6", "a.b/c/v7", "a.b/c/v8"],
                vec!["a.b/c/v9", "a.b/c/v10", "a.b/c/v11", "a.b/c/v12"]
            ]
        );
        let versions = Versions { majors: found.found, error: None };
        let newest = versions.newest_major().unwrap();
        assert_eq!((newest.module.as_str(), newest.newest()), ("a.b/c/v4", Some("v4.0.0")), "releases first");
        assert_eq!(versions.of("a.b/c/v8").unwrap().newest(), Some("v8.0.0-rc.1"));
        assert_eq!(versions.nearest("v1.0.1")[0], "v1.0.0");

        let (rounds, found) = search("a.b/c/v3", &[]);
        assert_eq!((rounds.len(), found.found.len()), (1, 0));
        let (rounds, _) = search("gopkg.in/yaml.v3", &[("gopkg.in/yaml.v3", &["v3.0.1"])]);
        assert_eq!(rounds, [["gopkg.in/yaml.v3"]]);
    }

    #[test]
    fn roadrunners_years_lie_between_its_v2_and_its_v3() {
        let module = |major: &str| format!("{ROADRUNNER_MODULE}/{major}");
        let mut majors = ["v2025", "v3", "v2", "v2024"].map(module);
        majors.sort_by_key(|module| rank(module));
        assert_eq!(majors, ["v2", "v2024", "v2025", "v3"].map(module));
    }
}
