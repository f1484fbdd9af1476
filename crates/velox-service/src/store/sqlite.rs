//! The embedded store: builds, their logs and the queue in one SQLite database.
//!
//! The database belongs to one process, which includes the workers. So leases are rows in temporary tables:
//! transactional, but never written to disk. When the process dies, they are lost, and the next process
//! queues the running builds again.
//!
//! Tenants take turns: next is the tenant with the fewest running builds, then the one with the least recent
//! turn. A build requested by several tenants is queued for each of them.

mod database;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Rows, named_params, params};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;
use velox_api::{ArtifactInfo, BuildId, BuildState, LogEntry, QueuePosition, Severity};

use self::database::{Database, transaction};
use super::{
    BuildStore, Lease, LeaseStatus, MAX_LOG_READ_BYTES, QueueDepth, RESUBMITTED, StoreError, StoreOptions,
    Submission, WORKER_LOST, WORKER_STOPPED, is_fresh,
    turns::{self, QueueLoad, QueuePositions, TenantLine},
    watch::Watches,
};
use crate::{
    build::{Build, BuildOutcome, NewBuild, Tenant},
    rate::{self, unix_time},
};

/// The embedded store. Clones share the database.
#[derive(Clone)]
pub(crate) struct SqliteStore {
    database: Arc<Database>,
    notifier: Arc<Notifier>,
    options: StoreOptions,
    start: Instant,
}

/// Notifies waiters of changes.
#[derive(Default)]
struct Notifier {
    builds: Arc<Watches>,
    /// Notified when a build is queued.
    queue: Notify,
    /// The number of changes of builds, log entries aside.
    queue_changes: AtomicU64,
    /// The queue positions after this number of changes.
    positions: Mutex<Option<(u64, QueuePositions)>>,
}

impl Notifier {
    fn changed(&self, build: &Build) {
        self.queue_changes.fetch_add(1, Ordering::SeqCst);
        self.builds.tell(build.id);
        if build.state == BuildState::Queued {
            self.queue.notify_waiters();
        }
    }
}

impl SqliteStore {
    /// Opens or creates the database file and queues the builds that were running in the previous process
    /// again.
    ///
    /// # Errors
    /// Another process uses the database, its schema is newer, or it isn't readable or writable.
    pub(crate) async fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let notifier = Arc::new(Notifier::default());
        let start = Instant::now();
        let for_regular = Arc::clone(&notifier);
        let regular = move || {
            let notifier = Arc::clone(&for_regular);
            transaction(
                move |connection| expire(connection, millis(start)),
                move |expired| match expired {
                    Ok(builds) => builds.iter().for_each(|build| notifier.changed(build)),
                    Err(error) => tracing::error!(%error, "failed to end expired leases"),
                },
            )
        };
        let tick = (options.lease_time / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let path = path.to_owned();
        let open = move || Database::open(&path, tick, regular);
        let broke_off = |error| StoreError::Failed(format!("failed to open the database: {error}"));
        let database = tokio::task::spawn_blocking(open).await.map_err(broke_off)??;
        let this = Self { database: Arc::new(database), notifier, options, start };
        let recovered = this.database.write(recover, |_| {}).await?;
        if recovered > 0 {
            tracing::info!(builds = recovered, "queued the unfinished builds of the previous process again");
        }
        Ok(this)
    }

    /// Runs a write and notifies the watchers of the changed build.
    async fn change<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        build: impl Fn(&T) -> Option<&Build> + Send + 'static,
    ) -> Result<T, StoreError> {
        let notifier = Arc::clone(&self.notifier);
        let tell = move |given: &T| {
            if let Some(build) = build(given) {
                notifier.changed(build);
            }
        };
        self.database.write(step, tell).await
    }

    async fn take(&self, worker: String) -> Result<Option<Lease>, StoreError> {
        let until = millis(self.start) + millis_of(self.options.lease_time);
        let step = move |connection: &Connection| take(connection, &worker, until);
        self.change(step, |lease: &Option<Lease>| lease.as_ref().map(|lease| &lease.build)).await
    }

    /// Runs a write that requires the lease.
    async fn with_lease(
        &self,
        lease: &Lease,
        step: impl FnOnce(&Connection, BuildRow) -> Result<Build, StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (id, token) = (lease.build.id, lease.token.clone());
        let step = move |connection: &Connection| step(connection, leased(connection, id, &token)?);
        self.change(step, |build| Some(build)).await.map(|_| ())
    }
}

#[async_trait]
impl BuildStore for SqliteStore {
    async fn submit(&self, new: NewBuild) -> Result<Submission, StoreError> {
        let key = new.spec.key()?;
        let good = self.options.time_to_live;
        if !new.force {
            // Finished builds don't change, so most requests need no write.
            let key = key.clone();
            let look = move |connection: &Connection| {
                Ok(if live(connection, &key)?.is_some() { None } else { reusable(connection, &key, good)? })
            };
            if let Some(build) = self.database.read(look).await? {
                return Ok(Submission::Finished(build));
            }
        }
        let queue = self.options.queue.unwrap_or(u64::MAX);
        let step = move |connection: &Connection| submit(connection, new, key, queue, good);
        self.change(step, |submitted| match submitted {
            Submission::Queued(build) | Submission::Joined(build) => Some(build),
            Submission::Finished(_) => None,
        })
        .await
    }

    async fn get(&self, id: BuildId) -> Result<Option<Build>, StoreError> {
        self.database.read(move |connection| Ok(find(connection, id)?.map(|row| row.build))).await
    }

    async fn lock(&self, id: BuildId) -> Result<Option<String>, StoreError> {
        let look = move |connection: &Connection| {
            let mut select = connection.prepare_cached("SELECT lock FROM builds WHERE id = ?")?;
            let found: Option<Option<String>> =
                select.query_row([id.to_string()], |row| row.get(0)).optional()?;
            Ok(found.flatten())
        };
        self.database.read(look).await
    }

    async fn last_failure(&self, key: &str, since: Timestamp) -> Result<Option<Build>, StoreError> {
        let key = key.to_owned();
        let look = move |connection: &Connection| {
            if live(connection, &key)?.is_some() {
                return Ok(None);
            }
            let condition = "WHERE finished >= ? AND key = ? ORDER BY number DESC LIMIT 1";
            let newest = one(connection, condition, params![since.as_second(), key])?;
            Ok(newest.map(|row| row.build).filter(|build| build.state == BuildState::Failed))
        };
        self.database.read(look).await
    }

    async fn cancel(&self, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
        let tenant = tenant.clone();
        self.change(move |connection| cancel(connection, id, &tenant), Option::as_ref).await
    }

    async fn log(&self, id: BuildId, after: u64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let look = move |connection: &Connection| {
            let mut select = connection.prepare_cached(
                "SELECT entry FROM log JOIN builds ON builds.number = log.build
                 WHERE builds.id = ? AND seq > ? ORDER BY seq LIMIT ?",
            )?;
            // SQLite's integers are signed.
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            read_log(select.query(params![id.to_string(), after, limit])?, MAX_LOG_READ_BYTES)
        };
        self.database.read(look).await
    }

    async fn log_end(&self, id: BuildId, bytes: usize) -> Result<Vec<LogEntry>, StoreError> {
        let look = move |connection: &Connection| {
            let mut select = connection.prepare_cached(
                "SELECT entry FROM log JOIN builds ON builds.number = log.build
                 WHERE builds.id = ? ORDER BY seq DESC",
            )?;
            let mut entries = read_log(select.query([id.to_string()])?, bytes)?;
            entries.reverse();
            Ok(entries)
        };
        self.database.read(look).await
    }

    async fn watch(&self, id: BuildId) -> Result<BoxStream<'static, ()>, StoreError> {
        Ok(self.notifier.builds.listen(id))
    }

    async fn artifact(&self, sha256: &str) -> Result<Option<ArtifactInfo>, StoreError> {
        let sha256 = sha256.to_owned();
        let look = move |connection: &Connection| {
            let mut select =
                connection.prepare_cached("SELECT artifact FROM builds WHERE sha256 = ? LIMIT 1")?;
            let found: Option<String> = select.query_row([sha256], |row| row.get(0)).optional()?;
            found.map(|artifact| parse(&artifact)).transpose()
        };
        self.database.read(look).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let value = Uuid::new_v4().to_string();
        let written = value.clone();
        let write = move |connection: &Connection| {
            let replace = "INSERT OR REPLACE INTO probe (number, value) VALUES (1, ?)";
            connection.prepare_cached(replace)?.execute([&written])?;
            Ok(())
        };
        self.database.write(write, |()| {}).await?;
        let read = move |connection: &Connection| {
            let found: String = connection.query_row("SELECT value FROM probe", [], |row| row.get(0))?;
            one(connection, "ORDER BY number DESC LIMIT 1", [])?;
            Ok(found == value)
        };
        match self.database.read_anew(read).await? {
            true => Ok(()),
            false => Err(StoreError::Failed("the database returned other data than was written".to_owned())),
        }
    }

    async fn lease(&self, worker: &str) -> Result<Lease, StoreError> {
        loop {
            let mut queued = std::pin::pin!(self.notifier.queue.notified());
            queued.as_mut().enable();
            let (sender, receiver) = oneshot::channel();
            let (this, worker) = (self.clone(), worker.to_owned());
            tokio::spawn(async move {
                // The caller was dropped: release the lease for the next worker.
                if let Err(Ok(Some(lease))) = sender.send(this.take(worker).await)
                    && let Err(error) = this.release(&lease).await
                {
                    tracing::warn!(%error, build = %lease.build.id, "failed to release a lease");
                }
            });
            let ended = |_| StoreError::Failed("the queue is closed".to_owned());
            match receiver.await.map_err(ended)?? {
                Some(lease) => return Ok(lease),
                None => queued.await,
            }
        }
    }

    fn lease_time(&self) -> Duration {
        self.options.lease_time
    }

    async fn extend(&self, lease: &Lease) -> Result<LeaseStatus, StoreError> {
        let (id, token) = (lease.build.id, lease.token.clone());
        let until = millis(self.start) + millis_of(self.options.lease_time);
        let step = move |connection: &Connection| {
            let mut extend = connection.prepare_cached(
                "UPDATE leases SET until = max(until, ?) WHERE token = ?
                 RETURNING (SELECT wanted FROM builds WHERE number = leases.build)",
            )?;
            let wanted: Option<u64> = extend.query_row(params![until, token], |row| row.get(0)).optional()?;
            match wanted.ok_or(StoreError::LeaseExpired(id))? {
                0 => Ok(LeaseStatus::Cancelled),
                _ => Ok(LeaseStatus::Active),
            }
        };
        self.database.write(step, |_| {}).await
    }

    async fn append_log(&self, lease: &Lease, entries: Vec<LogEntry>) -> Result<(), StoreError> {
        let (id, token) = (lease.build.id, lease.token.clone());
        let step = move |connection: &Connection| {
            append(connection, leased(connection, id, &token)?.number, entries)
        };
        let notifier = Arc::clone(&self.notifier);
        self.database.write(step, move |()| notifier.builds.tell(id)).await
    }

    /// The artifact directory records the last use.
    async fn reserve_artifact(&self, _: &Lease, _: &ArtifactInfo) -> Result<(), StoreError> {
        Ok(())
    }

    async fn finish(&self, lease: &Lease, outcome: BuildOutcome) -> Result<(), StoreError> {
        let step = |connection: &Connection, mut row: BuildRow| {
            row.build.end(outcome.state(), Some(outcome));
            row.leave(connection)?;
            row.write(connection)?;
            Ok(row.build)
        };
        self.with_lease(lease, step).await
    }

    async fn finish_cancelled(&self, lease: &Lease) -> Result<(), StoreError> {
        let step = |connection: &Connection, mut row: BuildRow| {
            // It may have been requested again.
            row.put_back(connection, RESUBMITTED)?;
            Ok(row.build)
        };
        self.with_lease(lease, step).await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let step = |connection: &Connection, mut row: BuildRow| {
            // A shutdown isn't the build's fault.
            row.build.attempts = row.build.attempts.saturating_sub(1);
            row.put_back(connection, WORKER_STOPPED)?;
            Ok(row.build)
        };
        self.with_lease(lease, step).await
    }

    async fn depth(&self) -> Result<QueueDepth, StoreError> {
        let look = |connection: &Connection| {
            Ok(QueueDepth {
                queued: count(connection, BuildState::Queued)?,
                running: count(connection, BuildState::Running)?,
            })
        };
        self.database.read(look).await
    }

    async fn position(&self, id: BuildId) -> Result<Option<QueuePosition>, StoreError> {
        let changes = self.notifier.queue_changes.load(Ordering::SeqCst);
        let cached = || self.notifier.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, positions)) = &*cached()
            && *at == changes
        {
            return Ok(positions.of(id));
        }
        let positions = self.database.read(positions).await?;
        let position = positions.of(id);
        *cached() = Some((changes, positions));
        Ok(position)
    }

    async fn prune(&self, before: Timestamp, max_builds: u64, _: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            let some =
                self.database.write(move |connection| prune(connection, before, max_builds), |_| {}).await?;
            pruned += some;
            if some == 0 {
                return Ok(pruned);
            }
        }
    }

    /// Without times: the artifact directory records the last use.
    async fn artifacts(&self) -> Result<HashMap<String, Timestamp>, StoreError> {
        let look = |connection: &Connection| {
            let mut select =
                connection.prepare_cached("SELECT DISTINCT sha256 FROM builds WHERE sha256 IS NOT NULL")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, Timestamp::UNIX_EPOCH)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.database.read(look).await
    }

    async fn remove_artifacts(
        &self,
        sha256s: &[String],
        _: Timestamp,
    ) -> Result<HashSet<String>, StoreError> {
        let removed: HashSet<String> = sha256s.iter().cloned().collect();
        let sha256s = removed.clone();
        let remove = move |connection: &Connection| {
            let mut find = connection.prepare_cached("SELECT number FROM builds WHERE sha256 = ?")?;
            for sha256 in &sha256s {
                let numbers = find.query_map([sha256], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
                numbers.into_iter().try_for_each(|number| delete(connection, number))?;
            }
            Ok(())
        };
        self.database.write(remove, |()| {}).await?;
        Ok(removed)
    }
}

/// A build and its row number.
struct BuildRow {
    number: i64,
    build: Build,
}

/// Without the lock, which is large.
const SELECT: &str = "SELECT builds.number, builds.build FROM builds";

impl BuildRow {
    fn read(row: &rusqlite::Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { number: row.get(0)?, build: parse(&row.get::<_, String>(1)?)? })
    }

    /// Inserts or updates the row.
    fn write(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut build = self.build.clone();
        let lock = build.take_lock();
        let artifact = match &build.outcome {
            Some(BuildOutcome::Succeeded(made)) => Some(&made.artifact),
            _ => None,
        };
        let mut update = connection.prepare_cached(
            "INSERT INTO builds (number, id, key, tenant, state, wanted, finished, sha256, artifact, build, lock)
             VALUES (:number, :id, :key, :tenant, :state, :wanted, :finished, :sha256, :artifact, :build, :lock)
             ON CONFLICT (number) DO UPDATE SET state = :state, wanted = :wanted, finished = :finished,
             sha256 = :sha256, artifact = :artifact, build = :build, lock = coalesce(nullif(:lock, ''), lock)",
        )?;
        update.execute(named_params! {
            ":number": self.number,
            ":id": build.id.to_string(),
            ":key": build.key,
            ":tenant": build.tenant.0,
            ":state": build.state.name(),
            ":wanted": build.wanted_by.len(),
            ":finished": build.finished.map(Timestamp::as_second),
            ":sha256": artifact.map(|artifact| &artifact.sha256),
            ":artifact": artifact.map(serde_json::to_string).transpose()?,
            ":build": serde_json::to_string(&build)?,
            ":lock": lock,
        })?;
        Ok(())
    }

    /// Ends the lease, and queues the build before all others of its tenants unless that ends it.
    fn put_back(&mut self, connection: &Connection, why: &str) -> Result<(), StoreError> {
        self.build.put_back();
        self.leave(connection)?;
        self.write(connection)?;
        if self.build.state != BuildState::Queued {
            return Ok(());
        }
        for tenant in &self.build.wanted_by {
            wait(connection, self.number, tenant, FRONT)?;
        }
        append(connection, self.number, vec![LogEntry::new(Severity::Info, why)])
    }

    /// Removes the build from the queue and ends its lease.
    fn leave(&self, connection: &Connection) -> Result<(), StoreError> {
        connection.prepare_cached("DELETE FROM leases WHERE build = ?")?.execute([self.number])?;
        connection.prepare_cached("DELETE FROM waiting WHERE build = ?")?.execute([self.number])?;
        Ok(())
    }
}

/// The positions in a tenant's queue.
const FRONT: i64 = 0;
const BACK: i64 = 1;

fn wait(connection: &Connection, number: i64, tenant: &Tenant, place: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO waiting (tenant, place, build) VALUES (?, ?, ?)")?
        .execute(params![tenant.0, place, number])?;
    Ok(())
}

fn one(
    connection: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> Result<Option<BuildRow>, StoreError> {
    let mut select = connection.prepare_cached(&format!("{SELECT} {condition}"))?;
    select.query_and_then(values, BuildRow::read)?.next().transpose()
}

fn find(connection: &Connection, id: BuildId) -> Result<Option<BuildRow>, StoreError> {
    one(connection, "WHERE id = ?", [id.to_string()])
}

/// The queued or running build of this key.
fn live(connection: &Connection, key: &str) -> Result<Option<BuildRow>, StoreError> {
    one(connection, "WHERE key = ? AND state IN ('queued', 'running')", [key])
}

/// The newest successful build of this key, if fresh.
fn reusable(connection: &Connection, key: &str, time_to_live: Duration) -> Result<Option<Build>, StoreError> {
    let condition = "WHERE key = ? AND state = 'succeeded' ORDER BY number DESC LIMIT 1";
    let newest = one(connection, condition, [key])?.map(|row| row.build);
    Ok(newest.filter(|build| is_fresh(build, time_to_live)))
}

fn leased(connection: &Connection, id: BuildId, token: &str) -> Result<BuildRow, StoreError> {
    let condition = "JOIN leases ON leases.build = builds.number WHERE token = ?";
    one(connection, condition, [token])?.ok_or(StoreError::LeaseExpired(id))
}

fn count(connection: &Connection, state: BuildState) -> Result<u64, StoreError> {
    let mut select = connection.prepare_cached("SELECT count(*) FROM builds WHERE state = ?")?;
    Ok(select.query_row([state.name()], |row| row.get(0))?)
}

fn positions(connection: &Connection) -> Result<QueuePositions, StoreError> {
    let mut waiting = connection.prepare_cached(
        "SELECT waiting.tenant, builds.id FROM waiting JOIN builds ON builds.number = waiting.build
         ORDER BY place, number",
    )?;
    let waiting = waiting.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
    let waiting: Vec<(String, String)> = waiting.collect::<Result<_, _>>()?;
    let named = |(tenant, id): (String, String)| Some((tenant, id.parse().ok()?));
    let mut running = connection
        .prepare_cached("SELECT tenant, count(*) FROM builds WHERE state = 'running' GROUP BY tenant")?;
    let running = running.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(QueuePositions::new(waiting.into_iter().filter_map(named), running.collect::<Result<_, _>>()?))
}

fn submit(
    connection: &Connection,
    new: NewBuild,
    key: String,
    queue: u64,
    good: Duration,
) -> Result<Submission, StoreError> {
    if let Some(mut row) = live(connection, &key)? {
        if row.build.wanted_by.insert(new.tenant.clone()) {
            row.write(connection)?;
            if row.build.state == BuildState::Queued {
                let join = "INSERT INTO waiting SELECT ?, min(place), build FROM waiting WHERE build = ?";
                connection.prepare_cached(join)?.execute(params![new.tenant.0, row.number])?;
            }
        }
        return Ok(Submission::Joined(row.build));
    }
    if !new.force
        && let Some(build) = reusable(connection, &key, good)?
    {
        return Ok(Submission::Finished(build));
    }
    let number_of = |query: &str| -> Result<u64, StoreError> {
        Ok(connection.prepare_cached(query)?.query_row([&new.tenant.0], |row| row.get(0))?)
    };
    let load = QueueLoad {
        queued: count(connection, BuildState::Queued)?,
        queued_of_tenant: number_of("SELECT count(*) FROM waiting WHERE tenant = ?")?,
        unfinished_of_tenant: number_of(
            "SELECT count(*) FROM builds WHERE state IN ('queued', 'running') AND tenant = ?",
        )?,
    };
    load.admit(queue, new.at_once)?;
    if let Some(an_hour) = new.per_hour {
        take_permit(connection, &new.tenant, an_hour)?;
    }
    let number = "SELECT coalesce(max(number), 0) + 1 FROM builds";
    let number = connection.prepare_cached(number)?.query_row([], |row| row.get(0))?;
    let build = Build::queued(new, key);
    let row = BuildRow { number, build };
    row.write(connection)?;
    wait(connection, number, &row.build.tenant, BACK)?;
    Ok(Submission::Queued(row.build))
}

fn take_permit(connection: &Connection, tenant: &Tenant, an_hour: u64) -> Result<(), StoreError> {
    let now = unix_time();
    connection.prepare_cached("DELETE FROM rates WHERE full_at <= ?")?.execute([millis_of(now)])?;
    let mut select = connection.prepare_cached("SELECT full_at FROM rates WHERE tenant = ?")?;
    let full_at: Option<i64> = select.query_row([&tenant.0], |row| row.get(0)).optional()?;
    let full_at = Duration::from_millis(full_at.unwrap_or_default().unsigned_abs());
    let next = rate::take_permit(full_at, now, an_hour).map_err(|wait| StoreError::RateLimit { wait })?;
    connection
        .prepare_cached("INSERT OR REPLACE INTO rates (tenant, full_at) VALUES (?, ?)")?
        .execute(params![tenant.0, millis_of(next)])?;
    Ok(())
}

fn cancel(connection: &Connection, id: BuildId, tenant: &Tenant) -> Result<Option<Build>, StoreError> {
    let Some(mut row) = find(connection, id)? else { return Ok(None) };
    let wanted = row.build.wanted_by.contains(tenant);
    if !wanted && row.build.tenant != *tenant {
        return Ok(None);
    }
    if wanted && !row.build.state.is_final() {
        row.build.wanted_by.remove(tenant);
        if row.build.state == BuildState::Queued && row.build.wanted_by.is_empty() {
            row.build.end(BuildState::Cancelled, None);
        }
        row.write(connection)?;
        let leave = "DELETE FROM waiting WHERE tenant = ? AND build = ?";
        connection.prepare_cached(leave)?.execute(params![tenant.0, row.number])?;
    }
    Ok(Some(row.build))
}

fn take(connection: &Connection, worker: &str, until: i64) -> Result<Option<Lease>, StoreError> {
    let lines = "
        SELECT tenant, (SELECT count(*) FROM leases WHERE leases.tenant = line.tenant), coalesce(turn, 0) FROM
            (SELECT tenant, min(place) AS place, min(build) AS build FROM waiting GROUP BY tenant) AS line
        LEFT JOIN turns USING (tenant)
        ORDER BY place, build";
    let mut lines = connection.prepare_cached(lines)?;
    let lines = lines.query_map([], |row| {
        Ok(TenantLine { name: row.get(0)?, running: row.get(1)?, last_turn: row.get(2)? })
    })?;
    let mut lines: Vec<TenantLine<String>> = lines.collect::<Result<_, _>>()?;
    turns::sort_by_turn(&mut lines);
    let Some(TenantLine { name: tenant, .. }) = lines.into_iter().next() else { return Ok(None) };
    let condition = "JOIN waiting ON waiting.build = builds.number WHERE waiting.tenant = ?
                     ORDER BY place, waiting.build LIMIT 1";
    let Some(mut row) = one(connection, condition, [&tenant])? else { return Ok(None) };
    row.leave(connection)?;
    let turn = "INSERT INTO turns SELECT ?, coalesce(max(turn), 0) + 1 FROM turns WHERE true
                ON CONFLICT (tenant) DO UPDATE SET turn = excluded.turn";
    connection.prepare_cached(turn)?.execute([&tenant])?;
    connection
        .prepare_cached("DELETE FROM turns WHERE turn < (SELECT max(turn) FROM turns) - 10000")?
        .execute([])?;
    let token = Uuid::new_v4().to_string();
    connection
        .prepare_cached("INSERT INTO leases (token, build, tenant, worker, until) VALUES (?, ?, ?, ?, ?)")?
        .execute(params![token, row.number, tenant, worker, until])?;
    row.build.start();
    row.write(connection)?;
    Ok(Some(Lease { build: row.build, token }))
}

fn append(connection: &Connection, number: i64, entries: Vec<LogEntry>) -> Result<(), StoreError> {
    let last = "SELECT coalesce(max(seq), 0) FROM log WHERE build = ?";
    let last: i64 = connection.prepare_cached(last)?.query_row([number], |row| row.get(0))?;
    let mut insert = connection.prepare_cached("INSERT INTO log (build, seq, entry) VALUES (?, ?, ?)")?;
    for (seq, entry) in (last.unsigned_abs() + 1..).zip(entries) {
        insert.execute(params![number, seq, serde_json::to_string(&LogEntry { seq, ..entry })?])?;
    }
    Ok(())
}

/// Reads entries until they have `bytes` of text; the remaining rows are not read.
fn read_log(mut rows: Rows<'_>, bytes: usize) -> Result<Vec<LogEntry>, StoreError> {
    let (mut entries, mut size) = (Vec::new(), 0);
    while size < bytes
        && let Some(row) = rows.next()?
    {
        let entry: LogEntry = parse(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
        size += entry.text.len();
        entries.push(entry);
    }
    Ok(entries)
}

/// Ends expired leases.
fn expire(connection: &Connection, now: i64) -> Result<Vec<Build>, StoreError> {
    let condition = "JOIN leases ON leases.build = builds.number WHERE until <= ? LIMIT 1";
    let mut expired = Vec::new();
    while let Some(mut row) = one(connection, condition, [now])? {
        tracing::warn!(build = %row.build.id, "a lease expired");
        row.put_back(connection, WORKER_LOST)?;
        expired.push(row.build);
    }
    Ok(expired)
}

/// Queues the builds that were running in the previous process again.
fn recover(connection: &Connection) -> Result<u64, StoreError> {
    let mut recovered = 0;
    while let Some(mut row) = one(connection, "WHERE state = 'running' LIMIT 1", [])? {
        row.put_back(connection, "the service restarted; the build is queued again")?;
        recovered += 1;
    }
    Ok(recovered)
}

fn prune(connection: &Connection, before: Timestamp, most: u64) -> Result<u64, StoreError> {
    // In batches, so that other writes aren't delayed.
    let mut select = connection.prepare_cached(
        "SELECT number FROM builds WHERE finished < ?
         UNION SELECT number FROM
             (SELECT number FROM builds WHERE finished IS NOT NULL ORDER BY finished DESC, number DESC LIMIT -1 OFFSET ?)
         LIMIT 20",
    )?;
    let values = params![before.as_second(), i64::try_from(most).unwrap_or(i64::MAX)];
    let numbers = select.query_map(values, |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    for number in &numbers {
        delete(connection, *number)?;
    }
    Ok(numbers.len() as u64)
}

fn delete(connection: &Connection, number: i64) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM log WHERE build = ?")?.execute([number])?;
    connection.prepare_cached("DELETE FROM builds WHERE number = ?")?.execute([number])?;
    Ok(())
}

fn millis(start: Instant) -> i64 {
    millis_of(start.elapsed())
}

fn millis_of(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Failed(format!("invalid data in the database: {error}")))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(format!("database error: {error}"))
    }
}

#[cfg(test)]
mod tests;
