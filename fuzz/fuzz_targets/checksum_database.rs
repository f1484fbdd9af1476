//! Parsing arbitrary replies of a checksum database must not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_fetch::sumdb::{note::{SignedNote, Verifier}, tlog::{LogRecord, TreeHead}};

fuzz_target!(|bytes: &[u8]| {
    let _ = LogRecord::parse(bytes);
    let _ = SignedNote::open(bytes, &[]);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Verifier::parse(text);
        let _ = TreeHead::parse(text);
    }
});
