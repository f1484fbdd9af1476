//! Images from bases in files, and OCI layouts.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use velox_oci::{
    Platform, RegistryClient, RegistryOptions,
    image::{BaseImage, ImageInput, ImageSet, ImageSettings, write_layout},
};

/// An image of a small binary on a base, and its blobs.
async fn assembled(base: &BaseImage, directory: &Path) -> Result<ImageSet, velox_oci::Error> {
    let platform = Platform::of_go("linux", "amd64", None);
    let binary = directory.join("rr");
    fs::write(&binary, "binary").unwrap();
    let client = RegistryClient::new(RegistryOptions::default()).unwrap();
    let bases = base.open(&client, std::slice::from_ref(&platform)).await?;
    let settings = ImageSettings { binary_path: "/usr/bin/rr".to_owned(), ..ImageSettings::default() };
    let targets = vec![(&platform, binary, bases[0].as_ref())];
    ImageInput { targets, additions: &[], settings: &settings, directory }.assemble().await
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(content)))
}

/// An archive as `docker save` wrote it, with this layer, which the configuration describes as `described`.
fn docker_archive(directory: &Path, name: &str, layer: &[u8], described: &[u8]) -> PathBuf {
    let config =
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": [sha256(described)] } });
    let manifest = json!([{ "Config": "config.json", "Layers": ["second/layer.tar"] }]);
    let path = directory.join(name);
    let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
    for (name, content) in [
        ("manifest.json", manifest.to_string().as_bytes()),
        ("./config.json", config.to_string().as_bytes()),
        ("first/layer.tar", layer),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    }
    // GNU tar writes a second hard link so.
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Link);
    link.set_size(0);
    tar.append_link(&mut link, "second/layer.tar", "first/layer.tar").unwrap();
    tar.finish().unwrap();
    path
}

#[tokio::test]
async fn layers_of_docker_save_are_compared_with_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let base =
        |name, layer, described| BaseImage::Archive(docker_archive(directory.path(), name, layer, described));
    let good = base("good.tar", b"layer", b"layer");
    assert_eq!(assembled(&good, directory.path()).await.unwrap().blob_count(), 3);
    let other = base("other.tar", b"another", b"layer");
    let error = assembled(&other, directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("`second/layer.tar` has another content than sha256:"), "{error}");

    let content = fs::read(directory.path().join("good.tar")).unwrap();
    let at = content.windows(15).position(|name| name == b"first/layer.tar").unwrap();
    for (broken, reason) in [
        (&content[..at + 514], "not an uncompressed tar archive: unexpected end of file"),
        (
            &b"\x1f\x8b compressed, and longer than a header would be".repeat(20)[..],
            "not an uncompressed tar archive",
        ),
    ] {
        let path = directory.path().join("broken.tar");
        fs::write(&path, broken).unwrap();
        let error = assembled(&BaseImage::Archive(path), directory.path()).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_layout_with_other_content_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let scratch = assembled(&BaseImage::Scratch, directory.path()).await.unwrap();
    let layout = directory.path().join("layout");
    write_layout(&scratch, &layout, &[], &|_| {}).await.unwrap();
    let base = BaseImage::Layout(layout.clone(), None);
    let image = assembled(&base, directory.path()).await.unwrap();
    // The name of the directory is not in the image: the same base elsewhere gives the same image.
    let moved = directory.path().join("moved");
    fs::rename(&layout, &moved).unwrap();
    let base = BaseImage::Layout(moved.clone(), None);
    assert_eq!(assembled(&base, directory.path()).await.unwrap().descriptor, image.descriptor);

    let blob = moved.join("blobs/sha256").join(scratch.descriptor.digest.hex());
    fs::write(&blob, vec![b' '; 5 << 20]).unwrap();
    let error = assembled(&base, directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("has more than 4194304 bytes"), "{error}");
    fs::write(&blob, "{}").unwrap();
    let error = assembled(&base, directory.path()).await.unwrap_err().to_string();
    assert!(error.contains("has another content"), "{error}");
}

#[tokio::test]
async fn builds_share_a_layout() {
    let directory = tempfile::tempdir().unwrap();
    let set = assembled(&BaseImage::Scratch, directory.path()).await.unwrap();
    let layout = directory.path().join("layout");
    let foreign =
        json!({ "mediaType": "x", "digest": "sha512:0", "size": 1, "urls": ["https://example.com"] });
    fs::create_dir(&layout).unwrap();
    fs::write(layout.join("oci-layout"), "").unwrap();
    fs::write(layout.join("index.json"), json!({ "manifests": [foreign] }).to_string()).unwrap();
    let names: Vec<_> = (0..16).map(|at| [format!("acme/rr:{at}").parse().unwrap()]).collect();
    std::thread::scope(|scope| {
        for name in &names {
            let write = || async { write_layout(&set, &layout, name, &|_| {}).await.unwrap() };
            scope.spawn(move || tokio::runtime::Runtime::new().unwrap().block_on(write()));
        }
    });
    // Without a name, and again.
    for _ in 0..2 {
        write_layout(&set, &layout, &[], &|_| {}).await.unwrap();
    }
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!((manifests.len(), &manifests[0]), (18, &foreign));
    fs::write(layout.join("index.json"), "{").unwrap();
    assert!(write_layout(&set, &layout, &[], &|_| {}).await.is_err(), "the other images stay");
}
