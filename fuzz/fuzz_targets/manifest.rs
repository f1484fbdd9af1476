//! Arbitrary text parses as a manifest in each syntax, or results in errors whose spans are in the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_manifest::{Manifest, SourceFile, edit};

fuzz_target!(|text: &str| {
    let environment = |name: &str| name.len().is_multiple_of(2).then(|| "value".to_owned());
    for name in ["velox.toml", "velox.yaml", "velox.json"] {
        let source = SourceFile { name: name.to_owned(), text: text.to_owned() };
        let diagnostics = match Manifest::parse(&source, &environment) {
            Ok((_, warnings)) => warnings,
            Err(errors) => {
                assert!(!errors.is_empty());
                errors
            }
        };
        for diagnostic in diagnostics {
            let related = diagnostic.related.map(|related| related.span);
            for span in diagnostic.span.into_iter().chain(related) {
                assert!(text.get(span).is_some());
            }
        }
        let _ = edit::to_toml(&source);
    }
});
