//! Parsing arbitrary GOPROXY, GOSUMDB and netrc values must not panic, and no message contains a password.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_fetch::{
    proxy::{Netrc, ProxyList},
    sumdb::SumDbConfig,
};

fuzz_target!(|text: &str| {
    let list = format!("https://proxy.example,ftp://me:velox-secret@{text}");
    if let Err(error) = ProxyList::parse(&list) {
        assert!(!error.to_string().contains("velox-secret"));
    }
    let _ = ProxyList::parse(text);
    let _ = SumDbConfig::parse(text);
    let netrc = Netrc::parse(&format!("machine a.example login me password velox-secret\n{text}"));
    assert!(!format!("{netrc:?}").contains("velox-secret"));
});
