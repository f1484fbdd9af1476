//! What is counted, traced and audited of builds.

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

/// How a build left its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildEnd {
    Succeeded,
    Failed,
    Cancelled,
    /// It is queued again, or another worker has it.
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
    /// A tenant submitted a build.
    pub(crate) fn submitted(&self, tenant: &Tenant, submission: &Submission) {
        let result = match submission {
            Submission::Queued(_) => "queued",
            Submission::Joined(_) => "joined",
            Submission::Finished(_) => "finished",
        };
        self.metrics.submission(result);
        self.audit_build("submit", result, tenant, submission.build().id);
    }

    /// A tenant cancelled a build.
    pub(crate) fn cancelled(&self, tenant: &Tenant, id: BuildId) {
        self.audit_build("cancel", "cancelled", tenant, id);
    }

    /// A worker of this process started a build.
    pub(crate) fn build_started(&self, lease: &Lease) {
        self.spans.begin(lease);
        self.metrics.begun();
    }

    /// A build of this process logged these entries.
    pub(crate) fn build_logged(&self, id: BuildId, entries: &[LogEntry]) {
        self.phases_ended(self.spans.entries(id, entries));
    }

    /// A build of this process ended. Nothing happens where it ended before.
    pub(crate) fn build_ended(&self, id: BuildId, end: BuildEnd) {
        if let Some((last_phase, duration)) = self.spans.end(id, end.word()) {
            self.phases_ended(last_phase);
            self.metrics.ended((end != BuildEnd::Released).then_some(end.word()), duration);
        }
    }

    /// Bytes of an artifact were sent to a client.
    pub(crate) fn artifact_sent(&self, bytes: u64) {
        self.metrics.served(bytes);
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
