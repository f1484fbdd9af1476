//! Whatever a checksum database answers is a record, a signed tree, or an error.

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
