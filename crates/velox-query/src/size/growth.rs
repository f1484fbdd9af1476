//! The sizes of an earlier binary, in a file beside velox.lock.
//!
//! They are not part of the lock, which is compared with the configuration and reviewed as a whole: sizes change with
//! the Go version and the target, and are known only after a build.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use velox_build::{Error, write_text};

use super::SizeReport;

/// Less growth of a known module is not shown.
const MIN_GROWTH_BYTES: u64 = 1024;

/// Recorded sizes, by target platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordedSizes(pub BTreeMap<String, RecordedSize>);

/// The recorded size of one binary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSize {
    /// The size of the file in bytes.
    pub total: u64,
    /// The bytes of each module.
    pub modules: BTreeMap<String, u64>,
}

/// A module that is larger than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleGrowth {
    /// The module path.
    pub module: String,
    /// Bytes before; `None` for a new module.
    pub from: Option<u64>,
    /// Bytes now.
    pub to: u64,
}

impl RecordedSizes {
    /// Reads the file; a missing one has no sizes.
    ///
    /// # Errors
    /// A file that can't be read or parsed.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::file("read", path, &error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            Error::configuration(format!("failed to parse `{}`: {error}", path.display()))
                .help("restore it from version control, or delete it and run `vx size --save`")
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_text(path, &text).map_err(|error| Error::file("write", path, &error))
    }
}

impl RecordedSize {
    /// The sizes of a report.
    #[must_use]
    pub fn of(report: &SizeReport) -> Self {
        let modules = report.modules.iter().map(|module| (module.module.clone(), module.bytes)).collect();
        Self { total: report.total, modules }
    }

    /// The modules that grew since, most bytes first.
    #[must_use]
    pub fn growth(&self, report: &SizeReport) -> Vec<ModuleGrowth> {
        let growth = report.modules.iter().map(|module| ModuleGrowth {
            module: module.module.clone(),
            from: self.modules.get(&module.module).copied(),
            to: module.bytes,
        });
        // The parts in generated tables are estimates: every module changes by some bytes.
        let is_larger = |growth: &ModuleGrowth| growth.from.is_none() || growth.bytes() >= MIN_GROWTH_BYTES;
        let mut growth: Vec<ModuleGrowth> = growth.filter(is_larger).collect();
        growth.sort_by(|a, b| b.bytes().cmp(&a.bytes()).then_with(|| a.module.cmp(&b.module)));
        growth
    }
}

impl ModuleGrowth {
    /// The additional bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.to.saturating_sub(self.from.unwrap_or_default())
    }
}
