//! The remote cache: packs of compressed outputs, and indexes that map actions to them.
//!
//! ```text
//! REMOTE/v1/
//!   packs/3f/3f9a…            concatenated outputs, each compressed separately (zstd)
//!   NAMESPACE/index/c1d0…     the packs of a build, and the actions of each output (JSON, zstd)
//! ```
//!
//! Objects are named by the SHA-256 of their content and immutable, so concurrent writers don't conflict. A
//! writer that finds many indexes, or a pack that is damaged or was deleted, merges them into one.
//!
//! A container registry can have a read-only cache, see [`crate::registry`].

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{OnceCell, Semaphore},
    task::JoinSet,
    time::timeout,
};
use url::Url;

use crate::{
    CacheId, GoCacheError, GoCacheOptions,
    disk::{ActionEntry, LocalCache},
    hex,
    location::{RemoteFailure, is_registry, open_remote, within},
    pack::{
        Index, IndexFile, MAX_OBJECT_BYTES, OutputLocation, Pack, PackFile, PackedOutput, packed, unpack_to,
    },
    registry::RegistryCache,
};

/// The uncompressed size at which a pack is completed.
const PACK_BYTES: u64 = 12 << 20;
/// Concurrent pack downloads; each is held in memory.
const MAX_CONCURRENT_PACKS: usize = 4;
/// The number of prefetched packs: builds usually need consecutive ones.
const PREFETCHED_PACKS: usize = 3;
/// The number of indexes beyond which a writer merges them.
const MAX_INDEXES: usize = 24;
/// The timeout for listing indexes, which every miss waits for.
const INDEX_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of failures after which the remote is disabled for the rest of the build.
const MAX_FAILURES: u32 = 3;
/// A slower remote counts as failed because compiling is faster.
pub(crate) const MIN_BYTES_PER_SECOND: f64 = (1 << 20) as f64;

/// Where the packs and indexes of a remote are.
enum PackSource {
    Objects { store: Box<dyn ObjectStore>, root: Path },
    Registry(Box<RegistryCache>),
}

pub(crate) struct RemoteCache {
    pub(crate) url: Url,
    source: PackSource,
    namespace: String,
    read_only: bool,
    timeout: Duration,
    disk: LocalCache,
    index: OnceCell<Index>,
    downloads: Semaphore,
    /// Separate from downloads, so that compiling doesn't wait for uploads.
    sending: Semaphore,
    used: Mutex<UploadQueue>,
    sent: Mutex<JoinSet<Option<PackFile>>>,
    failures: AtomicU32,
    off: AtomicBool,
    trouble: Mutex<Option<String>>,
    pub(crate) bytes_down: AtomicU64,
    pub(crate) bytes_up: AtomicU64,
}

/// The entries of this build that the remote may lack.
#[derive(Default)]
struct UploadQueue {
    seen: HashSet<CacheId>,
    waiting: Vec<(CacheId, ActionEntry)>,
    size: u64,
}

impl RemoteCache {
    /// Opens a remote; it gets uploads if `is_first`.
    pub(crate) fn open(
        url: &Url,
        options: &GoCacheOptions,
        is_first: bool,
        disk: LocalCache,
    ) -> Result<Self, GoCacheError> {
        let source = if is_registry(url) {
            PackSource::Registry(Box::new(RegistryCache::open(url, options)?))
        } else {
            let (store, root) = open_remote(url, &options.environment, options.timeout)?;
            PackSource::Objects { store, root: root.join("v1") }
        };
        let namespace = options
            .namespace
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
            .collect();
        Ok(Self {
            url: url.clone(),
            read_only: options.read_only || !is_first || matches!(source, PackSource::Registry(_)),
            source,
            namespace,
            timeout: options.timeout,
            disk,
            index: OnceCell::new(),
            downloads: Semaphore::new(MAX_CONCURRENT_PACKS),
            sending: Semaphore::new(MAX_CONCURRENT_PACKS / 2),
            used: Mutex::default(),
            sent: Mutex::default(),
            failures: AtomicU32::new(0),
            off: AtomicBool::new(false),
            trouble: Mutex::default(),
            bytes_down: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
        })
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        hold(&self.trouble).clone()
    }

    pub(crate) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    fn failed(&self, what: &str, weight: u32) {
        let failures = self.failures.fetch_add(weight, Ordering::Relaxed) + weight;
        let off = failures >= MAX_FAILURES;
        let mut trouble = hold(&self.trouble);
        if off && !self.off.swap(true, Ordering::Relaxed) {
            *trouble = Some(format!("remote cache disabled: {what}"));
        } else if trouble.is_none() {
            *trouble = Some(what.to_owned());
        }
    }

    /// Sends a request to the remote, with the timeout.
    async fn request<T>(
        &self,
        what: &str,
        weight: u32,
        answer: impl Future<Output = Result<T, RemoteFailure>>,
    ) -> Option<T> {
        self.request_within(self.timeout, what, weight, answer).await
    }

    async fn request_within<T>(
        &self,
        limit: Duration,
        what: &str,
        weight: u32,
        answer: impl Future<Output = Result<T, RemoteFailure>>,
    ) -> Option<T> {
        if self.is_off() {
            return None;
        }
        within(limit, what, answer).await.unwrap_or_else(|reason| {
            self.failed(&reason, weight);
            None
        })
    }

    async fn index(&self) -> &Index {
        self.index.get_or_init(|| async { self.load_index().await.unwrap_or_default() }).await
    }

    /// Loads the index, which every request waits for.
    pub(crate) async fn warm(&self) {
        self.index().await;
    }

    async fn load_index(&self) -> Option<Index> {
        let objects = match &self.source {
            PackSource::Objects { store, root } => self.list_indexes(&**store, root).await?,
            PackSource::Registry(registry) => {
                let read = registry.index(&self.namespace);
                let (packs, size) = self.request("reading the index", MAX_FAILURES, read).await?;
                self.bytes_down.fetch_add(size, Ordering::Relaxed);
                vec![(Path::default(), packs)]
            }
        };
        Some(Index::new(objects))
    }

    async fn list_indexes(&self, store: &dyn ObjectStore, root: &Path) -> Option<Vec<(Path, Vec<PackFile>)>> {
        let folder = root.clone().join(self.namespace.as_str()).join("index");
        let listing = async { Ok(store.list(Some(&folder)).try_collect::<Vec<_>>().await?) };
        let limit = self.timeout.min(INDEX_TIMEOUT);
        let listed = self.request_within(limit, "listing the remote", MAX_FAILURES, listing).await?;
        let objects = stream::iter(listed)
            .map(async |object| {
                let path = object.location;
                if object.size > MAX_OBJECT_BYTES {
                    return None;
                }
                let read = async { Ok(store.get(&path).await?.bytes().await?) };
                let content = self.request("reading an index", 1, read).await?;
                self.bytes_down.fetch_add(content.len() as u64, Ordering::Relaxed);
                Some((path, IndexFile::read(&content, &self.namespace)?))
            })
            .buffered(16)
            .filter_map(async |object| object)
            .collect()
            .await;
        Some(objects)
    }

    /// Downloads the output of an action to GOCACHE, if the remote has it.
    pub(crate) async fn get(self: &Arc<Self>, action: &CacheId) -> Option<ActionEntry> {
        if self.is_off() {
            return None;
        }
        let index = self.index().await;
        let OutputLocation { output, size, pack } = *index.actions.get(action)?;
        if !self.disk.has_output(&output, size) {
            for next in (pack + 1..index.packs.len()).take(PREFETCHED_PACKS) {
                let remote = Arc::clone(self);
                tokio::spawn(async move { remote.fetch_pack(remote.index().await, next).await });
            }
            self.fetch_pack(index, pack).await;
        }
        let time = self.disk.has_output(&output, size).then(|| self.disk.put(action, &output, size))?.ok()?;
        Some(ActionEntry { output, size, time })
    }

    /// Downloads a pack once; concurrent callers wait.
    async fn fetch_pack(&self, index: &Index, pack: usize) {
        let Some(pack) = index.packs.get(pack) else { return };
        pack.is_intact
            .get_or_init(|| async {
                if pack.outputs.iter().all(|output| self.disk.has_output(&output.output, output.size)) {
                    return true;
                }
                let Ok(_turn) = self.downloads.acquire().await else { return true };
                let since = Instant::now();
                let read = async {
                    match &self.source {
                        PackSource::Objects { store, root } => {
                            Ok(store.get(&pack_path(root, &pack.name)).await?.bytes().await?)
                        }
                        PackSource::Registry(registry) => registry.pack(&pack.name).await,
                    }
                };
                let answer = async {
                    match read.await {
                        // As damaged as can be.
                        Err(RemoteFailure::NotFound) => Ok(Bytes::new()),
                        answer => answer,
                    }
                };
                let Some(content) = self.request("reading a pack", 1, answer).await else { return true };
                self.bytes_down.fetch_add(content.len() as u64, Ordering::Relaxed);
                let spent = since.elapsed().as_secs_f64();
                if spent > 2.0 + content.len() as f64 / MIN_BYTES_PER_SECOND {
                    self.failed(&format!("slow remote: {} KiB in {spent:.0} s", content.len() >> 10), 1);
                }
                self.unpack(pack, content).await
            })
            .await;
    }

    /// Unpacks a pack; damaged outputs count as misses. Returns whether there are none.
    async fn unpack(&self, pack: &Pack, content: Bytes) -> bool {
        let mut offset = 0usize;
        let mut outputs = Vec::new();
        for PackedOutput { output, size, length } in &pack.outputs {
            let end = usize::try_from(*length).ok().and_then(|length| offset.checked_add(length));
            let Some(end) = end.filter(|end| *end <= content.len()) else { break };
            outputs.push((*output, *size, content.slice(offset..end)));
            offset = end;
        }
        let is_whole = outputs.len() == pack.outputs.len();
        let disk = self.disk.clone();
        let unpack = tokio::task::spawn_blocking(move || {
            let damaged = outputs.iter().filter(|(output, size, compressed)| {
                !disk.has_output(output, *size) && unpack_to(&disk, output, *size, compressed).is_err()
            });
            damaged.count() == 0
        });
        unpack.await.unwrap_or(true) && is_whole
    }

    /// Queues an entry for a background upload if the remote lacks it; doesn't block.
    pub(crate) fn used(self: &Arc<Self>, action: CacheId, entry: ActionEntry) {
        if self.read_only || self.is_off() || entry.size > MAX_OBJECT_BYTES {
            return;
        }
        if self.index.get().is_some_and(|index| index.knows(&action, &entry)) {
            return;
        }
        let full = {
            let mut used = hold(&self.used);
            if !used.seen.insert(action) {
                return;
            }
            used.waiting.push((action, entry));
            used.size += entry.size;
            (used.size >= PACK_BYTES || used.waiting.len() >= 1024).then(|| used.take())
        };
        if let Some(waiting) = full {
            self.send(waiting);
        }
    }

    fn send(self: &Arc<Self>, waiting: Vec<(CacheId, ActionEntry)>) {
        let remote = Arc::clone(self);
        hold(&self.sent).spawn(async move { remote.send_pack(waiting).await });
    }

    async fn send_pack(&self, mut waiting: Vec<(CacheId, ActionEntry)>) -> Option<PackFile> {
        let index = self.index().await;
        waiting.retain(|(action, entry)| !index.knows(action, entry));
        let _turn = self.sending.acquire().await.ok()?;
        if self.is_off() {
            return None;
        }
        let disk = self.disk.clone();
        let (outputs, content) = tokio::task::spawn_blocking(move || packed(&disk, waiting)).await.ok()?;
        if outputs.is_empty() {
            return None;
        }
        let PackSource::Objects { store, root } = &self.source else { return None };
        let name = hex(&Sha256::digest(&content).into());
        let size = content.len() as u64;
        let path = pack_path(root, &name);
        let put = async { Ok(store.put(&path, PutPayload::from(content)).await?) };
        self.request("sending a pack", 1, put).await?;
        self.bytes_up.fetch_add(size, Ordering::Relaxed);
        Some(PackFile { name, outputs })
    }

    /// Uploads the rest of the queue, and the index that publishes the packs.
    pub(crate) async fn flush(self: &Arc<Self>, limit: Duration) {
        if self.read_only || self.is_off() {
            return;
        }
        let rest = hold(&self.used).take();
        if !rest.is_empty() {
            self.send(rest);
        }
        let mut sending = std::mem::take(&mut *hold(&self.sent));
        let mut packs = Vec::new();
        let all = async {
            while let Some(sent) = sending.join_next().await {
                packs.extend(sent.ok().flatten());
            }
        };
        if timeout(limit, all).await.is_err() {
            self.failed("upload timed out", 1);
        }
        if !packs.is_empty() {
            self.send_index(packs).await;
        }
    }

    async fn send_index(&self, mut packs: Vec<PackFile>) {
        let PackSource::Objects { store, root } = &self.source else { return };
        let folder = root.clone().join(self.namespace.as_str()).join("index");
        let index = self.index().await;
        let broken: HashSet<&str> =
            index.packs.iter().filter(|pack| pack.is_broken()).map(|pack| pack.name.as_str()).collect();
        let is_merged = index.objects.len() >= MAX_INDEXES || !broken.is_empty();
        let replaced: &[(Path, Vec<PackFile>)] = if is_merged { &index.objects } else { &[] };
        let old = replaced.iter().flat_map(|(_, packs)| packs);
        packs.extend(old.filter(|pack| !broken.contains(pack.name.as_str())).cloned());
        let Ok(content) = IndexFile::write(&self.namespace, packs) else { return };
        let path = folder.join(hex(&Sha256::digest(&content).into()).as_str());
        let size = content.len() as u64;
        let put = async { Ok(store.put(&path, PutPayload::from(content)).await?) };
        if self.request("sending an index", 1, put).await.is_some() {
            self.bytes_up.fetch_add(size, Ordering::Relaxed);
            // The new index includes them; a leftover one is harmless.
            for (old, _) in replaced.iter().filter(|(old, _)| *old != path) {
                let delete = async { Ok(store.delete(old).await?) };
                let _ = self.request("removing an index", 1, delete).await;
            }
        }
    }
}

fn pack_path(root: &Path, name: &str) -> Path {
    root.clone().join("packs").join(name.get(..2).unwrap_or_default()).join(name)
}

impl UploadQueue {
    fn take(&mut self) -> Vec<(CacheId, ActionEntry)> {
        self.size = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// A panic never leaves the guarded values inconsistent.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
