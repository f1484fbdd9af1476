//! The child process of a job: `vx job`.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use velox_api::{ArtifactInfo, BuildFailure, FailureKind, Severity};
use velox_build::{
    Blame, BuildOptions, BuildRequest, BuildSummary, CacheOptions, CompileOptions, Error, ErrorKind, Goal,
    NetworkAccess, Output, SbomFormat, SbomOutput, StampOptions, WorkspaceOptions, render,
};
use velox_manifest::SourceFile;

use super::{
    format_size, limits,
    log::{JobReporter, report_lines, send},
    protocol::{JobMessage, JobTask},
    sandbox,
};
use crate::build::{BuildDocuments, BuildResult};

/// Runs the task read from standard input and writes messages to standard output. If the input ends first
/// (the service exited or cancelled the job), this process kills its process group.
pub async fn run(environment: BTreeMap<String, String>) -> ExitCode {
    let (sender, receiver) = oneshot::channel();
    // On a thread, since async tasks could delay it.
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = String::new();
        if input.read_line(&mut line).is_ok_and(|length| length > 0) {
            let _ = sender.send(line);
            let _ = io::copy(&mut input.take(u64::MAX), &mut io::sink());
        }
        kill_process_group();
    });
    let task = match receiver.await.map(|line| serde_json::from_str::<JobTask>(&line)) {
        Ok(Ok(task)) => task,
        Ok(Err(error)) => {
            let _ = writeln!(io::stderr(), "error: invalid task: {error}");
            return ExitCode::FAILURE;
        }
        Err(_) => return ExitCode::FAILURE,
    };
    if let Err(error) = limits::apply(&task) {
        let _ = writeln!(io::stderr(), "error: {error}");
        return ExitCode::FAILURE;
    }
    let (sender, receiver) = oneshot::channel();
    // Landlock restricts a thread and its descendants, not existing threads.
    std::thread::spawn(move || {
        let _ = sender.send(run_sandboxed(&task, environment));
    });
    match receiver.await {
        Ok(Ok(message)) => {
            if let JobMessage::Failed(failure) = &message {
                report_lines(Severity::Error, &failure.message);
            }
            send(&message);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn run_sandboxed(task: &JobTask, environment: BTreeMap<String, String>) -> Result<JobMessage, String> {
    sandbox::restrict(task, &environment)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        tokio::spawn(cancel_on_signal(cancel.clone()));
        build(task, environment, cancel).await.map_err(|error| error.to_string())
    })
}

/// Runs the build; an interrupted one has no result.
async fn build(
    task: &JobTask,
    environment: BTreeMap<String, String>,
    cancel: CancellationToken,
) -> Result<JobMessage, Error> {
    let spec = &task.spec;
    let failed = |kind, message| Ok(JobMessage::Failed(BuildFailure { kind, message }));
    let (manifest, source) = match spec.manifest_and_source() {
        Ok(read) => read,
        Err(violations) => {
            let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
            return failed(FailureKind::Invalid, lines.join("\n"));
        }
    };
    let lock = task.directory.join("velox.lock");
    let request = BuildRequest {
        manifest,
        source: Some(source.clone()),
        base: task.directory.clone(),
        environment,
        options: BuildOptions {
            compile: CompileOptions { skip_smoke_test: true, ..CompileOptions::default() },
            stamp: StampOptions { version: spec.stamp_version.clone(), time: spec.stamp_time.clone() },
            network: NetworkAccess::ProxiesOnly,
            cache: CacheOptions { recompile: task.force, ..CacheOptions::default() },
            workspace: WorkspaceOptions { parent: Some(task.directory.join("work")), keep: false },
            sboms: [SbomFormat::CycloneDx, SbomFormat::Spdx]
                .map(|format| SbomOutput { format, file: None })
                .into(),
            share_process_group: true,
            ..BuildOptions::default()
        },
        goal: Goal::Build(Output::Directory(task.directory.join("out"))),
        lock: Some(lock.clone()),
        updates_lock: true,
    };
    let log = Arc::new(JobReporter::new(source.clone()));
    let summary = match velox_build::build(&request, log, cancel).await {
        Ok(summary) => summary,
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        Err(error) => return Ok(JobMessage::Failed(failure(&error, &source, task.memory))),
    };
    let lock = match std::fs::read_to_string(&lock) {
        Ok(lock) => lock,
        Err(error) => return failed(FailureKind::Internal, format!("failed to read the lock: {error}")),
    };
    match build_result(task, summary, lock) {
        Some(message) => Ok(message),
        None => failed(FailureKind::Internal, "the build made no binary".to_owned()),
    }
}

fn build_result(task: &JobTask, summary: BuildSummary, lock: String) -> Option<JobMessage> {
    let binary = summary.binaries.into_iter().next()?;
    let result = BuildResult {
        artifact: ArtifactInfo {
            sha256: binary.sha256,
            size: binary.size,
            file_name: binary.path.file_name()?.to_string_lossy().into_owned(),
            target: binary.target,
        },
        version: summary.version,
        go_version: summary.go_version,
        configuration: task.spec.configuration(),
        lock,
        warnings: summary.raised.iter().map(ToString::to_string).collect(),
        documents: BuildDocuments::default(),
    };
    Some(JobMessage::Made { made: Box::new(result), file: binary.path })
}

/// Converts an error to the build's failure, with the diagnostics and the compiler's output.
fn failure(error: &Error, source: &SourceFile, memory: u64) -> BuildFailure {
    let rendered = error.diagnostics.iter().map(|it| render::plain(&render::render(it, Some(source))));
    let mut parts: Vec<String> = rendered.collect();
    if !error.output.is_empty() {
        parts.push(error.output.iter().map(|line| format!("{}\n", render::clean(line))).collect());
    }
    let mut kind = match error.fault {
        Blame::Request => FailureKind::Invalid,
        Blame::Sources => FailureKind::Unavailable,
        Blame::Other => FailureKind::Failed,
    };
    if error.output.iter().any(|line| is_out_of_memory(line)) {
        kind = FailureKind::Limit;
        parts.push(out_of_memory(memory));
    } else if error.output.iter().any(|line| line.contains("file too large")) {
        kind = FailureKind::Limit;
        parts.push("the build wrote a file larger than the disk limit".to_owned());
    }
    BuildFailure { kind, message: parts.join("\n").trim_end().to_owned() }
}

/// Whether an output line reports a failed memory allocation.
pub(super) fn is_out_of_memory(line: &str) -> bool {
    ["annot allocate memory", "out of memory", "memory allocation of ", "failed to create new OS thread"]
        .iter()
        .any(|sign| line.contains(sign))
}

pub(super) fn out_of_memory(limit: u64) -> String {
    format!("the build exceeded the memory limit of {}", format_size(limit))
}

async fn cancel_on_signal(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        terminate.recv().await;
        cancel.cancel();
    }
}

/// Kills this process, and its process group if it is the leader.
fn kill_process_group() {
    use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
    if getpgrp() == getpid() {
        let _ = kill_current_process_group(Signal::KILL);
    }
    std::process::exit(1);
}
