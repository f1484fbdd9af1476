//! Parsing arbitrary replies of a checksum database must not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_gomod::sumdb::{
    note::{Note, Verifier},
    tlog::{Record, Tree},
};

fuzz_target!(|bytes: &[u8]| {
    let _ = Record::parse(bytes);
    let _ = Note::open(bytes, &[]);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Verifier::parse(text);
        let _ = Tree::parse(text);
    }
});
