use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Read},
};

use data_encoding::HEXLOWER;
use memchr::memmem;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{error::Error, lock::Lock, settings::BuildSettings, stamp::Stamp};

/// The beginning of a record.
const RECORD_PREFIX: &[u8] = br#"{"vx_record":"#;
/// How many bytes of a binary are read at once, and the maximum length of a record.
const CHUNK_BYTES: u64 = 1 << 20;
const MAX_RECORD_BYTES: usize = 1 << 16;
/// The maximum size of a binary that is searched.
const MAX_BINARY_BYTES: u64 = 4 << 30;

/// The build record, JSON in the data of a binary: Go's build information lacks the linker flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The version of the format.
    vx_record: u32,
    /// RoadRunner's module path.
    pub roadrunner: String,
    /// RoadRunner's version.
    pub version: String,
    /// The module paths of the plugins: the build information does not distinguish them from other modules.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// SHA-256 of the composed go.mod, in hexadecimal.
    pub modules: String,
    /// The version that `rr --version` shows.
    pub stamp_version: String,
    /// The build time that `rr --version` shows.
    pub stamp_time: String,
    /// Built with `--debug`.
    pub debug: bool,
    /// Built with `--race`.
    pub race: bool,
    /// Build tags.
    pub tags: Vec<String>,
    /// Extra compiler flags.
    pub flags: Vec<String>,
    /// The `-X` definitions of `build_args`, without the stamp.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub definitions: BTreeMap<String, String>,
    /// Whether the linker removes symbols, if `build_args` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip: Option<bool>,
}

impl BuildRecord {
    pub(crate) fn new(lock: &Lock, stamp: &Stamp, settings: &BuildSettings) -> Self {
        let mut plugins: Vec<String> = lock.plugins.iter().map(|plugin| plugin.module.clone()).collect();
        plugins.sort();
        Self {
            vx_record: 1,
            roadrunner: lock.roadrunner.module.clone(),
            version: lock.roadrunner.version.clone(),
            plugins,
            // Not go.sum, which grows with every locked target and would change the bytes of the others.
            modules: HEXLOWER.encode(&Sha256::digest(lock.go_mod.text())),
            stamp_version: stamp.version.clone(),
            stamp_time: stamp.time.clone(),
            debug: settings.debug,
            race: settings.race,
            tags: settings.arguments.tags.clone(),
            flags: settings.arguments.flags.clone(),
            definitions: settings.arguments.definitions.clone(),
            strip: settings.arguments.strip,
        }
    }

    /// The argument of the linker's `-X` that sets the variable of `container/plugins.go`; it has no single quote and no
    /// control character.
    pub(crate) fn definition(&self) -> Result<String, Error> {
        let json = serde_json::to_string(self).map_err(|error| {
            Error::build(format!("internal error: failed to write the build record: {error}"))
        })?;
        let mut definition = format!("{}/container.record=", self.roadrunner);
        for c in json.chars() {
            match c {
                c if c == '\'' || c.is_control() => {
                    // Writing to a String never fails.
                    let _ = write!(definition, "\\u{:04x}", u32::from(c));
                }
                c => definition.push(c),
            }
        }
        Ok(definition)
    }

    /// Searches the bytes of a binary for its record.
    ///
    /// # Errors
    /// The binary can't be read.
    pub fn find(binary: impl Read) -> io::Result<Option<Self>> {
        let mut rest = binary.take(MAX_BINARY_BYTES);
        let finder = memmem::Finder::new(RECORD_PREFIX);
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            let is_end = (&mut rest).take(CHUNK_BYTES).read_to_end(&mut buffer)? == 0;
            let mut from = 0;
            while let Some(at) = buffer.get(from..).and_then(|bytes| finder.find(bytes)) {
                from += at;
                let Some(found) =
                    buffer.get(from..).filter(|found| is_end || found.len() >= MAX_RECORD_BYTES)
                else {
                    break;
                };
                let found = found.get(..MAX_RECORD_BYTES).unwrap_or(found);
                let record = serde_json::Deserializer::from_slice(found).into_iter::<Self>().next();
                if let Some(Ok(record)) = record
                    && record.vx_record == 1
                {
                    return Ok(Some(record));
                }
                from += RECORD_PREFIX.len();
            }
            if is_end {
                return Ok(None);
            }
            // Keep a possible start of a record.
            let keep = buffer
                .get(from..)
                .and_then(|bytes| finder.find(bytes))
                .map_or_else(|| buffer.len().saturating_sub(RECORD_PREFIX.len()).max(from), |at| from + at);
            buffer.drain(..keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn record() -> BuildRecord {
        BuildRecord {
            vx_record: 1,
            roadrunner: "github.com/roadrunner-server/roadrunner/v2025".into(),
            version: "v2025.1.15".into(),
            plugins: vec!["github.com/roadrunner-server/http/v5".into()],
            modules: "00".into(),
            stamp_version: "1.0 \"x\"".into(),
            stamp_time: "2025".into(),
            debug: true,
            race: false,
            tags: vec!["debug".into()],
            flags: Vec::new(),
            definitions: BTreeMap::new(),
            strip: None,
        }
    }

    fn find(parts: &[&[u8]]) -> Option<BuildRecord> {
        BuildRecord::find(parts.concat().as_slice()).unwrap()
    }

    #[test]
    fn any_record_survives_the_linkers_quotes() {
        let odd = BuildRecord { stamp_version: "a'b\"c\\\u{1}\u{7f}\u{85}é".into(), ..record() };
        let definition = odd.definition().unwrap();
        assert!(!definition.contains('\'') && !definition.contains(char::is_control), "{definition}");
        let (name, json) = definition.split_once('=').unwrap();
        assert_eq!(name, "github.com/roadrunner-server/roadrunner/v2025/container.record");
        assert_eq!(find(&[json.as_bytes()]), Some(odd));
    }

    #[test]
    fn a_record_is_found_wherever_it_stands() {
        let text = serde_json::to_vec(&record()).unwrap();
        for before in [0, 1, 4095, (1 << 20) - 200, (1 << 20) - 5, (1 << 20) + 1, 3 << 20] {
            for after in [0, 100, 2 << 20] {
                let (before, after) = (vec![b'{'; before], vec![b'x'; after]);
                assert_eq!(find(&[&before, &text, &after]), Some(record()));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(parts in vec(prop_oneof![
            Just(RECORD_PREFIX.to_vec()),
            Just(serde_json::to_vec(&record()).unwrap()),
            vec(any::<u8>(), 0..50),
        ], 0..9), cut in 0usize..2000) {
            let bytes = parts.concat();
            let _ = BuildRecord::find(&bytes[..cut.min(bytes.len())]);
        }
    }

    #[test]
    fn what_only_looks_like_one_is_passed_over() {
        let text = serde_json::to_vec(&record()).unwrap();
        assert_eq!(find(&[RECORD_PREFIX, b"1,", RECORD_PREFIX, RECORD_PREFIX, &text]), Some(record()));
        assert_eq!(find(&[RECORD_PREFIX]), None);
        assert_eq!(find(&[&RECORD_PREFIX.repeat(200_000)]), None);
        assert_eq!(find(&[&text[..text.len() - 1]]), None);
        assert_eq!(find(&[b"{\"vx_record\":2}"]), None);
        assert_eq!(find(&[b""]), None);
        let newer = String::from_utf8(text).unwrap().replace("\"debug\":", "\"new\":1,\"debug\":");
        assert_eq!(find(&[newer.as_bytes()]), Some(record()), "a field that came later is no harm");
    }
}
