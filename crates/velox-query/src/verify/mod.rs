//! Verification of a binary: it is built again from its lock, and must have the same bytes.
//!
//! ```text
//! rr ──build information, record──► compared with velox.lock ──rebuild──► compared with rr
//! ```

mod difference;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_build::{
    Attestation, BuildRecord, BuildRequest, Error, Lock, Reporter, TargetVariant, VerifyingKey, file_digest,
    hex_of_sum, package_url, rebuild,
};
use velox_gomod::buildinfo::{BuildInfo, BuildModule};

use crate::inspect;

pub use difference::{BinaryDifference, DifferenceKind};

/// A binary that vx built, with what it says about itself. It may be hostile, and is never run.
#[derive(Debug, Clone)]
pub struct RecordedBinary {
    /// Its path.
    pub path: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Go's build information.
    pub info: BuildInfo,
    /// The record of vx.
    pub record: BuildRecord,
    /// What it was compiled for.
    pub variant: TargetVariant,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildVerification {
    /// Whether both binaries have the same bytes.
    pub identical: bool,
    /// The SHA-256 of the binary, in hexadecimal.
    pub sha256: String,
    /// The SHA-256 of the binary that was built again; `None`: the lock is not that of the binary, so none was built.
    pub rebuilt_sha256: Option<String>,
    /// RoadRunner's version.
    pub version: String,
    /// The Go version that compiled the binary (`go1.26.8`).
    pub go_version: String,
    /// The target, `os/arch`.
    pub target: String,
    /// The first difference.
    pub difference: Option<BinaryDifference>,
}

impl RecordedBinary {
    /// Reads a binary for any platform.
    ///
    /// # Errors
    /// It can't be read, is not a RoadRunner binary, or has no build record.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (info, record) = inspect::read(path)?;
        let name = path.display();
        let record = record.ok_or_else(|| {
            Error::build(format!("{name} has no build record"))
                .help("vx did not build it, or somebody removed the record: it can't be built again")
        })?;
        let variant = TargetVariant::of_binary(&info, &record.tags, record.debug).ok_or_else(|| {
            Error::build(format!("the build information of {name} lacks its target (GOOS, GOARCH)"))
        })?;
        let (_, sha256) = file_digest(path).map_err(|error| Error::file("read", path, &error))?;
        Ok(Self { path: path.to_owned(), sha256, info, record, variant })
    }

    /// Verifies a signed provenance: the signature, that it is about this binary, and that its parameters are those in
    /// the binary. `name` is for messages.
    ///
    /// # Errors
    /// Any of this is not the case.
    pub fn check_attestation(
        &self,
        name: &str,
        text: &str,
        key: &VerifyingKey,
    ) -> Result<Attestation, Error> {
        let attestation = Attestation::verify(name, text, key)?;
        if !attestation.subject.iter().any(|file| file.sha256 == self.sha256) {
            let files = attestation.subject.iter().map(|file| format!("{} {}", file.sha256, file.name));
            let mut error = Error::build(format!(
                "verification failed: {name} is not about {}, whose SHA-256 is {}",
                self.path.display(),
                self.sha256
            ))
            .help("it is the attestation of another build, or the binary was changed");
            error.output = files.collect();
            return Err(error);
        }
        let Some(build) = &attestation.build else { return Ok(attestation) };
        let record = &self.record;
        let pair = |one: &str, other: &str| format!("{one} {other}");
        let said = [
            ("Go", build.go.clone(), self.info.go_version.clone()),
            (
                "RoadRunner",
                pair(&build.roadrunner.0, &build.roadrunner.1),
                pair(&record.roadrunner, &record.version),
            ),
            (
                "the stamp",
                pair(&build.stamp.0, &build.stamp.1),
                pair(&record.stamp_version, &record.stamp_time),
            ),
            ("--debug", build.debug.to_string(), record.debug.to_string()),
            ("--race", build.race.to_string(), record.race.to_string()),
        ];
        let contradiction = |what: &str, attested: &str, found: &str| {
            Error::build(format!(
                "verification failed: {name} contradicts the binary: {what} is {attested}, but the binary has {found}"
            ))
        };
        if let Some((what, attested, found)) = said.iter().find(|(_, attested, found)| attested != found) {
            return Err(contradiction(what, attested, found));
        }
        for module in &self.info.deps {
            let (path, version, sum) = compiled(module);
            let Some(sum) = hex_of_sum(sum) else { continue };
            let attested = build.modules.get(&package_url(path, version));
            if let Some(Some(attested)) = attested
                && *attested != sum
            {
                return Err(contradiction(&format!("the sum of {path}"), attested, &sum));
            }
            if attested.is_none() {
                return Err(contradiction(path, "not mentioned", version.unwrap_or("it")));
            }
        }
        Ok(attestation)
    }

    /// Builds the binary again from the lock of the request, and compares the bytes. Without `shared_caches`, everything
    /// is downloaded and compiled anew.
    ///
    /// # Errors
    /// The lock can't be read; a failed build.
    pub async fn verify(
        &self,
        request: &BuildRequest,
        shared_caches: bool,
        reporter: Arc<dyn Reporter>,
        cancel: CancellationToken,
    ) -> Result<BuildVerification, Error> {
        let lock = read_lock(request)?;
        if let Some(difference) = self.difference_from_lock(&lock)? {
            return Ok(self.result(None, Some(difference)));
        }
        let rebuilt = rebuild(request, &self.record, &self.variant, shared_caches, reporter, cancel).await?;
        if rebuilt.sha256 == self.sha256 {
            return Ok(self.result(Some(rebuilt.sha256), None));
        }
        let difference = self.difference_from(&rebuilt.path)?;
        Ok(self.result(Some(rebuilt.sha256), Some(difference)))
    }

    /// The result of a comparison with a binary with this SHA-256; `None`: there is none.
    #[must_use]
    pub fn result(
        &self,
        rebuilt_sha256: Option<String>,
        difference: Option<BinaryDifference>,
    ) -> BuildVerification {
        BuildVerification {
            identical: rebuilt_sha256.as_ref() == Some(&self.sha256),
            sha256: self.sha256.clone(),
            rebuilt_sha256,
            version: self.record.version.clone(),
            go_version: self.info.go_version.clone(),
            target: self.variant.target.to_string(),
            difference,
        }
    }
}

/// The path, the version (`None` for a directory) and the sum of what is compiled for a module.
fn compiled(module: &BuildModule) -> (&str, Option<&str>, &str) {
    match &module.replace {
        Some(new) if new.path.starts_with("./") => (&module.path, None, ""),
        Some(new) => (&new.path, Some(&new.version), &new.sum),
        None => (&module.path, Some(&module.version), &module.sum),
    }
}

/// Reads the lock file of a request.
///
/// # Errors
/// It doesn't exist, or is invalid.
pub fn read_lock(request: &BuildRequest) -> Result<Lock, Error> {
    let path = request.lock.as_ref();
    let path = path.ok_or_else(|| Error::configuration("internal error: the request has no lock file"))?;
    let text = fs::read_to_string(path).map_err(|error| {
        Error::configuration(format!("failed to read `{}`: {error}", path.display()))
            .help("`--lock` names the velox.lock that the binary was built from")
    })?;
    Lock::parse(&path.display().to_string(), &text)
}
