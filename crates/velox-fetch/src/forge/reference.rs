/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeCommit {
    /// The full id, 40 hexadecimal digits.
    pub id: String,
    /// The committer's date, in seconds since 1970.
    pub time: i64,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgeTag {
    /// Its name, without `refs/tags/`.
    pub name: String,
    /// The full id of the commit that it names.
    pub commit: String,
}

/// A resolved ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRef {
    /// The commit.
    pub commit: ForgeCommit,
    /// The tag's name, where the ref is a tag.
    pub tag: Option<String>,
}
