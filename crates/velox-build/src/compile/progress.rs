//! The progress of `go build`, which prints each package when it starts to compile it.
//!
//! The packages that the build cache lacks are only known to the go command: [`TargetProgress::count`] asks it beside a
//! build that takes longer.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::MAIN_PACKAGE;
use crate::{
    context::BuildContext,
    event::{Event, Phase, Reporter},
    lock::TargetVariant,
    toolchain::{ModuleMode, Toolchain},
};

/// Shorter builds are not worth the time of counting.
const COUNT_DELAY: Duration = Duration::from_secs(2);

/// Lists the packages of which the build cache has no result, one a line.
const MISSING_PACKAGES: &str = "-f={{if .Stale}}{{if ne .StaleReason \"not installed but available in build cache\"}}{{.ImportPath}}{{end}}{{end}}";

/// The progress of a build of several targets, which are compiled at the same time.
pub(crate) struct CompileProgress<'a> {
    reporter: &'a dyn Reporter,
    /// Notified when all packages of a target are compiled.
    compiled: &'a Notify,
    cancel: &'a CancellationToken,
    state: Mutex<ProgressState>,
}

#[derive(Default)]
struct ProgressState {
    targets: Vec<TargetPackages>,
    /// The first target of the current phase of compiling.
    first: usize,
    compiling: RunningPhase,
    linking: RunningPhase,
}

/// A phase of as many targets as are in it at the same time.
#[derive(Default)]
struct RunningPhase {
    since: Option<Instant>,
    targets: usize,
    finished: u64,
}

struct TargetPackages {
    /// Those that were printed.
    printed: HashSet<String>,
    /// All that have to be compiled, if they are known.
    expected: Option<HashSet<String>>,
    /// The one that was printed last, and when.
    last: Option<(Instant, String)>,
    is_linking: bool,
}

/// The progress of one target.
pub(crate) struct TargetProgress<'a> {
    all: &'a CompileProgress<'a>,
    pub(super) variant: &'a TargetVariant,
    index: usize,
    /// The last package; the linker follows it.
    main_package: String,
    /// Cancelled when the packages are compiled, or with the build.
    compiled: CancellationToken,
}

impl<'a> CompileProgress<'a> {
    pub(crate) fn new(context: &'a BuildContext<'_>) -> Self {
        let BuildContext { reporter, compiled, cancel, .. } = context;
        Self { reporter: &**reporter, compiled, cancel, state: Mutex::default() }
    }

    /// Starts a target, with the module path of RoadRunner.
    pub(crate) fn target(&'a self, roadrunner: &str, variant: &'a TargetVariant) -> TargetProgress<'a> {
        let state = &mut *self.state();
        let index = state.targets.len();
        if state.compiling.targets == 0 {
            state.first = index;
        }
        state.targets.push(TargetPackages {
            printed: HashSet::new(),
            expected: None,
            last: None,
            is_linking: false,
        });
        self.enter(Phase::Compile, &mut state.compiling, Instant::now());
        let main_package = format!("{roadrunner}/cmd/rr");
        TargetProgress { all: self, variant, index, main_package, compiled: self.cancel.child_token() }
    }

    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase, running: &mut RunningPhase, at: Instant) {
        if running.targets == 0 {
            (running.since, running.finished) = (Some(at), 0);
            self.reporter.report(Event::Started(phase));
        }
        running.targets += 1;
    }

    fn leave(&self, phase: Phase, running: &mut RunningPhase, at: Instant) {
        running.targets = running.targets.saturating_sub(1);
        running.finished += 1;
        if running.targets > 0 {
            return;
        }
        if phase == Phase::Link && running.finished > 1 {
            self.reporter.report(Event::progress(phase, running.finished, None, String::new()));
        }
        let since = running.since.unwrap_or(at);
        self.reporter.report(Event::Finished(phase, at.saturating_duration_since(since)));
    }

    /// Reports the packages of all targets.
    fn report_packages(&self, state: &ProgressState, item: String) {
        let targets = state.targets.get(state.first..).unwrap_or_default();
        let done: u64 = targets.iter().map(|target| target.printed.len() as u64).sum();
        let total = targets.iter().map(|target| Some(target.expected.as_ref()?.len() as u64)).sum();
        self.reporter.report(Event::progress(Phase::Compile, done, total, item));
    }

    fn link(&self, state: &mut ProgressState, index: usize, at: Instant) {
        let Some(target) = state.targets.get_mut(index).filter(|target| !target.is_linking) else { return };
        target.is_linking = true;
        self.leave(Phase::Compile, &mut state.compiling, at);
        self.enter(Phase::Link, &mut state.linking, at);
        self.compiled.notify_one();
    }
}

impl TargetProgress<'_> {
    /// A line of `go build -v`.
    pub(super) fn line(&self, line: &str) {
        if !is_package_name(line) {
            return;
        }
        let (state, now) = (&mut *self.all.state(), Instant::now());
        let Some(target) = state.targets.get_mut(self.index) else { return };
        target.last = Some((now, line.to_owned()));
        target.printed.insert(line.to_owned());
        target.expected.as_mut().map(|expected| expected.insert(line.to_owned()));
        self.all.report_packages(state, line.to_owned());
        if line == self.main_package {
            self.compiled.cancel();
            self.all.link(state, self.index, now);
        }
    }

    /// The command succeeded.
    pub(super) fn finish(&self) {
        let (state, now) = (&mut *self.all.state(), Instant::now());
        let Some(target) = state.targets.get(self.index) else { return };
        if !target.is_linking {
            // With a cached main package, the linker followed the last package, or it only linked.
            let last = target.last.as_ref().map(|(at, _)| *at);
            let at = last.or(state.compiling.since).unwrap_or(now);
            if target.printed.is_empty() {
                self.all.report_packages(state, String::new());
            }
            self.all.link(state, self.index, at);
        }
        self.all.leave(Phase::Link, &mut state.linking, now);
    }

    /// Counts the packages to compile, if the build runs long enough. `flags` are those of the build.
    pub(super) async fn count(&self, go: &Toolchain, flags: &[String], directory: &Path) {
        loop {
            if self.compiled.run_until_cancelled(tokio::time::sleep(COUNT_DELAY)).await.is_none() {
                return;
            }
            // Until a package is printed, it may be that only the linker runs.
            if self.all.state().targets.get(self.index).is_some_and(|target| !target.printed.is_empty()) {
                break;
            }
        }
        let go = go.until(&self.compiled);
        let mut arguments = vec!["list", "-e", "-deps", MISSING_PACKAGES];
        arguments.extend(flags.iter().map(String::as_str));
        arguments.push(MAIN_PACKAGE);
        let listed = go.run(ModuleMode::ReadOnly, Some(self.variant), &arguments, directory, None).await;
        // Without it, the total stays unknown.
        let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else { return };
        let state = &mut *self.all.state();
        let Some(target) = state.targets.get_mut(self.index).filter(|target| !target.is_linking) else {
            return;
        };
        let missing = listed.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned);
        target.expected = Some(missing.chain(target.printed.iter().cloned()).collect());
        let last = target.last.as_ref().map(|(_, package)| package.clone());
        self.all.report_packages(state, last.unwrap_or_default());
    }

    /// Ends [`Self::count`].
    pub(super) fn stop_counting(&self) {
        self.compiled.cancel();
    }
}

/// `go build -v` prints one import path on a line; lines of the compiler have a position or a `#`.
pub(super) fn is_package_name(line: &str) -> bool {
    !line.is_empty() && !line.contains([' ', ':', '#', '\t'])
}

#[cfg(test)]
mod tests {
    use velox_manifest::GoTarget;

    use super::*;

    #[test]
    fn package_names_are_told_from_the_compilers_lines() {
        assert!(is_package_name("github.com/roadrunner-server/http/v5"));
        for line in ["# example.com/x", "x.go:1:2: undefined: y", "\thave (int)", ""] {
            assert!(!is_package_name(line), "{line:?}");
        }
    }

    #[derive(Default)]
    struct Events(Mutex<Vec<String>>);

    impl Reporter for Events {
        fn report(&self, event: Event) {
            let line = match event {
                Event::Started(phase) => format!("{} starts", phase.name()),
                Event::Finished(phase, _) => format!("{} ends", phase.name()),
                Event::Progress { phase, done, total, item, .. } => {
                    let total = total.map(|total| format!("/{total}")).unwrap_or_default();
                    format!("{} {done}{total} {item}", phase.name())
                }
                _ => return,
            };
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn targets_that_are_compiled_at_the_same_time_are_counted_together() {
        let (events, notify, cancel) = (Events::default(), Notify::new(), CancellationToken::new());
        let all = CompileProgress {
            reporter: &events,
            compiled: &notify,
            cancel: &cancel,
            state: Mutex::default(),
        };
        let variant =
            TargetVariant { target: GoTarget::host(), cgo: false, tags: Vec::new(), instruction_set: None };
        let (one, two) = (all.target("rr", &variant), all.target("rr", &variant));
        one.line("fmt");
        two.line("fmt");
        one.line("rr/cmd/rr");
        one.finish();
        two.line("# rr/cmd/rr");
        // Its main package is cached.
        two.finish();
        // A later target is a phase of its own.
        let three = all.target("rr", &variant);
        three.finish();
        assert_eq!(
            *events.0.lock().unwrap(),
            [
                "compile starts",
                "compile 1 fmt",
                "compile 2 fmt",
                "compile 3 rr/cmd/rr",
                "link starts",
                "link ends",
                "compile ends",
                "link starts",
                "link ends",
                "compile starts",
                "compile 0 ",
                "compile ends",
                "link starts",
                "link ends",
            ]
        );
    }
}
