//! Information about a token: its validity, scopes, expiry and rate limit.

use reqwest::header::HeaderMap;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{
    ForgeClient, ForgeError,
    client::{ForgeCredentials, extended, host, parsed},
    github, gitlab,
};

/// Information about a token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenInfo {
    /// The forge's host.
    pub host: String,
    /// The scopes, if known.
    pub scopes: Option<Vec<String>>,
    /// The expiry date, as formatted by the forge.
    pub expires: Option<String>,
    /// The rate limit, if known.
    pub quota: Option<RateLimit>,
}

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of remaining requests.
    pub remaining: u64,
    /// The number of requests per window.
    pub limit: u64,
    /// The time of the reset in Unix seconds.
    pub reset: i64,
}

/// Queries GitHub or the Enterprise Server at `endpoint`; doesn't count against the rate limit
/// (<https://docs.github.com/en/rest/rate-limit/rate-limit>).
pub async fn github_token_info(
    http: &ForgeClient,
    endpoint: Option<&Url>,
    token: Option<SecretString>,
) -> Result<TokenInfo, ForgeError> {
    #[derive(Deserialize)]
    struct RateLimitResponse {
        resources: Resources,
    }
    #[derive(Deserialize)]
    struct Resources {
        core: Core,
    }
    #[derive(Deserialize)]
    struct Core {
        remaining: u64,
        limit: u64,
        reset: i64,
    }
    let url = extended(&github::api(endpoint), &["rate_limit"]);
    let mut info = TokenInfo { host: host(&url), ..TokenInfo::default() };
    match http.get(&url, &ForgeCredentials::github(token), github::JSON, "rate limit").await {
        Ok((body, headers)) => {
            let Core { remaining, limit, reset } = parsed::<RateLimitResponse>(&url, &body)?.resources.core;
            info.quota = Some(RateLimit { remaining, limit, reset });
            // Classic tokens only: https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
            info.scopes = text(&headers, "x-oauth-scopes").map(|scopes| {
                scopes.split(',').map(|scope| scope.trim().to_owned()).filter(|s| !s.is_empty()).collect()
            });
            info.expires = text(&headers, "github-authentication-token-expiration").map(str::to_owned);
            Ok(info)
        }
        // An Enterprise Server without rate limits accepted the token.
        Err(ForgeError::NotFound { .. }) if endpoint.is_some() => Ok(info),
        Err(error) => Err(error),
    }
}

/// Queries gitlab.com or the instance at `endpoint`
/// (<https://docs.gitlab.com/api/personal_access_tokens/#get-details-on-a-personal-access-token>).
pub async fn gitlab_token_info(
    http: &ForgeClient,
    endpoint: Option<&Url>,
    token: Option<SecretString>,
) -> Result<TokenInfo, ForgeError> {
    #[derive(Deserialize)]
    struct PersonalAccessToken {
        scopes: Vec<String>,
        expires_at: Option<String>,
    }
    let root = gitlab::api(endpoint);
    let credentials = ForgeCredentials::gitlab(token);
    let mut info = TokenInfo { host: host(&root), ..TokenInfo::default() };
    if credentials.token.is_none() {
        let url = extended(&root, &["version"]);
        // Without a token GitLab answers 401, which proves that it is reachable.
        return match http.get(&url, &credentials, "application/json", "version").await {
            Ok(_) | Err(ForgeError::Unauthorized { .. }) => Ok(info),
            Err(error) => Err(error),
        };
    }
    let url = extended(&root, &["personal_access_tokens", "self"]);
    match http.get(&url, &credentials, "application/json", "token").await {
        Ok((body, headers)) => {
            let own: PersonalAccessToken = parsed(&url, &body)?;
            (info.scopes, info.expires, info.quota) = (Some(own.scopes), own.expires_at, quota(&headers));
            Ok(info)
        }
        // Other token types (job, application) have no such endpoint.
        Err(ForgeError::NotFound { .. }) => {
            let url = extended(&root, &["user"]);
            let (_, headers) = http.get(&url, &credentials, "application/json", "user").await?;
            info.quota = quota(&headers);
            Ok(info)
        }
        Err(error) => Err(error),
    }
}

/// <https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers>
fn quota(headers: &HeaderMap) -> Option<RateLimit> {
    Some(RateLimit {
        remaining: text(headers, "ratelimit-remaining")?.parse().ok()?,
        limit: text(headers, "ratelimit-limit")?.parse().ok()?,
        reset: text(headers, "ratelimit-reset")?.parse().ok()?,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
