//! Injected faults for the forge and the module proxy.

use std::{
    io::Cursor,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use zip::{ZipArchive, ZipWriter, write::SimpleFileOptions};

use crate::{
    http::{Delivery, HttpReply, HttpRequest},
    localhost::locked,
};

/// The path prefix that [`Fault::Moved`] redirects to.
pub(crate) const MOVED: &str = "/moved";

/// A way in which a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This status, with a short text body.
    Status(u16),
    /// GitHub's [primary rate limit](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit):
    /// 403 with `x-ratelimit-remaining: 0` and the reset that many seconds from now.
    RateLimited {
        /// Seconds until the reset.
        reset_in: u64,
    },
    /// 429 with `retry-after`, as sent by GitHub's secondary limits,
    /// [GitLab's](https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers)
    /// and module proxies.
    TooManyRequests {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// The correct reply; the connection ends after half of the body.
    CutBody,
    /// The correct reply; the second half of the body comes after this time.
    StalledBody(Duration),
    /// The correct reply after this time.
    Delayed(Duration),
    /// 302 to the same URL.
    RedirectLoop,
    /// 302 to this address.
    Redirect(String),
    /// 302 to another path of a module proxy, where the same is served.
    Moved,
    /// 200 with this HTML.
    Page(String),
    /// 200 with an invalid JSON body and a JSON content type.
    GarbageJson,
    /// 200 with this many bytes, for any request.
    Oversized(usize),
    /// A zip with an additional file, or another file with an additional line: its checksum changes.
    Altered,
    /// The connection ends before any reply.
    HangUp,
}

impl Fault {
    /// The reply with this fault; `correct` makes the reply without it.
    pub(crate) fn apply(&self, request: &HttpRequest, correct: impl FnOnce() -> HttpReply) -> HttpReply {
        let correct = |delivery| HttpReply { delivery, ..correct() };
        match self {
            Self::Status(status) => HttpReply::text(*status, "failed as the test requested\n"),
            Self::RateLimited { reset_in } => rate_limited(60, now() + reset_in),
            Self::TooManyRequests { retry_after } => {
                HttpReply::text(429, "too many requests\n").header("retry-after", retry_after)
            }
            Self::CutBody => correct(Delivery::Cut),
            Self::StalledBody(time) => correct(Delivery::Stalled(*time)),
            Self::Delayed(time) => correct(Delivery::Delayed(*time)),
            Self::HangUp => correct(Delivery::HangUp),
            Self::RedirectLoop => {
                let query =
                    if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
                HttpReply::redirect(&format!("{}{}{query}", request.origin(), request.path))
            }
            Self::Redirect(to) => HttpReply::redirect(to),
            Self::Moved => HttpReply::redirect(&format!("{MOVED}{}", request.path)),
            Self::Page(html) => HttpReply::html(html.clone()),
            Self::GarbageJson => {
                HttpReply::new(200, "application/json; charset=utf-8", "{\"message\": <html>, \u{0}\u{fffd}")
            }
            Self::Oversized(size) => HttpReply::new(200, "text/plain", vec![b' '; *size]),
            Self::Altered => altered(correct(Delivery::Whole)),
        }
    }
}

/// Adds a file to a zip, or a line to anything else.
fn altered(mut reply: HttpReply) -> HttpReply {
    if !reply.body.starts_with(b"PK") {
        reply.body.extend_from_slice(b"// altered\n");
        return reply;
    }
    let names = ZipArchive::new(Cursor::new(&reply.body)).expect("the fixture's own zip");
    // A module's zip has everything below MODULE@VERSION/.
    let name = names.file_names().find_map(|name| Some(name.ok()?.into_owned())).unwrap_or_default();
    let root =
        name.find('@').map_or("", |at| name.get(..at + name[at..].find('/').unwrap_or(0)).unwrap_or(""));
    let mut zip = ZipWriter::new_append(Cursor::new(reply.body)).expect("the fixture's own zip");
    zip.start_file(format!("{root}/altered.txt"), SimpleFileOptions::default()).expect("a zip in memory");
    HttpReply { body: zip.finish().expect("a zip in memory").into_inner(), ..reply }
}

/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>
pub(crate) fn rate_limited(limit: u64, reset: u64) -> HttpReply {
    HttpReply::json(
        403,
        &json!({
            "message": "API rate limit exceeded for 127.0.0.1. (But here's the good news: Authenticated requests get a higher rate limit. Check out the documentation for more details.)",
            "documentation_url": "https://docs.github.com/rest/overview/resources-in-the-rest-api#rate-limiting",
        }),
    )
    .header("x-ratelimit-limit", limit)
    .header("x-ratelimit-remaining", 0)
    .header("x-ratelimit-used", limit)
    .header("x-ratelimit-reset", reset)
    .header("x-ratelimit-resource", "core")
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The requests that a [`Fault`] applies to, and how often: all of them, always, unless narrowed down.
#[derive(Clone)]
pub struct FaultRule(Arc<Mutex<RuleState>>);

struct RuleState {
    fault: Fault,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    /// Number of matching requests that are still answered correctly.
    skip: usize,
    left: Option<usize>,
    hits: usize,
}

impl FaultRule {
    /// Restricts the fault to this method (`*`: any) and to paths like this, in which `*` matches any text. A
    /// REST path may omit the API's prefix (`/repos/acme/*` for `/api/v3/repos/acme/*`).
    pub fn on(&self, method: &str, path: &str) -> Self {
        self.with(|rule| {
            rule.method = (method != "*").then(|| method.to_owned());
            rule.path = Some(path.to_owned());
        })
    }

    /// Restricts the fault to this host (`codeload.github.com`).
    pub fn host(&self, host: &str) -> Self {
        self.with(|rule| rule.host = Some(host.to_owned()))
    }

    /// Applies the fault only this many times.
    pub fn times(&self, times: usize) -> Self {
        self.with(|rule| rule.left = Some(times))
    }

    /// Applies the fault only after this many matching requests.
    pub fn after(&self, requests: usize) -> Self {
        self.with(|rule| rule.skip = requests)
    }

    /// How often the fault was applied.
    pub fn hits(&self) -> usize {
        locked(&self.0).hits
    }

    fn with(&self, change: impl FnOnce(&mut RuleState)) -> Self {
        change(&mut locked(&self.0));
        self.clone()
    }
}

impl RuleState {
    fn covers(&self, request: &HttpRequest, paths: &[&str]) -> bool {
        self.left != Some(0)
            && self.method.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(request.method.as_str()))
            && self.host.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(&request.host))
            && self.path.as_ref().is_none_or(|pattern| paths.iter().any(|path| like(pattern, path)))
    }
}

fn like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).any(|at| text.get(at..).is_some_and(|tail| like(rest, tail)))
}

#[derive(Default)]
pub(crate) struct FaultRules(Mutex<Vec<FaultRule>>);

impl FaultRules {
    pub(crate) fn add(&self, fault: Fault) -> FaultRule {
        let rule = RuleState { fault, method: None, path: None, host: None, skip: 0, left: None, hits: 0 };
        let rule = FaultRule(Arc::new(Mutex::new(rule)));
        locked(&self.0).push(rule.clone());
        rule
    }

    pub(crate) fn clear(&self) {
        locked(&self.0).clear();
    }

    /// The oldest fault for a request, counted as a hit. `paths` are the alternative forms of its path.
    pub(crate) fn take(&self, request: &HttpRequest, paths: &[&str]) -> Option<Fault> {
        let rules = locked(&self.0);
        let rule = rules.iter().find(|rule| locked(&rule.0).covers(request, paths))?;
        let mut rule = locked(&rule.0);
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.hits += 1;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.fault.clone())
    }
}
