use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use tempfile::TempDir;

use crate::localhost::locked;

/// The time of a repository's first commit, unless set with [`Repo::at`]: 2024-01-01 00:00:00 UTC.
pub const FIRST_COMMIT: i64 = 1_704_067_200;

/// A git repository written by a test.
///
/// Files are staged with [`file`](Repo::file) and similar methods and committed with
/// [`commit`](Repo::commit). Author, committer and dates are fixed, so the same calls give the same commit
/// ids on every machine. Clones share the repository, whose directory is removed with the last clone.
///
/// ```
/// # use velox_testkit::Repo;
/// let repo = Repo::new().file("go.mod", "module example.com/m\n").commit("first").tag("v1.0.0");
/// assert_eq!(repo.commit_id("v1.0.0"), repo.head());
/// ```
///
/// An error of the fixture, such as a missing ref, panics with git's message.
#[derive(Clone)]
pub struct Repo {
    inner: Arc<RepoInner>,
}

struct RepoInner {
    // Removed when dropped.
    _dir: TempDir,
    git_dir: PathBuf,
    state: Mutex<RepoState>,
    access: Mutex<RepoAccess>,
    address: OnceLock<String>,
}

struct RepoState {
    branch: String,
    // Unix seconds of the next commit or annotated tag.
    clock: i64,
    /// The new content by path; `None` removes it.
    staged: BTreeMap<String, Option<Vec<u8>>>,
}

/// A repository's metadata on its forge.
#[derive(Clone, Default)]
pub(crate) struct RepoAccess {
    pub(crate) id: Option<u64>,
    pub(crate) private: bool,
    pub(crate) tokens: Vec<String>,
}

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repo").field("git_dir", &self.inner.git_dir).finish_non_exhaustive()
    }
}

impl Repo {
    /// Creates an empty repository in its own directory; the default branch is `main`.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("testkit-repo-").tempdir().expect("a temporary directory");
        let git_dir = dir.path().join("repository.git");
        run(git().args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&git_dir), &[]);
        let repo = Self {
            inner: Arc::new(RepoInner {
                _dir: dir,
                git_dir,
                state: Mutex::new(RepoState {
                    branch: "main".to_owned(),
                    clock: FIRST_COMMIT,
                    staged: BTreeMap::new(),
                }),
                access: Mutex::default(),
                address: OnceLock::new(),
            }),
        };
        // As on github.com and gitlab.com, any commit may be fetched by its id, and partial clones work:
        // https://git-scm.com/docs/git-config#Documentation/git-config.txt-uploadpackallowAnySHA1InWant
        for key in ["allowTipSHA1InWant", "allowReachableSHA1InWant", "allowAnySHA1InWant", "allowFilter"] {
            repo.git(["config", &format!("uploadpack.{key}"), "true"]);
        }
        repo
    }

    /// Stages a file for the next commit.
    pub fn file(&self, path: impl Into<String>, content: impl AsRef<[u8]>) -> Self {
        self.stage(path, Some(content.as_ref().to_vec()))
    }

    /// Stages many files for the next commit.
    pub fn files<P: Into<String>, C: AsRef<[u8]>>(&self, files: impl IntoIterator<Item = (P, C)>) -> Self {
        for (path, content) in files {
            self.file(path, content);
        }
        self.clone()
    }

    /// Stages the removal of a file or folder for the next commit.
    pub fn remove(&self, path: impl Into<String>) -> Self {
        self.stage(path, None)
    }

    fn stage(&self, path: impl Into<String>, content: Option<Vec<u8>>) -> Self {
        self.state().staged.insert(path.into(), content);
        self.clone()
    }

    /// Sets the Unix time of the next commit. Each further commit and annotated tag is one minute later.
    pub fn at(&self, unix_seconds: i64) -> Self {
        self.state().clock = unix_seconds;
        self.clone()
    }

    /// Commits the staged changes, if any, on the current branch.
    pub fn commit(&self, message: &str) -> Self {
        // One git process for any number of files: https://git-scm.com/docs/git-fast-import
        let mut state = self.state();
        let branch = format!("refs/heads/{}", state.branch);
        let mut stream = format!(
            "commit {branch}\nauthor {who}\ncommitter {who}\ndata {}\n{message}\n",
            message.len(),
            who = signature(state.clock),
        )
        .into_bytes();
        if self.find(&branch).is_some() {
            stream.extend_from_slice(format!("from {branch}^0\n").as_bytes());
        }
        for (path, content) in std::mem::take(&mut state.staged) {
            match content {
                Some(content) => {
                    stream.extend_from_slice(
                        format!("M 100644 inline {path}\ndata {}\n", content.len()).as_bytes(),
                    );
                    stream.extend_from_slice(&content);
                    stream.push(b'\n');
                }
                None => stream.extend_from_slice(format!("D {path}\n").as_bytes()),
            }
        }
        state.clock += 60;
        drop(state);
        run(self.command().args(["fast-import", "--quiet"]), &stream);
        self.clone()
    }

    /// Creates or moves a lightweight tag at the current branch's newest commit.
    pub fn tag(&self, name: &str) -> Self {
        self.git(["update-ref", &format!("refs/tags/{name}"), &self.head()]);
        self.clone()
    }

    /// Creates or moves an annotated tag at the current branch's newest commit.
    pub fn annotated_tag(&self, name: &str, message: &str) -> Self {
        let mut state = self.state();
        let clock = state.clock;
        state.clock += 60;
        let head = self.commit_id(&format!("refs/heads/{}", state.branch));
        drop(state);
        let object =
            format!("object {head}\ntype commit\ntag {name}\ntagger {}\n\n{message}\n", signature(clock));
        let id = text(run(self.command().args(["mktag"]), object.as_bytes()));
        self.git(["update-ref", &format!("refs/tags/{name}"), &id]);
        self.clone()
    }

    /// Creates a branch at the current branch's newest commit and checks it out.
    pub fn branch(&self, name: &str) -> Self {
        self.git(["update-ref", &format!("refs/heads/{name}"), &self.head()]);
        self.checkout(name)
    }

    /// Checks out an existing branch.
    pub fn checkout(&self, branch: &str) -> Self {
        self.commit_id(&format!("refs/heads/{branch}"));
        branch.clone_into(&mut self.state().branch);
        self.clone()
    }

    /// Makes `name` the default branch (initially `main`), and checks it out if there is no commit yet.
    pub fn default_branch(&self, name: &str) -> Self {
        let head = format!("refs/heads/{name}");
        self.git(["symbolic-ref", "HEAD", &head]);
        let mut state = self.state();
        if self.find(&format!("refs/heads/{}", state.branch)).is_none() {
            name.clone_into(&mut state.branch);
        }
        drop(state);
        self.clone()
    }

    /// The full id of the current branch's newest commit.
    pub fn head(&self) -> String {
        let branch = self.state().branch.clone();
        self.commit_id(&format!("refs/heads/{branch}"))
    }

    /// The full commit id of a revision in [git's notation](https://git-scm.com/docs/gitrevisions).
    pub fn commit_id(&self, revision: &str) -> String {
        self.find(revision).unwrap_or_else(|| panic!("{revision}: no such commit in {self:?}"))
    }

    /// A file's content at a revision.
    pub fn read(&self, revision: &str, path: &str) -> Option<Vec<u8>> {
        let output =
            self.command().args(["cat-file", "blob", &format!("{revision}:{path}")]).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    /// Runs git in this repository; returns its output without the final line break.
    pub fn git<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> String {
        text(run(self.command().args(arguments), &[]))
    }

    /// The (bare) repository's directory.
    pub fn git_dir(&self) -> &Path {
        &self.inner.git_dir
    }

    /// The URL for `git clone`: the forge's URL if it is published there, else a `file://` URL.
    pub fn url(&self) -> String {
        self.inner
            .address
            .get()
            .cloned()
            .unwrap_or_else(|| format!("file://{}", self.inner.git_dir.display()))
    }

    /// Sets the numeric project id of GitLab, which GitHub shows too.
    pub fn id(&self, id: u64) -> Self {
        self.access_mut().id = Some(id);
        self.clone()
    }

    /// Makes the repository private: its forge requires one of its tokens.
    pub fn private(&self) -> Self {
        self.access_mut().private = true;
        self.clone()
    }

    /// Adds a token with which the forge's user can read this repository.
    pub fn token(&self, token: &str) -> Self {
        self.access_mut().tokens.push(token.to_owned());
        self.clone()
    }

    pub(crate) fn access(&self) -> RepoAccess {
        self.access_mut().clone()
    }

    pub(crate) fn set_address(&self, url: String) {
        // The first forge that publishes a repository determines its URL.
        let _ = self.inner.address.set(url);
    }

    pub(crate) fn find(&self, revision: &str) -> Option<String> {
        let output = self
            .command()
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")])
            .output()
            .ok()?;
        output.status.success().then(|| text(output.stdout))
    }

    /// A git command in this repository, without the user's configuration.
    pub(crate) fn command(&self) -> Command {
        let mut command = git();
        command.arg("--git-dir").arg(&self.inner.git_dir);
        command
    }

    fn state(&self) -> MutexGuard<'_, RepoState> {
        locked(&self.inner.state)
    }

    fn access_mut(&self) -> MutexGuard<'_, RepoAccess> {
        locked(&self.inner.access)
    }
}

/// A git command without the user's and system's configuration and without the caller's repository.
pub(crate) fn git() -> Command {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"] {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_COUNT", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    command
}

fn signature(unix_seconds: i64) -> String {
    format!("A Developer <dev@example.com> {unix_seconds} +0000")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("failed to start git: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // If git exits early, its status says why.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().expect("git's output");
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
