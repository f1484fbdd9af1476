//! The page of a build: its progress, its log, and its result.

use jiff::Timestamp;
use maud::{Markup, html};
use velox_api::{
    ArtifactInfo, BuildFailure, BuildState, FailureKind, LogEntry, QueuePosition, Severity, artifact_path,
};
use velox_build::{Lock, LockedReplacement, SbomFormat, render::human_size};

use super::{layout::Page, selection::Selection};
use crate::build::{Build, BuildOutcome, BuildResult};

/// The phases in order, with their titles.
const PHASES: [(&str, &str); 7] = [
    ("resolve", "Resolve"),
    ("fetch", "Fetch"),
    ("prepare", "Prepare"),
    ("compile", "Compile"),
    ("link", "Link"),
    ("verify", "Verify"),
    ("publish", "Publish"),
];
/// The reload interval of a running build's page without JavaScript.
const REFRESH_SECONDS: u32 = 3;
/// The maximum size of the end of the log on the page.
const MAX_LOG_BYTES: usize = 32 << 10;

pub(super) struct BuildPage<'a> {
    pub(super) build: &'a Build,
    /// The `velox.lock`, if the build succeeded.
    pub(super) lock: Option<&'a str>,
    /// The end of the log so far.
    pub(super) log: &'a [LogEntry],
    /// The time of the first entry of the log.
    pub(super) first: Option<Timestamp>,
    /// The position in the queue, if known.
    pub(super) position: Option<QueuePosition>,
    /// The number of running builds, for a queued one.
    pub(super) running: u64,
    /// Whether the caller may cancel the build.
    pub(super) is_own: bool,
    /// Whether the service knows vulnerabilities of versions.
    pub(super) has_audit: bool,
    pub(super) now: Timestamp,
}

pub(super) fn page(data: &BuildPage<'_>) -> Page {
    let BuildPage { build, .. } = data;
    let spec = &build.spec;
    let version = match &build.outcome {
        Some(BuildOutcome::Succeeded(result)) => &result.version,
        _ => &spec.roadrunner,
    };
    let (state, title) = (build.state.name(), state_title(build.state));
    let plugins = plural(spec.plugins.len(), "plugin");
    let change = Selection::of(spec).link();
    let main = html! {
        article.build data-build=(build.id) data-state=(state) data-log=(format!("/v1/builds/{}/log", build.id)) {
            div.head {
                p.state data-word=(state) { span role="status" data-state-word { (title) } }
                h1 { "RoadRunner " (version) " with " (plugins) }
                p.meta {
                    span { (spec.target) }
                    span { time datetime=(build.created) { (build.created.strftime("%Y-%m-%d %H:%M UTC")) } }
                    @let seconds = seconds(data);
                    @if !build.state.is_final() || seconds.is_some() {
                        span hidden[seconds.is_none()] data-passed=[(!build.state.is_final()).then_some(seconds.unwrap_or(0))] {
                            (duration(build, seconds.unwrap_or(0)))
                        }
                    }
                    @if build.attempts > 1 { span { "attempt " (build.attempts) } }
                }
                ul.chips aria-label="Plugins" {
                    @for (plugin, name) in spec.plugins.iter().zip(spec.plugin_names()) {
                        li title=(plugin.module) { (name) " " span.code { (plugin.reference) } }
                    }
                }
            }
            @match &build.outcome {
                Some(BuildOutcome::Succeeded(result)) => (download(result)),
                Some(BuildOutcome::Failed(failure)) => (failed(failure, &change)),
                None => (progress(data, &change)),
            }
            (log_panel(data))
            @if let Some(lock) = data.lock { (versions(lock)) }
            (files(data, &change))
        }
    };
    let title = format!("{title} · RoadRunner {version} · velox");
    Page { title, refresh: (!build.state.is_final()).then_some(REFRESH_SECONDS), main }
}

fn state_title(state: BuildState) -> &'static str {
    match state {
        BuildState::Queued => "Queued",
        BuildState::Running => "Building",
        BuildState::Succeeded => "Ready",
        BuildState::Failed => "Failed",
        BuildState::Cancelled => "Cancelled",
    }
}

fn running_builds(count: u64) -> String {
    match count {
        0 => "no build is running".to_owned(),
        1 => "1 build is running".to_owned(),
        _ => format!("{count} builds are running"),
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// The elapsed build time in seconds.
fn seconds(data: &BuildPage<'_>) -> Option<i64> {
    let started = data.build.started?;
    Some(data.build.finished.unwrap_or(data.now).duration_since(started).as_secs().max(0))
}

fn duration(build: &Build, seconds: i64) -> String {
    let time = if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    };
    if build.finished.is_some() { format!("took {time}") } else { format!("for {time}") }
}

fn progress(data: &BuildPage<'_>, change: &str) -> Markup {
    let BuildPage { build, position, running, is_own, .. } = data;
    html! {
        section.panel aria-label="Progress" {
            @match build.state {
                BuildState::Queued => p.lead role="status" data-lead {
                    @match position {
                        Some(QueuePosition { at, of }) if of + running > 1 => {
                            "Position " (at) " of " (of) " in the queue; " (running_builds(*running)) "."
                        }
                        _ => "Starting soon.",
                    }
                },
                BuildState::Cancelled => p.lead { "This build was cancelled." },
                _ => {},
            }
            @if !build.state.is_final() { (phases(data.log, build.state)) }
            div.actions {
                @if build.state == BuildState::Cancelled {
                    a.button.primary href=(change) { "Change selection" }
                } @else if *is_own {
                    form method="post" action=(format!("/builds/{}/cancel", build.id)) {
                        button.quiet type="submit" { "Cancel this build" }
                    }
                    span.hint.script { "You can close this page; the build continues, and this link remains valid." }
                }
            }
        }
    }
}

fn phases(log: &[LogEntry], state: BuildState) -> Markup {
    let (mut current, mut counts) = (None, None);
    for entry in log {
        let phase = PHASES.iter().position(|(name, _)| Some(*name) == entry.phase.as_deref());
        // Late events of an earlier phase are ignored, unless a new attempt starts.
        if phase.is_some() && (phase >= current || phase == Some(0)) {
            current = phase;
            counts = entry.done.zip(entry.total).filter(|(_, total)| *total > 0);
        }
    }
    html! {
        ol.phases data-phases {
            @for (index, (name, title)) in PHASES.iter().enumerate() {
                @let (class, status) = match current {
                    Some(current) if index < current => ("done", "done"),
                    Some(current) if index == current && state == BuildState::Running => ("now", "in progress"),
                    _ => ("next", "pending"),
                };
                li class=(class) data-phase=(name) aria-current=[(class == "now").then_some("step")] {
                    span { (title) } span.hidden data-said { " (" (status) ")" }
                }
            }
        }
        div.bar {
            progress aria-label="Progress of this phase" data-progress max=(counts.map_or(1, |(_, total)| total))
                value=[counts.map(|(done, _)| done)] hidden[counts.is_none()] {}
            span.hint data-counted { @if let Some((done, total)) = counts { (done) " of " (total) } }
        }
    }
}

fn download(result: &BuildResult) -> Markup {
    let artifact = &result.artifact;
    let check = check_command(artifact);
    html! {
        section.panel.good aria-label="Download" {
            div.download {
                a.button.primary.large href=(artifact_path(&artifact.sha256)) download=(artifact.file_name) data-download {
                    "Download " (artifact.file_name)
                }
                p.hint { (human_size(artifact.size)) " for " (artifact.target) ", compiled with " (result.go_version) }
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
                    dt { "Verify" }
                    dd {
                        code id="check" { (check) }
                        button.copy.script type="button" data-copy="check" { span data-copied="Copied" { "Copy" } span.hidden { " the command that verifies it" } }
                    }
                }
            }
        }
        @if !result.warnings.is_empty() {
            div.alert.warn {
                h2 { "Warnings" }
                ul { @for warning in &result.warnings { li { (warning) } } }
            }
        }
    }
}

/// The command that verifies the download and makes it executable.
fn check_command(ArtifactInfo { sha256, file_name, target, .. }: &ArtifactInfo) -> String {
    let program = match target.split('/').next() {
        Some("windows") => return format!("(Get-FileHash {file_name}).Hash -eq \"{sha256}\""),
        Some("darwin") => "shasum --algorithm 256",
        _ => "sha256sum",
    };
    format!("echo \"{sha256}  {file_name}\" | {program} --check && chmod +x {file_name}")
}

fn failed(failure: &BuildFailure, change: &str) -> Markup {
    let advice = match failure.kind {
        FailureKind::Invalid => "The selection can’t be built. Change the part that the message names.",
        FailureKind::Failed => {
            "A plugin that doesn’t compile is often too old or too new for this RoadRunner release; try the versions of the \
             release."
        }
        FailureKind::Unavailable => {
            "A module source did not provide a module; the message says which. Your selection is kept: try it again, or change it."
        }
        FailureKind::Limit => {
            "The build exceeded a limit of this service. Fewer plugins need fewer resources."
        }
        FailureKind::Internal => "The service failed, not your selection. Try again later.",
    };
    html! {
        section.panel.bad aria-label="Why it failed" {
            h2 { "Build failed" }
            pre.message tabindex="0" role="group" aria-label="The message" { (failure.message.trim_end()) }
            p { (advice) }
            div.actions {
                a.button.primary href=(change) data-change { "Change selection" }
            }
        }
    }
}

fn log_panel(BuildPage { build, log, first, .. }: &BuildPage<'_>) -> Markup {
    let mut remaining = MAX_LOG_BYTES;
    let kept = log.iter().rev().take_while(|entry| {
        remaining = remaining.saturating_sub(entry.text.len() + 64);
        remaining > 0
    });
    let tail = log.get(log.len() - kept.count()..).unwrap_or_default();
    let last = log.last().map_or(0, |entry| entry.seq);
    let open = build.state != BuildState::Succeeded;
    html! {
        details.panel.protocol open[open] {
            summary { h2 { "Log" } span.hint data-live {} }
            @if tail.first().is_some_and(|entry| entry.seq > 1) {
                p.hint { "Only the end of the log is shown. " a href=(format!("/v1/builds/{}/log", build.id)) { "Show the whole log" } }
            }
            div.log role="log" aria-label="Log of the build" tabindex="0" data-lines data-after=(last)
                data-first=[first.map(|first| first.as_millisecond())] {
                @for entry in tail { (line(entry, *first)) }
                @if log.is_empty() { p.hint data-empty { "No output yet." } }
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

fn versions(lock: &str) -> Markup {
    // The table is omitted if the lock has an unknown format.
    let Ok(lock) = Lock::parse("velox.lock", lock) else { return html! {} };
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
                                    @if plugin.from.is_none() { " " span.badge { "always included" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The files that reproduce the build.
fn files(BuildPage { build, has_audit, .. }: &BuildPage<'_>, change: &str) -> Markup {
    let of = |name: &str| format!("/v1/builds/{}/{name}", build.id);
    let (configuration, has_lock) = match &build.outcome {
        Some(BuildOutcome::Succeeded(result)) => (result.configuration.clone(), true),
        _ => (build.spec.configuration(), false),
    };
    let documents = match &build.outcome {
        Some(BuildOutcome::Succeeded(result)) => Some(&result.documents),
        _ => None,
    };
    html! {
        section.panel aria-labelledby="again" {
            h2 id="again" { "Build it again" }
            p {
                @if has_lock { "Save these files in one directory and run " } @else { "Save this file in a directory and run " }
                code { "vx build" } ", or open the selection."
            }
            div.actions {
                a.button href=(of("velox.toml")) download="velox.toml" data-configuration { "velox.toml" }
                @if has_lock { a.button href=(of("velox.lock")) download="velox.lock" data-lock { "velox.lock" } }
                @for format in documents.iter().flat_map(|documents| &documents.sboms) {
                    a.button href=(format!("{}?format={}", of("sbom"), format.name())) download=(format.file_name("rr")) {
                        @match format { SbomFormat::CycloneDx => "SBOM (CycloneDX)", SbomFormat::Spdx => "SBOM (SPDX)" }
                    }
                }
                @if documents.is_some_and(|documents| documents.signed_by.is_some()) {
                    a.button href=(of("attestation")) download="rr.intoto.jsonl" { "Attestation" }
                }
                @if *has_audit && documents.is_some() {
                    a.button href=(of("audit")) { "Known vulnerabilities by version" }
                }
                @if build.spec.target.os == "linux" {
                    a.button href=(format!("/builds/{}/Dockerfile", build.id)) download="Dockerfile" { "Dockerfile" }
                }
                a.button.quiet href=(change) data-again { "Open selection" }
            }
            details.file {
                summary { "Show velox.toml" }
                pre tabindex="0" role="group" aria-label="velox.toml" { code { (configuration) } }
            }
            @if has_lock {
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
    fn check_commands() {
        let of = |target: &str, file_name: &str| {
            let (sha256, target, file_name) = ("5e".to_owned(), target.to_owned(), file_name.to_owned());
            check_command(&ArtifactInfo { sha256, size: 1, file_name, target })
        };
        assert_eq!(of("linux/arm64", "rr"), "echo \"5e  rr\" | sha256sum --check && chmod +x rr");
        assert!(of("darwin/arm64", "rr").contains("| shasum --algorithm 256 --check &&"));
        assert_eq!(of("windows/amd64", "rr.exe"), "(Get-FileHash rr.exe).Hash -eq \"5e\"");
    }
}
