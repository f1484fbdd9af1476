//! Extracting an arbitrary zip must not write outside the target directory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_gomod::{dirhash, module::ModuleVersion, modzip};

fuzz_target!(|bytes: &[u8]| {
    let module = ModuleVersion { path: "example.com/m".to_owned(), version: "v1.0.0".to_owned() };
    let Ok(place) = tempfile::tempdir() else { return };
    let zip = place.path().join("m.zip");
    if std::fs::write(&zip, bytes).is_err() {
        return;
    }
    let _ = dirhash::hash_zip(&zip);
    let inside = place.path().join("in/side");
    let _ = modzip::unzip(&inside, &module, &zip);
    let _ = modzip::remove_all(&place.path().join("in"));
    let left = std::fs::read_dir(place.path()).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 1, "only the zip itself is left");
});
