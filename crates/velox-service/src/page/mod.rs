//! The web page: select plugins, follow the build, download the binary.
//!
//! Pages are rendered on the server and work without JavaScript, which adds search, warnings while selecting, live logs
//! and copying of links. They load no resources from other hosts.

mod assets;
mod build_page;
mod configuration;
mod dockerfile;
mod error_page;
mod form_page;
mod layout;
mod missing;
mod platform;
mod selection;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::Markup;
use velox_api::{BuildId, BuildSpec, Violation};

#[cfg(test)]
pub(crate) use self::assets::{ICON, SCRIPT, STYLE};
pub(crate) use self::error_page::show_errors_as_pages;
use self::{
    build_page::BuildPage,
    configuration::ReadConfiguration,
    dockerfile::dockerfile,
    form_page::{FormErrors, FormPage},
    layout::Page,
    missing::MissingPlugins,
    platform::browser_target,
    selection::{Selection, SubmittedForm},
};
use crate::{
    catalogue::PluginCatalogue,
    error::{ApiError, ApiErrorKind},
    http::{
        AppState,
        access::{Builder, Reader, check_origin},
        body::{self, BuildPath},
        builds::{TEXT, TOML, attachment},
    },
    releases::Releases,
};

/// The size of the end of a log that is read for a page: more than the page shows, since the phase is known from
/// the last entry that has one.
const LOG_END_BYTES: usize = 128 << 10;

/// The routes `/`, `/build`, `/builds/{id}` and `/assets/{name}`, and files and parts of these pages.
pub(crate) fn routes(state: &AppState) -> Router<Arc<AppState>> {
    // Fetches the list before the first request.
    let _ = state.releases.versions();
    Router::new()
        .route("/", get(form))
        .route("/missing", get(missing))
        .route("/select", post(select).get(|| async { Redirect::to("/") }))
        .route("/velox.toml", get(file))
        .route("/Dockerfile", get(file))
        .route("/build", post(submit).get(|| async { Redirect::to("/") }))
        .route("/builds/{id}", get(show))
        .route("/builds/{id}/Dockerfile", get(build_dockerfile))
        .route("/builds/{id}/cancel", post(cancel))
        .route("/assets/{name}", get(assets::serve))
}

/// A form with its selection. As an extractor: that of the query.
struct ResolvedForm {
    catalogue: PluginCatalogue,
    selection: Selection,
    /// Whether the target is the platform of the browser.
    is_target_detected: bool,
    /// Whether the link to the selection differs from the query.
    needs_redirect: bool,
    configuration: Option<ReadConfiguration>,
}

impl FromRequestParts<Arc<AppState>> for ResolvedForm {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<AppState>) -> Result<Self, Infallible> {
        let form = SubmittedForm::parse(parts.uri.query().unwrap_or_default().as_bytes());
        Ok(Self::new(&state.releases, form, &parts.headers).await)
    }
}

/// The form in the body of a request, which no page of another site has sent.
struct OwnForm(SubmittedForm);

impl<S: Sync> FromRequest<S> for OwnForm {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        check_origin(request.headers(), request.uri())?;
        let (parts, body) = request.into_parts();
        Ok(Self(SubmittedForm::parse_body(&body::read(&parts.headers, body).await?)))
    }
}

/// `GET /`
async fn form(_: Reader, form: ResolvedForm) -> Response {
    if form.needs_redirect {
        return Redirect::to(&form.selection.link()).into_response();
    }
    form.page(FormErrors::none(), false).respond(StatusCode::OK)
}

/// `POST /select`: selects the plugins that a `.rr.yaml` needs. It is sent in the body, because it may contain secrets.
async fn select(
    State(state): State<Arc<AppState>>,
    _: Reader,
    headers: HeaderMap,
    OwnForm(mut form): OwnForm,
) -> Result<Response, ApiError> {
    let text = std::mem::take(&mut form.configuration);
    let read = tokio::task::spawn_blocking(move || ReadConfiguration::new(&text)).await;
    let mut read =
        read.map_err(|_| ApiError::new(ApiErrorKind::Internal, "failed to read the configuration"))?;
    let mut form = ResolvedForm::new(&state.releases, form, &headers).await;
    let status = if read.is_usable() {
        read.select(&mut form.selection, &form.catalogue);
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    form.configuration = Some(read);
    Ok(form.page(FormErrors::none(), false).respond(status))
}

/// `GET /missing`: the warning of the form page.
async fn missing(_: Reader, form: ResolvedForm) -> Markup {
    MissingPlugins::new(&form.selection, &form.catalogue).markup()
}

/// `GET /velox.toml` and `GET /Dockerfile`
async fn file(_: Reader, uri: Uri, form: ResolvedForm) -> Response {
    let (spec, violations) = form.spec();
    if !violations.is_empty() {
        return form.invalid(&spec, &violations);
    }
    if uri.path() == "/velox.toml" {
        return attachment("velox.toml", TOML, spec.configuration());
    }
    match dockerfile(&spec, false) {
        Some(text) => attachment("Dockerfile", TEXT, text),
        None => form.invalid(&spec, &[Violation::new("target", "a Dockerfile requires a Linux target")]),
    }
}

/// `POST /build`
async fn submit(
    State(state): State<Arc<AppState>>,
    Builder(caller): Builder,
    headers: HeaderMap,
    OwnForm(form): OwnForm,
) -> Result<Response, ApiError> {
    let accepted = form.accepted.clone();
    let form = ResolvedForm::new(&state.releases, form, &headers).await;
    let (spec, violations) = form.spec();
    if !violations.is_empty() {
        return Ok(form.invalid(&spec, &violations));
    }
    let missing = MissingPlugins::new(&form.selection, &form.catalogue);
    if !missing.is_empty() && missing.key() != accepted {
        let message =
            "some plugins would not work, see the warning; press “Build anyway” to build nevertheless";
        let errors = FormErrors::at("missing", message);
        return Ok(form.page(errors, true).respond(StatusCode::UNPROCESSABLE_ENTITY));
    }
    let error = match state.service.submit(&caller, spec.clone(), false).await {
        Ok(submission) => return Ok(Redirect::to(&page_of(submission.build().id)).into_response()),
        Err(error) => error,
    };
    let errors = if error.violations.is_empty() {
        let message = format!("{}. Try again later; your selection is kept.", error.detail());
        FormErrors::at("main", &message)
    } else {
        FormErrors::new(&error.violations, &spec, &form.catalogue)
    };
    let mut response = form.page(errors, false).respond(error.status());
    let retry_after = error.retry_after.map(|seconds| (header::RETRY_AFTER, seconds.into()));
    response.headers_mut().extend(retry_after);
    Ok(response)
}

/// `GET /builds/{id}`
async fn show(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
    caller: Result<Builder, ApiError>,
) -> Result<Response, ApiError> {
    // The build is read first: if it has finished, the log read afterwards is complete.
    let build = state.service.build(id).await?;
    let log = state.service.store.log_end(id, LOG_END_BYTES).await?;
    let first = state.service.store.log(id, 0, 1).await?.first().map(|entry| entry.time);
    // The page is shown even if the queue can't be read.
    let position = state.service.position(&build).await.ok().flatten();
    let running = match position {
        Some(_) => state.service.store.depth().await.map_or(0, |depth| depth.running),
        None => 0,
    };
    let is_own = caller.is_ok_and(|Builder(caller)| build.wanted_by.contains(&caller.tenant()));
    let lock = state.service.store.lock(id).await?;
    let (lock, now) = (lock.as_deref(), velox_api::now());
    let has_audit = state.vulnerabilities.is_some();
    let data = BuildPage { build: &build, lock, log: &log, first, position, running, is_own, has_audit, now };
    Ok(build_page::page(&data).respond(StatusCode::OK))
}

/// `GET /builds/{id}/Dockerfile`
async fn build_dockerfile(
    State(state): State<Arc<AppState>>,
    _: Reader,
    BuildPath(id): BuildPath,
) -> Result<Response, ApiError> {
    let build = state.service.build(id).await?;
    let has_lock = state.service.store.lock(id).await?.is_some();
    match dockerfile(&build.spec, has_lock) {
        Some(text) => Ok(attachment("Dockerfile", TEXT, text)),
        None => Err(ApiError::not_found("a Dockerfile requires a Linux target")),
    }
}

/// `POST /builds/{id}/cancel`
async fn cancel(
    State(state): State<Arc<AppState>>,
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

impl ResolvedForm {
    async fn new(releases: &Releases, form: SubmittedForm, headers: &HeaderMap) -> Self {
        let needs_redirect = form.needs_redirect();
        let catalogue = PluginCatalogue::of(releases, form.roadrunner()).await;
        let previous = match &form.previous_roadrunner {
            Some(previous) if *previous != catalogue.of => {
                Some(PluginCatalogue::of(releases, Some(previous)).await)
            }
            _ => None,
        };
        let of_browser = browser_target(headers)
            .filter(|target| !form.has_target() && catalogue.targets.iter().any(|known| known == target));
        let default_target = of_browser.unwrap_or(&catalogue.target);
        let selection = form.resolve(&catalogue, previous.as_ref(), default_target);
        let is_target_detected = of_browser.is_some();
        Self { catalogue, selection, is_target_detected, needs_redirect, configuration: None }
    }

    /// The build spec, and the reasons why it is invalid.
    fn spec(&self) -> (BuildSpec, Vec<Violation>) {
        let (spec, mut violations) = self.selection.spec();
        if let Err(more) = spec.clone().normalized() {
            // A missing list of plugins was reported already.
            let has_errors = !violations.is_empty();
            violations.extend(more.into_iter().filter(|it| !it.field.is_empty() || !has_errors));
        }
        (spec, violations)
    }

    fn invalid(&self, spec: &BuildSpec, violations: &[Violation]) -> Response {
        let errors = FormErrors::new(violations, spec, &self.catalogue);
        self.page(errors, false).respond(StatusCode::UNPROCESSABLE_ENTITY)
    }

    /// `is_confirming`: whether the next request builds despite the missing plugins.
    fn page(&self, errors: FormErrors, is_confirming: bool) -> Page {
        let Self { catalogue, selection, is_target_detected, configuration, .. } = self;
        let missing = MissingPlugins::new(selection, catalogue);
        let (configuration, is_target_detected) = (configuration.as_ref(), *is_target_detected);
        FormPage { catalogue, selection, errors, missing, is_confirming, is_target_detected, configuration }
            .page()
    }
}

/// The request of a submitted form.
pub(crate) fn spec_of_form(body: &[u8], catalogue: &PluginCatalogue) -> Result<BuildSpec, Vec<Violation>> {
    let (spec, violations) = SubmittedForm::parse_body(body).resolve(catalogue, None, "linux/amd64").spec();
    if violations.is_empty() { spec.normalized() } else { Err(violations) }
}
