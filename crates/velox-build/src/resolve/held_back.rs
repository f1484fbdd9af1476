//! Plugins older than RoadRunner's own version of them, which may not compile with RoadRunner's dependencies.

use std::collections::BTreeSet;

use velox_gomod::module::ModuleVersion;

use super::{plugin::ResolvedPlugin, resolver::Resolver};
use crate::{
    error::Error,
    event::{Event, Phase},
    imports::module_of,
    lock::Lock,
    toolchain::ModuleMode,
    workspace::Workspace,
};

/// Which plugins get the versions of their own go.mod instead of RoadRunner's `// indirect` lines. All sets
/// hold module paths.
#[derive(Default)]
pub(super) struct HeldBackPlugins {
    /// Those whose dependencies are lowered.
    pub(super) lowered: BTreeSet<String>,
    /// Those that need no trial: their dependencies are lowered as in the previous lock, or lowering them
    /// didn't help.
    settled: BTreeSet<String>,
}

impl HeldBackPlugins {
    /// The decisions of the previous lock for the same plugins on the same RoadRunner.
    pub(super) fn new(
        previous: Option<&Lock>,
        roadrunner: &ModuleVersion,
        plugins: &[ResolvedPlugin],
    ) -> Self {
        let Some(lock) = previous.filter(|lock| lock.roadrunner() == *roadrunner) else {
            return Self::default();
        };
        let is_same = |plugin: &&ResolvedPlugin| {
            lock.plugins.iter().any(|known| {
                known.name == plugin.name && known.module == plugin.module && known.version == plugin.version
            })
        };
        let is_lowered =
            |plugin: &&ResolvedPlugin| lock.lowered.iter().any(|lowered| lowered.plugin == plugin.name);
        let lowered: BTreeSet<String> =
            plugins.iter().filter(is_same).filter(is_lowered).map(|plugin| plugin.module.clone()).collect();
        Self { settled: lowered.clone(), lowered }
    }

    /// Those of `held_back` whose dependencies are not lowered, but can be.
    fn candidates<'a>(&self, held_back: &[&'a ResolvedPlugin]) -> Vec<&'a ResolvedPlugin> {
        let is_open = |plugin: &&ResolvedPlugin| {
            !self.lowered.contains(&plugin.module) && !self.settled.contains(&plugin.module)
        };
        held_back.iter().copied().filter(is_open).collect()
    }

    /// Lowers the dependencies of plugins that an error of the go command names. Returns whether there are any.
    pub(super) fn lower_for(&mut self, error: &Error, held_back: &[&ResolvedPlugin]) -> bool {
        let packages: Vec<&str> = error.output.iter().filter_map(|line| line.split(": ").next()).collect();
        let named = owners(&packages, &self.candidates(held_back));
        let found = !named.is_empty();
        self.lowered.extend(named);
        found
    }

    /// Compiles the packages of held-back plugins. Returns whether the decisions changed: a plugin that fails
    /// gets lowered dependencies, and RoadRunner's again if it fails with them too.
    pub(super) async fn compile(
        &mut self,
        resolver: &Resolver<'_>,
        workspace: &Workspace,
        held_back: &[&ResolvedPlugin],
    ) -> Result<bool, Error> {
        let open: Vec<&ResolvedPlugin> =
            held_back.iter().copied().filter(|plugin| !self.settled.contains(&plugin.module)).collect();
        if open.is_empty() {
            return Ok(false);
        }
        let failed = resolver.failed(workspace, &open).await?;
        for module in &failed {
            if self.lowered.remove(module) {
                self.settled.insert(module.clone());
            } else {
                self.lowered.insert(module.clone());
            }
        }
        Ok(!failed.is_empty())
    }
}

impl Resolver<'_> {
    /// The module paths of the plugins that don't compile for one of the targets. What compiles stays in GOCACHE for
    /// the build.
    async fn failed(
        &self,
        workspace: &Workspace,
        plugins: &[&ResolvedPlugin],
    ) -> Result<BTreeSet<String>, Error> {
        let flags = self.context.settings.compile_arguments();
        let modules = plugins.iter().map(|plugin| plugin.module.as_str());
        let arguments: Vec<&str> =
            std::iter::once("build").chain(flags.iter().map(String::as_str)).chain(modules).collect();
        let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let mut failed = BTreeSet::new();
        for variant in &self.context.variants {
            let item = format!("compiling {}", names.join(", "));
            self.context.reporter.report(Event::progress(Phase::Resolve, 0, None, item));
            let directory = workspace.directory();
            let run = self.go.run(ModuleMode::ReadOnly, Some(variant), &arguments, directory, None);
            let finished = run.await?;
            if !finished.status.success() {
                // Lines of the compiler follow a line `# PACKAGE`.
                let packages: Vec<&str> =
                    finished.stderr.iter().filter_map(|line| line.strip_prefix("# ")).collect();
                failed.extend(owners(&packages, plugins));
            }
        }
        Ok(failed)
    }
}

/// The plugins whose package, or a package that they may import, is among `packages`.
fn owners(packages: &[&str], plugins: &[&ResolvedPlugin]) -> BTreeSet<String> {
    let own = |package: &str| {
        let modules = plugins.iter().map(|plugin| plugin.module.as_str());
        module_of(package, modules).map(|module| vec![module.to_owned()])
    };
    let importers = |package: &str| {
        let requires = |plugin: &&&ResolvedPlugin| {
            module_of(package, plugin.requires().map(|line| line.path.as_str())).is_some()
        };
        plugins.iter().filter(requires).map(|plugin| plugin.module.clone()).collect()
    };
    packages.iter().flat_map(|package| own(package).unwrap_or_else(|| importers(package))).collect()
}
