//! A Go vulnerability database (<https://go.dev/doc/security/vuln/database#api>): read before govulncheck does, for errors
//! that name the invalid file, and for the vulnerabilities of the main module, which govulncheck does not look up.
//!
//! ```text
//! URL/index/db.json         when it was modified
//! URL/index/modules.json    the ids of the vulnerabilities of each module
//! URL/ID/GO-2024-2687.json  a vulnerability, in the OSV format
//! ```

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::Timestamp;
use reqwest::Client;
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;
use velox_build::{Error, ErrorKind};
use velox_manifest::Diagnostic;

use super::govulncheck::OsvEntry;

/// The database of the Go project.
pub const PUBLIC_VULNERABILITY_DATABASE: &str = "https://vuln.go.dev";

/// More than ten times the size of the public index.
const MAX_FILE_BYTES: u64 = 32 << 20;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The public database changes several times a week.
const MAX_AGE_DAYS: i64 = 30;

const HELP: &str =
    "nothing was checked; `--db` names another database: a mirror (https://…) or a local copy (file:///…)";

pub(super) struct VulnerabilityDatabase {
    url: Url,
    /// The directory of a `file://` URL.
    directory: Option<PathBuf>,
    client: Client,
}

#[derive(Deserialize)]
struct DatabaseIndex {
    modified: Timestamp,
}

#[derive(Deserialize)]
struct IndexedModule {
    path: String,
    vulns: Vec<IndexedVulnerability>,
}

#[derive(Deserialize)]
struct IndexedVulnerability {
    id: String,
}

/// The ids of vulnerabilities by module path.
pub(super) type VulnerabilityIndex = BTreeMap<String, Vec<String>>;

impl VulnerabilityDatabase {
    /// `text`: a URL with `https`, `http` or `file`.
    pub(super) fn open(text: &str, client: Client, is_offline: bool) -> Result<Self, Error> {
        let invalid = |why: &str| {
            Error::configuration(format!("invalid vulnerability database `{text}`: {why}"))
                .help("use a URL such as https://vuln.example.com or file:///srv/vulndb")
        };
        let url = Url::parse(text).map_err(|error| match text.starts_with(['/', '.']) {
            true => invalid("it is not a URL").help(format!("did you mean `file://{text}`?")),
            false => invalid(&error.to_string()),
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::configuration(
                "invalid vulnerability database: a URL must not contain credentials",
            )
            .help(
                "arguments are visible to other users: mirror the database to a directory, and use file://",
            ));
        }
        let directory = match url.scheme() {
            "file" => {
                Some(url.to_file_path().map_err(|()| invalid("it is not the path of a local directory"))?)
            }
            "http" | "https" => None,
            _ => return Err(invalid("expected https, http or file")),
        };
        if is_offline && directory.is_none() {
            let message = format!("`--offline` forbids reading the vulnerability database {url}");
            return Err(Error::build(message).help("name a local copy: --db file:///path").help(HELP));
        }
        Ok(Self { url, directory, client })
    }

    /// The argument of govulncheck.
    pub(super) fn argument(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// When the database was modified, and whether that is long ago.
    pub(super) async fn modified(&self) -> Result<(Timestamp, bool), Error> {
        let DatabaseIndex { modified } = self.parse("index/db.json").await?;
        let age = Timestamp::now().duration_since(modified);
        Ok((modified, age.as_hours() > MAX_AGE_DAYS * 24))
    }

    /// Checks the entries of these modules too.
    pub(super) async fn index(&self, modules: &[&str]) -> Result<VulnerabilityIndex, Error> {
        let listed: Vec<IndexedModule> = self.parse("index/modules.json").await?;
        let mut index = VulnerabilityIndex::new();
        for IndexedModule { path, vulns } in listed {
            for IndexedVulnerability { id } in vulns {
                if !is_id(&id) {
                    let why = format!("invalid id {id:?} of module {path:?}");
                    return Err(self.invalid("index/modules.json", &why));
                }
                index.entry(path.clone()).or_default().push(id);
            }
        }
        // govulncheck reports an invalid entry of a mirror: reading all of them twice takes too long.
        if self.directory.is_some() {
            for id in modules.iter().filter_map(|module| index.get(*module)).flatten() {
                self.entry(id).await?;
            }
        }
        Ok(index)
    }

    pub(super) async fn entry(&self, id: &str) -> Result<OsvEntry, Error> {
        let file = format!("ID/{id}.json");
        let entry: OsvEntry = self.parse(&file).await?;
        match entry.id == id {
            true => Ok(entry),
            false => Err(self.invalid(&file, &format!("it is the entry {:?}", entry.id))),
        }
    }

    async fn parse<T: DeserializeOwned>(&self, file: &str) -> Result<T, Error> {
        let bytes = self.read(file).await.map_err(|why| {
            let message = format!("failed to read {file} of the vulnerability database {}: {why}", self.url);
            Error::many(ErrorKind::Build, vec![Diagnostic::error(message).help(HELP)])
        })?;
        serde_json::from_slice(&bytes).map_err(|error| self.invalid(file, &error.to_string()))
    }

    fn invalid(&self, file: &str, why: &str) -> Error {
        let message = format!("invalid {file} in the vulnerability database {}: {why}", self.url);
        Error::build(message)
            .help("the database must be complete: https://go.dev/doc/security/vuln/database")
            .help(HELP)
    }

    async fn read(&self, file: &str) -> Result<Vec<u8>, String> {
        let too_large = || format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20);
        if let Some(directory) = &self.directory {
            let path = directory.join(file);
            let metadata = tokio::fs::metadata(&path).await.map_err(|error| error.to_string())?;
            return match (metadata.is_file(), metadata.len() > MAX_FILE_BYTES) {
                (false, _) => Err("it is not a file".to_owned()),
                (true, true) => Err(too_large()),
                (true, false) => tokio::fs::read(&path).await.map_err(|error| error.to_string()),
            };
        }
        let url = format!("{}/{file}", self.argument());
        let request = self.client.get(url).timeout(RESPONSE_TIMEOUT);
        let mut response = request.send().await.map_err(cause)?.error_for_status().map_err(cause)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cause)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_FILE_BYTES {
                return Err(too_large());
            }
        }
        Ok(body)
    }
}

/// The innermost cause, without the URL.
#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn cause(error: reqwest::Error) -> String {
    if let Some(status) = error.status() {
        return status.to_string();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// `GO-2024-2687`: part of file names and URLs.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
