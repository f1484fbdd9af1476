//! The signed provenance of a binary, checked by foreign tools.
#![cfg(unix)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use data_encoding::BASE64;
use serde_json::Value;
use velox_testkit::ModuleProxy;

use crate::support::{
    sandbox::{CommandOutput, RELEASE, Sandbox, acme_proxy, assert_contains, program, skip},
    validators,
};

/// A key as `cosign generate-key-pair` writes it, made with github.com/secure-systems-lab/go-securesystemslib; the
/// password is "ten coins".
pub(super) const COSIGN_KEY: &str = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJnY21aYUoremVvYVU3RHVGekJOb2tpT0NhMXV4S21Y
NXkwbnVFRWtGNk1zPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJFZlM0T08wOHlTaHpIRHpPcSs2M2lqTE15VmllVmQxayJ9LCJj
aXBoZXJ0ZXh0IjoidTJ4RitzWlVnUzBUcVkwWmVEbkZGU21OVGJ3Sk1BS25OYW5S
OWZXNnFlUVcyVVpQR3A3VHlBNTJxV1UzNzBhdkQ5VGZDWndTeDEvR3hOajBPY0Fj
MC9NNUs4ZmNTRUt2aW5hV3RQTjhFUXdwdzZFNEdvNlR0VE9iZDd1bzkvbW5sQkVx
YktyNGFKZ1FVUGhqMGc0UXVySkErOEtTNmlyb29vK3hvY1k4N2lOUWlSWUN4R01X
SWFETy9hem5UQ3FmSWlXaHo3MndnV2RYSGc9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
";
pub(super) const COSIGN_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEbAwTj+vTnRYjQWEM1CQxW/IVcVvF
joBMRixTVNJ+eW2gAf61W9EosBm+k1qxUV+l0WYup4c+wbEDVWAzj/lz1Q==
-----END PUBLIC KEY-----
";

pub(super) fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::behind(proxy).plugins("hello@v1.0.0").without("VX_SIGN_KEY").without("COSIGN_PASSWORD")
}

pub(super) fn protect(sandbox: &Sandbox, name: &str, mode: u32) {
    fs::set_permissions(sandbox.at(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// Creates a key pair `NAME.key` and `NAME.pub` with openssl; without it the test is skipped with a printed reason.
pub(super) fn openssl_keys(test: &str, sandbox: &Sandbox, name: &str, algorithm: &str) -> bool {
    if program("openssl").is_none() {
        skip(test, "there is no openssl");
        return false;
    }
    sandbox.run(&format!("openssl genpkey {algorithm} -out {name}.key"));
    sandbox.run(&format!("openssl pkey -in {name}.key -pubout -out {name}.pub"));
    protect(sandbox, &format!("{name}.key"), 0o600);
    true
}

pub(super) const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

pub(super) fn envelope(sandbox: &Sandbox, name: &str) -> Value {
    serde_json::from_str(&sandbox.read(name)).unwrap()
}

pub(super) fn decoded(value: &Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Verifies the signature of an envelope with openssl, which knows nothing of envelopes.
fn openssl_verifies(sandbox: &Sandbox, name: &str, public_key: &str) -> bool {
    let envelope = envelope(sandbox, name);
    let (kind, payload) = (envelope["payloadType"].as_str().unwrap(), decoded(&envelope["payload"]));
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend(payload);
    fs::write(sandbox.at("message"), message).unwrap();
    fs::write(sandbox.at("signature"), decoded(&envelope["signatures"][0]["sig"])).unwrap();
    let is_ed25519 =
        sandbox.run(&format!("openssl pkey -pubin -in {public_key} -noout -text")).contains("ED25519");
    let digest: &[&str] = if is_ed25519 { &["-rawin"] } else { &["-rawin", "-digest", "sha256"] };
    let arguments = [
        &["pkeyutl", "-verify", "-pubin", "-inkey", public_key, "-in", "message", "-sigfile", "signature"],
        digest,
    ]
    .concat();
    CommandOutput::from(&mut sandbox.command("openssl", &arguments)).code() == Some(0)
}

#[test]
fn it_names_the_binary_and_everything_that_it_is_from() {
    const TEST: &str = "it_names_the_binary_and_everything_that_it_is_from";
    let proxy = acme_proxy();
    let sandbox = machine(&proxy);
    if !openssl_keys(TEST, &sandbox, "p256", P256)
        || !openssl_keys(TEST, &sandbox, "ed", "-algorithm ED25519")
    {
        return;
    }
    let build = "build --sbom spdx --attestation rr.intoto.jsonl --sign-key";
    sandbox.vx(&format!("{build} p256.key")).succeeds_with(&["Signed", "rr.intoto.jsonl"]);
    assert!(openssl_verifies(&sandbox, "rr.intoto.jsonl", "p256.pub"));
    let envelope = envelope(&sandbox, "rr.intoto.jsonl");
    let statement: Value = serde_json::from_slice(&decoded(&envelope["payload"])).unwrap();
    let sha256 = |name: &str| {
        let output = CommandOutput::from(Command::new("sha256sum").arg(sandbox.at(name))).ok();
        output.split(' ').next().unwrap().to_owned()
    };
    let digest_of = |list: &Value, name: &str| {
        let found = list.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
        found["digest"]["sha256"].as_str().unwrap().to_owned()
    };
    for name in ["rr", "rr.spdx.json"] {
        assert_eq!(digest_of(&statement["subject"], name), sha256(name));
    }
    let definition = &statement["predicate"]["buildDefinition"];
    for name in ["velox.toml", "velox.lock"] {
        assert_eq!(digest_of(&definition["resolvedDependencies"], name), sha256(name));
    }
    let all = definition["resolvedDependencies"].to_string();
    assert_contains(
        &all,
        &["pkg:golang/example.com/acme/hello@v1.0.0", "dirHash", "https://go.dev/dl/#go1."],
    );
    assert_contains(&definition["externalParameters"].to_string(), &[RELEASE, "linux/amd64"]);

    // The same binary from the cache has the same provenance; another key only another signature.
    sandbox.vx(&format!("{build} ed.key")).succeeds_with(&["cached"]);
    assert!(openssl_verifies(&sandbox, "rr.intoto.jsonl", "ed.pub"));
    assert!(!openssl_verifies(&sandbox, "rr.intoto.jsonl", "p256.pub"));
    assert_eq!(self::envelope(&sandbox, "rr.intoto.jsonl")["payload"], envelope["payload"]);
    if let Some(sigstore) = validators::go(TEST, "sigstore") {
        let verify = |key: &str| CommandOutput::from(sandbox.command(&sigstore, &["rr.intoto.jsonl", key]));
        verify("ed.pub").ok();
        verify("p256.pub").fails(1);
    }

    let Some(python) = validators::python(TEST) else { return };
    let script = r#"
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from securesystemslib.exceptions import VerificationError
from in_toto_attestation.v1.statement import Statement
import in_toto_attestation.v1.statement_pb2 as statement_pb
import in_toto_attestation.predicates.provenance.v1.provenance_pb2 as provenance_pb
from google.protobuf import json_format
data = json.load(open("rr.intoto.jsonl"))
keyid = data["signatures"][0]["keyid"]
envelope = Envelope.from_dict(data)
key = SSlibKey.from_crypto(load_pem_public_key(open("ed.pub", "rb").read()), keyid)
assert keyid in envelope.verify([key], 1)
other = SSlibKey.from_crypto(load_pem_public_key(open("p256.pub", "rb").read()), keyid)
for wrong, keys in (envelope, [other]), (Envelope(envelope.payload + b" ", envelope.payload_type, envelope.signatures), [key]):
    try:
        wrong.verify(keys, 1)
    except VerificationError:
        continue
    raise SystemExit("a wrong envelope was accepted")
statement = json_format.Parse(envelope.payload, statement_pb.Statement())
Statement.copy_from_pb(statement).validate()
fields = json.loads(envelope.payload)["predicate"]
predicate = json_format.ParseDict(fields, provenance_pb.Provenance())
assert len(predicate.build_definition.resolved_dependencies) > 5
assert predicate.run_details.builder.id
print(statement.predicate_type)
"#;
    let output = CommandOutput::from(&mut sandbox.command(&python, &["-c", script])).ok();
    assert_eq!(output.trim(), "https://slsa.dev/provenance/v1");
}

#[test]
fn cosign_keys_sign_with_their_password() {
    let proxy = acme_proxy();
    let sandbox = machine(&proxy).file("cosign.key", COSIGN_KEY).file("cosign.pub", COSIGN_PUBLIC_KEY);
    protect(&sandbox, "cosign.key", 0o600);
    let build = "build --attestation a.json --sign-key cosign.key";
    sandbox.vx(build).fails_with(2, &["encrypted", "no terminal", "VX_SIGN_KEY_PASSWORD or COSIGN_PASSWORD"]);
    let wrong = sandbox.env("COSIGN_PASSWORD", "nine coins");
    let message = wrong.vx(build).fails(2);
    assert_contains(&message, &["wrong password for the key", "cosign.key"]);
    assert!(!message.contains("nine coins") && !wrong.has("a.json"), "{message}");
    let right = wrong.env("COSIGN_PASSWORD", "ten coins");
    right.vx(build).ok();
    if program("openssl").is_some() {
        assert!(openssl_verifies(&right, "a.json", "cosign.pub"));
    }
    if let Some(sigstore) = validators::go("cosign_keys_sign_with_their_password", "sigstore") {
        let verify = |name: &str| CommandOutput::from(right.command(&sigstore, &[name, "cosign.pub"]));
        verify("a.json").ok();
        let mut changed = envelope(&right, "a.json");
        changed["payload"] = BASE64.encode(b"{}").into();
        fs::write(right.at("changed.json"), changed.to_string()).unwrap();
        verify("changed.json").fails_with(1, &["accepted signatures do not match threshold"]);
    }
    let in_environment = right.env("VX_SIGN_KEY", COSIGN_KEY);
    let output = in_environment.vx("build -vv --attestation b.json");
    output.ok();
    let shown = output.stdout() + &output.stderr();
    assert!(!shown.contains("ten coins") && !shown.contains("eyJrZGYi"), "{shown}");
    assert_eq!(
        envelope(&in_environment, "b.json")["payload"],
        envelope(&in_environment, "a.json")["payload"]
    );
    let by_path = in_environment.env("VX_SIGN_KEY", "cosign.key");
    by_path.vx("build --attestation c.json").ok();
}

#[test]
fn other_keys_are_refused() {
    let proxy = acme_proxy();
    let sandbox =
        machine(&proxy).file("notes.key", "ten coins").file("cut.key", COSIGN_KEY.replace("eyJr", "AAAA"));
    let sandbox = sandbox.file("public.key", COSIGN_PUBLIC_KEY).file("open.key", COSIGN_KEY);
    for name in ["notes.key", "cut.key", "public.key"] {
        protect(&sandbox, name, 0o600);
    }
    protect(&sandbox, "open.key", 0o644);
    let fails = |key: &str, texts: &[&str]| {
        sandbox.vx(&format!("build --attestation a.json --sign-key {key}")).fails_with(2, texts);
    };
    fails("none.key", &["failed to read the key none.key", "help: create a key with"]);
    fails("notes.key", &["the key notes.key is not in PEM format", "help: create a key with"]);
    fails("public.key", &["public.key is a public key", "the private key"]);
    fails("open.key", &["every user can read the key open.key", "chmod 600 open.key"]);
    fails(".", &[". is not a key file"]);
    sandbox.vx("build --attestation a.json").fails_with(2, &["--attestation requires a key", "VX_SIGN_KEY"]);
    sandbox.vx("build --sign-key notes.key").fails_with(2, &["--attestation"]);
    let with_password = sandbox.env("COSIGN_PASSWORD", "ten coins");
    let fails = |key: &str, texts: &[&str]| {
        with_password.vx(&format!("build --attestation a.json --sign-key {key}")).fails_with(2, texts);
    };
    fails("cut.key", &["the encrypted key cut.key is damaged"]);
    // A hostile file that asks for more memory than there is.
    let body: String = COSIGN_KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let body =
        String::from_utf8(BASE64.decode(body.as_bytes()).unwrap()).unwrap().replace("65536", "1073741824");
    let frame = |body: &str| {
        let label = "ENCRYPTED SIGSTORE PRIVATE KEY";
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(body.as_bytes()))
    };
    let with_password = with_password.file("greedy.key", frame(&body));
    protect(&with_password, "greedy.key", 0o600);
    with_password
        .vx("build --attestation a.json --sign-key greedy.key")
        .fails_with(2, &["greedy.key needs 1048576 MiB of memory"]);

    if program("openssl").is_none() {
        return;
    }
    with_password.run("openssl ecparam -name prime256v1 -genkey -noout -out sec1.key");
    with_password.run("openssl genpkey -algorithm RSA -out rsa.key");
    with_password.run("openssl genpkey -algorithm ED25519 -aes256 -pass pass:coins -out pbes.key");
    for (key, texts) in [
        ("sec1.key", ["sec1.key is not in PKCS#8 format", "openssl pkcs8 -topk8"]),
        ("rsa.key", ["rsa.key is neither ECDSA P-256 nor Ed25519", "help: "]),
        ("pbes.key", ["pbes.key is encrypted in a format that vx does not read", "cosign import-key-pair"]),
    ] {
        protect(&with_password, key, 0o600);
        let build = format!("build --attestation a.json --sign-key {key}");
        with_password.vx(&build).fails_with(2, &texts);
    }
    assert!(!with_password.has("a.json") && !Path::new(&with_password.at("rr")).exists());
}
