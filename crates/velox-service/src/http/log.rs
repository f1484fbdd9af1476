//! `/v1/builds/{id}/log`: streams the log of a build.

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
use velox_api::LogEntry;

use crate::{
    error::ApiError,
    http::{
        AppState,
        access::Reader,
        body::{BuildPath, Query},
    },
    service::LogEvent,
    store::StoreError,
};

/// The header with the `id` of the last event, sent when reconnecting
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html#the-last-event-id-header>).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The id of the final event; a client that reconnects with it has the complete log.
const END_ID: &str = "end";

/// The interval of keep-alive comments. Proxies often close connections that are idle for a minute.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The delay before browsers reconnect after a lost connection.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    /// The number of the last entry that the client already has.
    #[serde(default)]
    after: Option<u64>,
}

/// Follows a build's log.
///
/// As server-sent events: the entries with their numbers as `id`, a `state` event with the build whenever its
/// state changes, and a final `end` event with the build. As `text/plain`, and for browsers: the lines of the
/// entries.
#[utoipa::path(
    get, path = "/v1/builds/{id}/log", tag = "builds", operation_id = "getLog",
    params(("id" = velox_api::BuildId, Path, description = "The build"), LogQuery,
        ("last-event-id" = Option<String>, Header, description = "The `id` of the last received event, like `after`")),
    responses(
        (status = 200, description = "The log, until the build ends", content(
            (LogEntry = "text/event-stream"), (String = "text/plain"))),
        (status = 204, description = "The client has the whole log"),
        (status = 400, description = "Invalid query string"),
        (status = 404, description = "No such build"),
    )
)]
pub(crate) async fn follow(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok());
    if last == Some(END_ID) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let after = query.after.or_else(|| last?.parse().ok()).unwrap_or_default();
    let events = state.service.log(id, after).await?;
    let events = events.take_until(state.draining.clone().cancelled_owned());
    let common = [
        (header::CACHE_CONTROL, "no-store"),
        // Disables response buffering in nginx.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    if is_plain(&headers) {
        let lines = events.filter_map(|event| {
            future::ready(match event {
                Ok(LogEvent::Entry(entry)) => Some(Ok(entry.text + "\n")),
                Ok(LogEvent::Build(_)) => None,
                Err(error) => Some(Err(logged(error))),
            })
        });
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((common, plain, Body::from_stream(lines)).into_response());
    }
    let hint = stream::once(future::ready(Event::default().retry(RECONNECT_DELAY).comment("build log")));
    // An error ends the stream without an `end` event: the client reconnects and resumes.
    let events = events.filter_map(|event| future::ready(event.map_err(logged).ok().map(sse_event)));
    let events = hint.chain(events).map(Ok::<_, Infallible>);
    let alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL).text("keep-alive");
    Ok((common, Sse::new(events).keep_alive(alive)).into_response())
}

fn sse_event(event: LogEvent) -> Event {
    let event = match event {
        LogEvent::Entry(entry) => Event::default().id(entry.seq.to_string()).json_data(&entry),
        LogEvent::Build(build) if build.state.is_final() => {
            Event::default().event(END_ID).id(END_ID).json_data(build.view())
        }
        LogEvent::Build(build) => Event::default().event("state").json_data(build.view()),
    };
    // Serializing these types to a string can't fail.
    event.unwrap_or_default()
}

fn logged(error: StoreError) -> StoreError {
    tracing::error!(%error, "failed to read a build log");
    error
}

/// Whether to send text: if the client accepts text or HTML (a browser that opens the log), but no events.
fn is_plain(headers: &HeaderMap) -> bool {
    let accepted: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accepted = accepted.join(",").to_ascii_lowercase();
    let lines = accepted.contains("text/plain") || accepted.contains("text/html");
    lines && !accepted.contains("text/event-stream")
}
