use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{lock::Lock, settings::Settings, stamp::Stamp};

/// What a server of ours carries about its own making, as JSON in its read-only data: with `-trimpath` Go leaves the
/// linker's flags out of the build information.
#[derive(Serialize)]
pub(crate) struct Record<'a> {
    /// Grows when the meaning of a field changes.
    vx_record: u32,
    roadrunner: &'a str,
    version: &'a str,
    /// SHA-256 over the composed go.mod: two servers with the same one have the same modules.
    modules: String,
    stamp_version: &'a str,
    stamp_time: &'a str,
    debug: bool,
    race: bool,
    tags: &'a [String],
    flags: &'a [String],
}

impl<'a> Record<'a> {
    pub(crate) fn new(lock: &'a Lock, stamp: &'a Stamp, settings: &'a Settings) -> Self {
        // go.sum stays out: it grows with every target that is locked, which must not change the others' bytes.
        let digest = Sha256::digest(&lock.go_mod);
        let mut modules = String::with_capacity(64);
        for byte in digest {
            // Writing to a String can't fail.
            let _ = write!(modules, "{byte:02x}");
        }
        Self {
            vx_record: 1,
            roadrunner: &lock.roadrunner.module,
            version: &lock.roadrunner.version,
            modules,
            stamp_version: &stamp.version,
            stamp_time: &stamp.time,
            debug: settings.debug,
            race: settings.race,
            tags: &settings.arguments.tags,
            flags: &settings.arguments.flags,
        }
    }
}
