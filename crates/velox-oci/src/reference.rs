//! The names of images and of their content.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const DOCKER_HUB: &str = "docker.io";
const MAX_TAG_CHARS: usize = 128;
const MAX_REPOSITORY_CHARS: usize = 255;

/// The SHA-256 of a blob or a manifest: `sha256:` and 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobDigest(String);

impl BlobDigest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_hash(Sha256::new_with_prefix(bytes))
    }

    pub(crate) fn of_hash(hash: Sha256) -> Self {
        Self(format!("sha256:{}", HEXLOWER.encode(&hash.finalize())))
    }

    /// `sha256:…`
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }
}

impl FromStr for BlobDigest {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let is_hex =
            |hex: &str| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.split_once(':') {
            Some(("sha256", hex)) if is_hex(hex) => Ok(Self(text.to_owned())),
            Some(("sha256", _)) => Err(invalid(text, "a SHA-256 digest has 64 lowercase hexadecimal digits")),
            _ => Err(invalid(text, "expected a digest `sha256:…`")),
        }
    }
}

impl TryFrom<String> for BlobDigest {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<BlobDigest> for String {
    fn from(digest: BlobDigest) -> Self {
        digest.0
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, with Docker's defaults: `php:8.4-cli` is `docker.io/library/php:8.4-cli`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<BlobDigest>,
}

/// A text that isn't an image reference or a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference `{text}`: {reason}")]
pub struct InvalidReference {
    text: String,
    reason: String,
}

impl InvalidReference {
    /// What is wrong with the text, without the text.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

fn invalid(text: &str, reason: impl Into<String>) -> InvalidReference {
    // What is before a host may be a password; what is before a wrong digest is a name.
    let name = text.split("@sha256:").next().unwrap_or(text);
    let text = match name.rsplit_once('@').map(|(before, _)| text.split_at(before.len())) {
        Some((before, rest)) if before.contains(':') || !before.contains('/') => format!("…{rest}"),
        _ => text.to_owned(),
    };
    InvalidReference { text, reason: reason.into() }
}

impl ImageReference {
    /// The host of the registry, with its port: `ghcr.io`, `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry: `library/php`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one. It decides, even if there is a tag too.
    #[must_use]
    pub fn digest(&self) -> Option<&BlobDigest> {
        self.digest.as_ref()
    }

    /// What the registry is asked for: the digest, else the tag, else `latest`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.digest.as_ref().map(BlobDigest::as_str).or(self.tag()).unwrap_or("latest")
    }

    /// The same repository with another tag and without a digest.
    ///
    /// # Errors
    /// The tag is invalid.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        check_tag(tag, tag)?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }
}

impl FromStr for ImageReference {
    type Err = InvalidReference;

    /// <https://github.com/distribution/reference/blob/main/reference.go>
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(invalid(text, format!("remove `{scheme}://`: a reference is not a URL")));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|error: InvalidReference| invalid(text, error.reason))?))
            }
            None => (text, None),
        };
        // A colon before the last slash is the registry's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if let Some(tag) = tag {
            check_tag(text, tag)?;
        }
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost" || part.starts_with('[');
        let (registry, repository) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_ascii_lowercase(), path.to_owned()),
            Some(_) => (DOCKER_HUB.to_owned(), name.to_owned()),
            None => (DOCKER_HUB.to_owned(), format!("library/{name}")),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB.to_owned() } else { registry };
        let repository = match repository.as_str() {
            short if registry == DOCKER_HUB && !short.contains('/') => format!("library/{short}"),
            _ => repository,
        };
        check_registry(text, &registry)?;
        check_repository(text, &repository)?;
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn check_registry(text: &str, registry: &str) -> Result<(), InvalidReference> {
    let is_valid = url::Url::parse(&format!("https://{registry}/")).is_ok_and(|url| {
        url.path() == "/" && url.username().is_empty() && url.password().is_none() && url.has_host()
    });
    let is_plain = registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte));
    if is_valid && is_plain { Ok(()) } else { Err(invalid(text, format!("`{registry}` is not a host name"))) }
}

fn check_repository(text: &str, repository: &str) -> Result<(), InvalidReference> {
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(invalid(text, "the name of a repository must be lowercase"));
    }
    if repository.len() > MAX_REPOSITORY_CHARS {
        return Err(invalid(text, format!("the name has more than {MAX_REPOSITORY_CHARS} characters")));
    }
    if repository.split('/').all(is_path_component) {
        return Ok(());
    }
    Err(invalid(text, "expected `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`"))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [component.bytes().next(), component.bytes().last()];
    ends.into_iter().all(|end| end.is_some_and(is_alphanumeric))
        && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn check_tag(text: &str, tag: &str) -> Result<(), InvalidReference> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_valid = tag.starts_with(is_word) && tag.chars().all(|c| is_word(c) || matches!(c, '.' | '-'));
    if !is_valid {
        return Err(invalid(
            text,
            format!("invalid tag `{tag}`: a tag has letters, digits, `_`, `.` and `-`"),
        ));
    }
    if tag.len() > MAX_TAG_CHARS {
        return Err(invalid(text, format!("the tag has more than {MAX_TAG_CHARS} characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_dockers_defaults() {
        for (text, full, version) in [
            ("php", "docker.io/library/php", "latest"),
            ("php:8.4-cli", "docker.io/library/php:8.4-cli", "8.4-cli"),
            ("acme/app", "docker.io/acme/app", "latest"),
            ("docker.io/php:8", "docker.io/library/php:8", "8"),
            ("index.docker.io/acme/app", "docker.io/acme/app", "latest"),
            ("ghcr.io/acme/app-rr:1.4", "ghcr.io/acme/app-rr:1.4", "1.4"),
            ("localhost/app", "localhost/app", "latest"),
            ("localhost:5000/a/b__c/d--e:x_1", "localhost:5000/a/b__c/d--e:x_1", "x_1"),
            ("[::1]:5000/app", "[::1]:5000/app", "latest"),
        ] {
            let reference: ImageReference = text.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.version()), (full, version), "{text}");
            assert_eq!(full.parse::<ImageReference>().unwrap(), reference);
        }
        let digest = BlobDigest::of(b"x");
        let pinned: ImageReference = format!("ghcr.io/acme/app:1@{digest}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.version()), (Some("1"), digest.as_str()));
        assert_eq!(pinned.with_tag("2").unwrap().to_string(), "ghcr.io/acme/app:2");
    }

    #[test]
    fn invalid_references_say_why() {
        for (text, reason) in [
            ("", "expected `[REGISTRY/]"),
            ("Acme/App", "must be lowercase"),
            ("https://ghcr.io/acme/app", "remove `https://`"),
            ("acme/app:", "invalid tag ``"),
            ("acme/app:-x", "invalid tag `-x`"),
            ("acme/app:a b", "invalid tag `a b`"),
            ("acme//app", "expected `[REGISTRY/]"),
            ("acme/a..b", "expected `[REGISTRY/]"),
            ("acme/../b", "expected `[REGISTRY/]"),
            ("user:s3cret@ghcr.io/acme/app", "`…@ghcr.io/acme/app`: expected a digest"),
            ("user:s3cret@ghcr.io/acme/app@sha256:12", "`…@ghcr.io/acme/app@sha256:12`: expected a digest"),
            ("s3cret@ghcr.io/acme/app", "`…@ghcr.io/acme/app`: expected a digest"),
            ("ghcr.io/acme/app@1.4", "`ghcr.io/acme/app@1.4`: expected a digest"),
            ("https://user:s3cret@ghcr.io/acme/app", "`…@ghcr.io/acme/app`: remove `https://`"),
            ("acme/app@sha256:12", "64 lowercase hexadecimal digits"),
            ("acme/app@sha512:12", "expected a digest `sha256:…`"),
            ("ghcr.io:port/app", "is not a host name"),
        ] {
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("s3cret"), "{text}: {error}");
        }
        assert!("a".repeat(300).parse::<ImageReference>().is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<ImageReference>().is_err());
    }
}
