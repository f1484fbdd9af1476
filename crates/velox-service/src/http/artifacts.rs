//! `/v1/artifacts/{sha256}`: the binaries, whole or in part.

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use headers::{ETag, HeaderMapExt, IfMatch, IfNoneMatch, IfRange};
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use velox_api::{ArtifactInfo, Problem};

use crate::http::{Site, body::Name, problem::Wrong, who::Reader};

/// Downloads a binary. Ranges and ETags are honoured: a download that broke off can go on.
#[utoipa::path(
    get, path = "/v1/artifacts/{sha256}", tag = "artifacts", operation_id = "getArtifact",
    params(("sha256" = String, Path, description = "The SHA-256 of the binary, in hexadecimal"),
        ("range" = Option<String>, Header, description = "One range of bytes"),
        ("if-range" = Option<String>, Header, description = "The ETag that the range belongs to"),
        ("if-none-match" = Option<String>, Header, description = "The ETag of an earlier answer")),
    responses(
        (status = 200, description = "The binary", body = Vec<u8>, content_type = "application/octet-stream",
            headers(("etag" = String, description = "Its SHA-256"),
                ("content-disposition" = String, description = "With its name, `rr` or `rr.exe`"),
                ("repr-digest" = String, description = "Its SHA-256, as RFC 9530 writes it"))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "It is there already"),
        (status = 401, description = "A token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such artifact", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It isn't what If-Match says", body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "It has no such range", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(site): State<Arc<Site>>,
    _: Reader,
    Name(sha256): Name,
    method: Method,
    mut headers: HeaderMap,
) -> Result<Response, Wrong> {
    let nothing = || Wrong::nothing(format!("there is no artifact {sha256}"));
    // It becomes the name of a file.
    if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(nothing());
    }
    let info = site.service.artifact(&sha256).await?.ok_or_else(nothing)?;
    if method == Method::HEAD {
        // Parts are for GET alone (https://www.rfc-editor.org/rfc/rfc9110#section-14.2).
        headers.remove(header::RANGE);
    }
    let part = part(&headers, &info)?;
    let (status, range) = match part {
        Part::Known => return Ok((StatusCode::NOT_MODIFIED, described(&info)).into_response()),
        Part::Whole => (StatusCode::OK, 0..info.size),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, range),
    };
    let mut about = described(&info);
    about.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    about.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let place = format!("bytes {}-{}/{}", range.start, range.end - 1, info.size);
        about.extend(HeaderValue::from_str(&place).ok().map(|place| (header::CONTENT_RANGE, place)));
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(site.service.read_artifact(&sha256, range)?)
    };
    Ok((status, about, body).into_response())
}

/// What every answer says of it.
fn described(info: &ArtifactInfo) -> HeaderMap {
    let digest: Vec<u8> = info
        .sha256
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    // The name is the build's: one that couldn't stand in quotes isn't told.
    let is_plain = info.file_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let name = if is_plain { info.file_name.as_str() } else { "rr" };
    let headers = [
        (header::ETAG, format!("\"{}\"", info.sha256)),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        // https://www.rfc-editor.org/rfc/rfc9530#section-3
        (
            header::HeaderName::from_static("repr-digest"),
            format!("sha-256=:{}:", BASE64_STANDARD.encode(digest)),
        ),
    ];
    headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::from_str(&value).ok()?)))
        .collect()
}

#[derive(Debug, PartialEq)]
enum Part {
    Known,
    Whole,
    Range(Range<u64>),
}

/// What of the artifact is asked for (<https://www.rfc-editor.org/rfc/rfc9110#section-13.2.2>). Of several ranges all is
/// sent, as a service may.
fn part(headers: &HeaderMap, info: &ArtifactInfo) -> Result<Part, Wrong> {
    let tag: Option<ETag> = format!("\"{}\"", info.sha256).parse().ok();
    let Some(tag) = tag else { return Ok(Part::Whole) };
    if headers.typed_get::<IfMatch>().is_some_and(|wanted| !wanted.precondition_passes(&tag)) {
        return Err(Wrong::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "The artifact isn't what If-Match says",
            "an artifact never changes: its ETag is its SHA-256",
        ));
    }
    if headers.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&tag)) {
        return Ok(Part::Known);
    }
    let is_of_other = match headers.get(header::IF_RANGE) {
        Some(_) => headers.typed_get::<IfRange>().is_none_or(|of| of.is_modified(Some(&tag), None)),
        None => false,
    };
    let Some(range) = headers.get(header::RANGE).filter(|_| !is_of_other) else { return Ok(Part::Whole) };
    let Some(ranges) = range.to_str().ok().and_then(|range| parse_range_header(range).ok()) else {
        return Ok(Part::Whole);
    };
    match ranges.validate(info.size).as_deref() {
        Ok([range]) => Ok(Part::Range(*range.start()..*range.end() + 1)),
        Err(RangeUnsatisfiableError::Unsatisfiable) => {
            let size = HeaderValue::from_str(&format!("bytes */{}", info.size));
            let wrong = Wrong::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                "The artifact has no such range",
                format!("it has {} bytes", info.size),
            );
            Err(size.into_iter().fold(wrong, |wrong, size| wrong.header(header::CONTENT_RANGE, size)))
        }
        Ok(_) | Err(_) => Ok(Part::Whole),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn info() -> ArtifactInfo {
        ArtifactInfo {
            sha256: "ab".repeat(32),
            size: 1000,
            file_name: "rr".to_owned(),
            target: "linux/amd64".to_owned(),
        }
    }

    fn asked(pairs: &[(HeaderName, &str)]) -> Result<Part, u16> {
        let header = |(name, value): &(HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).expect("a header"))
        };
        let headers: HeaderMap = pairs.iter().map(header).collect();
        part(&headers, &info()).map_err(|wrong| wrong.into_response().status().as_u16())
    }

    #[test]
    fn ranges() {
        let range = |range: &str| asked(&[(header::RANGE, range)]);
        assert_eq!(range("bytes=0-0"), Ok(Part::Range(0..1)));
        assert_eq!(range("bytes=10-19"), Ok(Part::Range(10..20)));
        assert_eq!(range("bytes=990-"), Ok(Part::Range(990..1000)));
        assert_eq!(range("bytes=990-4000"), Ok(Part::Range(990..1000)));
        assert_eq!(range("bytes=-10"), Ok(Part::Range(990..1000)));
        assert_eq!(range("bytes=-5000"), Ok(Part::Range(0..1000)));
        assert_eq!(range("bytes=1000-"), Err(416));
        assert_eq!(range("bytes=-0"), Err(416));
        for ignored in ["bytes=0-1,5-6", "bytes=5-1", "bytes=a-b", "lines=0-1", "bytes=", "bytes", "bytes=-"]
        {
            assert_eq!(range(ignored), Ok(Part::Whole), "{ignored}");
        }
    }

    #[test]
    fn conditions() {
        let tag = format!("\"{}\"", info().sha256);
        let (tag, weak) = (tag.as_str(), format!("W/{tag}"));
        let range = (header::RANGE, "bytes=1-2");
        assert_eq!(asked(&[(header::IF_NONE_MATCH, tag)]), Ok(Part::Known));
        assert_eq!(asked(&[(header::IF_NONE_MATCH, &weak)]), Ok(Part::Known));
        assert_eq!(asked(&[(header::IF_NONE_MATCH, "*")]), Ok(Part::Known));
        assert_eq!(asked(&[(header::IF_NONE_MATCH, "\"other\"")]), Ok(Part::Whole));
        assert_eq!(asked(&[range.clone(), (header::IF_RANGE, tag)]), Ok(Part::Range(1..3)));
        assert_eq!(asked(&[range.clone(), (header::IF_RANGE, &weak)]), Ok(Part::Whole));
        assert_eq!(asked(&[range.clone(), (header::IF_RANGE, "\"other\"")]), Ok(Part::Whole));
        assert_eq!(asked(&[range, (header::IF_RANGE, "nonsense")]), Ok(Part::Whole));
        assert_eq!(asked(&[(header::IF_MATCH, tag)]), Ok(Part::Whole));
        assert_eq!(asked(&[(header::IF_MATCH, "\"other\"")]), Err(412));
    }
}
