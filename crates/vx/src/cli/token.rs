//! The arguments of `vx server token`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

const EXAMPLES: &str = "\
Examples:
  vx server token new ci                           # the token is printed once, and kept nowhere
  vx server token new alice --builds-at-once 2 --expires 720h
  vx server token new prometheus --scope metrics
  vx server token list
  vx server token revoke alice

A service that runs with the file knows of a change within a second.";

#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// Make, list and revoke the tokens of a service
    #[command(after_help = EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: Token,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token, print it, and add its hash to the file
    #[command(after_help = EXAMPLES)]
    New(New),
    /// Show which tokens there are, and what they allow
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        file: File,
    },
    /// Take a token out of the file
    #[command(after_help = EXAMPLES)]
    Revoke {
        /// The token's name
        name: String,
        #[command(flatten)]
        file: File,
    },
}

/// Where the tokens are.
#[derive(Debug, Args)]
pub(crate) struct File {
    /// The file with the hashed tokens; made when missing
    #[arg(long, env = "VX_SERVER_TOKENS", value_name = "FILE", default_value = "tokens.toml")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct New {
    /// What it is called: on whose account its builds run
    pub(crate) name: String,
    /// What it allows; may be given several times
    #[arg(long = "scope", value_enum, value_name = "SCOPE", default_values = ["build", "read"])]
    pub(crate) scopes: Vec<Scope>,
    /// How many builds may be queued or running at once [default: as many as the queue takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) builds_at_once: Option<u64>,
    /// How many builds may be asked for in an hour [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) builds_per_hour: Option<u64>,
    /// Let it build from these modules alone: patterns as GOPRIVATE has them, separated by commas
    #[arg(long = "allow-module", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) modules: Vec<String>,
    /// When it ends: a time such as 2027-01-01T12:00:00Z, or how long it lasts, such as 720h [default: when it is revoked]
    #[arg(long, value_name = "TIME", value_parser = parse_end)]
    pub(crate) expires: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) file: File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Ask for builds, and cancel one's own
    Build,
    /// See builds, logs and binaries
    Read,
    /// See the metrics
    Metrics,
}

impl From<Scope> for velox_service::TokenScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Build => Self::Build,
            Scope::Read => Self::Read,
            Scope::Metrics => Self::Metrics,
        }
    }
}

fn parse_end(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is no time: write such as 2027-01-01T12:00:00Z or 720h");
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let lasts: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Timestamp::now().checked_add(lasts).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read() {
        assert_eq!(parse_end("1970-01-01T00:00:00Z"), Ok(Timestamp::UNIX_EPOCH));
        assert!(parse_end("720h").is_ok_and(|end| end > Timestamp::now()));
        for wrong in ["", "tomorrow", "2027-01-01", "99999999999999h"] {
            assert!(parse_end(wrong).is_err(), "{wrong}");
        }
    }
}
