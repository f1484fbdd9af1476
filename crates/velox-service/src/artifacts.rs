//! The artifact store: binaries by SHA-256 (`ROOT/3f/3f9a…`), in a directory or an object store, and documents about
//! them (`ROOT/3f/3f9a….documents/NAME`).
//!
//! In the service's own directory, a file's modification time is its last use. With a shared object store,
//! the build store records the last use.
//!
//! The bytes of an artifact are hashed before a process serves them for the first time, and again if their size,
//! modification time or ETag changes. A damaged artifact is removed, so that its build runs again.

mod shared;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    fs::{self, File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    iter,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{
    StreamExt, TryStreamExt,
    future::OptionFuture,
    stream::{self, BoxStream},
};
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, local::LocalFileSystem,
    path::Path as Location,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::io::ReaderStream;
use url::Url;
use velox_gocache::{open_remote, parse_remote, store_error_summary};

pub(crate) use self::shared::SharedDirectory;
use crate::{job::disk, store::StoreError};

/// The number of parts of an upload in flight.
const MAX_PARTS: usize = 3;
const READ_BYTES: usize = 256 << 10;
/// The timeout of a request for a part or a chunk.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// The timeout of a readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// The precision of the last use in a directory: not every download writes to the disk.
const LAST_USE_PRECISION: Duration = Duration::from_secs(600);
/// The number of artifacts that are verified at the same time; one artifact is verified once.
const MAX_VERIFICATIONS: usize = 8;
/// The prefix of temporary files; earlier versions also used it for uploads.
const TEMPORARY_PREFIX: &str = ".put-";

/// The sizes of reads and writes. A slow client holds chunks in memory, not an open request; the more
/// clients, the smaller the chunks.
#[derive(Debug, Clone, Copy)]
struct TransferLimits {
    /// Bytes of an upload's part. Object stores accept up to 10,000 parts.
    part: usize,
    max_chunk: u64,
    min_chunk: u64,
    /// Bytes of all clients' chunks, unless these would be smaller than `min_chunk`.
    total: u64,
    /// The number of chunks prefetched for a client.
    ahead: usize,
    /// The number of concurrent chunk reads: in a directory each takes a thread.
    concurrent_reads: usize,
}

const DIRECTORY_LIMITS: TransferLimits = TransferLimits {
    part: 1 << 20,
    max_chunk: 256 << 10,
    min_chunk: 8 << 10,
    total: 4 << 20,
    ahead: 1,
    concurrent_reads: 4,
};

const OBJECT_STORE_LIMITS: TransferLimits = TransferLimits {
    part: 8 << 20,
    max_chunk: 4 << 20,
    min_chunk: 64 << 10,
    total: 64 << 20,
    ahead: 2,
    concurrent_reads: Semaphore::MAX_PERMITS,
};

/// The artifact store. Uploads are atomic.
#[derive(Debug)]
pub struct ArtifactBucket {
    store: Arc<dyn ObjectStore>,
    root: Location,
    /// The store's name in errors.
    name: String,
    /// Held while an artifact is marked as used or removed, if the directory belongs to this service alone.
    removal: Option<Mutex<()>>,
    /// The directory of the artifacts, if they are files.
    directory: Option<PathBuf>,
    /// The artifacts whose bytes this process has verified.
    verified: StdMutex<HashMap<String, ObjectVersion>>,
    verifying: [Mutex<()>; MAX_VERIFICATIONS],
    /// The directory for local clients.
    shared: Option<SharedDirectory>,
    limits: TransferLimits,
    /// Its reference count is the number of running downloads plus one.
    readers: Arc<()>,
    reads: Semaphore,
    /// The number of uploads that fail next.
    #[cfg(test)]
    pub(crate) failing_puts: std::sync::atomic::AtomicU32,
}

/// Changes with the bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ObjectVersion {
    size: u64,
    modified: SystemTime,
    /// The ETag of an object, or the inode, mode and change time of a file.
    tag: Option<String>,
}

impl ObjectVersion {
    /// `None` for anything but a regular file.
    fn of(data: &Metadata) -> Option<Self> {
        let tag = format!("{} {} {}.{}", data.ino(), data.mode(), data.ctime(), data.ctime_nsec());
        let modified = data.modified().ok().filter(|_| data.is_file())?;
        Some(Self { size: data.len(), modified, tag: Some(tag) })
    }
}

/// What is stored under the name of an artifact.
#[derive(Debug, PartialEq, Eq)]
enum StoredObject {
    Absent,
    /// A symbolic link, or no file.
    Foreign,
    File(ObjectVersion),
}

/// An artifact in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedArtifact {
    /// The SHA-256, in hexadecimal.
    pub(crate) sha256: String,
    /// The size in bytes.
    pub(crate) size: u64,
    /// When it was stored, or last used if in the service's own directory (to within minutes).
    pub(crate) last_used: SystemTime,
}

impl ArtifactBucket {
    /// Parses the location of a store: an absolute path, or a `file://`, `s3://`, `gs://` or `az://` URL.
    ///
    /// # Errors
    /// The location is invalid. The message has no secrets.
    pub fn parse(text: &str) -> Result<Url, String> {
        parse_remote(text).map_err(|error| match error {
            velox_gocache::GoCacheError::Remote { text, why } => {
                format!("invalid artifact store `{text}`: {why}")
            }
            error => error.to_string(),
        })
    }

    /// Opens a store shared by many nodes. Credentials come from object_store's variables (`AWS_*`,
    /// `GOOGLE_*`, `AZURE_*`).
    pub(crate) fn open(url: &Url, environment: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let failed =
            |error: velox_gocache::GoCacheError| StoreError::Failed(format!("artifact store: {error}"));
        let url = parse_remote(url.as_str()).map_err(failed)?;
        let (store, root) = open_remote(&url, environment, REQUEST_TIMEOUT).map_err(failed)?;
        Ok(match url.scheme() {
            "file" => {
                let store = Arc::new(LocalFileSystem::new().with_fsync(true));
                let bucket = Self::new(store, root, url.to_string(), DIRECTORY_LIMITS);
                Self { directory: url.to_file_path().ok(), ..bucket }
            }
            _ => Self::new(store.into(), root, url.to_string(), OBJECT_STORE_LIMITS),
        })
    }

    /// Opens or creates the service's own directory, and removes incomplete uploads.
    pub(crate) fn open_directory(path: &Path) -> Result<Self, StoreError> {
        let name = format!("artifact directory {}", path.display());
        let failed = |error: String| StoreError::Failed(format!("failed to open the {name}: {error}"));
        remove_incomplete_uploads(path).map_err(|error| failed(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(error.to_string()))?;
        let bucket = Self::new(Arc::new(store.with_fsync(true)), Location::default(), name, DIRECTORY_LIMITS);
        Ok(Self { removal: Some(Mutex::default()), directory: Some(path.to_owned()), ..bucket })
    }

    /// Adds a directory with copies of binaries for local clients.
    pub(crate) fn with_shared_directory(self, shared: Option<SharedDirectory>) -> Self {
        Self { shared, ..self }
    }

    fn new(store: Arc<dyn ObjectStore>, root: Location, name: String, limits: TransferLimits) -> Self {
        Self {
            store,
            root,
            name,
            removal: None,
            directory: None,
            verified: StdMutex::default(),
            verifying: Default::default(),
            shared: None,
            limits,
            readers: Arc::default(),
            reads: Semaphore::new(limits.concurrent_reads),
            #[cfg(test)]
            failing_puts: 0.into(),
        }
    }

    /// Stores the file, in place of a stored one.
    pub(crate) async fn put(&self, sha256: &str, file: &Path) -> Result<(), StoreError> {
        let unreadable = |error| StoreError::Failed(format!("failed to read {}: {error}", file.display()));
        let location = self.location(sha256).ok_or_else(|| invalid_name(sha256))?;
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering::Relaxed;
            if self.failing_puts.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Err(StoreError::Failed("no space left on device".to_owned()));
            }
        }
        let failed = |error| self.store_failed("store an artifact", &error);
        let source = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let upload = self.store.put_multipart(&location).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, self.limits.part);
        let sent = async {
            let mut digest = Sha256::new();
            let mut chunks = ReaderStream::with_capacity(source, READ_BYTES);
            while let Some(chunk) = chunks.try_next().await.map_err(unreadable)? {
                digest.update(&chunk);
                upload.wait_for_capacity(MAX_PARTS).await.map_err(failed)?;
                upload.put(chunk);
            }
            check_sum(sha256, digest)
        };
        if let Err(error) = sent.await {
            // Parts that remain are never visible; object stores have lifecycle rules to remove them.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.finish().await.map_err(failed)?;
        match self.head(sha256).await? {
            StoredObject::File(version) => {
                self.verified().insert(sha256.to_owned(), version);
                Ok(())
            }
            StoredObject::Absent | StoredObject::Foreign => Err(StoreError::Failed(format!(
                "{}: an artifact is not a file after it was stored",
                self.name
            ))),
        }
    }

    /// Returns the size of the artifact if it exists, and marks it as used. Verifies its bytes if this process
    /// hasn't yet, and removes it if they are damaged.
    pub(crate) async fn find(&self, sha256: &str) -> Result<Option<u64>, StoreError> {
        if self.location(sha256).is_none() {
            return Ok(None);
        }
        loop {
            let removal = OptionFuture::from(self.removal.as_ref().map(Mutex::lock)).await;
            let version = match self.head(sha256).await? {
                StoredObject::Absent => return Ok(None),
                StoredObject::Foreign => {
                    self.remove_damaged(sha256, &StoredObject::Foreign).await;
                    return Ok(None);
                }
                StoredObject::File(version) => version,
            };
            if self.is_verified(sha256, &version) {
                if self.removal.is_some() {
                    self.mark_as_used(sha256, &version).await;
                }
                return Ok(Some(version.size));
            }
            drop(removal);
            if !self.verify(sha256, version).await? {
                return Ok(None);
            }
        }
    }

    /// Sets the modification time to now, unless it is recent.
    async fn mark_as_used(&self, sha256: &str, version: &ObjectVersion) {
        let Some(directory) = &self.directory else { return };
        let age = SystemTime::now().duration_since(version.modified);
        if age.is_ok_and(|age| age > LAST_USE_PRECISION) {
            let (directory, name) = (directory.clone(), sha256.to_owned());
            let mark = move || {
                let file = open_file(&directory, &name)?;
                file.set_modified(SystemTime::now())?;
                version_of(&file)
            };
            match blocking(mark).await {
                Ok(version) => _ = self.verified().insert(sha256.to_owned(), version),
                Err(error) => tracing::warn!(%error, sha256, "failed to record the last use of an artifact"),
            }
        }
    }

    /// Hashes the artifact, and removes it if it is damaged. Returns `false` if it was removed.
    async fn verify(&self, sha256: &str, version: ObjectVersion) -> Result<bool, StoreError> {
        let lock = usize::from(sha256.as_bytes().first().copied().unwrap_or_default()) % MAX_VERIFICATIONS;
        let _turn = OptionFuture::from(self.verifying.get(lock).map(Mutex::lock)).await;
        if self.is_verified(sha256, &version) {
            return Ok(true);
        }
        if self.hash(sha256).await? == sha256 {
            self.verified().insert(sha256.to_owned(), version);
            return Ok(true);
        }
        self.remove_damaged(sha256, &StoredObject::File(version)).await;
        Ok(false)
    }

    /// The SHA-256 of the artifact's bytes.
    async fn hash(&self, sha256: &str) -> Result<String, StoreError> {
        if let Some(directory) = &self.directory {
            let (directory, name) = (directory.clone(), sha256.to_owned());
            let hash = move || hash_file(open_file(&directory, &name)?);
            return blocking(hash).await.map_err(|error| self.failed("verify an artifact", error));
        }
        let failed = |error| self.store_failed("verify an artifact", &error);
        let location = self.location(sha256).ok_or_else(|| invalid_name(sha256))?;
        let mut chunks = self.store.get(&location).await.map_err(failed)?.into_stream();
        let mut digest = Sha256::new();
        while let Some(chunk) = chunks.next().await {
            digest.update(chunk.map_err(failed)?);
        }
        Ok(HEXLOWER.encode(&digest.finalize()))
    }

    /// Removes a damaged artifact, unless it was replaced meanwhile.
    async fn remove_damaged(&self, sha256: &str, damaged: &StoredObject) {
        tracing::error!(
            sha256,
            store = self.name,
            "removing a damaged artifact; its build runs again when requested"
        );
        self.verified().remove(sha256);
        let removed = async {
            let Some(location) = self.location(sha256) else { return Ok(()) };
            if self.head(sha256).await? == *damaged {
                self.store
                    .delete(&location)
                    .await
                    .map_err(|error| self.store_failed("remove a damaged artifact", &error))?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = removed.await {
            tracing::error!(%error, "failed to remove a damaged artifact");
        }
    }

    /// Verifies the artifacts of a directory that this process hasn't verified, one after the other with pauses.
    /// Object stores verify their objects themselves.
    pub(crate) async fn verify_all(&self) -> Result<(), StoreError> {
        if self.directory.is_none() {
            return Ok(());
        }
        for artifact in self.list().await? {
            let start = Instant::now();
            match self.head(&artifact.sha256).await? {
                StoredObject::File(version) if !self.is_verified(&artifact.sha256, &version) => {
                    self.verify(&artifact.sha256, version).await?;
                    tokio::time::sleep(start.elapsed()).await;
                }
                StoredObject::Foreign => {
                    self.remove_damaged(&artifact.sha256, &StoredObject::Foreign).await;
                }
                StoredObject::File(_) | StoredObject::Absent => {}
            }
        }
        Ok(())
    }

    fn verified(&self) -> MutexGuard<'_, HashMap<String, ObjectVersion>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_verified(&self, sha256: &str, version: &ObjectVersion) -> bool {
        self.verified().get(sha256) == Some(version)
    }

    async fn head(&self, sha256: &str) -> Result<StoredObject, StoreError> {
        if let Some(directory) = &self.directory {
            let (directory, name) = (directory.clone(), sha256.to_owned());
            let look = move || open_file(&directory, &name).and_then(|file| version_of(&file));
            return match blocking(look).await {
                Ok(version) => Ok(StoredObject::File(version)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(StoredObject::Absent),
                Err(error) if is_foreign(&error) => Ok(StoredObject::Foreign),
                Err(error) => Err(self.failed("look up an artifact", error)),
            };
        }
        let Some(location) = self.location(sha256) else { return Ok(StoredObject::Absent) };
        match self.store.head(&location).await {
            Ok(found) => Ok(StoredObject::File(ObjectVersion {
                size: found.size,
                modified: found.last_modified.into(),
                tag: found.e_tag,
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(StoredObject::Absent),
            Err(error) => Err(self.store_failed("look up an artifact", &error)),
        }
    }

    /// Streams the bytes in `range`, which must lie within the artifact, in chunks of bounded size.
    /// Errors of the store are items of the stream.
    pub(crate) fn read(
        self: &Arc<Self>,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        self.location(sha256).ok_or_else(|| invalid_name(sha256))?;
        let name: Arc<str> = sha256.into();
        let (ahead, bucket, reader) = (self.limits.ahead, Arc::clone(self), Arc::clone(&self.readers));
        let mut start = range.start;
        let chunks = iter::from_fn(move || {
            let end = range.end.min(start + bucket.limits.chunk(Arc::strong_count(&reader)));
            let chunk = start..end;
            start = end;
            (!chunk.is_empty()).then(|| Arc::clone(&bucket).read_chunk(Arc::clone(&name), chunk))
        });
        Ok(stream::iter(chunks).buffered(ahead).boxed())
    }

    async fn read_chunk(self: Arc<Self>, sha256: Arc<str>, range: Range<u64>) -> Result<Bytes, StoreError> {
        // The semaphore is never closed.
        let _permit = self.reads.acquire().await;
        let length = range.end - range.start;
        let verified = self.verified().get(&*sha256).cloned();
        let (chunk, tag) = if let Some(directory) = self.directory.clone() {
            let name = Arc::clone(&sha256);
            let read = move || read_range(open_file(&directory, &name)?, range);
            (blocking(read).await.map_err(|error| self.failed("read an artifact", error))?, None)
        } else {
            let failed = |error| self.store_failed("read an artifact", &error);
            let location = self.location(&sha256).ok_or_else(|| invalid_name(&sha256))?;
            let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
            let found = self.store.get_opts(&location, options).await.map_err(failed)?;
            let tag = found.meta.e_tag.clone();
            (found.bytes().await.map_err(failed)?, tag)
        };
        if chunk.len() as u64 != length {
            return Err(StoreError::Failed(format!("{}: an artifact is shorter than its size", self.name)));
        }
        match verified.and_then(|verified| verified.tag) {
            Some(verified) if tag.is_some_and(|tag| tag != verified) => {
                Err(StoreError::Failed(format!("{}: an artifact was replaced while it was read", self.name)))
            }
            _ => Ok(chunk),
        }
    }

    /// Copies the artifact to the directory for local clients, unless it is there, and returns the path of the
    /// binary. `None` without such a directory.
    pub(crate) async fn share(
        self: &Arc<Self>,
        sha256: &str,
        size: u64,
        is_windows: bool,
    ) -> Result<Option<PathBuf>, StoreError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        if !is_sha256(sha256) {
            return Err(invalid_name(sha256));
        }
        let file = shared.file(sha256, is_windows);
        let failed =
            |error: io::Error| StoreError::Failed(format!("failed to write {}: {error}", file.display()));
        if self.is_shared(sha256, &file).await? {
            return Ok(Some(file));
        }
        let _writing = shared.writing.lock().await;
        if self.is_shared(sha256, &file).await? {
            return Ok(Some(file));
        }
        let prepared = shared.prepare().map_err(failed)?;
        let mut copy = tokio::fs::File::create(prepared.path().join(file.file_name().unwrap_or_default()))
            .await
            .map_err(failed)?;
        let mut digest = Sha256::new();
        let mut chunks = self.read(sha256, 0..size)?;
        while let Some(chunk) = chunks.try_next().await? {
            digest.update(&chunk);
            copy.write_all(&chunk).await.map_err(failed)?;
        }
        copy.flush().await.map_err(failed)?;
        check_sum(sha256, digest)?;
        shared.publish(sha256, prepared, &file).map_err(failed)?;
        Ok(Some(file))
    }

    async fn is_shared(self: &Arc<Self>, sha256: &str, file: &Path) -> Result<bool, StoreError> {
        let (bucket, sha256, file) = (Arc::clone(self), sha256.to_owned(), file.to_owned());
        let check = move || Ok(bucket.shared.as_ref().is_some_and(|shared| shared.has(&sha256, &file)));
        let failed = |error| StoreError::Failed(format!("failed to check a shared file: {error}"));
        blocking(check).await.map_err(failed)
    }

    /// Removes binaries from the directory for local clients whose artifacts were removed.
    pub(crate) async fn prune_shared(&self) -> Result<(), StoreError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let failed =
            |error: io::Error| StoreError::Failed(format!("failed to clean the shared directory: {error}"));
        // Before the artifacts are listed, so that none that is stored meanwhile is missing there.
        let mut unused = shared.list().map_err(failed)?;
        if !unused.is_empty() {
            self.list().await?.iter().for_each(|artifact| _ = unused.remove(&artifact.sha256));
        }
        unused.iter().try_for_each(|sha256| shared.remove(sha256)).map_err(failed)
    }

    /// Stores a document about an artifact, which is removed with it.
    pub(crate) async fn put_document(
        &self,
        sha256: &str,
        name: &str,
        content: Vec<u8>,
    ) -> Result<(), StoreError> {
        let location = self.document_location(sha256, name).ok_or_else(|| invalid_name(sha256))?;
        let stored = self.store.put(&location, PutPayload::from(content)).await;
        stored.map(drop).map_err(|error| self.store_failed("store a document", &error))
    }

    /// A document about an artifact.
    pub(crate) async fn document(&self, sha256: &str, name: &str) -> Result<Option<Bytes>, StoreError> {
        let Some(location) = self.document_location(sha256, name) else { return Ok(None) };
        let read = async { self.store.get(&location).await?.bytes().await };
        match read.await {
            Ok(content) => Ok(Some(content)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.store_failed("read a document", &error)),
        }
    }

    /// Checks that the store responds.
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        if let (Some(_), Some(path)) = (&self.removal, self.directory.clone()) {
            let failed = |error| StoreError::Failed(format!("failed to write to the {}: {error}", self.name));
            return blocking(move || disk::probe(&path)).await.map_err(failed);
        }
        let nothing = self.root.clone().join("ready");
        let late = |_| StoreError::Failed(format!("{} doesn't answer within 2 s", self.name));
        match timeout(READY_TIMEOUT, self.store.head(&nothing)).await.map_err(late)? {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.store_failed("check the store", &error)),
        }
    }

    /// Lists all artifacts in no particular order, without other objects.
    pub(crate) async fn list(&self) -> Result<Vec<ListedArtifact>, StoreError> {
        let all = self.store.list(Some(&self.root)).try_filter_map(async |object| {
            let sha256 = object.location.filename().unwrap_or_default().to_owned();
            let is_artifact = self.location(&sha256).is_some_and(|location| location == object.location);
            let last_used = object.last_modified.into();
            Ok(is_artifact.then_some(ListedArtifact { sha256, size: object.size, last_used }))
        });
        all.try_collect().await.map_err(|error| self.store_failed("list the artifacts", &error))
    }

    /// Removes an artifact unless it was used or stored since it was listed. Returns whether it was removed.
    pub(crate) async fn remove(&self, artifact: ListedArtifact) -> Result<bool, StoreError> {
        let Some(location) = self.location(&artifact.sha256) else { return Ok(false) };
        let _removal = OptionFuture::from(self.removal.as_ref().map(Mutex::lock)).await;
        let remove = async {
            let found = self.store.head(&location).await?;
            let unused = SystemTime::from(found.last_modified) == artifact.last_used;
            if unused {
                if let Some(documents) = self.documents(&artifact.sha256) {
                    let all = self.store.list(Some(&documents)).map_ok(|object| object.location);
                    self.store.delete_stream(all.boxed()).try_collect::<Vec<_>>().await?;
                }
                self.store.delete(&location).await?;
                self.verified().remove(&artifact.sha256);
            }
            Ok(unused)
        };
        match remove.await {
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            removed => removed.map_err(|error| self.store_failed("remove an artifact", &error)),
        }
    }

    /// The location of the artifact; `None` if the name isn't a SHA-256.
    fn location(&self, sha256: &str) -> Option<Location> {
        is_sha256(sha256).then(|| self.root.clone().join(sha256.get(..2).unwrap_or_default()).join(sha256))
    }

    /// The directory of the documents about an artifact.
    fn documents(&self, sha256: &str) -> Option<Location> {
        let directory = self.location(sha256)?;
        Some(Location::from(format!("{directory}.documents")))
    }

    fn document_location(&self, sha256: &str, name: &str) -> Option<Location> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        Some(self.documents(sha256).filter(|_| name.chars().all(is_name))?.join(name))
    }

    fn store_failed(&self, action: &str, error: &object_store::Error) -> StoreError {
        self.failed(action, store_error_summary(error))
    }

    fn failed(&self, action: &str, cause: impl Display) -> StoreError {
        StoreError::Failed(format!("failed to {action}: {}: {cause}", self.name))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

impl TransferLimits {
    /// The size of a chunk for this reference count of `readers`, of which one is the bucket's.
    fn chunk(self, references: usize) -> u64 {
        let chunks = (references as u64).saturating_sub(1).max(1) * (self.ahead as u64 + 1);
        (self.total / chunks).clamp(self.min_chunk, self.max_chunk)
    }
}

/// Opens the file of an artifact. No symbolic link below the directory is followed.
fn open_file(directory: &Path, sha256: &str) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open, openat};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = open(directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let prefix = sha256.get(..2).unwrap_or_default();
    let folder = openat(&root, prefix, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    Ok(openat(&folder, sha256, flags | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// Fails unless it is a regular file.
fn version_of(file: &File) -> io::Result<ObjectVersion> {
    ObjectVersion::of(&file.metadata()?).ok_or_else(|| io::ErrorKind::IsADirectory.into())
}

/// Whether the error is for a symbolic link, or for no regular file.
fn is_foreign(error: &io::Error) -> bool {
    let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_link || matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory)
}

fn hash_file(mut file: File) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(HEXLOWER.encode(&digest.finalize())),
            length => digest.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

fn read_range(mut file: File, range: Range<u64>) -> io::Result<Bytes> {
    version_of(&file)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut chunk = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
    file.take(range.end - range.start).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

/// Whether a name is a SHA-256 in lowercase hexadecimal, and so safe as a file name.
pub(crate) fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_sum(sha256: &str, digest: Sha256) -> Result<(), StoreError> {
    let found = HEXLOWER.encode(&digest.finalize());
    if found == sha256 {
        return Ok(());
    }
    Err(StoreError::Failed(format!("checksum mismatch for artifact {sha256}: the file has {found}")))
}

fn remove_incomplete_uploads(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    for directory in fs::read_dir(path)? {
        let directory = directory?;
        if !directory.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(directory.path())? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            // LocalFileSystem uploads to `NAME#1`.
            if name.starts_with(TEMPORARY_PREFIX) || name.contains('#') {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

fn invalid_name(sha256: &str) -> StoreError {
    StoreError::Failed(format!(
        "invalid artifact name `{sha256}`: expected a SHA-256 in lowercase hexadecimal"
    ))
}

#[cfg(test)]
mod tests;
