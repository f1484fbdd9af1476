//! The arguments of `vx server`, `vx server token` and `vx worker`.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use url::Host;

use super::parse_size;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  vx server                                        # local only, at http://127.0.0.1:8080
  vx server --tokens tokens.toml --address :8443 \\
    --tls-cert cert.pem --tls-key key.pem          # on the network, with tokens
  curl http://127.0.0.1:8080/v1/builds -H 'content-type: application/json' \\
    -d '{\"build\": {\"roadrunner\": \"v2025.1.15\", \"plugins\": [
         {\"module\": \"github.com/roadrunner-server/http/v5\", \"ref\": \"v5.3.0\"}]}}'

SIGINT and SIGTERM shut the service down gracefully; a second signal stops it immediately. Every option has an \
environment variable, such as VX_SERVER_ADDRESS for --address."
)]
pub(crate) struct ServerCommand {
    #[command(subcommand)]
    pub(crate) command: Option<ServerSubcommand>,
    /// The address to listen on: an IP address or host name and a port, where port 0 selects a free one. Without a host,
    /// such as :8080, all addresses of this machine, but only the loopback address without --tokens or --allow-anonymous
    /// [default: 127.0.0.1:8080]
    #[arg(short, long, env = "VX_SERVER_ADDRESS", value_name = "ADDRESS:PORT")]
    pub(crate) address: Option<ListenAddress>,
    /// The configuration file to take `[log]` from; nothing else in it applies to the service
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The directory for builds, logs and binaries [default: `server` in the cache directory]
    #[arg(long, env = "VX_SERVER_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A directory to copy binaries to, for clients that share it with the service: they receive the path of the file
    #[arg(long, env = "VX_SERVER_SHARE_DIR", value_name = "DIR")]
    pub(crate) share_dir: Option<PathBuf>,
    /// The number of concurrent builds on this machine; 0 leaves all builds to workers
    #[arg(short, long, env = "VX_SERVER_JOBS", value_name = "N", default_value_t = 2)]
    pub(crate) jobs: usize,
    /// The user that builds run as, a name or a number; required if the service runs as root
    #[arg(long, env = "VX_SERVER_JOB_USER", value_name = "USER")]
    pub(crate) job_user: Option<String>,
    /// The maximum number of queued builds; further requests are rejected
    #[arg(long, env = "VX_SERVER_QUEUE", value_name = "N", default_value_t = 100)]
    pub(crate) queue: u64,
    /// How long the build of a branch or of `latest` is reused, such as 10m or 1h
    #[arg(long, env = "VX_SERVER_TIME_TO_LIVE", value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    pub(crate) time_to_live: Duration,
    /// How long requests and builds may continue after a signal
    #[arg(long, env = "VX_SERVER_DRAIN", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(crate) drain: Duration,
    /// The file to append an audit log to, one JSON object a line
    #[arg(long, env = "VX_SERVER_AUDIT_LOG", value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// The private key that signs the provenance of each build, as `vx build --sign-key`
    #[arg(long, env = "VX_SERVER_SIGN_KEY", value_name = "KEY")]
    pub(crate) sign_key: Option<PathBuf>,
    /// The Go vulnerability database in which builds are looked up on request, such as `https://vuln.go.dev`
    /// [default: none]
    #[arg(long, env = "VX_SERVER_VULNERABILITY_DB", value_name = "URL")]
    pub(crate) vulnerability_db: Option<String>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  vx server --jobs 0 --nats nats://nats:4222 --artifacts s3://builds/rr   # accept requests
  vx worker --nats nats://nats:4222 --artifacts s3://builds/rr            # run builds

Both can run any number of times. After SIGINT or SIGTERM, running builds may continue for --drain; another worker \
takes over unfinished ones. Every option has an environment variable, such as VX_SERVER_NATS for --nats. Credentials \
for the object store come from AWS_*, GOOGLE_* or AZURE_* variables, which builds cannot see.",
    mut_arg("nats", |argument| argument.required(true)),
    mut_arg("artifacts", |argument| argument.required(true))
)]
pub(crate) struct WorkerCommand {
    /// The directory for running builds and caches [default: `worker` in the cache directory]
    #[arg(long, env = "VX_SERVER_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The number of concurrent builds
    #[arg(short, long, env = "VX_SERVER_JOBS", value_name = "N", default_value_t = 2, value_parser = parse_jobs)]
    pub(crate) jobs: usize,
    /// The user that builds run as, a name or a number; required if the service runs as root
    #[arg(long, env = "VX_SERVER_JOB_USER", value_name = "USER")]
    pub(crate) job_user: Option<String>,
    /// How long builds may continue after a signal
    #[arg(long, env = "VX_SERVER_DRAIN", value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    pub(crate) drain: Duration,
    /// The loopback address to serve /metrics, /healthz and /readyz on; port 0 selects a free port
    #[arg(long, env = "VX_SERVER_METRICS_ADDRESS", value_name = "ADDRESS:PORT", value_parser = parse_loopback)]
    pub(crate) metrics_address: Option<SocketAddr>,
    /// The private key that signs the provenance of each build, as `vx build --sign-key`
    #[arg(long, env = "VX_SERVER_SIGN_KEY", value_name = "KEY")]
    pub(crate) sign_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster options")]
pub(crate) struct ClusterArgs {
    /// The NATS servers (with JetStream) for builds and the queue, such as nats://host:4222 or tls://host:4222
    #[arg(
        long,
        env = "VX_SERVER_NATS",
        value_name = "URL",
        value_delimiter = ',',
        requires = "artifacts",
        hide_env_values = true
    )]
    pub(crate) nats: Vec<String>,
    /// The NATS credentials file, as created by `nsc`
    #[arg(long, env = "VX_SERVER_NATS_CREDENTIALS", value_name = "FILE", requires = "nats")]
    pub(crate) nats_credentials: Option<PathBuf>,
    /// The number of NATS replicas, used when the stores are created; 3 survives the loss of a server
    #[arg(
        long,
        env = "VX_SERVER_NATS_REPLICAS",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=5)
    )]
    pub(crate) nats_replicas: u8,
    /// The store for binaries: s3://bucket/prefix, gs://…, az://…, or a directory that all nodes share
    #[arg(long, env = "VX_SERVER_ARTIFACTS", value_name = "URL", requires = "nats", hide_env_values = true)]
    pub(crate) artifacts: Option<String>,
    /// How long a worker may be unresponsive before another one takes over its build
    #[arg(long, env = "VX_SERVER_LEASE_TIME", value_name = "TIME", default_value = "30s", value_parser = parse_lease)]
    pub(crate) lease_time: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Access options")]
pub(crate) struct AccessArgs {
    /// The file with hashed tokens; every request then needs a token
    #[arg(long, env = "VX_SERVER_TOKENS", value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Accept requests without a token from the network
    #[arg(long, env = "VX_SERVER_ALLOW_ANONYMOUS", conflicts_with = "tokens")]
    pub(crate) allow_anonymous: bool,
    /// The TLS certificate chain (PEM); reloaded when it changes
    #[arg(long, env = "VX_SERVER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The TLS private key (PEM)
    #[arg(long, env = "VX_SERVER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Allow cross-origin requests (CORS) from this origin, scheme://host[:port]; can be repeated
    #[arg(long = "cors-origin", env = "VX_SERVER_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(crate) origins: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Policy options")]
pub(crate) struct PolicyArgs {
    /// Restrict plugins and replacements to these modules: comma-separated GOPRIVATE patterns
    #[arg(
        long = "allow-module",
        env = "VX_SERVER_ALLOW_MODULE",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    pub(crate) modules: Vec<String>,
    /// Fetch these modules from version control instead of the module proxy: comma-separated GOPRIVATE patterns
    #[arg(
        long = "allow-direct",
        env = "VX_SERVER_ALLOW_DIRECT",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    pub(crate) direct: Vec<String>,
    /// Allow cgo, which the race detector requires
    #[arg(long = "allow-cgo", env = "VX_SERVER_ALLOW_CGO")]
    pub(crate) cgo: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Build limits")]
pub(crate) struct LimitArgs {
    /// The maximum duration of a build
    #[arg(long = "limit-time", env = "VX_SERVER_LIMIT_TIME", value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    pub(crate) time: Duration,
    /// The maximum memory of a build (with cgroups), or of each of its processes
    #[arg(long = "limit-memory", env = "VX_SERVER_LIMIT_MEMORY", value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub(crate) memory: u64,
    /// The maximum disk space of a build
    #[arg(long = "limit-disk", env = "VX_SERVER_LIMIT_DISK", value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub(crate) disk: u64,
    /// The maximum size of all downloads of a build
    #[arg(long = "limit-download", env = "VX_SERVER_LIMIT_DOWNLOAD", value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    pub(crate) download: u64,
    /// The maximum size of a build log
    #[arg(long = "limit-log", env = "VX_SERVER_LIMIT_LOG", value_name = "SIZE", default_value = "8M", value_parser = parse_size)]
    pub(crate) log: u64,
    /// The maximum size of a binary
    #[arg(long = "limit-artifact", env = "VX_SERVER_LIMIT_ARTIFACT", value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    pub(crate) artifact: u64,
    /// The size at which the module and compile caches that builds share are cleared
    #[arg(long = "limit-cache", env = "VX_SERVER_LIMIT_CACHE", value_name = "SIZE", default_value = "20G", value_parser = parse_size)]
    pub(crate) cache: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Retention options")]
pub(crate) struct RetentionArgs {
    /// How long finished builds are kept
    #[arg(long = "keep-time", env = "VX_SERVER_KEEP_TIME", value_name = "TIME", default_value = "2160h", value_parser = parse_time)]
    pub(crate) age: Duration,
    /// The maximum number of finished builds
    #[arg(long = "keep-builds", env = "VX_SERVER_KEEP_BUILDS", value_name = "N", default_value_t = 10_000)]
    pub(crate) builds: u64,
    /// The maximum total size of binaries; the least recently used are removed first
    #[arg(long = "keep-size", env = "VX_SERVER_KEEP_SIZE", value_name = "SIZE", default_value = "20G", value_parser = parse_size)]
    pub(crate) size: u64,
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  vx server token new ci                           # prints the token once; only its hash is stored
  vx server token new alice --builds-at-once 2 --expires 720h
  vx server token new prometheus --scope metrics
  vx server token list
  vx server token revoke alice

A running service picks up changes to the file within a second.";

#[derive(Debug, Subcommand)]
pub(crate) enum ServerSubcommand {
    /// Create, list and revoke tokens
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token, print it, and add its hash to the file
    #[command(after_help = TOKEN_EXAMPLES)]
    New(NewTokenCommand),
    /// List the tokens and their permissions
    #[command(after_help = TOKEN_EXAMPLES)]
    List {
        #[command(flatten)]
        file: TokenFileArgs,
    },
    /// Remove a token from the file
    #[command(after_help = TOKEN_EXAMPLES)]
    Revoke {
        /// The name of the token
        name: String,
        #[command(flatten)]
        file: TokenFileArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TokenFileArgs {
    /// The file with hashed tokens; created if missing
    #[arg(long, env = "VX_SERVER_TOKENS", value_name = "FILE", default_value = "tokens.toml")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct NewTokenCommand {
    /// The name of the token, which its builds are recorded under
    pub(crate) name: String,
    /// A permission of the token; can be repeated
    #[arg(long = "scope", value_enum, value_name = "SCOPE", default_values = ["build", "read"])]
    pub(crate) scopes: Vec<ScopeArg>,
    /// The maximum number of queued and running builds [default: no limit but the queue's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) builds_at_once: Option<u64>,
    /// The maximum number of build requests in an hour [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) builds_per_hour: Option<u64>,
    /// Restrict builds to these modules: comma-separated GOPRIVATE patterns
    #[arg(long = "allow-module", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) modules: Vec<String>,
    /// When the token expires: a time such as 2027-01-01T12:00:00Z, or a duration such as 720h [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    pub(crate) expires: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) file: TokenFileArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// Request builds, and cancel own builds
    Build,
    /// Read builds, logs and binaries
    Read,
    /// Read the metrics
    Metrics,
}

impl From<ScopeArg> for velox_service::TokenScope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Build => Self::Build,
            ScopeArg::Read => Self::Read,
            ScopeArg::Metrics => Self::Metrics,
        }
    }
}

/// An address to listen on, as Go writes it: `HOST:PORT`, or `:PORT` for all addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    /// An IP address or a host name; `None`: all addresses.
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
}

impl Default for ListenAddress {
    fn default() -> Self {
        Self { host: Some(Ipv4Addr::LOCALHOST.to_string()), port: 8080 }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            "expected an address and a port, such as 127.0.0.1:8080, localhost:8080, [::1]:8080 or :8080"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        if host.is_empty() {
            return Ok(Self { host: None, port });
        }
        // The brackets of an IPv6 address are not part of it.
        match Host::parse(host).map_err(|_| invalid())? {
            Host::Ipv4(address) => Ok(Self { host: Some(address.to_string()), port }),
            Host::Ipv6(address) => Ok(Self { host: Some(address.to_string()), port }),
            Host::Domain(name) => Ok(Self { host: Some(name), port }),
        }
    }
}

impl ListenAddress {
    /// The addresses to try in order. `:PORT` is the loopback address only, unless `is_public`.
    pub(crate) async fn resolve(&self, is_public: bool) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Some(host) => Ok(tokio::net::lookup_host((host.as_str(), self.port)).await?.collect()),
            None if is_public => {
                Ok(vec![(Ipv6Addr::UNSPECIFIED, self.port).into(), (Ipv4Addr::UNSPECIFIED, self.port).into()])
            }
            None => Ok(vec![(Ipv4Addr::LOCALHOST, self.port).into()]),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref().unwrap_or_default() {
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Parses a duration such as `90s`, `10m` or `1h30m`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    time.ok_or_else(|| "expected a duration such as 90s, 10m or 1h30m".to_owned())
}

/// Shorter leases expire on a busy machine before they can be renewed.
fn parse_lease(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time < Duration::from_secs(1) { Err("a lease takes at least 1s".to_owned()) } else { Ok(time) }
}

/// A worker's metrics need no token, so that the address must not be reachable from other machines.
fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
    address.ok_or_else(|| {
        "expected a loopback address such as 127.0.0.1:9090, since the metrics need no token; use an authenticating \
         proxy to expose them"
            .to_owned()
    })
}

fn parse_jobs(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "expected a number greater than 0".to_owned())
}

fn parse_expiry(text: &str) -> Result<Timestamp, String> {
    let after = |lifetime: jiff::SignedDuration| velox_api::now().checked_add(lifetime).ok();
    let expiry = text.parse().ok().or_else(|| text.parse().ok().and_then(after));
    expiry
        .ok_or_else(|| "expected a time such as 2027-01-01T12:00:00Z, or a duration such as 720h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_in_the_notation_of_go() {
        let resolve = async |text: &str, is_public| {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            address
                .resolve(is_public)
                .await
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(resolve("127.0.0.1:9000", false).await, "127.0.0.1:9000");
        assert_eq!(resolve("[::1]:0", false).await, "[::1]:0");
        assert_eq!(resolve("0.0.0.0:9000", false).await, "0.0.0.0:9000");
        assert_eq!(resolve(":9000", false).await, "127.0.0.1:9000");
        assert_eq!(resolve(":9000", true).await, "[::]:9000 0.0.0.0:9000");
        let local = resolve("localhost:9000", false).await;
        assert!(local.split(' ').all(|it| it == "127.0.0.1:9000" || it == "[::1]:9000"), "{local}");
        for invalid in
            ["", "9000", "localhost", "localhost:", ":x", ":70000", "::1:80", "http://localhost:80", "a b:1"]
        {
            assert!(invalid.parse::<ListenAddress>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn times_are_parsed() {
        assert_eq!(parse_time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_time("0s"), Ok(Duration::ZERO));
        for invalid in ["", "90", "-1s", "soon", "1 fortnight", "99999999999999999999h"] {
            assert!(parse_time(invalid).is_err(), "{invalid}");
        }
        assert_eq!(parse_expiry("1970-01-01T00:00:00Z"), Ok(Timestamp::UNIX_EPOCH));
        assert!(parse_expiry("720h").is_ok_and(|expiry| expiry > velox_api::now()));
        for invalid in ["", "tomorrow", "2027-01-01", "99999999999999h"] {
            assert!(parse_expiry(invalid).is_err(), "{invalid}");
        }
    }
}
