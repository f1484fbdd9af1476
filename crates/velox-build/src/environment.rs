//! The environment of a build on this machine: the go command, git, and network access.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;
use velox_fetch::{
    forge::{ForgeError, TokenInfo, github_token_info, gitlab_token_info},
    proxy::Netrc,
};

use crate::{
    cache_directory::cache_directory,
    error::Error,
    event::Reporter,
    network::{Network, credentials, impatient, private_hosts},
    process::{CommandRunner, Invocation, ProgramOutput},
    request::BuildRequest,
    toolchain::InstalledGo,
    workspace::scratch::ScratchDirectory,
};

/// The environment of a build; each missing part can be reported separately.
pub struct BuildEnvironment<'a> {
    request: &'a BuildRequest,
    children: CommandRunner,
    directory: PathBuf,
    _scratch: Option<ScratchDirectory>,
    installed: Result<InstalledGo, Error>,
    network: Option<Result<Network, Error>>,
}

/// The go command of this machine and its settings.
#[derive(Debug, Clone)]
pub struct GoInstallation {
    /// The program and its version (`go1.26.8`); `None`: there is no go command on the PATH.
    pub program: Option<(PathBuf, String)>,
    /// The default version: that of the program, or the one that GOTOOLCHAIN names.
    pub version: Option<String>,
    /// Whether no other version may be downloaded.
    pub is_fixed: bool,
    /// The setting that decides about other versions (`GOTOOLCHAIN=local`, `--go`).
    pub policy: String,
    /// GOMODCACHE.
    pub module_cache: PathBuf,
    /// GOCACHE.
    pub compile_cache: PathBuf,
    /// GOPROXY.
    pub proxy: String,
    /// GOSUMDB.
    pub sum_db: String,
    /// GONOSUMDB.
    pub no_sum_db: String,
    /// The hosts that the patterns of GOPRIVATE and GONOPROXY name.
    pub private_hosts: BTreeSet<String>,
}

impl<'a> BuildEnvironment<'a> {
    /// Finds the go command and sets up the network.
    pub async fn open(
        request: &'a BuildRequest,
        reporter: &Arc<dyn Reporter>,
        cancel: &CancellationToken,
    ) -> Self {
        let children = CommandRunner::new(request, reporter, cancel);
        let scratch = ScratchDirectory::create(&cache_directory(&request.environment), false).ok();
        let directory = scratch.as_ref().map_or_else(|| request.base.clone(), |it| it.path().to_owned());
        let installed = InstalledGo::find(&children, request.options.go.as_deref(), &directory).await;
        let network = match &installed {
            Ok(go) => Some(Network::new(request, &go.settings, &directory, &children).await),
            Err(_) => None,
        };
        Self { request, children, directory, _scratch: scratch, installed, network }
    }

    /// The go command, or why it doesn't work.
    ///
    /// # Errors
    /// The go command or its settings are broken.
    pub fn go(&self) -> Result<GoInstallation, &Error> {
        let installed = self.installed.as_ref()?;
        let settings = &installed.settings;
        Ok(GoInstallation {
            program: installed.program().map(|(program, version)| (program.to_owned(), version.to_owned())),
            version: installed.version().map(str::to_owned),
            is_fixed: installed.stays(),
            policy: installed.said().to_owned(),
            module_cache: settings.gomodcache.clone(),
            compile_cache: settings.gocache.clone(),
            proxy: settings.goproxy.clone(),
            sum_db: settings.gosumdb.clone(),
            no_sum_db: settings.gonosumdb.clone(),
            private_hosts: private_hosts(settings),
        })
    }

    /// Why the network can't be set up, if it can't.
    #[must_use]
    pub fn network_error(&self) -> Option<&Error> {
        self.network.as_ref()?.as_ref().err()
    }

    /// The git program on the PATH.
    #[must_use]
    pub fn git(&self) -> Option<PathBuf> {
        self.children.find("git")
    }

    /// Runs git as a build would, with the configured tokens, but without a prompt.
    ///
    /// # Errors
    /// The program can't be started, or an interruption.
    pub async fn run_git(&self, git: &Path, arguments: &[&str]) -> Result<ProgramOutput, Error> {
        let children = match &self.network {
            Some(Ok(network)) => &network.children,
            _ => &self.children,
        };
        let invocation = Invocation {
            name: "git",
            program: git,
            arguments: arguments.iter().map(Into::into).collect(),
            directory: &self.directory,
            environment: vec![
                ("GIT_TERMINAL_PROMPT", "0".to_owned()),
                ("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=10".to_owned()),
                ("LC_ALL", "C".to_owned()),
            ],
            max_silence: None,
            on_line: None,
        };
        children.run(invocation).await
    }

    /// An HTTP client for module proxies and the checksum database; `None`: the go command doesn't work.
    ///
    /// # Errors
    /// The TLS or proxy settings are invalid.
    pub fn proxy_client(&self) -> Option<Result<(reqwest::Client, Netrc), Error>> {
        let settings = &self.installed.as_ref().ok()?.settings;
        Some(credentials(self.request, settings))
    }

    /// GitHub's status of the configured token; `None`: there is no network.
    pub async fn github_token(&self) -> Option<Result<TokenInfo, ForgeError>> {
        let github = &self.network.as_ref()?.as_ref().ok()?.forges.github;
        Some(match impatient(self.request) {
            Ok(http) => github_token_info(&http, github.endpoint.as_ref(), github.token.clone()).await,
            Err(error) => Err(error.into()),
        })
    }

    /// GitLab's status of the configured token; `None`: there is no network.
    pub async fn gitlab_token(&self) -> Option<Result<TokenInfo, ForgeError>> {
        let gitlab = &self.network.as_ref()?.as_ref().ok()?.forges.gitlab;
        Some(match impatient(self.request) {
            Ok(http) => gitlab_token_info(&http, gitlab.endpoint.as_ref(), gitlab.token.clone()).await,
            Err(error) => Err(error.into()),
        })
    }
}
