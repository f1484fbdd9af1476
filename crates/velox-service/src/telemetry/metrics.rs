//! The metrics, in the OpenMetrics text format (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).

use std::time::Duration;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};

use crate::store::QueueDepth;

type Labels<const N: usize> = [(&'static str, String); N];
type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels<3>, Counter>,
    request_duration: Histograms<2>,
    submissions: Family<Labels<1>, Counter>,
    builds: Family<Labels<1>, Counter>,
    build_duration: Histograms<1>,
    phase_duration: Histograms<1>,
    /// Builds running in this process.
    pub(super) busy: Gauge,
    depth: Family<Labels<1>, Gauge>,
    /// Bytes of artifacts sent to clients.
    pub(crate) artifact_bytes: Counter,
    /// Bytes downloaded by builds.
    pub(crate) downloaded: Counter,
    denied: Family<Labels<1>, Counter>,
    isolation_gaps: Family<Labels<1>, Gauge>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let request_buckets: fn() -> Histogram =
            || Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        let build_buckets: fn() -> Histogram =
            || Histogram::new([0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0, 1800.0]);
        let requests = Family::new_with_constructor(request_buckets);
        let [builds, phases] = [(); 2].map(|()| Family::new_with_constructor(build_buckets));
        let submissions = "Accepted build requests: queued, joined to a running build, or finished before";
        let downloaded = "Bytes downloaded by builds of this process";
        let gaps = "What builds of this process can access because this system can't forbid it";
        let mut registry = Registry::with_prefix("vx");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build_info", "The version of vx", version);
        let all = &mut registry;
        Self {
            requests: add(all, "requests", "Handled requests"),
            request_duration: add_seconds(all, "request_duration", "Time to the response headers", requests),
            submissions: add(all, "submissions", submissions),
            builds: add(all, "builds", "Builds that ended in this process, by state"),
            build_duration: add_seconds(
                all,
                "build_duration",
                "Build time from the start of the worker, by state",
                builds,
            ),
            phase_duration: add_seconds(all, "build_phase_duration", "Time of each build phase", phases),
            busy: add(all, "workers_busy", "Builds running in this process"),
            depth: add(all, "queue_depth", "Queued and running builds of all nodes"),
            artifact_bytes: add_bytes(all, "artifact_served", "Bytes of binaries sent"),
            downloaded: add_bytes(all, "build_downloaded", downloaded),
            denied: add(all, "denied", "Rejected requests, by reason"),
            isolation_gaps: add(all, "isolation_gaps", gaps),
            registry,
        }
    }

    pub(super) fn request(&self, method: &str, route: &str, status: u16, duration: Duration) {
        let label = |name, value: &str| (name, value.to_owned());
        let labels = [label("method", method), label("route", route), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        let labels = [label("method", method), label("route", route)];
        self.request_duration.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Records something that the system can't forbid builds.
    pub(crate) fn isolation_gap(&self, name: &str) {
        self.isolation_gaps.get_or_create(&[("access", name.to_owned())]).set(1);
    }

    pub(super) fn denied(&self, reason: &str) {
        self.denied.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    pub(super) fn submission(&self, result: &str) {
        self.submissions.get_or_create(&[("result", result.to_owned())]).inc();
    }

    /// Counts the end of a build; `state` is `None` if the build was released to the queue.
    pub(super) fn ended(&self, state: Option<&str>, duration: Duration) {
        self.busy.dec();
        if let Some(state) = state {
            let labels = [("state", state.to_owned())];
            self.builds.get_or_create(&labels).inc();
            self.build_duration.get_or_create(&labels).observe(duration.as_secs_f64());
        }
    }

    pub(super) fn phase(&self, phase: &str, duration: Duration) {
        self.phase_duration.get_or_create(&[("phase", phase.to_owned())]).observe(duration.as_secs_f64());
    }

    /// The metrics in the text format.
    pub(crate) fn text(&self, depth: QueueDepth) -> String {
        for (state, count) in [("queued", depth.queued), ("running", depth.running)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.depth.get_or_create(&[("state", state.to_owned())]).set(count);
        }
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Registers a new metric.
fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn add_bytes(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let metric = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

fn add_seconds<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: Histograms<N>,
) -> Histograms<N> {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}
