//! Selects a version for each version constraint.

use std::{collections::BTreeMap, ops::RangeInclusive};

use velox_gomod::{
    module::{ModuleVersion, major_suffix},
    semver,
};
use velox_manifest::{VersionConstraint, catalogue::ROADRUNNER_MODULE};

use super::{
    majors::number_of_suffix,
    pin::{UnresolvedModule, unresolved},
    resolver::Resolver,
    versions::{MajorSearch, Versions, list_tags, list_versions, proxy_versions},
};
use crate::{
    download_failure,
    error::{Blame, Error, until_cancelled},
    module_request::{ModuleRequest, RepositoryLocation},
    request::NetworkAccess,
};

/// The failed requests, by index.
pub(super) type Failures = BTreeMap<usize, UnresolvedModule>;

impl Resolver<'_> {
    /// The requests, each version constraint replaced by the locked version, or else by the newest that it allows.
    pub(super) async fn select_versions(
        &self,
        requests: &[ModuleRequest],
    ) -> Result<(Vec<ModuleRequest>, Failures), Error> {
        let mut requests = requests.to_vec();
        let mut failed = Failures::new();
        let mut pending: Vec<(usize, VersionConstraint)> = Vec::new();
        let mut searches: Vec<MajorSearch> = Vec::new();
        let mut repositories: Vec<(usize, RepositoryLocation, String)> = Vec::new();
        for (index, request) in requests.iter_mut().enumerate() {
            if let Some(newest) = self.newest_roadrunner(request).await? {
                request.reference = Some(newest.version.clone());
                request.module = Some(newest);
                continue;
            }
            let Some(constraint) = request.reference.as_deref().and_then(VersionConstraint::of) else {
                continue;
            };
            if let Some(known) = &request.known {
                request.module = request.module.take().map(|_| known.module.clone());
                request.reference = Some(known.module.version.clone());
                continue;
            }
            if self.context.request.options.network == NetworkAccess::Offline {
                let help = ["run it once without --offline: velox.lock then has an exact version".to_owned()];
                let why = "`--offline` forbids listing the versions";
                failed.insert(index, unresolved(request, Blame::Other, why, &help));
                continue;
            }
            match version_source(request, &constraint) {
                (Some(path), majors) => searches.push(MajorSearch::within(index, &path, majors)),
                (None, _) => {
                    repositories.extend(request.place.clone().map(|place| (index, place, String::new())))
                }
            }
            pending.push((index, constraint));
        }
        if pending.is_empty() {
            return Ok((requests, failed));
        }
        let listed = self.versions(searches, &repositories, requests.len()).await?;
        for (index, constraint) in pending {
            let (Some(request), Some(versions)) = (requests.get_mut(index), listed.get(index)) else {
                continue;
            };
            match newest(versions, &constraint) {
                Some(module) => {
                    request.reference = Some(module.version.clone());
                    // The module path of a tag in a repository follows from its go.mod.
                    let is_listed = !repositories.iter().any(|(of, ..)| *of == index);
                    request.module = is_listed.then_some(module);
                }
                None => {
                    failed.insert(index, no_version(request, &constraint, versions));
                }
            }
        }
        Ok((requests, failed))
    }

    /// The versions by subject: of modules, and of repositories by their tags.
    pub(crate) async fn versions(
        &self,
        searches: Vec<MajorSearch>,
        repositories: &[(usize, RepositoryLocation, String)],
        subjects: usize,
    ) -> Result<Vec<Versions>, Error> {
        let listing = async {
            tokio::join!(
                list_versions(self.tools.fetcher.as_ref(), Some(self.go), searches, subjects),
                list_tags(&self.tools.forges, repositories)
            )
        };
        let (versions, tagged) = until_cancelled(&self.context.cancel, listing).await?;
        let mut versions = versions?;
        for (index, tagged) in tagged {
            if let Some(slot) = versions.get_mut(index) {
                *slot = tagged;
            }
        }
        Ok(versions)
    }

    /// The newest release of RoadRunner, if `latest` is requested and the module proxies list its versions: the query
    /// `@latest` of the go command is about one major.
    async fn newest_roadrunner(&self, request: &ModuleRequest) -> Result<Option<ModuleVersion>, Error> {
        let is_latest = request.reference.as_deref() == Some("latest")
            && request.root.as_deref() == Some(ROADRUNNER_MODULE)
            && request.known.is_none()
            && self.context.request.options.network != NetworkAccess::Offline;
        let Some(fetcher) = self.tools.fetcher.as_ref().filter(|_| is_latest) else { return Ok(None) };
        let listing = proxy_versions(fetcher, ROADRUNNER_MODULE);
        let versions = until_cancelled(&self.context.cancel, listing).await?;
        Ok(versions.newest_major().and_then(|major| Some(ModuleVersion::new(&major.module, major.newest()?))))
    }
}

/// The newest version of all majors that a constraint allows.
fn newest(versions: &Versions, constraint: &VersionConstraint) -> Option<ModuleVersion> {
    let of_each = versions
        .majors
        .iter()
        .filter_map(|major| Some(ModuleVersion::new(&major.module, constraint.newest(&major.versions)?)));
    of_each.max_by(|one, other| semver::compare(&one.version, &other.version))
}

/// The module path to list, and its majors; without a path, the tags of the repository are listed.
fn version_source(
    request: &ModuleRequest,
    constraint: &VersionConstraint,
) -> (Option<String>, RangeInclusive<u64>) {
    let is_own = request.place.as_ref().is_some_and(|place| place.own);
    match (&request.module, &request.root) {
        (Some(ModuleVersion { path, .. }), _) => {
            let major = number_of_suffix(major_suffix(path));
            (Some(path.clone()), major..=major)
        }
        (None, Some(root)) => (Some(root.clone()), constraint.majors()),
        (None, None) if request.replacement && !is_own => (Some(request.path.clone()), constraint.majors()),
        (None, None) => (None, constraint.majors()),
    }
}

fn no_version(
    request: &ModuleRequest,
    constraint: &VersionConstraint,
    versions: &Versions,
) -> UnresolvedModule {
    const EXACT: &str = "without the list of its versions, name a tag instead of the constraint, or set another proxy in GOPROXY";
    let path = version_source(request, constraint).0.unwrap_or_else(|| request.path.clone());
    if let Some(why) = &versions.error {
        let advice = download_failure::advice(why).map(str::to_owned);
        let help: Vec<String> = advice.into_iter().chain([EXACT.to_owned()]).collect();
        let why = format!("failed to list its versions: {why}");
        return unresolved(request, download_failure::fault(&why), &why, &help);
    }
    let all: Vec<&String> = versions.majors.iter().flat_map(|major| &major.versions).collect();
    let newest = versions.newest_major().and_then(|major| major.newest());
    let (why, help) = match newest {
        None => (
            format!("no versions of {path} are listed"),
            vec![
                "check the module path; a module without tags has branches and commits only".to_owned(),
                format!("a module proxy may not serve lists: {EXACT}"),
            ],
        ),
        Some(newest) => {
            let prerelease = all.iter().rev().find(|version| {
                let core = version.split(['-', '+']).next().unwrap_or_default();
                core.len() < version.len() && constraint.matches(core)
            });
            let named = prerelease
                .map(|version| format!("a pre-release has to be named: {version} would match otherwise"));
            let newest = format!("the newest version is {newest}");
            (format!("no version of {path} matches"), named.into_iter().chain([newest]).collect())
        }
    };
    unresolved(request, Blame::Request, &why, &help)
}
