//! A parsed go.mod or go.sum that is printed and parsed again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_gomod::{gosum::GoSum, modfile::GoMod};

fuzz_target!(|text: &str| {
    if let Ok(go_mod) = GoMod::parse(text) {
        let again = GoMod::parse(&go_mod.to_string());
        assert_eq!(again.map(|again| again.to_string()).ok(), Some(go_mod.to_string()));
    }
    let _ = GoMod::parse_lax(text);
    if let Ok(sums) = GoSum::parse(text) {
        assert_eq!(GoSum::parse(&sums.to_string()), Ok(sums));
    }
});
