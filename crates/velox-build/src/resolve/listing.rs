//! What the go command makes of a workspace: the packages that are compiled in, and the modules that they come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Deserialize;
use velox_manifest::GoTarget;

use crate::{
    Error, Event, Phase,
    lock::Selected,
    process::Children,
    toolchain::{Mode, Toolchain},
    workspace::Workspace,
};

/// The packages of a server, counted, and their modules.
pub(super) struct Listing {
    pub(super) modules: BTreeMap<String, Selected>,
    pub(super) packages: u64,
}

/// The part of `go list -json` that counts here (<https://pkg.go.dev/cmd/go#hdr-List_packages_or_modules>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Package {
    import_path: String,
    module: Option<Module>,
    error: Option<PackageError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    path: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    main: bool,
    replace: Option<Box<Module>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PackageError {
    err: String,
}

impl Listing {
    /// Completes go.mod and go.sum, downloads the modules that provide a package for `target`, and lists them.
    pub(super) async fn of(
        go: &Toolchain,
        children: &Children,
        target: &GoTarget,
        cgo: bool,
        workspace: &Workspace,
    ) -> Result<Self, Error> {
        let arguments = ["list", "-deps", "-e", "-json=ImportPath,Module,Error", "./cmd/rr"];
        let fetched = AtomicU64::new(0);
        let on_line = |line: &str| {
            if let Some(module) = line.strip_prefix("go: downloading ") {
                let done = fetched.fetch_add(1, Ordering::Relaxed) + 1;
                let event =
                    Event::Progress { phase: Phase::Fetch, done, total: None, item: module.to_owned() };
                children.reporter.report(event);
            }
        };
        let finished = go
            .run(Mode::Complete, Some(target), &arguments, workspace.directory(), cgo, Some(&on_line))
            .await?;
        if !finished.status.success() {
            return Err(Error::build("Go can't load the modules of this server")
                .output(without_progress(finished.stderr)));
        }
        let mut modules = BTreeMap::new();
        let mut packages = 0;
        let mut errors = Vec::new();
        for package in serde_json::Deserializer::from_str(&finished.stdout).into_iter::<Package>() {
            let Package { import_path, module, error } = package
                .map_err(|error| Error::build(format!("can't read what `go list -json` says: {error}")))?;
            packages += 1;
            if let Some(error) = error {
                errors.push(format!("{import_path}: {}", error.err));
            }
            if let Some(module) = module.filter(|module| !module.main) {
                let replacement = module
                    .replace
                    .map(|new| (new.path, Some(new.version).filter(|version| !version.is_empty())));
                modules.insert(module.path, Selected { version: module.version, replacement });
            }
        }
        if errors.is_empty() { Ok(Self { modules, packages }) } else { Err(unloadable(errors)) }
    }
}

/// The go command's words on packages that can't be loaded.
fn unloadable(errors: Vec<String>) -> Error {
    let mut error = Error::build(format!("Go can't load {} of this server's packages", errors.len()));
    let text = errors.join("\n");
    if text.contains("@latest found") {
        // The go command looked for the package everywhere: the module that had it was raised past it.
        error = error.help(
            "something in this server needs a newer module than the plugin that imports this package was written for: take plugin versions of one time, those that one RoadRunner release names",
        );
    } else if text.contains("no required module provides package")
        || text.contains("does not contain package")
    {
        error = error.help("the module's root package has to be the plugin: is this module a RoadRunner plugin, and is the folder right?");
    }
    if text.contains("build constraints exclude all Go files") {
        error = error
            .help("a package has no files for this target: leave the plugin out, or choose another target");
    }
    let mut seen = BTreeSet::new();
    error.output(errors.into_iter().filter(|line| seen.insert(line.clone())).collect())
}

fn without_progress(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with("go: downloading ")).collect()
}

/// The requirements between modules, as `go mod graph` prints them.
pub(super) struct Graph {
    lines: String,
}

pub(super) async fn graph(go: &Toolchain, workspace: &Workspace) -> Result<Graph, Error> {
    let finished =
        go.run(Mode::Complete, None, &["mod", "graph"], workspace.directory(), false, None).await?;
    if !finished.status.success() {
        return Err(Error::build("`go mod graph` failed").output(without_progress(finished.stderr)));
    }
    Ok(Graph { lines: finished.stdout })
}

impl Graph {
    /// The modules (`path@version`) whose go.mod requires `module` at `version`.
    pub(super) fn demanding(&self, module: &str, version: &str) -> Vec<String> {
        let wanted = format!("{module}@{version}");
        let demanding: BTreeSet<&str> = self
            .lines
            .lines()
            .filter_map(|line| line.split_once(' '))
            // The main module has no version: its go.mod says what was selected, not who demanded it.
            .filter(|(from, to)| *to == wanted && from.contains('@'))
            .map(|(from, _)| from)
            .collect();
        demanding.into_iter().map(str::to_owned).collect()
    }
}
