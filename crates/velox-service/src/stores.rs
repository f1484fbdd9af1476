//! The stores that a node uses: its own, or those that it shares.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{Artifacts, Folder, Objects},
    options::{ClusterOptions, ServiceOptions},
    store::{JetStreamOptions, JetStreamStore, Queue, Records, SqliteOptions, SqliteStore, StoreError},
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
    pub(crate) async fn open(
        options: &ServiceOptions,
        shutdown: &CancellationToken,
    ) -> Result<Self, StoreError> {
        match &options.cluster {
            Some(cluster) => {
                let (jetstream, objects) = connect(options, cluster, Some(options.queue)).await?;
                tokio::spawn(options.retention.keep(jetstream.clone(), objects.clone(), shutdown.clone()));
                Ok(Self { records: jetstream.clone(), queue: jetstream, artifacts: objects })
            }
            None => Self::own(options, shutdown).await,
        }
    }

    /// Those of the node's own directory.
    async fn own(options: &ServiceOptions, shutdown: &CancellationToken) -> Result<Self, StoreError> {
        let lasting = SqliteOptions {
            queue: options.queue,
            time_to_live: options.time_to_live,
            ..SqliteOptions::default()
        };
        let sqlite = Arc::new(SqliteStore::open(&options.data.join("builds.sqlite"), lasting).await?);
        let folder = Arc::new(Folder::open(&options.data.join("artifacts"))?);
        tokio::spawn(options.retention.keep(sqlite.clone(), folder.clone(), shutdown.clone()));
        Ok(Self { records: sqlite.clone(), queue: sqlite, artifacts: folder })
    }

    /// Those that many nodes share, for one that builds only.
    pub(crate) async fn shared(
        options: &ServiceOptions,
        cluster: &ClusterOptions,
    ) -> Result<Self, StoreError> {
        let (jetstream, objects) = connect(options, cluster, None).await?;
        Ok(Self { records: jetstream.clone(), queue: jetstream, artifacts: objects })
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

/// With the length of the queue where the node takes requests.
async fn connect(
    options: &ServiceOptions,
    cluster: &ClusterOptions,
    queue: Option<u64>,
) -> Result<(Arc<JetStreamStore>, Arc<Objects>), StoreError> {
    let artifacts = Objects::open(&cluster.artifacts, &options.environment)?;
    artifacts.ready().await?;
    let lasting = JetStreamOptions {
        queue,
        time_to_live: options.time_to_live,
        lease_time: cluster.lease_time,
        replicas: cluster.replicas,
    };
    Ok((Arc::new(JetStreamStore::connect(cluster, lasting).await?), Arc::new(artifacts)))
}
