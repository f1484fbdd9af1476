//! Selects the Go toolchain of a build: an installed one, or one that is downloaded as a module.

use std::path::{Path, PathBuf};

use velox_fetch::{
    download::{DownloadError, Fetcher, ProxyAttempt, Verification},
    modcache::{CacheFile, ModCache},
    toolchain::{self, InstalledToolchain},
};
use velox_gomod::{
    goversion::{GoVersion, is_older},
    modfile::GoMod,
    module::ModuleVersion,
};
use velox_manifest::{Diagnostic, GoSelection, GoTarget, Manifest};

use super::{
    go_command::Toolchain,
    go_env::GoSettings,
    policy::{ToolchainPolicy, ToolchainSwitching},
};
use crate::{
    download_failure::{advice, unserved},
    error::{Blame, Error, ErrorKind, checksum_mismatch, until_cancelled},
    event::{Event, Note, Phase, phase},
    process::{CommandRunner, Invocation},
};

/// The installed go command, if any, and the policy for other toolchains.
pub(crate) struct InstalledGo {
    program: Option<(PathBuf, String)>,
    policy: ToolchainPolicy,
    pub(crate) settings: GoSettings,
}

/// The toolchains that a build can use.
pub(crate) struct Toolchains {
    pub(crate) installed: InstalledGo,
    pub(crate) children: CommandRunner,
    /// `None`: only the go command can download.
    pub(crate) fetcher: Option<Fetcher>,
    pub(crate) offline: bool,
    pub(crate) scratch: PathBuf,
}

impl InstalledGo {
    /// Reads the settings of the given go command, or of the one on the PATH.
    pub(crate) async fn find(
        children: &CommandRunner,
        given: Option<&Path>,
        directory: &Path,
    ) -> Result<Self, Error> {
        if let Some(given) = given.filter(|given| !given.is_file()) {
            let what = if given.is_dir() { "is a directory" } else { "does not exist" };
            return Err(Error::configuration(format!("invalid --go: {} {what}", given.display()))
                .help("use the path of the program, such as /usr/local/go/bin/go")
                .help(
                    "without --go, vx uses the go command on the PATH, or downloads the required version",
                ));
        }
        let (settings, program) = match given.map(Path::to_owned).or_else(|| children.find("go")) {
            Some(program) => {
                let found = GoSettings::of(&program, children, directory).await;
                let (settings, version) = match given {
                    Some(_) => found.map_err(|error| error.help("is the program of --go a go command?"))?,
                    None => found?,
                };
                (settings, Some((program, version)))
            }
            None => (GoSettings::without_go(&children.inherited, directory)?, None),
        };
        // `--go` is exact unless GOTOOLCHAIN is set, too.
        let switched = children.inherited.get("GOTOOLCHAIN").is_some_and(|value| !value.is_empty());
        let policy = ToolchainPolicy::new(&settings.gotoolchain, given.is_some() && !switched)?;
        Ok(Self { program, policy, settings })
    }

    /// The installed go command and its version.
    pub(crate) fn program(&self) -> Option<(&Path, &str)> {
        self.program.as_ref().map(|(program, version)| (program.as_path(), version.as_str()))
    }

    /// Whether no other toolchain may be used.
    pub(crate) fn stays(&self) -> bool {
        self.policy.others == ToolchainSwitching::None
    }

    /// The setting that decides about other toolchains, for messages.
    pub(crate) fn said(&self) -> &str {
        &self.policy.said
    }

    /// The version that GOTOOLCHAIN names, or that of the installed go command.
    pub(crate) fn version(&self) -> Option<&str> {
        let program = self.program.as_ref().map(|(_, version)| version.as_str());
        self.policy.base.as_deref().or(program)
    }
}

impl Toolchains {
    /// Fails if this version is neither installed nor allowed to be downloaded.
    pub(crate) fn allows(&self, version: &str) -> Result<(), Error> {
        let InstalledGo { policy, .. } = &self.installed;
        if self.installed.version() == Some(version) || policy.others != ToolchainSwitching::None {
            return Ok(());
        }
        let message = match self.installed.version() {
            Some(installed) => {
                format!(
                    "the lock requires {version}, found {installed}, and {} forbids downloading another",
                    policy.said
                )
            }
            None => return Err(self.no_go_command()),
        };
        Err(Error::build(message).help(format!(
            "install {version}, set GOTOOLCHAIN=auto, or update the lock with `vx lock --upgrade`"
        )))
    }

    /// Exactly this version, without switching; `sum` is the expected sum from the lock.
    pub(crate) async fn exactly(&self, version: &str, sum: Option<&str>) -> Result<Toolchain, Error> {
        self.allows(version)?;
        let mut go = self.get(version, sum).await?;
        go.fixed = true;
        Ok(go)
    }

    /// This version; it may switch to a newer one if go.mod requires it.
    pub(crate) async fn from(&self, version: &str, sum: Option<&str>) -> Result<Toolchain, Error> {
        self.allows(version)?;
        self.get(version, sum).await
    }

    /// The toolchain for a build without a lock: the installed one if it is suitable, else the newest patch release of the
    /// one that RoadRunner's go.mod names, else the newest release.
    pub(crate) async fn for_release(&self, release: Option<&ModuleVersion>) -> Result<Toolchain, Error> {
        let InstalledGo { policy, .. } = &self.installed;
        if let Some(version) = self.installed.version() {
            let switches =
                GoVersion::from_toolchain_name(version).is_none_or(|version| version.supports_switching());
            if switches || policy.others == ToolchainSwitching::None {
                return self.get(version, None).await;
            }
        } else if policy.others == ToolchainSwitching::None {
            return Err(self.no_go_command());
        }
        let named = self.release_toolchain(release).await;
        match (named, &self.installed.program) {
            // Too old to switch toolchains, but new enough for this release.
            (Some((line, _)), Some((_, version))) if !is_older(version, &line) => {
                self.get(version, None).await
            }
            (Some((_, Some(toolchain))), _) => self.get(&self.newest_patch(&toolchain).await?, None).await,
            _ => self.get(&self.newest().await?, None).await,
        }
    }

    /// The toolchain that `[go] version` selects; it never switches. `release`: RoadRunner's go.mod.
    pub(crate) async fn selected(
        &self,
        selection: &GoSelection,
        release: Option<&GoMod>,
    ) -> Result<Toolchain, Error> {
        let installed = self.installed.version();
        let version = match selection {
            GoSelection::Exact(version) => format!("go{version}"),
            GoSelection::Minor(minor) => match installed {
                // The user can't get another one.
                Some(installed) if self.installed.stays() && is_of_minor(installed, minor) => {
                    installed.to_owned()
                }
                _ if self.installed.stays() => format!("go{minor}"),
                _ => self.newest_patch(&format!("go{minor}")).await?,
            },
            GoSelection::Release => release.and_then(GoMod::preferred_toolchain).ok_or_else(|| {
                Error::build("RoadRunner's go.mod names no Go version that can be downloaded")
                    .help("set version in [go] to a Go version, such as \"1.26\"")
            })?,
        };
        if self.installed.stays() && installed != Some(version.as_str()) {
            let Some(installed) = installed else { return Err(self.no_go_command()) };
            let said = &self.installed.policy.said;
            let message = format!(
                "[go] version requires {version}, found {installed}, and {said} forbids downloading another"
            );
            return Err(Error::build(message)
                .fault(Blame::Request)
                .help(format!("install {version}, set GOTOOLCHAIN=auto, or change version in [go]")));
        }
        let mut go = self.get(&version, None).await?;
        go.fixed = true;
        Ok(go)
    }

    /// The newest patch release of a toolchain's minor version, if the go command of `go` selected `found` in its place.
    pub(crate) async fn patched(&self, go: &Toolchain, found: String) -> Result<String, Error> {
        if go.version == found {
            return Ok(found);
        }
        let patched = self.newest_patch(&found).await?;
        Ok(self.get(&patched, None).await?.version)
    }

    /// The newest release of the same minor version that the proxies list, not older than `name` (`go1.26.4`, `go1.26`).
    /// Without a list: the newest one on this machine, with a note.
    async fn newest_patch(&self, name: &str) -> Result<String, Error> {
        let GoTarget { os, arch } = GoTarget::host();
        let Some(floor) = GoVersion::from_toolchain_name(name) else { return Ok(name.to_owned()) };
        let first = floor.toolchain().unwrap_or_else(|| name.to_owned());
        if self.installed.policy.others != ToolchainSwitching::Any {
            return Ok(first);
        }
        let counts = |version: &GoVersion| version.is_same_minor(&floor) && *version >= floor;
        let listed = match &self.fetcher {
            Some(fetcher) if !fetcher.needs_go(toolchain::TOOLCHAIN_MODULE) => {
                let listing = fetcher.versions(toolchain::TOOLCHAIN_MODULE);
                until_cancelled(&self.children.cancel, listing).await?.map_err(|error| {
                    match unserved("the list of Go releases", error) {
                        Ok(tried) => ProxyAttempt::join(&tried),
                        Err(error) => error.to_string(),
                    }
                })
            }
            _ if self.offline => Err("`--offline` forbids downloading one".to_owned()),
            _ => Err("GOPROXY has no module proxy".to_owned()),
        };
        let why = match listed {
            Ok(versions) => match toolchain::newest_release(&versions, &os, &arch, counts) {
                Some(newest) => return Ok(newest),
                None => format!("no proxy lists a release of {name} for {os}/{arch}"),
            },
            Err(why) => why,
        };
        let cached = toolchain::newest_release(&self.cached(), &os, &arch, counts);
        let installed = self.installed.program().map(|(_, version)| version.to_owned());
        let local = cached.into_iter().chain(installed).filter_map(|name| {
            let version = GoVersion::from_toolchain_name(&name).filter(&counts)?;
            Some((version, name))
        });
        let chosen = local.max().map_or(first, |(_, name)| name);
        let text = format!(
            "using {chosen}, which may not be the newest patch release: no list of Go releases ({why})"
        );
        self.children.reporter.report(Event::note(text));
        Ok(chosen)
    }

    /// A newer toolchain, if `go` is older than the go line `line` of `module`.
    pub(crate) async fn newer(
        &self,
        go: &Toolchain,
        line: Option<&str>,
        module: &str,
        manifest: &Manifest,
    ) -> Result<Option<Toolchain>, Error> {
        let Some(line) = line.filter(|line| is_older(&go.version, line)) else { return Ok(None) };
        let installed = &go.version;
        if let Some(selection) = &manifest.go {
            let message =
                format!("{module} requires Go {line} or newer, but [go] version selects {installed}");
            let diagnostic = Diagnostic::error(message).at(selection.span.clone()).label("too old");
            let diagnostic = diagnostic.help("select a newer one, or remove version from [go]");
            return Err(Error::many(ErrorKind::Build, vec![diagnostic]).fault(Blame::Request));
        }
        self.newer_than(installed, line, module).await.map(Some)
    }

    /// A newer toolchain for a program whose go.mod has this go line, if `go` is older.
    pub(crate) async fn at_least(&self, go: &Toolchain, line: &str) -> Result<Option<Toolchain>, Error> {
        match is_older(&go.version, line) {
            true => self.newer_than(&go.version, line, "the program").await.map(Some),
            false => Ok(None),
        }
    }

    async fn newer_than(&self, installed: &str, line: &str, module: &str) -> Result<Toolchain, Error> {
        if self.installed.policy.others == ToolchainSwitching::None {
            return Err(Error::build(format!("{module} requires Go {line} or newer, found {installed}"))
                .fault(Blame::Request)
                .help("install a newer Go from https://go.dev/dl/")
                .help(match self.installed.policy.said.as_str() {
                    "--go" => "or omit --go, and vx downloads it".to_owned(),
                    said => format!("or set GOTOOLCHAIN=auto to let vx download it (now {said})"),
                }));
        }
        match line.parse::<GoVersion>().ok().and_then(|version| version.toolchain()) {
            Some(toolchain) => self.get(&self.newest_patch(&toolchain).await?, None).await,
            // Versions that old are not published as toolchains.
            None => self.get(&self.newest().await?, None).await,
        }
    }

    /// The sum of a cached toolchain.
    pub(crate) fn sum_of(&self, version: &str) -> Option<String> {
        let path = self.cache().path(&module(version), CacheFile::ZipHash).ok()?;
        Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
    }

    fn cache(&self) -> ModCache {
        ModCache::new(&self.installed.settings.gomodcache)
    }

    fn no_go_command(&self) -> Error {
        Error::build(format!("no go command on the PATH, and {} forbids downloading one", self.installed.policy.said))
            .help("set GOTOOLCHAIN=auto to let vx download it")
            .help("or install Go from https://go.dev/dl/ and put its bin directory on the PATH, or name it with --go")
    }

    fn toolchain(&self, program: PathBuf, version: &str, root: Option<PathBuf>) -> Toolchain {
        Toolchain {
            program,
            version: version.to_owned(),
            root,
            fixed: false,
            others: self.installed.policy.others,
            trusted: false,
            children: self.children.clone(),
            settings: self.installed.settings.clone(),
        }
    }

    /// The toolchain of a version: installed, on the PATH by name, in the module cache, or from a proxy.
    async fn get(&self, version: &str, sum: Option<&str>) -> Result<Toolchain, Error> {
        if let Some((program, installed)) = &self.installed.program
            && installed == version
        {
            return Ok(self.toolchain(program.clone(), version, None));
        }
        // As in the go command, a toolchain on the PATH takes precedence over downloads.
        if let Some(program) = self.children.find(version) {
            return Ok(self.toolchain(program, version, None));
        }
        if self.installed.policy.others == ToolchainSwitching::Path {
            let said = &self.installed.policy.said;
            return Err(Error::build(format!("no {version} on the PATH, and {said} forbids downloading it"))
                .help(format!(
                    "install it with `go install golang.org/dl/{version}@latest && {version} download`"
                ))
                .help("or set GOTOOLCHAIN=auto to let vx download it"));
        }
        let module = module(version);
        if let Some(ready) = toolchain::find_installed(&self.cache(), &module) {
            return match sum.filter(|sum| *sum != ready.sum) {
                Some(sum) => Err(mismatch(&display_name(version), &ready.sum, sum)),
                None => Ok(self.toolchain(ready.program(), version, Some(ready.root))),
            };
        }
        if self.offline {
            return Err(Error::build(format!(
                "{} is not cached; `--offline` forbids downloading it",
                display_name(version)
            ))
            .help("run `vx fetch` with the same configuration"));
        }
        phase(&*self.children.reporter, Phase::Fetch, self.download(version, module, sum)).await
    }

    async fn download(
        &self,
        version: &str,
        module: ModuleVersion,
        sum: Option<&str>,
    ) -> Result<Toolchain, Error> {
        let progress = |done| {
            let event = Event::progress(Phase::Fetch, done, Some(1), display_name(version));
            self.children.reporter.report(event);
        };
        progress(0);
        let fetched = match &self.fetcher {
            Some(fetcher) if !fetcher.needs_go(&module.path) => {
                let sums = sum.map(str::to_owned).into_iter().collect();
                until_cancelled(&self.children.cancel, fetcher.toolchain(&module, sums)).await?
            }
            _ => Err(DownloadError::NeedsGo { module: version.to_owned(), tried: Vec::new() }),
        };
        let (ready, verified, bytes) = match fetched {
            Ok(fetched) => fetched,
            Err(DownloadError::NeedsGo { .. }) => {
                (self.download_by_go(version, &module).await?, Verification::ChecksumDatabase, 0)
            }
            Err(error) => return Err(download_error(&display_name(version), error)),
        };
        progress(1);
        let mut go = self.toolchain(ready.program(), version, Some(ready.root));
        go.trusted = verified == Verification::Unverified;
        let size = if bytes > 0 { format!(", {} MiB", bytes.div_ceil(1 << 20)) } else { String::new() };
        let text = format!("{}{size}, from {}", display_name(version), toolchain::TOOLCHAIN_MODULE);
        self.children.reporter.report(Event::note(text));
        if go.trusted {
            let name = format!("{}@{}", module.path, module.version);
            self.children
                .reporter
                .report(Event::Note(Note::TrustedOnFirstUse { module: name, sum: ready.sum }));
        }
        Ok(go)
    }

    /// Downloads with the go command, which alone supports GOPROXY=direct, GONOPROXY and GOAUTH commands.
    async fn download_by_go(
        &self,
        version: &str,
        module: &ModuleVersion,
    ) -> Result<InstalledToolchain, Error> {
        let cannot = |why: &str| {
            Error::build(format!("failed to download {}: {why}", display_name(version)))
                .help("name a module proxy in GOPROXY, or install that Go from https://go.dev/dl/")
        };
        let Some((program, installed)) = &self.installed.program else {
            return Err(cannot("GOPROXY has no module proxy, and there is no go command"));
        };
        if GoVersion::from_toolchain_name(installed).is_some_and(|version| !version.supports_switching()) {
            return Err(cannot(&format!(
                "GOPROXY has no module proxy, and {installed} can't download toolchains"
            )));
        }
        let finished = self
            .children
            .run(Invocation {
                name: "go",
                program,
                arguments: vec!["version".into()],
                directory: &self.scratch,
                environment: vec![("GOTOOLCHAIN", version.to_owned()), ("GOWORK", "off".into())],
                max_silence: None,
                on_line: None,
            })
            .await?;
        match toolchain::find_installed(&self.cache(), module) {
            Some(ready) if finished.status.success() => Ok(ready),
            _ => Err(cannot("the go command failed").output(finished.stderr)),
        }
    }

    /// The go line of RoadRunner's go.mod, and the toolchain that the go command would select for it.
    async fn release_toolchain(&self, release: Option<&ModuleVersion>) -> Option<(String, Option<String>)> {
        let release = release?;
        let cached = self
            .cache()
            .path(release, CacheFile::Mod)
            .ok()
            .and_then(|path| std::fs::read_to_string(path).ok());
        let text = match (cached, &self.fetcher) {
            (Some(text), _) => text,
            (None, Some(fetcher)) => {
                let reading = fetcher.unverified_go_mod(release);
                until_cancelled(&self.children.cancel, reading).await.ok()?.ok()?
            }
            (None, None) => return None,
        };
        let go_mod = GoMod::parse(&text).ok()?;
        let toolchain = go_mod.preferred_toolchain();
        Some((go_mod.go?, toolchain))
    }

    /// The newest release, or without a fetcher the newest cached one.
    async fn newest(&self) -> Result<String, Error> {
        let GoTarget { os, arch } = GoTarget::host();
        let versions = match &self.fetcher {
            Some(fetcher) => {
                let listing = fetcher.versions(toolchain::TOOLCHAIN_MODULE);
                let listed = until_cancelled(&self.children.cancel, listing).await?;
                listed.map_err(|error| download_error("Go", error))?
            }
            None => self.cached(),
        };
        let reason = match (&self.fetcher, self.offline) {
            (Some(_), _) => "no proxy has one",
            (None, true) => "none is cached; `--offline` forbids downloading one",
            (None, false) => "GOPROXY has no module proxy",
        };
        toolchain::newest_release(&versions, &os, &arch, |_| true).ok_or_else(|| {
            Error::build(format!("no go command for {os}/{arch} on the PATH: {reason}"))
                .help("install Go from https://go.dev/dl/ and put its bin directory on the PATH")
        })
    }

    /// The versions of the cached toolchains.
    fn cached(&self) -> Vec<String> {
        let prefix = format!("{}@", toolchain::TOOLCHAIN_MODULE);
        let folder = self.cache().root().join(&prefix);
        let (Some(folder), Some(prefix)) = (folder.parent(), prefix.rsplit('/').next()) else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(prefix).map(str::to_owned))
            .collect()
    }
}

fn module(version: &str) -> ModuleVersion {
    let GoTarget { os, arch } = GoTarget::host();
    toolchain::toolchain_module(version, &os, &arch)
}

/// `go1.26.4` → `Go 1.26.4 (linux/amd64)`
fn display_name(version: &str) -> String {
    format!("Go {} ({})", version.trim_start_matches("go"), GoTarget::host())
}

fn mismatch(what: &str, found: &str, expected: &str) -> Error {
    checksum_mismatch(what, &format!("expected {expected}\nfound    {found}"))
}

fn download_error(what: &str, error: DownloadError) -> Error {
    let unverified = matches!(error, DownloadError::Database { .. });
    let tried = match unserved(what, error) {
        Ok(tried) => ProxyAttempt::join(&tried),
        Err(error) => return error,
    };
    if unverified {
        return Error::build(format!("failed to verify {what}: {tried}"))
            .fault(Blame::Sources)
            .help("vx must reach the checksum database, through GOPROXY or directly; without one, GOSUMDB=off trusts the first use and records its sum in velox.lock");
    }
    let error = Error::build(format!("failed to download {what}: {tried}")).fault(Blame::Sources);
    advice(&tried)
        .into_iter()
        .fold(error, |error, advice| error.help(advice))
        .help("install that Go from https://go.dev/dl/, or name a proxy in GOPROXY that has it")
}

/// Whether a toolchain is a release of a minor version (`1.26`).
fn is_of_minor(toolchain: &str, minor: &str) -> bool {
    match (GoVersion::from_toolchain_name(toolchain), minor.parse::<GoVersion>()) {
        (Some(toolchain), Ok(minor)) => toolchain.is_release() && toolchain.is_same_minor(&minor),
        _ => false,
    }
}
