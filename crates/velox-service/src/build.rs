//! A build as stored.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use velox_api::{
    ArtifactInfo, ArtifactView, BuildFailure, BuildId, BuildLinks, BuildSpec, BuildState, BuildView,
    FailureKind, artifact_path,
};
use velox_build::SbomFormat;

/// The maximum number of attempts of a build whose workers die: it may be the cause.
pub(crate) const MAX_ATTEMPTS: u32 = 25;

/// The tenant of a build: the name of a token, or a network address if no token is required.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(pub String);

/// A build to be queued.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// The request.
    pub spec: BuildSpec,
    /// The tenant that requests it.
    pub tenant: Tenant,
    /// Rebuild even if an equal build succeeded. A queued or running one is still shared.
    pub force: bool,
    /// The tenant's limit of unfinished builds, including this one; `None`: unlimited.
    pub at_once: Option<u64>,
    /// The tenant's limit of new builds per hour; `None`: unlimited.
    pub per_hour: Option<u64>,
    /// [`Build::trace`].
    pub trace: Option<String>,
}

impl NewBuild {
    /// A build without limits.
    #[must_use]
    pub fn new(spec: BuildSpec, tenant: Tenant) -> Self {
        Self { spec, tenant, force: false, at_once: None, per_hour: None, trace: None }
    }
}

/// A build as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// The build's ID.
    pub id: BuildId,
    /// [`BuildSpec::key`].
    pub key: String,
    /// The request.
    pub spec: BuildSpec,
    /// Recompile despite cached results.
    pub force: bool,
    /// The state.
    pub state: BuildState,
    /// The tenant that requested it first.
    pub tenant: Tenant,
    /// The tenants that haven't cancelled; the build is cancelled when the last one cancels.
    pub wanted_by: BTreeSet<Tenant>,
    /// The `traceparent` of the first request, if traced, to which the build's own trace is linked
    /// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The number of attempts: more than one if a worker died.
    pub attempts: u32,
    /// When the build was requested.
    pub created: Timestamp,
    /// When the last attempt started.
    pub started: Option<Timestamp>,
    /// When the build finished.
    pub finished: Option<Timestamp>,
    /// The outcome, in final states except [`BuildState::Cancelled`].
    pub outcome: Option<BuildOutcome>,
}

impl Build {
    /// Creates a queued build.
    #[must_use]
    pub fn queued(new: NewBuild, key: String) -> Self {
        Self {
            id: BuildId::new(),
            key,
            spec: new.spec,
            force: new.force,
            state: BuildState::Queued,
            wanted_by: [new.tenant.clone()].into(),
            tenant: new.tenant,
            trace: new.trace,
            attempts: 0,
            created: velox_api::now(),
            started: None,
            finished: None,
            outcome: None,
        }
    }

    /// Starts an attempt.
    pub(crate) fn start(&mut self) {
        self.state = BuildState::Running;
        self.attempts += 1;
        self.started = Some(velox_api::now());
    }

    /// Queues a build again that doesn't run any more, or ends it: if nobody wants it, or after too many attempts.
    pub(crate) fn put_back(&mut self) {
        if self.wanted_by.is_empty() {
            self.end(BuildState::Cancelled, None);
        } else if self.attempts >= MAX_ATTEMPTS {
            let outcome = too_many_attempts(self.attempts);
            self.end(BuildState::Failed, Some(outcome));
        } else {
            self.state = BuildState::Queued;
            self.started = None;
        }
    }

    /// Ends the build.
    pub(crate) fn end(&mut self, state: BuildState, outcome: Option<BuildOutcome>) {
        self.state = state;
        self.finished = Some(velox_api::now());
        self.outcome = outcome;
    }

    /// Removes the lock and returns it.
    pub(crate) fn take_lock(&mut self) -> Option<String> {
        match &mut self.outcome {
            Some(BuildOutcome::Succeeded(result)) => Some(std::mem::take(&mut result.lock)),
            _ => None,
        }
    }

    /// The API's view of the build.
    #[must_use]
    pub fn view(&self) -> BuildView {
        let (result, failure) = match &self.outcome {
            Some(BuildOutcome::Succeeded(result)) => (Some(result), None),
            Some(BuildOutcome::Failed(failure)) => (None, Some(failure.clone())),
            None => (None, None),
        };
        let this = format!("/v1/builds/{}", self.id);
        BuildView {
            id: self.id,
            state: self.state,
            build: self.spec.clone(),
            queue: None,
            attempts: self.attempts,
            created: self.created,
            started: self.started,
            finished: self.finished,
            artifact: result.map(|result| ArtifactView {
                path: artifact_path(&result.artifact.sha256),
                info: result.artifact.clone(),
            }),
            version: result.map(|result| result.version.clone()),
            go_version: result.map(|result| result.go_version.clone()),
            warnings: result.map(|result| result.warnings.clone()).unwrap_or_default(),
            failure,
            links: BuildLinks {
                log: format!("{this}/log"),
                configuration: format!("{this}/velox.toml"),
                lock: result.map(|_| format!("{this}/velox.lock")),
                sbom: result
                    .filter(|result| !result.documents.sboms.is_empty())
                    .map(|_| format!("{this}/sbom")),
                attestation: result
                    .filter(|result| result.documents.signed_by.is_some())
                    .map(|_| format!("{this}/attestation")),
                page: format!("/builds/{}", self.id),
                this,
            },
        }
    }
}

/// The outcome of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildOutcome {
    /// The build produced a binary.
    #[serde(rename = "made")]
    Succeeded(Box<BuildResult>),
    /// The build failed.
    Failed(BuildFailure),
}

impl BuildOutcome {
    /// The state of a build with this outcome.
    pub(crate) fn state(&self) -> BuildState {
        match self {
            Self::Succeeded(_) => BuildState::Succeeded,
            Self::Failed(_) => BuildState::Failed,
        }
    }
}

/// The outcome of a build that was attempted too often.
pub(crate) fn too_many_attempts(attempts: u32) -> BuildOutcome {
    let message = format!(
        "the build is abandoned after {attempts} attempts: each time its worker died. The build may cause it, by the memory or \
         the disk space that it needs. The logs of the workers and their machines name the build; submit it again once the \
         cause is fixed."
    );
    BuildOutcome::Failed(BuildFailure { kind: FailureKind::Internal, message })
}

/// The result of a successful build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildResult {
    /// The binary.
    pub artifact: ArtifactInfo,
    /// RoadRunner's exact version.
    pub version: String,
    /// The Go version that compiled the binary (`go1.26.8`).
    pub go_version: String,
    /// The request as a `velox.toml`.
    pub configuration: String,
    /// The `velox.lock`, which is large: a store returns it by itself, and builds without it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
    /// A warning for each plugin raised by minimal version selection.
    pub warnings: Vec<String>,
    /// What is stored beside the binary.
    #[serde(default)]
    pub documents: BuildDocuments,
}

/// The documents about a binary in the artifact store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildDocuments {
    /// The bills of materials; empty for builds of older versions.
    #[serde(default)]
    pub sboms: Vec<SbomFormat>,
    /// The ID of the key that signed the attestation; `None`: there is none.
    #[serde(default)]
    pub signed_by: Option<String>,
}

/// The name of the attestation of a build in the artifact store. Another build may have the same binary.
pub(crate) fn attestation_name(id: BuildId) -> String {
    format!("{id}.intoto.jsonl")
}
