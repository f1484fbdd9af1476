//! How a service is set up.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::policy::BuildPolicy;

/// How a service is set up.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its directory: the database, the artifacts, the jobs on their way.
    pub data: PathBuf,
    /// How many builds run at once on this machine; 0: none, workers do it.
    pub jobs: usize,
    /// How many builds may wait.
    pub queue: u64,
    /// For how long a build is good whose refs may mean something else by then (branches, `latest`).
    pub time_to_live: Duration,
    /// Its certificate and key; `None`: plain HTTP.
    pub tls: Option<TlsOptions>,
    /// The file with the hashed tokens; `None`: nobody needs one.
    pub tokens: Option<PathBuf>,
    /// Whoever reaches the address may use the service, by whatever host name. Without it and without tokens, only this
    /// machine's own names are served: a page elsewhere whose name was made to point here gets nothing.
    pub anonymous: bool,
    /// Pages of these origins may use the API (CORS).
    pub origins: Vec<String>,
    /// What may be asked for.
    pub policy: BuildPolicy,
    /// What a build may use.
    pub limits: JobLimits,
    /// What is kept, and for how long.
    pub retention: Retention,
    /// Many nodes; `None`: this one alone.
    pub cluster: Option<ClusterOptions>,
    /// The program that runs a job (`vx`).
    pub program: PathBuf,
    /// The environment of the service; of it, jobs get what they need and no more.
    pub environment: BTreeMap<String, String>,
    /// The file that gets a line for whatever is asked for or refused; `None`: there is none.
    pub audit: Option<PathBuf>,
    /// How long running requests and builds may go on after a signal to stop.
    pub drain: Duration,
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a build may use.
#[derive(Debug, Clone)]
pub struct JobLimits {
    /// From its start to its end.
    pub time: Duration,
    /// Memory of all its processes in bytes where cgroups allow it, else of each of them.
    pub memory: u64,
    /// What it may leave on the disk, in bytes.
    pub disk: u64,
    /// What it may download, in bytes.
    pub download: u64,
    /// How large its log may grow, in bytes.
    pub log: u64,
    /// How large its binary may be, in bytes.
    pub artifact: u64,
    /// How much the caches that all builds share may take, in bytes. When they take more, they begin anew.
    pub cache: u64,
}

/// The services that many nodes share.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The NATS servers (`nats://host:4222`, `tls://host:4222`), with JetStream. They may hold `user:password@` or `token@`,
    /// one for all.
    pub nats: Vec<Url>,
    /// The NATS credentials file's text.
    pub credentials: Option<SecretString>,
    /// Where the binaries are: `s3://bucket/prefix`, or any other that object_store knows.
    pub artifacts: Url,
    /// How many NATS servers keep everything: 3 where one may go for good. It counts when it is set up for the first time.
    pub replicas: usize,
    /// How long a worker may be silent before its build is given to another.
    pub lease_time: Duration,
}

impl fmt::Debug for ClusterOptions {
    /// Without the users' names and passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nats: Vec<Option<&str>> = self.nats.iter().map(Url::host_str).collect();
        f.debug_struct("Cluster")
            .field("nats", &nats)
            .field("replicas", &self.replicas)
            .field("lease_time", &self.lease_time)
            .finish_non_exhaustive()
    }
}

impl Default for JobLimits {
    /// Room for the largest RoadRunner with all its plugins, on a slow machine.
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

/// What a service keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// For how long a finished build is kept.
    pub age: Duration,
    /// How many finished builds are kept; the oldest go first.
    pub builds: u64,
    /// How many bytes the binaries may take; those that nobody asked for the longest go first.
    pub artifacts: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(90 * 86_400), builds: 10_000, artifacts: 20 << 30 }
    }
}
