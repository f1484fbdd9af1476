//! Why a module can't be downloaded, who can act on it, and what helps.

use velox_gomod::{
    fetch::{Error as FetchError, Tried},
    modcache, sumdb,
};

use crate::error::{Blame, Error, checksum_mismatch};

/// What the proxies said of a module that the go command may get yet.
///
/// # Errors
/// What no other source may make good.
pub(crate) fn unserved(module: &str, error: FetchError) -> Result<Vec<Tried>, Error> {
    use sumdb::Error as Sum;
    let one = |host: &str, why: String| vec![Tried { host: host.to_owned(), why }];
    match error {
        FetchError::NeedsGo { tried, .. } | FetchError::Download { tried, .. } => Ok(tried),
        FetchError::Off { .. } => Ok(one("GOPROXY", "`off` forbids to download it".to_owned())),
        FetchError::Mismatch { file, found, expected, .. } => {
            let text = format!("checksum of {file}\nexpected {expected}\nfound    {found}");
            Err(checksum_mismatch(module, &text))
        }
        FetchError::Database {
            source: source @ (Sum::Security { .. } | Sum::Note(_) | Sum::Log(_) | Sum::Record { .. }),
            ..
        } => Err(Error::build(format!("the checksum database's answer on {module} can't be believed"))
            .help("nothing of it was kept: someone changed the answer on its way, or the database misbehaves; ask over another network, and tell its owner")
            .output(source.to_string().lines().map(str::to_owned).collect())),
        FetchError::Database { source, .. } => Ok(one("the checksum database", source.to_string())),
        FetchError::Cache(error @ modcache::Error::File { .. }) => Err(Error::build(error.to_string()).help(
            "check the directory's permissions and the space on its disk; GOMODCACHE names another",
        )),
        FetchError::Refused { host, source, .. } => {
            Err(Error::build(format!("{host} sends a zip that is none of {module}"))
                .help("nothing of it was kept: tell the proxy's owner, or name another proxy with GOPROXY")
                .output(source.to_string().lines().map(str::to_owned).collect()))
        }
        error @ FetchError::Module(_) => Err(Error::build(error.to_string()).fault(Blame::Request)),
        error @ FetchError::Cache(_) => Err(Error::build(error.to_string())),
        error => Ok(one("vx", error.to_string())),
    }
}

/// Whether all that was said of a module is that it isn't there.
pub(crate) fn is_not_found(why: &str) -> bool {
    let signs =
        ["404 ", "410 ", "ot found", "no matching versions", "unknown revision", "unrecognized import path"];
    says(&without_names(why), &signs) && advice(why).is_none()
}

/// Who can do something about a module that can't be had, by what was said of it.
pub(crate) fn fault(why: &str) -> Blame {
    let text = without_names(why);
    let is_gone = says(&text, &["404 Not Found", "410 Gone"])
        && !says(&text, &["401 ", "403 ", "407 ", "429 ", "500 ", "502 ", "503 ", "504 ", "off`", "=off"]);
    // A proxy may say why it has no such module: that another host didn't answer it, for example.
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

/// What was said, without addresses and module paths: a module may be called `dns` or `resetter`.
fn without_names(why: &str) -> String {
    why.split_whitespace().filter(|word| !word.contains('/')).collect::<Vec<_>>().join(" ")
}

/// Whether a proxy may have meant so, where it told it otherwise.
pub(crate) fn may_be_missing(why: &str) -> bool {
    why.contains("403 ") || is_not_found(why)
}

/// What to do about a module that can't be had, by what was said of it.
pub(crate) fn advice(why: &str) -> Option<&'static str> {
    let text = without_names(why);
    let says = |signs: &[&str]| says(&text, signs);
    if says(&["`off`", "GOPROXY list is not the empty string", "GOPROXY=off"]) {
        Some(
            "GOPROXY allows no download: name a proxy with GOPROXY=https://…, or fill the module cache otherwise",
        )
    } else if says(&["401 ", "407 "]) {
        Some(
            "the proxy wants to know who asks: put `machine HOST login NAME password TOKEN` into ~/.netrc (or $NETRC), or set GOAUTH",
        )
    } else if says(&["403 "]) {
        Some(
            "proxies say so of what they don't have, too: check the name and the version; a private module is named in GOPRIVATE, or needs a login at the proxy (~/.netrc, $NETRC, GOAUTH)",
        )
    } else if says(&["plain HTTP", "insecure URL"]) {
        Some("write https:// in GOPROXY, or put the password into ~/.netrc")
    } else if says(&["ertificate"]) {
        Some("the proxy's certificate isn't trusted here: SSL_CERT_FILE names a file with the authority's")
    } else if says(&["429 "]) {
        Some("the proxy has had enough for now: try again later")
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
        "breaks off",
        "answer",
        "reached",
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
