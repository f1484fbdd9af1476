//! The platform of a browser.

use axum::http::{HeaderMap, header};

/// The target for the platform of the browser that sent these headers; `None` for phones and other programs.
///
/// Browsers name macOS on ARM like macOS on Intel; most of these machines are ARM.
pub(super) fn browser_target(headers: &HeaderMap) -> Option<&'static str> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let is_arm = ["aarch64", "arm64", "ARM64"].iter().any(|name| agent.contains(name));
    let of = |arm, intel| Some(if is_arm { arm } else { intel });
    match agent {
        _ if ["Android", "iPhone", "iPad", "CrOS"].iter().any(|name| agent.contains(name)) => None,
        _ if agent.contains("Windows NT") => of("windows/arm64", "windows/amd64"),
        _ if agent.contains("Macintosh") => Some("darwin/arm64"),
        _ if agent.contains("FreeBSD") => of("freebsd/arm64", "freebsd/amd64"),
        _ if agent.contains("Linux") => of("linux/arm64", "linux/amd64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_of_browsers() {
        let of = |agent: &'static str| {
            browser_target(&HeaderMap::from_iter([(
                header::USER_AGENT,
                header::HeaderValue::from_static(agent),
            )]))
        };
        for (agent, target) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", Some("linux/amd64")),
            ("Mozilla/5.0 (X11; Linux aarch64) AppleWebKit/537.36 Chrome/140.0.0.0", Some("linux/arm64")),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0",
                Some("windows/amd64"),
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Safari/605.1.15",
                Some("darwin/arm64"),
            ),
            (
                "Mozilla/5.0 (X11; FreeBSD amd64; rv:140.0) Gecko/20100101 Firefox/140.0",
                Some("freebsd/amd64"),
            ),
            ("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile", None),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
                None,
            ),
            ("curl/8.14.1", None),
        ] {
            assert_eq!(of(agent), target, "{agent}");
        }
        assert_eq!(browser_target(&HeaderMap::new()), None);
    }
}
