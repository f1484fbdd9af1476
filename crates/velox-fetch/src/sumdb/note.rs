//! Signed notes: a text followed by signature lines (<https://pkg.go.dev/golang.org/x/mod/sumdb/note>).

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// The algorithm byte of Ed25519, followed by the 32 key bytes.
const ED25519_BYTE: u8 = 1;

/// As in Go; limits the work for a malicious note.
const MAX_SIGNATURES: usize = 100;

/// The prefix of signature lines: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Like Go's decoder, ignores unused trailing bits.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// An invalid key or note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// The key isn't `name+hash+base64`.
    #[error("malformed verifier key: expected `<name>+<8 hexadecimal digits>+<base64>`")]
    MalformedKey,
    /// The algorithm isn't Ed25519.
    #[error("unknown algorithm of the verifier key: expected Ed25519")]
    UnknownAlgorithm,
    /// The key hash doesn't match its name and bytes.
    #[error("the verifier key doesn't match its hash")]
    WrongKeyHash,
    /// The text isn't a signed note.
    #[error("malformed signed note")]
    MalformedNote,
    /// A signature with the key's name is invalid.
    #[error("invalid signature of `{name}`")]
    InvalidSignature {
        /// The key's name.
        name: String,
    },
    /// The note has no signature by the key.
    #[error("no signature of `{name}`")]
    Unsigned {
        /// The key's name.
        name: String,
    },
}

/// A public key that verifies notes, as in GOSUMDB: `name+hash+base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    hash: [u8; 4],
    key: [u8; 32],
}

impl Verifier {
    /// Parses a verifier key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::MalformedKey);
        };
        if !is_name(name) || hash.len() != 8 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoteError::MalformedKey);
        }
        let hash = u32::from_str_radix(hash, 16).map_err(|_| NoteError::MalformedKey)?.to_be_bytes();
        let key = BASE64.decode(key).map_err(|_| NoteError::MalformedKey)?;
        let Some((&ED25519_BYTE, bytes)) = key.split_first() else { return Err(NoteError::UnknownAlgorithm) };
        let digest = Sha256::new().chain_update(name).chain_update(b"\n").chain_update(&key).finalize();
        if !digest.starts_with(&hash) {
            return Err(NoteError::WrongKeyHash);
        }
        let key = bytes.try_into().map_err(|_| NoteError::MalformedKey)?;
        Ok(Self { name: name.to_owned(), hash, key })
    }

    /// The key's name, which is the server's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Verifies a note and returns its text; signatures of other keys are ignored.
    pub fn open<'a>(&self, note: &'a [u8]) -> Result<&'a str, NoteError> {
        let malformed = || NoteError::MalformedNote;
        let note = std::str::from_utf8(note).map_err(|_| malformed())?;
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(malformed());
        }
        let (text, lines) = note.split_at(note.rfind("\n\n").ok_or_else(malformed)? + 1);
        let lines =
            lines.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n')).ok_or_else(malformed)?;
        let mut is_signed = false;
        for (number, line) in lines.split('\n').enumerate() {
            let signature = line.strip_prefix(SIGNATURE_PREFIX).ok_or_else(malformed)?;
            let (name, base64) = signature.split_once(' ').ok_or_else(malformed)?;
            let bytes = BASE64.decode(base64).map_err(|_| malformed())?;
            let (hash, signature) = bytes.split_first_chunk().ok_or_else(malformed)?;
            if !is_name(name) || signature.is_empty() || number >= MAX_SIGNATURES {
                return Err(malformed());
            }
            // Only the first signature of a key counts.
            if is_signed || name != self.name || *hash != self.hash {
                continue;
            }
            let key = UnparsedPublicKey::new(&ED25519, &self.key);
            if key.verify(text.as_bytes(), signature).is_err() {
                return Err(NoteError::InvalidSignature { name: name.to_owned() });
            }
            is_signed = true;
        }
        if is_signed { Ok(text) } else { Err(NoteError::Unsigned { name: self.name.clone() }) }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example from the note package's documentation.
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn a_note_opens_with_its_key_only() {
        let key = Verifier::parse(KEY).unwrap();
        assert!(key.open(NOTE.as_bytes()).unwrap().ends_with("your problem is.\n"));
        let other = NOTE.replace("PeterNeumann", "SomebodyElse");
        assert!(matches!(key.open(other.as_bytes()), Err(NoteError::Unsigned { .. })));
        let forged = NOTE.replace("your problem is", "your answer is");
        assert!(matches!(key.open(forged.as_bytes()), Err(NoteError::InvalidSignature { .. })));
    }

    #[test]
    fn a_key_matches_its_hash() {
        assert_eq!(Verifier::parse(&KEY.replace("c74f20a3", "c74f20a4")), Err(NoteError::WrongKeyHash));
        assert_eq!(Verifier::parse(&KEY.replace('+', " ")), Err(NoteError::MalformedKey));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(message: Vec<u8>, tail in "\n\n(\u{2014} [a-z+ ]{1,5}[A-Za-z=]{0,12}\n){0,3}") {
            let key = Verifier::parse(KEY).unwrap();
            let mut message = message;
            message.extend_from_slice(tail.as_bytes());
            let _ = key.open(&message);
            let _ = Verifier::parse(&String::from_utf8_lossy(&message));
        }
    }
}
