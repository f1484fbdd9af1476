/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeCommit {
    /// The full id, 40 hexadecimal digits.
    pub id: String,
    /// The committer date in Unix seconds.
    pub time: i64,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeTag {
    /// The name, without `refs/tags/`.
    pub name: String,
    /// The full id of its commit.
    pub commit: String,
}

/// A resolved ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRef {
    /// The commit.
    pub commit: ForgeCommit,
    /// The tag's name, if the ref is a tag.
    pub tag: Option<String>,
}
