//! Where a remote cache is.

use std::{collections::BTreeMap, time::Duration};

use object_store::{ObjectStore, path::Path};
use url::Url;

use crate::GoCacheError;

/// Parses a remote cache: an absolute path, or a `file://`, `s3://`, `gs://` or `az://` URL.
pub fn parse_remote(text: &str) -> Result<Url, GoCacheError> {
    let wrong = |why: &str| {
        let shown = text.split_once('@').map_or(text, |(_, rest)| rest);
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
        "s3" | "gs" | "az" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "s3" | "gs" | "az" => Err(wrong("missing bucket")),
        _ => Err(wrong("expected a file://, s3://, gs:// or az:// URL")),
    }
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
            ("s3://key:secret@bucket", "environment"),
        ] {
            let said = parse_remote(bad).unwrap_err().to_string();
            assert!(said.contains(why) && !said.contains("secret"), "{said}");
        }
    }
}
