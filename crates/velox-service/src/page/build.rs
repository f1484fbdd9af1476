//! The page of a build: how far it is, its log, and what came of it.

use jiff::Timestamp;
use maud::{Markup, html};
use velox_api::{
    ArtifactInfo, BuildFailure, BuildState, FailureKind, LogEntry, QueuePosition, Severity, artifact_path,
};
use velox_build::{Lock, LockedReplacement};

use super::{choice::Choice, layout::Page};
use crate::build::{Build, BuildOutcome, BuildResult};

/// The phases in their order, and what each does.
const PHASES: [(&str, &str); 7] = [
    ("resolve", "Resolve"),
    ("fetch", "Fetch"),
    ("prepare", "Prepare"),
    ("compile", "Compile"),
    ("link", "Link"),
    ("verify", "Verify"),
    ("publish", "Publish"),
];
/// Without a script, how often the page is loaded again while something happens, in seconds.
const REFRESH: u32 = 3;
/// How many bytes of the log are in the page; all of it is one click away.
const SHOWN: usize = 32 << 10;

/// All that is known of a build.
pub(super) struct Known<'a> {
    pub(super) build: &'a Build,
    /// Its log so far.
    pub(super) log: &'a [LogEntry],
    /// Where it waits, where that is known.
    pub(super) position: Option<QueuePosition>,
    /// How many others run, where it waits.
    pub(super) running: u64,
    /// Whether who looks at it is among those who want it.
    pub(super) theirs: bool,
    pub(super) now: Timestamp,
}

/// The page.
pub(super) fn page(known: &Known<'_>) -> Page {
    let Known { build, log, .. } = known;
    let spec = &build.spec;
    let version = match &build.outcome {
        Some(BuildOutcome::Succeeded(made)) => &made.version,
        _ => &spec.roadrunner,
    };
    let (word, _) = state(build.state);
    let plugins = plural(spec.plugins.len(), "plugin");
    let change = Choice::of(spec).link();
    let main = html! {
        article.build data-build=(build.id) data-state=(word) data-log=(format!("/v1/builds/{}/log", build.id)) {
            div.head {
                p.state data-word=(word) { span role="status" data-state-word { (sentence(build)) } }
                h1 { "RoadRunner " (version) " with " (plugins) }
                p.meta {
                    span { (spec.target) }
                    span { time datetime=(build.created) { (build.created.strftime("%Y-%m-%d %H:%M UTC")) } }
                    @let seconds = seconds(known);
                    @if !build.state.is_final() || seconds.is_some() {
                        span hidden[seconds.is_none()] data-passed=[(!build.state.is_final()).then_some(seconds.unwrap_or(0))] {
                            (took(build, seconds.unwrap_or(0)))
                        }
                    }
                    @if build.attempts > 1 { span { "attempt " (build.attempts) } }
                }
            }
            @match &build.outcome {
                Some(BuildOutcome::Succeeded(made)) => (result(made)),
                Some(BuildOutcome::Failed(failure)) => (failed(failure, &change)),
                None => (going_on(known, &change)),
            }
            (protocol(build, log))
            @if let Some(BuildOutcome::Succeeded(made)) = &build.outcome { (versions(made)) }
            (files(build, &change))
        }
    };
    let title = format!("{} · RoadRunner {version} · velox", sentence(build));
    Page { title, refresh: (!build.state.is_final()).then_some(REFRESH), main }
}

/// A word for scripts and styles, and one for people.
fn state(state: BuildState) -> (&'static str, &'static str) {
    match state {
        BuildState::Queued => ("queued", "Waiting"),
        BuildState::Running => ("running", "Building"),
        BuildState::Succeeded => ("succeeded", "Ready"),
        BuildState::Failed => ("failed", "Failed"),
        BuildState::Cancelled => ("cancelled", "Cancelled"),
    }
}

fn sentence(build: &Build) -> &'static str {
    state(build.state).1
}

fn running_builds(count: u64) -> String {
    match count {
        0 => "no build is running".to_owned(),
        1 => "1 build is running".to_owned(),
        _ => format!("{count} builds are running"),
    }
}

/// `1st`, `2nd`, …
fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// For how long it was or is built, in seconds.
fn seconds(known: &Known<'_>) -> Option<i64> {
    let started = known.build.started?;
    Some(known.build.finished.unwrap_or(known.now).duration_since(started).as_secs().max(0))
}

fn took(build: &Build, seconds: i64) -> String {
    let time = if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    };
    if build.finished.is_some() { format!("took {time}") } else { format!("for {time}") }
}

fn going_on(known: &Known<'_>, change: &str) -> Markup {
    let Known { build, position, running, theirs, .. } = known;
    html! {
        section.panel aria-label="Progress" {
            @match build.state {
                BuildState::Queued => p.lead role="status" data-lead {
                    @match position {
                        Some(QueuePosition { at, of }) if of + running > 1 => {
                            "It is " (ordinal(*at)) " of " (of) " in the queue; " (running_builds(*running)) "."
                        }
                        _ => "It is about to begin.",
                    }
                },
                BuildState::Cancelled => p.lead { "Nobody wants it any more." },
                _ => {},
            }
            @if !build.state.is_final() { (phases(known.log, build.state)) }
            div.actions {
                @if build.state == BuildState::Cancelled {
                    a.button.primary href=(change) { "Choose again" }
                } @else if *theirs {
                    form method="post" action=(format!("/builds/{}/cancel", build.id)) {
                        button.quiet type="submit" { "Cancel this build" }
                    }
                    span.hint.script { "You can leave this page: the build goes on, and this address stays." }
                }
            }
        }
    }
}

/// What is done, what is going on, and how far that is.
fn phases(log: &[LogEntry], state: BuildState) -> Markup {
    let (mut at, mut counted) = (None, None);
    for entry in log {
        let phase = PHASES.iter().position(|(name, _)| Some(*name) == entry.phase.as_deref());
        // What was fetched ahead ends when others are under way already; another attempt starts from the beginning.
        if phase.is_some() && (phase >= at || phase == Some(0)) {
            at = phase;
            counted = entry.done.zip(entry.total).filter(|(_, total)| *total > 0);
        }
    }
    html! {
        ol.phases data-phases {
            @for (index, (name, title)) in PHASES.iter().enumerate() {
                @let (class, said) = match at {
                    Some(at) if index < at => ("done", "done"),
                    Some(at) if index == at && state == BuildState::Running => ("now", "going on"),
                    _ => ("next", "to come"),
                };
                li class=(class) data-phase=(name) aria-current=[(class == "now").then_some("step")] {
                    span { (title) } span.hidden data-said { " (" (said) ")" }
                }
            }
        }
        div.bar {
            progress aria-label="Progress of this phase" data-progress max=(counted.map_or(1, |(_, total)| total))
                value=[counted.map(|(done, _)| done)] hidden[counted.is_none()] {}
            span.hint data-counted { @if let Some((done, total)) = counted { (done) " of " (total) } }
        }
    }
}

fn result(made: &BuildResult) -> Markup {
    let artifact = &made.artifact;
    let check = check(artifact);
    html! {
        section.panel.good aria-label="Download" {
            div.download {
                a.button.primary.large href=(artifact_path(&artifact.sha256)) download=(artifact.file_name) data-download {
                    "Download " (artifact.file_name)
                }
                p.hint { (size(artifact.size)) " for " (artifact.target) ", compiled with " (made.go_version) }
            }
            dl.sums {
                div {
                    dt { "SHA-256" }
                    dd {
                        code id="sha256" { (artifact.sha256) }
                        button.copy.script type="button" data-copy="sha256" { span data-copied="Copied" { "Copy" } span.hidden { " the SHA-256" } }
                    }
                }
                div {
                    dt { "Check" }
                    dd {
                        code id="check" { (check) }
                        button.copy.script type="button" data-copy="check" { span data-copied="Copied" { "Copy" } span.hidden { " the command that checks it" } }
                    }
                }
            }
        }
        @if !made.warnings.is_empty() {
            div.alert.warn {
                h2 { "Worth knowing" }
                ul { @for warning in &made.warnings { li { (warning) } } }
            }
        }
    }
}

/// The command that checks the binary where it runs. Browsers save files that can't be run.
fn check(ArtifactInfo { sha256, file_name, target, .. }: &ArtifactInfo) -> String {
    let program = match target.split('/').next() {
        Some("windows") => return format!("(Get-FileHash {file_name}).Hash -eq \"{sha256}\""),
        Some("darwin") => "shasum --algorithm 256",
        _ => "sha256sum",
    };
    format!("echo \"{sha256}  {file_name}\" | {program} --check && chmod +x {file_name}")
}

/// A size for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["bytes", "kB", "MB", "GB"];
    let mut rest = bytes as f64;
    let mut unit = 0;
    while rest >= 999.5 && unit + 1 < UNITS.len() {
        rest /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} {name}") } else { format!("{rest:.1} {name}") }
}

fn failed(failure: &BuildFailure, change: &str) -> Markup {
    let advice = match failure.kind {
        FailureKind::Invalid => {
            "What was asked for can’t be built as it stands. Change what the message names."
        }
        FailureKind::Failed => {
            "A plugin that doesn’t compile is often too old or too new for this RoadRunner, whose own versions fit \
             together."
        }
        FailureKind::Unavailable => {
            "What modules come from didn’t answer as it should. Nothing is wrong with your choice: try the same again in a while."
        }
        FailureKind::Limit => "It needed more than this service gives to one build. Fewer plugins need less.",
        FailureKind::Internal => "The service is in trouble, not your choice. Try the same again in a while.",
    };
    html! {
        section.panel.bad aria-label="Why it failed" {
            h2 { "There is no binary" }
            pre.message tabindex="0" role="group" aria-label="The message" { (failure.message.trim_end()) }
            p { (advice) }
            div.actions {
                a.button.primary href=(change) data-change { "Change and try again" }
            }
        }
    }
}

/// The log: its end, where it is long.
fn protocol(build: &Build, log: &[LogEntry]) -> Markup {
    let mut room = SHOWN;
    let kept = log.iter().rev().take_while(|entry| {
        room = room.saturating_sub(entry.text.len() + 64);
        room > 0
    });
    let shown = log.get(log.len() - kept.count()..).unwrap_or_default();
    let first = log.first().map(|entry| entry.time);
    let last = log.last().map_or(0, |entry| entry.seq);
    let open = build.state != BuildState::Succeeded;
    html! {
        details.panel.protocol open[open] {
            summary { h2 { "Log" } span.hint data-live {} }
            @if shown.len() < log.len() {
                p.hint { "Its beginning isn’t shown here. " a href=(format!("/v1/builds/{}/log", build.id)) { "The whole log" } }
            }
            div.log role="log" aria-label="Log of the build" tabindex="0" data-lines data-after=(last)
                data-first=[first.map(|first| first.as_millisecond())] {
                @for entry in shown { (line(entry, first)) }
                @if log.is_empty() { p.hint data-empty { "Nothing was said so far." } }
            }
        }
    }
}

fn line(entry: &LogEntry, first: Option<Timestamp>) -> Markup {
    let since = first.map_or(0.0, |first| entry.time.duration_since(first).as_secs_f64().max(0.0));
    let is_count = entry.done.is_some();
    let class = match entry.level {
        _ if is_count => "output",
        Severity::Output => "output",
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    html! {
        p class=(class) aria-hidden=[is_count.then_some("true")] {
            span.when { (format!("{since:.1}s")) }
            @if let Some(word) = match entry.level { Severity::Warning => Some("warning: "), Severity::Error => Some("error: "), _ => None } {
                span.hidden { (word) }
            }
            span.text { (entry.text) }
        }
    }
}

/// What is compiled in, exactly.
fn versions(made: &BuildResult) -> Markup {
    // The lock is what a build of this service wrote; without it the table is missing, and nothing else.
    let Ok(lock) = Lock::parse("velox.lock", &made.lock) else { return html! {} };
    html! {
        details.panel {
            summary { h2 { "Exact versions" } span.hint { (lock.plugins.len() + 1) " modules" } }
            div.scroll tabindex="0" role="region" aria-label="Exact versions" {
                table {
                    thead { tr { th scope="col" { "Module" } th scope="col" { "Version" } } }
                    tbody {
                        tr { th scope="row" { (lock.roadrunner.module) } td { (lock.roadrunner.version) } }
                        @for plugin in &lock.plugins {
                            tr {
                                th scope="row" { (plugin.module) }
                                td {
                                    (plugin.version)
                                    @if let Some(LockedReplacement::Module { path, version }) = &plugin.replacement {
                                        " → " (path) " " (version)
                                    }
                                    @if plugin.from.is_none() { " " span.badge { "in every server" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What makes the same server again, here and elsewhere.
fn files(build: &Build, change: &str) -> Markup {
    let of = |name: &str| format!("/v1/builds/{}/{name}", build.id);
    let (configuration, lock) = match &build.outcome {
        Some(BuildOutcome::Succeeded(made)) => (made.configuration.clone(), Some(made.lock.as_str())),
        _ => (build.spec.configuration(), None),
    };
    html! {
        section.panel aria-labelledby="again" {
            h2 id="again" { "The same again" }
            p {
                @if lock.is_some() { "Put these files beside each other and run " } @else { "Put this file into a directory and run " }
                code { "vx build" } ", or choose it here once more."
            }
            div.actions {
                a.button href=(of("velox.toml")) download="velox.toml" data-configuration { "velox.toml" }
                @if lock.is_some() { a.button href=(of("velox.lock")) download="velox.lock" data-lock { "velox.lock" } }
                a.button.quiet href=(change) data-again { "This choice" }
            }
            details.file {
                summary { "Show velox.toml" }
                pre tabindex="0" role="group" aria-label="velox.toml" { code { (configuration) } }
            }
            @if lock.is_some() {
                details.file.script data-file=(of("velox.lock")) {
                    summary { "Show velox.lock" }
                    pre tabindex="0" role="group" aria-label="velox.lock" { code { "…" } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_for_where_it_runs() {
        let of = |target: &str, file_name: &str| {
            let (sha256, target, file_name) = ("5e".to_owned(), target.to_owned(), file_name.to_owned());
            check(&ArtifactInfo { sha256, size: 1, file_name, target })
        };
        assert_eq!(of("linux/arm64", "rr"), "echo \"5e  rr\" | sha256sum --check && chmod +x rr");
        assert!(of("darwin/arm64", "rr").contains("| shasum --algorithm 256 --check &&"));
        assert_eq!(of("windows/amd64", "rr.exe"), "(Get-FileHash rr.exe).Hash -eq \"5e\"");
    }

    #[test]
    fn places_are_for_people() {
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal).into();
        assert_eq!(said, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]);
    }

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(1000), "1.0 kB");
        assert_eq!(size(57_234_123), "57.2 MB");
        assert_eq!(size(999_960_000), "1.0 GB");
    }
}
