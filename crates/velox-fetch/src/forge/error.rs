use crate::http::HttpClientError;

/// Why a forge didn't answer as asked. No message has a token in it, nor a URL's query or credentials.
#[derive(Debug, thiserror::Error)]
pub enum ForgeError {
    /// It isn't there, or not for this token: forges don't tell the two apart.
    #[error("{host} has no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The forge's host.
        host: String,
    },
    /// The token isn't good, or there is none where one is needed.
    #[error("{host} refuses {}", if *had_token { "the token" } else { "to answer without a token" })]
    Unauthorized {
        /// The forge's host.
        host: String,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// Too many requests, and the wait would be long.
    #[error("{host}'s rate limit is used up{}", reset.and_then(at_utc).unwrap_or_default())]
    RateLimited {
        /// The forge's host.
        host: String,
        /// When it is reset, in seconds since 1970, where the forge says it.
        reset: Option<i64>,
        /// Whether a token was sent.
        had_token: bool,
    },
    /// Another answer than success.
    #[error("{host} answers {status} for {what}")]
    Status {
        /// The forge's host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// It can't be reached, or the connection broke.
    #[error("can't reach {host}: {why}")]
    Network {
        /// The forge's host.
        host: String,
        /// The root cause.
        why: String,
    },
    /// An answer of another shape than the API's.
    #[error("{host} answers something else than its API says: {why}")]
    InvalidResponse {
        /// The forge's host.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// An archive that no forge makes.
    #[error("the archive from {host} is refused: {why}")]
    InvalidArchive {
        /// The forge's host.
        host: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that can't be read or written.
    #[error("{what}: {error}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        error: std::io::Error,
    },
    /// No HTTP client can be created.
    #[error(transparent)]
    Client(#[from] HttpClientError),
    /// git itself.
    #[error("git {what}: {why}")]
    Git {
        /// What git was to do.
        what: String,
        /// Its own words, redacted.
        why: String,
    },
}

fn at_utc(seconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(format!(" until {} UTC", time.strftime("%Y-%m-%d %H:%M")))
}

impl ForgeError {
    /// What the user can do, a sentence each.
    #[must_use]
    pub fn help(&self) -> Vec<String> {
        let section = |host: &str| if host.contains("gitlab") { "gitlab" } else { "github" };
        let help = match self {
            Self::NotFound { .. } => {
                "check the names, the ref and the folder; a private repository needs a token"
            }
            Self::Unauthorized { host, had_token: false } => {
                return vec![format!("set token under [{}.token]", section(host))];
            }
            Self::Unauthorized { host, had_token: true } => {
                return vec![format!(
                    "check the token under [{}.token]: has it expired, may it read this repository?",
                    section(host)
                )];
            }
            Self::RateLimited { host, had_token, .. } => {
                let mut help = vec!["wait until then".to_owned()];
                if !had_token {
                    help.insert(
                        0,
                        format!(
                            "set token under [{}.token]: with one the limit is far higher",
                            section(host)
                        ),
                    );
                }
                return help;
            }
            Self::Network { why, .. } if why.contains("certificate") => {
                "SSL_CERT_FILE names the certificates to trust, as PEM: for a company's own authority"
            }
            Self::Network { .. } => "check the network, HTTPS_PROXY, and the endpoint in velox.toml",
            Self::Status { status: 500.., .. } => "that is the forge's own failure: try again later",
            Self::InvalidResponse { .. } => "is the endpoint in velox.toml that of a GitHub or GitLab?",
            Self::Git { .. } => "try the same with git by hand: `git ls-remote URL`",
            Self::Status { .. } | Self::InvalidArchive { .. } | Self::Io { .. } | Self::Client(_) => {
                return Vec::new();
            }
        };
        vec![help.to_owned()]
    }
}
