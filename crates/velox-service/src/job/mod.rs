//! A job: one build in a process of its own.
//!
//! ```text
//! Jobs::run ── spawns `vx job` in a process group of its own, with an environment of its own
//!     │ stdin    one line of JSON: what is to be built; its end means that nobody wants it any more
//!     │ stdout   lines of JSON: what goes on, and at last what came of it
//!     ▼
//! child::run ── velox_build::build
//! ```
//!
//! ```text
//! DATA/
//!   home/  go/  cache/     HOME, GOPATH, and what vx keeps of earlier builds: all jobs share them
//!   jobs/
//!     .lock                held while a service uses the directory
//!     job-AbC123/          of one job; gone with it
//!       tmp/               TMPDIR
//!       work/              the source tree
//!       out/rr  velox.lock
//! ```

mod caches;
mod cgroup;
mod child;
mod disk;
mod environment;
mod fence;
mod group;
mod log;
mod task;

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
};
use tokio_util::sync::CancellationToken;
use velox_api::{BuildFailure, FailureKind, LogEntry, Severity};
use velox_build::{EndSignal, ProcessGroup};

pub use self::child::run;
use self::{
    caches::Caches,
    cgroup::{Cgroup, Cgroups},
    disk::Disk,
    group::confine,
    task::{Said, Task},
};
use crate::{
    build::Build,
    egress::EgressProxy,
    options::{JobLimits, ServiceOptions},
    policy::{BuildPolicy, PolicyError},
    runner::{JobRunner, RunOutcome},
};

/// How long a job may take to end by itself once it was asked to, or once it said what came of it.
const GRACE: Duration = Duration::from_secs(10);
/// No line of a job is longer, save for what it made.
const LONGEST_LINE: u64 = 64 << 20;
/// How much of a failure's message is kept with the build, in bytes: a compiler quotes names of any length, and whoever
/// looks at the build gets the message.
const LONGEST_MESSAGE: usize = 64 << 10;
/// How much of a job's last words is kept for the service's own log.
const LAST_WORDS: usize = 20;

/// Runs each build as a child process.
pub struct Jobs {
    program: PathBuf,
    data: PathBuf,
    environment: BTreeMap<String, String>,
    limits: JobLimits,
    policy: BuildPolicy,
    egress: EgressProxy,
    caches: Arc<Caches>,
    cgroups: Option<Cgroups>,
    _lock: File,
}

/// How the talk with a job ended.
enum End {
    /// By itself.
    Said(Option<Said>),
    Cancelled,
    /// It took more than it may; a sentence.
    Limit(String),
}

impl Jobs {
    /// Makes the directories for jobs, and their way out; what jobs of a service left that was killed is removed. To be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// The directory can't be used, or another service uses it.
    pub fn new(options: &ServiceOptions) -> io::Result<Self> {
        Self::counted(options, Counter::default())
    }

    /// The same, which counts what the jobs download.
    pub(crate) fn counted(options: &ServiceOptions, downloaded: Counter) -> io::Result<Self> {
        let jobs = options.data.join("jobs");
        for directory in [&jobs, &options.data.join("home"), &options.data.join("cache")] {
            fs::create_dir_all(directory)?;
        }
        // Children are told by full paths.
        let data = options.data.canonicalize()?;
        let lock = File::options().create(true).truncate(false).write(true).open(jobs.join(".lock"))?;
        lock.try_lock()
            .map_err(|_| io::Error::other(format!("another service runs its jobs in {}", jobs.display())))?;
        remove_leftovers(&jobs);
        if !fence::is_whole() {
            tracing::warn!(
                "there is no Landlock (Linux 6.7 or newer has it, unless a filter of system calls refuses it): nothing but \
                 its environment keeps a build from this machine's files and ports"
            );
        }
        let is_named =
            |variable: &str| options.environment.get(variable).is_some_and(|value| !value.is_empty());
        let caches = Arc::new(Caches::new(&data, is_named, options.limits.cache));
        let egress = EgressProxy::start(&options.environment, &options.policy, downloaded)?;
        Ok(Self {
            egress,
            caches,
            cgroups: Cgroups::find(),
            program: options.program.clone(),
            data,
            environment: options.environment.clone(),
            limits: options.limits.clone(),
            policy: options.policy.clone(),
            _lock: lock,
        })
    }

    async fn attempt(
        &self,
        build: &Build,
        log: &mpsc::Sender<LogEntry>,
        cancel: &CancellationToken,
    ) -> io::Result<RunOutcome> {
        // A worker may be stricter than who took the request.
        if let Err(refusal) = self.policy.check_for(&build.spec, None) {
            return Ok(RunOutcome::Failed(refused(refusal)));
        }
        let Some(_used) = cancel.run_until_cancelled(self.caches.used()).await else {
            return Ok(RunOutcome::Cancelled);
        };
        let directory = tempfile::Builder::new().prefix("job-").tempdir_in(self.data.join("jobs"))?;
        for folder in ["tmp", "work", "out"] {
            fs::create_dir(directory.path().join(folder))?;
        }
        let access = self.egress.grant(self.limits.download);
        let mut environment = environment::of_job(&self.environment, &self.data, directory.path());
        environment.extend(
            self.egress.environment(&access).into_iter().map(|(name, value)| (name.to_owned(), value)),
        );
        let mut command = Command::new(&self.program);
        command
            .arg("job")
            .current_dir(directory.path())
            .env_clear()
            .envs(&environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut group = ProcessGroup::spawn(command, true)?;
        let child = group.child();
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
            return Err(io::Error::other("the job has no standard streams"));
        };
        confine(&group, &self.limits);
        let cgroup = self.cgroup(directory.path(), &mut group);
        let task = Task {
            spec: build.spec.clone(),
            force: build.force,
            directory: directory.path().to_owned(),
            memory: self.limits.memory,
            port: access.port(),
        };
        let mut line = serde_json::to_vec(&task).map_err(io::Error::other)?;
        line.push(b'\n');
        // A job that ended already says why by its exit status.
        let _ = stdin.write_all(&line).await;
        let _ = stdin.flush().await;

        let words = tokio::spawn(last_words(stderr));
        let own = directory.path().to_string_lossy().into_owned();
        let modules = environment.get("GOMODCACHE").map(|cache| format!("{cache}/")).unwrap_or_default();
        let hide = |text: &str| {
            let text = access.redact(text).replace(&own, "");
            if modules.is_empty() { text } else { text.replace(&modules, "") }
        };
        let disk = Disk::new(directory.path(), &self.data, self.limits.disk);
        let end = tokio::select! {
            said = self.listen(stdout, log, &hide) => said?,
            () = cancel.cancelled() => End::Cancelled,
            () = tokio::time::sleep(self.limits.time) => {
                End::Limit(format!("it took longer than the {} that a build may take here", spoken(self.limits.time)))
            }
            () = access.limit_exceeded() => {
                End::Limit(format!("it downloaded more than the {} that a build may download here", size(self.limits.download)))
            }
            full = disk.watch() => End::Limit(full),
        };
        let status = match &end {
            End::Said(_) => group.end(None, GRACE).await,
            End::Cancelled => group.end(Some(EndSignal::Terminate), GRACE).await,
            End::Limit(_) => group.end(None, Duration::ZERO).await,
        };
        // Only now: the job takes its end for the service's.
        drop(stdin);
        let words = words.await.unwrap_or_default();
        for denial in access.denials() {
            let _ = log.send(LogEntry::new(Severity::Warning, denial)).await;
        }
        let failure = match end {
            End::Cancelled => return Ok(RunOutcome::Cancelled),
            End::Limit(message) => limit(message),
            End::Said(Some(Said::Made { made, file })) => match self.artifact(&file, directory.path()) {
                Ok(()) => return Ok(RunOutcome::Succeeded { made, file, directory }),
                Err(failure) => failure,
            },
            End::Said(_) if cgroup.is_some_and(|cgroup| cgroup.ran_out_of_memory()) => {
                limit(child::out_of_memory(self.limits.memory))
            }
            End::Said(Some(Said::Failed(failure))) => return Ok(RunOutcome::Failed(failure)),
            End::Said(_) => {
                let how = status.map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
                tracing::error!(build = %build.id, status = how, stderr = words.join("\n"), "a job ended without an answer");
                died(&how, &words, self.limits.memory)
            }
        };
        for line in failure.message.lines() {
            let _ = log.send(LogEntry::new(Severity::Error, line)).await;
        }
        Ok(RunOutcome::Failed(failure))
    }

    /// The control group of a job, which its process is in; `None`: there is none.
    fn cgroup(&self, directory: &Path, group: &mut ProcessGroup) -> Option<Cgroup> {
        let name = directory.file_name()?.to_string_lossy().replace("job-", "");
        let made = self.cgroups.as_ref()?.job(&name, &self.limits).and_then(|cgroup| {
            let process = group.child().id().ok_or_else(|| io::Error::other("it ended already"))?;
            cgroup.add(process).map(|()| cgroup)
        });
        made.inspect_err(|error| tracing::warn!(%error, "a job has no control group")).ok()
    }

    /// Passes on what the job says until it has said all.
    async fn listen(
        &self,
        stdout: impl AsyncRead + Unpin,
        log: &mpsc::Sender<LogEntry>,
        hide: &(dyn Fn(&str) -> String + Sync),
    ) -> io::Result<End> {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        let mut logged = 0;
        loop {
            line.clear();
            if (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await? == 0 {
                return Ok(End::Said(None));
            }
            match serde_json::from_slice(&line) {
                Ok(Said::Entry(mut entry)) => {
                    logged += entry.text.len() as u64;
                    if logged > self.limits.log {
                        let most = size(self.limits.log);
                        return Ok(End::Limit(format!("its log grew past the {most} that it may have here")));
                    }
                    entry.text = hide(&entry.text);
                    // Where nobody listens any more, the build goes on.
                    let _ = log.send(entry).await;
                }
                Ok(Said::Failed(failure)) => {
                    let message = shortened(hide(&failure.message));
                    return Ok(End::Said(Some(Said::Failed(BuildFailure { message, ..failure }))));
                }
                Ok(made) => return Ok(End::Said(Some(made))),
                Err(error) => {
                    return Err(io::Error::other(format!("a job says what can't be understood: {error}")));
                }
            }
        }
    }

    /// Whether this is a binary of the job's own, and no larger than it may be.
    fn artifact(&self, file: &Path, directory: &Path) -> Result<(), BuildFailure> {
        let internal = |message: String| BuildFailure { kind: FailureKind::Internal, message };
        if !file.starts_with(directory) {
            return Err(internal("the job's binary isn't where it belongs".to_owned()));
        }
        let length =
            fs::metadata(file).map_err(|error| internal(format!("the job's binary: {error}")))?.len();
        if length > self.limits.artifact {
            let (length, most) = (size(length), size(self.limits.artifact));
            return Err(limit(format!("its binary has {length}, and may have {most} here")));
        }
        Ok(())
    }
}

#[async_trait]
impl JobRunner for Jobs {
    async fn run(&self, build: &Build, log: mpsc::Sender<LogEntry>, cancel: CancellationToken) -> RunOutcome {
        let ran = self.attempt(build, &log, &cancel).await;
        tokio::spawn({
            let caches = Arc::clone(&self.caches);
            async move { caches.look_after().await }
        });
        ran.unwrap_or_else(|error| {
            tracing::error!(build = %build.id, %error, "a job can't be run");
            let message = "the service can't run the build: its log says why".to_owned();
            RunOutcome::Failed(BuildFailure { kind: FailureKind::Internal, message })
        })
    }
}

fn refused(refusal: PolicyError) -> BuildFailure {
    let violations = match refusal {
        PolicyError::Invalid(violations) | PolicyError::Forbidden(violations) => violations,
        PolicyError::Precondition(violation) => vec![violation],
    };
    let lines: Vec<String> =
        violations.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.message)).collect();
    BuildFailure { kind: FailureKind::Invalid, message: lines.join("\n") }
}

fn limit(message: String) -> BuildFailure {
    BuildFailure { kind: FailureKind::Limit, message }
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push_str("…\nthe log has more of it");
    }
    message
}

/// What the end of a job means that said nothing.
fn died(how: &str, words: &[String], memory: u64) -> BuildFailure {
    if words.iter().any(|line| child::is_out_of_memory(line)) {
        return limit(child::out_of_memory(memory));
    }
    let message = format!("the build's process ended without an answer ({how})");
    BuildFailure { kind: FailureKind::Internal, message }
}

/// The job itself may be ill: what it prints is for the service's log, not for who asked.
async fn last_words(stderr: impl AsyncRead + Unpin) -> Vec<String> {
    let mut reader = BufReader::new(stderr);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while let Ok(1..) = (&mut reader).take(4096).read_until(b'\n', &mut line).await {
        if lines.len() == LAST_WORDS {
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
            tracing::warn!(directory = %entry.path().display(), %error, "a dead job's directory stays");
        }
    }
}

/// `512 MiB`, `4 GiB`
fn size(bytes: u64) -> String {
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

/// `90 seconds`, `30 minutes`
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 120 && seconds.is_multiple_of(60) {
        format!("{} minutes", seconds / 60)
    } else {
        format!("{seconds} seconds")
    }
}
