//! Where a remote cache is.

use std::{collections::BTreeMap, time::Duration};

use object_store::{ObjectStore, path::Path};
use tokio::time::timeout;
use url::Url;
use velox_oci::{ImageReference, InvalidReference};

use crate::GoCacheError;

/// Parses a remote cache: an absolute path, or a `file://`, `s3://`, `gs://` or `az://` URL. Buckets need the feature
/// `buckets`.
pub fn parse_remote(text: &str) -> Result<Url, GoCacheError> {
    parse_location(text, cfg!(feature = "buckets"))
}

fn parse_location(text: &str, with_buckets: bool) -> Result<Url, GoCacheError> {
    let wrong = |why: &str| {
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        GoCacheError::Remote { text: shown.to_owned(), why: why.to_owned() }
    };
    let path = std::path::Path::new(text);
    if path.is_absolute() {
        return Url::from_file_path(path).map_err(|()| wrong("not a directory"));
    }
    let url = Url::parse(text)
        .map_err(|_| wrong("expected an absolute path or a URL such as s3://bucket/prefix"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "credentials belong in the environment (AWS_*, GOOGLE_*, AZURE_*), not in the URL",
        ));
    }
    match url.scheme() {
        "file" if url.host_str().is_none_or(str::is_empty) => Ok(url),
        "s3" | "gs" | "az" if !with_buckets => Err(wrong(
            "this vx was built without buckets; use a release, or build vx with the feature `buckets`",
        )),
        "s3" | "gs" | "az" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "s3" | "gs" | "az" => Err(wrong("missing bucket")),
        _ => Err(wrong("expected a file://, s3://, gs:// or az:// URL")),
    }
}

/// Parses a shared cache: as [`parse_remote`], or `oci://REGISTRY/NAME:TAG[@sha256:…]`, a cache in a registry.
pub fn parse_cache(text: &str) -> Result<Url, GoCacheError> {
    let Some(reference) = text.strip_prefix("oci://") else {
        return parse_remote(text).map_err(|error| match error {
            GoCacheError::Remote { text, why } if why.starts_with("expected a file://") => {
                GoCacheError::Remote {
                    text,
                    why: "expected a file://, s3://, gs://, az:// or oci:// URL".to_owned(),
                }
            }
            error => error,
        });
    };
    let wrong = |why: &str| {
        // Before an `@` without a digest is a password.
        let end = reference.find("@sha256:").unwrap_or(reference.len());
        let start = reference.get(..end).and_then(|it| it.rfind('@')).map_or(0, |at| at + 1);
        let shown = reference.get(start..).unwrap_or_default();
        GoCacheError::Remote { text: format!("oci://{shown}"), why: why.to_owned() }
    };
    let parsed: ImageReference =
        reference.parse().map_err(|error: InvalidReference| wrong(error.reason()))?;
    if parsed.tag().is_none() && parsed.digest().is_none() {
        return Err(wrong("missing tag or digest"));
    }
    Url::parse(text).map_err(|_| wrong("expected oci://REGISTRY/NAME:TAG"))
}

/// Whether a shared cache is in a registry.
#[must_use]
pub fn is_registry(remote: &Url) -> bool {
    remote.scheme() == "oci"
}

/// The reference of a cache in a registry. The error says why there is none.
pub fn registry_reference(remote: &Url) -> Result<ImageReference, String> {
    let text = remote.as_str();
    let reference = text.strip_prefix("oci://").unwrap_or(text).parse();
    reference.map_err(|error: InvalidReference| error.reason().to_owned())
}

/// Opens a remote of [`parse_remote`]; returns the store and the prefix. `timeout` limits a whole request.
/// Credentials come from object_store's variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
pub fn open_remote(
    url: &Url,
    environment: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<(Box<dyn ObjectStore>, Path), GoCacheError> {
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let known = ["AWS_", "GOOGLE_", "AZURE_"];
    let credentials = environment
        .iter()
        .filter(|(name, _)| known.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let clients = [
        ("timeout".to_owned(), format!("{}ms", timeout.as_millis())),
        ("connect_timeout".to_owned(), "3s".to_owned()),
    ];
    object_store::parse_url_opts(url, credentials.chain(clients)).map_err(|error| {
        // Further lines may contain settings.
        let why = error.to_string().lines().next().unwrap_or_default().to_owned();
        GoCacheError::Remote { text: url.to_string(), why }
    })
}

/// Why a request has no result.
pub(crate) enum RemoteFailure {
    /// Deleted by a cleanup.
    NotFound,
    /// The reason, without secrets.
    Failed(String),
}

impl From<object_store::Error> for RemoteFailure {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            error => Self::Failed(store_error_summary(&error).to_owned()),
        }
    }
}

/// Waits for a request that does `what` (`reading a pack`). `None`: there is no such object. The error has no secrets.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    answer: impl Future<Output = Result<T, RemoteFailure>>,
) -> Result<Option<T>, String> {
    match timeout(limit, answer).await {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(RemoteFailure::NotFound)) => Ok(None),
        Ok(Err(RemoteFailure::Failed(reason))) => Err(format!("{what} failed ({reason})")),
        Err(_) => Err(format!("{what} took longer than {} s", limit.as_secs())),
    }
}

/// A short summary of an error that may contain URLs and headers.
pub fn store_error_summary(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::PermissionDenied { .. } => "permission denied",
        object_store::Error::Unauthenticated { .. } => "missing or invalid credentials",
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => {
            "not supported"
        }
        object_store::Error::UnknownConfigurationKey { .. } => "unknown setting",
        _ => "unreachable or failing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_a_directory_or_a_bucket() {
        for good in
            ["/var/cache/go", "file:///var/cache", "s3://bucket/prefix", "gs://bucket", "az://container/x"]
        {
            assert!(parse_remote(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "absolute path"),
            ("cache", "absolute path"),
            ("s3://", "missing bucket"),
            ("ftp://host/x", "expected a file://"),
            ("https://bucket.example.com", "expected a file://"),
            ("s3://key:secret@secret@bucket", "environment"),
            ("oci://host/cache:v1", "expected a file://"),
        ] {
            let said = parse_remote(bad).unwrap_err().to_string();
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
        for (text, is_bucket) in [("/var/cache", false), ("s3://bucket", true), ("gs://b/x", true)] {
            let parsed = parse_location(text, false).map_err(|error| error.to_string());
            assert_eq!(parsed.is_err_and(|error| error.contains("feature `buckets`")), is_bucket, "{text}");
        }
        let digest = format!("sha256:{}", "ab".repeat(32));
        for good in
            [&format!("oci://ghcr.io/a/b@{digest}"), "oci://localhost:5000/a/b:v3.0.0", "s3://bucket/x"]
        {
            let url = parse_cache(good).unwrap();
            assert_eq!(is_registry(&url), good.starts_with("oci"));
            assert!(!is_registry(&url) || format!("oci://{}", registry_reference(&url).unwrap()) == good);
        }
        for (bad, why) in [
            ("oci://ghcr.io/a/b", "missing tag or digest"),
            ("oci://ghcr.io/A/b:1", "lowercase"),
            ("oci://ghcr.io/a/b:1@sha256:12", "64 lowercase"),
            ("oci://user:secret@secret@ghcr.io/a/b:1", "expected a digest"),
            ("ftp://host/x", "or oci:// URL"),
        ] {
            let said = parse_cache(bad).unwrap_err().to_string();
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
    }
}
