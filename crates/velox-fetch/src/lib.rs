//! GitHub, GitLab and git: from a ref to a commit, its files and its tree.
//!
//! A [`Repository`] answers the same questions wherever it is; [`Http`] is how the two REST APIs are reached, with rate
//! limits, retries and redirects; [`GitAccess`] says what git and go need in their environment for the same tokens.

mod access;
mod archive;
mod error;
mod git;
mod github;
mod gitlab;
mod http;
mod redact;
mod repository;
mod token;

pub use access::{GitAccess, TokenUser, has_own_rewrite, ssh_agent_answers, ssh_agent_keys};
pub use error::ForgeError;
pub use git::GitOptions;
pub use gitlab::GitLabProject;
pub use http::{Http, HttpOptions, OnWait, ProxySettings};
pub use redact::Redactor;
pub use repository::{Commit, Repository, Resolved, Tag};
pub use token::{Quota, TokenFacts, about_github_token, about_gitlab_token};
