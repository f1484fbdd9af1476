//! Questions about modules that no build asks: what a RoadRunner was released with, and which versions there are.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use velox_gomod::{module::split_path_version, semver};
use velox_manifest::{Manifest, Origin, Plugin};

use crate::{
    Error, Major, Reporter, Request, Versions,
    lock::LockFile,
    pipeline::Pipeline,
    resolve::{
        Forges, Place, own_place_of_module, own_place_of_roadrunner, place_of_plugin, tag_prefix,
        with_replaces_at_plugins,
    },
    settings::Settings,
    versions::{Chain, FIRST_YEAR, LISTS, ROADRUNNER, follow, gather, number, with_major},
};

/// Asks about modules, the way that a build of the same request would fetch them.
pub struct Inquiry<'a> {
    request: &'a Request,
    manifest: Manifest,
    settings: Settings,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
}

/// RoadRunner as it was released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoadRunnerRelease {
    /// Its module path, with the major suffix.
    pub module: String,
    /// Its exact version.
    pub version: String,
    /// The plugins that it was released with, module path and version, as its go.mod names them.
    pub plugins: Vec<(String, String)>,
    /// Everything that its go.mod names.
    pub requires: BTreeMap<String, String>,
}

/// Whose versions are asked for.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A module; its majors are looked for from that of the path upward.
    Module(String),
    /// A plugin of the request's manifest, by its name.
    Plugin(String),
    /// RoadRunner itself.
    RoadRunner,
}

impl<'a> Inquiry<'a> {
    /// Questions of this request; its goal and its options for a build don't matter.
    #[must_use]
    pub fn new(request: &'a Request, reporter: Arc<dyn Reporter>, cancel: CancellationToken) -> Self {
        let manifest = with_replaces_at_plugins(&request.manifest);
        let settings = Settings::new(&manifest, &request.options, &request.environment);
        Self { request, manifest, settings, reporter, cancel }
    }

    fn pipeline(&self) -> Pipeline<'_> {
        let (reporter, cancel) = (Arc::clone(&self.reporter), self.cancel.clone());
        Pipeline::new(self.request, &self.manifest, &self.settings, reporter, cancel)
    }

    /// What the manifest's RoadRunner was released with.
    ///
    /// # Errors
    /// Its ref can't be resolved.
    pub async fn release(&self) -> Result<RoadRunnerRelease, Error> {
        let pipeline = self.pipeline();
        // A lock that can't be read only means that nothing is known before.
        let found = LockFile::read(self.request).unwrap_or_default();
        let tools = pipeline.tools(&found, None).await?;
        let lock = found.lock.as_ref();
        let release = pipeline.resolver(&tools, lock).release().await?;
        Ok(RoadRunnerRelease {
            module: release.module.path,
            version: release.module.version,
            plugins: release.plugins.into_iter().map(|plugin| (plugin.path, plugin.version)).collect(),
            requires: release.go_mod.require.into_iter().map(|line| (line.path, line.version)).collect(),
        })
    }

    /// The versions of every subject, in the same order: from the module proxies themselves, from one go command for
    /// all that these may not be asked for, and from the forge for what lies on the manifest's own.
    ///
    /// # Errors
    /// The go command doesn't work, or the user interrupts. What has no versions is no error.
    pub async fn versions(&self, subjects: &[Subject]) -> Result<Vec<Versions>, Error> {
        let pipeline = self.pipeline();
        // A lock that can't be read only means that nothing is known before.
        let found = LockFile::read(self.request).unwrap_or_default();
        let tools = pipeline.tools(&found, None).await?;
        let lock = found.lock.as_ref();
        let locked =
            |name: &str| lock?.plugins.iter().find(|plugin| plugin.name == name).map(|p| p.module.clone());

        let mut answers: Vec<Versions> = subjects.iter().map(|_| Versions::default()).collect();
        let mut chains: Vec<Chain> = Vec::new();
        let mut on_forges: Vec<(usize, Place, String)> = Vec::new();
        for (index, subject) in subjects.iter().enumerate() {
            match subject {
                Subject::Module(path) => match own_place_of_module(path, &self.manifest) {
                    Some(place) => on_forges.push((index, place, path.clone())),
                    None => chains.push(Chain::new(index, path)),
                },
                Subject::RoadRunner => {
                    if let Some(place) = own_place_of_roadrunner(&self.manifest) {
                        on_forges.push((index, place, ROADRUNNER.to_owned()));
                        continue;
                    }
                    chains.push(Chain::new(index, &format!("{ROADRUNNER}/v2")));
                    chains.push(Chain::new(index, &format!("{ROADRUNNER}/v{FIRST_YEAR}")));
                }
                Subject::Plugin(name) => {
                    let Some(plugin) = self.manifest.plugins.iter().find(|plugin| plugin.name.value == *name)
                    else {
                        continue;
                    };
                    let module = locked(name).or_else(|| plugin.module_path(&self.manifest));
                    match (self.place(plugin, module.is_none()), module) {
                        (Some(place), module) => on_forges.push((index, place, module.unwrap_or_default())),
                        (None, Some(module)) => chains.push(Chain::new(index, &module)),
                        (None, None) => {}
                    }
                }
            }
        }
        let resolver = pipeline.resolver(&tools, None);
        let work = async {
            let (listed, tagged) = tokio::join!(
                follow(resolver.fetcher, Some(resolver.go), &mut chains),
                tags(resolver.forges, &on_forges)
            );
            listed.map(|()| tagged)
        };
        let tagged = tokio::select! {
            tagged = work => tagged?,
            () = self.cancel.cancelled() => return Err(Error::interrupted()),
        };
        for (index, versions) in tagged {
            if let Some(answer) = answers.get_mut(index) {
                *answer = versions;
            }
        }
        gather(chains, &mut answers);
        Ok(answers)
    }

    /// The repository to ask for tags: one on the manifest's own forge, and one whose module isn't known.
    fn place(&self, plugin: &Plugin, unknown: bool) -> Option<Place> {
        let place = place_of_plugin(plugin, &self.manifest)?;
        let named = matches!(plugin.origin, Origin::Module(_));
        (!named && (place.own || unknown)).then_some(place)
    }
}

/// The tags of repositories, by the majors that they are of.
async fn tags(forges: &Forges, asked: &[(usize, Place, String)]) -> Vec<(usize, Versions)> {
    stream::iter(asked)
        .map(async |(index, place, module)| {
            let prefix = tag_prefix(&place.folder);
            let tags = match forges.repository(place).tags().await {
                Ok(tags) => tags,
                Err(error) => {
                    let trouble = Some(error.to_string());
                    return (*index, Versions { majors: Vec::new(), trouble });
                }
            };
            let base = split_path_version(module).map_or(module.as_str(), |(base, _)| base);
            let mut majors: BTreeMap<u64, Major> = BTreeMap::new();
            for tag in &tags {
                let Some(version) =
                    tag.name.strip_prefix(&prefix).filter(|version| semver::is_valid(version))
                else {
                    continue;
                };
                let number = number(version);
                let module = with_major(base, number);
                let major = majors.entry(number).or_insert_with(|| Major { module, versions: Vec::new() });
                major.versions.push(version.to_owned());
            }
            let mut majors: Vec<Major> = majors.into_values().collect();
            for major in &mut majors {
                major.versions.sort_by(|a, b| semver::compare(a, b));
            }
            (*index, Versions { majors, trouble: None })
        })
        .buffered(LISTS)
        .collect()
        .await
}
