//! Tests of the reporters with the events of a build.

use std::{
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use anstream::StripStream;
use indicatif::{InMemoryTerm, ProgressDrawTarget, TermLike};
use jiff::Timestamp;
use velox_build::{
    BuildSummary, BuiltBinary, Event, Goal, Note, Output, Phase, PluginRow, RaisedPlugin, Reporter,
    StampSource,
};
use velox_manifest::{Diagnostic, GoTarget, Level, SourceFile};

use super::{
    DelayedReport, Report,
    human::{HumanReport, LineFormat, ProgressBars, plan},
    json::JsonReport,
};
use crate::{
    settings::{Terminal, Verbosity},
    signals::Signal,
    status::ExitStatus,
};

#[derive(Clone, Default)]
struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

impl Write for CapturedOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl CapturedOutput {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn source() -> SourceFile {
    SourceFile { name: "velox.toml".into(), text: "[roadrunner]\nref = \"v2024.2.1\"\nräf = 1\n".into() }
}

fn diagnostic(level: Level) -> Diagnostic {
    let diagnostic = Diagnostic::error("unknown key `räf`").at(31..35).label("did you mean `ref`?");
    Diagnostic { level, ..diagnostic.help("[roadrunner] knows `ref` and `dependencies`") }
}

fn plugin(name: &str, asked: &str, version: &str) -> PluginRow {
    PluginRow {
        name: name.into(),
        module: format!("github.com/roadrunner-server/{name}/v5"),
        asked: asked.into(),
        version: Some(version.into()),
        commit: None,
        replacement: None,
        added: asked.is_empty(),
    }
}

fn plugins() -> Vec<PluginRow> {
    vec![plugin("http", "v5.0.2", "v5.3.0"), plugin("informer", "", "v5.0.2")]
}

fn raised() -> RaisedPlugin {
    RaisedPlugin {
        name: "http".into(),
        module: "github.com/roadrunner-server/http/v5".into(),
        asked: "v5.0.2".into(),
        selected: "v5.3.0".into(),
        demanded_by: vec!["github.com/roadrunner-server/gzip/v5@v5.3.0".into()],
    }
}

fn summary(binary: bool) -> BuildSummary {
    BuildSummary {
        roadrunner: "github.com/roadrunner-server/roadrunner/v2024".into(),
        version: "v2024.2.1".into(),
        commit: None,
        plugins: plugins(),
        raised: vec![raised()],
        lowered: Vec::new(),
        targets: vec![GoTarget { os: "linux".into(), arch: "amd64".into() }],
        variables: Vec::new(),
        go_version: "go1.26.8".into(),
        stamp_version: "2024.2.1".into(),
        stamp_version_source: StampSource::Release,
        stamp_time: "2024-09-12T10:00:00Z".into(),
        stamp_time_source: StampSource::Variable("BUILD_TIME"),
        go_mod: "module github.com/roadrunner-server/roadrunner/v2024\n\ngo 1.23\n".into(),
        lock: Some("/work/velox.lock".into()),
        binaries: binary
            .then(|| BuiltBinary {
                target: "linux/amd64".into(),
                path: "/out/rr".into(),
                size: 61_200_000,
                sha256: "ab".repeat(32),
                reused: false,
                archive: None,
                sboms: Vec::new(),
            })
            .into_iter()
            .collect(),
        attestation: None,
        compile_cache: None,
        image: None,
    }
}

fn progress(phase: Phase, done: u64, total: Option<u64>, item: &str) -> Event {
    let bytes = (phase == Phase::Fetch).then_some(done * 1_300_000);
    Event::Progress { phase, done, total, item: item.into(), bytes }
}

fn build_events() -> Vec<Event> {
    let time = Duration::from_millis;
    vec![
        Event::Warning(diagnostic(Level::Warning)),
        Event::Started(Phase::Resolve),
        progress(Phase::Resolve, 1, Some(1), "http"),
        Event::Note(Note::RateLimitWait { host: "api.github.com".into(), seconds: 12 }),
        Event::Raised(raised()),
        Event::Finished(Phase::Resolve, time(1_234)),
        Event::Resolved {
            roadrunner: "github.com/roadrunner-server/roadrunner/v2024".into(),
            version: "v2024.2.1".into(),
            plugins: plugins(),
        },
        Event::Started(Phase::Fetch),
        progress(Phase::Fetch, 1, None, "github.com/a/b@v1.0.0"),
        progress(Phase::Fetch, 2, Some(2), "github.com/c/d@v1.0.0"),
        Event::Note(Note::TrustedOnFirstUse {
            module: "github.com/c/d@v1.0.0".into(),
            sum: "h1:abc=".into(),
        }),
        Event::Finished(Phase::Fetch, time(61_000)),
        Event::Started(Phase::Prepare),
        Event::Finished(Phase::Prepare, time(20)),
        Event::Started(Phase::Compile),
        Event::Output { program: "go", line: "\u{1b}[31mnet/http\u{1b}[0m".into() },
        progress(Phase::Compile, 900, Some(901), "net/http"),
        Event::Finished(Phase::Compile, time(30_000)),
        Event::Started(Phase::Link),
        Event::Finished(Phase::Link, time(2_000)),
        Event::Started(Phase::Verify),
        Event::Finished(Phase::Verify, time(300)),
        Event::Started(Phase::Publish),
        Event::Note(Note::WorkspaceKept { path: PathBuf::from("/tmp/vx-1") }),
        Event::Note(Note::Text { text: "a sentence".into() }),
        Event::Finished(Phase::Publish, time(10)),
    ]
}

/// Strips styles, like `anstream` without colors.
fn plain(out: impl Write + Send + 'static) -> Box<dyn Write + Send> {
    Box::new(StripStream::new(Box::new(out) as Box<dyn Write + Send>))
}

fn human(verbosity: Verbosity) -> (HumanReport, CapturedOutput) {
    let written = CapturedOutput::default();
    (HumanReport::new(plain(written.clone()), None, LineFormat::Aligned, verbosity, Some(source())), written)
}

fn json(verbosity: Verbosity) -> (JsonReport, CapturedOutput) {
    let written = CapturedOutput::default();
    let now = || "2026-01-02T03:04:05.678Z".parse::<Timestamp>().unwrap();
    (JsonReport::new(Box::new(written.clone()), now, verbosity, Some(source())), written)
}

fn play(report: &dyn Report) {
    for event in build_events() {
        report.report(event);
    }
    report
        .finished(
            &Goal::Build(Output::Directory("/out".into())),
            &summary(true),
            Duration::from_millis(94_600),
        )
        .unwrap();
}

fn fail(report: &dyn Report, diagnostics: &[Diagnostic], output: &[&str]) {
    let output: Vec<String> = output.iter().map(|line| (*line).to_owned()).collect();
    report.failed(ExitStatus::Failure, diagnostics, &output);
}

#[test]
fn text_output() {
    let (report, written) = human(Verbosity::Normal);
    play(&report);
    insta::assert_snapshot!(written.text());
}

#[test]
fn verbose_text_output() {
    let (report, written) = human(Verbosity::Everything);
    play(&report);
    insta::assert_snapshot!(written.text());
}

#[test]
fn quiet_output() {
    let (report, written) = human(Verbosity::Errors);
    play(&report);
    assert_eq!(written.text(), "");
    fail(&report, &[diagnostic(Level::Error)], &[]);
    assert!(written.text().starts_with("error: unknown key"));

    let (report, written) = human(Verbosity::Warnings);
    play(&report);
    assert!(written.text().lines().any(|line| line.starts_with("warning: `http` was requested at v5.0.2")));
    assert!(!written.text().contains("Resolved"));
}

#[test]
fn compiler_output_of_a_failed_build() {
    let (report, written) = human(Verbosity::Normal);
    let second = Diagnostic::error("`http` does not compile").help("majors are mixed").help("two\nlines");
    let output = ["# github.com/x/y", "y.go:1:2: undefined: z\u{1b}[2J"];
    fail(&report, &[diagnostic(Level::Error), second], &output);
    insta::assert_snapshot!(written.text());
}

#[test]
fn dry_run_plan() {
    insta::assert_snapshot!(plan(&summary(false)));
    let mut replaced = summary(false);
    replaced.plugins[0].version = None;
    replaced.plugins[0].replacement = Some("../http".into());
    insta::assert_snapshot!("dry_run_plan_with_a_replacement", plan(&replaced));
}

#[test]
fn a_log_without_bars_shows_that_the_compiler_works() {
    let (mut report, written) = human(Verbosity::Normal);
    for interval in [Duration::from_secs(60), Duration::ZERO] {
        report.quiet_interval = interval;
        report.report(Event::Started(Phase::Compile));
        report.report(progress(Phase::Compile, 46, Some(508), "net/http"));
        report.report(Event::Finished(Phase::Compile, Duration::from_secs(9)));
    }
    report.report(Event::Started(Phase::Compile));
    report.report(progress(Phase::Compile, 0, Some(508), ""));
    report.report(Event::Finished(Phase::Compile, Duration::ZERO));
    insta::assert_snapshot!(written.text(), @r"
        Compiled 46 packages in 9.0s
       Compiling 46 of 508 packages after 0.0s
        Compiled 46 packages in 9.0s
        Compiled no packages: the caches have them all
    ");
}

#[test]
fn interrupted_build() {
    let (report, written) = human(Verbosity::Normal);
    report.report(Event::Started(Phase::Fetch));
    report.interrupted(Signal::Interrupt);
    report.failed(ExitStatus::Interrupted(Signal::Interrupt), &[], &[]);
    insta::assert_snapshot!(written.text(), @r"
        Stopping and cleaning up (press Ctrl-C again to exit immediately)
    error: interrupted
    ");
}

/// The contents of a terminal with progress bars.
fn screen(unicode: bool) -> String {
    let term = InMemoryTerm::new(12, 90);
    let terminal = Terminal { stdin: true, stderr: true, unicode, color: false };
    let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
    let report = HumanReport::new(
        plain(TerminalWriter(term.clone())),
        Some(ProgressBars::new(target, terminal)),
        LineFormat::Aligned,
        Verbosity::Normal,
        None,
    );
    report.report(Event::Started(Phase::Prepare));
    report.report(Event::Finished(Phase::Prepare, Duration::from_millis(400)));
    report.report(Event::Started(Phase::Compile));
    report.report(progress(Phase::Compile, 300, Some(900), "net/http"));
    report.report(Event::Note(Note::Text { text: "above the bar".into() }));
    // Drawing is rate limited: wait for the next tick.
    std::thread::sleep(Duration::from_millis(400));
    term.contents()
}

/// A writer to the terminal of the progress bars.
#[derive(Debug)]
struct TerminalWriter(InMemoryTerm);

impl Write for TerminalWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_str(&String::from_utf8_lossy(bytes).replace('\n', "\r\n"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn progress_bars() {
    insta::assert_snapshot!(screen(true));
}

#[test]
fn progress_bars_without_unicode() {
    let screen = screen(false);
    assert!(screen.is_ascii(), "{screen}");
    insta::assert_snapshot!(screen);
}

#[test]
fn json_events() {
    let (report, written) = json(Verbosity::Everything);
    play(&report);
    report
        .finished(&Goal::DryRun(Output::Directory("out".into())), &summary(false), Duration::from_secs(1))
        .unwrap();
    insta::assert_snapshot!(written.text());
}

#[test]
fn json_failure() {
    let (report, written) = json(Verbosity::Errors);
    play(&report);
    report.interrupted(Signal::Terminate);
    fail(&report, &[diagnostic(Level::Error)], &["y.go:1:2: undefined: z"]);
    insta::assert_snapshot!(written.text());
}

#[test]
fn log_lines() {
    let now = || "2026-01-02T03:04:05.678Z".parse::<Timestamp>().unwrap();
    let shown = [LineFormat::Json { now }, LineFormat::Raw].map(|lines| {
        let written = CapturedOutput::default();
        let report =
            HumanReport::new(plain(written.clone()), None, lines, Verbosity::Verbose, Some(source()));
        play(&report);
        report.interrupted(Signal::Terminate);
        fail(&report, &[diagnostic(Level::Error)], &["y.go:1:2: undefined: z"]);
        written.text()
    });
    insta::assert_snapshot!(shown.join("---\n"));
}

#[tokio::test]
async fn progress_of_a_short_build_is_not_reported() {
    let messages = async |delay: Duration, wait: Duration| -> Vec<String> {
        let output = CapturedOutput::default();
        let now = || Timestamp::UNIX_EPOCH;
        let inner = JsonReport::new(Box::new(output.clone()), now, Verbosity::Everything, None);
        let report = DelayedReport::new(Arc::new(inner), delay);
        report.report(Event::Note(Note::Text { text: "progress".to_owned() }));
        report.report(Event::Warning(Diagnostic::warning("warning")));
        tokio::time::sleep(wait).await;
        report.failed(ExitStatus::Failure, &[Diagnostic::error("failure")], &[]);
        let known = ["progress", "warning", "failure"];
        let named =
            |line: &str| known.iter().find(|word| line.contains(**word)).map(|word| (*word).to_owned());
        output.text().lines().filter_map(named).collect()
    };
    let (long, none) = (Duration::from_secs(3600), Duration::ZERO);
    assert_eq!(messages(long, none).await, ["warning", "failure"]);
    assert_eq!(messages(none, none).await, ["progress", "warning", "failure"]);
    // However long the machine takes, the progress comes before the failure.
    assert_eq!(
        messages(Duration::from_millis(1), Duration::from_secs(1)).await,
        ["warning", "progress", "failure"]
    );
}
