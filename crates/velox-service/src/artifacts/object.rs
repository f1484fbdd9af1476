//! The binaries in an object store: `ROOT/3f/3f9a…`, each under its SHA-256.

use std::{
    collections::BTreeMap,
    iter,
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream, FuturesUnordered},
};
use object_store::{
    MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, path::Path as Location,
};
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncReadExt, time::timeout};
use url::Url;
use velox_gocache::{kind_of_trouble, open_remote, parse_remote};

use super::{Artifacts, Clears, Stored, StoredArtifact};
use crate::store::StoreError;

/// How much is sent at once; all services take parts of this size, and 10,000 of them.
const PART: usize = 8 << 20;
/// How many parts are on their way at once.
const PARTS: usize = 3;
/// How much is asked for at once, at most: a client that reads slowly holds no answer of the store open, only some pieces
/// in memory…
const PIECE: u64 = 4 << 20;
/// … which are smaller the more clients there are, so that all of them together have about this much,
const SENT: u64 = 64 << 20;
/// but not smaller than this.
const SMALLEST: u64 = 64 << 10;
/// How many pieces a client may be ahead of the one that it reads.
const AHEAD: usize = 2;
/// How long a part or a piece may take.
const ANSWER: Duration = Duration::from_secs(120);

/// An object store, or a bucket's folder in one.
#[derive(Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    root: Location,
    /// What errors call it.
    name: String,
    /// One for each client that reads.
    readers: Arc<()>,
}

impl Objects {
    /// Reads what a user calls a store of artifacts: an absolute path, or a `file://`, `s3://`, `gs://` or `az://` URL.
    ///
    /// # Errors
    /// What it is not, without what of it may be secret.
    pub fn parse(text: &str) -> Result<Url, String> {
        parse_remote(text).map_err(|error| match error {
            velox_gocache::Error::Remote { text, why } => format!("`{text}` is no store of artifacts: {why}"),
            error => error.to_string(),
        })
    }

    /// Opens what the URL names: `s3://bucket/prefix`, `gs://…`, `az://…`, or `file:///directory` that all nodes share.
    /// Credentials come from the variables that object_store documents (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
    ///
    /// # Errors
    /// What of the URL or the environment is wrong.
    pub fn open(url: &Url, environment: &BTreeMap<String, String>) -> Result<Self, StoreError> {
        let trouble =
            |error: velox_gocache::Error| StoreError::Failed(format!("the artifact store: {error}"));
        let url = parse_remote(url.as_str()).map_err(trouble)?;
        let (store, root) = open_remote(&url, environment, ANSWER).map_err(trouble)?;
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => Arc::new(LocalFileSystem::new().with_fsync(true)),
            _ => store.into(),
        };
        Ok(Self { store, root, name: url.to_string(), readers: Arc::default() })
    }

    /// `None`: it is no name of an artifact, so that there is none.
    fn location(&self, sha256: &str) -> Option<Location> {
        let is_name = sha256.len() == 64
            && sha256.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        is_name.then(|| self.root.clone().join(sha256.get(..2).unwrap_or_default()).join(sha256))
    }

    fn trouble(&self, what: &str, error: &object_store::Error) -> StoreError {
        StoreError::Failed(format!("{} can't {what}: {}", self.name, kind_of_trouble(error)))
    }

    /// Sends the file in parts. It becomes visible with the last step, which isn't taken where the content isn't what its
    /// name says.
    async fn send(&self, sha256: &str, file: &mut File, location: &Location) -> Result<(), StoreError> {
        let mut upload = self
            .store
            .put_multipart(location)
            .await
            .map_err(|error| self.trouble("take an artifact", &error))?;
        let sent = self.send_parts(sha256, file, upload.as_mut()).await;
        if let Err(error) = sent {
            // What isn't removed costs room, and is never seen; services have rules for that.
            let _ = upload.abort().await;
            return Err(error);
        }
        upload.complete().await.map_err(|error| self.trouble("take an artifact", &error))?;
        Ok(())
    }

    async fn send_parts(
        &self,
        sha256: &str,
        file: &mut File,
        upload: &mut dyn MultipartUpload,
    ) -> Result<(), StoreError> {
        let mut digest = Sha256::new();
        let mut sending = FuturesUnordered::new();
        loop {
            let part = read_part(file).await?;
            if part.is_empty() {
                break;
            }
            digest.update(&part);
            if sending.len() == PARTS
                && let Some(Err(error)) = sending.next().await
            {
                return Err(self.trouble("take an artifact", &error));
            }
            sending.push(upload.put_part(PutPayload::from(part)));
        }
        while let Some(sent) = sending.next().await {
            sent.map_err(|error| self.trouble("take an artifact", &error))?;
        }
        verified(sha256, digest)
    }
}

/// How large a piece is, with so many readers beside the store itself.
fn size(readers: &Arc<()>) -> u64 {
    let pieces = (Arc::strong_count(readers) as u64 - 1).max(1) * (AHEAD as u64 + 1);
    (SENT / pieces).clamp(SMALLEST, PIECE)
}

fn verified(sha256: &str, digest: Sha256) -> Result<(), StoreError> {
    let found = HEXLOWER.encode(&digest.finalize());
    if found == sha256 {
        Ok(())
    } else {
        Err(StoreError::Failed(format!(
            "the artifact {sha256} has the SHA-256 {found} by now: it was damaged"
        )))
    }
}

/// The next part of a file; empty at its end.
async fn read_part(file: &mut File) -> Result<Bytes, StoreError> {
    let mut part = Vec::with_capacity(PART);
    let read = file.take(PART as u64).read_to_end(&mut part).await;
    read.map_err(|error| StoreError::Failed(format!("the artifact can't be read: {error}")))?;
    Ok(part.into())
}

#[async_trait]
impl Artifacts for Objects {
    async fn put(&self, sha256: &str, file: &Path) -> Result<(), StoreError> {
        let reading = |error| StoreError::Failed(format!("the artifact can't be read: {error}"));
        let mut file = File::open(file).await.map_err(reading)?;
        let size = file.metadata().await.map_err(reading)?.len();
        let Some(location) = self.location(sha256) else {
            return Err(StoreError::Failed(format!("`{sha256}` is no SHA-256")));
        };
        if self.find(sha256).await?.is_some_and(|stored| stored.size == size) {
            return Ok(());
        }
        if size > PART as u64 {
            return self.send(sha256, &mut file, &location).await;
        }
        let content = read_part(&mut file).await?;
        verified(sha256, Sha256::new_with_prefix(&content))?;
        let put = self.store.put(&location, PutPayload::from(content)).await;
        put.map(drop).map_err(|error| self.trouble("take an artifact", &error))
    }

    async fn find(&self, sha256: &str) -> Result<Option<Stored>, StoreError> {
        let Some(location) = self.location(sha256) else { return Ok(None) };
        match self.store.head(&location).await {
            Ok(found) => Ok(Some(Stored { size: found.size })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.trouble("be asked for an artifact", &error)),
        }
    }

    async fn read(
        &self,
        sha256: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let Some(location) = self.location(sha256) else {
            return Err(StoreError::Failed(format!("`{sha256}` is no SHA-256")));
        };
        let (store, name, readers) = (Arc::clone(&self.store), self.name.clone(), Arc::clone(&self.readers));
        let mut start = range.start;
        let pieces = iter::from_fn(move || {
            let (store, location, name) = (Arc::clone(&store), location.clone(), name.clone());
            let piece = start..range.end.min(start + size(&readers));
            start = piece.end;
            (!piece.is_empty()).then_some(async move {
                let read = store.get_range(&location, piece.clone()).await;
                let read = read.map_err(|error| {
                    StoreError::Failed(format!("{name} can't give an artifact: {}", kind_of_trouble(&error)))
                })?;
                if read.len() as u64 == piece.end - piece.start {
                    Ok(read)
                } else {
                    Err(StoreError::Failed(format!("{name} has less of an artifact than it should")))
                }
            })
        });
        Ok(stream::iter(pieces).buffered(AHEAD).boxed())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let nothing = self.root.clone().join("ready");
        let silent = || StoreError::Failed(format!("{} doesn't answer within 2 s", self.name));
        match timeout(Duration::from_secs(2), self.store.head(&nothing)).await.map_err(|_| silent())? {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.trouble("be reached", &error)),
        }
    }
}

#[async_trait]
impl Clears for Objects {
    async fn list(&self) -> Result<Vec<StoredArtifact>, StoreError> {
        let all = self.store.list(Some(&self.root)).try_filter_map(async |object| {
            let sha256 = object.location.filename().unwrap_or_default().to_owned();
            let is_artifact = self.location(&sha256).is_some_and(|location| location == object.location);
            let used = object.last_modified.into();
            Ok(is_artifact.then_some(StoredArtifact { sha256, size: object.size, used }))
        });
        all.try_collect().await.map_err(|error| self.trouble("be listed", &error))
    }

    async fn remove(&self, filed: StoredArtifact) -> Result<bool, StoreError> {
        let Some(location) = self.location(&filed.sha256) else { return Ok(false) };
        let removed = async {
            let found = self.store.head(&location).await?;
            let is_same = SystemTime::from(found.last_modified) == filed.used;
            if is_same {
                self.store.delete(&location).await?;
            }
            Ok(is_same)
        };
        match removed.await {
            Ok(removed) => Ok(removed),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.trouble("remove an artifact", &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures::TryStreamExt;
    use tempfile::NamedTempFile;
    use velox_testkit::S3Server;

    use super::*;

    fn file(size: usize) -> (NamedTempFile, Vec<u8>, String) {
        let content: Vec<u8> = (0..size).map(|at| (at / 3 + at / 8191) as u8).collect();
        let mut file = NamedTempFile::new().expect("it can be made");
        file.write_all(&content).expect("it can be written");
        let sha256 = HEXLOWER.encode(&Sha256::digest(&content));
        (file, content, sha256)
    }

    async fn read(objects: &Objects, sha256: &str, range: Range<u64>) -> Vec<u8> {
        let stream = objects.read(sha256, range).await.expect("it can be read");
        stream.try_collect::<Vec<Bytes>>().await.expect("it can be read").concat()
    }

    async fn keeps(objects: &Objects) {
        objects.ready().await.expect("it answers");
        for size in [0, 1, PART, 2 * PART + 12345, 4 * PART] {
            let (file, content, sha256) = file(size);
            let size = size as u64;
            assert_eq!(objects.find(&sha256).await.expect("it can be asked"), None);
            assert!(
                objects
                    .read(&sha256, 0..1)
                    .await
                    .expect("it begins")
                    .next()
                    .await
                    .is_none_or(|first| first.is_err())
            );
            objects.put(&sha256, file.path()).await.expect("it is kept");
            objects.put(&sha256, file.path()).await.expect("the same again is no error");
            assert_eq!(objects.find(&sha256).await.expect("it can be asked"), Some(Stored { size }));
            let mut ranges = vec![0..size, 0..size.min(1), size / 2..size, size..size];
            ranges.push(PIECE.min(size).saturating_sub(1)..(2 * PIECE + 1).min(size));
            for range in ranges {
                let some = &content[range.start as usize..range.end as usize];
                assert!(read(objects, &sha256, range.clone()).await == some, "{range:?} of {size}");
            }
        }
    }

    async fn refuses_what_is_damaged(objects: &Objects) {
        let (right, _, sha256) = file(PART + 1);
        let (small, _, of_small) = file(20);
        for (name, content) in [(&sha256, &small), (&of_small, &right)] {
            let error = objects.put(name, content.path()).await.expect_err("it is damaged");
            assert!(error.to_string().contains("damaged"), "{error}");
            assert_eq!(objects.find(name).await.expect("it can be asked"), None);
        }
        for name in ["", "..", "../../etc/passwd", &"g".repeat(64), &"A".repeat(64)] {
            assert_eq!(objects.find(name).await.expect("it can be asked"), None);
            assert!(objects.put(name, small.path()).await.is_err());
            assert!(objects.read(name, 0..1).await.is_err());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_directory_keeps_artifacts() {
        let directory = tempfile::tempdir().expect("it can be made");
        let url = Url::from_directory_path(directory.path()).expect("it is a URL");
        let objects = Objects::open(&url, &BTreeMap::new()).expect("it can be opened");
        keeps(&objects).await;
        refuses_what_is_damaged(&objects).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_bucket_keeps_artifacts() {
        let server = S3Server::start().expect("it starts");
        let url = server.url("builds/artifacts").parse().expect("it is a URL");
        let objects = Objects::open(&url, &server.environment()).expect("it can be opened");
        keeps(&objects).await;
        refuses_what_is_damaged(&objects).await;

        let mut environment = server.environment();
        environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "wr0ng".to_owned());
        let objects = Objects::open(&url, &environment).expect("it can be opened");
        let error = objects.ready().await.expect_err("it is refused").to_string();
        assert!(error.contains("s3://") && !error.contains("wr0ng"), "{error}");
    }

    #[test]
    fn pieces_are_smaller_for_many_clients() {
        let readers = Arc::new(());
        let of = |clients: usize| {
            let _clients = vec![Arc::clone(&readers); clients];
            size(&readers)
        };
        assert_eq!([of(0), of(1), of(5)], [PIECE; 3]);
        assert!(of(256) * 256 * 3 <= SENT && of(256) > SMALLEST, "{}", of(256));
        assert_eq!(of(5000), SMALLEST);
    }

    #[test]
    fn what_is_no_store() {
        for (wrong, why) in [
            ("http://example.org/", "no file://"),
            ("s3://key:s3cret@bucket", "environment"),
            ("s3://", "no bucket"),
        ] {
            let error = Objects::open(&wrong.parse().expect("it is a URL"), &BTreeMap::new());
            let error = error.expect_err("it can't be opened").to_string();
            assert!(error.contains(why) && !error.contains("s3cret"), "{error}");
        }
    }
}
