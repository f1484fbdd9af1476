//! An arbitrary build request is a valid spec or has violations. A valid spec has an equivalent, valid
//! configuration.

#![no_main]

use libfuzzer_sys::fuzz_target;
use velox_api::BuildSpec;
use velox_service::fuzzing;

fuzz_target!(|bytes: &[u8]| {
    let Some((way, bytes)) = bytes.split_first() else { return };
    let read = match way % 6 {
        0 => fuzzing::submit(bytes),
        1 => fuzzing::call_json(bytes),
        2 => fuzzing::call_protobuf(bytes),
        3 => fuzzing::query(bytes),
        4 => fuzzing::form(bytes),
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let specs = BuildSpec::from_configuration(text, None);
            specs.ok().and_then(|(mut specs, _)| specs.pop()).map(Ok)
        }
    };
    match read {
        Some(Ok(spec)) => {
            let again = spec.clone().normalized().expect("a valid spec stays valid");
            assert_eq!(spec.key().expect("a key"), again.key().expect("a key"));
            let configuration = spec.configuration();
            let (parsed, _) =
                BuildSpec::from_configuration(&configuration, None).expect("its configuration is valid");
            // A configuration has no stamp.
            let stamps = BuildSpec { stamp_version: None, stamp_time: None, ..spec };
            assert_eq!(parsed, [stamps], "{configuration}");
        }
        Some(Err(violations)) => assert!(!violations.is_empty()),
        None => {}
    }
});
