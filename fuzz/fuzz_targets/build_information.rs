//! Reading the build information of arbitrary files must not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_gomod::buildinfo::BuildInfo;

fuzz_target!(|bytes: &[u8]| {
    let Ok(place) = tempfile::tempdir() else { return };
    let file = place.path().join("rr");
    if std::fs::write(&file, bytes).is_ok() {
        let _ = BuildInfo::read(&file);
    }
});
