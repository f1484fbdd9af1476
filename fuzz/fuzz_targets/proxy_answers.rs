//! Arbitrary responses of a module proxy are stored as a complete version or not at all.

#![no_main]

use std::io::Write as _;

use libfuzzer_sys::fuzz_target;
use velox_fetch::modcache::{CacheFile, ModCache, ModCacheError};
use velox_gomod::module::ModuleVersion;

fuzz_target!(|answer: (&str, &str, &[u8])| {
    let (info, go_mod, zip) = answer;
    let module = ModuleVersion { path: "example.com/m".to_owned(), version: "v1.0.0".to_owned() };
    let Ok(place) = tempfile::tempdir() else { return };
    let cache = ModCache::new(place.path());
    let (Ok(lock), Ok(mut file)) = (cache.lock(&module), cache.new_file(&module, CacheFile::Zip)) else {
        return;
    };
    if file.write_all(zip).is_err() {
        return;
    }
    let kept =
        cache.store_verified(&lock, &module, Some(info), go_mod, file, &mut |_| Ok::<(), ModCacheError>(()));
    assert_eq!(kept.is_ok(), cache.contains(&module));
    let folder = place.path().join("cache/download/example.com/m/@v");
    let left = std::fs::read_dir(folder).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, if kept.is_ok() { 5 } else { 1 }, "all of it, or the lock alone");
});
