//! The database file: one writer thread and several read connections.
//!
//! Group commit: writes that arrive during a sync share the next transaction. A write returns after its sync.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

use crate::store::StoreError;

/// The maximum number of writes per transaction.
const MAX_GROUP_WRITES: usize = 256;
/// The number of concurrent reads.
const MAX_READERS: usize = 4;
/// How long to wait for a checkpoint, or another program that locks the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The schema migrations, counted by `user_version`.
const MIGRATIONS: [&str; 4] =
    [include_str!("1.sql"), include_str!("2.sql"), include_str!("3.sql"), include_str!("4.sql")];

/// The start of each database file (<https://www.sqlite.org/fileformat2.html#the_database_header>).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The temporary tables: leases and turns.
const TEMPORARY_TABLES: &str = include_str!("temporary.sql");

/// A write. It runs within the group's transaction and returns a callback for the result of the commit.
pub(super) type Write = Box<dyn FnOnce(Result<&Connection, &str>) -> After + Send>;
type After = Box<dyn FnOnce(Result<(), &str>)>;

/// An open database. Dropping it waits for pending writes.
pub(super) struct Database {
    path: PathBuf,
    files: DatabaseFiles,
    writes: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
    readers: Mutex<Vec<Connection>>,
    reading: Semaphore,
    _lock: File,
}

impl Database {
    /// Opens or creates the file. `regular` returns a write that runs at least every `tick`.
    pub(super) fn open(
        path: &Path,
        tick: Duration,
        regular: impl Fn() -> Write + Send + 'static,
    ) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let failed = |error: rusqlite::Error| {
            StoreError::Failed(format!("the database {} can't be opened: {error}", path.display()))
        };
        make_private(path).map_err(|error| {
            StoreError::Failed(format!("failed to open the database {}: {error}", path.display()))
        })?;
        let mut connection = Connection::open(path).map_err(failed)?;
        let version = set_up(&mut connection).map_err(failed)?;
        if version > MIGRATIONS.len() {
            return Err(StoreError::Failed(format!(
                "the database {} is of a newer vx (schema {version}, this one knows {}): use that one, or another directory",
                path.display(),
                MIGRATIONS.len()
            )));
        }
        let files = DatabaseFiles::of(path);
        let (writes, inbox) = mpsc::channel();
        let writer = thread::Builder::new()
            .name("database".to_owned())
            .spawn({
                let files = files.clone();
                move || write(connection, &files, &inbox, tick, &regular)
            })
            .map_err(|error| StoreError::Failed(format!("no thread for the database: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            files,
            writes: Some(writes),
            writer: Some(writer),
            readers: Mutex::default(),
            reading: Semaphore::new(MAX_READERS),
            _lock: lock,
        })
    }

    /// Runs `step` atomically, rolling back on error. Calls `on_commit` with the result after the commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        on_commit: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let ended = || StoreError::Failed("the database is closed".to_owned());
        let write = transaction(step, move |result| {
            if let Ok(given) = &result {
                on_commit(given);
            }
            // The caller was dropped; the write is committed nevertheless.
            let _ = sender.send(result);
        });
        self.writes.as_ref().ok_or_else(ended)?.send(write).map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())?
    }

    /// Runs `look` on a read-only connection.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = |_| StoreError::Failed("the database is closed".to_owned());
        let _turn = self.reading.acquire().await.map_err(ended)?;
        let this = Arc::clone(self);
        let work = move || {
            let idle = this.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| this.reader(), Ok)?;
            let found = look(&connection);
            this.readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            found
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(found) => found,
            Err(error) => Err(StoreError::Failed(format!("a look into the database broke off: {error}"))),
        }
    }

    /// Runs `look` on a new connection, which reads the file and not what others have in memory.
    pub(super) async fn read_anew<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = Arc::clone(self);
        let work = move || {
            this.files.check().map_err(StoreError::Failed)?;
            let mut start = [0; MAGIC.len()];
            let read = File::open(&this.path).and_then(|mut file| file.read_exact(&mut start));
            read.map_err(|error| StoreError::Failed(format!("failed to read the database: {error}")))?;
            if start != *MAGIC {
                return Err(StoreError::Failed("the database file is damaged".to_owned()));
            }
            look(&this.reader()?)
        };
        let failed = |error| StoreError::Failed(format!("failed to read the database: {error}"));
        tokio::task::spawn_blocking(work).await.map_err(failed)?
    }

    fn reader(&self) -> Result<Connection, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(connection)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread of the database ended before its time");
        }
    }
}

/// A write that runs `step` atomically and calls `then` with its result.
pub(super) fn transaction<T: 'static>(
    step: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    then: impl FnOnce(Result<T, StoreError>) + Send + 'static,
) -> Write {
    Box::new(move |connection| {
        let result = match connection {
            Ok(connection) => run_in_savepoint(connection, step),
            Err(message) => Err(StoreError::Failed(message.to_owned())),
        };
        Box::new(move |kept| {
            then(match (result, kept) {
                (Ok(_), Err(message)) => Err(StoreError::Failed(message.to_owned())),
                (result, _) => result,
            });
        })
    })
}

fn run_in_savepoint<T>(
    connection: &Connection,
    step: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let run = |text| connection.prepare_cached(text)?.execute([]);
    run("SAVEPOINT step")?;
    let result = step(connection);
    if result.is_err() {
        run("ROLLBACK TO step")?;
    }
    run("RELEASE step")?;
    result
}

/// Runs writes until the channel is closed.
fn write(
    mut connection: Connection,
    files: &DatabaseFiles,
    inbox: &mpsc::Receiver<Write>,
    tick: Duration,
    regular: &dyn Fn() -> Write,
) {
    let mut due = Instant::now();
    loop {
        let mut group = Vec::new();
        match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(write) => group.push(write),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= due {
            group.insert(0, regular());
            due = Instant::now() + tick;
        }
        group.extend(inbox.try_iter().take(MAX_GROUP_WRITES - group.len()));
        write_group(&mut connection, files, group);
    }
}

fn write_group(connection: &mut Connection, files: &DatabaseFiles, group: Vec<Write>) {
    if let Err(message) = files.check() {
        // What SQLite would write to the moved files is lost at the next start.
        let after: Vec<After> = group.into_iter().map(|write| write(Err(&message))).collect();
        after.into_iter().for_each(|then| then(Ok(())));
        return;
    }
    let (after, kept): (Vec<After>, _) =
        match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => {
                let run = |write: Write| {
                    // A full disk ends the transaction; later writes would each commit on their own.
                    let ended = transaction.is_autocommit();
                    write(if ended { Err("a write before this one failed") } else { Ok(&transaction) })
                };
                let after = group.into_iter().map(run).collect();
                (after, transaction.commit())
            }
            Err(error) => {
                let message = format!("the database takes no writes: {error}");
                (group.into_iter().map(|write| write(Err(&message))).collect(), Ok(()))
            }
        };
    let kept = kept.map_err(|error| format!("the database can't keep what is written: {error}"));
    for then in after {
        then(kept.as_ref().copied().map_err(String::as_str));
    }
}

/// The device and inode of the database and its log when they were opened.
#[derive(Debug, Clone)]
struct DatabaseFiles(Vec<(PathBuf, (u64, u64))>);

impl DatabaseFiles {
    fn of(path: &Path) -> Self {
        let files = [path.to_owned(), beside(path, "-wal")];
        Self(files.into_iter().filter_map(|file| Some((file.clone(), identity(&file)?))).collect())
    }

    /// Fails if a file was moved, removed or replaced: SQLite continues with the old one, which the next start
    /// would not find.
    fn check(&self) -> Result<(), String> {
        match self.0.iter().find(|(file, opened)| identity(file) != Some(*opened)) {
            Some((file, _)) => Err(format!(
                "the database file {} was moved or replaced; restore it, or restart the service",
                file.display()
            )),
            None => Ok(()),
        }
    }
}

fn identity(file: &Path) -> Option<(u64, u64)> {
    fs::metadata(file).ok().map(|data| (data.dev(), data.ino()))
}

/// A file of the database: `builds.sqlite-wal`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the database for its owner only; logs of builds may be private. SQLite gives its other files the same
/// permissions.
fn make_private(path: &Path) -> io::Result<()> {
    const OWNER_ONLY: u32 = 0o600;
    OpenOptions::new().create(true).truncate(false).write(true).mode(OWNER_ONLY).open(path)?;
    for file in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        match fs::metadata(&file) {
            Ok(data) if data.permissions().mode() & 0o077 != 0 => {
                fs::set_permissions(&file, fs::Permissions::from_mode(OWNER_ONLY))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Locks the database for this process, which has the leases in memory.
fn lock(path: &Path) -> Result<File, StoreError> {
    let beside = path.with_extension("lock");
    let failed = |error: std::io::Error| {
        StoreError::Failed(format!("the database's lock {} can't be taken: {error}", beside.display()))
    };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&beside).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let directory = path.parent().unwrap_or(path).display();
            Err(StoreError::Failed(format!(
                "another server is using {directory}: stop it, or give this one a directory of its own"
            )))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Returns the version of the schema; a newer one is left alone.
fn set_up(connection: &mut Connection) -> rusqlite::Result<usize> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A build's lock takes some hundred kilobytes, so larger pages are faster.
    connection.pragma_update(None, "page_size", 16384)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: usize =
        transaction.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))? as usize;
    if version > MIGRATIONS.len() {
        return Ok(version);
    }
    for step in MIGRATIONS.iter().skip(version) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    transaction.execute_batch(TEMPORARY_TABLES)?;
    transaction.commit()?;
    // From now on, the file itself has a header.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(version)
}
