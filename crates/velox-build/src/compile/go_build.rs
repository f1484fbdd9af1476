//! `go build`, and the diagnostics of its failures.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use velox_manifest::Diagnostic;

use crate::{
    error::{Blame, Error, ErrorKind, finding},
    event::{Event, Phase, Reporter},
    lock::{Lock, LockedReplacement, LockedTarget, TargetVariant},
    request::BuildRequest,
    resolve::compose::module_of,
    settings::BuildSettings,
    stamp::Stamp,
    toolchain::{ModuleMode, Toolchain},
    workspace::Workspace,
};

pub(crate) struct GoBuild<'a> {
    pub(crate) request: &'a BuildRequest,
    pub(crate) settings: &'a BuildSettings,
    pub(crate) go: &'a Toolchain,
    pub(crate) lock: &'a Lock,
    pub(crate) stamp: &'a Stamp,
    pub(crate) workspace: &'a Workspace,
    pub(crate) variant: &'a TargetVariant,
    pub(crate) reporter: &'a dyn Reporter,
}

impl GoBuild<'_> {
    /// Returns the path of the binary in the workspace.
    pub(crate) async fn run(&self) -> Result<PathBuf, Error> {
        let Self { request, settings, go, lock, stamp, workspace, variant, reporter } = *self;
        let locked = lock.targets.get(variant).cloned().unwrap_or_default();
        let binary = workspace.directory().join("out").join(settings.binary_name(&variant.target));
        let arguments = arguments(settings, lock, stamp, &binary)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

        let main_package = format!("{}/cmd/rr", lock.roadrunner.module);
        let progress = CompileProgress::new(reporter, locked.packages, main_package);
        let on_line = |line: &str| progress.line(line);
        let finished = go
            .run(
                ModuleMode::ReadOnly,
                Some(&variant.target),
                &arguments,
                workspace.directory(),
                settings.cgo,
                Some(&on_line),
            )
            .await?;
        progress.finish(finished.status.success());
        if finished.status.success() {
            return Ok(binary);
        }
        let lines: Vec<String> = finished.stderr.into_iter().filter(|line| !is_package_name(line)).collect();
        Err(explain(request, settings, lock, &locked, lines))
    }
}

/// The value of `-ldflags` for the RoadRunner module with this path.
///
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

fn arguments(
    settings: &BuildSettings,
    lock: &Lock,
    stamp: &Stamp,
    binary: &Path,
) -> Result<Vec<String>, Error> {
    let linker = linker_flags(settings, &lock.roadrunner.module, stamp)?;
    let tags = settings.tags();
    let mut arguments: Vec<String> =
        ["build", "-v", "-trimpath", "-buildvcs=false"].map(str::to_owned).into();
    arguments.extend(settings.compiler_flags().map(str::to_owned));
    if settings.race {
        arguments.push("-race".to_owned());
    }
    if !tags.is_empty() {
        arguments.push(format!("-tags={}", tags.join(",")));
    }
    arguments.extend(settings.arguments.flags.iter().cloned());
    arguments.push(format!("-ldflags={}", linker.join(" ")));
    arguments.extend(["-o".to_owned(), binary.to_string_lossy().into_owned(), "./cmd/rr".to_owned()]);
    Ok(arguments)
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

/// Counts the packages that `go build -v` prints. The main package is the last; the linker follows it.
struct CompileProgress<'a> {
    reporter: &'a dyn Reporter,
    total: u64,
    main_package: String,
    done: AtomicU64,
    compiling: Instant,
    linking: Mutex<Option<Instant>>,
}

impl<'a> CompileProgress<'a> {
    fn new(reporter: &'a dyn Reporter, total: u64, main_package: String) -> Self {
        reporter.report(Event::Started(Phase::Compile));
        let (done, linking) = (AtomicU64::new(0), Mutex::new(None));
        Self { reporter, total, main_package, done, compiling: Instant::now(), linking }
    }

    fn line(&self, line: &str) {
        if !is_package_name(line) {
            return;
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let (phase, total, item) = (Phase::Compile, Some(self.total), line.to_owned());
        self.reporter.report(Event::Progress { phase, done, total, item, bytes: None });
        if line == self.main_package {
            self.link();
        }
    }

    fn link(&self) {
        let mut linking = self.linking.lock().unwrap_or_else(PoisonError::into_inner);
        if linking.is_none() {
            *linking = Some(Instant::now());
            self.reporter.report(Event::Finished(Phase::Compile, self.compiling.elapsed()));
            self.reporter.report(Event::Started(Phase::Link));
        }
    }

    fn finish(&self, well: bool) {
        if well {
            // With a cached main package, only the linker ran.
            self.link();
            let linking = self.linking.lock().unwrap_or_else(PoisonError::into_inner);
            let elapsed = linking.map(|since| since.elapsed()).unwrap_or_default();
            self.reporter.report(Event::Finished(Phase::Link, elapsed));
        }
    }
}

/// `go build -v` prints one import path on a line; lines of the compiler have a position or a `#`.
fn is_package_name(line: &str) -> bool {
    !line.is_empty() && !line.contains([' ', ':', '#', '\t'])
}

/// The error of a failed compile: the output of the compiler, and a diagnostic for each plugin in it.
fn explain(
    request: &BuildRequest,
    settings: &BuildSettings,
    lock: &Lock,
    locked: &LockedTarget,
    lines: Vec<String>,
) -> Error {
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
        .map(|(package, lines)| blamed(request, lock, locked, package, &lines.join("\n")))
        .collect();
    if diagnostics.is_empty() {
        diagnostics.push(finding("go build failed".to_owned(), None, None));
    }
    if settings.race && lines.iter().any(|line| line.contains("C compiler") || line.contains("cgo")) {
        diagnostics[0]
            .help
            .push("--race requires cgo and a C compiler for the target: install gcc or clang".to_owned());
    }
    // The generated list of plugins doesn't compile with a module that is no plugin.
    let is_no_plugin = lines.iter().any(|line| line.starts_with("container/plugins.go:"));
    let fault = if is_no_plugin { Blame::Request } else { Blame::Other };
    Error::many(ErrorKind::Build, diagnostics).fault(fault).output(lines)
}

fn blamed(
    request: &BuildRequest,
    lock: &Lock,
    locked: &LockedTarget,
    package: &str,
    lines: &str,
) -> Diagnostic {
    let module = module_of(package, locked.modules.iter().map(|module| module.path.as_str()));
    let Some(module) = module else {
        let mut diagnostic = finding(format!("failed to compile RoadRunner's package {package}"), None, None);
        diagnostic.help.push(
            "a plugin of a different major version may have raised a module that it requires".to_owned(),
        );
        return diagnostic;
    };
    let version = locked
        .modules
        .iter()
        .find(|known| known.path == module)
        .map(|known| known.version.as_str())
        .unwrap_or_default();
    let owner = lock.plugins.iter().find(|plugin| plugin.module == module);
    let span = owner.and_then(|owner| {
        let plugin = request.manifest.plugins.iter().find(|plugin| plugin.name.value == owner.name)?;
        plugin.reference.span.clone()
    });
    let mut diagnostic = match owner {
        Some(owner) => finding(
            format!("failed to compile plugin {} ({module} {version})", owner.name),
            span,
            Some("requested here"),
        ),
        None => {
            finding(format!("failed to compile {module} {version}, a dependency of a plugin"), None, None)
        }
    };
    let local =
        owner.is_some_and(|owner| matches!(owner.replacement, Some(LockedReplacement::Directory { .. })));
    if !local
        && [
            "undefined:",
            "cannot use",
            "missing method",
            "not enough arguments",
            "too many arguments",
            "has no field or method",
            "unknown field",
        ]
        .iter()
        .any(|sign| lines.contains(sign))
    {
        diagnostic.help.push(format!(
            "it was written for other versions of its dependencies: use the plugin versions of RoadRunner {}, all of the same major",
            lock.roadrunner.version
        ));
        diagnostic.help.push(
            "or use the dependency versions that the plugins require: set dependencies = \"minimal\" in [roadrunner]"
                .to_owned(),
        );
    }
    if lines.contains("undefined: ") && lines.contains(".Plugin") {
        diagnostic
            .help
            .push("the module's root package has no type Plugin: is it a RoadRunner plugin?".to_owned());
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

    #[test]
    fn package_names_are_told_from_the_compilers_lines() {
        assert!(is_package_name("github.com/roadrunner-server/http/v5"));
        for line in ["# example.com/x", "x.go:1:2: undefined: y", "\thave (int)", ""] {
            assert!(!is_package_name(line), "{line:?}");
        }
    }
}
