//! Jobs: each build runs in a child process with its own process group.
//!
//! ```text
//! ProcessRunner::run ── starts `vx job` with its own process group and environment
//!     │ stdin    the task, a line of JSON; EOF cancels the job
//!     │ stdout   log entries and finally the result, a line of JSON each
//!     ▼
//! child::run ── velox_build::build
//! ```
//!
//! ```text
//! DATA/
//!   home/  go/  cache/     HOME, GOPATH and the cache of vx, shared by all jobs
//!   jobs/
//!     .lock                held by the service that uses the directory
//!     job-AbC123/          one job, removed when it ends
//!       tmp/               TMPDIR
//!       work/              source tree
//!       out/rr  velox.lock
//! ```

mod caches;
mod cgroup;
mod child;
pub(crate) mod disk;
mod environment;
mod limits;
mod log;
mod protocol;
mod sandbox;
mod user;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use velox_api::{BuildFailure, FailureKind, LogEntry, Severity};
use velox_build::{EndSignal, ProcessGroup, available_memory, garbage_collector_variables};

pub(crate) use self::sandbox::isolation_gaps;
use self::{
    caches::JobCaches,
    cgroup::{JobCgroup, ServiceCgroup},
    disk::{Disk, DiskLimit},
    environment::OWN_DIRECTORIES,
    protocol::{JobMessage, JobTask},
    user::JobUser,
};
pub use self::{child::run, user::JobUserError};
use crate::{
    build::Build,
    egress::EgressProxy,
    options::{BuildPolicy, JobLimits, ServiceOptions},
    runner::{JobRunner, RunOutcome},
};

/// The time a job has to exit after a signal or after its result.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a message of a job.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// The maximum length of a stored failure message; compilers quote names of any length.
const MAX_FAILURE_BYTES: usize = 64 << 10;
/// The message of ENOSPC, as Rust and Go spell it without the first letter.
const NO_SPACE: &str = "o space left on device";
/// The number of lines of a job's standard error kept for the service's log.
const MAX_STDERR_LINES: usize = 20;

/// Runs each build in a child process.
pub struct ProcessRunner {
    program: PathBuf,
    data: PathBuf,
    environment: BTreeMap<String, String>,
    limits: JobLimits,
    policy: BuildPolicy,
    egress: EgressProxy,
    caches: Arc<JobCaches>,
    disk: Disk,
    cgroups: Option<ServiceCgroup>,
    user: Option<JobUser>,
    _lock: File,
}

/// An error that prevents a service from running builds.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The data directory can't be used, or another service uses it.
    #[error(transparent)]
    Data(#[from] io::Error),
    /// The user that builds run as.
    #[error(transparent)]
    User(#[from] JobUserError),
}

/// The reason why the service stops reading messages of a job.
enum JobEnd {
    /// The job sent its result, or closed its output.
    Result(Option<JobMessage>),
    Cancelled,
    /// The job exceeded a limit, with the error message.
    Limit(String),
    /// The disk of the service is full.
    DiskFull,
}

impl ProcessRunner {
    /// Sets up the directories and the egress proxy, and removes leftover jobs. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// The directory can't be used, another service uses it, or builds would run as root.
    pub fn new(options: &ServiceOptions) -> Result<Self, RunnerError> {
        Self::with_counter(options, Counter::default())
    }

    /// Like [`ProcessRunner::new`], with a counter of downloaded bytes.
    pub(crate) fn with_counter(options: &ServiceOptions, downloaded: Counter) -> Result<Self, RunnerError> {
        let user = JobUser::select(options.job_user.as_deref())?;
        let jobs = options.data.join("jobs");
        fs::create_dir_all(&jobs)?;
        for directory in OWN_DIRECTORIES {
            fs::create_dir_all(options.data.join(directory))?;
        }
        // Child processes need absolute paths.
        let data = options.data.canonicalize()?;
        let lock = File::options().create(true).truncate(false).write(true).open(jobs.join(".lock"))?;
        lock.try_lock()
            .map_err(|_| io::Error::other(format!("{} is in use by another service", jobs.display())))?;
        remove_leftovers(&jobs);
        if let Some(user) = &user {
            user.prepare(&data)?;
            user.probe(&options.program, &data.join("jobs"))?;
        }
        // The environment of this process has credentials, and its memory has tokens: hide /proc/PID also from other
        // processes of its user.
        #[cfg(target_os = "linux")]
        if let Err(error) =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        {
            tracing::warn!(%error, "failed to hide the environment of this process from its user");
        }
        let is_configured =
            |variable: &str| options.environment.get(variable).is_some_and(|value| !value.is_empty());
        let disk = Disk::new(&data);
        let caches = Arc::new(JobCaches::new(&data, is_configured, options.limits.cache, disk.clone()));
        let egress = EgressProxy::start(&options.environment, &options.policy, downloaded)?;
        Ok(Self {
            egress,
            caches,
            disk,
            cgroups: ServiceCgroup::find(),
            user,
            program: options.program.clone(),
            data,
            environment: options.environment.clone(),
            limits: options.limits.clone(),
            policy: options.policy.clone(),
            _lock: lock,
        })
    }

    /// Runs the build. `None`: the disk of the service was full, and another attempt may succeed after a cleanup.
    async fn attempt(
        &self,
        build: &Build,
        log: &mpsc::Sender<LogEntry>,
        cancel: &CancellationToken,
    ) -> io::Result<Option<RunOutcome>> {
        let ended = |outcome| Ok(Some(outcome));
        // The worker's policy may be stricter than that of the node that accepted the request.
        if let Err(error) = self.policy.check(&build.spec, None) {
            let lines: Vec<String> = error.violations.iter().map(ToString::to_string).collect();
            let failure = BuildFailure { kind: FailureKind::Invalid, message: lines.join("\n") };
            return ended(RunOutcome::Failed(failure));
        }
        if self.disk.is_full() {
            return Ok(None);
        }
        let Some(_caches) = cancel.run_until_cancelled(self.caches.acquire()).await else {
            return ended(RunOutcome::Cancelled);
        };
        let directory = tempfile::Builder::new().prefix("job-").tempdir_in(self.data.join("jobs"))?;
        for folder in ["tmp", "work", "out", ""] {
            let folder = directory.path().join(folder);
            fs::create_dir_all(&folder)?;
            self.user.as_ref().map_or(Ok(()), |user| user.own(&folder))?;
        }
        let access = self.egress.grant(self.limits.download);
        let mut environment = environment::of_job(&self.environment, &self.data, directory.path());
        environment.extend(
            self.egress.environment(&access).into_iter().map(|(name, value)| (name.to_owned(), value)),
        );
        let memory = available_memory().map_or(self.limits.memory, |bytes| bytes.min(self.limits.memory));
        let variables = garbage_collector_variables(&environment, Some(memory));
        environment.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let mut command = Command::new(&self.program);
        command
            .arg("job")
            .current_dir(directory.path())
            .env_clear()
            .envs(&environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = &self.user {
            user.apply(&mut command);
        }
        let mut group = ProcessGroup::spawn(command, true)?;
        let child = group.child();
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(io::Error::other("the job has no standard streams"));
        };
        let cgroup = self.cgroup(directory.path(), &mut group);
        let task = JobTask {
            spec: build.spec.clone(),
            force: build.force,
            directory: directory.path().to_owned(),
            memory: self.limits.memory,
            disk: self.limits.disk,
            port: access.port(),
        };
        let mut line = serde_json::to_vec(&task).map_err(io::Error::other)?;
        line.push(b'\n');
        // If the job has exited already, its exit status is reported.
        let _ = stdin.write_all(&line).await;
        let _ = stdin.flush().await;

        let stderr = tokio::spawn(last_lines(stderr));
        let job_directory = directory.path().to_string_lossy().into_owned();
        let modules = environment.get("GOMODCACHE").map(|cache| format!("{cache}/")).unwrap_or_default();
        let redact = |text: &str| {
            let text = access.redact(text).replace(&job_directory, "");
            if modules.is_empty() { text } else { text.replace(&modules, "") }
        };
        let disk = DiskLimit {
            directory: directory.path(),
            access: &access,
            module_cache: environment.get("GOMODCACHE").map(PathBuf::from).unwrap_or_default(),
            limit: self.limits.disk,
            disk: &self.disk,
        };
        let end = tokio::select! {
            result = self.listen(stdout, log, &redact) => result?,
            () = cancel.cancelled() => JobEnd::Cancelled,
            () = tokio::time::sleep(self.limits.time) => {
                JobEnd::Limit(format!("the build exceeded the time limit of {}", format_time(self.limits.time)))
            }
            () = access.limit_exceeded() => {
                JobEnd::Limit(format!("the build exceeded the download limit of {}", format_size(self.limits.download)))
            }
            end = disk.exceeded() => end,
        };
        let status = match &end {
            JobEnd::Result(_) => group.end(None, EXIT_TIMEOUT).await,
            JobEnd::Cancelled => group.end(Some(EndSignal::Terminate), EXIT_TIMEOUT).await,
            JobEnd::Limit(_) | JobEnd::DiskFull => group.end(None, Duration::ZERO).await,
        };
        // Not earlier: EOF cancels the job.
        drop(stdin);
        let stderr = stderr.await.unwrap_or_default();
        for denial in access.denials() {
            let _ = log.send(LogEntry::new(Severity::Warning, denial)).await;
        }
        let failure = match end {
            JobEnd::Cancelled => return ended(RunOutcome::Cancelled),
            JobEnd::Limit(message) => limit(message),
            JobEnd::DiskFull => return Ok(None),
            JobEnd::Result(Some(JobMessage::Made { made, file })) => {
                match self.check_binary(&file, directory.path()) {
                    Ok(()) => return ended(RunOutcome::Succeeded { made, file, directory }),
                    Err(failure) => failure,
                }
            }
            JobEnd::Result(_) if cgroup.is_some_and(|cgroup| cgroup.ran_out_of_memory()) => {
                limit(child::out_of_memory(self.limits.memory))
            }
            // Whatever failed while the disk was full may have failed because of it.
            JobEnd::Result(Some(JobMessage::Failed(failure)))
                if failure.kind != FailureKind::Invalid
                    && (self.disk.is_full() || failure.message.contains(NO_SPACE)) =>
            {
                return Ok(None);
            }
            JobEnd::Result(Some(JobMessage::Failed(failure))) => return ended(RunOutcome::Failed(failure)),
            JobEnd::Result(None) if self.disk.is_full() => return Ok(None),
            JobEnd::Result(_) => {
                let status = status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string());
                tracing::error!(build = %build.id, status, stderr = stderr.join("\n"), "a job exited without a result");
                exit_failure(&status, &stderr, self.limits.memory)
            }
        };
        for line in failure.message.lines() {
            let _ = log.send(LogEntry::new(Severity::Error, line)).await;
        }
        ended(RunOutcome::Failed(failure))
    }

    /// Runs the build, a second time if the disk was full and could be cleaned up.
    async fn attempt_twice(
        &self,
        build: &Build,
        log: &mpsc::Sender<LogEntry>,
        cancel: &CancellationToken,
    ) -> io::Result<RunOutcome> {
        if let Some(outcome) = self.attempt(build, log, cancel).await? {
            return Ok(outcome);
        }
        let text = "the disk of the service is full; clearing its caches, then building again";
        tracing::warn!(build = %build.id, "{text}");
        let _ = log.send(LogEntry::new(Severity::Warning, text)).await;
        // A task: it isn't interrupted halfway.
        if cancel.run_until_cancelled(self.enforce_limit()).await.is_none() {
            return Ok(RunOutcome::Cancelled);
        }
        if let Some(outcome) = self.attempt(build, log, cancel).await? {
            return Ok(outcome);
        }
        let message = "the disk of the service is full; try again later".to_owned();
        let _ = log.send(LogEntry::new(Severity::Error, &message)).await;
        Ok(RunOutcome::Failed(BuildFailure { kind: FailureKind::Unavailable, message }))
    }

    /// Enforces the limit of the caches in a task of its own.
    fn enforce_limit(&self) -> JoinHandle<()> {
        let caches = Arc::clone(&self.caches);
        tokio::spawn(async move { caches.enforce_limit().await })
    }

    /// Moves the job to a control group, if possible.
    fn cgroup(&self, directory: &Path, group: &mut ProcessGroup) -> Option<JobCgroup> {
        let name = directory.file_name()?.to_string_lossy().replace("job-", "");
        let created = self.cgroups.as_ref()?.job(&name, &self.limits).and_then(|cgroup| {
            let process = group.child().id().ok_or_else(|| io::Error::other("it has already exited"))?;
            cgroup.add(process).map(|()| cgroup)
        });
        created
            .inspect_err(|error| tracing::warn!(%error, "failed to set up the control group of a job"))
            .ok()
    }

    /// Forwards the job's log entries until its result.
    async fn listen(
        &self,
        stdout: impl AsyncRead + Unpin,
        log: &mpsc::Sender<LogEntry>,
        redact: &(dyn Fn(&str) -> String + Sync),
    ) -> io::Result<JobEnd> {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        let mut logged = 0;
        loop {
            line.clear();
            if (&mut reader).take(MAX_MESSAGE_BYTES).read_until(b'\n', &mut line).await? == 0 {
                return Ok(JobEnd::Result(None));
            }
            match serde_json::from_slice(&line) {
                Ok(JobMessage::Entry(mut entry)) => {
                    logged += entry.text.len() as u64;
                    if logged > self.limits.log {
                        let limit = format_size(self.limits.log);
                        return Ok(JobEnd::Limit(format!("the log exceeded the limit of {limit}")));
                    }
                    entry.text = redact(&entry.text);
                    // The build continues if the receiver is closed.
                    let _ = log.send(entry).await;
                }
                Ok(JobMessage::Failed(failure)) => {
                    let message = truncated(redact(&failure.message));
                    return Ok(JobEnd::Result(Some(JobMessage::Failed(BuildFailure { message, ..failure }))));
                }
                Ok(result) => return Ok(JobEnd::Result(Some(result))),
                Err(error) => {
                    return Err(io::Error::other(format!("invalid message of a job: {error}")));
                }
            }
        }
    }

    /// Checks the location and the size of the binary.
    fn check_binary(&self, file: &Path, directory: &Path) -> Result<(), BuildFailure> {
        let internal = |message: String| BuildFailure { kind: FailureKind::Internal, message };
        let unreadable = |error| internal(format!("failed to read the job's binary: {error}"));
        // Links that a build made must not lead to files of this machine.
        let path = file.canonicalize().map_err(unreadable)?;
        let is_inside = directory.canonicalize().is_ok_and(|directory| path.starts_with(directory));
        let data = fs::symlink_metadata(file).map_err(unreadable)?;
        if !is_inside || !data.is_file() {
            return Err(internal("the job's binary is outside of its directory".to_owned()));
        }
        let length = data.len();
        if length > self.limits.artifact {
            let (length, max) = (format_size(length), format_size(self.limits.artifact));
            return Err(limit(format!("the binary has {length}, which exceeds the limit of {max}")));
        }
        Ok(())
    }
}

#[async_trait]
impl JobRunner for ProcessRunner {
    async fn run(&self, build: &Build, log: mpsc::Sender<LogEntry>, cancel: CancellationToken) -> RunOutcome {
        let outcome = self.attempt_twice(build, &log, &cancel).await;
        drop(self.enforce_limit());
        outcome.unwrap_or_else(|error| {
            tracing::error!(build = %build.id, %error, "failed to run a job");
            let message = "the service failed to run the build; its log has the details".to_owned();
            RunOutcome::Failed(BuildFailure { kind: FailureKind::Internal, message })
        })
    }
}

fn limit(message: String) -> BuildFailure {
    BuildFailure { kind: FailureKind::Limit, message }
}

fn truncated(mut message: String) -> String {
    if message.len() > MAX_FAILURE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_FAILURE_BYTES));
        message.push_str("…\nsee the log for the rest");
    }
    message
}

/// The failure for a job that exited without a result.
fn exit_failure(status: &str, stderr: &[String], memory: u64) -> BuildFailure {
    if stderr.iter().any(|line| child::is_out_of_memory(line)) {
        return limit(child::out_of_memory(memory));
    }
    let message = format!("the build process exited without a result ({status})");
    BuildFailure { kind: FailureKind::Internal, message }
}

/// Returns the last lines of a job's standard error, for the service's log only.
async fn last_lines(stderr: impl AsyncRead + Unpin) -> Vec<String> {
    let mut reader = BufReader::new(stderr);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while let Ok(1..) = (&mut reader).take(4096).read_until(b'\n', &mut line).await {
        if lines.len() == MAX_STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    lines.into()
}

fn remove_leftovers(jobs: &Path) {
    for entry in fs::read_dir(jobs).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("job-")
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(directory = %entry.path().display(), %error, "failed to remove the directory of a job");
        }
    }
}

/// Formats a size: `512 MiB`, `4 GiB`.
fn format_size(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024 && value.is_multiple_of(1024) && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    while value >= 10 * 1024 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", units.get(unit).copied().unwrap_or_default())
}

/// Formats a duration: `90 seconds`, `30 minutes`.
fn format_time(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 120 && seconds.is_multiple_of(60) {
        format!("{} minutes", seconds / 60)
    } else {
        format!("{seconds} seconds")
    }
}
