//! The file with the tokens: their hashes, and what each allows.
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
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml_edit::{Array, Datetime, DocumentMut, Item, Table, value};

use crate::caller::TokenScope;

/// More than thousands of tokens need.
const LARGEST: u64 = 16 << 20;

/// What the file says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Its name: on whose account its builds run.
    pub name: String,
    /// What it allows.
    pub scopes: BTreeSet<TokenScope>,
    /// How many builds may be queued or running at once; `None`: as many as the queue takes.
    pub builds_at_once: Option<u64>,
    /// How many builds may be asked for in an hour; `None`: any number.
    pub builds_per_hour: Option<u64>,
    /// The modules that may be built from, as GOPRIVATE's patterns; `None`: what the service allows.
    pub modules: Option<Vec<String>>,
    /// Until when it counts; `None`: until it is revoked.
    pub expires: Option<Timestamp>,
}

/// What is wrong with a file of tokens, or with what is to be written into it.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It can't be read.
    #[error("can't read the tokens in {}: {cause}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It can't be written.
    #[error("can't write the tokens to {}: {cause}", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It isn't what such a file has to be.
    #[error("the tokens in {} can't be used: {message}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// It has a token of this name.
    #[error("there is a token `{0}` already: revoke it first, or take another name")]
    Taken(String),
    /// It has no token of this name.
    #[error("there is no token `{0}`: `vx server token list` shows which there are")]
    Missing(String),
    /// A name that can't be one.
    #[error("`{0}` is no name for a token: up to 64 letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// The system gives no random bits.
    #[error("the system gives no random bits for a token: {0}")]
    Random(String),
}

/// A SHA-256: what is known of a token.
pub(super) type Hash = [u8; 32];

/// The hash under which a token is known.
pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token).into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    tokens: BTreeMap<String, WrittenToken>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    sha256: String,
    scopes: BTreeSet<TokenScope>,
    builds_at_once: Option<u64>,
    builds_per_hour: Option<u64>,
    modules: Option<Vec<String>>,
    expires: Option<Datetime>,
}

/// The tokens of a file by their hashes.
pub(super) fn read(file: &Path) -> Result<Vec<(Hash, TokenEntry)>, TokenFileError> {
    let wrong = |message: String| TokenFileError::Wrong { file: file.to_owned(), message };
    // The message of a TOML error has the line in it; that may be the hash, but never the token.
    let written: Written =
        toml_edit::de::from_str(&text(file)?).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
    let mut known = BTreeSet::new();
    let read = |(name, token): (String, WrittenToken)| {
        let of_token = |message: String| wrong(format!("tokens.{name}: {message}"));
        if !is_name(&name) {
            return Err(wrong(TokenFileError::Name(name).to_string()));
        }
        let hash = HEXLOWER_PERMISSIVE
            .decode(token.sha256.as_bytes())
            .ok()
            .and_then(|hash| Hash::try_from(hash).ok())
            .ok_or_else(|| of_token("sha256 is no SHA-256 in hexadecimal: 64 digits".to_owned()))?;
        if !known.insert(hash) {
            return Err(of_token("another token has the same sha256".to_owned()));
        }
        if token.builds_at_once == Some(0) || token.builds_per_hour == Some(0) {
            return Err(of_token(
                "a limit of 0 allows nothing: leave the scope \"build\" out instead".to_owned(),
            ));
        }
        let expires = token.expires.map(|time| moment(&time)).transpose().map_err(&of_token)?;
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
    written.tokens.into_iter().map(read).collect()
}

/// The tokens of a file, by their names.
///
/// # Errors
/// The file can't be read, or isn't right.
pub fn tokens(file: &Path) -> Result<Vec<TokenEntry>, TokenFileError> {
    Ok(read(file)?.into_iter().map(|(_, entry)| entry).collect())
}

/// Makes a token, and adds its hash to the file, which is made when missing. Nothing else knows the token itself.
///
/// # Errors
/// The name is taken or can't be one, or the file can't be changed.
pub fn add_token(file: &Path, entry: &TokenEntry) -> Result<SecretString, TokenFileError> {
    if !is_name(&entry.name) {
        return Err(TokenFileError::Name(entry.name.clone()));
    }
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|error| TokenFileError::Random(error.to_string()))?;
    let token = format!("vx_{}", BASE64_URL_SAFE_NO_PAD.encode(bits));
    let mut lines = Table::new();
    lines.insert("sha256", value(HEXLOWER.encode(&hash(&token))));
    let word = |scope: &TokenScope| scope.word();
    lines.insert("scopes", value(entry.scopes.iter().map(word).collect::<Array>()));
    for (key, number) in
        [("builds_at_once", entry.builds_at_once), ("builds_per_hour", entry.builds_per_hour)]
    {
        // TOML's numbers are signed; a limit that is none for practical purposes needs no line.
        if let Some(number) = number.and_then(|number| i64::try_from(number).ok()) {
            lines.insert(key, value(number));
        }
    }
    if let Some(modules) = &entry.modules {
        lines.insert("modules", value(modules.iter().map(String::as_str).collect::<Array>()));
    }
    if let Some(time) = entry.expires {
        let written = time.to_string().parse::<Datetime>().map_err(|error| TokenFileError::Wrong {
            file: file.to_owned(),
            message: format!("expires: {error}"),
        })?;
        lines.insert("expires", value(written));
    }
    change(file, true, |tokens| {
        if tokens.contains_key(&entry.name) {
            return Err(TokenFileError::Taken(entry.name.clone()));
        }
        tokens.insert(&entry.name, Item::Table(lines));
        Ok(())
    })?;
    Ok(token.into())
}

/// Takes a token out of the file. A service that runs with it refuses the token within a second.
///
/// # Errors
/// There is no such token, or the file can't be changed.
pub fn revoke_token(file: &Path, name: &str) -> Result<(), TokenFileError> {
    change(file, false, |tokens| {
        tokens.remove(name).map(drop).ok_or_else(|| TokenFileError::Missing(name.to_owned()))
    })
}

/// Changes the file's tokens in place; comments stay.
fn change(
    file: &Path,
    create: bool,
    change: impl FnOnce(&mut Table) -> Result<(), TokenFileError>,
) -> Result<(), TokenFileError> {
    let wrong = |message: String| TokenFileError::Wrong { file: file.to_owned(), message };
    let unwritable = |cause| TokenFileError::Unwritable { file: file.to_owned(), cause };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Two who change it at once must not lose each other's; where folders can't be locked, they take their chance.
    let guard = File::open(folder).ok();
    if let Some(guard) = &guard {
        let _ = guard.lock();
    }
    let text = match text(file) {
        Ok(text) => {
            // What the service couldn't read isn't made worse.
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
    let mut document: DocumentMut = text.parse().map_err(|error| wrong(format!("{error}")))?;
    let tokens = document
        .entry("tokens")
        .or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        })
        .as_table_mut()
        .ok_or_else(|| wrong("`tokens` has to be a table: [tokens.NAME]".to_owned()))?;
    change(tokens)?;
    write(file, folder, &document.to_string()).map_err(unwritable)
}

/// Writes it whole, for its owner's eyes only: the one that it had, else the folder's, whose service will read it.
fn write(file: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let place = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(folder);
    let mut new = tempfile::Builder::new().prefix(".tokens.").suffix(".tmp").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let known = fs::metadata(&place).or_else(|_| fs::metadata(folder))?;
        let own = new.as_file().metadata()?;
        if own.uid() != known.uid() {
            std::os::unix::fs::fchown(new.as_file(), Some(known.uid()), Some(known.gid()))?;
        }
    }
    new.as_file().sync_all()?;
    new.persist(&place).map_err(|error| error.error)?;
    Ok(())
}

fn text(file: &Path) -> Result<String, TokenFileError> {
    let read = || {
        if fs::metadata(file)?.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
        }
        fs::read_to_string(file)
    };
    read().map_err(|cause| TokenFileError::Unreadable { file: file.to_owned(), cause })
}

/// Names go into logs, and stand for who asked: nothing in them can be mistaken for something else.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(good)
}

/// A time with its offset from UTC, or a day: the one at whose start, in UTC, the token ends.
fn moment(time: &Datetime) -> Result<Timestamp, String> {
    let text = time.to_string();
    let at = match (time.date.is_some(), time.time.is_some(), time.offset.is_some()) {
        (true, true, true) => text.parse().ok(),
        (true, false, false) => format!("{text}T00:00:00Z").parse().ok(),
        _ => None,
    };
    at.ok_or_else(|| {
        format!("expires is {text}: write a day (2027-01-01), or a time in UTC (2027-01-01T12:00:00Z)")
    })
}
