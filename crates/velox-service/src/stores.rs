//! Opens the stores of a node: local, or shared in a cluster.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::{ArtifactBucket, SharedDirectory},
    options::{ClusterOptions, ServiceOptions},
    store::{BuildStore, JetStreamStore, SqliteStore, StoreError, StoreOptions},
};

/// The lease time of an embedded store.
const LEASE_TIME: Duration = Duration::from_secs(30);

/// The stores of a node.
pub(crate) struct Stores {
    pub(crate) builds: Arc<dyn BuildStore>,
    pub(crate) artifacts: Arc<ArtifactBucket>,
}

impl Stores {
    /// The stores of a node that accepts requests, with retention applied until `shutdown`.
    pub(crate) async fn open(
        options: &ServiceOptions,
        shared: Option<SharedDirectory>,
        shutdown: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let stores = match &options.cluster {
            Some(cluster) => Self::cluster(options, cluster, shared, Some(options.queue)).await?,
            None => {
                let store = StoreOptions {
                    queue: Some(options.queue),
                    time_to_live: options.time_to_live,
                    lease_time: LEASE_TIME,
                };
                let builds = SqliteStore::open(&options.data.join("builds.sqlite"), store).await?;
                let artifacts = ArtifactBucket::open_directory(&options.data.join("artifacts"))?;
                Self {
                    builds: Arc::new(builds),
                    artifacts: Arc::new(artifacts.with_shared_directory(shared)),
                }
            }
        };
        let (builds, artifacts) = (Arc::clone(&stores.builds), Arc::clone(&stores.artifacts));
        tokio::spawn(options.retention.run(builds, artifacts, shutdown.clone()));
        Ok(stores)
    }

    /// The stores of a cluster; `queue` is the queue's maximum length on nodes that accept requests.
    pub(crate) async fn cluster(
        options: &ServiceOptions,
        cluster: &ClusterOptions,
        shared: Option<SharedDirectory>,
        queue: Option<u64>,
    ) -> Result<Self, StoreError> {
        let artifacts = ArtifactBucket::open(&cluster.artifacts, &options.environment)?;
        artifacts.ready().await?;
        let (time_to_live, lease_time) = (options.time_to_live, cluster.lease_time);
        let store = StoreOptions { queue, time_to_live, lease_time };
        let builds = JetStreamStore::connect(cluster, store).await?;
        Ok(Self { builds: Arc::new(builds), artifacts: Arc::new(artifacts.with_shared_directory(shared)) })
    }
}
