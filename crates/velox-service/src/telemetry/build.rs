//! Metrics, traces and audit log entries of builds.

use std::time::Duration;

use velox_api::{BuildId, LogEntry};

use super::{
    Telemetry,
    audit::{AuditEntry, AuditedRequest},
};
use crate::{
    build::Tenant,
    store::{Lease, Submission},
};

/// How a build ended in its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildEnd {
    Succeeded,
    Failed,
    Cancelled,
    /// The build is queued again, or leased by another worker.
    Released,
}

impl BuildEnd {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
        }
    }
}

impl Telemetry {
    pub(crate) fn submitted(&self, tenant: &Tenant, submission: &Submission) {
        let result = match submission {
            Submission::Queued(_) => "queued",
            Submission::Joined(_) => "joined",
            Submission::Finished(_) => "finished",
        };
        self.metrics.submission(result);
        self.audit_build("submit", result, tenant, submission.build().id);
    }

    pub(crate) fn cancelled(&self, tenant: &Tenant, id: BuildId) {
        self.audit_build("cancel", "cancelled", tenant, id);
    }

    /// Records the start of a build in this process.
    pub(crate) fn build_started(&self, lease: &Lease) {
        self.spans.begin(lease);
        self.metrics.busy.inc();
    }

    /// Records the log entries of a build in this process.
    pub(crate) fn build_logged(&self, id: BuildId, entries: &[LogEntry]) {
        self.phases_ended(self.spans.entries(id, entries));
    }

    /// Records the end of a build in this process; ignored if it has ended already.
    pub(crate) fn build_ended(&self, id: BuildId, end: BuildEnd) {
        if let Some((last_phase, duration)) = self.spans.end(id, end.word()) {
            self.phases_ended(last_phase);
            self.metrics.ended((end != BuildEnd::Released).then_some(end.word()), duration);
        }
    }

    fn phases_ended(&self, phases: impl IntoIterator<Item = (String, Duration)>) {
        for (phase, duration) in phases {
            self.metrics.phase(&phase, duration);
        }
    }

    fn audit_build(&self, action: &str, decision: &str, tenant: &Tenant, id: BuildId) {
        let (who, build) = (Some(tenant.0.as_str()), Some(id.to_string()));
        let entry = AuditEntry { action, decision, who, build, ..AuditEntry::default() };
        self.audit.write(AuditedRequest::current().as_ref(), &entry);
    }
}
