//! The web page: choose a server, watch how it is built, download it.
//!
//! It is made on the service, and works without a script; with one, the list can be searched, links are copied and logs
//! come live. All of it is this service's own: nothing comes from elsewhere.

mod assets;
mod build;
mod choice;
mod choose;
mod layout;
mod problem;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use velox_api::BuildId;

pub(crate) use self::problem::for_people;
use self::{
    choice::{Choice, Sent},
    choose::Wrong,
    layout::notice,
};
use crate::{
    catalogue::PluginCatalogue,
    http::{
        body::{Name, read},
        problem::Wrong as Refused,
        who::{Builder, Reader},
    },
    policy::PolicyError,
    releases::Releases,
    service::{Service, ServiceError},
    store::StoreError,
};

/// How many entries of a log are read at once.
const ENTRIES: usize = 1024;
/// How many entries of a log a page reads; it shows fewer, and a browser asks for the rest itself.
const READ: usize = 16 * ENTRIES;
/// When to try again where the queue is full, in seconds.
const AGAIN: u64 = 15;

struct Pages {
    service: Service,
    releases: Releases,
}

/// The page's paths: `/`, `/build`, `/builds/{id}`, `/assets/{name}`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(service: Service, releases: Releases) -> Router<S> {
    // The list is fetched while nobody waits for it yet.
    let _ = releases.versions();
    Router::new()
        .route("/", get(choose))
        .route("/build", post(submit).get(|| async { Redirect::to("/") }))
        .route("/builds/{id}", get(show))
        .route("/builds/{id}/cancel", post(cancel))
        .route("/assets/{name}", get(assets::serve))
        .with_state(Arc::new(Pages { service, releases }))
}

/// `GET /`
async fn choose(State(pages): State<Arc<Pages>>, _: Reader, RawQuery(query): RawQuery) -> Response {
    let sent = Sent::read(query.unwrap_or_default().as_bytes());
    let is_roundabout = sent.is_roundabout();
    let (catalogue, choice) = pages.settled(sent).await;
    if is_roundabout {
        return Redirect::to(&choice.link()).into_response();
    }
    choose::page(&catalogue, &choice, &Wrong::nothing()).answer(StatusCode::OK)
}

/// `POST /build`
async fn submit(
    State(pages): State<Arc<Pages>>,
    Builder(caller): Builder,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_own(&headers, &uri) {
        return foreign();
    }
    let body = match read(&headers, body).await {
        Ok(body) => body,
        Err(unread) => return Refused::from(unread).into_response(),
    };
    let sent = Sent::read(&body);
    let (catalogue, choice) = pages.settled(sent).await;
    let (spec, mut wrong) = choice.spec();
    if let Err(violations) = spec.clone().normalized() {
        // No plugins at all is said already.
        let is_new = |field: &str| !field.is_empty() || wrong.is_empty();
        let new: Vec<_> = violations.into_iter().filter(|violation| is_new(&violation.field)).collect();
        wrong.extend(new);
    }
    let refused = |status: StatusCode, wrong: Wrong| choose::page(&catalogue, &choice, &wrong).answer(status);
    if !wrong.is_empty() {
        return refused(StatusCode::UNPROCESSABLE_ENTITY, Wrong::of(&wrong, &spec, &catalogue));
    }
    match pages.service.submit(&caller, spec.clone(), false).await {
        Ok(submitted) => Redirect::to(&format!("/builds/{}", submitted.build().id)).into_response(),
        Err(ServiceError::Rejected(refusal)) => {
            let (status, violations) = match refusal {
                PolicyError::Invalid(violations) => (StatusCode::UNPROCESSABLE_ENTITY, violations),
                PolicyError::Forbidden(violations) => (StatusCode::FORBIDDEN, violations),
                PolicyError::Precondition(violation) => (StatusCode::UNPROCESSABLE_ENTITY, vec![violation]),
            };
            refused(status, Wrong::of(&violations, &spec, &catalogue))
        }
        Err(
            error @ (ServiceError::Store(StoreError::QueueFull { .. } | StoreError::TenantLimit { .. })
            | ServiceError::RateLimited { .. }),
        ) => {
            let again = match &error {
                ServiceError::RateLimited { wait } => wait.as_secs() + 1,
                _ => AGAIN,
            };
            let wrong = Wrong::whole(&format!("{error}. Try again later: your choice stays here."));
            let answer = refused(StatusCode::TOO_MANY_REQUESTS, wrong);
            ([(header::RETRY_AFTER, again.to_string())], answer).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a build can't be taken");
            let wrong = Wrong::whole(
                "The service can’t take builds right now. Try again in a moment: your choice stays here.",
            );
            refused(StatusCode::SERVICE_UNAVAILABLE, wrong)
        }
    }
}

/// `GET /builds/{id}`
async fn show(
    State(pages): State<Arc<Pages>>,
    _: Reader,
    Name(id): Name,
    caller: Result<Builder, Refused>,
) -> Response {
    match pages.shown(&id, caller.ok().as_ref()).await {
        Ok(response) => response,
        Err(error) => trouble(&error, &id),
    }
}

/// `POST /builds/{id}/cancel`
async fn cancel(
    State(pages): State<Arc<Pages>>,
    Builder(caller): Builder,
    Name(id): Name,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !is_own(&headers, &uri) {
        return foreign();
    }
    let Ok(named) = id.parse::<BuildId>() else { return nothing(&id) };
    match pages.service.cancel(&caller, named).await {
        Ok(build) => Redirect::to(&format!("/builds/{}", build.id)).into_response(),
        Err(error) => trouble(&error, &id),
    }
}

impl Pages {
    /// What there is to choose from, and what of it is chosen.
    async fn settled(&self, sent: Sent) -> (PluginCatalogue, Choice) {
        let catalogue = PluginCatalogue::of(&self.releases, sent.roadrunner()).await;
        let was = match &sent.was {
            Some(was) if *was != catalogue.of => Some(PluginCatalogue::of(&self.releases, Some(was)).await),
            _ => None,
        };
        let choice = sent.settled(&catalogue, was.as_ref());
        (catalogue, choice)
    }

    async fn shown(&self, id: &str, caller: Option<&Builder>) -> Result<Response, ServiceError> {
        let Ok(named) = id.parse::<BuildId>() else { return Ok(nothing(id)) };
        // In this order: what a build said is there before its end is.
        let build = self.service.build(named).await?;
        let mut log = Vec::new();
        while log.len() < READ {
            let after = log.last().map_or(0, |entry: &velox_api::LogEntry| entry.seq);
            let entries = self.service.store.log(named, after, ENTRIES).await?;
            let is_all = entries.len() < ENTRIES;
            log.extend(entries);
            if is_all {
                break;
            }
        }
        // Where it waits is of use, but nobody's build depends on it.
        let position = self.service.position(&build).await.ok().flatten();
        let running = match position {
            Some(_) => self.service.depth().await.map_or(0, |depth| depth.running),
            None => 0,
        };
        let theirs = caller.is_some_and(|Builder(caller)| build.wanted_by.contains(&caller.tenant));
        let known =
            build::Known { build: &build, log: &log, position, running, theirs, now: Timestamp::now() };
        Ok(build::page(&known).answer(StatusCode::OK))
    }
}

/// Whether a form comes from this service's own page: a browser says it (<https://www.w3.org/TR/fetch-metadata/>), and
/// what isn't a browser isn't led here by another page.
fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
    origin.split_once("://").map(|(_, authority)| authority) == host && host.is_some()
}

fn foreign() -> Response {
    notice(
        StatusCode::FORBIDDEN,
        "That came from another page",
        "Builds are asked for on this service’s own page, or over its API.",
    )
}

fn nothing(id: &str) -> Response {
    notice(StatusCode::NOT_FOUND, "There is no such build", &format!("This service knows no build {id}."))
}

fn trouble(error: &ServiceError, id: &str) -> Response {
    match error {
        ServiceError::NotFound(_) => nothing(id),
        ServiceError::NotOwner(_) => {
            let text = "Only who asked for a build can cancel it.";
            notice(StatusCode::FORBIDDEN, "That build is somebody else’s", text)
        }
        ServiceError::Rejected(_) | ServiceError::RateLimited { .. } | ServiceError::Store(_) => {
            tracing::error!(%error, "a page can't be shown");
            let text = "It doesn’t reach what it keeps. Load this page again in a moment.";
            notice(StatusCode::SERVICE_UNAVAILABLE, "The service is in trouble", text)
        }
    }
}
