//! Where a binary is from: an in-toto statement with SLSA provenance, in a signed envelope.
//!
//! Nothing in a statement depends on the time or the machine; whoever has its configuration and its lock can build the
//! same subjects.

pub(crate) mod attestation;

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use velox_gomod::module::ModuleVersion;

use crate::{
    artifact::publish::write_whole,
    atomic_file::FileMode,
    compile::go_build::build_flags,
    context::BuildContext,
    error::Error,
    event::{BuiltBinary, SilentReporter},
    keys::signing::SigningKey,
    lock::Lock,
    request::{AttestationOutput, BuildRequest},
    sbom::{hex_of_sum, package_url},
    workspace::tree,
};

/// <https://in-toto.io/Statement/v1>
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The meaning of the parameters: docs/sbom-and-provenance.md.
pub(crate) const BUILD_TYPE: &str =
    "https://github.com/roadrunner-server/velox/blob/master/docs/sbom-and-provenance.md#build-type-v1";
const BUILDER: &str =
    "https://github.com/roadrunner-server/velox/blob/master/docs/sbom-and-provenance.md#builder";

/// A file that an attestation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedFile {
    /// Its name.
    pub name: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Writes the signed provenance of published binaries.
pub(crate) fn write(
    context: &BuildContext<'_>,
    lock: &Lock,
    binaries: &[BuiltBinary],
    AttestationOutput { file, key }: &AttestationOutput,
) -> Result<(), Error> {
    let mut subject = Vec::new();
    for binary in binaries {
        subject.push(AttestedFile { name: file_name(&binary.path), sha256: binary.sha256.clone() });
        for file in binary.archive.iter().chain(&binary.sboms) {
            let (_, sha256) =
                crate::digest::of_file(file).map_err(|error| Error::file("read", file, &error))?;
            subject.push(AttestedFile { name: file_name(file), sha256 });
        }
    }
    let payload = statement(context, lock, &subject)?.to_string();
    let envelope = envelope(payload.as_bytes(), key)?;
    write_whole(file, FileMode::Data, &mut |out| {
        use std::io::Write as _;
        writeln!(out, "{envelope}")
    })
}

/// The signed provenance of files that were built from this request and lock: the text of a DSSE envelope.
///
/// # Errors
/// An invalid request or lock.
pub fn attest(
    request: &BuildRequest,
    lock: &Lock,
    subject: &[AttestedFile],
    key: &SigningKey,
) -> Result<String, Error> {
    let context = BuildContext::new(request, Arc::new(SilentReporter), CancellationToken::new())?;
    let payload = statement(&context, lock, subject)?.to_string();
    Ok(format!("{}\n", envelope(payload.as_bytes(), key)?))
}

/// A DSSE envelope (<https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>).
fn envelope(payload: &[u8], key: &SigningKey) -> Result<Value, Error> {
    let signature = BASE64.encode(&key.sign(&signed_message(payload))?);
    Ok(json!({
        "payloadType": PAYLOAD_TYPE,
        "payload": BASE64.encode(payload),
        "signatures": [{ "keyid": key.id(), "sig": signature }],
    }))
}

/// What the signature of an envelope is about: the payload with its type
/// (<https://github.com/secure-systems-lab/dsse/blob/master/protocol.md>).
pub(crate) fn signed_message(payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    message.extend(payload);
    message
}

/// An in-toto statement (<https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>) with provenance of
/// SLSA 1.0 (<https://slsa.dev/spec/v1.0/provenance>).
fn statement(context: &BuildContext<'_>, lock: &Lock, subject: &[AttestedFile]) -> Result<Value, Error> {
    let (request, settings, stamp) = (context.request, &context.settings, context.stamp(lock));
    let subjects: Vec<Value> = subject
        .iter()
        .map(|file| json!({ "name": file.name, "digest": { "sha256": file.sha256 } }))
        .collect();
    let sha256 = |text: &str| HEXLOWER.encode(&Sha256::digest(text));
    let lock_text = lock.to_string();
    let mut dependencies = vec![json!({ "name": "velox.lock", "digest": { "sha256": sha256(&lock_text) } })];
    dependencies.extend(
        request
            .source
            .as_ref()
            .map(|source| json!({ "name": "velox.toml", "digest": { "sha256": sha256(&source.text) } })),
    );
    let toolchain = json!({ "name": "go", "uri": format!("https://go.dev/dl/#{}", lock.go_version) });
    dependencies.push(toolchain);
    let targets: Vec<_> = context.variants.iter().filter_map(|variant| lock.targets.get(variant)).collect();
    let mut modules = lock.zips(&targets);
    modules.sort();
    modules.dedup();
    for ModuleVersion { path, version } in &modules {
        let sum = lock.go_sum.get(path, version).find_map(hex_of_sum);
        dependencies.push(match sum {
            Some(sum) => json!({ "uri": package_url(path, Some(version)), "digest": { "dirHash": sum } }),
            None => json!({ "uri": package_url(path, Some(version)) }),
        });
    }
    for (module, directory) in context.replaced(lock) {
        let digest = tree::digest(&directory)?;
        let uri = package_url(&module, None);
        dependencies.push(json!({ "name": "local directory", "uri": uri, "digest": { "sha256": digest } }));
    }
    let variants: Vec<Value> = context
        .variants
        .iter()
        .map(|variant| {
            json!({
                "target": variant.target.to_string(),
                "cgo": variant.cgo,
                "tags": variant.tags,
                "instructionSet": variant.instruction_set.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "roadrunner": { "module": lock.roadrunner.module, "version": lock.roadrunner.version },
                    "targets": variants,
                    "debug": settings.debug,
                    "race": settings.race,
                    "stamp": { "version": stamp.version, "time": stamp.time },
                },
                "internalParameters": {
                    "go": lock.go_version,
                    "flags": build_flags(settings, lock, &stamp)?,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": BUILDER, "version": { "vx": env!("CARGO_PKG_VERSION") } },
            },
        },
    }))
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
