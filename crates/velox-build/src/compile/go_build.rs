//! `go build`, and the diagnostics of its failures.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use velox_manifest::{Diagnostic, Origin};

use super::{
    MAIN_PACKAGE,
    progress::{CompileProgress, TargetProgress, is_package_name},
    source_lines::SourceLines,
};
use crate::{
    artifact::record::BuildRecord,
    context::BuildContext,
    error::{Blame, Error, ErrorKind},
    event::{Event, Reporter},
    imports::module_of,
    lock::{Lock, LockedPlugin, LockedReplacement, LockedTarget, TargetVariant},
    settings::BuildSettings,
    shared_caches::SharedCaches,
    stamp::Stamp,
    toolchain::{ModuleMode, Toolchain},
    workspace::{Workspace, plugins_go::import_name},
};

/// Compiles the workspace for one target. Returns the path of the binary in the workspace.
pub(crate) async fn go_build(
    context: &BuildContext<'_>,
    progress: &CompileProgress<'_>,
    go: &Toolchain,
    lock: &Lock,
    workspace: &Workspace,
    variant: &TargetVariant,
) -> Result<PathBuf, Error> {
    let settings = &context.settings;
    let binary = workspace.directory().join("out").join(settings.binary_name(&variant.target));
    let linker = linker_flags(settings, &lock.roadrunner.module, &context.stamp(lock))?;
    run(context, &progress.target(&lock.roadrunner.module, variant), go, lock, workspace, linker, &binary)
        .await?;
    Ok(binary)
}

/// As [`go_build`], with all symbols. Also returns how the linker reached each symbol, one line each:
/// `PARENT -> SYMBOL` (`-dumpdep` of cmd/link).
pub(crate) async fn go_build_unstripped(
    context: &BuildContext<'_>,
    go: &Toolchain,
    lock: &Lock,
    workspace: &Workspace,
    variant: &TargetVariant,
) -> Result<(PathBuf, Vec<String>), Error> {
    let settings = &context.settings;
    let binary = workspace.directory().join("out").join("unstripped");
    let mut linker = linker_flags(settings, &lock.roadrunner.module, &context.stamp(lock))?;
    linker.retain(|flag| flag != "-s");
    // Without the debug information that the ordinary binary doesn't have, either.
    linker.extend(settings.strip().then(|| "-w".to_owned()));
    linker.push("-dumpdep".to_owned());
    // Hundreds of thousands of lines.
    let reporter: Arc<dyn Reporter> = Arc::new(WithoutOutput(Arc::clone(&context.reporter)));
    let go = go.with_reporter(reporter);
    let progress = CompileProgress::new(context);
    let target = progress.target(&lock.roadrunner.module, variant);
    let mut lines = run(context, &target, &go, lock, workspace, linker, &binary).await?;
    lines.retain(|line| line.contains(" -> "));
    Ok((binary, lines))
}

/// A reporter without the output of child processes.
struct WithoutOutput(Arc<dyn Reporter>);

impl Reporter for WithoutOutput {
    fn report(&self, event: Event) {
        if !matches!(event, Event::Output { .. }) {
            self.0.report(event);
        }
    }
}

/// Runs `go build`. Returns its lines on standard error.
async fn run(
    context: &BuildContext<'_>,
    target: &TargetProgress<'_>,
    go: &Toolchain,
    lock: &Lock,
    workspace: &Workspace,
    mut linker: Vec<String>,
    binary: &Path,
) -> Result<Vec<String>, Error> {
    let variant = target.variant;
    let locked = lock.targets.get(variant).cloned().unwrap_or_default();
    let record = BuildRecord::new(lock, &context.stamp(lock), &context.settings);
    linker.extend(["-X".to_owned(), quote(&record.definition()?)?]);
    let arguments = arguments(&context.settings, &linker, binary);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    let on_line = |line: &str| target.line(line);
    let directory = workspace.directory();
    let running = async {
        let run = go.run(ModuleMode::ReadOnly, Some(variant), &arguments, directory, Some(&on_line));
        let finished = run.await;
        target.stop_counting();
        finished
    };
    let flags = build_flags(&context.settings, lock, &context.stamp(lock))?;
    let counting = async {
        // A shared compile cache would be asked for each package twice.
        if SharedCaches::of(context.request).is_ok_and(|caches| caches.remotes.is_empty()) {
            target.count(go, &flags, directory).await;
        }
    };
    let (finished, ()) = tokio::join!(running, counting);
    let finished = finished?;
    if finished.status.success() {
        target.finish();
        return Ok(finished.stderr);
    }
    let lines = finished.stderr.into_iter().filter(|line| !is_package_name(line)).collect();
    Err(compile_error(context, lock, &locked, lines))
}

/// The value of `-ldflags` for the RoadRunner module with this path.
pub(crate) fn linker_flags(
    settings: &BuildSettings,
    roadrunner: &str,
    stamp: &Stamp,
) -> Result<Vec<String>, Error> {
    let mut linker: Vec<String> = Vec::new();
    if settings.strip() {
        linker.push("-s".to_owned());
    }
    let stamped = stamp.definitions(roadrunner);
    for (name, value) in
        settings.arguments.definitions.iter().map(|(k, v)| (k.clone(), v.clone())).chain(stamped)
    {
        linker.push("-X".to_owned());
        linker.push(quote(&format!("{name}={value}"))?);
    }
    Ok(linker)
}

/// The flags that decide what the compiler makes, for `go build` and `go list -export`.
pub(crate) fn build_flags(
    settings: &BuildSettings,
    lock: &Lock,
    stamp: &Stamp,
) -> Result<Vec<String>, Error> {
    let linker = linker_flags(settings, &lock.roadrunner.module, stamp)?;
    let mut flags = settings.compile_arguments();
    flags.push(format!("-ldflags={}", linker.join(" ")));
    Ok(flags)
}

fn arguments(settings: &BuildSettings, linker: &[String], binary: &Path) -> Vec<String> {
    let mut arguments = vec!["build".to_owned(), "-v".to_owned()];
    arguments.extend(settings.compile_arguments());
    arguments.push(format!("-ldflags={}", linker.join(" ")));
    arguments.extend(["-o".to_owned(), binary.to_string_lossy().into_owned(), MAIN_PACKAGE.to_owned()]);
    arguments
}

/// Quotes a field of `-ldflags`, which knows no escapes (<https://pkg.go.dev/cmd/go>, "-ldflags").
fn quote(field: &str) -> Result<String, Error> {
    if let Some(control) = field.chars().find(|c| c.is_control()) {
        return Err(Error::configuration(format!("invalid stamp {field:?}: control character {control:?}"))
            .help("versions and times must be a single line"));
    }
    match (field.contains('\''), field.contains('"')) {
        (false, _) => Ok(format!("'{field}'")),
        (true, false) => Ok(format!("\"{field}\"")),
        (true, true) => {
            Err(Error::configuration(format!("invalid stamp {field}: it contains single and double quotes"))
                .help("Go's linker flags support only one kind of quotes in a value"))
        }
    }
}

/// The error of a failed compile: the output of the compiler, and a diagnostic for each plugin in it.
fn compile_error(
    context: &BuildContext<'_>,
    lock: &Lock,
    locked: &LockedTarget,
    lines: Vec<String>,
) -> Error {
    if let Some(full) =
        lines.iter().find(|line| line.to_ascii_lowercase().contains("no space left on device"))
    {
        let message = format!("go build failed, the disk is full: {}", full.trim());
        return Error::build(message).output(lines.clone());
    }
    let sources = SourceLines::new(context, lock, locked);
    let mut by_package: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut package = None;
    for line in &lines {
        match line.strip_prefix("# ") {
            Some(name) => package = Some(name),
            None => by_package.entry(package.unwrap_or_default()).or_default().push(line),
        }
    }
    let mut diagnostics: Vec<Diagnostic> = by_package
        .iter()
        .filter(|(package, _)| !package.is_empty())
        .map(|(package, lines)| {
            package_diagnostic(context, lock, locked, package, &lines.join("\n"), &sources)
        })
        .collect();
    // The generated list of plugins doesn't compile with a module that is no plugin.
    let no_plugins = no_plugin_diagnostics(context, lock, &lines);
    let is_no_plugin = !no_plugins.is_empty();
    if is_no_plugin {
        diagnostics = no_plugins;
    }
    if diagnostics.is_empty() {
        diagnostics.push(Diagnostic::error("go build failed"));
    }
    if context.settings.race && lines.iter().any(|line| line.contains("C compiler") || line.contains("cgo")) {
        diagnostics[0]
            .help
            .push("--race requires cgo and a C compiler for the target: install gcc or clang".to_owned());
    }
    let lines = lines.iter().map(|line| sources.shown(line)).collect();
    let fault = if is_no_plugin { Blame::Request } else { Blame::Other };
    Error::many(ErrorKind::Build, diagnostics).fault(fault).output(lines)
}

/// A diagnostic for each plugin whose root package has no type `Plugin`.
fn no_plugin_diagnostics(context: &BuildContext<'_>, lock: &Lock, lines: &[String]) -> Vec<Diagnostic> {
    let generated: Vec<&String> = lines
        .iter()
        .filter(|line| line.trim_start_matches("./").starts_with("container/plugins.go:"))
        .collect();
    let is_named = |module: &str| {
        let name = format!("{}.Plugin", import_name(module));
        generated.iter().any(|line| line.contains(&name))
    };
    let plugins = lock.plugins.iter().filter(|plugin| is_named(&plugin.module));
    plugins
        .map(|plugin| {
            let LockedPlugin { name, module, version, .. } = plugin;
            let named = context.manifest.plugins.iter().find(|plugin| plugin.name.value == *name);
            let span = named.and_then(|plugin| match (&plugin.replace, &plugin.origin) {
                (Some(replace), _) => replace.span.clone(),
                (None, Origin::Module(path)) => path.span.clone(),
                (None, Origin::GitHub { repository, folder, .. }) => {
                    folder.as_ref().unwrap_or(repository).span.clone()
                }
                (None, Origin::GitLab { folder: Some(folder), .. }) => folder.span.clone(),
                (None, Origin::GitLab { project, .. }) => project.span.clone(),
            });
            Diagnostic::error(format!("plugin {name} ({module} {version}) has no type `Plugin` in its root package"))
                .at(span)
                .label("not a RoadRunner plugin")
                .help("if the plugin is in a folder of the repository with its own go.mod, name the folder (`folder`, or the end of `module_name`)")
                .help("RoadRunner plugins are structs of the name `Plugin`; other modules can't be compiled in")
        })
        .collect()
}

/// Messages of the compiler about an interface that differs from the expected one.
const INTERFACE_MISMATCHES: [&str; 7] = [
    "undefined:",
    "cannot use",
    "missing method",
    "not enough arguments",
    "too many arguments",
    "has no field or method",
    "unknown field",
];

fn package_diagnostic(
    context: &BuildContext<'_>,
    lock: &Lock,
    locked: &LockedTarget,
    package: &str,
    lines: &str,
    sources: &SourceLines,
) -> Diagnostic {
    let path = module_of(package, locked.modules.iter().map(|module| module.path.as_str()));
    let Some(module) = locked.modules.iter().find(|module| Some(module.path.as_str()) == path) else {
        return Diagnostic::error(format!("failed to compile RoadRunner's package {package}"))
            .help("a plugin of a different major version may have raised a module that it requires");
    };
    let owner = lock.plugins.iter().find(|plugin| plugin.module == module.path);
    let name = format!("{} {}", module.path, module.version);
    let mut diagnostic = match owner {
        Some(owner) => {
            let named = context.manifest.plugins.iter().find(|plugin| plugin.name.value == owner.name);
            let replaced = named.and_then(|plugin| plugin.replace.as_ref()).and_then(|new| new.span.clone());
            let label = if replaced.is_some() { "replaced here" } else { "requested here" };
            Diagnostic::error(format!("failed to compile plugin {} ({name})", owner.name))
                .at(replaced.or_else(|| named.and_then(|plugin| plugin.reference.span.clone())))
                .label(label)
        }
        None => {
            let replaced =
                context.manifest.replaces.iter().find(|replace| replace.old.value.0 == module.path);
            Diagnostic::error(format!("failed to compile {name}, a dependency of a plugin"))
                .at(replaced.and_then(|replace| replace.new.span.clone()))
                .label("replaced here")
        }
    };
    let is_local =
        owner.is_some_and(|owner| matches!(owner.replacement, Some(LockedReplacement::Directory { .. })));
    if !is_local && INTERFACE_MISMATCHES.iter().any(|sign| lines.contains(sign)) {
        diagnostic = diagnostic
            .help(format!(
                "it was written for other versions of its dependencies: use the plugin versions of RoadRunner {}, all of the same major",
                lock.roadrunner.version
            ))
            .help("or use the dependency versions that the plugins require: set dependencies = \"minimal\" in [roadrunner]");
    }
    if let Some(page) = sources.page(lines, &context.manifest, lock) {
        diagnostic = diagnostic.help(format!("the source: {page}"));
    }
    diagnostic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_the_way_go_reads_it() {
        assert_eq!(quote("m.version=1 2").unwrap(), "'m.version=1 2'");
        assert_eq!(quote("m.version=it's").unwrap(), "\"m.version=it's\"");
        assert!(quote("m.version='\"").is_err());
        assert!(quote("m.version=1\n2").is_err());
    }
}
