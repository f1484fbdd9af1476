//! The options of a service.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;
use velox_build::SigningKey;

/// The options of a service. The default accepts no requests and runs no builds.
#[derive(Clone, Default)]
pub struct ServiceOptions {
    /// The addresses to listen on: the first one that is available.
    pub listen: Vec<SocketAddr>,
    /// The directory of the database, the artifacts and the running jobs.
    pub data: PathBuf,
    /// The directory in which clients on this machine find binaries as files; answers of the RPC service then
    /// have their paths.
    pub share_dir: Option<PathBuf>,
    /// The number of concurrent builds on this machine; 0: workers only.
    pub jobs: usize,
    /// The maximum length of the queue.
    pub queue: u64,
    /// How long a build with inexact refs (branches, `latest`) is reused.
    pub time_to_live: Duration,
    /// The certificate and key; `None`: plain HTTP.
    pub tls: Option<TlsOptions>,
    /// The file with the hashed tokens; `None`: no tokens required.
    pub tokens: Option<PathBuf>,
    /// Accept requests without a token under any host name. Without it and without tokens, only this
    /// machine's own host names are served, which prevents DNS rebinding.
    pub anonymous: bool,
    /// The origins that may use the API (CORS).
    pub origins: Vec<String>,
    /// The restrictions on requests.
    pub policy: BuildPolicy,
    /// The limits of each build.
    pub limits: JobLimits,
    /// How long builds and artifacts are kept.
    pub retention: Retention,
    /// The cluster; `None`: a single node.
    pub cluster: Option<ClusterOptions>,
    /// The user that jobs run as, by name or number. Root needs one; `root` itself is accepted.
    pub job_user: Option<String>,
    /// The executable that runs jobs (`vx`).
    pub program: PathBuf,
    /// The environment of the service; jobs get only the variables that they need.
    pub environment: BTreeMap<String, String>,
    /// The audit log.
    pub audit: Option<PathBuf>,
    /// The key that signs the provenance of the builds of this process.
    pub sign_key: Option<SigningKey>,
    /// The URL of the Go vulnerability database in which builds are looked up on request.
    pub vulnerability_database: Option<String>,
    /// How long running requests and builds may continue after a shutdown signal.
    pub drain: Duration,
}

/// The operator's restrictions on requests.
#[derive(Debug, Clone, Default)]
pub struct BuildPolicy {
    /// The allowed modules of plugins and replacements, as GOPRIVATE patterns
    /// (<https://go.dev/ref/mod#private-modules>); empty: any.
    pub modules: Vec<String>,
    /// The modules fetched from version control instead of the module proxy, as GOPRIVATE patterns.
    pub direct: Vec<String>,
    /// Whether C code may be compiled; `race` needs it.
    pub cgo: bool,
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The limits of a build.
#[derive(Debug, Clone)]
pub struct JobLimits {
    /// The total duration.
    pub time: Duration,
    /// The memory in bytes: of all processes with cgroups, else of each process.
    pub memory: u64,
    /// The disk space in bytes.
    pub disk: u64,
    /// The downloads in bytes.
    pub download: u64,
    /// The size of the log in bytes.
    pub log: u64,
    /// The size of the binary in bytes.
    pub artifact: u64,
    /// The size of the shared caches in bytes; they are cleared when they exceed it.
    pub cache: u64,
}

/// The services that the nodes of a cluster share.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The NATS servers with JetStream (`nats://host:4222`, `tls://host:4222`). They may contain
    /// `user:password@` or `token@`, the same for all.
    pub nats: Vec<Url>,
    /// The text of the NATS credentials file.
    pub credentials: Option<SecretString>,
    /// The artifact store: `s3://bucket/prefix`, or any other URL that object_store supports.
    pub artifacts: Url,
    /// The number of NATS replicas: 3 to survive the loss of one. Applied at the first setup only.
    pub replicas: usize,
    /// How long a lease lasts without being extended.
    pub lease_time: Duration,
}

impl Default for JobLimits {
    /// Enough for RoadRunner with all its plugins on a slow machine.
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            time: Duration::from_secs(30 * 60),
            memory: 4 * GIB,
            disk: 4 * GIB,
            download: 2 * GIB,
            log: 8 << 20,
            artifact: GIB,
            cache: 20 * GIB,
        }
    }
}

/// The retention limits of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a finished build is kept.
    pub age: Duration,
    /// The number of finished builds kept; the oldest are removed first.
    pub builds: u64,
    /// The total size of the binaries in bytes; the least recently used are removed first.
    pub artifacts: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(90 * 86_400), builds: 10_000, artifacts: 20 << 30 }
    }
}
