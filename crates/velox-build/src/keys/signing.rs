//! Private keys that sign attestations.

use std::{fmt, fs, path::Path, sync::Arc};

use data_encoding::BASE64;
use poly1305::{Poly1305, universal_hash::KeyInit as _};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use salsa20::{
    XSalsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::{
    error::Error,
    keys::verifying::{ED25519_PREFIX, P256_PREFIX, VerifyingKey, read_key},
};

/// The most memory that scrypt may use for a hostile key file, in bytes; cosign uses 64 MiB.
const MAX_SCRYPT_BYTES: u64 = 1 << 30;

/// A private key: ECDSA on P-256 with SHA-256, or Ed25519.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<SigningPair>,
}

/// Asks for the password of a key.
pub type KeyPassword<'a> = &'a mut dyn FnMut() -> Result<SecretString, Error>;

enum SigningPair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The contents of an encrypted key of cosign (<https://github.com/sigstore/sigstore>, `pkg/cryptoutils`;
/// <https://github.com/secure-systems-lab/go-securesystemslib>, `encrypted`).
#[derive(Deserialize)]
struct EncryptedKey {
    kdf: KeyDerivation,
    cipher: KeyCipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct KeyDerivation {
    name: String,
    params: ScryptParameters,
    salt: String,
}

#[derive(Deserialize)]
struct ScryptParameters {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct KeyCipher {
    name: String,
    nonce: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

impl SigningKey {
    /// Reads a key file: PKCS#8 in PEM, or an encrypted key of cosign, for which `password` is called.
    ///
    /// # Errors
    /// A file that others can read, another format, a wrong password, or an error of `password`.
    pub fn read(path: &Path, password: KeyPassword<'_>) -> Result<Self, Error> {
        let (name, data, text) = read_key(path).map_err(|error| error.help(KEY_FORMATS))?;
        check_access(&name, &data)?;
        let text = String::from_utf8(text).map_err(|_| not_pem(&name))?;
        Self::parse(&name, &SecretString::from(text), password)
    }

    /// As [`SigningKey::read`], from the text of a key; `name` is for messages.
    ///
    /// # Errors
    /// As [`SigningKey::read`].
    pub fn parse(name: &str, text: &SecretString, password: KeyPassword<'_>) -> Result<Self, Error> {
        let key = pem::parse(text.expose_secret()).map_err(|_| not_pem(name))?;
        match key.tag() {
            "PRIVATE KEY" => Self::from_pkcs8(name, key.contents()),
            "ENCRYPTED COSIGN PRIVATE KEY" | "ENCRYPTED SIGSTORE PRIVATE KEY" => {
                let encrypted: EncryptedKey =
                    serde_json::from_slice(key.contents()).map_err(|_| damaged(name))?;
                Self::from_pkcs8(name, &encrypted.decrypt(name, &password()?)?)
            }
            "ENCRYPTED PRIVATE KEY" => {
                let message = format!("the key {name} is encrypted in a format that vx does not read");
                Err(Error::configuration(message)
                    .help("convert it with `cosign import-key-pair --key FILE`")
                    .help("or decrypt it with `openssl pkcs8 -in FILE -out KEY`, and protect KEY"))
            }
            "EC PRIVATE KEY" => Err(Error::configuration(format!("the key {name} is not in PKCS#8 format"))
                .help("convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE -out KEY`")),
            "PUBLIC KEY" => Err(Error::configuration(format!("{name} is a public key"))
                .help("signing needs the private key that belongs to it")),
            other => {
                Err(Error::configuration(format!("{name} is a {other}, not a private key in PKCS#8 format"))
                    .help(KEY_FORMATS))
            }
        }
    }

    fn from_pkcs8(name: &str, der: &[u8]) -> Result<Self, Error> {
        let p256 = || {
            let random = SystemRandom::new();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).map(SigningPair::P256)
        };
        // openssl writes no public key.
        let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(SigningPair::Ed25519);
        let pair = p256().or_else(|_| ed25519()).map_err(|_| {
            Error::configuration(format!("the key {name} is neither ECDSA P-256 nor Ed25519"))
                .help(KEY_FORMATS)
        })?;
        Ok(Self { pair: Arc::new(pair) })
    }

    /// The fingerprint of the public key: [`VerifyingKey::id`].
    #[must_use]
    pub fn id(&self) -> String {
        self.verifying_key().id()
    }

    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey {
            info: match &*self.pair {
                SigningPair::P256(pair) => [&P256_PREFIX, pair.public_key().as_ref()].concat(),
                SigningPair::Ed25519(pair) => [&ED25519_PREFIX, pair.public_key().as_ref()].concat(),
            },
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &*self.pair {
            SigningPair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| Error::build("failed to sign: the system has no random numbers")),
            SigningPair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

const KEY_FORMATS: &str = "create a key with `cosign generate-key-pair`, or with \
     `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY`";

impl EncryptedKey {
    fn decrypt(&self, name: &str, password: &SecretString) -> Result<Vec<u8>, Error> {
        let ScryptParameters { n, r, p } = self.kdf.params;
        let memory = n.saturating_mul(u64::from(r)).saturating_mul(128);
        if self.kdf.name != "scrypt" || self.cipher.name != "nacl/secretbox" || !n.is_power_of_two() || p > 16
        {
            return Err(damaged(name));
        }
        if memory > MAX_SCRYPT_BYTES {
            return Err(Error::configuration(format!(
                "the key {name} needs {} MiB of memory to decrypt",
                memory >> 20
            ))
            .help("cosign's keys need 64 MiB: check where this file came from"));
        }
        let decoded = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| damaged(name));
        let (salt, nonce) = (decoded(&self.kdf.salt)?, decoded(&self.cipher.nonce)?);
        let nonce: [u8; 24] = nonce.try_into().map_err(|_| damaged(name))?;
        let parameters = u8::try_from(n.ilog2())
            .ok()
            .and_then(|log_n| scrypt::Params::new(log_n, r, p).ok())
            .ok_or_else(|| damaged(name))?;
        let mut key = [0; 32];
        scrypt::scrypt(password.expose_secret().as_bytes(), &salt, &parameters, &mut key)
            .map_err(|_| damaged(name))?;
        open_secretbox(key, nonce, &decoded(&self.ciphertext)?).ok_or_else(|| {
            Error::configuration(format!("wrong password for the key {name}"))
                .help("set COSIGN_PASSWORD or VX_SIGN_KEY_PASSWORD, or run vx in a terminal to enter it")
        })
    }
}

/// Decrypts a secretbox of NaCl, XSalsa20 with Poly1305 (<https://nacl.cr.yp.to/secretbox.html>). `None`: another key.
fn open_secretbox(key: [u8; 32], nonce: [u8; 24], sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, encrypted) = sealed.split_at_checked(16)?;
    let mut cipher = XSalsa20::new(&key.into(), &nonce.into());
    // The key of the authenticator is the first part of the key stream.
    let mut authenticator_key = [0; 32];
    cipher.apply_keystream(&mut authenticator_key);
    let authenticator = Poly1305::new(&authenticator_key.into());
    (authenticator.compute_unpadded(encrypted).as_slice() == tag).then(|| {
        let mut opened = encrypted.to_vec();
        cipher.apply_keystream(&mut opened);
        opened
    })
}

fn not_pem(name: &str) -> Error {
    Error::configuration(format!("the key {name} is not in PEM format")).help(KEY_FORMATS)
}

fn damaged(name: &str) -> Error {
    Error::configuration(format!("the encrypted key {name} is damaged, or of an unknown version"))
        .help(KEY_FORMATS)
}

/// A private key that others can read is as good as published.
fn check_access(name: &str, data: &fs::Metadata) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if data.permissions().mode() & 0o004 != 0 {
            return Err(Error::configuration(format!("every user can read the key {name}"))
                .help(format!("run `chmod 600 {name}`; create a new key if others use this machine")));
        }
    }
    #[cfg(not(unix))]
    let _ = (name, data);
    Ok(())
}
