//! The token file: the hash, scopes and limits of each token.
//!
//! ```toml
//! [tokens.ci]
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! scopes = ["build", "read"]
//! builds_at_once = 4
//! builds_per_hour = 100
//! modules = ["github.com/roadrunner-server/*"]
//! expires = 2027-01-01
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml_edit::{Array, Datetime, DocumentMut, Item, Table, value};

use crate::build::Tenant;

const MAX_FILE_BYTES: u64 = 16 << 20;

/// A permission of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// Submit builds, and cancel one's own.
    Build,
    /// Read builds, logs and artifacts.
    Read,
    /// Read the metrics.
    Metrics,
}

impl TokenScope {
    /// All scopes.
    pub(super) const ALL: [Self; 3] = [Self::Build, Self::Read, Self::Metrics];

    /// The name of the scope in token files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Read => "read",
            Self::Metrics => "metrics",
        }
    }
}

/// A token's entry in the file, and so what the caller of a request may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// The name of the token, which identifies the tenant of its builds.
    pub name: String,
    /// The scopes of the token.
    pub scopes: BTreeSet<TokenScope>,
    /// The limit on builds that are queued or running; `None`: unlimited.
    pub builds_at_once: Option<u64>,
    /// The limit on builds requested per hour; `None`: unlimited.
    pub builds_per_hour: Option<u64>,
    /// The allowed modules, as patterns like GOPRIVATE's; `None`: the modules that the service allows.
    pub modules: Option<Vec<String>>,
    /// When the token expires; `None`: never.
    pub expires: Option<Timestamp>,
}

impl TokenEntry {
    /// The tenant of its builds.
    pub(crate) fn tenant(&self) -> Tenant {
        Tenant(self.name.clone())
    }
}

/// An error with a token file or a change to it. `message` has the location in the file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are described once, above")]
pub enum TokenFileError {
    /// The file can't be read.
    #[error("failed to read the token file `{}`: {cause}", file.display())]
    Unreadable { file: PathBuf, cause: io::Error },
    /// The file can't be written.
    #[error("failed to write the token file `{}`: {cause}", file.display())]
    Unwritable { file: PathBuf, cause: io::Error },
    /// The file's content is invalid.
    #[error("invalid token file `{}`: {message}", file.display())]
    Invalid { file: PathBuf, message: String },
    /// A token with this name exists.
    #[error("token `{0}` already exists; revoke it first, or choose another name")]
    AlreadyExists(String),
    /// No token with this name exists.
    #[error("no token named `{0}`; run `vx server token list` to list them")]
    NotFound(String),
    /// The name of a token is invalid.
    #[error("invalid token name `{0}`; use up to 64 letters, digits, `-`, `_` and `.`")]
    InvalidName(String),
    /// The system's random number generator failed.
    #[error("failed to generate a token: {0}")]
    Random(String),
}

pub(super) type TokenHash = [u8; 32];

pub(super) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    tokens: BTreeMap<String, TokenTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    sha256: String,
    scopes: BTreeSet<TokenScope>,
    builds_at_once: Option<u64>,
    builds_per_hour: Option<u64>,
    modules: Option<Vec<String>>,
    expires: Option<Datetime>,
}

/// Reads the tokens of a file, with their hashes.
pub(super) fn read(file: &Path) -> Result<Vec<(TokenHash, TokenEntry)>, TokenFileError> {
    let invalid = |message: String| TokenFileError::Invalid { file: file.to_owned(), message };
    // The message quotes a line of the file, which may contain a hash, but never a token.
    let content: TokenFile = toml_edit::de::from_str(&text(file)?)
        .map_err(|error| invalid(error.to_string().trim().to_owned()))?;
    let mut hashes = BTreeSet::new();
    let read = |(name, token): (String, TokenTable)| {
        let of_token = |message: String| invalid(format!("tokens.{name}: {message}"));
        if !is_name(&name) {
            return Err(invalid(TokenFileError::InvalidName(name).to_string()));
        }
        let hash = HEXLOWER_PERMISSIVE
            .decode(token.sha256.as_bytes())
            .ok()
            .and_then(|hash| TokenHash::try_from(hash).ok())
            .ok_or_else(|| of_token("sha256 must be 64 hexadecimal digits".to_owned()))?;
        if !hashes.insert(hash) {
            return Err(of_token("another token has the same sha256".to_owned()));
        }
        if token.builds_at_once == Some(0) || token.builds_per_hour == Some(0) {
            return Err(of_token(
                "a limit of 0 allows no builds; omit the scope \"build\" instead".to_owned(),
            ));
        }
        let expires = token.expires.map(|time| parse_expiry(&time)).transpose().map_err(&of_token)?;
        let entry = TokenEntry {
            name: name.clone(),
            scopes: token.scopes,
            builds_at_once: token.builds_at_once,
            builds_per_hour: token.builds_per_hour,
            modules: token.modules,
            expires,
        };
        Ok((hash, entry))
    };
    content.tokens.into_iter().map(read).collect()
}

/// Reads the tokens of a file.
///
/// # Errors
/// The file is unreadable or invalid.
pub fn tokens(file: &Path) -> Result<Vec<TokenEntry>, TokenFileError> {
    Ok(read(file)?.into_iter().map(|(_, entry)| entry).collect())
}

/// Generates a token and adds its hash to the file, created if missing. The token itself is not stored.
///
/// # Errors
/// The name is invalid or exists, or the file can't be changed.
pub fn add_token(file: &Path, entry: &TokenEntry) -> Result<SecretString, TokenFileError> {
    if !is_name(&entry.name) {
        return Err(TokenFileError::InvalidName(entry.name.clone()));
    }
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| TokenFileError::Random(error.to_string()))?;
    let token = format!("vx_{}", BASE64URL_NOPAD.encode(&bits));
    let mut lines = Table::new();
    lines.insert("sha256", value(HEXLOWER.encode(&hash(&token))));
    let word = |scope: &TokenScope| scope.word();
    lines.insert("scopes", value(entry.scopes.iter().map(word).collect::<Array>()));
    for (key, number) in
        [("builds_at_once", entry.builds_at_once), ("builds_per_hour", entry.builds_per_hour)]
    {
        // TOML integers are signed: a larger limit means unlimited.
        if let Some(number) = number.and_then(|number| i64::try_from(number).ok()) {
            lines.insert(key, value(number));
        }
    }
    if let Some(modules) = &entry.modules {
        lines.insert("modules", value(modules.iter().map(String::as_str).collect::<Array>()));
    }
    if let Some(time) = entry.expires {
        let expires = time.to_string().parse::<Datetime>().map_err(|error| TokenFileError::Invalid {
            file: file.to_owned(),
            message: format!("expires: {error}"),
        })?;
        lines.insert("expires", value(expires));
    }
    change(file, true, |tokens| {
        if tokens.contains_key(&entry.name) {
            return Err(TokenFileError::AlreadyExists(entry.name.clone()));
        }
        tokens.insert(&entry.name, Item::Table(lines));
        Ok(())
    })?;
    Ok(token.into())
}

/// Removes a token from the file. A running service rejects the token within a second.
///
/// # Errors
/// The token does not exist, or the file can't be changed.
pub fn revoke_token(file: &Path, name: &str) -> Result<(), TokenFileError> {
    change(file, false, |tokens| {
        tokens.remove(name).map(drop).ok_or_else(|| TokenFileError::NotFound(name.to_owned()))
    })
}

/// Edits the tokens in target, preserving comments.
fn change(
    file: &Path,
    create: bool,
    change: impl FnOnce(&mut Table) -> Result<(), TokenFileError>,
) -> Result<(), TokenFileError> {
    let invalid = |message: String| TokenFileError::Invalid { file: file.to_owned(), message };
    let unwritable = |cause| TokenFileError::Unwritable { file: file.to_owned(), cause };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Prevents lost updates by concurrent edits, on systems that can lock directories.
    let guard = File::open(folder).ok();
    if let Some(guard) = &guard {
        let _ = guard.lock();
    }
    let text = match text(file) {
        Ok(text) => {
            // An invalid file is not edited.
            read(file)?;
            text
        }
        Err(TokenFileError::Unreadable { cause, .. })
            if create && cause.kind() == io::ErrorKind::NotFound =>
        {
            String::new()
        }
        Err(error) => return Err(error),
    };
    let mut document: DocumentMut = text.parse().map_err(|error| invalid(format!("{error}")))?;
    let tokens = document
        .entry("tokens")
        .or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        })
        .as_table_mut()
        .ok_or_else(|| invalid("`tokens` must be a table: [tokens.NAME]".to_owned()))?;
    change(tokens)?;
    write(file, folder, &document.to_string()).map_err(unwritable)
}

/// Writes the file atomically, readable only by its owner (the previous one, or that of the directory).
fn write(file: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(folder);
    let mut new = tempfile::Builder::new().prefix(".tokens.").suffix(".tmp").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    let previous = fs::metadata(&target).or_else(|_| fs::metadata(folder))?;
    if new.as_file().metadata()?.uid() != previous.uid() {
        fchown(new.as_file(), Some(previous.uid()), Some(previous.gid()))?;
    }
    new.as_file().sync_all()?;
    new.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

fn text(file: &Path) -> Result<String, TokenFileError> {
    let read = || {
        if fs::metadata(file)?.len() > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 16 MiB"));
        }
        fs::read_to_string(file)
    };
    read().map_err(|cause| TokenFileError::Unreadable { file: file.to_owned(), cause })
}

/// Whether a name is valid. Names appear in logs, so special characters are not allowed.
fn is_name(name: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(is_valid)
}

/// Parses a time with a UTC offset, or a date (midnight UTC).
fn parse_expiry(time: &Datetime) -> Result<Timestamp, String> {
    let text = time.to_string();
    let at = match (time.date.is_some(), time.time.is_some(), time.offset.is_some()) {
        (true, true, true) => text.parse().ok(),
        (true, false, false) => format!("{text}T00:00:00Z").parse().ok(),
        _ => None,
    };
    at.ok_or_else(|| {
        format!("invalid `expires` {text}; expected a date (2027-01-01) or a time with an offset (2027-01-01T12:00:00Z)")
    })
}
