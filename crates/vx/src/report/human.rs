use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use velox_build::{
    BuildSummary, BuiltBinary, CompileCacheStats, Event, Goal, Note, Output, Phase, PluginRow, Reporter,
};
use velox_manifest::{Level, SourceFile};

use crate::{
    report::{
        Change, Failure, Report,
        diagnostics::{heading, render},
        text::{clean, count, elapsed, table},
        threshold,
    },
    settings::{Terminal, Verbosity},
    signals::Signal,
};

const DONE: Style = AnsiColor::Green.on_default().bold();
const DOING: Style = AnsiColor::Cyan.on_default().bold();

/// Writes lines for people: one for each phase that ended, warnings and notes as they come, a summary; and on a
/// terminal bars below them for the phases that go on.
///
/// All goes to stderr, but for a dry run's result (the table of versions and the go.mod), which is what the user
/// asked for and goes to stdout.
pub(crate) struct Human {
    verbosity: Verbosity,
    source: Option<SourceFile>,
    bars: Option<Bars>,
    state: Mutex<State>,
}

/// How far a phase is.
#[derive(Clone, Copy)]
struct Done {
    count: u64,
    /// What came over the network for it.
    bytes: Option<u64>,
}

struct State {
    out: Box<dyn Write + Send>,
    running: HashMap<Phase, ProgressBar>,
    /// How many things each phase did.
    done: HashMap<Phase, Done>,
    /// RoadRunner's version, and how many plugins there are.
    resolved: Option<(String, usize)>,
    /// How long that took.
    resolving: Option<Duration>,
}

impl Human {
    /// `out` takes styled text: an `anstream` that strips what its reader can't show.
    pub(crate) fn new(
        out: Box<dyn Write + Send>,
        bars: Option<Bars>,
        verbosity: Verbosity,
        source: Option<SourceFile>,
    ) -> Self {
        let state =
            State { out, running: HashMap::new(), done: HashMap::new(), resolved: None, resolving: None };
        Self { verbosity, source, bars, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Above the bars. A build goes on when nobody reads its progress any more.
    fn say(&self, state: &mut State, text: &str) {
        let mut write = || {
            let _ = state.out.write_all(text.as_bytes()).and_then(|()| state.out.flush());
        };
        match &self.bars {
            Some(bars) => bars.all.suspend(write),
            None => write(),
        }
    }

    fn row(&self, state: &mut State, style: Style, verb: &str, text: &str) {
        self.say(state, &format!("{} {text}\n", column(style, verb)));
    }

    fn progress(&self, state: &mut State, phase: Phase, progress: Done, total: Option<u64>, item: &str) {
        state.done.insert(phase, progress);
        let Done { count: done, bytes } = progress;
        if self.verbosity >= Verbosity::Everything {
            let of = total.map(|total| format!("{done}/{total} ")).unwrap_or_default();
            self.row(state, DOING, doing(phase), &format!("{of}{}", clean(item)));
        }
        let Some(bars) = &self.bars else { return };
        if let Some(bar) = state.running.get(&phase) {
            if bar.length() != total {
                match total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_style(bars.style(total.is_some()));
            }
            bar.set_position(done);
            let size = bytes.map(|bytes| format!("{}, ", HumanBytes(bytes))).unwrap_or_default();
            bar.set_message(size + &clean(item));
        } else if let Some(bar) = state.running.values().next() {
            // Modules are fetched while versions are resolved: the count is another phase's, the item is news.
            bar.set_message(clean(item).into_owned());
        }
    }

    fn finish(&self, state: &mut State, phase: Phase, time: Duration) {
        if let Some(bar) = state.running.remove(&phase) {
            bar.finish_and_clear();
        }
        let done = state.done.get(&phase).map(|done| done.count);
        let (verb, what) = match phase {
            Phase::Resolve => {
                state.resolving = Some(time);
                return self.resolved(state);
            }
            Phase::Fetch => {
                // Where the caches had everything, nothing was done.
                let Some(Done { count: modules, bytes }) = state.done.get(&phase).copied() else { return };
                let size = bytes.map(|bytes| format!(" ({})", rate(bytes, time))).unwrap_or_default();
                ("Fetched", format!("{}{size}", count(modules, "module")))
            }
            Phase::Prepare => ("Prepared", "the source tree".to_owned()),
            Phase::Compile => ("Compiled", done.map_or("all packages".to_owned(), |n| count(n, "package"))),
            Phase::Link => ("Linked", "the server".to_owned()),
            Phase::Verify => ("Verified", "the server".to_owned()),
            Phase::Publish => ("Published", "the server".to_owned()),
        };
        self.row(state, DONE, verb, &format!("{what} in {}", elapsed(time)));
    }

    /// Once the phase has ended and what it found is known, in whichever order.
    fn resolved(&self, state: &mut State) {
        if let (Some((version, plugins)), Some(time)) = (&state.resolved, state.resolving) {
            let plugins = count(*plugins as u64, "plugin");
            let text = format!("RoadRunner {version} and {plugins} in {}", elapsed(time));
            self.row(state, DONE, "Resolved", &text);
        }
    }

    fn note(&self, state: &mut State, note: &Note) {
        if let Note::RateLimitWait { host, seconds } = note {
            let text = format!("{seconds}s: the rate limit of {} is used up", clean(host));
            return self.row(state, DOING, "Waiting", &text);
        }
        let style = AnsiColor::BrightGreen.on_default().bold();
        self.say(state, &format!("{style}note{style:#}: {}\n", clean(&note.to_string())));
    }

    fn clear_bars(&self, state: &mut State) {
        for (_, bar) in state.running.drain() {
            bar.finish_and_clear();
        }
    }
}

impl Reporter for Human {
    fn report(&self, event: Event) {
        let state = &mut *self.state();
        match event {
            // The bars and the counts live on it at every verbosity.
            Event::Progress { phase, done: count, total, item, bytes } => {
                self.progress(state, phase, Done { count, bytes }, total, &item)
            }
            event if threshold(&event) > self.verbosity => {}
            Event::Started(phase) => {
                state.done.remove(&phase);
                if let Some(bars) = &self.bars {
                    state.running.insert(phase, bars.add(phase));
                }
            }
            Event::Finished(phase, time) => self.finish(state, phase, time),
            Event::Resolved { version, plugins, .. } => {
                state.resolved = Some((clean(&version).into_owned(), plugins.len()));
                self.resolved(state);
            }
            Event::Raised(raised) => {
                self.say(state, &format!("{}\n", heading(Level::Warning, &raised.to_string())))
            }
            Event::Warning(warning) => self.say(state, &render(&warning, self.source.as_ref())),
            Event::Note(note) => self.note(state, &note),
            Event::Output { program, line } => self.say(state, &format!("{program}: {}\n", clean(&line))),
        }
    }
}

impl Report for Human {
    fn interrupted(&self, _: Signal) {
        let state = &mut *self.state();
        self.clear_bars(state);
        if self.verbosity >= Verbosity::Warnings {
            self.row(state, DOING, "Stopping", "and cleaning up (Ctrl-C again leaves at once)");
        }
    }

    fn answered(&self) {
        self.clear_bars(&mut self.state());
    }

    fn failed(&self, failure: &Failure<'_>) {
        let state = &mut *self.state();
        self.clear_bars(state);
        let mut parts: Vec<String> =
            failure.diagnostics.iter().map(|diagnostic| render(diagnostic, self.source.as_ref())).collect();
        if !failure.output.is_empty() {
            parts.push(failure.output.iter().map(|line| format!("{}\n", clean(line))).collect());
        }
        if parts.is_empty() {
            parts.push(format!("{}\n", heading(Level::Error, failure.ending.word())));
        }
        self.say(state, &parts.join("\n"));
    }

    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()> {
        let state = &mut *self.state();
        self.clear_bars(state);
        if self.verbosity < Verbosity::Normal {
            return Ok(());
        }
        if changes.is_empty() {
            self.row(state, DONE, "Unchanged", &clean(&file.to_string_lossy()));
        }
        for Change { change, name, module, from, to } in changes {
            let refs = match (from, to) {
                (None, Some(what)) if matches!(*change, "created" | "migrated") => format!(": {what}"),
                (Some(from), Some(to)) => format!(" {from} -> {to}"),
                (Some(at), None) | (None, Some(at)) => format!(" {at}"),
                (None, None) => String::new(),
            };
            let module = module.as_ref().map(|module| format!(" ({module})")).unwrap_or_default();
            let mut verb = (*change).to_owned();
            if let Some(first) = verb.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            self.row(state, DONE, &verb, &clean(&format!("{name}{refs}{module}")));
        }
        Ok(())
    }

    fn finished(&self, goal: &Goal, summary: &BuildSummary, time: Duration) -> io::Result<()> {
        let state = &mut *self.state();
        self.clear_bars(state);
        if self.verbosity >= Verbosity::Normal {
            self.summarize(state, goal, summary, time);
        }
        if let Goal::DryRun(_) = goal { super::print(&plan(summary)) } else { Ok(()) }
    }
}

impl Human {
    fn summarize(&self, state: &mut State, goal: &Goal, summary: &BuildSummary, time: Duration) {
        let BuildSummary { version, targets, go_version, stamp_version, stamp_time, .. } = summary;
        let time = elapsed(time);
        let lock = summary.lock.as_ref().map_or("the lock".into(), |lock| lock.to_string_lossy());
        let done = match goal {
            Goal::Plan | Goal::DryRun(_) => format!("the dry run in {time}: nothing was compiled"),
            Goal::Lock => format!("{} in {time}", clean(&lock)),
            Goal::CheckLock => format!("{} says what the configuration asks for", clean(&lock)),
            Goal::Fetch => format!("fetching in {time}: `vx build --offline` has all that it needs"),
            Goal::Build(_) => {
                let plugins = count(summary.plugins.len() as u64, "plugin");
                let targets = targets.iter().map(|target| target.to_string()).collect::<Vec<_>>().join(", ");
                let text = format!("RoadRunner {version} with {plugins} for {targets} by {go_version}");
                self.row(state, DONE, "Built", &text);
                if matches!(goal, Goal::Build(Output::Store(_))) {
                    return;
                }
                self.row(state, DONE, "Stamped", &clean(&format!("{stamp_version}, {stamp_time}")));
                if let Some(cache) = &summary.compile_cache {
                    self.row(state, DONE, "Cached", &clean(&cached(cache)));
                }
                let server = |binary: &BuiltBinary| {
                    let BuiltBinary { path, size, reused, archive, .. } = binary;
                    let reused = if *reused { ", built before" } else { "" };
                    let archive = archive.as_ref().map(|path| format!(", {}", path.display()));
                    let text = format!("{} ({}{reused})", path.display(), HumanBytes(*size));
                    clean(&(text + &archive.unwrap_or_default())).into_owned()
                };
                match summary.binaries.as_slice() {
                    [one] => format!("{} in {time}", server(one)),
                    many => {
                        for binary in many {
                            self.row(state, DONE, "Server", &server(binary));
                        }
                        format!("in {time}")
                    }
                }
            }
        };
        self.row(state, DONE, "Finished", &done);
    }
}

/// `34.2 MiB, 11.0 MiB/s`
fn rate(bytes: u64, time: Duration) -> String {
    let each = bytes as f64 / time.as_secs_f64().max(0.001);
    format!("{}, {}/s", HumanBytes(bytes), HumanBytes(each as u64))
}

/// What a shared compile cache did.
fn cached(cache: &CompileCacheStats) -> String {
    let CompileCacheStats { local_hits, remote_hits, misses, bytes_down, bytes_up, trouble } = cache;
    let mut text = format!(
        "{remote_hits} results from the remote ({}), {local_hits} from here, {misses} new, {} sent",
        HumanBytes(*bytes_down),
        HumanBytes(*bytes_up)
    );
    if let Some(trouble) = trouble {
        text += &format!("; {trouble}");
    }
    text
}

/// The bars of the phases that go on.
pub(crate) struct Bars {
    all: MultiProgress,
    terminal: Terminal,
}

impl Bars {
    pub(crate) fn new(target: ProgressDrawTarget, terminal: Terminal) -> Self {
        Self { all: MultiProgress::with_draw_target(target), terminal }
    }

    fn add(&self, phase: Phase) -> ProgressBar {
        let bar = self.all.add(ProgressBar::no_length().with_style(self.style(false)));
        let style = if self.terminal.color { DOING } else { Style::new() };
        bar.set_prefix(column(style, doing(phase)));
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn style(&self, bounded: bool) -> ProgressStyle {
        let (ticks, chars) = if self.terminal.unicode {
            ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ", "━╸ ")
        } else {
            ("|/-\\ ", "=> ")
        };
        let template = if bounded {
            "{prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}"
        } else {
            "{prefix} {spinner} {elapsed} {wide_msg}"
        };
        // The templates are ours and fit; were one wrong, the plainest bar still moves.
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .tick_chars(ticks)
            .progress_chars(chars)
    }
}

/// A verb in its column, as cargo has it.
fn column(style: Style, verb: &str) -> String {
    format!("{style}{verb:>12}{style:#}")
}

fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "Resolving",
        Phase::Fetch => "Fetching",
        Phase::Prepare => "Preparing",
        Phase::Compile => "Compiling",
        Phase::Link => "Linking",
        Phase::Verify => "Verifying",
        Phase::Publish => "Publishing",
    }
}

/// What a dry run prints: the table of versions, and the go.mod.
pub(crate) fn plan(summary: &BuildSummary) -> String {
    let mut rows = vec![["NAME", "MODULE", "ASKED", "VERSION", "REPLACED BY"].map(str::to_owned)];
    let blank = || "-".to_owned();
    rows.push([
        "roadrunner".into(),
        summary.roadrunner.clone(),
        blank(),
        summary.version.clone(),
        String::new(),
    ]);
    for PluginRow { name, module, asked, version, replacement, added, .. } in &summary.plugins {
        let asked = if *added { "(added)".to_owned() } else { asked.clone() };
        let version = version.clone().unwrap_or_else(blank);
        rows.push([name.clone(), module.clone(), asked, version, replacement.clone().unwrap_or_default()]);
    }
    if summary.plugins.iter().all(|plugin| plugin.replacement.is_none())
        && let Some([.., replaced]) = rows.first_mut()
    {
        replaced.clear();
    }
    format!("{}\n{}", table(&rows), summary.go_mod)
}
