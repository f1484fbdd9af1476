//! The size of a RoadRunner binary: which plugins, modules and packages its bytes belong to.
//!
//! ```text
//! unstripped link ──symbols──► bytes of each symbol ┐
//! -dumpdep ──────────────────► who reached it first ├─► LinkMap ──► SizeReport, SizePrediction
//! go list -deps ─────────────► imports of packages  ┘
//! ```
//!
//! Bytes are *exclusive* to a plugin if their package is imported through no other plugin and not by RoadRunner itself.

mod growth;
mod line_table;
mod link_map;
mod symbols;

use std::{collections::BTreeMap, fs::File, io::Read, path::Path, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{BuildRequest, Error, LinkReader, Lock, QuerySession, Reporter, module_of};
use velox_manifest::unknown_plugin;

use self::link_map::LinkMap;
pub(crate) use self::symbols::functions;
use crate::inspect;

pub use growth::{ModuleGrowth, RecordedSize, RecordedSizes};

/// Changed when the same binary gets another [`LinkMap`].
const READER: LinkReader = LinkReader { name: "size", generation: "1", read: link_map::read };

/// The module name of the standard library.
const STANDARD_LIBRARY: &str = "std";

/// The size of a binary, and what it consists of. All sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeReport {
    /// RoadRunner's module path.
    pub roadrunner: String,
    /// RoadRunner's version; `None` if a binary doesn't contain it.
    pub version: Option<String>,
    /// The target platform (`linux/amd64`).
    pub target: Option<String>,
    /// The size of the file.
    pub total: u64,
    /// The plugins, largest first.
    pub plugins: Vec<PluginSize>,
    /// Bytes of packages that several plugins import, and RoadRunner itself doesn't; `None` for a binary without
    /// imports.
    pub shared: Option<u64>,
    /// Bytes of packages that RoadRunner imports without any plugin.
    pub base: Option<u64>,
    /// The modules, largest first; `std` is the standard library.
    pub modules: Vec<ModuleSize>,
    /// The packages, largest first.
    pub packages: Vec<PackageSize>,
    /// The same bytes by kind.
    pub contents: BinaryContents,
}

/// A plugin's part of a binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginSize {
    /// The name in velox.toml.
    pub name: String,
    /// The module path.
    pub module: String,
    /// The version.
    pub version: String,
    /// Bytes of its own module.
    pub own: u64,
    /// Bytes of packages that only this plugin imports, directly or indirectly; `None` if the imports are unknown.
    pub exclusive: Option<u64>,
    /// Bytes of further packages that it imports, as other plugins do, and RoadRunner itself doesn't.
    pub shared: Option<u64>,
}

/// A module's part of a binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleSize {
    /// The module path.
    pub module: String,
    /// Bytes of its packages.
    pub bytes: u64,
}

/// A package's part of a binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageSize {
    /// The import path.
    pub package: String,
    /// The module path.
    pub module: String,
    /// Bytes of its code, data and types, with its part of the tables that Go generates.
    pub bytes: u64,
}

/// The bytes of a binary by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct BinaryContents {
    /// Machine code.
    pub code: u64,
    /// Go's tables about functions: names, lines, stack maps (`runtime.pclntab`).
    pub line_tables: u64,
    /// Types, strings and method tables.
    pub types_and_strings: u64,
    /// Variables and constants.
    pub data: u64,
    /// Headers, padding, and debug symbols if the binary keeps them.
    pub other: u64,
}

impl BinaryContents {
    fn total(self) -> u64 {
        let Self { code, line_tables, types_and_strings, data, other } = self;
        code + line_tables + types_and_strings + data + other
    }
}

/// The predicted size of a binary without some plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizePrediction {
    /// The names of the plugins.
    pub without: Vec<String>,
    /// The prediction: halfway between the two estimates.
    pub bytes: u64,
    /// The low estimate: everything goes that the linker reached through the plugins first.
    pub low: u64,
    /// The high estimate: only their exclusive packages go.
    pub high: u64,
}

/// Size queries about one target of a build.
#[derive(Debug, Clone)]
pub struct BuildSize {
    lock: Lock,
    target: String,
    map: LinkMap,
}

impl BuildSize {
    /// Links the binary of the first target once with all symbols, over the packages that a build compiled. The result
    /// is cached until something changes.
    ///
    /// # Errors
    /// As [`velox_build::build`], up to the link.
    pub async fn load(
        request: &BuildRequest,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<Self, Error> {
        let (output, lock, target) = QuerySession::new(request, reporter, cancel)?.read_link(READER).await?;
        let map = serde_json::from_str(&output)
            .map_err(|error| Error::build(format!("internal error: invalid sizes in the cache: {error}")))?;
        Ok(Self { lock, target: target.to_string(), map })
    }

    /// The target platform (`linux/amd64`).
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The size of the binary.
    #[must_use]
    pub fn report(&self) -> SizeReport {
        let Self { lock, map, target } = self;
        let bytes = map.package_bytes();
        let roots: Vec<usize> =
            lock.plugins.iter().filter_map(|plugin| map.package(&plugin.module)).collect();
        let sum = |counts: &dyn Fn(usize) -> bool| {
            bytes
                .iter()
                .enumerate()
                .filter(|(package, _)| counts(*package))
                .map(|(_, bytes)| bytes)
                .sum::<u64>()
        };
        let base = map.reached(&self.container(), &roots);
        let mut exclusive_total = 0;
        let mut plugins: Vec<PluginSize> = lock
            .plugins
            .iter()
            .map(|plugin| {
                let root = map.package(&plugin.module);
                let kept = map.reached(&self.container(), root.as_slice());
                let imported = root.map(|root| map.imported_by(root)).unwrap_or_default();
                let is_in = |set: &[bool], package: usize| set.get(package).copied().unwrap_or_default();
                let exclusive = sum(&|package| !is_in(&kept, package));
                exclusive_total += exclusive;
                let shared = sum(&|package| {
                    is_in(&imported, package) && is_in(&kept, package) && !is_in(&base, package)
                });
                PluginSize {
                    name: plugin.name.clone(),
                    module: plugin.module.clone(),
                    version: plugin.row().version.unwrap_or_else(|| "local".to_owned()),
                    own: sum(&|package| map.module(package) == plugin.module),
                    exclusive: Some(exclusive),
                    shared: Some(shared),
                }
            })
            .collect();
        plugins.sort_by(|a, b| b.exclusive.cmp(&a.exclusive).then_with(|| a.name.cmp(&b.name)));
        let base = sum(&|package| base.get(package).copied().unwrap_or_default());
        let all: u64 = bytes.iter().sum();
        let packages = bytes.iter().enumerate().map(|(package, bytes)| PackageSize {
            package: map.path(package).to_owned(),
            module: map.module(package).to_owned(),
            bytes: *bytes,
        });
        let (modules, packages) = by_module(packages.collect());
        SizeReport {
            roadrunner: lock.roadrunner.module.clone(),
            version: Some(lock.roadrunner.version.clone()),
            target: Some(target.clone()),
            total: map.total,
            plugins,
            shared: Some(all.saturating_sub(base + exclusive_total)),
            base: Some(base),
            modules,
            packages,
            contents: map.contents,
        }
    }

    /// Predicts the size without these plugins.
    ///
    /// # Errors
    /// A name that is no plugin of velox.toml.
    pub fn without(&self, names: &[String]) -> Result<SizePrediction, Error> {
        let Self { lock, map, .. } = self;
        let mut removed = Vec::new();
        for name in names {
            // An added plugin stays in every binary.
            let known = || lock.plugins.iter().filter(|plugin| plugin.from.is_some());
            let Some(plugin) = known().find(|plugin| plugin.name == *name) else {
                let known: Vec<&str> = known().map(|plugin| plugin.name.as_str()).collect();
                return Err(unknown_plugin(name, &known).into());
            };
            removed.extend(map.package(&plugin.module));
        }
        let kept = map.reached(&self.container(), &removed);
        let (certain, possible) = map.bytes_without(&kept);
        let high = map.total.saturating_sub(certain);
        let low = high.saturating_sub(possible);
        Ok(SizePrediction { without: names.to_vec(), bytes: low.midpoint(high), low, high })
    }

    /// The package that imports the plugins.
    fn container(&self) -> String {
        format!("{}/container", self.lock.roadrunner.module)
    }
}

/// Whether a file is a binary of any platform: not a configuration.
#[must_use]
pub fn is_binary(path: &Path) -> bool {
    let mut start = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok() && object::FileKind::parse(start.as_slice()).is_ok()
}

/// The size of an existing binary, stripped or not: the code of each package, with its part of the tables about
/// functions. Other data has no package.
///
/// # Errors
/// A file that can't be read, or is no RoadRunner binary.
pub fn binary_size(path: &Path) -> Result<SizeReport, Error> {
    let inspection = inspect(path)?;
    let (functions, contents) = functions(path)?;
    let modules: Vec<&str> =
        inspection.plugins.iter().chain(&inspection.modules).map(|module| module.module.as_str()).collect();
    let mut by_package: BTreeMap<String, u64> = BTreeMap::new();
    let mut total_code = 0;
    for (name, bytes) in functions {
        let package = match symbols::package_of(&name).map(symbols::unescaped) {
            Some(package) if package == "main" => format!("{}/cmd/rr", inspection.roadrunner),
            Some(package) => package,
            None => continue,
        };
        total_code += bytes;
        *by_package.entry(package).or_default() += bytes;
    }
    let module_of = |package: &str| {
        let paths = modules.iter().copied().chain([inspection.roadrunner.as_str()]);
        module_of(package, paths).unwrap_or(STANDARD_LIBRARY).to_owned()
    };
    let with_tables = |code: u64| {
        let tables = u128::from(code) * u128::from(contents.line_tables) / u128::from(total_code.max(1));
        code + u64::try_from(tables).unwrap_or_default()
    };
    let packages = by_package.into_iter().map(|(package, code)| PackageSize {
        module: module_of(&package),
        package,
        bytes: with_tables(code),
    });
    let (modules, packages) = by_module(packages.collect());
    let own = |path: &str| modules.iter().find(|module| module.module == path).map_or(0, |it| it.bytes);
    let mut plugins: Vec<PluginSize> = inspection
        .plugins
        .into_iter()
        .map(|plugin| PluginSize {
            own: own(&plugin.module),
            name: plugin.name,
            module: plugin.module,
            version: plugin.version,
            exclusive: None,
            shared: None,
        })
        .collect();
    plugins.sort_by(|a, b| b.own.cmp(&a.own).then_with(|| a.name.cmp(&b.name)));
    Ok(SizeReport {
        roadrunner: inspection.roadrunner,
        version: inspection.version,
        target: inspection.target,
        total: contents.total(),
        plugins,
        shared: None,
        base: None,
        modules,
        packages,
        contents,
    })
}

/// The sizes of modules and of packages, largest first, without empty ones.
fn by_module(mut packages: Vec<PackageSize>) -> (Vec<ModuleSize>, Vec<PackageSize>) {
    packages.retain(|package| package.bytes > 0);
    packages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.package.cmp(&b.package)));
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for package in &packages {
        *sums.entry(&package.module).or_default() += package.bytes;
    }
    let mut modules: Vec<ModuleSize> =
        sums.into_iter().map(|(module, bytes)| ModuleSize { module: module.to_owned(), bytes }).collect();
    modules.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.module.cmp(&b.module)));
    (modules, packages)
}
