//! A span for each build and each of its phases.

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

/// What a request's span is called in the headers of others
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
const PARENT: &str = "traceparent";

/// The builds that run here.
#[derive(Default)]
pub(super) struct Spans(Mutex<HashMap<BuildId, Running>>);

pub(super) struct Running {
    context: Context,
    started: Instant,
    phase: Option<Phase>,
}

struct Phase {
    name: String,
    since: SystemTime,
    span: BoxedSpan,
}

/// The span of the request that is being answered; `None`: traces aren't kept.
pub(crate) fn current() -> Option<String> {
    let mut headers = HashMap::new();
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|known| known.inject_context(&context, &mut headers));
    headers.remove(PARENT)
}

/// The span that is called so, in whichever process it was.
fn link(parent: &str) -> Option<Link> {
    let headers = HashMap::from([(PARENT.to_owned(), parent.to_owned())]);
    let context = global::get_text_map_propagator(|known| known.extract(&headers));
    let asked = context.span().span_context().clone();
    asked.is_valid().then(|| Link::with_context(asked))
}

impl Spans {
    fn running(&self) -> MutexGuard<'_, HashMap<BuildId, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A build begins here; it links to the request that asked first.
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
        self.running().insert(id, Running { context, started: Instant::now(), phase: None });
    }

    /// What the log says of phases; each one that ended, and how long it took.
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
            running.phase = Some(Phase { name: name.clone(), since: now, span });
        }
        ended
    }

    /// It ended, so: the last phase with how long it took, and how long it all took. `None`: it didn't run here.
    pub(super) fn end(
        &self,
        id: BuildId,
        how: &'static str,
    ) -> Option<(Option<(String, Duration)>, Duration)> {
        let mut running = self.running().remove(&id)?;
        let last = running.end_phase(SystemTime::now());
        let span = running.context.span();
        span.set_attribute(KeyValue::new("vx.build.state", how));
        if how == "failed" {
            span.set_status(Status::error("the build failed"));
        }
        span.end();
        Some((last, running.started.elapsed()))
    }
}

impl Running {
    fn end_phase(&mut self, now: SystemTime) -> Option<(String, Duration)> {
        let Phase { name, since, mut span } = self.phase.take()?;
        span.end_with_timestamp(now);
        Some((name, now.duration_since(since).unwrap_or_default()))
    }
}
