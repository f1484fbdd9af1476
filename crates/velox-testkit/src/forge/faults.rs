//! What goes wrong on demand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream;
use hyper::body::{Bytes, Frame};
use hyper::{Method, Response};
use serde_json::json;

use super::answer::{ConnectionCut, ForgeRequest, ForgeResponse, ResponseBody};
use super::{LONGEST_PAUSE, below, gitlab};

/// A way for a request to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This status, with a short text as body.
    Status(u16),
    /// GitHub's [primary rate limit](https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit):
    /// 403 with `x-ratelimit-remaining: 0` and the reset that many seconds from now.
    RateLimited {
        /// Seconds until the reset.
        reset_in: u64,
    },
    /// 429 with `retry-after`, as GitHub's secondary limits and
    /// [GitLab's](https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers) do.
    TooManyRequests {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// The right answer, whose connection breaks after half of the body.
    CutBody,
    /// The right answer in eight pieces with this pause before each.
    SlowBody(Duration),
    /// 302 to the same URL.
    RedirectLoop,
    /// 302 to this address.
    Redirect(String),
    /// 200 with this HTML.
    Page(String),
    /// 200 with a body that isn't the JSON that its content type promises.
    GarbageJson,
    /// The connection breaks before any answer.
    HangUp,
}

/// Where and how often a [`Fault`] strikes. Unless told otherwise: everywhere, always.
#[derive(Clone)]
pub struct FaultRule {
    rule: Arc<Mutex<FaultState>>,
}

struct FaultState {
    fault: Fault,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    left: Option<usize>,
    hits: usize,
}

impl FaultRule {
    /// Only for this method, and paths like this, in which `*` stands for any text. The path of a REST call can be
    /// given without the API's own prefix (`/repos/acme/*` for `/api/v3/repos/acme/*`).
    pub fn on(&self, method: &str, path: &str) -> Self {
        let mut rule = self.lock();
        rule.method = (method != "*").then(|| method.to_owned());
        rule.path = Some(path.to_owned());
        drop(rule);
        self.clone()
    }

    /// Only on this host (`codeload.github.com`).
    pub fn host(&self, host: &str) -> Self {
        self.lock().host = Some(host.to_owned());
        self.clone()
    }

    /// Only so many times.
    pub fn times(&self, times: usize) -> Self {
        self.lock().left = Some(times);
        self.clone()
    }

    /// How often it has struck.
    pub fn hits(&self) -> usize {
        self.lock().hits
    }

    fn lock(&self) -> MutexGuard<'_, FaultState> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultState {
    fn covers(&self, asked: &ForgeRequest) -> bool {
        let method = self.method.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(asked.method.as_str()));
        let host = self.host.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(&asked.host));
        let path = self.path.as_ref().is_none_or(|pattern| {
            let own = below(&asked.path, gitlab::SUB_PATH).unwrap_or(&asked.path);
            let bare = below(own, "/api/v3").or_else(|| below(own, "/api/v4")).unwrap_or(own);
            [asked.path.as_str(), own, bare].iter().any(|path| like(pattern, path))
        });
        method && host && path && self.left != Some(0)
    }
}

fn like(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).any(|at| text.get(at..).is_some_and(|tail| like(rest, tail)))
}

#[derive(Default)]
pub(super) struct FaultRules {
    rules: Mutex<Vec<FaultRule>>,
}

impl FaultRules {
    pub(super) fn add(&self, fault: Fault) -> FaultRule {
        let rule = FaultState { fault, method: None, path: None, host: None, left: None, hits: 0 };
        let rule = FaultRule { rule: Arc::new(Mutex::new(rule)) };
        self.lock().push(rule.clone());
        rule
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    /// The oldest fault that covers a request, counted as struck.
    pub(super) fn take(&self, asked: &ForgeRequest) -> Option<Fault> {
        self.lock().iter().find_map(|rule| {
            let mut rule = rule.lock();
            rule.covers(asked).then(|| {
                rule.hits += 1;
                rule.left = rule.left.map(|left| left - 1);
                rule.fault.clone()
            })
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The answer of a fault that doesn't need the right one.
pub(super) fn instead(fault: &Fault, asked: &ForgeRequest) -> Option<ForgeResponse> {
    Some(match fault {
        Fault::Status(status) => ForgeResponse::text(*status, "a fault that the test asked for\n"),
        Fault::RateLimited { reset_in } => rate_limited(60, now() + reset_in),
        Fault::TooManyRequests { retry_after } => ForgeResponse::json(
            429,
            &json!({
                "message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
                "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits",
                "status": "429",
            }),
        )
        .header("retry-after", retry_after),
        Fault::RedirectLoop => {
            let query = if asked.query.is_empty() { String::new() } else { format!("?{}", asked.query) };
            ForgeResponse::redirect(302, &format!("{}{}{query}", asked.origin(), asked.path))
        }
        Fault::Redirect(to) => ForgeResponse::redirect(302, to),
        Fault::Page(html) => ForgeResponse::new(200, "text/html; charset=utf-8", html.clone()),
        Fault::GarbageJson => {
            ForgeResponse::new(200, "application/json; charset=utf-8", "{\"message\": <html>, \u{0}\u{fffd}")
        }
        Fault::CutBody | Fault::SlowBody(_) | Fault::HangUp => return None,
    })
}

/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>
pub(super) fn rate_limited(limit: u64, reset: u64) -> ForgeResponse {
    ForgeResponse::json(
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

/// The right answer, sent the wrong way.
pub(super) fn spoil(
    fault: &Fault,
    mut answer: ForgeResponse,
    method: &Method,
) -> Result<Response<ResponseBody>, ConnectionCut> {
    let body = std::mem::take(&mut answer.body);
    let length = body.len();
    match fault {
        Fault::CutBody => {
            let half = Bytes::from(body).slice(..length / 2);
            let pieces = stream::unfold(Some(half), |half| async move {
                match half {
                    Some(half) if !half.is_empty() => Some((Ok(Frame::data(half)), Some(Bytes::new()))),
                    Some(_) => {
                        // Time for the first half to reach the wire, which is dropped along with it otherwise.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Some((Err(ConnectionCut), None))
                    }
                    None => None,
                }
            });
            Ok(answer.header("content-length", length).finish_streaming(pieces))
        }
        Fault::SlowBody(pause) => {
            let pause = (*pause).min(LONGEST_PAUSE);
            let size = length.div_ceil(8).max(1);
            let pieces = stream::unfold(Bytes::from(body), move |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                tokio::time::sleep(pause).await;
                let piece = rest.split_to(size.min(rest.len()));
                Some((Ok(Frame::data(piece)), rest))
            });
            Ok(answer.header("content-length", length).finish_streaming(pieces))
        }
        Fault::HangUp => Err(ConnectionCut),
        _ => {
            answer.body = body;
            Ok(answer.finish(method))
        }
    }
}
