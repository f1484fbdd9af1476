//! Whether a bill of materials is that of a binary.

use std::collections::BTreeSet;

use serde_json::Value;
use velox_build::{Error, package_url};

use super::{RecordedBinary, compiled};
use crate::without_major;

/// What a document says.
struct SbomClaims {
    /// The SHA-256 of the binary.
    sha256: Option<String>,
    /// The package URLs of all other components.
    modules: BTreeSet<String>,
}

impl RecordedBinary {
    /// Checks that a bill of materials is about this binary, and lists its modules. `name` is for messages.
    ///
    /// # Errors
    /// It is neither CycloneDX nor SPDX in JSON, is about another binary, or lists other modules.
    pub fn check_sbom(&self, name: &str, text: &str) -> Result<(), Error> {
        let document: Value = serde_json::from_str(text)
            .map_err(|error| Error::build(format!("invalid bill of materials {name}: {error}")))?;
        let claims = cyclonedx(&document).or_else(|| spdx(&document)).ok_or_else(|| {
            Error::build(format!(
                "invalid bill of materials {name}: it is neither CycloneDX nor SPDX in JSON"
            ))
        })?;
        let failed = |why: String| Error::build(format!("verification failed: {name} {why}"));
        match &claims.sha256 {
            None => {
                return Err(failed("has no SHA-256 of the binary".to_owned())
                    .help("`vx build --sbom` and `vx sbom BINARY` write one with it"));
            }
            Some(sha256) if *sha256 != self.sha256 => {
                return Err(failed(format!(
                    "is about another binary: its SHA-256 is {sha256}, that of {} is {}",
                    self.path.display(),
                    self.sha256
                )));
            }
            Some(_) => {}
        }
        let standard_library = package_url("stdlib", Some(self.info.go_version.trim_start_matches("go")));
        let modules = self.info.deps.iter().map(|module| {
            let (path, version, _) = compiled(module);
            package_url(path, version)
        });
        let expected: BTreeSet<String> = modules.chain([standard_library]).collect();
        let roadrunner = format!("pkg:golang/{}", without_major(&self.record.roadrunner));
        let is_other = |url: &&String| !url.starts_with(&roadrunner);
        if let Some(missing) = expected.difference(&claims.modules).find(is_other) {
            return Err(failed(format!("lacks {missing}, which is in the binary")));
        }
        match claims.modules.difference(&expected).find(is_other) {
            Some(other) => Err(failed(format!("has {other}, which is not in the binary"))),
            None => Ok(()),
        }
    }
}

fn cyclonedx(document: &Value) -> Option<SbomClaims> {
    (document.get("bomFormat")? == "CycloneDX").then_some(())?;
    let hashes = document.pointer("/metadata/component/hashes").and_then(Value::as_array);
    let sha256 = hashes.into_iter().flatten().find(|hash| hash["alg"] == "SHA-256");
    let components = document.get("components")?.as_array()?;
    Some(SbomClaims {
        sha256: text(sha256.and_then(|hash| hash.get("content"))),
        modules: components.iter().filter_map(|component| text(component.get("purl"))).collect(),
    })
}

fn spdx(document: &Value) -> Option<SbomClaims> {
    document.get("spdxVersion")?;
    let list =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let described =
        list(document, "relationships").into_iter().find(|it| it["relationshipType"] == "DESCRIBES");
    let root = described.map(|it| it["relatedSpdxElement"].clone());
    let (root, others): (Vec<Value>, Vec<Value>) =
        list(document, "packages").into_iter().partition(|package| Some(&package["SPDXID"]) == root.as_ref());
    let checksums = root.iter().flat_map(|package| list(package, "checksums"));
    let sha256 = checksums.into_iter().find(|checksum| checksum["algorithm"] == "SHA256");
    let references = others.iter().flat_map(|package| list(package, "externalRefs"));
    Some(SbomClaims {
        sha256: text(sha256.as_ref().and_then(|checksum| checksum.get("checksumValue"))),
        modules: references
            .filter(|reference| reference["referenceType"] == "purl")
            .filter_map(|reference| text(reference.get("referenceLocator")))
            .collect(),
    })
}

fn text(value: Option<&Value>) -> Option<String> {
    Some(value?.as_str()?.to_owned())
}
