//! Parsing arbitrary responses of a checksum database must not panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_fetch::sumdb::{
    note::Verifier,
    tlog::{LogRecord, TreeHead},
};

const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fuzz_target!(|bytes: &[u8]| {
    let _ = LogRecord::parse(bytes);
    if let Ok(key) = Verifier::parse(KEY) {
        let _ = key.open(bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Verifier::parse(text);
        let _ = TreeHead::parse(text);
    }
});
