//! The packages of a binary and their modules, as the go command lists them.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::{FutureExt, future::LocalBoxFuture};
use serde::Deserialize;
use velox_gomod::{
    modfile::{GoMod, Require},
    module::ModuleVersion,
};

use crate::{
    download_failure::fault,
    error::{Blame, Error},
    event::{Event, Phase},
    imports::module_of,
    lock::{LockedTarget, TargetVariant},
    process::CommandRunner,
    toolchain::{ModuleMode, Toolchain},
    workspace::Workspace,
};

/// The used part of `go list -json` (<https://pkg.go.dev/cmd/go#hdr-List_packages_or_modules>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPackage {
    import_path: String,
    #[serde(default)]
    standard: bool,
    module: Option<PackageModule>,
    error: Option<PackageError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PackageModule {
    path: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    main: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PackageError {
    err: String,
}

/// Lists the packages of a target, and downloads their modules.
pub(super) async fn list(
    go: &Toolchain,
    children: &CommandRunner,
    variant: &TargetVariant,
    workspace: &Workspace,
) -> Result<LockedTarget, Error> {
    let tags = format!("-tags={}", variant.tags.join(","));
    let arguments = ["list", "-deps", "-e", &tags, "-json=ImportPath,Standard,Module,Error", "./cmd/rr"];
    let fetched = AtomicU64::new(0);
    let on_line = |line: &str| {
        if let Some(module) = line.strip_prefix("go: downloading ") {
            let done = fetched.fetch_add(1, Ordering::Relaxed) + 1;
            children.reporter.report(Event::progress(Phase::Fetch, done, None, module.to_owned()));
        }
    };
    let directory = workspace.directory();
    let finished = go.run(ModuleMode::Complete, Some(variant), &arguments, directory, Some(&on_line)).await?;
    if !finished.status.success() {
        return Err(list_error(without_progress(finished.stderr)));
    }
    let mut target = LockedTarget::default();
    let mut imports = Vec::new();
    let mut errors = Vec::new();
    for package in serde_json::Deserializer::from_str(&finished.stdout).into_iter::<ListedPackage>() {
        let ListedPackage { import_path, standard, module, error } = package.map_err(|error| {
            Error::build(format!("failed to parse the output of `go list -json`: {error}"))
        })?;
        target.packages += 1;
        if let Some(error) = error {
            errors.push(format!("{import_path}: {}", error.err));
        }
        if !standard {
            imports.push(import_path);
        }
        if let Some(module) = module.filter(|module| !module.main) {
            target.modules.insert(ModuleVersion { path: module.path, version: module.version });
        }
    }
    if !errors.is_empty() {
        return Err(package_error(errors));
    }
    let go_mod = GoMod::parse(&workspace.read("go.mod")?).map_err(|error| {
        Error::build(format!("failed to parse the go.mod that the go command completed: {error}"))
    })?;
    for Require { path, version, .. } in go_mod.require {
        if imports.iter().any(|import| module_of(import, std::iter::once(path.as_str())).is_some()) {
            target.looked_into.insert(ModuleVersion { path, version });
        }
    }
    target.looked_into.retain(|module| !target.modules.contains(module));
    Ok(target)
}

/// The error of a `go list` that failed before it listed packages.
fn list_error(lines: Vec<String>) -> Error {
    let text = lines.join("\n");
    let mut error = Error::build("failed to load the modules of the binary").fault(fault(&text));
    if text.contains("requires go >= ") {
        error = error
            .fault(Blame::Request)
            .help("a module requires a newer Go version: set GOTOOLCHAIN=auto to allow its download");
    } else if text.contains("download go1") {
        error = error.help("a module requires a newer Go version that the go command can't download: set GOTOOLCHAIN=go1.X.Y+auto, and vx does");
    }
    error.output(lines)
}

/// The error of packages that can't be loaded.
fn package_error(errors: Vec<String>) -> Error {
    let text = errors.join("\n");
    let mut error =
        Error::build(format!("failed to load {} packages of the binary", errors.len())).fault(fault(&text));
    let is_no_plugin = errors.iter().any(|line| {
        line.split_once(": module ").is_some_and(|(package, rest)| rest.starts_with(&format!("{package}@")))
    });
    if text.contains("@latest found") && !is_no_plugin {
        // Minimal version selection raised the module to a version without this package.
        error = error.fault(Blame::Request).help(
            "another plugin requires a newer version of the module that had this package: use the plugin versions of one RoadRunner release",
        );
    } else if text.contains("no required module provides package")
        || text.contains("does not contain package")
    {
        error = error.fault(Blame::Request).help("the plugin must be the root package of its module: is this module a RoadRunner plugin, and is `folder` correct?");
    }
    if text.contains("build constraints exclude all Go files") {
        error = error
            .fault(Blame::Request)
            .help("a package does not support this target: remove the plugin, or choose another target");
    }
    let mut seen = BTreeSet::new();
    error.output(errors.into_iter().filter(|line| seen.insert(line.clone())).collect())
}

fn without_progress(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("go: downloading ")).collect()
}

/// The requirements between modules, as `go mod graph` prints them.
pub(crate) fn graph<'a>(
    go: &'a Toolchain,
    workspace: &'a Workspace,
) -> LocalBoxFuture<'a, Result<String, Error>> {
    async move {
        let finished =
            go.run(ModuleMode::Complete, None, &["mod", "graph"], workspace.directory(), None).await?;
        if !finished.status.success() {
            return Err(Error::build("`go mod graph` failed").output(without_progress(finished.stderr)));
        }
        Ok(finished.stdout)
    }
    .boxed_local()
}

/// The modules (`path@version`) whose go.mod requires `module` at `version`, in the output of `go mod graph`.
pub(super) fn demanding(graph: &str, module: &str, version: &str) -> Vec<String> {
    let wanted = format!("{module}@{version}");
    let demanding: BTreeSet<&str> = graph
        .lines()
        .filter_map(|line| line.split_once(' '))
        // The main module, without a version, lists the selected versions; it does not require them.
        .filter(|(from, to)| *to == wanted && from.contains('@'))
        .map(|(from, _)| from)
        .collect();
    demanding.into_iter().map(str::to_owned).collect()
}
