//! GitHub, GitLab and git: from a ref to a commit, its files and its tree.
