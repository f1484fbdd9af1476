//! Signed provenance that somebody else wrote: the signature, the subject, and the parameters of the build.

use std::collections::BTreeMap;

use data_encoding::{BASE64, BASE64URL};
use serde::Deserialize;

use super::{AttestedFile, BUILD_TYPE, PAYLOAD_TYPE, signed_message};
use crate::{error::Error, keys::verifying::VerifyingKey};

/// How many envelopes of a file are read.
const MAX_ENVELOPES: usize = 100;

/// The content of an envelope with a valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The files that it is about.
    pub subject: Vec<AttestedFile>,
    /// The `builder.id`.
    pub builder: String,
    /// The parameters of the build; `None`: it is not a build of vx.
    pub build: Option<AttestedBuild>,
}

/// The attested parameters of a build by vx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestedBuild {
    /// The Go version (`go1.26.8`).
    pub go: String,
    /// RoadRunner's module path and version.
    pub roadrunner: (String, String),
    /// The version and the time of the stamp.
    pub stamp: (String, String),
    /// Built with `--debug`.
    pub debug: bool,
    /// Built with `--race`.
    pub race: bool,
    /// The `h1:` sums of the modules in hexadecimal, by package URL; `None`: it has none.
    pub modules: BTreeMap<String, Option<String>>,
}

/// A DSSE envelope (<https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>).
#[derive(Deserialize)]
struct SignedEnvelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    #[serde(default)]
    keyid: Option<String>,
    sig: String,
}

#[derive(Deserialize)]
struct InTotoStatement {
    #[serde(default)]
    subject: Vec<ResourceDescriptor>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: serde_json::Value,
}

/// <https://github.com/in-toto/attestation/blob/main/spec/v1/resource_descriptor.md>
#[derive(Deserialize)]
struct ResourceDescriptor {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uri: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlsaProvenance {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    build_type: String,
    #[serde(default)]
    external_parameters: serde_json::Value,
    #[serde(default)]
    internal_parameters: serde_json::Value,
    #[serde(default)]
    resolved_dependencies: Vec<ResourceDescriptor>,
}

#[derive(Deserialize)]
struct RunDetails {
    builder: AttestedBuilder,
}

#[derive(Deserialize)]
struct AttestedBuilder {
    id: String,
}

impl Attestation {
    /// Verifies the signature of an envelope, or of the first in a file of several (`.jsonl`) that this key signed.
    /// `name` is for messages.
    ///
    /// # Errors
    /// The text has no envelope that this key signed, or its statement is not SLSA v1 provenance.
    pub fn verify(name: &str, text: &str, key: &VerifyingKey) -> Result<Self, Error> {
        let mut failure = None;
        let envelopes = serde_json::Deserializer::from_str(text).into_iter::<SignedEnvelope>();
        for envelope in envelopes.take(MAX_ENVELOPES) {
            let payload = match envelope {
                Ok(envelope) => envelope.verified(name, key),
                Err(error) => Err(invalid(name, &format!("it is not a DSSE envelope: {error}"))),
            };
            match payload {
                Ok(payload) => return Self::read(name, &payload),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| invalid(name, "it is empty")))
    }

    fn read(name: &str, payload: &[u8]) -> Result<Self, Error> {
        let statement: InTotoStatement = serde_json::from_slice(payload)
            .map_err(|error| invalid(name, &format!("its payload is not an in-toto statement: {error}")))?;
        if statement.predicate_type != "https://slsa.dev/provenance/v1" {
            return Err(invalid(
                name,
                &format!("expected SLSA v1 provenance, found {}", statement.predicate_type),
            ));
        }
        let provenance: SlsaProvenance = serde_json::from_value(statement.predicate)
            .map_err(|error| invalid(name, &format!("its provenance is malformed: {error}")))?;
        let SlsaProvenance { build_definition: build, run_details } = provenance;
        let file = |ResourceDescriptor { name, mut digest, .. }| {
            Some(AttestedFile { name, sha256: digest.remove("sha256")?.to_ascii_lowercase() })
        };
        Ok(Self {
            subject: statement.subject.into_iter().filter_map(file).collect(),
            builder: run_details.builder.id,
            build: match build.build_type == BUILD_TYPE {
                true => Some(attested_build(build).ok_or_else(|| invalid(name, "it lacks parameters"))?),
                false => None,
            },
        })
    }
}

impl SignedEnvelope {
    /// The payload, if this key signed it.
    fn verified(&self, name: &str, key: &VerifyingKey) -> Result<Vec<u8>, Error> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(invalid(
                name,
                &format!("expected an in-toto statement, found {}", self.payload_type),
            ));
        }
        let payload = decoded(&self.payload).ok_or_else(|| invalid(name, "its payload is not base64"))?;
        let message = signed_message(&payload);
        let is_by_key = |signature: &EnvelopeSignature| {
            decoded(&signature.sig).is_some_and(|signature| key.verifies(&message, &signature))
        };
        if self.signatures.iter().any(is_by_key) {
            return Ok(payload);
        }
        // Only a hint, but a useful one.
        let ids: Vec<&str> = self.signatures.iter().filter_map(|it| it.keyid.as_deref()).collect();
        let id = key.id();
        let why = match ids.as_slice() {
            _ if self.signatures.is_empty() => "it has no signature".to_owned(),
            ids if ids.contains(&id.as_str()) => {
                "its content was changed after this key signed it, or the signature is damaged".to_owned()
            }
            [] => format!("no signature is by the key with ID {id}"),
            ids => format!("it was signed by another key: expected ID {id}, found {}", ids.join(", ")),
        };
        Err(Error::build(format!("verification failed: {name} is not signed by this key")).help(why))
    }
}

/// DSSE allows both alphabets.
fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL.decode(text.as_bytes())).ok()
}

fn attested_build(build: BuildDefinition) -> Option<AttestedBuild> {
    let external = |pointer: &str| build.external_parameters.pointer(pointer);
    let text = |pointer: &str| Some(external(pointer)?.as_str()?.to_owned());
    let modules = build.resolved_dependencies.iter().filter(|it| it.uri.starts_with("pkg:golang/"));
    Some(AttestedBuild {
        go: build.internal_parameters.get("go")?.as_str()?.to_owned(),
        roadrunner: (text("/roadrunner/module")?, text("/roadrunner/version")?),
        stamp: (text("/stamp/version")?, text("/stamp/time")?),
        debug: external("/debug")?.as_bool()?,
        race: external("/race")?.as_bool()?,
        modules: modules.map(|it| (it.uri.clone(), it.digest.get("dirHash").cloned())).collect(),
    })
}

fn invalid(name: &str, why: &str) -> Error {
    Error::build(format!("invalid attestation {name}: {why}"))
        .help("`vx build --attestation FILE --sign-key KEY` writes one")
}
