//! A build as the stores keep it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use velox_api::{
    ArtifactInfo, ArtifactView, BuildFailure, BuildId, BuildLinks, BuildSpec, BuildState, BuildView,
    artifact_path,
};

/// On whose account a build runs: the name of a token, or an address where nobody needs one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(pub String);

/// A build that is to be queued, unless there is one like it.
#[derive(Debug, Clone)]
pub struct NewBuild {
    /// What is asked for.
    pub spec: BuildSpec,
    /// Who asks.
    pub tenant: Tenant,
    /// Anew, even where the binary is there already. One that is queued or running is shared all the same.
    pub force: bool,
    /// How many builds of the tenant may be queued or running with this one; `None`: as many as the queue takes.
    pub at_once: Option<u64>,
    /// [`Build::trace`].
    pub trace: Option<String>,
}

/// A build as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Its name.
    pub id: BuildId,
    /// [`BuildSpec::key`].
    pub key: String,
    /// What is asked for.
    pub spec: BuildSpec,
    /// Compile anew, whatever the caches have.
    pub force: bool,
    /// How far it is.
    pub state: BuildState,
    /// On whose account it runs: who asked first.
    pub tenant: Tenant,
    /// Who still wants it; where the last one cancels, it ends.
    pub wanted_by: BTreeSet<Tenant>,
    /// The `traceparent` of the request that asked first (<https://www.w3.org/TR/trace-context/#traceparent-header>), where
    /// traces are kept: whichever process builds, its trace leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How often a worker took it: more than once where one died.
    pub attempts: u32,
    /// When it was asked for.
    pub created: Timestamp,
    /// When a worker took it, the last time.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What came of it; there with the final states, save for [`BuildState::Cancelled`].
    pub outcome: Option<BuildOutcome>,
}

impl Build {
    /// A new build that waits for its turn.
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
            created: Timestamp::now(),
            started: None,
            finished: None,
            outcome: None,
        }
    }

    /// The build as the API shows it.
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
                page: format!("/builds/{}", self.id),
                this,
            },
        }
    }
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildOutcome {
    /// With a binary.
    #[serde(rename = "made")]
    Succeeded(Box<BuildResult>),
    /// Without one.
    Failed(BuildFailure),
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildResult {
    /// The binary.
    pub artifact: ArtifactInfo,
    /// RoadRunner's exact version.
    pub version: String,
    /// The Go version that compiled it (`go1.26.8`).
    pub go_version: String,
    /// The `velox.toml` that says the same.
    pub configuration: String,
    /// The `velox.lock` that belongs to it.
    pub lock: String,
    /// The plugins raised by minimal version selection, a sentence each.
    pub warnings: Vec<String>,
}
