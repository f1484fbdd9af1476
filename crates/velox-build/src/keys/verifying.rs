//! Public keys that verify attestations.

use std::{fs, io, path::Path};

use data_encoding::BASE64_NOPAD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Larger files are no keys.
const MAX_KEY_FILE_BYTES: u64 = 64 << 10;
/// The DER of a SubjectPublicKeyInfo before the key (<https://www.rfc-editor.org/rfc/rfc5480>,
/// <https://www.rfc-editor.org/rfc/rfc8410>).
pub(crate) const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
pub(crate) const ED25519_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key: ECDSA on P-256 with SHA-256, or Ed25519.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    /// The DER of its SubjectPublicKeyInfo.
    pub(crate) info: Vec<u8>,
}

const PUBLIC_KEY_FORMATS: &str = "`cosign generate-key-pair` writes it to cosign.pub, and `openssl pkey -in KEY -pubout -out PUB` extracts it from a private key";

impl VerifyingKey {
    /// Reads a key file in PEM.
    ///
    /// # Errors
    /// The file can't be read, or is no public key of a supported kind.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (name, _, text) = read_key(path).map_err(|error| error.help(PUBLIC_KEY_FORMATS))?;
        Self::parse(&name, &text)
    }

    /// Parses a key in PEM; `name` is for messages.
    ///
    /// # Errors
    /// It is no public key of a supported kind.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, Error> {
        let refused = |message: String| Err(Error::configuration(message).help(PUBLIC_KEY_FORMATS));
        let Ok(key) = pem::parse(text) else {
            return refused(format!("the key {name} is not in PEM format"));
        };
        match key.tag() {
            "PUBLIC KEY" => {}
            tag if tag.ends_with("PRIVATE KEY") => {
                return refused(format!("{name} is a private key; verifying needs the public key"));
            }
            tag => return refused(format!("{name} is a {tag}, not a public key")),
        }
        let key = Self { info: key.contents().to_vec() };
        match key.parts() {
            Some(_) => Ok(key),
            None => refused(format!("the key {name} is neither ECDSA P-256 nor Ed25519")),
        }
    }

    /// Its fingerprint as `ssh-keygen -l` prints it (`SHA256:…`). sigstore's libraries ignore a signature with another key
    /// ID (<https://github.com/secure-systems-lab/go-securesystemslib>, `dsse.SHA256KeyID`).
    #[must_use]
    pub fn id(&self) -> String {
        let (names, key): (&[&str], &[u8]) = match self.info.strip_prefix(&ED25519_PREFIX) {
            Some(key) => (&["ssh-ed25519"], key),
            None => (
                &["ecdsa-sha2-nistp256", "nistp256"],
                self.info.strip_prefix(&P256_PREFIX).unwrap_or_default(),
            ),
        };
        // https://www.rfc-editor.org/rfc/rfc4253#section-6.6
        let mut hash = Sha256::new();
        for field in names.iter().map(|name| name.as_bytes()).chain([key]) {
            hash.update((field.len() as u32).to_be_bytes());
            hash.update(field);
        }
        format!("SHA256:{}", BASE64_NOPAD.encode(&hash.finalize()))
    }

    /// Whether the signature of this message is by this key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parts().is_some_and(|(algorithm, key)| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        })
    }

    fn parts(&self) -> Option<(&'static dyn VerificationAlgorithm, &[u8])> {
        let key =
            |prefix: &[u8], bytes: usize| self.info.strip_prefix(prefix).filter(|key| key.len() == bytes);
        // An uncompressed point, and a key of RFC 8032.
        let p256 = key(&P256_PREFIX, 65).map(|key| (&ECDSA_P256_SHA256_ASN1 as _, key));
        p256.or_else(|| Some((&ED25519 as _, key(&ED25519_PREFIX, 32)?)))
    }
}

/// The path, the metadata and the content of a key file.
pub(super) fn read_key(path: &Path) -> Result<(String, fs::Metadata, Vec<u8>), Error> {
    let name = path.display().to_string();
    let failed = |error: io::Error| Error::configuration(format!("failed to read the key {name}: {error}"));
    let data = fs::metadata(path).map_err(failed)?;
    if !data.is_file() || data.len() > MAX_KEY_FILE_BYTES {
        return Err(Error::configuration(format!("{name} is not a key file")));
    }
    let text = fs::read(path).map_err(failed)?;
    Ok((name, data, text))
}
