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

/// A failed request to a registry, or an invalid image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    Network {
        /// The registry.
        host: String,
        /// The cause.
        reason: String,
    },
    /// The credentials are missing or not sufficient.
    #[error("{}", unauthorized(host, repository, *access, *had_credentials))]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// The access that was denied.
        access: RegistryAccess,
        /// Whether credentials were sent.
        had_credentials: bool,
    },
    /// The registry doesn't have it.
    #[error("{what} not found in registry {host}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was requested.
        what: String,
    },
    /// The registry limits requests and asks for a longer wait than is allowed.
    #[error("rate limit exceeded for registry {host}{}", retry_after.map(|seconds| format!("; it asks to wait {seconds} s")).unwrap_or_default())]
    RateLimited {
        /// The registry.
        host: String,
        /// Seconds, if the registry told.
        retry_after: Option<u64>,
    },
    /// Another HTTP status.
    #[error("registry {host} answered {what} with status {status}{}", message.as_ref().map(|message| format!(": {message}")).unwrap_or_default())]
    Status {
        /// The registry.
        host: String,
        /// What was requested.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own message.
        message: Option<String>,
    },
    /// The content isn't what its digest says.
    #[error(
        "verification failed: registry {host} sent other content for {what}: expected {expected}, got {actual}"
    )]
    DigestMismatch {
        /// The registry.
        host: String,
        /// What was requested.
        what: String,
        /// The requested digest.
        expected: BlobDigest,
        /// The digest of the content.
        actual: BlobDigest,
    },
    /// The content is larger than allowed.
    #[error("registry {host} sent more than {limit} bytes for {what}")]
    TooLarge {
        /// The registry.
        host: String,
        /// What was requested.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The response doesn't follow the protocol.
    #[error("invalid response of registry {host}: {reason}")]
    InvalidResponse {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// An image or an archive is invalid.
    #[error("invalid image {name}: {reason}")]
    InvalidImage {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An image has no variant for a platform.
    #[error("{name} has no image for {platform}")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform.
        platform: String,
        /// The platforms that it has.
        available: Vec<String>,
    },
    /// An image is for another platform.
    #[error("{name} is an image for {actual}, not for {platform}")]
    OtherPlatform {
        /// The image.
        name: String,
        /// The wanted platform.
        platform: String,
        /// The platform that it is for.
        actual: String,
    },
    /// A path can't be added to an image.
    #[error("failed to add `{}` to the image: {reason}", path.display())]
    Addition {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A local file can't be read or written.
    #[error("failed to access `{}`: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

fn unauthorized(host: &str, repository: &str, access: RegistryAccess, had_credentials: bool) -> String {
    let verb = match access {
        RegistryAccess::Pull => "pull from",
        RegistryAccess::Push => "push to",
    };
    match had_credentials {
        true => {
            format!("access denied: the credentials for {host} don't allow to {verb} {host}/{repository}")
        }
        false => format!("access denied: no credentials for {host} to {verb} {host}/{repository}"),
    }
}
