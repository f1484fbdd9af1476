//! Metrics, traces, logs and the audit log.

mod audit;
mod build;
mod logs;
mod metrics;
mod request;
mod spans;
mod throttle;

use std::{io, path::Path, sync::Arc};

pub use self::logs::{LogFormat, LogOptions, Logging};
use self::{audit::AuditLog, metrics::Metrics, spans::Spans, throttle::LogThrottle};
pub(crate) use self::{
    audit::{record_call_id, record_call_status},
    build::BuildEnd,
    request::observe,
    spans::current as current_trace,
    throttle::THROTTLE_INTERVAL,
};

/// The metrics, spans and audit log of a process.
pub(crate) struct Telemetry {
    pub(crate) metrics: Metrics,
    audit: AuditLog,
    spans: Spans,
    throttle: LogThrottle,
}

impl Telemetry {
    /// Opens the audit log, if one is configured.
    pub(crate) fn new(audit: Option<&Path>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            metrics: Metrics::new(),
            audit: AuditLog::open(audit)?,
            spans: Spans::default(),
            throttle: LogThrottle::default(),
        }))
    }
}
