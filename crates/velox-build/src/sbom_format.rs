use serde::{Deserialize, Serialize};

/// The format of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SbomFormat {
    /// CycloneDX 1.6 in JSON (<https://cyclonedx.org/docs/1.6/json/>).
    CycloneDx,
    /// SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).
    Spdx,
}

impl SbomFormat {
    /// The name in arguments.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CycloneDx => "cyclonedx",
            Self::Spdx => "spdx",
        }
    }

    /// The name of the document beside the binary: `rr.cdx.json`, `rr.spdx.json`.
    #[must_use]
    pub fn file_name(self, binary: &str) -> String {
        match self {
            Self::CycloneDx => format!("{binary}.cdx.json"),
            Self::Spdx => format!("{binary}.spdx.json"),
        }
    }
}
