//! Spans of builds and their phases.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, global,
    global::BoxedSpan,
    trace::{Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use velox_api::{BuildId, LogEntry};

use crate::store::Lease;

/// The header that identifies a span (<https://www.w3.org/TR/trace-context/#traceparent-header>).
const TRACEPARENT: &str = "traceparent";

/// The spans of the builds that run in this process.
#[derive(Default)]
pub(super) struct Spans(Mutex<HashMap<BuildId, BuildSpan>>);

pub(super) struct BuildSpan {
    context: Context,
    started: Instant,
    phase: Option<PhaseSpan>,
}

struct PhaseSpan {
    name: String,
    since: SystemTime,
    span: BoxedSpan,
}

/// The `traceparent` of the current request; `None` if tracing is disabled.
pub(crate) fn current() -> Option<String> {
    let mut headers = HashMap::new();
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut headers));
    headers.remove(TRACEPARENT)
}

/// Returns a link to the span of a `traceparent`.
fn link(parent: &str) -> Option<Link> {
    let headers = HashMap::from([(TRACEPARENT.to_owned(), parent.to_owned())]);
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&headers));
    let linked = context.span().span_context().clone();
    linked.is_valid().then(|| Link::with_context(linked))
}

impl Spans {
    fn running(&self) -> MutexGuard<'_, HashMap<BuildId, BuildSpan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the span of a build, linked to the request that submitted it.
    pub(super) fn begin(&self, lease: &Lease) {
        let id = lease.build.id;
        let tracer = global::tracer("vx");
        let mut span = tracer.span_builder("build").with_kind(SpanKind::Consumer).with_attributes([
            KeyValue::new("vx.build.id", id.to_string()),
            KeyValue::new("vx.build.target", lease.build.spec.target.to_string()),
            KeyValue::new("vx.build.attempt", i64::from(lease.build.attempts)),
        ]);
        if let Some(link) = lease.build.trace.as_deref().and_then(link) {
            span = span.with_links(vec![link]);
        }
        let context = Context::new().with_span(span.start_with_context(&tracer, &Context::new()));
        self.running().insert(id, BuildSpan { context, started: Instant::now(), phase: None });
    }

    /// Tracks the phases in log entries; returns the phases that ended, with their durations.
    pub(super) fn entries(&self, id: BuildId, entries: &[LogEntry]) -> Vec<(String, Duration)> {
        let mut builds = self.running();
        let Some(running) = builds.get_mut(&id) else { return Vec::new() };
        let mut ended = Vec::new();
        for entry in entries {
            let Some(name) = &entry.phase else { continue };
            if running.phase.as_ref().is_some_and(|phase| phase.name == *name) {
                continue;
            }
            let now = SystemTime::try_from(entry.time).unwrap_or_else(|_| SystemTime::now());
            ended.extend(running.end_phase(now));
            let tracer = global::tracer("vx");
            let span = tracer.span_builder(name.clone()).with_start_time(now);
            let span = span.start_with_context(&tracer, &running.context);
            running.phase = Some(PhaseSpan { name: name.clone(), since: now, span });
        }
        ended
    }

    /// Ends the span; returns the last phase and the build's duration, or `None` for an unknown build.
    pub(super) fn end(
        &self,
        id: BuildId,
        state: &'static str,
    ) -> Option<(Option<(String, Duration)>, Duration)> {
        let mut running = self.running().remove(&id)?;
        let last = running.end_phase(SystemTime::now());
        let span = running.context.span();
        span.set_attribute(KeyValue::new("vx.build.state", state));
        if state == "failed" {
            span.set_status(Status::error("the build failed"));
        }
        span.end();
        Some((last, running.started.elapsed()))
    }
}

impl BuildSpan {
    fn end_phase(&mut self, now: SystemTime) -> Option<(String, Duration)> {
        let PhaseSpan { name, since, mut span } = self.phase.take()?;
        span.end_with_timestamp(now);
        Some((name, now.duration_since(since).unwrap_or_default()))
    }
}
