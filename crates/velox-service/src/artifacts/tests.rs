use std::io::Write as _;

use tempfile::{NamedTempFile, TempDir};
use velox_testkit::S3Server;

use super::*;

const MIB: usize = 1 << 20;

fn file(size: usize) -> (NamedTempFile, Vec<u8>, String) {
    let content: Vec<u8> = (0..size).map(|at| (at / 3 + at / 8191) as u8).collect();
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&content).unwrap();
    let sha256 = HEXLOWER.encode(&Sha256::digest(&content));
    (file, content, sha256)
}

fn own_directory() -> (TempDir, Arc<ArtifactBucket>) {
    let directory = tempfile::tempdir().unwrap();
    let bucket = ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap();
    (directory, Arc::new(bucket))
}

fn path(directory: &TempDir, sha256: &str) -> PathBuf {
    directory.path().join("artifacts").join(&sha256[..2]).join(sha256)
}

async fn read(bucket: &Arc<ArtifactBucket>, sha256: &str, range: Range<u64>) -> Vec<u8> {
    bucket.read(sha256, range).unwrap().try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

/// Tests the behaviour of any kind of store.
async fn behaves(bucket: &Arc<ArtifactBucket>) {
    bucket.ready().await.unwrap();
    for size in [0, 1, 8 * MIB, 16 * MIB + 12345] {
        let (file, content, sha256) = file(size);
        let size = size as u64;
        assert_eq!(bucket.find(&sha256).await.unwrap(), None);
        assert!(bucket.read(&sha256, 0..1).unwrap().next().await.unwrap().is_err());
        bucket.put(&sha256, file.path()).await.unwrap();
        bucket.put(&sha256, file.path()).await.expect("storing it again is no error");
        assert_eq!(bucket.find(&sha256).await.unwrap(), Some(size));
        let middle = (4 << 20_u64).min(size).saturating_sub(1)..((8 << 20) + 1).min(size);
        for range in [0..size, 0..size.min(1), size / 2..size, size..size, middle] {
            let expected = &content[range.start as usize..range.end as usize];
            assert!(read(bucket, &sha256, range.clone()).await == expected, "{range:?} of {size}");
        }
    }
    assert_eq!(bucket.list().await.unwrap().len(), 4);

    let (changed, _, of_changed) = file(8 * MIB + 1);
    let (small, _, of_small) = file(20);
    for (name, content) in [(&of_changed, &small), (&of_small, &changed)] {
        let error = bucket.put(name, content.path()).await.unwrap_err();
        assert!(error.to_string().contains("checksum mismatch"), "{error}");
        assert_eq!(bucket.find(name).await.unwrap(), None);
    }
    assert_eq!(bucket.list().await.unwrap().len(), 4, "nothing is left of a rejected upload");
    let long = format!("../{}", "a".repeat(61));
    for name in ["", "..", "../../etc/passwd", &long, &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
        assert_eq!(bucket.find(name).await.unwrap(), None);
        assert!(bucket.put(name, small.path()).await.is_err());
        assert!(bucket.read(name, 0..1).is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_directory_keeps_artifacts() {
    let (directory, bucket) = own_directory();
    behaves(&bucket).await;
    let files: Vec<_> = fs::read_dir(directory.path().join("artifacts")).unwrap().collect();
    let names = files.iter().flat_map(|folder| fs::read_dir(folder.as_ref().unwrap().path()).unwrap());
    assert_eq!(names.count(), 4, "no temporary file stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_directory_keeps_artifacts() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::from_directory_path(directory.path()).unwrap();
    behaves(&Arc::new(ArtifactBucket::open(&url, &BTreeMap::new()).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_keeps_artifacts() {
    let server = S3Server::start().unwrap();
    let url = server.url("builds/artifacts").parse().unwrap();
    behaves(&Arc::new(ArtifactBucket::open(&url, &server.environment()).unwrap())).await;

    let mut environment = server.environment();
    environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "wr0ng".to_owned());
    let error = ArtifactBucket::open(&url, &environment).unwrap().ready().await.unwrap_err().to_string();
    assert!(error.contains("s3://") && !error.contains("wr0ng"), "{error}");
}

#[tokio::test]
async fn slow_clients_hold_little_memory_and_delay_nobody() {
    const CLIENTS: u64 = 256;
    let (_directory, bucket) = own_directory();
    let (file, content, sha256) = file(MIB);
    bucket.put(&sha256, file.path()).await.unwrap();
    let mut slow: Vec<_> = (0..CLIENTS).map(|_| bucket.read(&sha256, 0..MIB as u64).unwrap()).collect();
    let mut held = 0;
    for client in &mut slow {
        held += client.next().await.unwrap().unwrap().len() as u64;
    }
    assert!(held * 2 <= DIRECTORY_LIMITS.total, "{held}");
    assert!(read(&bucket, &sha256, 0..MIB as u64).await == content);
}

#[test]
fn chunks_are_smaller_for_many_clients() {
    for limits in [DIRECTORY_LIMITS, OBJECT_STORE_LIMITS] {
        let chunk = |clients: usize| limits.chunk(clients + 1);
        assert_eq!([chunk(0), chunk(1), chunk(5)], [limits.max_chunk; 3]);
        assert!(chunk(256) * 256 * (limits.ahead as u64 + 1) <= limits.total, "{}", chunk(256));
        assert_eq!(chunk(5000), limits.min_chunk);
    }
}

#[tokio::test]
async fn incomplete_uploads_are_removed_when_a_directory_is_opened() {
    let (directory, bucket) = own_directory();
    let (file, _, sha256) = file(10);
    bucket.put(&sha256, file.path()).await.unwrap();
    let whole = path(&directory, &sha256);
    let partial = [whole.with_file_name(".put-half"), whole.with_file_name(format!("{sha256}#1"))];
    for partial in &partial {
        fs::write(partial, "ha").unwrap();
    }
    ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap();
    assert!(whole.exists() && partial.iter().all(|partial| !partial.exists()));
}

#[tokio::test]
async fn an_artifact_used_since_it_was_listed_stays() {
    let (directory, bucket) = own_directory();
    let (file, _, sha256) = file(10);
    bucket.put(&sha256, file.path()).await.unwrap();
    let old = SystemTime::now() - Duration::from_secs(86_400);
    File::options().write(true).open(path(&directory, &sha256)).unwrap().set_modified(old).unwrap();
    let listed = bucket.list().await.unwrap();
    bucket.find(&sha256).await.unwrap();
    assert!(!bucket.remove(listed[0].clone()).await.unwrap());
    let listed = bucket.list().await.unwrap();
    assert!(bucket.remove(listed[0].clone()).await.unwrap());
    assert_eq!(bucket.find(&sha256).await.unwrap(), None);
}

#[test]
fn invalid_stores_are_rejected_without_their_secrets() {
    for (url, why) in [
        ("http://example.org/", "expected a file://"),
        ("s3://key:s3cret@bucket", "environment"),
        ("s3://", "missing bucket"),
    ] {
        let error = ArtifactBucket::open(&url.parse().unwrap(), &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("s3cret"), "{error}");
    }
}

/// A damaged artifact is not found, is removed, and can be stored again.
async fn notices_damage(bucket: &dyn Fn() -> Arc<ArtifactBucket>, damage: &dyn Fn(&str, Vec<u8>)) {
    let (source, content, sha256) = file(MIB);
    let size = Some(MIB as u64);
    let mut flipped = content.clone();
    flipped[MIB / 2] ^= 1;
    let damages = [flipped, content[..MIB / 2].to_vec(), Vec::new(), [&content[..], b"x"].concat()];
    for damaged in damages {
        let running = bucket();
        running.put(&sha256, source.path()).await.unwrap();
        assert_eq!(running.find(&sha256).await.unwrap(), size);
        // In a later process, and while one runs.
        for bucket in [bucket(), Arc::clone(&running)] {
            damage(&sha256, damaged.clone());
            assert_eq!(bucket.find(&sha256).await.unwrap(), None);
            assert_eq!(bucket.list().await.unwrap(), [], "it was removed");
            bucket.put(&sha256, source.path()).await.unwrap();
            assert_eq!(bucket.find(&sha256).await.unwrap(), size);
            assert!(read(&bucket, &sha256, 0..MIB as u64).await == content);
        }
    }
    // It is written anew even while it seems to be intact.
    let running = bucket();
    damage(&sha256, vec![0; MIB]);
    running.put(&sha256, source.path()).await.unwrap();
    assert!(read(&running, &sha256, 0..MIB as u64).await == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_noticed() {
    let (directory, _) = own_directory();
    let root = directory.path().join("artifacts");
    let damage = |sha256: &str, bytes: Vec<u8>| fs::write(path(&directory, sha256), bytes).unwrap();
    notices_damage(&|| Arc::new(ArtifactBucket::open_directory(&root).unwrap()), &damage).await;
    let url = Url::from_directory_path(&root).unwrap();
    notices_damage(&|| Arc::new(ArtifactBucket::open(&url, &BTreeMap::new()).unwrap()), &damage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_objects_are_noticed() {
    let server = S3Server::start().unwrap();
    let url: Url = server.url("builds/artifacts").parse().unwrap();
    let open = || ArtifactBucket::open(&url, &server.environment()).unwrap();
    let damage = |sha256: &str, bytes: Vec<u8>| {
        let bucket = open();
        let location = bucket.location(sha256).unwrap();
        let put = async move { bucket.store.put(&location, bytes.into()).await.unwrap() };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(put));
    };
    notices_damage(&|| Arc::new(open()), &damage).await;
}

#[tokio::test]
async fn links_in_place_of_artifacts_are_not_followed() {
    let (directory, bucket) = own_directory();
    let (source, content, sha256) = file(10);
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, &content).unwrap();
    let place = path(&directory, &sha256);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    assert!(bucket.read(&sha256, 0..10).unwrap().next().await.unwrap().is_err());
    assert_eq!(bucket.find(&sha256).await.unwrap(), None);
    assert!(elsewhere.exists() && place.symlink_metadata().is_err(), "the link was removed");
    std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    bucket.put(&sha256, source.path()).await.unwrap();
    assert!(place.symlink_metadata().unwrap().is_file());
    assert_eq!(bucket.find(&sha256).await.unwrap(), Some(10));

    // A link in place of the directory.
    fs::remove_dir_all(place.parent().unwrap()).unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(&sha256), &content).unwrap();
    std::os::unix::fs::symlink(&folder, place.parent().unwrap()).unwrap();
    assert_eq!(bucket.find(&sha256).await.unwrap(), None);
    assert!(bucket.put(&sha256, source.path()).await.is_err());
}

#[tokio::test]
async fn artifacts_are_verified_in_the_background() {
    let (directory, bucket) = own_directory();
    let (one, _, first) = file(100);
    let (two, _, second) = file(200);
    bucket.put(&first, one.path()).await.unwrap();
    bucket.put(&second, two.path()).await.unwrap();
    fs::write(path(&directory, &second), [7; 200]).unwrap();
    let later = ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap();
    later.verify_all().await.unwrap();
    assert!(path(&directory, &first).exists() && !path(&directory, &second).exists());
    assert!(later.verified().contains_key(&first));
}

/// A bucket with a directory for local clients.
fn with_shared_directory() -> (TempDir, Arc<ArtifactBucket>) {
    let directory = tempfile::tempdir().unwrap();
    let shared = SharedDirectory::open(&directory.path().join("shared")).unwrap();
    let bucket = ArtifactBucket::open_directory(&directory.path().join("artifacts")).unwrap();
    (directory, Arc::new(bucket.with_shared_directory(Some(shared))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_clients_find_binaries_as_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, bucket) = with_shared_directory();
    let (source, content, sha256) = file(MIB + 1);
    bucket.put(&sha256, source.path()).await.unwrap();
    let share = async || bucket.share(&sha256, content.len() as u64, false).await.unwrap().unwrap();
    let (first, second) = tokio::join!(share(), share());
    assert_eq!((&first, &first), (&second, &directory.path().join("shared").join(&sha256).join("rr")));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((fs::read(&first).unwrap() == content, mode(&first)), (true, 0o755));
    assert_eq!(mode(first.parent().unwrap()), 0o755);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let written = inode(&first);
    assert_eq!(inode(&share().await), written, "the file stays");

    // What a client or a crash did to a file is repaired.
    let link = directory.path().join("link");
    let damages: [&dyn Fn(&Path); 5] = [
        &|file| fs::write(file, b"x").unwrap(),
        &|file| fs::remove_file(file).unwrap(),
        &|file| fs::remove_dir_all(file.parent().unwrap()).unwrap(),
        &|file| fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap(),
        &|file| {
            fs::rename(file, &link).unwrap();
            std::os::unix::fs::symlink(&link, file).unwrap();
        },
    ];
    for (at, damage) in damages.iter().enumerate() {
        damage(&first);
        assert_eq!(share().await, first);
        assert!(fs::read(&first).unwrap() == content, "damage {at}");
        assert_eq!(
            (mode(&first), fs::symlink_metadata(&first).unwrap().is_file()),
            (0o755, true),
            "damage {at}"
        );
    }
    assert_eq!(
        bucket.share(&sha256, content.len() as u64, true).await.unwrap().unwrap().file_name().unwrap(),
        "rr.exe"
    );
    assert!(bucket.share("../x", 1, false).await.is_err());
    assert!(bucket.share(&"0".repeat(64), 1, false).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shared_directory_is_cleaned_with_the_artifacts() {
    let (directory, bucket) = with_shared_directory();
    let shared = directory.path().join("shared");
    let (kept, _, kept_sum) = file(10);
    let (removed, _, removed_sum) = file(20);
    for (file, sum, size) in [(&kept, &kept_sum, 10), (&removed, &removed_sum, 20)] {
        bucket.put(sum, file.path()).await.unwrap();
        bucket.share(sum, size, false).await.unwrap();
    }
    fs::write(shared.join("notes.txt"), "of somebody else").unwrap();
    fs::create_dir(shared.join(".rr-crashed")).unwrap();
    let artifact = bucket.list().await.unwrap().into_iter().find(|it| it.sha256 == removed_sum).unwrap();
    assert!(bucket.remove(artifact).await.unwrap());
    bucket.prune_shared().await.unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&shared).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), [".rr-crashed", &*kept_sum, "notes.txt"]);
    SharedDirectory::open(&shared).unwrap();
    assert_eq!(names(), [&*kept_sum, "notes.txt"]);
    fs::write(directory.path().join("file"), "").unwrap();
    assert!(SharedDirectory::open(&directory.path().join("file")).is_err());
}
