//! Repository data for both forges, read with git.

use crate::Repo;

pub(super) struct CommitInfo {
    pub(super) id: String,
    /// Committer date: RFC 3339, in UTC with a `Z`.
    pub(super) date: String,
}

pub(super) struct TagInfo {
    /// Name without `refs/tags/`.
    pub(super) name: String,
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
    let date = "--date=format-local:%Y-%m-%dT%H:%M:%SZ";
    let line = text(repo, ["log", "--max-count=1", "--format=%H %cd", date, id])?;
    let (id, date) = line.split_once(' ')?;
    Some(CommitInfo { id: id.to_owned(), date: date.to_owned() })
}

/// All tags, by name.
pub(super) fn tags(repo: &Repo) -> Vec<TagInfo> {
    let format = "--format=%(refname:lstrip=2)%00%(objectname)%00%(*objectname)";
    let lines = text(repo, ["for-each-ref", format, "refs/tags/"]).unwrap_or_default();
    let tag = |line: &str| {
        let mut fields = line.split('\0').map(str::to_owned);
        let (name, object, peeled) = (fields.next()?, fields.next()?, fields.next()?);
        Some(TagInfo { name, commit: if peeled.is_empty() { object } else { peeled } })
    };
    lines.lines().filter_map(tag).collect()
}

pub(super) fn merge_base(repo: &Repo, one: &str, other: &str) -> Option<String> {
    text(repo, ["merge-base", one, other])
}

/// A `tar.gz`, whose names begin with `root/`.
pub(super) fn archive(repo: &Repo, commit: &str, root: &str) -> Option<Vec<u8>> {
    output(repo, ["archive", "--format=tar.gz", &format!("--prefix={root}/"), commit])
}
