//! Repositories on GitHub, GitLab and git servers: refs, commits, files and trees.

mod archive;
mod backend;
mod client;
mod error;
mod git;
mod git_access;
mod github;
mod gitlab;
mod reference;
mod repository;
mod token;

pub use self::{
    client::{ForgeClient, OnRateLimitWait},
    error::ForgeError,
    git::GitOptions,
    git_access::{GitAccess, TokenKind, has_url_rewrite, ssh_agent_has_keys, ssh_agent_key_count},
    gitlab::GitLabProject,
    reference::{ForgeCommit, ForgeTag, ResolvedRef},
    repository::RemoteRepository,
    token::{RateLimit, TokenInfo, github_token_info, gitlab_token_info},
};
