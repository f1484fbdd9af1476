//! A parsed lock that is printed and parsed again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_build::Lock;

fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse("velox.lock", text) {
        let again = Lock::parse("velox.lock", &lock.to_string());
        assert_eq!(again.ok().as_ref(), Some(&lock));
    }
});
