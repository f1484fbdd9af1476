//! The arguments of `vx server`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{parse_size, token::ServerCommand};

const EXAMPLES: &str = "\
Examples:
  vx server                                        # for this machine alone, http://127.0.0.1:8080
  vx server --tokens tokens.toml --address 0.0.0.0:8443 \\
    --tls-cert cert.pem --tls-key key.pem          # for others, who need a token each
  curl http://127.0.0.1:8080/v1/builds -H 'content-type: application/json' \\
    -d '{\"build\": {\"roadrunner\": \"v2025.1.15\", \"plugins\": [
         {\"module\": \"github.com/roadrunner-server/http/v5\", \"ref\": \"v5.3.0\"}]}}'

SIGINT and SIGTERM let what is on its way come to an end; the second one ends at once. Every option can be given by
the environment too, as VX_SERVER_ADDRESS for --address.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Serve {
    #[command(subcommand)]
    pub(crate) command: Option<ServerCommand>,
    /// Where to listen; port 0 is a free one
    #[arg(
        short,
        long,
        env = "VX_SERVER_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) address: SocketAddr,
    /// Where builds, logs and binaries are kept [default: `server` below vx's cache directory]
    #[arg(long, env = "VX_SERVER_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How many builds run at once on this machine; 0: none, workers do it
    #[arg(short, long, env = "VX_SERVER_JOBS", value_name = "N", default_value_t = 2)]
    pub(crate) jobs: usize,
    /// How many builds may wait; who asks for another one is told to come back later
    #[arg(long, env = "VX_SERVER_QUEUE", value_name = "N", default_value_t = 100)]
    pub(crate) queue: u64,
    /// For how long a build is good that names branches or `latest`, such as 10m or 1h
    #[arg(long, env = "VX_SERVER_TIME_TO_LIVE", value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    pub(crate) time_to_live: Duration,
    /// How long requests and builds may go on after a signal to stop
    #[arg(long, env = "VX_SERVER_DRAIN", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(crate) drain: Duration,
    /// Append who asked for what, and what was decided, to this file: a JSON object a line
    #[arg(long, env = "VX_SERVER_AUDIT_LOG", value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) entrance: Entrance,
    #[command(flatten)]
    pub(crate) allowed: Allowed,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) kept: Kept,
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

const WORKER_EXAMPLES: &str = "\
Examples:
  vx server --jobs 0 --nats nats://nats:4222 --artifacts s3://builds/rr   # takes requests
  vx worker --nats nats://nats:4222 --artifacts s3://builds/rr            # builds

Any number of both. SIGINT and SIGTERM let running builds come to an end, for as long as --drain says; what isn't done by
then another worker does. Every option can be given by the environment too, as VX_SERVER_NATS for --nats. Credentials for
the binaries come from AWS_*, GOOGLE_* or AZURE_* variables, and never reach a build.";

#[derive(Debug, Args)]
#[command(
    after_help = WORKER_EXAMPLES,
    mut_arg("nats", |argument| argument.required(true)),
    mut_arg("artifacts", |argument| argument.required(true))
)]
pub(crate) struct Work {
    /// Where builds run, and what they leave for others [default: `worker` below vx's cache directory]
    #[arg(long, env = "VX_SERVER_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How many builds run at once
    #[arg(short, long, env = "VX_SERVER_JOBS", value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    pub(crate) jobs: usize,
    /// How long builds may go on after a signal to stop
    #[arg(long, env = "VX_SERVER_DRAIN", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(crate) drain: Duration,
    /// Answer /metrics, /healthz and /readyz there, for programs on this machine; port 0 is a free one
    #[arg(long, env = "VX_SERVER_METRICS_ADDRESS", value_name = "ADDRESS:PORT", value_parser = parse_own)]
    pub(crate) metrics_address: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) nodes: Nodes,
    #[command(flatten)]
    pub(crate) allowed: Allowed,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// What many nodes share.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many nodes")]
pub(crate) struct Nodes {
    /// Keep builds and the queue on these NATS servers with JetStream, such as nats://host:4222 or tls://host:4222
    #[arg(
        long,
        env = "VX_SERVER_NATS",
        value_name = "URL",
        value_delimiter = ',',
        requires = "artifacts",
        hide_env_values = true
    )]
    pub(crate) nats: Vec<String>,
    /// The file with the credentials for NATS, as `nsc` makes it
    #[arg(long, env = "VX_SERVER_NATS_CREDENTIALS", value_name = "FILE", requires = "nats")]
    pub(crate) nats_credentials: Option<PathBuf>,
    /// How many NATS servers keep everything: 3 where one may go for good. It counts the first time
    #[arg(
        long,
        env = "VX_SERVER_NATS_REPLICAS",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=5)
    )]
    pub(crate) nats_replicas: u8,
    /// Where the binaries are: s3://bucket/prefix, gs://…, az://…, or a directory that all nodes have
    #[arg(long, env = "VX_SERVER_ARTIFACTS", value_name = "URL", requires = "nats", hide_env_values = true)]
    pub(crate) artifacts: Option<String>,
    /// How long a worker may be silent before another one has its build
    #[arg(long, env = "VX_SERVER_LEASE_TIME", value_name = "TIME", default_value = "30s", value_parser = parse_lease)]
    pub(crate) lease_time: Duration,
}

/// Who may come, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may use it")]
pub(crate) struct Entrance {
    /// The file with the hashed tokens, one of which everybody needs then
    #[arg(long, env = "VX_SERVER_TOKENS", value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Serve whoever reaches the address, without a token
    #[arg(long, env = "VX_SERVER_ALLOW_ANONYMOUS", conflicts_with = "tokens")]
    pub(crate) allow_anonymous: bool,
    /// The certificate for TLS, with its chain (PEM); read again when it changes
    #[arg(long, env = "VX_SERVER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "VX_SERVER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let pages of this origin (scheme://host[:port]) use the API (CORS); may be given several times
    #[arg(long = "cors-origin", env = "VX_SERVER_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) origins: Vec<String>,
}

/// What may be asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "What may be built")]
pub(crate) struct Allowed {
    /// Build plugins and replacements from these modules alone: patterns as GOPRIVATE has them, separated by commas
    #[arg(
        long = "allow-module",
        env = "VX_SERVER_ALLOW_MODULE",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    pub(crate) modules: Vec<String>,
    /// Fetch these modules from their own version control instead of the module proxy: patterns as GOPRIVATE has them
    #[arg(
        long = "allow-direct",
        env = "VX_SERVER_ALLOW_DIRECT",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    pub(crate) direct: Vec<String>,
    /// Compile C code, which the race detector needs too
    #[arg(long = "allow-cgo", env = "VX_SERVER_ALLOW_CGO")]
    pub(crate) cgo: bool,
}

/// What one build may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "What one build may use")]
pub(crate) struct Limits {
    /// Time, from its start to its end
    #[arg(long = "limit-time", env = "VX_SERVER_LIMIT_TIME", value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    pub(crate) time: Duration,
    /// Memory: of all its processes where cgroups can be used, else of each
    #[arg(long = "limit-memory", env = "VX_SERVER_LIMIT_MEMORY", value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub(crate) memory: u64,
    /// Disk space
    #[arg(long = "limit-disk", env = "VX_SERVER_LIMIT_DISK", value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub(crate) disk: u64,
    /// Downloads
    #[arg(long = "limit-download", env = "VX_SERVER_LIMIT_DOWNLOAD", value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    pub(crate) download: u64,
    /// The log
    #[arg(long = "limit-log", env = "VX_SERVER_LIMIT_LOG", value_name = "SIZE", default_value = "8M", value_parser = parse_size)]
    pub(crate) log: u64,
    /// The binary
    #[arg(long = "limit-artifact", env = "VX_SERVER_LIMIT_ARTIFACT", value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    pub(crate) artifact: u64,
    /// The caches of modules and compiled packages that all builds share: when they take more, they begin anew
    #[arg(long = "limit-cache", env = "VX_SERVER_LIMIT_CACHE", value_name = "SIZE", default_value = "20G", value_parser = parse_size)]
    pub(crate) cache: u64,
}

/// What is kept.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is kept")]
pub(crate) struct Kept {
    /// For how long a finished build is kept
    #[arg(long = "keep-time", env = "VX_SERVER_KEEP_TIME", value_name = "TIME", default_value = "2160h", value_parser = parse_time)]
    pub(crate) age: Duration,
    /// How many finished builds are kept
    #[arg(long = "keep-builds", env = "VX_SERVER_KEEP_BUILDS", value_name = "N", default_value_t = 10_000)]
    pub(crate) builds: u64,
    /// How much the binaries may take; those that nobody asked for the longest go first
    #[arg(long = "keep-size", env = "VX_SERVER_KEEP_SIZE", value_name = "SIZE", default_value = "20G", value_parser = parse_size)]
    pub(crate) size: u64,
}

/// `90s`, `10m`, `1h30m`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write such as 90s, 10m or 1h30m");
    let time: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(time).map_err(|_| wrong())
}

/// Shorter leases end on a busy machine before they can be extended.
fn parse_lease(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time < Duration::from_secs(1) { Err("a lease takes a second at least".to_owned()) } else { Ok(time) }
}

/// Nobody needs a token for a worker's metrics.
fn parse_own(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write such as 127.0.0.1:9090".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("others could reach it, and it asks for no token: write such as 127.0.0.1:9090, and let a proxy with a sign-in \
             pass them on"
            .to_owned())
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a number from 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_time("0s"), Ok(Duration::ZERO));
        for wrong in ["", "90", "-1s", "soon", "1 fortnight", "99999999999999999999h"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
