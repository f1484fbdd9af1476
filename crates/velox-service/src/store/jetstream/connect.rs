//! Connects to NATS and sets up the streams.

use std::{io, sync::Arc, time::Duration};

use async_nats::{
    ConnectOptions, Event, ServerAddr,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
    },
};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use tokio::{sync::Mutex, task::JoinSet, time::timeout};
use url::Url;

use super::{
    JetStreamState, JetStreamStore,
    index::BuildIndex,
    log,
    nats::{NatsError, REQUEST_TIMEOUT, RETRY_TIMEOUT, SubjectStore, retry},
    queue,
};
use crate::{
    options::ClusterOptions,
    store::{StoreError, StoreOptions},
};

/// The number of jobs of running builds that the stream accepts besides the queued ones.
const MAX_RUNNING_JOBS: i64 = 1000;

impl JetStreamStore {
    /// Connects, and creates missing streams.
    ///
    /// # Errors
    /// The servers are unreachable or reject a request. The message has no secrets.
    pub(crate) async fn connect(cluster: &ClusterOptions, options: StoreOptions) -> Result<Self, StoreError> {
        let index = Arc::new(BuildIndex::default());
        let client = connect(cluster, &index).await?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .build(client);
        let file = Config { storage: StorageType::File, num_replicas: cluster.replicas, ..Config::default() };
        // The configuration of a NATS key-value store; async-nats would request options unknown to 2.9.
        let bucket = |what: &str, description: &str| Config {
            name: format!("KV_vx-{what}"),
            subjects: vec![format!("$KV.vx-{what}.>")],
            description: Some(description.to_owned()),
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..file.clone()
        };
        let streams = [
            bucket("builds", "Builds of vx"),
            bucket("keys", "Which build of vx the key of a spec stands for"),
            bucket("artifacts", "What the artifacts of vx are"),
            Config {
                name: "vx-jobs".to_owned(),
                subjects: vec!["vx.jobs.>".to_owned()],
                description: Some("Builds of vx that wait, or are in a worker's hands".to_owned()),
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                max_messages: options.queue.map_or(0, max_jobs),
                ..file.clone()
            },
            Config {
                name: "vx-logs".to_owned(),
                subjects: vec!["vx.logs.>".to_owned()],
                description: Some("What builds of vx said".to_owned()),
                ..file.clone()
            },
        ];
        let [builds, keys, artifacts, jobs, logs] = streams.map(|config| {
            let context = context.clone();
            async move {
                // The name follows the prefix.
                let prefix = config.subjects.concat().trim_end_matches('>').to_owned();
                let stream = set_up(&context, config).await?;
                Ok::<_, StoreError>(SubjectStore { stream, context, prefix })
            }
        });
        let (builds, keys, artifacts, jobs, logs) = tokio::try_join!(builds, keys, artifacts, jobs, logs)?;
        let state = JetStreamState {
            options,
            builds,
            keys,
            artifacts,
            jobs,
            logs,
            index,
            turn: Mutex::default(),
            positions: log::LogPositions::default(),
            held_jobs: queue::HeldJobs::default(),
        };
        Self::start(Arc::new(state)).await
    }

    async fn start(state: Arc<JetStreamState>) -> Result<Self, StoreError> {
        let mut tasks = JoinSet::new();
        let (whole, is_whole) = tokio::sync::oneshot::channel();
        let following = Arc::clone(&state);
        tasks.spawn(async move { following.follow_builds(whole).await });
        let following = Arc::clone(&state);
        tasks.spawn(async move { following.follow_logs().await });
        let reconciling = Arc::clone(&state);
        tasks.spawn(async move { reconciling.reconcile().await });
        match timeout(RETRY_TIMEOUT, is_whole).await {
            Ok(Ok(())) => Ok(Self { state, _tasks: tasks }),
            _ => Err(StoreError::Failed("NATS didn't list the builds in time".to_owned())),
        }
    }
}

async fn connect(
    cluster: &ClusterOptions,
    index: &Arc<BuildIndex>,
) -> Result<async_nats::Client, StoreError> {
    let user = cluster.nats.iter().find(|url| !url.username().is_empty());
    let server = |url: &Url| {
        let mut url = url.clone();
        // Credentials are passed separately; removing them can't fail for these schemes.
        let _ = (url.set_username(""), url.set_password(None));
        ServerAddr::from_url(url)
    };
    let servers: Vec<ServerAddr> =
        cluster.nats.iter().map(server).collect::<Result<_, _>>().map_err(|_| {
            StoreError::Failed(format!(
                "{} is no valid NATS server; expected nats://host:4222",
                server_list(cluster)
            ))
        })?;
    retry("connect to NATS", || async {
        let index = Arc::clone(index);
        let mut options = ConnectOptions::new()
            .name("vx")
            .connection_timeout(REQUEST_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(100 << attempt.min(4)).min(Duration::from_secs(1))
            })
            .event_callback(move |event| {
                let index = Arc::clone(&index);
                async move {
                    match event {
                        Event::Connected => index.missed(),
                        Event::Disconnected => tracing::warn!("lost the connection to NATS"),
                        _ => {}
                    }
                }
            });
        if let Some(url) = user {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let user = decoded(url.username());
            options = match url.password() {
                Some(password) => options.user_and_password(user, decoded(password)),
                None => options.token(user),
            };
        }
        if let Some(credentials) = &cluster.credentials {
            options = options.credentials(credentials.expose_secret()).map_err(|_| NatsError {
                why: "invalid NATS credentials; expected a file made by `nsc`".to_owned(),
                again: false,
            })?;
        }
        options.connect(servers.as_slice()).await.map_err(|error| NatsError {
            why: format!("{} ({error})", server_list(cluster)),
            again: !is_permanent(&error),
        })
    })
    .await
}

/// Whether the error is permanent: rejected credentials or an untrusted certificate.
fn is_permanent(error: &async_nats::ConnectError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    matches!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation)
        || source.is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::InvalidData)
}

/// The servers' hosts and ports, without credentials.
fn server_list(cluster: &ClusterOptions) -> String {
    let address = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    };
    cluster.nats.iter().map(address).collect::<Vec<_>>().join(", ")
}

fn max_jobs(queue: u64) -> i64 {
    i64::try_from(queue).unwrap_or(i64::MAX).saturating_mul(2).saturating_add(MAX_RUNNING_JOBS)
}

/// Creates the stream. An existing one keeps its settings except `max_messages`.
async fn set_up(context: &jetstream::Context, config: Config) -> Result<Stream, StoreError> {
    retry("create a stream", || async {
        let stream = context.get_or_create_stream(config.clone()).await.map_err(NatsError::again)?;
        let there = &stream.cached_info().config;
        if config.max_messages > 0 && there.max_messages != config.max_messages {
            let new = Config { max_messages: config.max_messages, ..there.clone() };
            context.update_stream(&new).await.map_err(NatsError::again)?;
        }
        Ok(stream)
    })
    .await
}
