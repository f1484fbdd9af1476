//! Who asks: by their token, or by their address where nobody needs one.
//!
//! A token comes as `Authorization: Bearer vx_…`, or, since that is what browsers can ask a person for, as the password of
//! `Authorization: Basic` under any name. Browsers add the latter to what other sites make them send, too: such requests
//! are refused, save for following a link.

mod file;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::http::{Extensions, HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;

pub use file::{TokenEntry, TokenFileError, add_token, revoke_token, tokens};

use crate::{
    auth::file::Hash,
    build::Tenant,
    caller::{Caller, TokenScope},
    rate::RateLimits,
};

/// How long a change of the file may go unnoticed.
const GLANCE: Duration = Duration::from_secs(1);

/// Wrong tokens from one address in an hour; a right one counts all the same.
const FAILURES_AN_HOUR: u64 = 60;

/// What is asked for where a token is missing: browsers know the second one.
pub const CHALLENGES: [&str; 2] = ["Bearer realm=\"vx\"", "Basic realm=\"vx\", charset=\"UTF-8\""];

/// Why a caller isn't let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token. (401, UNAUTHENTICATED)
    #[error("a token is needed: Authorization: Bearer vx_…")]
    Missing,
    /// The token is unknown, or was revoked. (401, UNAUTHENTICATED)
    #[error("the token isn't known here: ask whoever runs this service for one")]
    Unknown,
    /// The token's time is over. (401, UNAUTHENTICATED)
    #[error("the token has expired: ask whoever runs this service for a new one")]
    Expired,
    /// Too many wrong tokens came from this address. (429, RESOURCE_EXHAUSTED)
    #[error("too many wrong tokens came from this address")]
    TooMany {
        /// How long to wait.
        wait: Duration,
    },
    /// Another site made the browser ask. (403, PERMISSION_DENIED)
    #[error(
        "another site's page asks with this browser's sign-in: use a token of its own (Authorization: Bearer)"
    )]
    OtherSite,
    /// The token doesn't allow it. (403, PERMISSION_DENIED)
    #[error("the token doesn't have the scope `{}`", .0.word())]
    Scope(TokenScope),
}

impl Denied {
    /// The HTTP status that says it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Missing | Self::Unknown | Self::Expired => 401,
            Self::OtherSite | Self::Scope(_) => 403,
            Self::TooMany { .. } => 429,
        }
    }

    /// A word for it, for metrics and the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Unknown => "token_unknown",
            Self::Expired => "token_expired",
            Self::TooMany { .. } => "too_many_attempts",
            Self::OtherSite => "other_site",
            Self::Scope(_) => "scope_missing",
        }
    }

    /// In how many seconds another try may succeed.
    #[must_use]
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::TooMany { wait } => Some(wait.as_secs() + 1),
            _ => None,
        }
    }
}

/// Who asks, or why nobody knows: in the extensions of requests and answers.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(crate) Result<Caller, Denied>);

impl Identity {
    /// The caller of a request with these extensions, who may do this.
    ///
    /// # Errors
    /// Nobody knows who it is, or they may not.
    pub(crate) fn caller(extensions: &Extensions, scope: TokenScope) -> Result<Caller, Denied> {
        let Some(Self(caller)) = extensions.get() else { return Err(Denied::Missing) };
        let caller = caller.clone()?;
        caller.may(scope)?;
        Ok(caller)
    }
}

impl Caller {
    /// Whether they may.
    ///
    /// # Errors
    /// [`Denied::Scope`].
    pub fn may(&self, scope: TokenScope) -> Result<(), Denied> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(Denied::Scope(scope)) }
    }
}

/// The tokens that count, as the file has them by now.
///
/// What is looked up is a token's SHA-256, so the time that it takes tells nothing of a token.
#[derive(Debug)]
pub struct Tokens {
    file: Option<PathBuf>,
    known: Mutex<Known>,
    failures: RateLimits<IpAddr>,
}

#[derive(Debug)]
struct Known {
    tokens: Arc<HashMap<Hash, TokenEntry>>,
    version: Option<Version>,
    looked: Instant,
}

/// What tells a file from a changed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    size: u64,
    inode: u64,
}

impl Tokens {
    /// The tokens of this file; without one everybody may do everything, each address on its own account.
    ///
    /// # Errors
    /// The file can't be read, or isn't right.
    pub fn open(file: Option<&Path>) -> Result<Self, TokenFileError> {
        let version = file.and_then(Version::of);
        let tokens = file.map(file::read).transpose()?.unwrap_or_default().into_iter().collect();
        let known = Known { tokens: Arc::new(tokens), version, looked: Instant::now() };
        Ok(Self { file: file.map(Path::to_owned), known: Mutex::new(known), failures: RateLimits::default() })
    }

    /// Whether a token is needed.
    #[must_use]
    pub fn are_needed(&self) -> bool {
        self.file.is_some()
    }

    /// Who asks with these headers, from this address.
    ///
    /// # Errors
    /// A token is needed, and it is missing or doesn't count.
    pub fn caller(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Denied> {
        let peer = network(peer);
        let Some(file) = &self.file else {
            return Ok(Caller {
                tenant: Tenant(peer.to_string()),
                scopes: BTreeSet::from(TokenScope::ALL),
                builds_at_once: None,
                builds_per_hour: None,
                modules: None,
            });
        };
        let credential = Credential::of(headers).ok_or(Denied::Missing)?;
        let refused = |denied| match self.failures.take(peer, FAILURES_AN_HOUR) {
            Ok(()) => denied,
            Err(wait) => Denied::TooMany { wait },
        };
        let tokens = self.current(file, GLANCE);
        let Some(token) = credential.token.and_then(|token| tokens.get(&file::hash(&token))) else {
            return Err(refused(Denied::Unknown));
        };
        if token.expires.is_some_and(|end| end <= Timestamp::now()) {
            return Err(refused(Denied::Expired));
        }
        if credential.by_browser && is_of_another_site(headers) {
            return Err(Denied::OtherSite);
        }
        Ok(Caller {
            tenant: Tenant(token.name.clone()),
            scopes: token.scopes.clone(),
            builds_at_once: token.builds_at_once,
            builds_per_hour: token.builds_per_hour,
            modules: token.modules.clone(),
        })
    }

    /// The tokens as the file has them; the last good ones while it is broken.
    fn current(&self, file: &Path, glance: Duration) -> Arc<HashMap<Hash, TokenEntry>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= glance {
            known.looked = Instant::now();
            let version = Version::of(file);
            if version != known.version {
                known.version = version;
                match file::read(file) {
                    Ok(tokens) => {
                        tracing::info!(tokens = tokens.len(), "the tokens were read again");
                        known.tokens = Arc::new(tokens.into_iter().collect());
                    }
                    Err(error) => tracing::error!("{error}; those read before stay"),
                }
            }
        }
        Arc::clone(&known.tokens)
    }
}

impl Version {
    fn of(file: &Path) -> Option<Self> {
        let data = fs::metadata(file).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&data);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Self { modified: data.modified().ok(), size: data.len(), inode })
    }
}

/// What a request says who it is from; `token`: `None` where it can't be one.
struct Credential {
    token: Option<String>,
    /// Whether a browser adds it by itself.
    by_browser: bool,
}

impl Credential {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().unwrap_or_default();
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self { token: Some(rest.to_owned()), by_browser: false });
        }
        let password = |text: Vec<u8>| {
            let text = String::from_utf8(text).ok()?;
            text.split_once(':').map(|(_, password)| password.to_owned())
        };
        let basic = scheme.eq_ignore_ascii_case("basic");
        let token = basic.then(|| BASE64_STANDARD.decode(rest).ok().and_then(password)).flatten();
        Some(Self { token, by_browser: basic })
    }
}

/// Whether a browser was made to ask by a page from elsewhere (<https://www.w3.org/TR/fetch-metadata/>). A link from
/// elsewhere may be followed; a form that is sent has a body.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|known| known == value);
    let elsewhere = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    let followed = is("sec-fetch-mode", "navigate") && !headers.contains_key(header::CONTENT_TYPE);
    elsewhere && !followed
}

/// The network that stands for one client: an IPv4 address, or what a provider gives out of IPv6
/// (<https://www.rfc-editor.org/rfc/rfc6177>).
pub(crate) fn network(address: IpAddr) -> IpAddr {
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
        with(&format!("Basic {}", BASE64_STANDARD.encode(format!("me:{token}"))))
    }

    /// A file with a token in it, and that token.
    fn one() -> (tempfile::TempDir, PathBuf, String) {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("tokens.toml");
        let token = add_token(&file, &entry("ci")).unwrap().expose_secret().to_owned();
        (place, file, token)
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (_place, file, token) = one();
        assert_eq!(token.len(), 3 + 43);
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&token[3..]), "{text}");
        assert!(text.contains("scopes = [\"build\", \"read\"]"), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let tokens = Tokens::open(Some(&file)).unwrap();
        for headers in [with(&format!("Bearer {token}")), with(&format!("bearer  {token}")), basic(&token)] {
            let caller = tokens.caller(&headers, PEER).unwrap();
            assert_eq!(caller.tenant, Tenant("ci".to_owned()));
            assert_eq!(caller.builds_at_once, Some(2));
            assert_eq!(caller.may(TokenScope::Metrics), Err(Denied::Scope(TokenScope::Metrics)));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let (_place, file, token) = one();
        let tokens = Tokens::open(Some(&file)).unwrap();
        assert_eq!(tokens.caller(&HeaderMap::new(), PEER), Err(Denied::Missing));
        let hash = HEXLOWER.encode(&file::hash(&token));
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer vx_",
            "Basic !",
            "Digest a",
            "Basic bWU=",
            &format!("Bearer {hash}"),
        ] {
            assert_eq!(tokens.caller(&with(wrong), PEER), Err(Denied::Unknown), "{wrong}");
        }
        assert_eq!(tokens.caller(&with(&format!("Bearer {token}x")), PEER), Err(Denied::Unknown));
    }

    #[test]
    fn strangers_are_slowed_and_owners_are_not() {
        let (_place, file, token) = one();
        let tokens = Tokens::open(Some(&file)).unwrap();
        for _ in 0..FAILURES_AN_HOUR {
            assert_eq!(tokens.caller(&with("Bearer x"), PEER), Err(Denied::Unknown));
        }
        let denied = tokens.caller(&with("Bearer x"), PEER).unwrap_err();
        assert_eq!(denied.status(), 429);
        assert!(denied.retry_after().is_some_and(|seconds| seconds <= 61), "{denied:?}");
        assert!(tokens.caller(&with(&format!("Bearer {token}")), PEER).is_ok());
        assert_eq!(tokens.caller(&with("Bearer x"), "10.0.0.1".parse().unwrap()), Err(Denied::Unknown));
    }

    #[test]
    fn other_sites_cant_use_a_browsers_sign_in() {
        let (_place, file, token) = one();
        let tokens = Tokens::open(Some(&file)).unwrap();
        let asked = |mut headers: HeaderMap, more: &[(&'static str, &str)]| {
            for (name, value) in more {
                headers.insert(*name, value.parse().unwrap());
            }
            tokens.caller(&headers, PEER).map(|caller| caller.tenant.0)
        };
        let elsewhere = ("sec-fetch-site", "cross-site");
        assert_eq!(asked(basic(&token), &[elsewhere]), Err(Denied::OtherSite));
        let form = [elsewhere, ("sec-fetch-mode", "navigate"), ("content-type", "text/plain")];
        assert_eq!(asked(basic(&token), &form), Err(Denied::OtherSite));
        assert!(asked(basic(&token), &[elsewhere, ("sec-fetch-mode", "navigate")]).is_ok());
        assert!(asked(basic(&token), &[("sec-fetch-site", "same-origin")]).is_ok());
        assert!(asked(with(&format!("Bearer {token}")), &[elsewhere]).is_ok());
    }

    #[test]
    fn without_a_file_each_address_is_someone() {
        let tokens = Tokens::open(None).unwrap();
        let tenant = |address: &str| {
            let caller = tokens.caller(&HeaderMap::new(), address.parse().unwrap()).unwrap();
            assert!(TokenScope::ALL.into_iter().all(|scope| caller.may(scope).is_ok()));
            caller.tenant.0
        };
        assert_eq!(tenant("192.0.2.7"), "192.0.2.7");
        assert_eq!(tenant("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(tenant("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn a_change_counts_while_it_runs_and_a_broken_file_changes_nothing() {
        let (_place, file, token) = one();
        let tokens = Tokens::open(Some(&file)).unwrap();
        let other = add_token(&file, &entry("other")).unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 2);
        assert!(tokens.caller(&with(&format!("Bearer {}", other.expose_secret())), PEER).is_ok());
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{good}\n[tokens.x")).unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 2);
        fs::write(&file, good).unwrap();
        revoke_token(&file, "ci").unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 1);
        assert_eq!(tokens.caller(&with(&format!("Bearer {token}")), PEER), Err(Denied::Unknown));
        fs::remove_file(&file).unwrap();
        assert_eq!(tokens.current(&file, Duration::ZERO).len(), 1);
    }

    #[test]
    fn a_token_ends_with_its_time() {
        let (_place, file, token) = one();
        let line = |expires: &str| {
            let text = fs::read_to_string(&file).unwrap();
            let text: String = text
                .lines()
                .filter(|line| !line.starts_with("expires"))
                .map(|line| format!("{line}\n"))
                .collect();
            fs::write(&file, text.trim_end().to_owned() + "\nexpires = " + expires + "\n").unwrap();
        };
        let asked = || Tokens::open(Some(&file)).unwrap().caller(&with(&format!("Bearer {token}")), PEER);
        line("2001-01-01");
        assert_eq!(asked(), Err(Denied::Expired));
        line("2001-01-01T00:00:00+02:00");
        assert_eq!(asked(), Err(Denied::Expired));
        line("2999-01-01T00:00:00Z");
        assert!(asked().is_ok());
        line("2001-01-01T00:00:00");
        assert!(Tokens::open(Some(&file)).is_err());
    }

    #[test]
    fn a_wrong_file_is_told() {
        let (_place, file, _) = one();
        let good = fs::read_to_string(&file).unwrap();
        let wrong = [
            ("sha256 = \"", "sha256 = \"zz"),
            ("[tokens.ci]", "[tokens.\"a b\"]"),
            ("\"read\"", "\"root\""),
            ("builds_at_once = 2", "builds_at_once = 0"),
            ("builds_at_once = 2", "builds_at_ones = 2"),
            ("builds_at_once = 2", "expires = 10:00:00"),
        ];
        for (old, new) in wrong {
            assert!(good.contains(old), "{good}");
            fs::write(&file, good.replacen(old, new, 1)).unwrap();
            let said = Tokens::open(Some(&file)).unwrap_err().to_string();
            assert!(said.contains("tokens.toml can't be used"), "{said}");
            assert!(add_token(&file, &entry("b")).is_err(), "it isn't made worse");
        }
        fs::write(&file, &good).unwrap();
        assert!(matches!(add_token(&file, &entry("ci")), Err(TokenFileError::Taken(_))));
        assert!(matches!(add_token(&file, &entry("c i")), Err(TokenFileError::Name(_))));
        assert!(matches!(revoke_token(&file, "no"), Err(TokenFileError::Missing(_))));
        assert!(Tokens::open(Some(&file.with_extension("none"))).is_err());
    }
}
