//! Builds on NATS JetStream, for any number of nodes and workers.
//!
//! ```text
//!   KV_vx-builds     $KV.vx-builds.ID     a record: the build, and the lease that has it; changed by revision
//!   KV_vx-keys       $KV.vx-keys.KEY      the build that the key of a spec stands for; changed by revision
//!                    $KV.vx-keys.gate     who adds a build to the queue
//!   KV_vx-artifacts  $KV.vx-artifacts.SHA what an artifact is
//!   vx-jobs          vx.jobs.LANE.ID      a job that waits or is in a worker's hands (work queue; discards what is new)
//!   vx-logs          vx.logs.ID           a piece of a log
//! ```
//!
//! A build is queued in three steps, each of which anyone can do again: the key points to it (the compare-and-set that makes
//! one build of many requests; the pointer holds the whole build), its record is made, its job is published (unless
//! the stream has it). One node at a time does the first two ([`gate`]). Who dies after the first has answered nobody; whoever asks for the same goes on from there. A build
//! that has a record but no job is found by any node ([`reconcile`]). A job whose record is over is acked away.
//!
//! All of it needs NATS 2.9 and its file storage, nothing newer. A NATS server that is killed loses nothing that it
//! answered; one whose machine loses power may lose what it didn't sync (every two minutes, in 2.9): three replicas
//! keep it.

mod forget;
mod gate;
mod log;
mod mirror;
mod nats;
mod queue;
mod reconcile;
mod record;

use std::{io, sync::Arc, time::Duration};

use async_nats::{
    ConnectOptions, Event, HeaderMap, ServerAddr,
    jetstream::{
        self,
        consumer::{DeliverPolicy, push::OrderedConfig},
        message::Message,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
    },
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use url::Url;
use velox_api::{ArtifactInfo, BuildId, BuildState, LogEntry};

use self::{
    gate::no_more_keys,
    mirror::Mirror,
    nats::{ANSWER, Kept, PATIENCE, Put, Subjects, Trouble, is_removal, patiently},
    record::{Change, Found, Pointer, digest, lane, read, state_of, tenants_in, written},
};
use super::{Records, StoreError, Submission};
use crate::{
    build::{Build, BuildOutcome, NewBuild, Tenant},
    options::ClusterOptions,
};

/// How often others may be faster before a submission is given up.
const TRIES: u32 = 100;
/// The jobs that the stream takes beside the ones that wait: those in workers' hands.
const RUNNING: i64 = 1000;

/// How builds are kept on NATS.
#[derive(Debug, Clone)]
pub struct JetStreamOptions {
    /// How many builds may wait; `None`: what the nodes that take requests have set up.
    pub queue: Option<u64>,
    /// For how long a build is good whose refs may mean something else by then.
    pub time_to_live: Duration,
    /// How long a worker may be silent before its build is given to another. One for all workers: the last one that starts
    /// sets it.
    pub lease_time: Duration,
    /// How many NATS servers keep everything, when it is set up for the first time.
    pub replicas: usize,
}

/// Builds and the queue on NATS.
#[derive(Debug)]
pub struct JetStreamStore {
    shared: Arc<Shared>,
    /// What goes on as long as this is there.
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
pub(super) struct Shared {
    options: JetStreamOptions,
    builds: Subjects,
    keys: Subjects,
    artifacts: Subjects,
    jobs: Subjects,
    logs: Subjects,
    mirror: Arc<Mirror>,
    /// At the gate.
    turn: Mutex<()>,
    places: log::Places,
    hands: queue::Hands,
}

impl JetStreamStore {
    /// Connects, and sets up what isn't there yet.
    ///
    /// # Errors
    /// Which servers can't be reached, or what they can't do. Never a secret.
    pub async fn connect(cluster: &ClusterOptions, options: JetStreamOptions) -> Result<Self, StoreError> {
        let mirror = Arc::new(Mirror::default());
        let client = connect(cluster, &mirror).await?;
        let context =
            jetstream::context::ContextBuilder::new().timeout(ANSWER).ack_timeout(ANSWER).build(client);
        let file = Config { storage: StorageType::File, num_replicas: options.replicas, ..Config::default() };
        // What the key-value stores of NATS are; to make one as such asks 2.9 for what it doesn't know.
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
                max_messages: options.queue.map_or(0, most_jobs),
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
                // All that follows the prefix is a name.
                let prefix = config.subjects.concat().trim_end_matches('>').to_owned();
                Ok::<_, StoreError>(Subjects::new(set_up(&context, config).await?, context, prefix))
            }
        });
        let (builds, keys, artifacts, jobs, logs) = tokio::try_join!(builds, keys, artifacts, jobs, logs)?;
        let shared = Shared {
            options,
            builds,
            keys,
            artifacts,
            jobs,
            logs,
            mirror,
            turn: Mutex::default(),
            places: log::Places::default(),
            hands: queue::Hands::default(),
        };
        Self::start(Arc::new(shared)).await
    }

    async fn start(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let mut tasks = JoinSet::new();
        let (whole, is_whole) = tokio::sync::oneshot::channel();
        let following = Arc::clone(&shared);
        tasks.spawn(async move { following.follow_builds(whole).await });
        let following = Arc::clone(&shared);
        tasks.spawn(async move { following.follow_logs().await });
        let reconciling = Arc::clone(&shared);
        tasks.spawn(async move { reconciling.reconcile().await });
        match timeout(PATIENCE, is_whole).await {
            Ok(Ok(())) => Ok(Self { shared, _tasks: tasks }),
            _ => Err(StoreError::Failed("NATS doesn't tell which builds it has".to_owned())),
        }
    }
}

async fn connect(cluster: &ClusterOptions, mirror: &Arc<Mirror>) -> Result<async_nats::Client, StoreError> {
    let user = cluster.nats.iter().find(|url| !url.username().is_empty());
    let server = |url: &Url| {
        let mut url = url.clone();
        // It has its own way; a URL of these schemes can be without.
        let _ = (url.set_username(""), url.set_password(None));
        ServerAddr::from_url(url)
    };
    let servers: Vec<ServerAddr> =
        cluster.nats.iter().map(server).collect::<Result<_, _>>().map_err(|_| {
            StoreError::Failed(format!("{} is no server of NATS: write nats://host:4222", shown(cluster)))
        })?;
    patiently("be reached", || async {
        let mirror = Arc::clone(mirror);
        let mut options = ConnectOptions::new()
            .name("vx")
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(100 << attempt.min(4)).min(Duration::from_secs(1))
            })
            .event_callback(move |event| {
                let mirror = Arc::clone(&mirror);
                async move {
                    match event {
                        Event::Connected => mirror.missed(),
                        Event::Disconnected => tracing::warn!("the connection to NATS is lost"),
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
            options = options.credentials(credentials.expose_secret()).map_err(|_| Trouble {
                why: "the NATS credentials can't be read: they should be a file that `nsc` made".to_owned(),
                again: false,
            })?;
        }
        options.connect(servers.as_slice()).await.map_err(|error| Trouble {
            why: format!("{} ({error})", shown(cluster)),
            again: !is_refused(&error),
        })
    })
    .await
}

/// Whether the one doesn't let in the other: for want of a password, or of a certificate that somebody known vouches for.
fn is_refused(error: &async_nats::ConnectError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    matches!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation)
        || source.is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::InvalidData)
}

/// The servers' addresses, without what else their URLs hold.
fn shown(cluster: &ClusterOptions) -> String {
    let shown = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    };
    cluster.nats.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn most_jobs(queue: u64) -> i64 {
    i64::try_from(queue).unwrap_or(i64::MAX).saturating_mul(2).saturating_add(RUNNING)
}

/// A stream with these settings; one that is there keeps its own, save for how many messages it takes.
async fn set_up(context: &jetstream::Context, config: Config) -> Result<Stream, StoreError> {
    patiently("set up a stream", || async {
        let stream = context.get_or_create_stream(config.clone()).await.map_err(Trouble::again)?;
        let there = &stream.cached_info().config;
        if config.max_messages > 0 && there.max_messages != config.max_messages {
            let new = Config { max_messages: config.max_messages, ..there.clone() };
            context.update_stream(&new).await.map_err(Trouble::again)?;
        }
        Ok(stream)
    })
    .await
}

impl Shared {
    /// Keeps the mirror; says when it has seen everything for the first time.
    async fn follow_builds(&self, whole: tokio::sync::oneshot::Sender<()>) {
        let mut whole = Some(whole);
        loop {
            let config = self.builds.heads_from(DeliverPolicy::LastPerSubject);
            let followed = follow(self.builds.stream(), config, |message, rest| {
                if let Some(message) = message {
                    self.see(message);
                }
                if rest == 0
                    && let Some(whole) = whole.take()
                {
                    let _ = whole.send(());
                }
            });
            followed.await;
            self.mirror.missed();
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn see(&self, message: &Message) {
        let id = self.builds.name(&message.subject).and_then(|name| name.parse().ok());
        let (Some(id), Ok(info)) = (id, message.info()) else { return };
        let sequence = info.stream_sequence;
        match &message.headers {
            Some(headers) if is_removal(headers) => self.mirror.saw_removal(id),
            Some(headers) => {
                if let Some(state) = state_of(headers) {
                    self.mirror.saw(id, sequence, state, tenants_in(headers));
                }
            }
            None => {}
        }
        self.mirror.reach(sequence);
    }

    async fn follow_logs(&self) {
        loop {
            // One that was told before: after a reconnection it goes on from there.
            let config = self.logs.heads_from(DeliverPolicy::Last);
            let followed = follow(self.logs.stream(), config, |message, _| {
                let name = message.and_then(|message| self.logs.name(&message.subject));
                if let Some(id) = name.and_then(|name| name.parse().ok()) {
                    self.mirror.saw_log(id);
                }
            });
            followed.await;
            self.mirror.missed();
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Tries to make this build the one that its key stands for.
    async fn try_submit(&self, new: &NewBuild, build: &Build) -> Result<Option<Submission>, StoreError> {
        let (pointer, revision): (Option<Pointer>, u64) = match self.keys.read(&build.key).await? {
            Kept::Absent => (None, 0),
            Kept::Removed { revision, .. } => (None, revision),
            Kept::There(message) => (Some(read(&message.payload)?), message.sequence),
        };
        let mut made = None;
        if let Some(pointer) = pointer {
            // It was kept, and the answer was lost.
            if pointer.build.id == build.id {
                let added = self.record_of(build, revision).await?;
                return self.enqueue(build, added).await.map(Some);
            }
            match self.join(&pointer, new).await? {
                Joined::Good(submitted) => return Ok(Some(*submitted)),
                Joined::Over(last) => made = last,
            }
        }
        let admission = self.admit(new).await?;
        let added = self.add(build, made, revision).await;
        let record = added.as_ref().ok().and_then(|added| added.as_ref()?.record);
        self.leave(admission, record).await;
        match added? {
            Some(added) => self.enqueue(build, added).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes this build the one that its key stands for, in the place of what is there at this revision, and makes its record.
    /// `None`: somebody else was faster.
    async fn add(
        &self,
        build: &Build,
        made: Option<BuildId>,
        revision: u64,
    ) -> Result<Option<Added>, StoreError> {
        let pointer = written(&Pointer { build: build.clone(), made })?;
        match self.keys.put(&build.key, pointer, &HeaderMap::new(), revision).await? {
            Put::Done(pointer) => self.record_of(build, pointer).await.map(Some),
            Put::Conflict => Ok(None),
            Put::Full | Put::TooLarge => Err(no_more_keys()),
        }
    }

    /// Makes the record of a build to which its key points at this revision, unless who joined it did.
    async fn record_of(&self, build: &Build, pointer: u64) -> Result<Added, StoreError> {
        let record = match self.create_record(build).await? {
            Put::Done(revision) => Some(revision),
            _ => None,
        };
        Ok(Added { pointer, record })
    }

    /// Makes the job of a build.
    async fn enqueue(&self, build: &Build, added: Added) -> Result<Submission, StoreError> {
        if self.publish(build, &build.tenant).await? == Put::Full {
            // Who has joined it meanwhile waits until there is room.
            if let Some(revision) = added.record
                && let Put::Done(_) = self.builds.remove(&build.id.to_string(), revision).await?
            {
                self.mirror.saw_removal(build.id);
                self.keys.remove(&build.key, added.pointer).await?;
                return Err(StoreError::QueueFull { waiting: self.mirror.depth().queued });
            }
        }
        Ok(Submission::Queued(build.clone()))
    }

    /// Publishes the build's job in the lane of a tenant, unless it is there.
    async fn publish(&self, build: &Build, tenant: &Tenant) -> Result<Put, StoreError> {
        let name = format!("{}.{}", lane(&digest(tenant)), build.id);
        self.jobs.put(&name, bytes::Bytes::new(), &HeaderMap::new(), 0).await
    }

    /// Removes the build's jobs from all lanes. One that stays is acked away by the worker that finds it.
    async fn remove_jobs(&self, build: &Build) {
        let subject = self.jobs.subject(&format!("*.{}", build.id));
        let _ = self.jobs.stream().purge().filter(subject).await;
    }

    /// Wants the build that the key points to, if it is good for that.
    async fn join(&self, pointer: &Pointer, new: &NewBuild) -> Result<Joined, StoreError> {
        let pointed = &pointer.build;
        if let Found::Absent = self.record(pointed.id).await? {
            // Who pointed the key to it is at it, or dead.
            self.create_record(pointed).await?;
            self.publish(pointed, &pointed.tenant).await?;
        }
        let mut joined_now = false;
        let joined = self.change(pointed.id, |record| {
            let build = &mut record.build;
            if build.state.is_final() || !build.wanted_by.insert(new.tenant.clone()) {
                return Change::Keep(build.clone());
            }
            joined_now = true;
            Change::Put(build.clone())
        });
        let joined = joined.await?;
        match joined {
            Some(build) if !build.state.is_final() => {
                // It stands in the line of each tenant who wants it.
                if joined_now && build.state == BuildState::Queued {
                    self.publish(&build, &new.tenant).await?;
                }
                Ok(Joined::Good(Box::new(Submission::Joined(build))))
            }
            over => {
                let over = over.filter(|build| build.state == BuildState::Succeeded);
                let made = match (over, pointer.made) {
                    (None, Some(made)) => match self.record(made).await? {
                        Found::There(record, _) => Some(record.build),
                        Found::Absent | Found::Removed => None,
                    },
                    (over, _) => over,
                };
                Ok(match made {
                    Some(made) if !new.force && self.is_good(&made).await? => {
                        Joined::Good(Box::new(Submission::Finished(Arc::new(made))))
                    }
                    made => Joined::Over(made.map(|made| made.id)),
                })
            }
        }
    }

    /// Whether a build that succeeded isn't stale, and what it made isn't about to be removed.
    async fn is_good(&self, build: &Build) -> Result<bool, StoreError> {
        let age = build.finished.map(|finished| Timestamp::now().duration_since(finished).unsigned_abs());
        let fresh = build.spec.is_exact() || age.is_some_and(|age| age < self.options.time_to_live);
        let Some(BuildOutcome::Succeeded(made)) = build.outcome.as_ref().filter(|_| fresh) else {
            return Ok(false);
        };
        Ok(self.touch(&made.artifact.sha256, None).await?.is_some())
    }
}

/// The revisions of what makes a build one; `None`: somebody else made its record.
struct Added {
    pointer: u64,
    record: Option<u64>,
}

/// What became of a try to join a build.
enum Joined {
    /// It is good for the request.
    Good(Box<Submission>),
    /// It is over; this is the last one that succeeded.
    Over(Option<BuildId>),
}

/// Gives each message to `each`, with the number of those that wait behind it, until something is wrong.
async fn follow(stream: &Stream, config: OrderedConfig, mut each: impl FnMut(Option<&Message>, u64)) {
    let Ok(consumer) = stream.create_consumer(config).await else { return };
    if consumer.cached_info().num_pending == 0 {
        each(None, 0);
    }
    let Ok(mut messages) = consumer.messages().await else { return };
    while let Some(Ok(message)) = messages.next().await {
        let rest = message.info().map_or(0, |info| info.pending);
        each(Some(&message), rest);
    }
}

#[async_trait]
impl Records for JetStreamStore {
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError> {
        let build = Build::queued(new.clone(), new.spec.key()?);
        let shared = Arc::clone(&self.shared);
        // A task of its own: who breaks off in the gate would keep all others waiting.
        let submitting = tokio::spawn(async move {
            for _ in 0..TRIES {
                if let Some(submitted) = shared.try_submit(&new, &build).await? {
                    return Ok(submitted);
                }
            }
            Err(StoreError::Failed("too many ask for the same at once: try again".to_owned()))
        });
        let broke_off = |error| StoreError::Failed(format!("the submission broke off: {error}"));
        submitting.await.map_err(broke_off)?
    }

    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        Ok(match self.shared.record(id).await? {
            Found::There(record, _) => Some(record.build),
            Found::Absent | Found::Removed => None,
        })
    }

    async fn recent(&self, limit: usize) -> Result<Vec<Build>, StoreError> {
        let builds = futures::stream::iter(self.shared.mirror.newest(limit)).map(|id| self.get(id));
        builds.buffered(16).try_filter_map(async |build| Ok(build)).try_collect().await
    }

    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
        let mut tried = false;
        let cancelled = self.shared.change(id, |record| {
            let build = &mut record.build;
            let theirs = tried || build.tenant == *tenant || build.wanted_by.contains(tenant);
            if build.state.is_final() || !build.wanted_by.remove(tenant) {
                return Change::Keep(theirs.then(|| build.clone()));
            }
            tried = true;
            if build.wanted_by.is_empty() && build.state == BuildState::Queued {
                build.state = BuildState::Cancelled;
                build.finished = Some(Timestamp::now());
            }
            Change::Put(Some(build.clone()))
        });
        let cancelled = cancelled.await?.flatten();
        if let Some(build) = cancelled.as_ref().filter(|build| build.state == BuildState::Cancelled) {
            self.shared.remove_jobs(build).await;
        }
        Ok(cancelled)
    }

    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.shared.read_log(id, after, limit).await
    }

    async fn changes(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError> {
        Ok(self.shared.mirror.news(id))
    }

    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        self.shared.touch(sha256, None).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let answer = timeout(Duration::from_secs(2), self.shared.builds.stream().get_info()).await;
        match answer {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Failed(format!("NATS doesn't answer: {error}"))),
            Err(_) => Err(StoreError::Failed("NATS doesn't answer within 2 s".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
