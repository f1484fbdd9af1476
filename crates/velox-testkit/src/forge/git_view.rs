//! Repository data for both forges, read with git.

use crate::Repo;

pub(super) struct CommitInfo {
    pub(super) id: String,
    pub(super) author: String,
    pub(super) email: String,
    /// Committer date: RFC 3339, in UTC with a `Z`.
    pub(super) date: String,
    pub(super) message: String,
}

pub(super) struct TagInfo {
    /// Name without `refs/tags/`.
    pub(super) name: String,
    pub(super) object: String,
    /// The tagged commit.
    pub(super) commit: String,
}

fn output<const N: usize>(repo: &Repo, arguments: [&str; N]) -> Option<Vec<u8>> {
    let output = repo.command().args(arguments).output().ok()?;
    output.status.success().then_some(output.stdout)
}

fn text<const N: usize>(repo: &Repo, arguments: [&str; N]) -> Option<String> {
    Some(String::from_utf8_lossy(&output(repo, arguments)?).trim_end().to_owned())
}

/// The branch of `HEAD`.
pub(super) fn default_branch(repo: &Repo) -> String {
    text(repo, ["symbolic-ref", "--short", "HEAD"]).unwrap_or_else(|| "main".to_owned())
}

/// The commit of a branch, a tag, a full ref (`refs/` is optional), `HEAD`, or a commit id's first four or
/// more digits. Excludes revision notation (`main~1`), which forges don't accept here.
pub(super) fn resolve(repo: &Repo, name: &str) -> Option<String> {
    // The few rules of https://git-scm.com/docs/git-check-ref-format that exclude revision notation.
    let is_ref = !name.is_empty()
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(['~', '^', ':', '?', '*', '[', '\\', ' ']);
    if name == "HEAD" || is_ref && name.starts_with("refs/") {
        return repo.find(name);
    }
    let is_id = (4..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let prefixes = if is_ref { &["refs/heads/", "refs/tags/", "refs/"][..] } else { &[] };
    let found = prefixes.iter().find_map(|prefix| repo.find(&format!("{prefix}{name}")));
    found.or_else(|| is_id.then(|| repo.find(name)).flatten())
}

pub(super) fn commit(repo: &Repo, id: &str) -> Option<CommitInfo> {
    let format = "--format=%H%x00%an%x00%ae%x00%cd%x00%B";
    let date = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
    let line = text(repo, ["log", "--max-count=1", format, date, id])?;
    let mut fields = line.splitn(5, '\0').map(str::to_owned);
    Some(CommitInfo {
        id: fields.next()?,
        author: fields.next()?,
        email: fields.next()?,
        date: fields.next()?,
        message: fields.next()?,
    })
}

/// All tags, by name.
pub(super) fn tags(repo: &Repo) -> Vec<TagInfo> {
    let format = "--format=%(refname:lstrip=2)%00%(objectname)%00%(*objectname)";
    let lines = text(repo, ["for-each-ref", format, "refs/tags/"]).unwrap_or_default();
    let tag = |line: &str| {
        let mut fields = line.split('\0').map(str::to_owned);
        let (name, object, peeled) = (fields.next()?, fields.next()?, fields.next()?);
        let commit = if peeled.is_empty() { object.clone() } else { peeled };
        Some(TagInfo { name, object, commit })
    };
    lines.lines().filter_map(tag).collect()
}

pub(super) fn merge_base(repo: &Repo, one: &str, other: &str) -> Option<String> {
    text(repo, ["merge-base", one, other])
}

/// The number of commits in `to` that are not in `from`.
pub(super) fn count(repo: &Repo, from: &str, to: &str) -> usize {
    let count = text(repo, ["rev-list", "--count", &format!("{from}..{to}")]);
    count.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// An archive in `format` (`zip` or `tar.gz`), whose names begin with `root/`.
pub(super) fn archive(repo: &Repo, commit: &str, format: &str, root: &str) -> Option<Vec<u8>> {
    output(repo, ["archive", &format!("--format={format}"), &format!("--prefix={root}/"), commit])
}
