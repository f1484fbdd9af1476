//! Classification of download errors: who can act on them, and help for the user.

use std::path::Path;

use url::Url;
use velox_fetch::{
    download::{DownloadError, ProxyAttempt},
    modcache::ModCacheError,
    proxy::{ProxyError, ProxyErrorKind},
};
use velox_gomod::module::escape_path;

use crate::error::{Blame, Error, checksum_mismatch};

/// The failed attempts of a module that the go command may still download; else the final error.
pub(crate) fn unserved(module: &str, error: DownloadError) -> Result<Vec<ProxyAttempt>, Error> {
    let one = |host: &str, kind, message: String| {
        vec![ProxyAttempt { host: host.to_owned(), error: ProxyError { kind, message } }]
    };
    match error {
        DownloadError::NeedsGo { tried, .. } | DownloadError::Download { tried, .. } => Ok(tried),
        DownloadError::Off { .. } => {
            Ok(one("GOPROXY", ProxyErrorKind::Disallowed, "`off` forbids downloads".to_owned()))
        },
        DownloadError::Mismatch { file, found, expected, .. } => {
            let text = format!("checksum of {file}\nexpected {expected}\nfound    {found}");
            Err(checksum_mismatch(module, &text))
        }
        DownloadError::Database { source, .. } if source.is_verification_failure() => Err(Error::build(format!("verification failed: the checksum database's answer for {module} is not authentic"))
            .help("nothing was stored: the answer was altered on its way, or the database is misbehaving; try another network, and report it to the database's operator")
            .output(source.to_string().lines().map(str::to_owned).collect())),
        DownloadError::Database { source, .. } => {
            Ok(one("the checksum database", ProxyErrorKind::Unreachable, source.to_string()))
        },
        DownloadError::Cache(error @ ModCacheError::File { .. }) => Err(Error::build(error.to_string()).help(
            "check the directory's permissions and the space on its disk; GOMODCACHE names another",
        )),
        DownloadError::InvalidZip { host, source, .. } => {
            Err(Error::build(format!("invalid zip for module {module} from {host}"))
                .fault(Blame::Sources)
                .help("nothing was stored: report it to the proxy's operator, or set another proxy in GOPROXY")
                .output(source.to_string().lines().map(str::to_owned).collect()))
        }
        error @ DownloadError::Module(_) => Err(Error::build(error.to_string()).fault(Blame::Request)),
        error @ DownloadError::Cache(_) => Err(Error::build(error.to_string())),
        error => Ok(one("vx", ProxyErrorKind::Unreachable, error.to_string())),
    }
}

/// An error text of the go command about a module. A failed connection, or a file that a proxy lacks, is reduced to the
/// host and the cause, which are the same for all modules: Go writes `module M: Get "URL": dial tcp ADDRESS: connect:
/// CAUSE` and `reading URL: CAUSE`.
pub(crate) fn of_go(text: &str, module: &str) -> String {
    let host = |url: &Url| {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}{port}", url.host_str()?))
    };
    let unreached = || {
        let (before, cause) = text.split_once("\": dial tcp")?;
        let url = Url::parse(before.rsplit_once("Get \"")?.1).ok()?;
        Some(format!("failed to reach {}: {}", host(&url)?, cause.rsplit(": ").next()?))
    };
    let unserved = || {
        let (url, cause) = text.strip_prefix("reading ")?.split_once(": ")?;
        let (proxy, _) = url.split_once(&format!("/{}/@v/", escape_path(module).ok()?))?;
        let Some(directory) = proxy.strip_prefix("file://") else {
            return Some(format!("{}: {cause}", host(&Url::parse(proxy).ok()?)?));
        };
        let cause = match cause {
            "no such file or directory" if Path::new(directory).is_dir() => "not found",
            "no such file or directory" => "no such directory",
            cause => cause,
        };
        Some(format!("{directory}: {cause}"))
    };
    unreached().or_else(unserved).unwrap_or_else(|| text.to_owned())
}

/// The cause of a failed listing of versions, without the module.
pub(crate) fn of_listing(error: &DownloadError) -> String {
    match error {
        DownloadError::Download { tried, .. } if !tried.is_empty() => ProxyAttempt::join(tried),
        error => error.to_string(),
    }
}

/// Whether the error only says that the module or version does not exist.
pub(crate) fn is_not_found(why: &str) -> bool {
    let signs =
        ["404 ", "410 ", "ot found", "no matching versions", "unknown revision", "unrecognized import path"];
    says(&without_names(why), &signs) && advice(why).is_none()
}

/// Who can act on a download error, derived from its text.
pub(crate) fn fault(why: &str) -> Blame {
    let text = without_names(why);
    let is_gone = says(&text, &["404 Not Found", "410 Gone"])
        && !says(&text, &["401 ", "403 ", "407 ", "429 ", "500 ", "502 ", "503 ", "504 ", "off`", "=off"]);
    // A 404 may include the reason, such as an upstream timeout.
    if is_gone || is_not_found(why) || says(&text, &["invalid version", "malformed"]) {
        Blame::Request
    } else if advice(why).is_some() {
        Blame::Sources
    } else {
        Blame::Other
    }
}

fn says(text: &str, signs: &[&str]) -> bool {
    signs.iter().any(|sign| text.contains(sign))
}

/// The error text without URLs and module paths: a module may be called `dns` or `resetter`.
fn without_names(why: &str) -> String {
    why.split_whitespace().filter(|word| !word.contains('/')).collect::<Vec<_>>().join(" ")
}

/// Whether the module may not exist: proxies also answer 403 for missing ones.
pub(crate) fn may_be_missing(why: &str) -> bool {
    why.contains("403 ") || is_not_found(why)
}

/// The help for a download error, derived from its text.
pub(crate) fn advice(why: &str) -> Option<&'static str> {
    let text = without_names(why);
    let says = |signs: &[&str]| says(&text, signs);
    if says(&["`off`", "GOPROXY list is not the empty string", "GOPROXY=off"]) {
        Some(
            "GOPROXY allows no download: name a proxy with GOPROXY=https://…, or fill the module cache otherwise",
        )
    } else if says(&["401 ", "407 "]) {
        Some(
            "the proxy requires credentials: put `machine HOST login NAME password TOKEN` into ~/.netrc (or $NETRC), or set GOAUTH",
        )
    } else if says(&["403 "]) {
        Some(
            "proxies also respond like this for unknown modules: check the name and the version; a private module is named in GOPRIVATE, or needs a login at the proxy (~/.netrc, $NETRC, GOAUTH)",
        )
    } else if says(&["plain HTTP", "insecure URL"]) {
        Some("write https:// in GOPROXY, or put the password into ~/.netrc")
    } else if says(&["ertificate"]) {
        Some("the proxy's certificate isn't trusted here: SSL_CERT_FILE names a file with the authority's")
    } else if says(&["no such directory"]) {
        Some("GOPROXY names a directory that does not exist: create it, or name another proxy")
    } else if says(&["429 "]) {
        Some("the rate limit of the proxy is exceeded: try again later")
    } else if says(&["checksum database", "verifying module", "verifying go.mod"]) {
        Some(
            "a private module is unknown there: name it in GOPRIVATE, or in GONOSUMDB where a proxy serves it",
        )
    } else if says(&[
        "500 ",
        "502 ",
        "503 ",
        "504 ",
        "refused",
        "reset",
        "response ended early",
        "timed out",
        "failed to connect",
        "answer",
        "reach",
        "EOF",
        "dns",
        "lookup",
    ]) {
        Some(
            "try again; if it lasts, name another proxy with GOPROXY (a list with `|` asks the next one after any error)",
        )
    } else {
        None
    }
}
