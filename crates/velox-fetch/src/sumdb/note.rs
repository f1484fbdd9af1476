//! Signed notes: a text with lines of signatures below it
//! (<https://pkg.go.dev/golang.org/x/mod/sumdb/note>).

use std::{collections::HashSet, fmt};

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use ed25519_dalek::{Signature as Ed25519, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use sha2::{Digest, Sha256};

/// The algorithm byte before a key's 32 bytes.
const ED25519: u8 = 1;

/// A note with more signatures than this is refused, so that none can keep the reader busy.
const MAX_SIGNATURES: usize = 100;

/// What every line of a signature begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Go's decoder accepts any value in the unused bits of the last letter; so must we, to read what it reads.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Why a key or a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The key is not `name+hash+base64`.
    #[error("malformed key: expected <name>+<8 hexadecimal digits>+<base64>")]
    MalformedKey,
    /// The key is of another kind than Ed25519.
    #[error("the key's algorithm is unknown: only Ed25519 is")]
    UnknownAlgorithm,
    /// The key's hash is not that of its name and bytes.
    #[error("the key does not match its own hash")]
    WrongKeyHash,
    /// The text is not a note.
    #[error("malformed note")]
    MalformedNote,
    /// The same name and hash stand for two known keys.
    #[error("two known keys are called {name}+{hash:08x}")]
    AmbiguousKey {
        /// The key's name.
        name: String,
        /// The key's hash.
        hash: u32,
    },
    /// A signature in the name of a known key is not its signature.
    #[error("invalid signature for key {name}+{hash:08x}")]
    InvalidSignature {
        /// The key's name.
        name: String,
        /// The key's hash.
        hash: u32,
    },
    /// No known key signed the note.
    #[error("the note has no signature of a known key")]
    Unverified,
}

/// A public key that checks signatures, read from `name+hash+base64`, as GOSUMDB has it
/// (<https://go.dev/ref/mod#checksum-database>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    hash: u32,
    key: [u8; 32],
}

impl Verifier {
    /// Reads a verifier key.
    ///
    /// # Errors
    ///
    /// A key of another form or algorithm, or one that does not match its own hash.
    pub fn parse(key: &str) -> Result<Self, NoteError> {
        let mut parts = key.splitn(3, '+');
        let (name, hash, key) = key_parts(&mut parts)?;
        if hash != key_hash(&name, ED25519, &key) {
            return Err(NoteError::WrongKeyHash);
        }
        Ok(Self { name, hash, key })
    }

    /// The name of the server that holds the private key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of the SHA-256 of the name and the key.
    #[must_use]
    pub fn key_hash(&self) -> u32 {
        self.hash
    }

    /// Whether `signature` is this key's signature of `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let (Ok(key), Ok(signature)) = (VerifyingKey::from_bytes(&self.key), Ed25519::from_slice(signature))
        else {
            return false;
        };
        key.verify(message, &signature).is_ok()
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519];
        key.extend_from_slice(&self.key);
        write!(f, "{}+{:08x}+{}", self.name, self.hash, BASE64.encode(key))
    }
}

/// A private key that signs notes, read from `PRIVATE+KEY+name+hash+base64`. Its `Debug` shows only the name.
pub struct Signer {
    name: String,
    hash: u32,
    key: SigningKey,
}

impl Signer {
    /// Reads a signer key.
    ///
    /// # Errors
    ///
    /// A key of another form or algorithm, or one whose public half does not match its hash.
    pub fn parse(key: &str) -> Result<Self, NoteError> {
        let mut parts = key.strip_prefix("PRIVATE+KEY+").ok_or(NoteError::MalformedKey)?.splitn(3, '+');
        let (name, hash, seed) = key_parts(&mut parts)?;
        Self::with_hash(name, &seed, Some(hash))
    }

    /// The signer called `name` whose private key comes of 32 secret bytes.
    ///
    /// # Errors
    ///
    /// A name that is empty or has a space or a plus sign.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::MalformedKey);
        }
        Self::with_hash(name.to_owned(), seed, None)
    }

    fn with_hash(name: String, seed: &[u8; 32], expected: Option<u32>) -> Result<Self, NoteError> {
        let key = SigningKey::from_bytes(seed);
        let hash = key_hash(&name, ED25519, key.verifying_key().as_bytes());
        if expected.is_some_and(|expected| expected != hash) {
            return Err(NoteError::WrongKeyHash);
        }
        Ok(Self { name, hash, key })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), hash: self.hash, key: self.key.verifying_key().to_bytes() }
    }

    /// Signs a text, giving the note.
    ///
    /// # Errors
    ///
    /// A text that does not end in a newline.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::MalformedNote);
        }
        let mut signature = self.hash.to_be_bytes().to_vec();
        signature.extend_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        Ok(format!("{text}\n{SIGNATURE_PREFIX}{} {}\n", self.name, BASE64.encode(signature)))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A note whose text a known key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// The text, its last newline included.
    pub text: String,
    /// The signatures of known keys, all checked.
    pub signatures: Vec<NoteSignature>,
    /// The signatures of other keys, not checked.
    pub unverified: Vec<NoteSignature>,
}

/// One signature of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The hash of the key.
    pub hash: u32,
    /// The key's hash and the signature, as base64.
    pub base64: String,
}

impl SignedNote {
    /// Reads a note and checks the signatures of the known keys.
    ///
    /// # Errors
    ///
    /// A text that is no note, a wrong signature in a known key's name, and a note that no known key signed.
    pub fn open(message: &[u8], known: &[Verifier]) -> Result<Self, NoteError> {
        let message = std::str::from_utf8(message).map_err(|_| NoteError::MalformedNote)?;
        if message.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::MalformedNote);
        }
        let blank = message.rfind("\n\n").ok_or(NoteError::MalformedNote)?;
        let (text, lines) = message.split_at(blank + 1);
        let lines = lines
            .strip_prefix('\n')
            .and_then(|lines| lines.strip_suffix('\n'))
            .ok_or(NoteError::MalformedNote)?;

        let mut note = Self { text: text.to_owned(), signatures: Vec::new(), unverified: Vec::new() };
        let mut seen = HashSet::new();
        for (number, line) in lines.split('\n').enumerate() {
            let line = line.strip_prefix(SIGNATURE_PREFIX).ok_or(NoteError::MalformedNote)?;
            let (name, base64) = line.split_once(' ').ok_or(NoteError::MalformedNote)?;
            let bytes = BASE64.decode(base64).map_err(|_| NoteError::MalformedNote)?;
            let (hash, bytes) = bytes.split_first_chunk().ok_or(NoteError::MalformedNote)?;
            if !is_name(name) || bytes.is_empty() || number >= MAX_SIGNATURES {
                return Err(NoteError::MalformedNote);
            }
            let hash = u32::from_be_bytes(*hash);
            let signature = NoteSignature { name: name.to_owned(), hash, base64: base64.to_owned() };

            let mut named = known.iter().filter(|key| key.name == name && key.hash == hash);
            let Some(key) = named.next() else {
                if seen.insert(line) {
                    note.unverified.push(signature);
                }
                continue;
            };
            if named.next().is_some() {
                return Err(NoteError::AmbiguousKey { name: name.to_owned(), hash });
            }
            // Only the first signature of a key counts.
            if note.signatures.iter().any(|other| other.name == name && other.hash == hash) {
                continue;
            }
            if !key.verify(text.as_bytes(), bytes) {
                return Err(NoteError::InvalidSignature { name: name.to_owned(), hash });
            }
            note.signatures.push(signature);
        }
        if note.signatures.is_empty() { Err(NoteError::Unverified) } else { Ok(note) }
    }
}

/// Reads the `name+hash+base64` that both kinds of key end in.
fn key_parts<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Result<(String, u32, [u8; 32]), NoteError> {
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::MalformedKey);
    };
    let well_formed = is_name(name) && hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let key = BASE64.decode(key).map_err(|_| NoteError::MalformedKey)?;
    let (true, Ok(hash), Some((algorithm, key))) =
        (well_formed, u32::from_str_radix(hash, 16), key.split_first())
    else {
        return Err(NoteError::MalformedKey);
    };
    if *algorithm != ED25519 {
        return Err(NoteError::UnknownAlgorithm);
    }
    let key = key.try_into().map_err(|_| NoteError::MalformedKey)?;
    Ok((name.to_owned(), hash, key))
}

fn key_hash(name: &str, algorithm: u8, key: &[u8; 32]) -> u32 {
    let digest: [u8; 32] =
        Sha256::new().chain_update(name).chain_update([b'\n', algorithm]).chain_update(key).finalize().into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d])
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the note package's documentation.
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn a_note_opens_with_its_key_only() -> Result<(), NoteError> {
        let key = Verifier::parse(KEY)?;
        assert_eq!(key.to_string(), KEY);
        assert_eq!(SignedNote::open(NOTE.as_bytes(), std::slice::from_ref(&key))?.signatures.len(), 1);
        assert_eq!(SignedNote::open(NOTE.as_bytes(), &[]), Err(NoteError::Unverified));
        let forged = NOTE.replace("your problem is", "your answer is");
        assert!(matches!(
            SignedNote::open(forged.as_bytes(), &[key]),
            Err(NoteError::InvalidSignature { .. })
        ));
        Ok(())
    }

    #[test]
    fn keys_are_held_to_their_hash() {
        assert_eq!(Verifier::parse(&KEY.replace("c74f20a3", "c74f20a4")), Err(NoteError::WrongKeyHash));
        assert_eq!(Verifier::parse(&KEY.replace('+', " ")), Err(NoteError::MalformedKey));
    }

    #[test]
    fn a_signer_does_not_show_its_key() -> Result<(), NoteError> {
        let signer = Signer::from_seed("example.com", &[7; 32])?;
        assert_eq!(format!("{signer:?}"), "Signer { name: \"example.com\", .. }");
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_signed_opens(text in "([a-z ]{0,9}\n){1,5}", seed: [u8; 32]) {
            let signer = Signer::from_seed("example.com", &seed)?;
            let note = signer.sign(&text)?;
            prop_assert_eq!(SignedNote::open(note.as_bytes(), &[signer.verifier()])?.text, text);
        }

        #[test]
        fn no_bytes_panic(message: Vec<u8>, tail in "\n\n(\u{2014} [a-z+ ]{1,5}[A-Za-z=]{0,12}\n){0,3}") {
            let mut message = message;
            message.extend_from_slice(tail.as_bytes());
            let _ = SignedNote::open(&message, &[]);
            let _ = Verifier::parse(&String::from_utf8_lossy(&message));
        }
    }
}
