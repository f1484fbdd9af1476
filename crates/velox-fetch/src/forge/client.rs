use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Method, Response, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWriteExt;
use url::Url;

use super::ForgeError;
use crate::http::{HttpClientError, HttpOptions, root_cause};

/// Attempts per request with transient failures.
const MAX_TRIES: u32 = 3;
const MAX_REDIRECTS: u32 = 5;
const MAX_RESPONSE_BYTES: usize = 32 << 20;

/// A callback for rate limit waits, with the host and the seconds.
pub type OnRateLimitWait = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// An HTTP client for forge APIs; clones share their connections.
#[derive(Clone)]
pub struct ForgeClient {
    client: Client,
    max_wait: Duration,
    on_wait: Option<OnRateLimitWait>,
}

/// A token and its request header.
#[derive(Clone, Default)]
pub(crate) struct ForgeCredentials {
    /// The header name and the prefix of its value.
    pub(crate) header: Option<(&'static str, &'static str)>,
    pub(crate) token: Option<SecretString>,
}

impl ForgeCredentials {
    /// <https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api>
    pub(crate) fn github(token: Option<SecretString>) -> Self {
        Self { header: Some(("authorization", "Bearer ")), token }
    }

    /// <https://docs.gitlab.com/api/rest/authentication/>
    pub(crate) fn gitlab(token: Option<SecretString>) -> Self {
        Self { header: Some(("private-token", "")), token }
    }
}

impl ForgeClient {
    /// Creates a client.
    pub fn new(options: HttpOptions) -> Result<Self, HttpClientError> {
        // Redirects are followed manually, so that tokens aren't sent to other hosts.
        let client = options.client(Policy::none())?;
        Ok(Self { client, max_wait: options.max_wait, on_wait: None })
    }

    /// Calls `on_wait(host, seconds)` before each wait for a rate limit.
    pub fn on_wait(mut self, on_wait: OnRateLimitWait) -> Self {
        self.on_wait = Some(on_wait);
        self
    }

    /// Returns the body and the headers of a successful response.
    pub(crate) async fn get(
        &self,
        url: &Url,
        credentials: &ForgeCredentials,
        accept: &str,
        what: &str,
    ) -> Result<(Vec<u8>, HeaderMap), ForgeError> {
        self.with_retries(url, credentials, accept, what, async |response| {
            let headers = response.headers().clone();
            let mut response = response;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| network(url, &error))? {
                if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
                    return Err(ForgeError::InvalidResponse {
                        host: host(url),
                        why: "response exceeds 32 MiB".to_owned(),
                    });
                }
                body.extend_from_slice(&chunk);
            }
            Ok((body, headers))
        })
        .await
    }

    /// Writes the body of a successful response to a file.
    pub(crate) async fn download(
        &self,
        url: &Url,
        credentials: &ForgeCredentials,
        what: &str,
        limit: u64,
        into: &Path,
    ) -> Result<(), ForgeError> {
        let failed = |error| ForgeError::Io { what: format!("failed to write `{}`", into.display()), error };
        self.with_retries(url, credentials, "*/*", what, async |response| {
            let mut response = response;
            let mut file = tokio::fs::File::create(into).await.map_err(failed)?;
            let mut size = 0;
            while let Some(chunk) = response.chunk().await.map_err(|error| network(url, &error))? {
                size += chunk.len() as u64;
                if size > limit {
                    return Err(ForgeError::InvalidArchive {
                        host: host(url),
                        why: "archive is too large".to_owned(),
                    });
                }
                file.write_all(&chunk).await.map_err(failed)?;
            }
            file.flush().await.map_err(failed)
        })
        .await
    }

    /// Retries after network errors, incomplete bodies and server errors.
    async fn with_retries<T>(
        &self,
        url: &Url,
        credentials: &ForgeCredentials,
        accept: &str,
        what: &str,
        read: impl AsyncFn(Response) -> Result<T, ForgeError>,
    ) -> Result<T, ForgeError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = match self.send(url, credentials, accept, what).await {
                Ok(response) => read(response).await,
                Err(error) => Err(error),
            };
            match answer {
                Err(ForgeError::Network { .. } | ForgeError::Status { status: 500.., .. })
                    if tries < MAX_TRIES =>
                {
                    tokio::time::sleep(Duration::from_millis(200) * 3u32.pow(tries - 1)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Sends a request; follows redirects and waits for short rate limits.
    async fn send(
        &self,
        url: &Url,
        credentials: &ForgeCredentials,
        accept: &str,
        what: &str,
    ) -> Result<Response, ForgeError> {
        let mut at = url.clone();
        let mut waited = false;
        let mut redirects = 0;
        loop {
            let mut request = self.client.request(Method::GET, at.clone()).header("Accept", accept);
            let same_host = at.origin() == url.origin();
            if let (true, Some((name, before)), Some(token)) =
                (same_host, credentials.header, &credentials.token)
            {
                let mut value = HeaderValue::from_str(&format!("{before}{}", token.expose_secret()))
                    .map_err(|_| ForgeError::Unauthorized { host: host(url), had_token: true })?;
                value.set_sensitive(true);
                request = request.header(HeaderName::from_static(name), value);
            }
            if url.host_str().is_some_and(|host| host.contains("github")) || url.path().contains("/api/v3/") {
                request = request.header("X-GitHub-Api-Version", "2022-11-28");
            }
            let response = request.send().await.map_err(|error| network(&at, &error))?;
            let status = response.status();
            if status.is_redirection() {
                redirects += 1;
                let next =
                    response.headers().get(LOCATION).and_then(|next| at.join(next.to_str().ok()?).ok());
                match next {
                    Some(next) if redirects <= MAX_REDIRECTS => {
                        if at.scheme() == "https" && next.scheme() != "https" {
                            return Err(bad(url, "redirect from HTTPS to another scheme"));
                        }
                        at = next;
                        continue;
                    }
                    _ => return Err(bad(url, "redirect loop or invalid redirect")),
                }
            }
            if let Some(wait) = rate_limit(status, response.headers()) {
                let had_token = credentials.token.is_some();
                let reset =
                    wait.map(|wait| now().saturating_add(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX)));
                match wait {
                    Some(wait) if !waited && wait <= self.max_wait => {
                        waited = true;
                        if let Some(on_wait) = &self.on_wait {
                            on_wait(&host(url), wait.as_secs());
                        }
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                    _ => return Err(ForgeError::RateLimited { host: host(url), reset, had_token }),
                }
            }
            let had_token = credentials.token.is_some();
            return match status {
                status if status.is_success() => Ok(response),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    Err(ForgeError::Unauthorized { host: host(url), had_token })
                }
                // 422 is the status for an invalid ref.
                StatusCode::NOT_FOUND
                | StatusCode::GONE
                | StatusCode::CONFLICT
                | StatusCode::UNPROCESSABLE_ENTITY => {
                    Err(ForgeError::NotFound { what: what.to_owned(), host: host(url) })
                }
                status => Err(ForgeError::Status {
                    host: host(url),
                    status: status.as_u16(),
                    what: what.to_owned(),
                }),
            };
        }
    }
}

/// The wait after a rate-limited response: `None` if it isn't limited, `Some(None)` if no time is given.
///
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>,
/// <https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers>
fn rate_limit(status: StatusCode, headers: &HeaderMap) -> Option<Option<Duration>> {
    let number =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<i64>().ok());
    let used_up = number("x-ratelimit-remaining") == Some(0) || number("ratelimit-remaining") == Some(0);
    let limited = status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::FORBIDDEN && (used_up || headers.contains_key(RETRY_AFTER)));
    if !limited {
        return None;
    }
    let until = |reset: i64| reset.saturating_sub(now()).max(0) + 1;
    let seconds = number("retry-after")
        .or_else(|| number("x-ratelimit-reset").map(until))
        .or_else(|| number("ratelimit-reset").map(until));
    Some(seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The URL of the next page, on the same host (RFC 8288).
pub(crate) fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let target = link.split_once('<')?.1.split_once('>')?.0;
    url.join(target).ok().filter(|next| next.origin() == url.origin())
}

/// A percent-encoded path segment.
pub(crate) fn encoded(segment: &str) -> String {
    segment
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// A URL with appended path segments, each encoded.
pub(crate) fn extended(url: &Url, segments: &[&str]) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

pub(crate) fn parsed<T: serde::de::DeserializeOwned>(url: &Url, body: &[u8]) -> Result<T, ForgeError> {
    serde_json::from_slice(body).map_err(|error| bad(url, &format!("{error} (is that the API?)")))
}

/// Checks that a commit id is 40 hexadecimal digits: ids become file names and arguments.
pub(crate) fn checked_id(url: &Url, id: &str) -> Result<(), ForgeError> {
    if id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(())
    } else {
        Err(bad(url, "a commit without a proper id"))
    }
}

pub(crate) fn host(url: &Url) -> String {
    url.host_str().unwrap_or("forge").to_owned()
}

pub(crate) fn bad(url: &Url, why: &str) -> ForgeError {
    ForgeError::InvalidResponse { host: host(url), why: why.to_owned() }
}

fn network(url: &Url, error: &reqwest::Error) -> ForgeError {
    ForgeError::Network { host: host(url), why: root_cause(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn rate_limits_are_detected() {
        assert_eq!(rate_limit(StatusCode::FORBIDDEN, &headers(&[])), None);
        assert_eq!(rate_limit(StatusCode::TOO_MANY_REQUESTS, &headers(&[])), Some(None));
        let after = headers(&[("retry-after", "7")]);
        assert_eq!(rate_limit(StatusCode::FORBIDDEN, &after), Some(Some(Duration::from_secs(7))));
        let reset = (now() + 100).to_string();
        let used_up = headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)]);
        let wait = rate_limit(StatusCode::FORBIDDEN, &used_up).flatten().unwrap();
        assert!((98..=101).contains(&wait.as_secs()));
    }

    #[test]
    fn the_next_page_is_on_the_same_host() {
        let url = Url::parse("https://api.test/a?page=1").unwrap();
        let link = |target: &str| {
            headers(&[("link", &format!("<https://api.test/a>; rel=\"first\", <{target}>; rel=\"next\""))])
        };
        assert_eq!(next_page(&url, &link("https://api.test/a?page=2")).unwrap().query(), Some("page=2"));
        assert_eq!(next_page(&url, &link("https://evil.test/a?page=2")), None);
    }
}
