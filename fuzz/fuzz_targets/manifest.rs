//! Any text is a configuration or a list of mistakes, each at a place that the text has.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_manifest::{Manifest, SourceFile};

fuzz_target!(|text: &str| {
    let source = SourceFile { name: "velox.toml".to_owned(), text: text.to_owned() };
    let environment = |name: &str| (name.len() % 2 == 0).then(|| "value".to_owned());
    if let Err(mistakes) = Manifest::parse(&source, &environment) {
        assert!(!mistakes.is_empty());
        for span in mistakes.into_iter().filter_map(|mistake| mistake.span) {
            assert!(text.get(span).is_some());
        }
    }
});
