use crate::http::HttpClientError;

/// A failed forge request. Messages contain no token, URL query or URL credentials.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// The resource doesn't exist or the token has no access to it; forges don't distinguish the two.
    #[error("{what} not found on {host}")]
    NotFound {
        /// The resource.
        what: String,
        /// The forge's host.
        host: String,
    },
    /// The token is invalid or missing.
    #[error("{host} {}", if *had_token { "rejected the token" } else { "requires a token" })]
    Unauthorized {
        /// The forge's host.
        host: String,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// The rate limit is exceeded and its reset is too far away to wait for.
    #[error("rate limit exceeded for {host}{}", reset.and_then(at_utc).unwrap_or_default())]
    RateLimited {
        /// The forge's host.
        host: String,
        /// The time of the reset in Unix seconds, if known.
        reset: Option<i64>,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// Any other error status.
    #[error("{host} returned status {status} for {what}")]
    Status {
        /// The forge's host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The resource.
        what: String,
    },
    /// The connection failed.
    #[error("failed to reach {host}: {why}")]
    Network {
        /// The forge's host.
        host: String,
        /// The cause.
        why: String,
    },
    /// The response doesn't match the API.
    #[error("unexpected response from {host}: {why}")]
    InvalidResponse {
        /// The forge's host.
        host: String,
        /// The cause.
        why: String,
    },
    /// The archive is malformed or too large.
    #[error("invalid archive from {host}: {why}")]
    InvalidArchive {
        /// The forge's host.
        host: String,
        /// The cause.
        why: String,
    },
    /// A file can't be read or written.
    #[error("{what}: {error}")]
    Io {
        /// The failed operation.
        what: String,
        /// The cause.
        error: std::io::Error,
    },
    /// Creating the HTTP client failed.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// The git program failed.
    #[error("git {what} failed: {why}")]
    Git {
        /// The git command.
        what: String,
        /// Its error output, redacted.
        why: String,
    },
}

fn at_utc(seconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(format!("; resets at {} UTC", time.strftime("%Y-%m-%d %H:%M")))
}

impl ForgeError {
    /// What the user can do.
    pub fn help(&self) -> Vec<String> {
        let section = |host: &str| if host.contains("gitlab") { "gitlab" } else { "github" };
        let help = match self {
            Self::NotFound { .. } => {
                "check the owner, the repository, the ref and the folder; private repositories require a token"
            }
            Self::Unauthorized { host, had_token: false } => {
                return vec![format!("set token under [{}.token]", section(host))];
            }
            Self::Unauthorized { host, had_token: true } => {
                return vec![format!(
                    "check that the token under [{}.token] is valid and may read this repository",
                    section(host)
                )];
            }
            Self::RateLimited { host, had_token, .. } => {
                let mut help = vec!["wait until the limit resets".to_owned()];
                if !had_token {
                    help.insert(0, format!("set token under [{}.token] for a higher limit", section(host)));
                }
                return help;
            }
            Self::Network { why, .. } if why.contains("certificate") => {
                "set SSL_CERT_FILE to a PEM file with the trusted certificates"
            }
            Self::Network { .. } => "check the network, HTTPS_PROXY, and the endpoint in velox.toml",
            Self::Status { status: 500.., .. } => "the forge failed; try again later",
            Self::InvalidResponse { .. } => {
                "check that the endpoint in velox.toml is a GitHub or GitLab server"
            }
            Self::Git { .. } => "run `git ls-remote URL` to reproduce the error",
            Self::Status { .. } | Self::InvalidArchive { .. } | Self::Io { .. } | Self::Client(_) => {
                return Vec::new();
            }
        };
        vec![help.to_owned()]
    }
}
