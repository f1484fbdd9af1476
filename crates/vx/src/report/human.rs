use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use velox_build::{
    BuildSummary, BuiltBinary, BuiltImage, CompileCacheStats, Event, Goal, Note, Output, Phase, PluginRow,
    Reporter, StampSource,
};
use velox_manifest::{Diagnostic, Level, LogLevel, SourceFile};

use crate::{
    report::{
        Change, ChangeKind, Report,
        diagnostics::{DiagnosticFields, heading, render},
        text::{clean, count, elapsed, escape_json, human_size, table},
        threshold,
    },
    settings::{Terminal, Verbosity},
    signals::Signal,
    status::ExitStatus,
};

const DONE_STYLE: Style = AnsiColor::Green.on_default().bold();
const RUNNING_STYLE: Style = AnsiColor::Cyan.on_default().bold();

/// Writes finished phases, warnings, notes and a summary to stderr, with progress bars on a terminal. The
/// result of a dry run goes to stdout.
pub(crate) struct HumanReport {
    lines: LineFormat,
    verbosity: Verbosity,
    source: Option<SourceFile>,
    bars: Option<ProgressBars>,
    /// How long output without progress bars may be silent while compiling.
    pub(super) quiet_interval: Duration,
    state: Mutex<HumanState>,
}

/// The form of a line on stderr, selected by `[log] mode`.
#[derive(Clone, Copy)]
pub(crate) enum LineFormat {
    /// Aligned and colored, as Cargo's lines.
    Aligned,
    /// The message alone.
    Raw,
    /// A JSON object with the fields of Go's slog, as Velox writes it in production.
    Json { now: fn() -> Timestamp },
}

#[derive(Serialize)]
struct JsonLogLine<'a, T> {
    time: Timestamp,
    level: &'a str,
    msg: &'a str,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize)]
struct NoFields {}

/// How long a log without progress bars is silent while compiling.
const QUIET_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
struct PhaseProgress {
    count: u64,
    bytes: Option<u64>,
}

struct HumanState {
    out: Box<dyn Write + Send>,
    running: HashMap<Phase, ProgressBar>,
    progress: HashMap<Phase, PhaseProgress>,
    /// RoadRunner's version and the number of plugins.
    resolved: Option<(String, usize)>,
    resolve_time: Option<Duration>,
    /// When compiling started, and when a line was last written about it.
    compiling: Option<(Instant, Instant)>,
}

impl HumanReport {
    /// Creates a reporter. `out` must strip styles that its terminal doesn't support.
    pub(crate) fn new(
        out: Box<dyn Write + Send>,
        bars: Option<ProgressBars>,
        lines: LineFormat,
        verbosity: Verbosity,
        source: Option<SourceFile>,
    ) -> Self {
        let state = HumanState {
            out,
            running: HashMap::new(),
            progress: HashMap::new(),
            resolved: None,
            resolve_time: None,
            compiling: None,
        };
        Self { lines, verbosity, source, bars, quiet_interval: QUIET_INTERVAL, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, HumanState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes above the progress bars; ignores errors.
    fn write(&self, state: &mut HumanState, text: &str) {
        let mut write = || {
            let _ = state.out.write_all(text.as_bytes()).and_then(|()| state.out.flush());
        };
        match &self.bars {
            Some(bars) => bars.all.suspend(write),
            None => write(),
        }
    }

    /// Writes a line with the level and the message `text`, and with `fields` if it is JSON. In other forms it
    /// is `aligned`, with a line break.
    fn line(
        &self,
        state: &mut HumanState,
        level: LogLevel,
        text: &str,
        fields: impl Serialize,
        aligned: impl FnOnce() -> String,
    ) {
        let line = match self.lines {
            LineFormat::Aligned => aligned(),
            LineFormat::Raw => format!("{text}\n"),
            LineFormat::Json { now } => {
                let level = match level {
                    LogLevel::Debug => "DEBUG",
                    LogLevel::Info => "INFO",
                    LogLevel::Warn => "WARN",
                    LogLevel::Error => "ERROR",
                };
                let line = JsonLogLine { time: now(), level, msg: text, fields };
                // Serialization can't fail: the values are maps with string keys.
                serde_json::to_string(&line).map(|line| escape_json(line) + "\n").unwrap_or_default()
            }
        };
        self.write(state, &line);
    }

    fn row(&self, state: &mut HumanState, style: Style, verb: &str, text: &str) {
        let aligned = || format!("{} {text}\n", column(style, verb));
        self.line(state, LogLevel::Info, &format!("{verb} {text}"), NoFields {}, aligned);
    }

    fn diagnostic(&self, state: &mut HumanState, diagnostic: &Diagnostic) {
        let source = self.source.as_ref();
        if matches!(self.lines, LineFormat::Json { .. }) {
            let level = match diagnostic.level {
                Level::Error => LogLevel::Error,
                Level::Warning => LogLevel::Warn,
            };
            let fields = DiagnosticFields::new(diagnostic, source);
            self.line(state, level, &diagnostic.message, fields, String::new);
        } else {
            self.write(state, &render(diagnostic, source));
        }
    }

    fn progress(
        &self,
        state: &mut HumanState,
        phase: Phase,
        progress: PhaseProgress,
        total: Option<u64>,
        item: &str,
    ) {
        state.progress.insert(phase, progress);
        let PhaseProgress { count: done, bytes } = progress;
        if self.verbosity >= Verbosity::Everything {
            let of = total.map(|total| format!("{done}/{total} ")).unwrap_or_default();
            self.row(state, RUNNING_STYLE, running_verb(phase), &format!("{of}{}", clean(item)));
        }
        let Some(bars) = &self.bars else {
            if phase == Phase::Compile && self.verbosity == Verbosity::Normal {
                self.sign_of_life(state, done, total);
            }
            return;
        };
        if let Some(bar) = state.running.get(&phase) {
            if bar.length() != total {
                match total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_style(bars.style(total.is_some()));
            }
            bar.set_position(done);
            let size = bytes.map(|bytes| format!("{}, ", human_size(bytes))).unwrap_or_default();
            bar.set_message(size + &clean(item));
        } else if let Some(bar) = state.running.values().next() {
            // Modules are also fetched during resolution: show the item, but not the count of another phase.
            bar.set_message(clean(item).into_owned());
        }
    }

    /// A line about the compiler, if there was none for a while: a log without progress bars looks stuck otherwise.
    fn sign_of_life(&self, state: &mut HumanState, done: u64, total: Option<u64>) {
        let Some((started, last)) = state.compiling else { return };
        if done == 0 || last.elapsed() < self.quiet_interval {
            return;
        }
        state.compiling = Some((started, Instant::now()));
        let of = total.map(|_| format!("{done} of ")).unwrap_or_default();
        let packages = count(total.unwrap_or(done), "package");
        let text = format!("{of}{packages} after {}", elapsed(started.elapsed()));
        self.row(state, RUNNING_STYLE, running_verb(Phase::Compile), &text);
    }

    fn finish(&self, state: &mut HumanState, phase: Phase, time: Duration) {
        if let Some(bar) = state.running.remove(&phase) {
            bar.finish_and_clear();
        }
        let progress = state.progress.get(&phase).copied();
        let (verb, what) = match phase {
            Phase::Resolve => {
                state.resolve_time = Some(time);
                return self.resolved(state);
            }
            Phase::Fetch => {
                // Everything was cached.
                let Some(PhaseProgress { count: modules, bytes }) = progress else { return };
                let size = bytes.map(|bytes| format!(" ({})", rate(bytes, time))).unwrap_or_default();
                ("Fetched", format!("{}{size}", count(modules, "module")))
            }
            Phase::Prepare => ("Prepared", "the source tree".to_owned()),
            Phase::Read => ("Read", "the packages".to_owned()),
            Phase::Compile if progress.is_some_and(|progress| progress.count == 0) => {
                return self.row(state, DONE_STYLE, "Compiled", "no packages: the caches have them all");
            }
            Phase::Compile => {
                ("Compiled", progress.map_or("the packages".to_owned(), |done| count(done.count, "package")))
            }
            Phase::Link => (
                "Linked",
                progress.map_or("the binary".to_owned(), |done| format!("{} binaries", done.count)),
            ),
            Phase::Verify => ("Verified", "the binary".to_owned()),
            Phase::Publish => ("Published", "the binary".to_owned()),
            Phase::Image => ("Assembled", "the image".to_owned()),
            Phase::Push => {
                let sent = progress.and_then(|progress| progress.bytes).filter(|bytes| *bytes > 0);
                let sent = sent.map(|bytes| format!(" ({})", rate(bytes, time))).unwrap_or_default();
                ("Pushed", format!("the image{sent}"))
            }
        };
        self.row(state, DONE_STYLE, verb, &format!("{what} in {}", elapsed(time)));
    }

    /// Reports the resolved versions as soon as versions and duration are known.
    fn resolved(&self, state: &mut HumanState) {
        if let (Some((version, plugins)), Some(time)) = (&state.resolved, state.resolve_time) {
            let plugins = count(*plugins as u64, "plugin");
            let text = format!("RoadRunner {version} and {plugins} in {}", elapsed(time));
            self.row(state, DONE_STYLE, "Resolved", &text);
        }
    }

    fn note(&self, state: &mut HumanState, note: &Note) {
        if let Note::RateLimitWait { host, seconds } = note {
            let text = format!("{seconds}s for the rate limit of {}", clean(host));
            return self.row(state, RUNNING_STYLE, "Waiting", &text);
        }
        let style = AnsiColor::BrightGreen.on_default().bold();
        let note = note.to_string();
        let aligned = || format!("{style}note{style:#}: {}\n", clean(&note));
        self.line(state, LogLevel::Info, &clean(&note), NoFields {}, aligned);
    }

    fn clear_bars(&self, state: &mut HumanState) {
        for (_, bar) in state.running.drain() {
            bar.finish_and_clear();
        }
    }
}

impl Reporter for HumanReport {
    fn report(&self, event: Event) {
        let state = &mut *self.state();
        match event {
            // Progress bars are shown at every verbosity.
            Event::Progress { phase, done: count, total, item, bytes } => {
                self.progress(state, phase, PhaseProgress { count, bytes }, total, &item)
            }
            event if threshold(&event) > self.verbosity => {}
            Event::Started(phase) => {
                state.progress.remove(&phase);
                if phase == Phase::Compile {
                    state.compiling = Some((Instant::now(), Instant::now()));
                }
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
                let text = raised.to_string();
                let aligned = || format!("{}\n", heading(Level::Warning, &text));
                self.line(state, LogLevel::Warn, &text, NoFields {}, aligned);
            }
            Event::Warning(warning) => self.diagnostic(state, &warning),
            Event::Note(note) => self.note(state, &note),
            Event::Output { program, line } => {
                let text = format!("{program}: {}", clean(&line));
                self.line(state, LogLevel::Debug, &text, NoFields {}, || format!("{text}\n"));
            }
        }
    }
}

impl Report for HumanReport {
    fn interrupted(&self, _: Signal) {
        let state = &mut *self.state();
        self.clear_bars(state);
        if self.verbosity >= Verbosity::Warnings {
            self.row(
                state,
                RUNNING_STYLE,
                "Stopping",
                "and cleaning up (press Ctrl-C again to exit immediately)",
            );
        }
    }

    fn clear(&self) {
        self.clear_bars(&mut self.state());
    }

    fn failed(&self, status: ExitStatus, diagnostics: &[Diagnostic], output: &[String]) {
        let state = &mut *self.state();
        self.clear_bars(state);
        if matches!(self.lines, LineFormat::Json { .. }) {
            diagnostics.iter().for_each(|diagnostic| self.diagnostic(state, diagnostic));
            for line in output {
                self.line(state, LogLevel::Error, &clean(line), NoFields {}, String::new);
            }
            if diagnostics.is_empty() && output.is_empty() {
                self.line(state, LogLevel::Error, status.kind(), NoFields {}, String::new);
            }
            return;
        }
        let mut parts: Vec<String> =
            diagnostics.iter().map(|diagnostic| render(diagnostic, self.source.as_ref())).collect();
        if !output.is_empty() {
            parts.push(output.iter().map(|line| format!("{}\n", clean(line))).collect());
        }
        if parts.is_empty() {
            parts.push(format!("{}\n", heading(Level::Error, status.kind())));
        }
        self.write(state, &parts.join("\n"));
    }

    fn edited(&self, file: &Path, changes: &[Change]) -> io::Result<()> {
        let state = &mut *self.state();
        self.clear_bars(state);
        if self.verbosity < Verbosity::Normal {
            return Ok(());
        }
        if changes.is_empty() {
            self.row(state, DONE_STYLE, "Unchanged", &clean(&file.to_string_lossy()));
        }
        for Change { kind, name, module, from, to } in changes {
            let (verb, is_file) = match kind {
                ChangeKind::Created => ("Created", true),
                ChangeKind::Migrated => ("Migrated", true),
                ChangeKind::Added => ("Added", false),
                ChangeKind::Removed => ("Removed", false),
                ChangeKind::Updated => ("Updated", false),
            };
            let refs = match (from, to) {
                (None, Some(about)) if is_file => format!(": {about}"),
                (Some(from), Some(to)) => format!(" {from} -> {to}"),
                (Some(reference), None) | (None, Some(reference)) => format!(" {reference}"),
                (None, None) => String::new(),
            };
            let module = module.as_ref().map(|module| format!(" ({module})")).unwrap_or_default();
            self.row(state, DONE_STYLE, verb, &clean(&format!("{name}{refs}{module}")));
        }
        Ok(())
    }

    fn finished(&self, goal: &Goal, summary: &BuildSummary, time: Duration) -> io::Result<()> {
        let state = &mut *self.state();
        self.clear_bars(state);
        if self.verbosity >= Verbosity::Normal {
            self.summarize(state, goal, summary, time);
        }
        if let Goal::DryRun(_) = goal { super::write(&plan(summary)) } else { Ok(()) }
    }
}

impl HumanReport {
    fn summarize(&self, state: &mut HumanState, goal: &Goal, summary: &BuildSummary, time: Duration) {
        let BuildSummary { version, targets, go_version, .. } = summary;
        let variables: Vec<String> = summary.variables.iter().map(ToString::to_string).collect();
        let targets = targets.iter().map(|target| target.to_string()).collect::<Vec<_>>().join(", ");
        let targets = match variables.as_slice() {
            [] => targets,
            variables => format!("{targets} ({})", variables.join(", ")),
        };
        // The target is only worth a mention where something hidden selected it.
        let selected = if variables.is_empty() { String::new() } else { format!(" for {targets}") };
        let time = elapsed(time);
        let lock = summary.lock.as_ref().map_or("the lock".into(), |lock| lock.to_string_lossy());
        let done = match goal {
            Goal::Plan | Goal::DryRun(_) => format!("dry run{selected} in {time}, without compiling"),
            Goal::Lock => format!("{}{selected} in {time}", clean(&lock)),
            Goal::CheckLock => format!("{} is up to date{selected}", clean(&lock)),
            Goal::Fetch => format!("fetching{selected} in {time}; `vx build --offline` can run now"),
            Goal::Build(_) => {
                let plugins = count(summary.plugins.len() as u64, "plugin");
                let text = format!("RoadRunner {version} with {plugins} for {targets} with {go_version}");
                self.row(state, DONE_STYLE, "Built", &clean(&text));
                if matches!(goal, Goal::Build(Output::Store(_))) {
                    return;
                }
                self.row(state, DONE_STYLE, "Stamped", &clean(&stamp(summary)));
                if let Some(cache) = &summary.compile_cache {
                    self.row(state, DONE_STYLE, "Cached", &clean(&cached(cache)));
                }
                let describe = |binary: &BuiltBinary| {
                    let BuiltBinary { path, size, reused, archive, sboms, .. } = binary;
                    let reused = if *reused { ", cached" } else { "" };
                    let others = archive.iter().chain(sboms).map(|path| format!(", {}", path.display()));
                    let text = format!("{} ({}{reused})", path.display(), human_size(*size));
                    clean(&(text + &others.collect::<String>())).into_owned()
                };
                if let Some(file) = &summary.attestation {
                    self.row(state, DONE_STYLE, "Signed", &clean(&file.display().to_string()));
                }
                if let Some(image) = &summary.image {
                    self.row(state, DONE_STYLE, "Image", &clean(&described(image)));
                }
                match summary.binaries.as_slice() {
                    [one] => format!("{} in {time}", describe(one)),
                    many => {
                        for binary in many {
                            self.row(state, DONE_STYLE, "Wrote", &describe(binary));
                        }
                        format!("in {time}")
                    }
                }
            }
        };
        self.row(state, DONE_STYLE, "Finished", &done);
    }
}

/// `34.2 MiB, 11.0 MiB/s`
fn rate(bytes: u64, time: Duration) -> String {
    let each = bytes as f64 / time.as_secs_f64().max(0.001);
    format!("{}, {}/s", human_size(bytes), human_size(each as u64))
}

/// `1.0.0 (APP_VERSION), 2024-09-12T10:00:00Z`
fn stamp(summary: &BuildSummary) -> String {
    let part = |value: &str, source: StampSource| match source.surprising() {
        Some(source) => format!("{value} ({source})"),
        None => value.to_owned(),
    };
    let version = part(&summary.stamp_version, summary.stamp_version_source);
    format!("{version}, {}", part(&summary.stamp_time, summary.stamp_time_source))
}

/// `ghcr.io/acme/app:1.4, sha256:… (linux/amd64, 31.2 MiB), image.tar`
fn described(image: &BuiltImage) -> String {
    let BuiltImage { digest, platforms, size, names, output, .. } = image;
    let names: String = names.iter().map(|name| format!("{name}, ")).collect();
    let output = output.iter().map(|path| format!(", {}", path.display())).collect::<String>();
    format!("{names}{digest} ({}, {}){output}", platforms.join(", "), human_size(*size))
}

/// Describes the use of the shared caches.
fn cached(cache: &CompileCacheStats) -> String {
    let CompileCacheStats { binaries, local_hits, remote_hits, misses, bytes_down, bytes_up, trouble } =
        cache;
    let (down, up) = (human_size(*bytes_down), human_size(*bytes_up));
    let mut text = if *binaries > 0 && remote_hits + local_hits + misses == 0 {
        let noun = if *binaries == 1 { "binary" } else { "binaries" };
        format!("{binaries} {noun} from the shared cache ({down})")
    } else {
        format!(
            "{remote_hits} remote hits ({down}), {local_hits} local hits, {misses} misses ({up} uploaded)"
        )
    };
    if let Some(trouble) = trouble {
        text += &format!("; {trouble}");
    }
    text
}

pub(crate) struct ProgressBars {
    all: MultiProgress,
    terminal: Terminal,
}

impl ProgressBars {
    pub(crate) fn new(target: ProgressDrawTarget, terminal: Terminal) -> Self {
        Self { all: MultiProgress::with_draw_target(target), terminal }
    }

    fn add(&self, phase: Phase) -> ProgressBar {
        let bar = self.all.add(ProgressBar::no_length().with_style(self.style(false)));
        let style = if self.terminal.color { RUNNING_STYLE } else { Style::new() };
        bar.set_prefix(column(style, running_verb(phase)));
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
        // The templates are constant and valid.
        ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .tick_chars(ticks)
            .progress_chars(chars)
    }
}

/// A right-aligned verb, like Cargo's.
fn column(style: Style, verb: &str) -> String {
    format!("{style}{verb:>12}{style:#}")
}

fn running_verb(phase: Phase) -> &'static str {
    match phase {
        Phase::Resolve => "Resolving",
        Phase::Fetch => "Fetching",
        Phase::Prepare => "Preparing",
        Phase::Read => "Reading",
        Phase::Compile => "Compiling",
        Phase::Link => "Linking",
        Phase::Verify => "Verifying",
        Phase::Publish => "Publishing",
        Phase::Image => "Assembling",
        Phase::Push => "Pushing",
    }
}

/// Renders the output of a dry run: a table of versions, and the go.mod.
pub(crate) fn plan(summary: &BuildSummary) -> String {
    let mut rows = vec![["NAME", "MODULE", "REQUESTED", "VERSION", "REPLACEMENT"].map(str::to_owned)];
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
        && let Some([.., header]) = rows.first_mut()
    {
        header.clear();
    }
    format!("{}\n{}", table(&rows), summary.go_mod)
}
