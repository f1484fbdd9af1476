use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use super::{ForgeCommit, ForgeError, ForgeTag, ResolvedRef, archive, backend::Backend};
use crate::redact::Redactor;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);

/// The settings for running the git program.
#[derive(Clone)]
pub struct GitOptions {
    /// The git program.
    pub program: PathBuf,
    /// The complete environment of the child process.
    pub environment: Vec<(String, SecretString)>,
    /// The directory for temporary repositories; created if missing.
    pub scratch: PathBuf,
}

/// A repository accessed with the git program and its keys and credentials.
pub(crate) struct Git {
    options: GitOptions,
    url: String,
    /// A bare repository for fetched objects.
    directory: PathBuf,
}

impl Git {
    pub(crate) fn new(options: GitOptions, url: String) -> Self {
        let name: String = url.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let directory = options.scratch.join(name);
        Self { options, url, directory }
    }

    async fn refs(&self) -> Result<Vec<(String, String)>, ForgeError> {
        self.init().await?;
        let listing = self.run(&["ls-remote", "--quiet", "--end-of-options", &self.url]).await?;
        Ok(listing
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(id, name)| (name.to_owned(), id.to_owned()))
            .collect())
    }

    async fn init(&self) -> Result<(), ForgeError> {
        if self.directory.join("HEAD").exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.directory).map_err(|error| ForgeError::Io {
            what: format!("failed to create `{}`", self.directory.display()),
            error,
        })?;
        self.run(&["init", "--quiet", "--bare"]).await.map(drop)
    }

    /// Fetches only this commit, or all refs if the server doesn't allow that.
    async fn fetch(&self, commit: &str) -> Result<(), ForgeError> {
        self.init().await?;
        let object = format!("{commit}^{{tree}}");
        if self.run(&["cat-file", "-e", &object]).await.is_ok() {
            return Ok(());
        }
        match self
            .run(&["fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", &self.url, commit])
            .await
        {
            Ok(_) => Ok(()),
            Err(_) => self.fetch_all().await,
        }
    }

    async fn fetch_all(&self) -> Result<(), ForgeError> {
        self.init().await?;
        let shallow = self.directory.join("shallow").exists();
        let mut arguments = vec!["fetch", "--quiet", "--force"];
        if shallow {
            arguments.push("--unshallow");
        }
        arguments.extend([
            "--end-of-options",
            &self.url,
            "refs/heads/*:refs/heads/*",
            "refs/tags/*:refs/tags/*",
        ]);
        self.run(&arguments).await.map(drop)
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, ForgeError> {
        self.bytes(arguments).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn bytes(&self, arguments: &[&str]) -> Result<Vec<u8>, ForgeError> {
        let what =
            arguments.iter().find(|argument| !argument.starts_with('-') && !argument.contains('=')).copied();
        let what = what.unwrap_or("git");
        let mut command = Command::new(&self.options.program);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.options.environment.iter().map(|(name, value)| (name, value.expose_secret())))
            .env("GIT_DIR", &self.directory)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output())
            .await
            .map_err(|_| self.failed(what, "timed out after 10 minutes"))?
            .map_err(|error| self.failed(what, &error.to_string()))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(self.failed(what, String::from_utf8_lossy(&output.stderr).trim()))
        }
    }

    fn failed(&self, what: &str, why: &str) -> ForgeError {
        ForgeError::Git { what: what.to_owned(), why: Redactor::default().redact(why) }
    }
}

#[async_trait(?Send)]
impl Backend for Git {
    fn host(&self) -> String {
        url::Url::parse(&self.url)
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_else(|| "git".to_owned())
    }

    async fn resolve(&self, reference: Option<&str>) -> Result<ResolvedRef, ForgeError> {
        let not_found = |what: String| ForgeError::NotFound { what, host: self.host() };
        if reference
            .is_some_and(|reference| reference.starts_with('-') || reference.contains(char::is_whitespace))
        {
            return Err(not_found(reference.unwrap_or_default().to_owned()));
        }
        let asked = reference.unwrap_or("HEAD");
        let refs = self.refs().await?;
        let named = |name: &str| refs.iter().rev().find(|(known, _)| known == name).map(|(_, id)| id.clone());
        // `NAME^{}` is the commit of an annotated tag.
        let tag = named(&format!("refs/tags/{asked}^{{}}")).or_else(|| named(&format!("refs/tags/{asked}")));
        let branch =
            named(&format!("refs/heads/{asked}")).or_else(|| named(asked).filter(|_| asked == "HEAD"));
        let id = match tag.clone().or(branch) {
            Some(id) => id,
            None if asked.len() >= 4 && asked.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                self.fetch_all().await?;
                let commit = format!("{asked}^{{commit}}");
                let answer =
                    self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await;
                answer.map_err(|_| not_found(format!("{asked} in {}", self.url)))?.trim().to_owned()
            }
            None => return Err(not_found(format!("{asked} in {}", self.url))),
        };
        self.fetch(&id).await?;
        let time = self.run(&["show", "--no-patch", "--format=%ct", "--end-of-options", &id]).await?;
        let time = time.trim().parse().map_err(|_| self.failed("show", "commit without a date"))?;
        Ok(ResolvedRef { commit: ForgeCommit { id, time }, tag: tag.map(|_| asked.to_owned()) })
    }

    async fn file(&self, path: &str, commit: &str) -> Result<Vec<u8>, ForgeError> {
        self.fetch(commit).await?;
        let object = format!("{commit}:{path}");
        let answer = self.bytes(&["show", "--end-of-options", &object]).await;
        answer
            .map_err(|_| ForgeError::NotFound { what: format!("{path} in {}", self.url), host: self.host() })
    }

    async fn tags(&self) -> Result<Vec<ForgeTag>, ForgeError> {
        let refs = self.refs().await?;
        let mut tags: Vec<ForgeTag> = Vec::new();
        for (name, commit) in refs {
            let Some(name) = name.strip_prefix("refs/tags/") else { continue };
            match name.strip_suffix("^{}") {
                // `NAME^{}` follows its tag.
                Some(_) => {
                    if let Some(last) = tags.last_mut() {
                        last.commit = commit;
                    }
                }
                None => tags.push(ForgeTag { name: name.to_owned(), commit }),
            }
        }
        Ok(tags)
    }

    async fn is_ancestor(&self, ancestor: &str, commit: &str) -> Result<bool, ForgeError> {
        self.fetch_all().await?;
        Ok(self.run(&["merge-base", "--is-ancestor", ancestor, commit]).await.is_ok())
    }

    /// Unknown because only git has the credentials, so always false.
    async fn is_public(&self) -> Result<bool, ForgeError> {
        Ok(false)
    }

    async fn tree(&self, commit: &str, into: &Path) -> Result<(), ForgeError> {
        self.fetch(commit).await?;
        // Disable attributes that change file content, as the go command does.
        let attributes = self.directory.join("info/attributes");
        let io =
            |error| ForgeError::Io { what: format!("failed to write `{}`", attributes.display()), error };
        std::fs::create_dir_all(self.directory.join("info")).map_err(io)?;
        std::fs::write(&attributes, "* -export-subst -export-ignore\n").map_err(io)?;
        let tar = self
            .bytes(&[
                "-c",
                "core.autocrlf=input",
                "-c",
                "core.eol=lf",
                "archive",
                "--format=tar",
                "--end-of-options",
                commit,
            ])
            .await?;
        archive::unpack(tar.as_slice(), into, 0).map_err(|refused| refused.at(self.host()))
    }
}
