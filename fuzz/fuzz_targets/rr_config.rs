//! Arbitrary text is read as a .rr.yaml that includes itself, with findings whose spans are in the text.

#![no_main]

use std::{collections::BTreeMap, path::Path};

use libfuzzer_sys::fuzz_target;
use velox_manifest::Diagnostic;
use velox_query::{CompiledPlugins, RrConfig};

fuzz_target!(|text: &str| {
    let environment = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
    let read = |_: &Path| Ok::<_, Diagnostic>(text.to_owned());
    let Ok(config) = RrConfig::read(".rr.yaml", Path::new("/app/.rr.yaml"), &environment, &read) else {
        return;
    };
    let modules = [("http".to_owned(), "github.com/roadrunner-server/http/v6".to_owned())];
    let checked = config.check(CompiledPlugins::Modules(&modules), Some(6));
    for report in checked.reports.into_iter().chain(config.plugins().reports) {
        assert_eq!(report.source.text.len(), text.len());
        for finding in report.findings {
            let related = finding.related.map(|related| related.span);
            for span in finding.span.into_iter().chain(related) {
                assert!(text.get(span).is_some());
            }
        }
    }
});
