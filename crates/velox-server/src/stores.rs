//! The stores that a node uses: its own, or those that it shares.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    Artifacts, Cluster, Folder, JetStream, JetStreamOptions, Objects, Options, Queue, Records, Sqlite,
    SqliteOptions, StoreError,
    telemetry::{Observed, Telemetry},
};

/// The stores that a node uses.
pub(crate) struct Stores {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) artifacts: Arc<dyn Artifacts>,
}

impl Stores {
    /// Those of a node that takes requests.
    pub(crate) async fn open(options: &Options, shutdown: &CancellationToken) -> Result<Self, StoreError> {
        match &options.cluster {
            Some(cluster) => Self::shared(options, cluster, Some(options.queue)).await,
            None => Self::own(options, shutdown).await,
        }
    }

    /// Those of the node's own directory.
    async fn own(options: &Options, shutdown: &CancellationToken) -> Result<Self, StoreError> {
        let lasting = SqliteOptions {
            queue: options.queue,
            time_to_live: options.time_to_live,
            ..SqliteOptions::default()
        };
        let sqlite = Sqlite::open(&options.data.join("builds.sqlite"), lasting).await?;
        let folder = Folder::open(&options.data.join("artifacts"))?;
        tokio::spawn(options.retention.keep(sqlite.clone(), folder.clone(), shutdown.clone()));
        Ok(Self { records: Arc::new(sqlite.clone()), queue: Arc::new(sqlite), artifacts: Arc::new(folder) })
    }

    /// Those that many nodes share; with the length of the queue where the node takes requests.
    pub(crate) async fn shared(
        options: &Options,
        cluster: &Cluster,
        queue: Option<u64>,
    ) -> Result<Self, StoreError> {
        let artifacts = Objects::open(&cluster.artifacts, &options.environment)?;
        artifacts.ready().await?;
        let lasting = JetStreamOptions {
            queue,
            time_to_live: options.time_to_live,
            lease_time: cluster.lease_time,
            replicas: cluster.replicas,
        };
        let jetstream = Arc::new(JetStream::connect(cluster, lasting).await?);
        Ok(Self { records: jetstream.clone(), queue: jetstream, artifacts: Arc::new(artifacts) })
    }

    /// The same, watched.
    pub(crate) fn observed(self, telemetry: &Arc<Telemetry>) -> Self {
        Self {
            records: Arc::new(Observed::new(self.records, telemetry)),
            queue: Arc::new(Observed::new(self.queue, telemetry)),
            artifacts: Arc::new(Observed::new(self.artifacts, telemetry)),
        }
    }
}
