use std::{io, path::PathBuf};

use velox_fetch::http::HttpClientError;

use crate::{BlobDigest, CredentialError, InvalidReference};

/// What a request wants to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Read.
    Pull,
    /// Read and write.
    Push,
}

/// A failed request to a registry, or an invalid image. `host` is the registry, `what` the manifest or blob that was
/// requested, `name` that of an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum Error {
    /// The HTTP client can't be created.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// The reference is invalid.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// Docker's configuration is unreadable, or a credential helper failed.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// No connection, a timeout, or a response that ended early.
    #[error("request to registry {host} failed: {reason}")]
    Network { host: String, reason: String },
    /// The certificate of the registry isn't trusted.
    #[error("request to registry {host} failed: {reason}")]
    Certificate { host: String, reason: String },
    /// The credentials are missing or not sufficient.
    #[error("access denied: {}", denied(host, repository, *access, *had_credentials))]
    Unauthorized { host: String, repository: String, access: RegistryAccess, had_credentials: bool },
    /// The registry doesn't have it.
    #[error("{what} not found in registry {host}")]
    NotFound { host: String, what: String },
    /// The registry limits requests and asks for a longer wait than is allowed. `retry_after`: seconds.
    #[error("rate limit exceeded for registry {host}{}", retry_after.map(|seconds| format!("; it asks to wait {seconds} s")).unwrap_or_default())]
    RateLimited { host: String, retry_after: Option<u64> },
    /// Another HTTP status, with the registry's own message.
    #[error("registry {host} answered {what} with status {status}{}", message.as_ref().map(|message| format!(": {message}")).unwrap_or_default())]
    Status { host: String, what: String, status: u16, message: Option<String> },
    /// The content isn't what its digest says.
    #[error(
        "verification failed: registry {host} sent other content for {what}: expected {expected}, got {actual}"
    )]
    DigestMismatch { host: String, what: String, expected: BlobDigest, actual: BlobDigest },
    /// Other clients change a tag again and again.
    #[error("other clients keep overwriting {what}")]
    Contended { what: String },
    /// The response doesn't follow the protocol, or is too large.
    #[error("invalid response of registry {host}: {reason}")]
    InvalidResponse { host: String, reason: String },
    /// An image or an archive is invalid.
    #[error("invalid image {name}: {reason}")]
    InvalidImage { name: String, reason: String },
    /// An image isn't for a platform, but for others.
    #[error("{name} has no image for {platform}")]
    NoPlatform { name: String, platform: String, available: Vec<String> },
    /// A path can't be added to an image.
    #[error("failed to add `{}` to the image: {reason}", path.display())]
    Addition { path: PathBuf, reason: String },
    /// A local file can't be read or written.
    #[error("failed to access `{}`: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

fn denied(host: &str, repository: &str, access: RegistryAccess, had_credentials: bool) -> String {
    let verb = match access {
        RegistryAccess::Pull => "pull from",
        RegistryAccess::Push => "push to",
    };
    match had_credentials {
        true => format!("the credentials for {host} don't allow to {verb} {host}/{repository}"),
        false => format!("no credentials for {host} to {verb} {host}/{repository}"),
    }
}
