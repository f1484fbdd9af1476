//! `/v1/artifacts/{sha256}`: downloads binaries, whole or in part.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::{BASE64, HEXLOWER};
use velox_api::ArtifactInfo;

use super::{AppState, access::Reader, body::PathParameter};
use crate::{
    artifacts::is_sha256,
    error::{ApiError, ApiErrorKind},
};

/// Downloads a binary. Supports ranges and ETags, so that a download can be resumed.
#[utoipa::path(
    get, path = "/v1/artifacts/{sha256}", tag = "artifacts", operation_id = "getArtifact",
    params(("sha256" = String, Path, description = "The SHA-256 of the binary, in hexadecimal"),
        ("range" = Option<String>, Header, description = "One range of bytes"),
        ("if-range" = Option<String>, Header, description = "The ETag that the range belongs to"),
        ("if-none-match" = Option<String>, Header, description = "The ETag of an earlier response")),
    responses(
        (status = 200, description = "The binary", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("etag" = String, description = "The SHA-256"),
                ("content-disposition" = String, description = "The file name, `rr` or `rr.exe`"),
                ("repr-digest" = String, description = "The SHA-256 in the format of RFC 9530"))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "Not modified"),
        (status = 404, description = "No such artifact"),
        (status = 412, description = "The ETag does not match If-Match"),
        (status = 416, description = "The range is not satisfiable"),
    )
)]
pub(crate) async fn get(
    State(state): State<Arc<AppState>>,
    _: Reader,
    PathParameter(sha256): PathParameter,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::not_found(format!("no such artifact: {sha256}"));
    // The parameter becomes a file name.
    if !is_sha256(&sha256) {
        return Err(not_found());
    }
    let info = state.service.artifact(&sha256).await?.ok_or_else(not_found)?;
    respond(&state, &info, method, headers)
}

/// Responds with an artifact as a whole or in part.
pub(super) fn respond(
    state: &AppState,
    info: &ArtifactInfo,
    method: Method,
    mut headers: HeaderMap,
) -> Result<Response, ApiError> {
    if method == Method::HEAD {
        // Only GET supports ranges (https://www.rfc-editor.org/rfc/rfc9110#section-14.2).
        headers.remove(header::RANGE);
    }
    let (status, range) = match select_range(&headers, info)? {
        SelectedPart::NotModified => {
            return Ok((StatusCode::NOT_MODIFIED, artifact_headers(info)).into_response());
        }
        SelectedPart::Whole => (StatusCode::OK, 0..info.size),
        SelectedPart::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
    };
    let part = (status == StatusCode::PARTIAL_CONTENT).then(|| {
        let part = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size);
        [(header::CONTENT_RANGE, part)]
    });
    let content = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, (range.end - range.start).to_string()),
    ];
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(state.service.read_artifact(&info.sha256, range)?)
    };
    Ok((status, artifact_headers(info), content, part, body).into_response())
}

/// The headers of all responses for the artifact.
fn artifact_headers(info: &ArtifactInfo) -> [(header::HeaderName, String); 5] {
    let digest = HEXLOWER.decode(info.sha256.as_bytes()).unwrap_or_default();
    // The name is untrusted: it must be safe within quotes.
    let is_safe = info.file_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let name = if is_safe { info.file_name.as_str() } else { "rr" };
    [
        (header::ETAG, format!("\"{}\"", info.sha256)),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        // https://www.rfc-editor.org/rfc/rfc9530#section-3
        (header::HeaderName::from_static("repr-digest"), format!("sha-256=:{}:", BASE64.encode(&digest))),
    ]
}

#[derive(Debug, PartialEq)]
enum SelectedPart {
    NotModified,
    Whole,
    Range(Range<u64>),
}

/// Whether the header lists the ETag or is `*`. None: there is no such header. Only If-None-Match ignores `W/`
/// (<https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.2>).
pub(super) fn lists_tag(headers: &HeaderMap, name: header::HeaderName, tag: &str) -> Option<bool> {
    headers.get(&name)?;
    let values = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    Some(tags.any(|listed| match listed.strip_prefix("W/") {
        Some(weak) => weak == tag && name == header::IF_NONE_MATCH,
        None => listed == tag || listed == "*",
    }))
}

/// Evaluates the preconditions and the range (<https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2>).
/// Several ranges select the whole artifact.
fn select_range(headers: &HeaderMap, info: &ArtifactInfo) -> Result<SelectedPart, ApiError> {
    let tag = format!("\"{}\"", info.sha256);
    if lists_tag(headers, header::IF_MATCH, &tag) == Some(false) {
        let message = "If-Match does not match the ETag of the artifact, which is its SHA-256";
        return Err(ApiError::new(ApiErrorKind::PreconditionFailed, message));
    }
    if lists_tag(headers, header::IF_NONE_MATCH, &tag) == Some(true) {
        return Ok(SelectedPart::NotModified);
    }
    let is_outdated = headers.get(header::IF_RANGE).is_some_and(|of| *of != tag);
    let Some(range) = headers.get(header::RANGE).filter(|_| !is_outdated) else {
        return Ok(SelectedPart::Whole);
    };
    let Some(bounds) = range.to_str().ok().and_then(parse_range) else { return Ok(SelectedPart::Whole) };
    let range = match bounds {
        (Some(first), last) => first..last.map_or(info.size, |last| info.size.min(last.saturating_add(1))),
        (None, suffix) => info.size.saturating_sub(suffix.unwrap_or_default())..info.size,
    };
    if range.is_empty() {
        let kind = ApiErrorKind::RangeNotSatisfiable { size: info.size };
        return Err(ApiError::new(kind, format!("the artifact has {} bytes", info.size)));
    }
    Ok(SelectedPart::Range(range))
}

/// The bounds of a single range: the first and the last byte, or the length of a suffix
/// (<https://www.rfc-editor.org/rfc/rfc9110#section-14.1.2>).
fn parse_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = value.strip_prefix("bytes=")?.trim().split_once('-')?;
    let number = |digits: &str| match digits {
        "" => Some(None),
        // `parse` accepts a plus sign.
        _ if !digits.starts_with('+') => digits.parse().ok().map(Some),
        _ => None,
    };
    match (number(first)?, number(last)?) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        bounds => Some(bounds),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn info() -> ArtifactInfo {
        crate::store::behaviour::artifact("ab".repeat(32), 1000)
    }

    fn select(pairs: &[(HeaderName, &str)]) -> Result<SelectedPart, u16> {
        let header = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).expect("a header"))
        };
        let headers: HeaderMap = pairs.iter().map(header).collect();
        select_range(&headers, &info()).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn ranges() {
        let range = |range: &str| select(&[(header::RANGE, range)]);
        assert_eq!(range("bytes=0-0"), Ok(SelectedPart::Range(0..1)));
        assert_eq!(range("bytes=10-19"), Ok(SelectedPart::Range(10..20)));
        assert_eq!(range("bytes=990-"), Ok(SelectedPart::Range(990..1000)));
        assert_eq!(range("bytes=990-4000"), Ok(SelectedPart::Range(990..1000)));
        assert_eq!(range("bytes=-10"), Ok(SelectedPart::Range(990..1000)));
        assert_eq!(range("bytes=-5000"), Ok(SelectedPart::Range(0..1000)));
        assert_eq!(range("bytes=1000-"), Err(416));
        assert_eq!(range("bytes=-0"), Err(416));
        for ignored in [
            "bytes=0-1,5-6",
            "bytes=5-1",
            "bytes=a-b",
            "lines=0-1",
            "bytes=",
            "bytes",
            "bytes=-",
            "bytes=+1-2",
        ] {
            assert_eq!(range(ignored), Ok(SelectedPart::Whole), "{ignored}");
        }
    }

    #[test]
    fn conditions() {
        let tag = format!("\"{}\"", info().sha256);
        let (tag, weak) = (tag.as_str(), format!("W/{tag}"));
        let range = (header::RANGE, "bytes=1-2");
        assert_eq!(select(&[(header::IF_NONE_MATCH, tag)]), Ok(SelectedPart::NotModified));
        assert_eq!(select(&[(header::IF_NONE_MATCH, &weak)]), Ok(SelectedPart::NotModified));
        assert_eq!(select(&[(header::IF_NONE_MATCH, "*")]), Ok(SelectedPart::NotModified));
        assert_eq!(select(&[(header::IF_NONE_MATCH, "\"other\"")]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[range.clone(), (header::IF_RANGE, tag)]), Ok(SelectedPart::Range(1..3)));
        assert_eq!(select(&[range.clone(), (header::IF_RANGE, &weak)]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[range.clone(), (header::IF_RANGE, "\"other\"")]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[range, (header::IF_RANGE, "nonsense")]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[(header::IF_MATCH, tag)]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[(header::IF_MATCH, &format!("\"other\", {tag}"))]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[(header::IF_MATCH, "*")]), Ok(SelectedPart::Whole));
        assert_eq!(select(&[(header::IF_MATCH, &weak)]), Err(412));
        assert_eq!(select(&[(header::IF_MATCH, "\"other\"")]), Err(412));
    }
}
