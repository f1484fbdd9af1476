//! `/v1/builds/{id}/log`: what a build says, as it says it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{StreamExt, future, stream};
use serde::Deserialize;
use utoipa::IntoParams;
use velox_api::{BuildState, LogEntry, Problem};

use crate::{
    http::{
        Site,
        body::{Name, Query},
        builds::named,
        problem::Wrong,
        who::Reader,
    },
    service::LogEvent,
    store::StoreError,
};

/// The header with which a browser that comes back says what it has
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header>).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The id of the last event: who comes back with it has everything.
const END: &str = "end";

/// How long the line may be silent: proxies hang up after a minute.
const SILENCE: Duration = Duration::from_secs(15);

/// When to come back after the service went away.
const BACK: Duration = Duration::from_secs(2);

/// Where a log begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// The number of the last entry that isn't needed any more.
    #[serde(default)]
    after: Option<u64>,
}

/// Follows a build's log.
///
/// The events are its entries, with their numbers as `id`; beside them come `state`, the build whenever it is at another
/// state, and `end`, the build at its end. As `text/plain`, and for browsers, it is the entries' lines.
#[utoipa::path(
    get, path = "/v1/builds/{id}/log", tag = "builds", operation_id = "getLog",
    params(("id" = velox_api::BuildId, Path, description = "The build"), Start,
        ("last-event-id" = Option<String>, Header, description = "The `id` of the last event that came, as `after`")),
    responses(
        (status = 200, description = "Its log, until it ends", content(
            (LogEntry = "text/event-stream"), (String = "text/plain"))),
        (status = 204, description = "All of it came before"),
        (status = 400, description = "The query is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "A token is needed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such build", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn follow(
    State(site): State<Arc<Site>>,
    _: Reader,
    Name(id): Name,
    Query(start): Query<Start>,
    headers: HeaderMap,
) -> Result<Response, Wrong> {
    let last = headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok());
    if last == Some(END) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let after = start.after.or_else(|| last?.parse().ok()).unwrap_or_default();
    let told = site.service.log(named(&id)?, after).await?;
    let told = told.take_until(site.draining.clone().cancelled_owned());
    let common = [
        (header::CACHE_CONTROL, "no-store"),
        // nginx would keep lines back otherwise.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    if is_plain(&headers) {
        let lines = told.filter_map(|told| {
            future::ready(match told {
                Ok(LogEvent::Entry(entry)) => Some(Ok(entry.text + "\n")),
                Ok(LogEvent::Build(_)) => None,
                Err(error) => Some(Err(trouble(error))),
            })
        });
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((common, plain, Body::from_stream(lines)).into_response());
    }
    let hint = stream::once(future::ready(Event::default().retry(BACK).comment("the log of a build")));
    // Who comes back after an error gets the rest: nothing says that this was all.
    let events = told.filter_map(|told| future::ready(told.map_err(trouble).ok().map(event)));
    let events = hint.chain(events).map(Ok::<_, Infallible>);
    let alive = KeepAlive::new().interval(SILENCE).text("still here");
    Ok((common, Sse::new(events).keep_alive(alive)).into_response())
}

fn event(told: LogEvent) -> Event {
    // All of these are structures of texts and numbers, for which JSON has a form without line breaks.
    let data = |event: Event, json: serde_json::Result<String>| event.data(json.unwrap_or_default());
    match told {
        LogEvent::Entry(entry) => {
            data(Event::default().id(entry.seq.to_string()), serde_json::to_string(&entry))
        }
        LogEvent::Build(build) => {
            let event = match build.state {
                BuildState::Queued | BuildState::Running => Event::default().event("state"),
                BuildState::Succeeded | BuildState::Failed | BuildState::Cancelled => {
                    Event::default().event(END).id(END)
                }
            };
            data(event, serde_json::to_string(&build.view()))
        }
    }
}

fn trouble(error: StoreError) -> StoreError {
    tracing::error!(%error, "a log can't be read on");
    error
}

/// Whether lines are wanted: people who open the log in a browser read lines, too; scripts and clients that say nothing
/// get events.
fn is_plain(headers: &HeaderMap) -> bool {
    let accepted: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accepted = accepted.join(",").to_ascii_lowercase();
    let lines = accepted.contains("text/plain") || accepted.contains("text/html");
    lines && !accepted.contains("text/event-stream")
}
