//! Arbitrary text parses as a manifest or results in errors whose spans are in the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_manifest::{Manifest, SourceFile};

fuzz_target!(|text: &str| {
    let source = SourceFile { name: "velox.toml".to_owned(), text: text.to_owned() };
    let environment = |name: &str| (name.len() % 2 == 0).then(|| "value".to_owned());
    if let Err(errors) = Manifest::parse(&source, &environment) {
        assert!(!errors.is_empty());
        for span in errors.into_iter().filter_map(|error| error.span) {
            assert!(text.get(span).is_some());
        }
    }
});
