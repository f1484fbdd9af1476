//! Authentication: by token, or by address if no token file is configured.
//!
//! A token is sent as `Authorization: Bearer vx_…`, or as the password of `Authorization: Basic` with any
//! user name, for which browsers have a dialog. Browsers also add Basic credentials to cross-site requests:
//! those are rejected, except when following a link.

mod token_file;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::http::{Extensions, HeaderMap, StatusCode, header};
use data_encoding::BASE64;

use self::token_file::TokenHash;
pub use self::token_file::{TokenEntry, TokenFileError, TokenScope, add_token, revoke_token, tokens};
use crate::rate::RateLimiter;

/// The interval between checks of the token file for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// The limit on requests with an invalid token, per address and hour.
const MAX_FAILURES_PER_HOUR: u64 = 60;

/// The `WWW-Authenticate` challenges; browsers support the second one.
pub(crate) const CHALLENGES: [&str; 2] = ["Bearer realm=\"vx\"", "Basic realm=\"vx\", charset=\"UTF-8\""];

/// Why access is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("authentication required: send `Authorization: Bearer vx_…`")]
    TokenMissing,
    #[error("unknown token; ask the operator of this service for a token")]
    TokenUnknown,
    #[error("the token has expired; ask the operator of this service for a new one")]
    TokenExpired,
    #[error("too many requests with an invalid token from this address")]
    TooManyFailures { wait: Duration },
    #[error("cross-site request with the browser's credentials; send `Authorization: Bearer` instead")]
    CrossSite,
    #[error("the token lacks the scope `{}`", .0.word())]
    ScopeMissing(TokenScope),
}

impl Denied {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::TokenMissing | Self::TokenUnknown | Self::TokenExpired => StatusCode::UNAUTHORIZED,
            Self::CrossSite | Self::ScopeMissing(_) => StatusCode::FORBIDDEN,
            Self::TooManyFailures { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// The problem type, which is also the reason in metrics and the audit log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenUnknown => "token_unknown",
            Self::TokenExpired => "token_expired",
            Self::TooManyFailures { .. } => "too_many_attempts",
            Self::CrossSite => "other_site",
            Self::ScopeMissing(_) => "scope_missing",
        }
    }

    /// `Retry-After`, in seconds.
    pub(crate) fn retry_after(self) -> Option<u64> {
        match self {
            Self::TooManyFailures { wait } => Some(wait.as_secs() + 1),
            _ => None,
        }
    }
}

/// The result of authentication, stored in the extensions of requests and responses.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(crate) Result<TokenEntry, Denied>);

impl Identity {
    /// Returns the caller of a request if it has this scope.
    pub(crate) fn caller(extensions: &Extensions, scope: TokenScope) -> Result<TokenEntry, Denied> {
        let Some(Self(caller)) = extensions.get() else { return Err(Denied::TokenMissing) };
        let caller = caller.clone()?;
        if caller.scopes.contains(&scope) { Ok(caller) } else { Err(Denied::ScopeMissing(scope)) }
    }
}

/// The tokens of the token file, reloaded when it changes.
///
/// Tokens are looked up by their SHA-256, so the time of a lookup reveals nothing about a token.
#[derive(Debug)]
pub(crate) struct TokenStore {
    file: Option<PathBuf>,
    loaded: Mutex<LoadedTokens>,
    failures: RateLimiter<IpAddr>,
}

#[derive(Debug)]
struct LoadedTokens {
    tokens: Arc<HashMap<TokenHash, TokenEntry>>,
    version: Option<FileVersion>,
    checked: Instant,
}

/// Modification time, size and inode.
type FileVersion = (Option<SystemTime>, u64, u64);

impl TokenStore {
    /// Reads the token file. Without one, each address is a separate caller with all scopes.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, TokenFileError> {
        let version = file.and_then(file_version);
        let tokens = file.map(token_file::read).transpose()?.unwrap_or_default().into_iter().collect();
        let loaded = LoadedTokens { tokens: Arc::new(tokens), version, checked: Instant::now() };
        Ok(Self {
            file: file.map(Path::to_owned),
            loaded: Mutex::new(loaded),
            failures: RateLimiter::default(),
        })
    }

    pub(crate) fn is_token_required(&self) -> bool {
        self.file.is_some()
    }

    /// Authenticates a request by its headers and source address.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, peer: IpAddr) -> Result<TokenEntry, Denied> {
        let peer = client_network(peer);
        let Some(file) = &self.file else {
            return Ok(TokenEntry {
                name: peer.to_string(),
                scopes: BTreeSet::from(TokenScope::ALL),
                builds_at_once: None,
                builds_per_hour: None,
                modules: None,
                expires: None,
            });
        };
        let credential = Credential::parse(headers).ok_or(Denied::TokenMissing)?;
        let count_failure = |denied| match self.failures.take(peer, MAX_FAILURES_PER_HOUR) {
            Ok(()) => denied,
            Err(wait) => Denied::TooManyFailures { wait },
        };
        let tokens = self.current(file, RELOAD_INTERVAL);
        let Some(token) = credential.token.and_then(|token| tokens.get(&token_file::hash(&token))) else {
            return Err(count_failure(Denied::TokenUnknown));
        };
        if token.expires.is_some_and(|end| end <= velox_api::now()) {
            return Err(count_failure(Denied::TokenExpired));
        }
        if credential.is_added_by_browser && is_cross_site(headers) {
            return Err(Denied::CrossSite);
        }
        Ok(token.clone())
    }

    /// The tokens of the file, or the last valid ones while the file is invalid.
    fn current(&self, file: &Path, interval: Duration) -> Arc<HashMap<TokenHash, TokenEntry>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.checked.elapsed() >= interval {
            loaded.checked = Instant::now();
            let version = file_version(file);
            if version != loaded.version {
                loaded.version = version;
                match token_file::read(file) {
                    Ok(tokens) => {
                        tracing::info!(tokens = tokens.len(), "reloaded the token file");
                        loaded.tokens = Arc::new(tokens.into_iter().collect());
                    }
                    Err(error) => tracing::error!("{error}; keeping the previous tokens"),
                }
            }
        }
        Arc::clone(&loaded.tokens)
    }
}

fn file_version(file: &Path) -> Option<FileVersion> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok(), metadata.len(), metadata.ino()))
}

struct Credential {
    /// `None`: malformed.
    token: Option<String>,
    /// Browsers add Basic credentials to requests automatically.
    is_added_by_browser: bool,
}

impl Credential {
    fn parse(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self { token: Some(rest.to_owned()), is_added_by_browser: false });
        }
        let is_basic = scheme.eq_ignore_ascii_case("basic");
        let password = || {
            let text = String::from_utf8(BASE64.decode(rest.as_bytes()).ok()?).ok()?;
            text.split_once(':').map(|(_, password)| password.to_owned())
        };
        let token = if is_basic { password() } else { None };
        Some(Self { token, is_added_by_browser: is_basic })
    }
}

/// Whether a page of another site caused the request, other than by a link
/// (<https://www.w3.org/TR/fetch-metadata/>). A submitted form has a body.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|actual| actual == value);
    let is_other_site = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    let is_link = is("sec-fetch-mode", "navigate") && !headers.contains_key(header::CONTENT_TYPE);
    is_other_site && !is_link
}

/// The network of a client: an IPv4 address, or the /64 that a provider assigns to an IPv6 client
/// (<https://www.rfc-editor.org/rfc/rfc6177>).
pub(crate) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use data_encoding::HEXLOWER;
    use secrecy::ExposeSecret as _;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn entry(name: &str) -> TokenEntry {
        TokenEntry {
            name: name.to_owned(),
            scopes: BTreeSet::from([TokenScope::Build, TokenScope::Read]),
            builds_at_once: Some(2),
            builds_per_hour: None,
            modules: Some(vec!["github.com/acme/*".to_owned()]),
            expires: None,
        }
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    fn basic(token: &str) -> HeaderMap {
        with(&format!("Basic {}", BASE64.encode(format!("me:{token}").as_bytes())))
    }

    /// Returns a token file with one token, and the token.
    fn file_with_token() -> (tempfile::TempDir, PathBuf, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens.toml");
        let token = add_token(&file, &entry("ci")).unwrap().expose_secret().to_owned();
        (directory, file, token)
    }

    #[test]
    fn only_the_hash_of_a_token_is_stored() {
        let (_directory, file, token) = file_with_token();
        assert_eq!(token.len(), 3 + 43);
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&token[3..]), "{text}");
        assert!(text.contains("scopes = [\"build\", \"read\"]"), "{text}");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let tokens = TokenStore::open(Some(&file)).unwrap();
        for headers in [with(&format!("Bearer {token}")), with(&format!("bearer  {token}")), basic(&token)] {
            let caller = tokens.authenticate(&headers, PEER).unwrap();
            assert_eq!(caller.name, "ci");
            assert_eq!(caller.builds_at_once, Some(2));
            assert!(!caller.scopes.contains(&TokenScope::Metrics));
        }
    }

    #[test]
    fn invalid_tokens_are_denied() {
        let (_directory, file, token) = file_with_token();
        let tokens = TokenStore::open(Some(&file)).unwrap();
        assert_eq!(tokens.authenticate(&HeaderMap::new(), PEER), Err(Denied::TokenMissing));
        let hash = HEXLOWER.encode(&token_file::hash(&token));
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer vx_",
            "Basic !",
            "Digest a",
            "Basic bWU=",
            &format!("Bearer {hash}"),
        ] {
            assert_eq!(tokens.authenticate(&with(wrong), PEER), Err(Denied::TokenUnknown), "{wrong}");
        }
        assert_eq!(tokens.authenticate(&with(&format!("Bearer {token}x")), PEER), Err(Denied::TokenUnknown));
    }

    #[test]
    fn failures_are_rate_limited_by_address() {
        let (_directory, file, token) = file_with_token();
        let tokens = TokenStore::open(Some(&file)).unwrap();
        for _ in 0..MAX_FAILURES_PER_HOUR {
            assert_eq!(tokens.authenticate(&with("Bearer x"), PEER), Err(Denied::TokenUnknown));
        }
        let denied = tokens.authenticate(&with("Bearer x"), PEER).unwrap_err();
        assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(denied.retry_after().is_some_and(|seconds| seconds <= 61), "{denied:?}");
        assert!(tokens.authenticate(&with(&format!("Bearer {token}")), PEER).is_ok());
        assert_eq!(
            tokens.authenticate(&with("Bearer x"), "10.0.0.1".parse().unwrap()),
            Err(Denied::TokenUnknown)
        );
    }

    #[test]
    fn cross_site_requests_cannot_use_browser_credentials() {
        let (_directory, file, token) = file_with_token();
        let tokens = TokenStore::open(Some(&file)).unwrap();
        let authenticate = |mut headers: HeaderMap, more: &[(&'static str, &str)]| {
            for (name, value) in more {
                headers.insert(*name, value.parse().unwrap());
            }
            tokens.authenticate(&headers, PEER).map(|caller| caller.name)
        };
        let cross_site = ("sec-fetch-site", "cross-site");
        assert_eq!(authenticate(basic(&token), &[cross_site]), Err(Denied::CrossSite));
        let form = [cross_site, ("sec-fetch-mode", "navigate"), ("content-type", "text/plain")];
        assert_eq!(authenticate(basic(&token), &form), Err(Denied::CrossSite));
        assert!(authenticate(basic(&token), &[cross_site, ("sec-fetch-mode", "navigate")]).is_ok());
        assert!(authenticate(basic(&token), &[("sec-fetch-site", "same-origin")]).is_ok());
        assert!(authenticate(with(&format!("Bearer {token}")), &[cross_site]).is_ok());
    }

    #[test]
    fn without_a_file_the_address_is_the_tenant() {
        let tokens = TokenStore::open(None).unwrap();
        let tenant = |address: &str| {
            let caller = tokens.authenticate(&HeaderMap::new(), address.parse().unwrap()).unwrap();
            assert_eq!(caller.scopes, BTreeSet::from(TokenScope::ALL));
            caller.name
        };
        assert_eq!(tenant("192.0.2.7"), "192.0.2.7");
        assert_eq!(tenant("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(tenant("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn changes_are_reloaded_unless_invalid() {
        let (_directory, file, token) = file_with_token();
        let tokens = TokenStore::open(Some(&file)).unwrap();
        let other = add_token(&file, &entry("other")).unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 2);
        assert!(tokens.authenticate(&with(&format!("Bearer {}", other.expose_secret())), PEER).is_ok());
        let valid = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{valid}\n[tokens.x")).unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 2);
        fs::write(&file, valid).unwrap();
        revoke_token(&file, "ci").unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 1);
        assert_eq!(tokens.authenticate(&with(&format!("Bearer {token}")), PEER), Err(Denied::TokenUnknown));
        fs::remove_file(&file).unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 1);
    }

    #[test]
    fn tokens_expire() {
        let (_directory, file, token) = file_with_token();
        let line = |expires: &str| {
            let text = fs::read_to_string(&file).unwrap();
            let text: String = text
                .lines()
                .filter(|line| !line.starts_with("expires"))
                .map(|line| format!("{line}\n"))
                .collect();
            fs::write(&file, text.trim_end().to_owned() + "\nexpires = " + expires + "\n").unwrap();
        };
        let authenticate =
            || TokenStore::open(Some(&file)).unwrap().authenticate(&with(&format!("Bearer {token}")), PEER);
        line("2001-01-01");
        assert_eq!(authenticate(), Err(Denied::TokenExpired));
        line("2001-01-01T00:00:00+02:00");
        assert_eq!(authenticate(), Err(Denied::TokenExpired));
        line("2999-01-01T00:00:00Z");
        assert!(authenticate().is_ok());
        line("2001-01-01T00:00:00");
        assert!(TokenStore::open(Some(&file)).is_err());
    }

    #[test]
    fn invalid_files_are_rejected() {
        let (_directory, file, _) = file_with_token();
        let valid = fs::read_to_string(&file).unwrap();
        let wrong = [
            ("sha256 = \"", "sha256 = \"zz"),
            ("[tokens.ci]", "[tokens.\"a b\"]"),
            ("\"read\"", "\"root\""),
            ("builds_at_once = 2", "builds_at_once = 0"),
            ("builds_at_once = 2", "builds_at_ones = 2"),
            ("builds_at_once = 2", "expires = 10:00:00"),
        ];
        for (old, new) in wrong {
            assert!(valid.contains(old), "{valid}");
            fs::write(&file, valid.replacen(old, new, 1)).unwrap();
            let message = TokenStore::open(Some(&file)).unwrap_err().to_string();
            assert!(message.starts_with("invalid token file"), "{message}");
            assert!(add_token(&file, &entry("b")).is_err(), "an invalid file is not changed");
        }
        fs::write(&file, &valid).unwrap();
        assert!(matches!(add_token(&file, &entry("ci")), Err(TokenFileError::AlreadyExists(_))));
        assert!(matches!(add_token(&file, &entry("c i")), Err(TokenFileError::InvalidName(_))));
        assert!(matches!(revoke_token(&file, "no"), Err(TokenFileError::NotFound(_))));
        assert!(TokenStore::open(Some(&file.with_extension("none"))).is_err());
    }
}
