//! Binaries in a directory, each under its SHA-256:
//!
//! ```text
//! artifacts/
//!   3f/
//!     3f2a…  the bytes; its modification time is when it was last asked for
//!     .put-… one that is on its way here; what a crash left is removed at the next start
//! ```

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    mem,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{StreamExt as _, stream, stream::BoxStream};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::{Artifacts, Clears, Stored, StoredArtifact};
use crate::store::StoreError;

/// What begins the names of files on their way.
const PUT: &str = ".put-";
/// How much is copied at once on the way in.
const COPY: usize = 1 << 20;
/// How many large pieces of binaries are in memory, for all that are being sent together…
const LARGE_PIECES: usize = 16;
/// … and how large one is.
const LARGE: usize = 128 << 10;
/// A piece for whoever is slow, or comes while all large ones are in use: nobody waits for others' connections.
const SMALL: usize = 8 << 10;
/// Whoever takes longer than this over a piece is slow.
const SLOW: Duration = Duration::from_millis(100);
/// How many pieces are read at once: each takes a thread.
const READS: usize = 4;
/// How old a file's time of use may be: not every request writes to the disk.
const USE: Duration = Duration::from_secs(600);

/// Binaries in a directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Folder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    reading: Arc<Semaphore>,
    /// The large pieces' memory that isn't in use. It is allocated with its first use, and kept.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Held while a file is found to be there and marked as used, and while it is removed since it isn't.
    removing: Mutex<()>,
}

impl Folder {
    /// Opens the directory, or makes it, and removes what a crash left half-way.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shared = Shared {
            path: path.to_owned(),
            reading: Arc::new(Semaphore::new(READS)),
            buffers: Mutex::new(vec![Vec::new(); LARGE_PIECES]),
            removing: Mutex::default(),
        };
        let clean = || {
            fs::create_dir_all(path)?;
            for directory in fs::read_dir(path)? {
                let directory = directory?;
                if !directory.file_type()?.is_dir() {
                    continue;
                }
                for file in fs::read_dir(directory.path())? {
                    let file = file?;
                    if file.file_name().to_string_lossy().starts_with(PUT) {
                        fs::remove_file(file.path())?;
                    }
                }
            }
            Ok(())
        };
        clean().map_err(|error: io::Error| shared.trouble("can't be opened", &error))?;
        Ok(Self { shared: Arc::new(shared) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Failed(format!("work on the artifacts broke off: {error}"))),
        }
    }
}

#[async_trait]
impl Artifacts for Folder {
    async fn put(&self, sha256: &str, file: &Path) -> Result<(), StoreError> {
        let (sha256, file) = (sha256.to_owned(), file.to_owned());
        self.blocking(move |shared| {
            let place = shared.place(&sha256).ok_or_else(|| not_a_name(&sha256))?;
            let there = shared.used(&place).map_err(|error| shared.trouble("can't be read", &error))?;
            let source = File::open(&file).map_err(|error| unreadable(&file, &error))?;
            let size = source.metadata().map_err(|error| unreadable(&file, &error))?.len();
            if there == Some(size) {
                return Ok(());
            }
            let made = copy_in(source, &place)
                .map_err(|error| shared.trouble(&format!("can't take {}", file.display()), &error))?;
            if made.sha256 != sha256 {
                return Err(StoreError::Failed(format!(
                    "{} has the SHA-256 {}, not {sha256}: it was changed on its way, and isn't kept",
                    file.display(),
                    made.sha256
                )));
            }
            made.publish(&place).map_err(|error| shared.trouble("can't be written", &error))
        })
        .await
    }

    async fn find(&self, sha256: &str) -> Result<Option<Stored>, StoreError> {
        let sha256 = sha256.to_owned();
        self.blocking(move |shared| {
            let Some(place) = shared.place(&sha256) else { return Ok(None) };
            let size = shared.used(&place).map_err(|error| shared.trouble("can't be read", &error))?;
            Ok(size.map(|size| Stored { size }))
        })
        .await
    }

    async fn read(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let name = sha256.to_owned();
        let start = range.start;
        let file = self
            .blocking(move |shared| {
                let place = shared.place(&name).ok_or_else(|| not_a_name(&name))?;
                let open = || {
                    let mut file = File::open(place)?;
                    file.seek(SeekFrom::Start(start))?;
                    Ok(file)
                };
                open().map_err(|error: io::Error| shared.trouble(&format!("has no {name}"), &error))
            })
            .await?;
        let left = range.end.saturating_sub(range.start);
        Ok(Reading { shared: Arc::clone(&self.shared), file, left, given: None }.stream())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.blocking(|shared| {
            let try_it = || tempfile::Builder::new().prefix(PUT).tempfile_in(&shared.path).map(drop);
            try_it().map_err(|error| shared.trouble("can't be written", &error))
        })
        .await
    }
}

#[async_trait]
impl Clears for Folder {
    async fn list(&self) -> Result<Vec<StoredArtifact>, StoreError> {
        self.blocking(|shared| shared.list().map_err(|error| shared.trouble("can't be listed", &error))).await
    }

    async fn remove(&self, filed: StoredArtifact) -> Result<bool, StoreError> {
        self.blocking(move |shared| {
            shared.remove(&filed).map_err(|error| shared.trouble("can't be tidied up", &error))
        })
        .await
    }
}

impl Shared {
    /// Where it is, if that is a name at all.
    fn place(&self, sha256: &str) -> Option<PathBuf> {
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_name = sha256.len() == 64 && sha256.bytes().all(hexadecimal);
        is_name.then(|| self.path.join(&sha256[..2]).join(sha256))
    }

    /// Marks it as asked for; gives its size, if it is there.
    fn used(&self, place: &Path) -> io::Result<Option<u64>> {
        let _removing = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match File::open(place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let about = file.metadata()?;
        let now = SystemTime::now();
        if now.duration_since(about.modified()?).is_ok_and(|age| age > USE)
            && let Err(error) = file.set_modified(now)
        {
            tracing::warn!(%error, path = %place.display(), "the time of use can't be noted");
        }
        Ok(Some(about.len()))
    }

    fn list(&self) -> io::Result<Vec<StoredArtifact>> {
        let mut all = Vec::new();
        for directory in fs::read_dir(&self.path)? {
            let directory = directory?;
            if !directory.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(directory.path())? {
                let file = file?;
                let sha256 = file.file_name().to_string_lossy().into_owned();
                let about = file.metadata()?;
                if self.place(&sha256).is_some() {
                    all.push(StoredArtifact { sha256, size: about.len(), used: about.modified()? });
                }
            }
        }
        Ok(all)
    }

    fn remove(&self, filed: &StoredArtifact) -> io::Result<bool> {
        let Some(place) = self.place(&filed.sha256) else { return Ok(false) };
        let _removing = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(&place) {
            Ok(about) if about.modified()? == filed.used => fs::remove_file(&place).map(|()| true),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn trouble(&self, what: &str, error: &io::Error) -> StoreError {
        StoreError::Failed(format!("the directory of artifacts {} {what}: {error}", self.path.display()))
    }
}

/// A copy that nobody sees yet.
struct Copied {
    sha256: String,
    file: tempfile::NamedTempFile,
}

fn copy_in(mut source: File, place: &Path) -> io::Result<Copied> {
    let directory = place.parent().unwrap_or(place);
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(PUT).tempfile_in(directory)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; COPY];
    loop {
        let read = source.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        sum.update(part);
        file.write_all(part)?;
    }
    let sha256 = HEXLOWER.encode(&sum.finalize());
    Ok(Copied { sha256, file })
}

impl Copied {
    fn publish(self, place: &Path) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(place)?;
        // The name has to be on the disk too, and the directory's own name.
        for directory in place.ancestors().skip(1).take(2) {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

/// A binary on its way out.
struct Reading {
    shared: Arc<Shared>,
    file: File,
    left: u64,
    /// When the last piece was.
    given: Option<Instant>,
}

impl Reading {
    fn stream(self) -> BoxStream<'static, Result<Bytes, StoreError>> {
        stream::try_unfold(self, |mut this| async move {
            if this.left == 0 {
                return Ok(None);
            }
            let is_slow = this.given.is_some_and(|given| given.elapsed() > SLOW);
            // It is never closed.
            let turn = Arc::clone(&this.shared.reading).acquire_owned().await.ok();
            let read = tokio::task::spawn_blocking(move || {
                let piece = this.piece(is_slow);
                drop(turn);
                this.given = Some(Instant::now());
                piece.map(|piece| (piece, this))
            });
            match read.await {
                Ok(read) => read.map(Some),
                Err(error) => Err(StoreError::Failed(format!("reading an artifact broke off: {error}"))),
            }
        })
        .boxed()
    }

    fn piece(&mut self, is_slow: bool) -> Result<Bytes, StoreError> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let large = if is_slow || left <= SMALL { None } else { Large::lent(&self.shared) };
        let piece = match large {
            Some(mut large) => {
                large.size = left.min(LARGE);
                self.fill(large.as_mut())?;
                Bytes::from_owner(large)
            }
            None => {
                let mut small = vec![0; left.min(SMALL)];
                self.fill(&mut small)?;
                small.into()
            }
        };
        self.left -= piece.len() as u64;
        Ok(piece)
    }

    fn fill(&mut self, piece: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact(piece).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.shared.trouble("has a file that is shorter than it was", &error)
            }
            _ => self.shared.trouble("can't be read", &error),
        })
    }
}

/// A large piece. Its memory is the next one's once it is sent.
struct Large {
    shared: Arc<Shared>,
    memory: Vec<u8>,
    size: usize,
}

impl Large {
    /// `None`: all are in use.
    fn lent(shared: &Arc<Shared>) -> Option<Self> {
        let mut memory = shared.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        memory.resize(LARGE, 0);
        Some(Self { shared: Arc::clone(shared), memory, size: LARGE })
    }
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.size).unwrap_or_default()
    }
}

impl AsMut<[u8]> for Large {
    fn as_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.size).unwrap_or_default()
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        let memory = mem::take(&mut self.memory);
        self.shared.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

fn not_a_name(sha256: &str) -> StoreError {
    StoreError::Failed(format!("{sha256} is no SHA-256 in lower case"))
}

fn unreadable(file: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("the binary {} can't be read: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    fn sha256(bytes: &[u8]) -> String {
        HEXLOWER.encode(&Sha256::digest(bytes))
    }

    struct Place {
        directory: tempfile::TempDir,
        folder: Folder,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let folder = Folder::open(&directory.path().join("artifacts")).unwrap();
            Self { directory, folder }
        }

        async fn put(&self, bytes: &[u8]) -> String {
            let file = self.directory.path().join("rr");
            fs::write(&file, bytes).unwrap();
            let sha256 = sha256(bytes);
            self.folder.put(&sha256, &file).await.unwrap();
            sha256
        }

        async fn read(&self, sha256: &str, range: Range<u64>) -> Vec<u8> {
            let pieces = self.folder.read(sha256, range).await.unwrap();
            pieces.try_fold(Vec::new(), async |all, piece| Ok([all, piece.to_vec()].concat())).await.unwrap()
        }

        fn files(&self) -> Vec<String> {
            let mut names = Vec::new();
            for directory in fs::read_dir(self.directory.path().join("artifacts")).unwrap() {
                for file in fs::read_dir(directory.unwrap().path()).unwrap() {
                    names.push(file.unwrap().file_name().to_string_lossy().into_owned());
                }
            }
            names
        }
    }

    #[tokio::test]
    async fn what_is_put_can_be_read() {
        let place = Place::new();
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|number| (number % 251) as u8).collect();
        let name = place.put(&bytes).await;
        assert_eq!(place.put(&bytes).await, name);
        assert_eq!(place.folder.find(&name).await.unwrap(), Some(Stored { size: 3_000_001 }));
        assert_eq!(place.read(&name, 0..3_000_001).await, bytes);
        assert_eq!(place.read(&name, 1_048_570..1_048_590).await, bytes[1_048_570..1_048_590]);
        assert!(place.read(&name, 5..5).await.is_empty());
    }

    #[tokio::test]
    async fn who_is_slow_holds_little_and_keeps_nobody_waiting() {
        const SLOW_ONES: usize = 256;
        let place = Place::new();
        let bytes = vec![7; 1_000_000];
        let name = place.put(&bytes).await;
        let mut held = Vec::new();
        for _ in 0..SLOW_ONES {
            let mut pieces = place.folder.read(&name, 0..1_000_000).await.unwrap();
            held.push((pieces.next().await.unwrap().unwrap(), pieces));
        }
        let memory: usize = held.iter().map(|(piece, _)| piece.len()).sum();
        assert_eq!(memory, LARGE_PIECES * LARGE + (SLOW_ONES - LARGE_PIECES) * SMALL);
        assert!(place.read(&name, 0..1_000_000).await == bytes, "others go on");

        // What was sent is the next one's.
        drop(held);
        let first = async |given: Option<Instant>| {
            let file = File::open(place.folder.shared.place(&name).unwrap()).unwrap();
            let reading = Reading { shared: Arc::clone(&place.folder.shared), file, left: 1_000_000, given };
            reading.stream().next().await.unwrap().unwrap().len()
        };
        assert_eq!(first(None).await, LARGE);
        assert_eq!(first(Some(Instant::now() + 600 * SLOW)).await, LARGE);
        assert_eq!(first(Instant::now().checked_sub(2 * SLOW)).await, SMALL);
    }

    #[tokio::test]
    async fn another_sum_is_refused() {
        let place = Place::new();
        let file = place.directory.path().join("rr");
        fs::write(&file, "changed").unwrap();
        let name = sha256(b"as it was");
        let error = place.folder.put(&name, &file).await.unwrap_err();
        assert!(error.to_string().contains("it was changed on its way"), "{error}");
        assert_eq!(place.folder.find(&name).await.unwrap(), None);
        assert!(place.files().is_empty(), "nothing is left of it: {:?}", place.files());
    }

    #[tokio::test]
    async fn names_lead_nowhere_else() {
        let place = Place::new();
        let long = format!("../{}", "a".repeat(61));
        for name in ["", "aa", "../../etc/passwd", &long, &"A".repeat(64), &"é".repeat(32)] {
            assert_eq!(place.folder.find(name).await.unwrap(), None);
            assert!(place.folder.read(name, 0..1).await.is_err());
            assert!(place.folder.put(name, Path::new("/dev/null")).await.is_err());
        }
    }

    #[tokio::test]
    async fn half_a_file_is_removed_at_the_start() {
        let place = Place::new();
        let name = place.put(b"whole").await;
        let half = place.directory.path().join("artifacts").join(&name[..2]).join(".put-half");
        fs::write(&half, "ha").unwrap();
        Folder::open(&place.directory.path().join("artifacts")).unwrap();
        assert_eq!(place.files(), [name]);
    }

    #[tokio::test]
    async fn what_was_asked_for_meanwhile_stays() {
        let place = Place::new();
        let name = place.put(b"binary").await;
        let path = place.folder.shared.place(&name).unwrap();
        let old = SystemTime::now() - Duration::from_secs(86_400);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let listed = place.folder.list().await.unwrap();
        place.folder.find(&name).await.unwrap();
        assert!(!place.folder.remove(listed[0].clone()).await.unwrap());
        let listed = place.folder.list().await.unwrap();
        assert!(place.folder.remove(listed[0].clone()).await.unwrap());
        assert_eq!(place.folder.find(&name).await.unwrap(), None);
    }
}
