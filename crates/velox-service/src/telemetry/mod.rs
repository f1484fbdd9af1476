//! Metrics, traces, logs and the audit log.

mod audit;
mod build;
mod logs;
mod metrics;
mod request;
mod spans;
mod throttle;

use std::{io, path::Path, sync::Arc};

use prometheus_client::metrics::counter::Counter;

pub use self::logs::{LogFormat, LogOptions, Logging};
use self::{audit::AuditLog, metrics::Metrics, spans::Spans, throttle::LogThrottle};
pub(crate) use self::{
    audit::{record_call_id, record_call_status},
    build::BuildEnd,
    request::observe,
    spans::current as current_trace,
    throttle::THROTTLE_INTERVAL,
};
use crate::store::QueueDepth;

/// The metrics, spans and audit log of a process.
pub(crate) struct Telemetry {
    metrics: Metrics,
    audit: AuditLog,
    spans: Spans,
    throttle: LogThrottle,
}

impl Telemetry {
    /// Opens the audit log, if one is configured.
    pub(crate) fn new(audit: Option<&Path>) -> io::Result<Arc<Self>> {
        let audit = AuditLog::open(audit)?;
        Ok(Arc::new(Self {
            metrics: Metrics::new(),
            audit,
            spans: Spans::default(),
            throttle: LogThrottle::default(),
        }))
    }

    /// The counter of bytes downloaded by builds.
    pub(crate) fn downloaded(&self) -> Counter {
        self.metrics.downloaded.clone()
    }

    /// Records something that the system can't forbid builds.
    pub(crate) fn isolation_gap(&self, name: &str) {
        self.metrics.isolation_gap(name);
    }

    pub(crate) fn metrics(&self, depth: QueueDepth) -> String {
        self.metrics.text(depth)
    }
}
