//! The web page: select plugins, follow the build, download the binary.
//!
//! Pages are rendered on the server and work without JavaScript, which adds search, live logs and copying of
//! links. They load no resources from other hosts.

mod assets;
mod build_page;
mod error_page;
mod form_page;
mod layout;
mod selection;

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
use velox_api::{BuildId, LogEntry};

#[cfg(test)]
pub(crate) use self::assets::{ICON, SCRIPT, STYLE};
pub(crate) use self::error_page::show_errors_as_pages;
use self::{
    build_page::BuildPage,
    form_page::FormErrors,
    selection::{Selection, SubmittedForm},
};
use crate::{
    catalogue::PluginCatalogue,
    http::{
        access::{Builder, Reader, check_origin},
        body::{self, BuildPath},
        error::ApiError,
    },
    releases::Releases,
    service::Service,
};

/// The number of log entries read at once.
const LOG_BATCH: usize = 1024;
/// The maximum number of log entries on a page; browsers request the rest.
const MAX_LOG_ENTRIES: usize = 16 * LOG_BATCH;

struct PageState {
    service: Service,
    releases: Releases,
}

/// The routes `/`, `/build`, `/builds/{id}` and `/assets/{name}`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(service: Service, releases: Releases) -> Router<S> {
    // Fetches the list before the first request.
    let _ = releases.versions();
    Router::new()
        .route("/", get(form))
        .route("/build", post(submit).get(|| async { Redirect::to("/") }))
        .route("/builds/{id}", get(show))
        .route("/builds/{id}/cancel", post(cancel))
        .route("/assets/{name}", get(assets::serve))
        .with_state(Arc::new(PageState { service, releases }))
}

/// `GET /`
async fn form(State(state): State<Arc<PageState>>, _: Reader, RawQuery(query): RawQuery) -> Response {
    let form = SubmittedForm::parse(query.unwrap_or_default().as_bytes());
    let needs_redirect = form.needs_redirect();
    let (catalogue, selection) = state.resolve(form).await;
    if needs_redirect {
        return Redirect::to(&selection.link()).into_response();
    }
    form_page::page(&catalogue, &selection, &FormErrors::none()).respond(StatusCode::OK)
}

/// `POST /build`
async fn submit(
    State(state): State<Arc<PageState>>,
    Builder(caller): Builder,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_origin(&headers, &uri)?;
    let form = SubmittedForm::parse(&body::read(&headers, body).await?);
    let (catalogue, selection) = state.resolve(form).await;
    let (spec, mut violations) = selection.spec();
    if let Err(more) = spec.clone().normalized() {
        // A missing list of plugins was reported already.
        let has_errors = !violations.is_empty();
        violations.extend(more.into_iter().filter(|it| !it.field.is_empty() || !has_errors));
    }
    let error = if violations.is_empty() {
        match state.service.submit(&caller, spec.clone(), false).await {
            Ok(submission) => {
                return Ok(Redirect::to(&page_of(submission.build().id)).into_response());
            }
            Err(error) => ApiError::from(error),
        }
    } else {
        ApiError::invalid(violations)
    };
    let errors = if error.violations.is_empty() {
        FormErrors::general(&format!("{}. Try again later; your selection is kept.", error.detail()))
    } else {
        FormErrors::new(&error.violations, &spec, &catalogue)
    };
    let mut response = form_page::page(&catalogue, &selection, &errors).respond(error.status());
    let retry_after = error.retry_after.map(|seconds| (header::RETRY_AFTER, seconds.into()));
    response.headers_mut().extend(retry_after);
    Ok(response)
}

/// `GET /builds/{id}`
async fn show(
    State(state): State<Arc<PageState>>,
    _: Reader,
    BuildPath(id): BuildPath,
    caller: Result<Builder, ApiError>,
) -> Result<Response, ApiError> {
    // The build is read first: if it has finished, the log read afterwards is complete.
    let build = state.service.build(id).await?;
    let mut log = Vec::new();
    while log.len() < MAX_LOG_ENTRIES {
        let after = log.last().map_or(0, |entry: &LogEntry| entry.seq);
        let entries = state.service.store.log(id, after, LOG_BATCH).await?;
        let is_last = entries.len() < LOG_BATCH;
        log.extend(entries);
        if is_last {
            break;
        }
    }
    // The page is shown even if the queue can't be read.
    let position = state.service.position(&build).await.ok().flatten();
    let running = match position {
        Some(_) => state.service.depth().await.map_or(0, |depth| depth.running),
        None => 0,
    };
    let is_own = caller.is_ok_and(|Builder(caller)| build.wanted_by.contains(&caller.tenant));
    let lock = state.service.store.lock(id).await?;
    let now = Timestamp::now();
    let data = BuildPage { build: &build, lock: lock.as_deref(), log: &log, position, running, is_own, now };
    Ok(build_page::page(&data).respond(StatusCode::OK))
}

/// `POST /builds/{id}/cancel`
async fn cancel(
    State(state): State<Arc<PageState>>,
    Builder(caller): Builder,
    BuildPath(id): BuildPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Redirect, ApiError> {
    check_origin(&headers, &uri)?;
    let build = state.service.cancel(&caller, id).await?;
    Ok(Redirect::to(&page_of(build.id)))
}

fn page_of(id: BuildId) -> String {
    format!("/builds/{id}")
}

impl PageState {
    async fn resolve(&self, form: SubmittedForm) -> (PluginCatalogue, Selection) {
        let catalogue = PluginCatalogue::of(&self.releases, form.roadrunner()).await;
        let previous = match &form.previous_roadrunner {
            Some(previous) if *previous != catalogue.of => {
                Some(PluginCatalogue::of(&self.releases, Some(previous)).await)
            }
            _ => None,
        };
        let selection = form.resolve(&catalogue, previous.as_ref());
        (catalogue, selection)
    }
}
