pub(crate) mod group;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, future::LocalBoxFuture};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
};
use tokio_util::sync::CancellationToken;
use velox_fetch::Redactor;

use crate::{
    error::{Blame, Error},
    event::{Event, Reporter},
    process::group::{EndSignal, ProcessGroup},
    request::BuildRequest,
};

/// The time between the interrupt and the kill of a child process.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);

/// Runs the child processes of a build, with the same environment and redaction.
#[derive(Clone)]
pub(crate) struct CommandRunner {
    pub(crate) inherited: Arc<BTreeMap<String, String>>,
    pub(crate) secrets: Arc<Vec<(String, SecretString)>>,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) cancel: CancellationToken,
    /// Whether each child leads its own process group.
    pub(crate) own_groups: bool,
}

/// The status and the redacted output of a finished child process.
#[derive(Debug, Clone)]
pub struct ProgramOutput {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error, line by line.
    pub stderr: Vec<String>,
}

pub(crate) struct Invocation<'a> {
    /// Its name in messages.
    pub(crate) name: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: &'a Path,
    /// In addition to the inherited environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// How long it may print nothing, for commands that wait for servers; `None`: for ever.
    pub(crate) max_silence: Option<Duration>,
    /// Called for each line on standard error.
    pub(crate) on_line: Option<&'a (dyn Fn(&str) + Sync)>,
}

impl CommandRunner {
    /// A copy that adds these environment variables.
    pub(crate) fn with_environment(&self, variables: &[(&'static str, String)]) -> Self {
        let mut inherited = (*self.inherited).clone();
        inherited.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Self { inherited: Arc::new(inherited), ..self.clone() }
    }

    /// Children with the environment of the build, but without secrets.
    pub(crate) fn new(
        request: &BuildRequest,
        reporter: &Arc<dyn Reporter>,
        cancel: &CancellationToken,
    ) -> Self {
        let mut inherited = request.environment.clone();
        if request.options.is_offline() {
            // The content of the caches was verified when it was downloaded.
            let disabled = [("GOPROXY", "off"), ("GOSUMDB", "off"), ("GOVCS", "*:off")];
            inherited.extend(disabled.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        Self {
            inherited: Arc::new(inherited),
            secrets: Arc::default(),
            redactor: Arc::new(Redactor::new(Vec::new())),
            reporter: Arc::clone(reporter),
            cancel: cancel.clone(),
            own_groups: !request.options.share_process_group,
        }
    }

    /// Runs a command. An interruption ends its process group.
    pub(crate) fn run<'a>(
        &'a self,
        invocation: Invocation<'a>,
    ) -> LocalBoxFuture<'a, Result<ProgramOutput, Error>> {
        async move {
            let mut command = Command::new(invocation.program);
            command
                .args(&invocation.arguments)
                .current_dir(invocation.directory)
                .env_clear()
                .envs(self.inherited.iter())
                .envs(self.secrets.iter().map(|(name, value)| (name, value.expose_secret())))
                .envs(invocation.environment.iter().map(|(name, value)| (*name, value)))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());

            if self.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let mut group = ProcessGroup::spawn(command, self.own_groups).map_err(|error| {
                Error::build(format!("failed to start {}: {error}", invocation.program.display()))
            })?;
            let (Some(stdout), Some(stderr)) = (group.child().stdout.take(), group.child().stderr.take())
            else {
                return Err(Error::build(format!("failed to read the output of {}", invocation.name)));
            };

            let last_line = Mutex::new(Instant::now());
            let on_line = |line: &str| {
                *last_line.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                invocation.on_line.inspect(|on_line| on_line(line));
            };
            let is_silent = async {
                let Some(max) = invocation.max_silence else { return std::future::pending().await };
                loop {
                    let silent = last_line.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                    let Some(rest) = max.checked_sub(silent) else { return max };
                    tokio::time::sleep(rest + Duration::from_millis(1)).await;
                }
            };
            let read_output = async {
                let mut bytes = Vec::new();
                let mut reader = stdout;
                let read_out = reader.read_to_end(&mut bytes);
                let read_err = self.lines(invocation.name, stderr, &on_line);
                let (out, lines) = tokio::join!(read_out, read_err);
                out.map(|_| (bytes, lines))
            };
            let result = tokio::select! {
                output = read_output => match output {
                    Ok((bytes, lines)) => group.wait().await.map(|status| (status, bytes, lines)),
                    Err(error) => Err(error),
                },
                max = is_silent => {
                    group.end(None, Duration::ZERO).await;
                    let minutes = max.as_secs() / 60;
                    return Err(Error::build(format!(
                        "stopped {}, which printed nothing for {minutes} minutes",
                        invocation.name
                    ))
                    .fault(Blame::Sources)
                    .help("a module proxy or a repository does not respond: check the network, and GOPROXY"));
                }
                () = self.cancel.cancelled() => {
                    group.end(Some(EndSignal::Interrupt), INTERRUPT_GRACE).await;
                    return Err(Error::interrupted());
                }
            };
            let (status, bytes, stderr) = result.map_err(|error| {
                Error::build(format!("failed to read the output of {}: {error}", invocation.name))
            })?;
            let stdout = self.redactor.redact(&String::from_utf8_lossy(&bytes));
            Ok(ProgramOutput { status, stdout, stderr })
        }
        .boxed_local()
    }

    async fn lines(
        &self,
        program: &'static str,
        stream: impl tokio::io::AsyncRead + Unpin,
        on_line: &(dyn Fn(&str) + Sync),
    ) -> Vec<String> {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        let mut raw = Vec::new();
        while let Ok(1..) = reader.read_until(b'\n', &mut raw).await {
            let line = self.redactor.redact(String::from_utf8_lossy(&raw).trim_end_matches(['\n', '\r']));
            raw.clear();
            on_line(&line);
            let message = line.strip_prefix(program).and_then(|rest| rest.strip_prefix(": "));
            self.reporter.report(Event::Output { program, line: message.unwrap_or(&line).to_owned() });
            lines.push(line);
        }
        lines
    }

    /// The full path of a program on the PATH.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        let path = self.inherited.get("PATH").or_else(|| self.inherited.get("Path"))?;
        let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
        std::env::split_paths(path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(&file))
            .find(|candidate| candidate.is_file())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use rustix::process::getpgrp;

    use super::*;
    use crate::event::SilentReporter;

    async fn run(
        one_group: bool,
        script: &str,
        max_silence: Option<Duration>,
    ) -> Result<ProgramOutput, Error> {
        let children = CommandRunner {
            inherited: Arc::new([("PATH".to_owned(), std::env::var("PATH").unwrap())].into()),
            secrets: Arc::default(),
            redactor: Arc::new(Redactor::new(Vec::new())),
            reporter: Arc::new(SilentReporter),
            cancel: CancellationToken::new(),
            own_groups: !one_group,
        };
        let invocation = Invocation {
            name: "sh",
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            directory: Path::new("/"),
            environment: Vec::new(),
            max_silence,
            on_line: None,
        };
        children.run(invocation).await
    }

    async fn group_of_child(one_group: bool) -> String {
        run(one_group, "cut -d' ' -f5 /proc/$$/stat", None).await.unwrap().stdout.trim().to_owned()
    }

    #[tokio::test]
    async fn a_silent_command_is_stopped() {
        let stopped = run(false, "sleep 600 & wait", Some(Duration::from_millis(100))).await;
        let error = stopped.err().unwrap();
        assert_eq!(error.fault, Blame::Sources);
        assert!(error.diagnostics[0].message.contains("stopped sh, which printed nothing"), "{error:?}");
    }

    #[tokio::test]
    async fn children_stay_in_this_group_where_it_ends_as_a_whole() {
        let own = getpgrp().as_raw_nonzero().to_string();
        assert_eq!(group_of_child(true).await, own);
        assert_ne!(group_of_child(false).await, own);
    }
}
