//! The documents of a finished job: bills of materials, and the signed provenance of the binary.

use std::{collections::BTreeMap, fs, io, path::Path};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use velox_api::{BuildId, BuildSpec};
use velox_build::{
    AttestedFile, BuildOptions, BuildRequest, Error, Goal, Lock, SbomFormat, SigningKey, StampOptions, attest,
};

use crate::build::{BuildDocuments, BuildResult, attestation_name};

/// Larger documents of a job are left out; that of RoadRunner with all its plugins has 0.4 MB.
const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// The documents about a binary that are not stored yet.
#[derive(Debug, Default)]
pub(crate) struct NewDocuments {
    sboms: Vec<(SbomFormat, Vec<u8>)>,
    /// The ID of the key, and the envelope.
    attestation: Option<(String, String)>,
}

impl NewDocuments {
    /// Reads what the job wrote beside the binary, and signs the provenance with the key. Blocks.
    pub(crate) fn of_job(
        spec: &BuildSpec,
        key: Option<&SigningKey>,
        result: &BuildResult,
        binary: &Path,
    ) -> Self {
        let mut documents = Self::default();
        for format in [SbomFormat::CycloneDx, SbomFormat::Spdx] {
            match read(&binary.with_file_name(format.file_name("rr"))) {
                Ok(content) => documents.sboms.push((format, content)),
                Err(error) => tracing::warn!(%error, "a job has no bill of materials"),
            }
        }
        if let Some(key) = key {
            match documents.sign(spec, key, result) {
                Ok(envelope) => documents.attestation = Some((key.id(), envelope)),
                Err(error) => tracing::error!(%error, "failed to sign the provenance of a build"),
            }
        }
        documents
    }

    fn sign(&self, spec: &BuildSpec, key: &SigningKey, result: &BuildResult) -> Result<String, Error> {
        let (manifest, source) = spec.manifest_and_source().map_err(|violations| {
            Error::build(violations.into_iter().next().map(|it| it.message).unwrap_or_default())
        })?;
        let request = BuildRequest {
            manifest,
            source: Some(source),
            base: "/".into(),
            environment: BTreeMap::new(),
            options: BuildOptions {
                stamp: StampOptions { version: spec.stamp_version.clone(), time: spec.stamp_time.clone() },
                ..BuildOptions::default()
            },
            goal: Goal::Plan,
            lock: None,
            updates_lock: false,
        };
        let (name, sha256) = (result.artifact.file_name.clone(), result.artifact.sha256.clone());
        let mut subject = vec![AttestedFile { name, sha256 }];
        subject.extend(self.sboms.iter().map(|(format, content)| AttestedFile {
            name: format.file_name("rr"),
            sha256: HEXLOWER.encode(&Sha256::digest(content)),
        }));
        attest(&request, &Lock::parse("velox.lock", &result.lock)?, &subject, key)
    }

    /// What the build records.
    pub(crate) fn index(&self) -> BuildDocuments {
        BuildDocuments {
            sboms: self.sboms.iter().map(|(format, _)| *format).collect(),
            signed_by: self.attestation.as_ref().map(|(key, _)| key.clone()),
        }
    }

    /// The names in the artifact store, and the contents.
    pub(crate) fn files(&self, id: BuildId) -> Vec<(String, Vec<u8>)> {
        let sboms = self.sboms.iter().map(|(format, content)| (format.file_name("rr"), content.clone()));
        let attestation = self.attestation.iter();
        sboms
            .chain(attestation.map(|(_, envelope)| (attestation_name(id), envelope.clone().into_bytes())))
            .collect()
    }
}

/// A job may have left a link to a file of the service there.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let data = fs::symlink_metadata(path)?;
    if !data.is_file() || data.len() > MAX_DOCUMENT_BYTES {
        return Err(io::Error::other("it is not a regular file, or too large"));
    }
    fs::read(path)
}
