//! An image on an arbitrary base is complete, and each of its blobs has its digest; or the base is refused.

#![no_main]

use std::{fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use velox_oci::{
    BlobDigest, ImageReference, Platform, RegistryClient, RegistryOptions,
    image::{BaseImage, ImageInput, ImageSettings, write_layout},
    is_known_challenge,
};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static CLIENT: LazyLock<RegistryClient> =
    LazyLock::new(|| RegistryClient::new(RegistryOptions::default()).expect("a client"));

fuzz_target!(|bytes: &[u8]| {
    let Some((way, bytes)) = bytes.split_first() else { return };
    if way % 4 == 0 {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let _ = is_known_challenge(text);
        if let Ok(reference) = text.parse::<ImageReference>() {
            let again: ImageReference = reference.to_string().parse().expect("a valid reference stays valid");
            assert_eq!(reference, again);
        }
        return;
    }
    let Ok(place) = tempfile::tempdir() else { return };
    let base = match way % 4 {
        1 => archive(place.path(), bytes),
        2 => layout(place.path(), bytes),
        _ => layout_with_index(place.path(), bytes),
    };
    let binary = place.path().join("rr");
    fs::write(&binary, "binary").expect("a binary");
    let platform = Platform::of_go("linux", "amd64", None);
    RUNTIME.block_on(async {
        let Ok(bases) = base.open(&CLIENT, std::slice::from_ref(&platform)).await else { return };
        let settings = ImageSettings { binary_path: "/usr/bin/rr".to_owned(), ..ImageSettings::default() };
        let targets = vec![(&platform, binary, bases.first().and_then(Option::as_ref))];
        let input = ImageInput { targets, additions: &[], settings: &settings, directory: place.path() };
        let Ok(set) = input.assemble().await else { return };
        let made = place.path().join("made");
        if write_layout(&set, &made, &[], &|_| {}).await.is_ok() {
            let blobs = made.join("blobs/sha256");
            for blob in fs::read_dir(blobs).expect("blobs") {
                let path = blob.expect("a blob").path();
                let digest = BlobDigest::of(&fs::read(&path).expect("a blob"));
                assert!(path.ends_with(digest.hex()), "{}", path.display());
            }
        }
    });
});

fn archive(place: &Path, bytes: &[u8]) -> BaseImage {
    let path = place.join("base.tar");
    fs::write(&path, bytes).expect("an archive");
    BaseImage::Archive(path)
}

/// A manifest, a configuration and a layer, separated by NUL; `CONFIG` and `LAYER` in the manifest are their digests.
fn layout(place: &Path, bytes: &[u8]) -> BaseImage {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (manifest, config, layer) = (part(), part(), part());
    let digests = [("CONFIG", store(place, config)), ("LAYER", store(place, layer))];
    let mut manifest = String::from_utf8_lossy(manifest).into_owned();
    for (word, digest) in digests {
        manifest = manifest.replace(word, &digest);
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let (digest, size) = (store(place, manifest.as_bytes()), manifest.len());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}]}}"#
    );
    layout_with_index(place, index.as_bytes())
}

fn layout_with_index(place: &Path, index: &[u8]) -> BaseImage {
    fs::write(place.join("index.json"), index).expect("an index");
    BaseImage::Layout(place.to_owned(), None)
}

fn store(place: &Path, content: &[u8]) -> String {
    let digest = BlobDigest::of(content);
    let directory = place.join("blobs/sha256");
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join(digest.hex()), content).expect("a blob");
    digest.to_string()
}
