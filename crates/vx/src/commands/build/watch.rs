//! `vx build --watch` and `vx run --watch`: builds again when velox.toml or the source code of local plugins changes.
//!
//! Files are polled, not watched by the kernel: these are a few hundred files, and
//! events of the kernel don't arrive from the mounts of containers and virtual machines, where many develop.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::{process::Command, time::sleep};
use tokio_util::sync::CancellationToken;
use velox_build::{EndSignal, ErrorKind, Event, Note, ProcessGroup, module_replacements};
use velox_manifest::{LogConfig, Replacement};

use super::{
    build,
    run::{build_to_run, served_config},
};
use crate::{
    cli::{
        SourceArgs,
        build::{BuildCommand, OverrideArgs, RunCommand},
    },
    commands::session::{LoadedManifest, watch_signals, working_directory},
    config_file::default_file,
    report::{self, Report, text::count},
    settings::Settings,
    signals::SignalWatch,
    status::{CommandResult, ExitStatus},
};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Editors and version control write several files: a build starts when nothing changed for this time.
const QUIET_TIME: Duration = Duration::from_millis(150);
/// More than RoadRunner's own grace period by default.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
/// More directories are not the source code of plugins.
const MAX_DIRECTORIES: usize = 20_000;

/// The extensions of files that the go command compiles.
const SOURCES: [&str; 9] = ["go", "s", "S", "c", "cc", "cpp", "cxx", "h", "hpp"];

/// The size and time of each watched file.
type FileStates = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// The state of a command that builds again and again.
struct BuildWatch {
    settings: Settings,
    report: std::sync::Arc<dyn Report>,
    directory: PathBuf,
    cancel: CancellationToken,
    signals: SignalWatch,
    /// What is watched, with the states before the last build.
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
    states: FileStates,
}

/// `vx build --watch`. Ends with a signal.
pub(crate) async fn build(settings: Settings, arguments: BuildCommand) -> CommandResult {
    let report = report::open(&settings, LogConfig::default(), None);
    let mut watch = BuildWatch::open(settings, report, &arguments.project.source)?;
    loop {
        watch.look_up(&arguments.project.source, &arguments.overrides);
        // It reported what is wrong; the next change may mend it.
        let built = build::build(watch.settings.clone(), arguments.clone()).await;
        watch.check(built)?;
        watch.wait().await?;
    }
}

/// `vx run --watch`. Ends with a signal, after the server.
pub(crate) async fn run(settings: Settings, arguments: RunCommand) -> CommandResult {
    let report = report::open_stderr(&settings, LogConfig::default(), None);
    let mut watch = BuildWatch::open(settings, report, &arguments.source)?;
    let mut server: Option<ProcessGroup> = None;
    loop {
        watch.look_up(&arguments.source, &arguments.overrides);
        watch.files.extend(served_config(&arguments.arguments, &watch.directory));
        watch.states = watch.read();
        let built = build_to_run(watch.settings.clone(), arguments.clone()).await;
        if let Ok(binary) = &built {
            stop(&mut server).await;
            if !watch.cancel.is_cancelled() {
                server = start(binary, &arguments.arguments);
            }
        } else if server.is_some() {
            watch.note("the server still runs the previous binary".to_owned());
        }
        let next = match watch.check(built.map(drop)) {
            Ok(()) => watch.wait_beside(&mut server).await,
            ended => ended,
        };
        if let Err(status) = next {
            stop(&mut server).await;
            return Err(status);
        }
    }
}

/// Starts the server in a process group of its own: Ctrl-C must not reach it twice.
fn start(binary: &Path, arguments: &[OsString]) -> Option<ProcessGroup> {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    let started = ProcessGroup::spawn(command, true);
    started.map_err(|error| report::complain(&format!("failed to run `{}`: {error}", binary.display()))).ok()
}

async fn stop(server: &mut Option<ProcessGroup>) {
    if let Some(mut server) = server.take() {
        server.end(Some(EndSignal::Terminate), STOP_TIMEOUT).await;
    }
}

impl BuildWatch {
    fn open(
        settings: Settings,
        report: std::sync::Arc<dyn Report>,
        source: &SourceArgs,
    ) -> CommandResult<Self> {
        if source.config.as_deref() == Some(Path::new("-")) {
            let error = velox_manifest::Diagnostic::error("--watch needs a configuration file, not stdin");
            return Err(report::invalid(&settings, None, &[error]));
        }
        let cancel = CancellationToken::new();
        // A second signal must not leave the server.
        let signals = watch_signals(&cancel, |_| {})?;
        let (files, directories, states) = (BTreeSet::new(), BTreeSet::new(), FileStates::new());
        Ok(Self {
            settings,
            report,
            directory: working_directory()?,
            cancel,
            signals,
            files,
            directories,
            states,
        })
    }

    fn note(&self, text: String) {
        self.report.report(Event::Note(Note::Text { text }));
    }

    /// Finds what is to be watched. With an invalid configuration, the directories stay those of the valid one before.
    fn look_up(&mut self, source: &SourceArgs, overrides: &OverrideArgs) {
        let file = source.config.clone().unwrap_or_else(|| default_file(&self.directory));
        self.files = [self.directory.join(file)].into();
        let loaded = LoadedManifest::load(&self.settings, source.config.clone(), overrides, &self.directory);
        if let Ok(loaded) = loaded {
            let (base, manifest) = (&loaded.base, &loaded.manifest);
            let plugins = manifest.plugins.iter().filter_map(|plugin| plugin.replace.as_ref());
            let replacements = plugins.chain(manifest.replaces.iter().map(|replace| &replace.new));
            let mut found: Vec<PathBuf> = replacements
                .filter_map(|replacement| match &replacement.value {
                    Replacement::Directory(path) => Some(base.join(path)),
                    Replacement::Module { .. } => None,
                })
                .collect();
            self.directories.clear();
            while let Some(directory) = found.pop() {
                if self.directories.insert(directory.clone()) {
                    found.extend(module_replacements(&directory));
                }
            }
        }
        self.states = self.read();
    }

    /// The states of all watched files.
    fn read(&self) -> FileStates {
        let mut states = FileStates::new();
        for file in &self.files {
            add(file, &mut states);
        }
        let mut directories: Vec<(PathBuf, bool)> =
            self.directories.iter().map(|directory| (directory.clone(), true)).collect();
        let mut seen = 0;
        while let Some((directory, is_root)) = directories.pop() {
            seen += 1;
            // Another module has its own replacement, if it is compiled.
            if seen > MAX_DIRECTORIES || (!is_root && directory.join("go.mod").is_file()) {
                continue;
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        // As the go command does.
                        let is_ignored = name.starts_with(['.', '_'])
                            || matches!(&*name, "testdata" | "node_modules" | "vendor");
                        if !is_ignored {
                            directories.push((path, false));
                        }
                    }
                    _ if is_source(&name) => add(&path, &mut states),
                    _ => {}
                }
            }
        }
        states
    }

    /// Ends the command after a signal; a failed build doesn't.
    fn check(&self, built: CommandResult) -> CommandResult {
        match (self.signals.received(), built) {
            (Some(signal), _) => Err(ExitStatus::Interrupted(signal)),
            (None, Err(ExitStatus::Interrupted(signal))) => Err(ExitStatus::Interrupted(signal)),
            (None, _) => {
                let files = count(self.states.len() as u64, "file");
                self.note(format!("watching {files}; Ctrl-C stops"));
                Ok(())
            }
        }
    }

    /// Waits until a watched file differs from its state before the build, and then for the end of the changes.
    async fn wait(&self) -> CommandResult {
        let changed = async {
            loop {
                let states = self.read();
                if states != self.states {
                    break;
                }
                sleep(POLL_INTERVAL).await;
            }
            let mut last = self.read();
            loop {
                sleep(QUIET_TIME).await;
                let states = self.read();
                if states == last {
                    return states;
                }
                last = states;
            }
        };
        let states = tokio::select! {
            states = changed => states,
            () = self.cancel.cancelled() => {
                return Err(self.signals.received().map_or(ErrorKind::Interrupted.into(), ExitStatus::Interrupted));
            }
        };
        let mut paths: Vec<&PathBuf> = states.keys().chain(self.states.keys()).collect();
        paths.retain(|path| states.get(*path) != self.states.get(*path));
        paths.sort();
        paths.dedup();
        if let Some((first, others)) = paths.split_first() {
            let first = first.strip_prefix(&self.directory).unwrap_or(first).display();
            let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            self.note(format!("changed: {first}{more}"));
        }
        Ok(())
    }

    /// Waits for a change, and tells if the server ends before.
    async fn wait_beside(&self, server: &mut Option<ProcessGroup>) -> CommandResult {
        if let Some(running) = server {
            tokio::select! {
                result = self.wait() => return result,
                status = running.wait() => {
                    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.note(format!("the server ended ({status}); waiting for a change"));
                }
            }
            // What it started ends, too.
            stop(server).await;
        }
        self.wait().await
    }
}

fn add(path: &Path, states: &mut FileStates) {
    if let Ok(data) = fs::metadata(path) {
        states.insert(path.to_owned(), (data.len(), data.modified().ok()));
    }
}

/// Whether the go command compiles a file of this name, or reads its requirements.
fn is_source(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is_compiled =
        SOURCES.contains(&extension) && !name.ends_with("_test.go") && !name.starts_with(['.', '_']);
    is_compiled || matches!(name, "go.mod" | "go.sum")
}

#[cfg(test)]
mod tests {
    use super::is_source;

    #[test]
    fn only_what_is_compiled_is_watched() {
        let watched = |names: &[&str]| names.iter().filter(|name| is_source(name)).count();
        assert_eq!(watched(&["plugin.go", "a.s", "x.c", "x.h", "go.mod", "go.sum"]), 6);
        assert_eq!(
            watched(&["plugin_test.go", "rr", ".rr.yaml", "velox.lock", "_a.go", ".#a.go", "a.go~", "go"]),
            0
        );
    }
}
