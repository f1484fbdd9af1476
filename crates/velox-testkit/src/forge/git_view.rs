//! What both forges' answers need to know of a repository, asked of git.

use crate::Repo;

pub(super) struct CommitInfo {
    pub(super) id: String,
    pub(super) tree: String,
    pub(super) parents: Vec<String>,
    pub(super) author: GitPerson,
    pub(super) committer: GitPerson,
    pub(super) message: String,
}

pub(super) struct GitPerson {
    pub(super) name: String,
    pub(super) email: String,
    /// RFC 3339, in UTC with a `Z`.
    pub(super) date: String,
}

pub(super) struct RefInfo {
    /// Without `refs/heads/` or `refs/tags/`.
    pub(super) name: String,
    /// `commit`, or `tag` for an annotated one.
    pub(super) kind: String,
    pub(super) object: String,
    /// The commit behind it.
    pub(super) commit: String,
}

pub(super) struct TreeEntry {
    pub(super) mode: String,
    /// `blob`, `tree` or `commit`.
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) size: Option<u64>,
    /// From the repository's root.
    pub(super) path: String,
}

impl TreeEntry {
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

fn ask<const N: usize>(repo: &Repo, arguments: [&str; N]) -> Option<Vec<u8>> {
    let output = repo.command().args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}

fn ask_text<const N: usize>(repo: &Repo, arguments: [&str; N]) -> Option<String> {
    Some(String::from_utf8_lossy(&ask(repo, arguments)?).into_owned())
}

/// The branch that `HEAD` names.
pub(super) fn default_branch(repo: &Repo) -> String {
    ask_text(repo, ["symbolic-ref", "--short", "HEAD"])
        .map_or_else(|| "main".to_owned(), |name| name.trim_end().to_owned())
}

/// The commit of a branch, a tag, a full ref's name (`refs/` may be missing), `HEAD`, or a commit id's first four
/// or more digits. Not git's own notation (`main~1`), which no forge takes here.
pub(super) fn resolve(repo: &Repo, name: &str) -> Option<String> {
    if name == "HEAD" {
        return repo.find("HEAD");
    }
    if !is_ref_name(name) {
        return None;
    }
    ["refs/heads/", "refs/tags/", "refs/", ""]
        .iter()
        .find_map(|prefix| match *prefix {
            "" if !name.starts_with("refs/") => None,
            prefix => repo.find(&format!("{prefix}{name}")),
        })
        .or_else(|| resolve_id(repo, name))
}

pub(super) fn resolve_id(repo: &Repo, id: &str) -> Option<String> {
    let is_id = (4..=40).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| repo.find(id)).flatten()
}

/// The few rules of <https://git-scm.com/docs/git-check-ref-format> that keep revision notation out.
fn is_ref_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(['~', '^', ':', '?', '*', '[', '\\', ' '])
}

const COMMIT_FORMAT: &str = "--format=%H%x00%T%x00%P%x00%an%x00%ae%x00%ad%x00%cn%x00%ce%x00%cd%x00%B%x1e";

/// Commits from a commit on, newest first; `path` (or `""`) narrows them to those that touch it.
pub(super) fn log(repo: &Repo, id: &str, path: &str, skip: usize, limit: usize) -> Vec<CommitInfo> {
    let (skip, limit) = (format!("--skip={skip}"), format!("--max-count={limit}"));
    let date = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
    let text = if path.is_empty() {
        ask_text(repo, ["log", COMMIT_FORMAT, date, &skip, &limit, id])
    } else {
        ask_text(repo, ["--literal-pathspecs", "log", COMMIT_FORMAT, date, &skip, &limit, id, "--", path])
    };
    text.unwrap_or_default().split('\u{1e}').filter_map(parse_commit).collect()
}

pub(super) fn commit(repo: &Repo, id: &str) -> Option<CommitInfo> {
    log(repo, id, "", 0, 1).into_iter().next()
}

fn parse_commit(text: &str) -> Option<CommitInfo> {
    let mut fields = text.trim_start_matches('\n').split('\0').map(str::to_owned);
    Some(CommitInfo {
        id: fields.next().filter(|id| !id.is_empty())?,
        tree: fields.next()?,
        parents: fields.next()?.split_whitespace().map(str::to_owned).collect(),
        author: GitPerson { name: fields.next()?, email: fields.next()?, date: fields.next()? },
        committer: GitPerson { name: fields.next()?, email: fields.next()?, date: fields.next()? },
        message: fields.next()?.trim_end().to_owned(),
    })
}

/// The refs below `refs/heads/` or `refs/tags/` whose name begins with `start`, by name.
pub(super) fn refs(repo: &Repo, prefix: &str, start: &str) -> Vec<RefInfo> {
    let format = "--format=%(refname)%00%(objecttype)%00%(objectname)%00%(*objectname)";
    ask_text(repo, ["for-each-ref", format, prefix])
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\0');
            let name = fields.next()?.strip_prefix(prefix)?;
            let (kind, object, peeled) = (fields.next()?, fields.next()?, fields.next()?);
            name.starts_with(start).then(|| RefInfo {
                name: name.to_owned(),
                kind: kind.to_owned(),
                object: object.to_owned(),
                commit: if peeled.is_empty() { object } else { peeled }.to_owned(),
            })
        })
        .collect()
}

/// What a path is at a commit. The root (`""`) is the commit's tree.
pub(super) fn entry(repo: &Repo, commit: &str, path: &str) -> Option<TreeEntry> {
    if path.is_empty() {
        let id = ask_text(repo, ["rev-parse", &format!("{commit}^{{tree}}")])?.trim_end().to_owned();
        let (mode, kind) = ("040000".to_owned(), "tree".to_owned());
        return Some(TreeEntry { mode, kind, id, size: None, path: String::new() });
    }
    tree(repo, &["ls-tree", "-lz", "--full-tree", commit, "--", path])
        .into_iter()
        .find(|entry| entry.path == path)
}

/// What a folder holds at a commit.
pub(super) fn list(repo: &Repo, commit: &str, path: &str, recursive: bool) -> Vec<TreeEntry> {
    let of = format!("{commit}:{path}");
    let flags = if recursive { "-lzrt" } else { "-lz" };
    let mut entries = tree(repo, &["ls-tree", flags, "--full-tree", "--end-of-options", &of]);
    if !path.is_empty() {
        for entry in &mut entries {
            entry.path = format!("{path}/{}", entry.path);
        }
    }
    entries
}

fn tree(repo: &Repo, arguments: &[&str]) -> Vec<TreeEntry> {
    let Ok(output) = repo.command().args(arguments).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter_map(|line| {
            let (about, path) = line.split_once('\t')?;
            let mut about = about.split_whitespace().map(str::to_owned);
            Some(TreeEntry {
                mode: about.next()?,
                kind: about.next()?,
                id: about.next()?,
                size: about.next()?.parse().ok(),
                path: path.to_owned(),
            })
        })
        .collect()
}

pub(super) fn blob(repo: &Repo, id: &str) -> Option<Vec<u8>> {
    ask(repo, ["cat-file", "blob", id])
}

/// The message of an annotated tag.
pub(super) fn tag_message(repo: &Repo, object: &str) -> String {
    let text = ask_text(repo, ["cat-file", "tag", object]).unwrap_or_default();
    text.split_once("\n\n").map_or_else(String::new, |(_, message)| message.trim_end().to_owned())
}

pub(super) fn merge_base(repo: &Repo, one: &str, other: &str) -> Option<String> {
    Some(ask_text(repo, ["merge-base", one, other])?.trim_end().to_owned())
}

/// How many commits `to` has that `from` has not.
pub(super) fn count(repo: &Repo, from: &str, to: &str) -> usize {
    ask_text(repo, ["rev-list", "--count", &format!("{from}..{to}")])
        .and_then(|text| text.trim_end().parse().ok())
        .unwrap_or(0)
}

/// The commits that `to` has and `from` has not, oldest first.
pub(super) fn between(repo: &Repo, from: &str, to: &str) -> Vec<CommitInfo> {
    ask_text(repo, ["rev-list", "--reverse", &format!("{from}..{to}")])
        .unwrap_or_default()
        .lines()
        .filter_map(|id| commit(repo, id))
        .collect()
}

/// Status letter, path, added and deleted lines of each file that differs.
pub(super) fn changes(repo: &Repo, from: &str, to: &str) -> Vec<(char, String, u64, u64)> {
    let numbers =
        ask_text(repo, ["diff-tree", "-r", "-z", "--no-renames", "--numstat", from, to]).unwrap_or_default();
    let letters = ask_text(repo, ["diff-tree", "-r", "-z", "--no-renames", "--name-status", from, to])
        .unwrap_or_default();
    let letters: Vec<&str> = letters.split('\0').collect();
    numbers
        .split('\0')
        .zip(letters.chunks(2))
        .filter_map(|(line, letter)| {
            let mut fields = line.splitn(3, '\t');
            let added = fields.next()?.parse().unwrap_or(0);
            let deleted = fields.next()?.parse().unwrap_or(0);
            let letter = letter.first()?.chars().next()?;
            Some((letter, fields.next()?.to_owned(), added, deleted))
        })
        .collect()
}

/// `format` is `zip`, `tar` or `tar.gz`; every name begins with `root/`; `path` (or `""`) narrows it to a folder.
pub(super) fn archive(repo: &Repo, commit: &str, format: &str, root: &str, path: &str) -> Option<Vec<u8>> {
    let (format, prefix) = (format!("--format={format}"), format!("--prefix={root}/"));
    if path.is_empty() {
        ask(repo, ["archive", &format, &prefix, commit])
    } else {
        ask(repo, ["--literal-pathspecs", "archive", &format, &prefix, commit, "--", path])
    }
}
