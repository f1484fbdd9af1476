//! What operators see of a service: metrics, traces, logs and the audit log.
//!
//! Requests are observed by a middleware; the service and its workers report builds.

mod audit;
mod build;
mod logs;
mod metrics;
mod request;
mod spans;

use std::{io, path::Path, sync::Arc};

use prometheus_client::metrics::counter::Counter;

pub use self::logs::{Logs, LogsOptions};
use self::{audit::Audit, metrics::Metrics, spans::Spans};
pub(crate) use self::{
    audit::{called, judged},
    build::BuildEnd,
    request::observe,
    spans::current as current_trace,
};
use crate::store::QueueDepth;

/// Where what happens is counted and written down.
pub(crate) struct Telemetry {
    metrics: Metrics,
    audit: Audit,
    spans: Spans,
}

impl Telemetry {
    /// With an audit log in this file, which is appended to.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn new(audit: Option<&Path>) -> io::Result<Arc<Self>> {
        let audit = Audit::open(audit)?;
        Ok(Arc::new(Self { metrics: Metrics::new(), audit, spans: Spans::default() }))
    }

    /// Counts what builds download.
    pub(crate) fn downloaded(&self) -> Counter {
        self.metrics.downloaded.clone()
    }

    /// The metrics in OpenMetrics' format, with the queue at this depth.
    pub(crate) fn metrics(&self, depth: QueueDepth) -> String {
        self.metrics.text(depth)
    }
}
