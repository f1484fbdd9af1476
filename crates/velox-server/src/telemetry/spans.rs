//! A span for each build and each of its phases.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, global,
    global::BoxedSpan,
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{BuildId, Entry, Lease};

/// Requests whose builds didn't begin yet are forgotten beyond this.
const REMEMBERED: usize = 10_000;

/// The builds that run here, and who asked for those to come.
#[derive(Default)]
pub(super) struct Spans(Mutex<Known>);

#[derive(Default)]
struct Known {
    asked: HashMap<BuildId, SpanContext>,
    running: HashMap<BuildId, Running>,
}

struct Running {
    context: Context,
    started: Instant,
    phase: Option<Phase>,
}

struct Phase {
    name: String,
    since: SystemTime,
    span: BoxedSpan,
}

impl Spans {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that is being answered asked for this build.
    pub(super) fn asked(&self, id: BuildId) {
        let context = tracing::Span::current().context().span().span_context().clone();
        let mut known = self.known();
        if context.is_valid() && known.asked.len() < REMEMBERED {
            known.asked.insert(id, context);
        }
    }

    pub(super) fn begin(&self, lease: &Lease) {
        let id = lease.build.id;
        let mut known = self.known();
        let tracer = global::tracer("vx");
        let mut span = tracer.span_builder("build").with_kind(SpanKind::Consumer).with_attributes([
            KeyValue::new("vx.build.id", id.to_string()),
            KeyValue::new("vx.build.target", lease.build.spec.target.clone()),
            KeyValue::new("vx.build.attempt", i64::from(lease.build.attempts)),
        ]);
        if let Some(asked) = known.asked.remove(&id) {
            span = span.with_links(vec![opentelemetry::trace::Link::with_context(asked)]);
        }
        let context = Context::new().with_span(span.start_with_context(&tracer, &Context::new()));
        known.running.insert(id, Running { context, started: Instant::now(), phase: None });
    }

    /// What the log says of phases; each one that ended, and how long it took.
    pub(super) fn entries(&self, id: BuildId, entries: &[Entry]) -> Vec<(String, Duration)> {
        let mut known = self.known();
        let Some(running) = known.running.get_mut(&id) else { return Vec::new() };
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
        let mut running = self.known().running.remove(&id)?;
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
