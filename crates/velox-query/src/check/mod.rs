//! Whether a server is well made, as far as that can be told without compiling it.

mod rules;
mod vulnerable;

use std::{ops::Range, sync::Arc};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use velox_manifest::{Diagnostic, Level};

use velox_build::{BuildRequest, Error, ErrorKind, Event, Reporter};

use crate::{ModuleGraph, Vulnerability};

/// What was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The configuration is read with a warning.
    Configuration,
    /// Every ref names something, and all of it fits into one server.
    Resolve,
    /// Plugins have the majors that RoadRunner was released with.
    PluginMajor,
    /// Plugins are written for the majors of the modules through which they and RoadRunner speak.
    Interface,
    /// Plugins are compiled at the version that was asked for.
    Raised,
    /// Refs stay what they are.
    MovingRef,
    /// Plugins are looked after.
    Deprecated,
    /// No module has a known vulnerability.
    Vulnerable,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// By which rule.
    pub rule: Rule,
    /// How much it matters, what is wrong, where; its help is the remedy.
    pub diagnostic: Diagnostic,
    /// Why it matters, a line each.
    pub explanation: Vec<String>,
    /// The vulnerabilities, of [`Rule::Vulnerable`].
    pub vulnerabilities: Vec<Vulnerability>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// In the order of the configuration; what has no place in it comes last.
    pub findings: Vec<Finding>,
    /// RoadRunner's version; `None`: it couldn't be resolved.
    pub roadrunner: Option<String>,
    /// What the database of vulnerabilities was asked; else why it wasn't.
    pub looked_up: Result<LookedUp, String>,
}

/// How many modules the database of vulnerabilities was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LookedUp {
    /// So many.
    pub asked: usize,
    /// So many not, since their names are private (GOPRIVATE, GONOPROXY, GONOSUMDB, a forge of one's own).
    pub private: usize,
}

/// Checks the server of a request. As with [`ModuleGraph::load`], nothing but caches is written.
///
/// # Errors
/// An interruption, and nothing else: what is wrong is found, not failed with.
pub async fn check(
    request: &BuildRequest,
    reporter: Arc<dyn Reporter>,
    cancel: CancellationToken,
) -> Result<CheckReport, Error> {
    let quiet = Arc::new(WithoutRaised(Arc::clone(&reporter)));
    // A raised plugin is a finding like any other, and no reason to look no further.
    let mut lenient = request.clone();
    lenient.manifest.strict = false;
    lenient.options.versions.strict = false;
    let studied = match ModuleGraph::load(&lenient, quiet, cancel.clone()).await {
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        studied => studied,
    };
    let mut findings = rules::of_configuration(&request.manifest, studied.as_ref().ok());
    let mut checked = match &studied {
        Ok(study) => {
            findings.extend(rules::of_study(request, study));
            let looked_up = tokio::select! {
                looked_up = vulnerable::find(request, study) => looked_up,
                () = cancel.cancelled() => return Err(Error::interrupted()),
            };
            let looked_up = looked_up.map(|(asked, vulnerable)| {
                findings.extend(vulnerable);
                asked
            });
            CheckReport {
                findings,
                roadrunner: Some(study.resolved.lock.roadrunner.version.clone()),
                looked_up,
            }
        }
        Err(error) => {
            findings.extend(rules::of_failure(&request.manifest, error));
            let why = "the versions aren't known".to_owned();
            CheckReport { findings, roadrunner: None, looked_up: Err(why) }
        }
    };
    checked.findings.sort_by_key(|finding| {
        let place = finding.diagnostic.span.as_ref().map_or(usize::MAX, |span| span.start);
        (place, finding.rule)
    });
    Ok(checked)
}

impl Finding {
    /// One of the configuration's own warnings.
    #[must_use]
    pub fn of_warning(diagnostic: Diagnostic) -> Self {
        Self { rule: Rule::Configuration, diagnostic, explanation: Vec::new(), vulnerabilities: Vec::new() }
    }

    fn new(rule: Rule, level: Level, message: String, span: Option<Range<usize>>, label: &str) -> Self {
        let label = Some(label.to_owned());
        let diagnostic = Diagnostic { level, message, span, label, help: Vec::new() };
        Self { rule, diagnostic, explanation: Vec::new(), vulnerabilities: Vec::new() }
    }

    fn because(mut self, explanation: impl Into<String>) -> Self {
        self.explanation.push(explanation.into());
        self
    }

    fn remedy(mut self, help: impl Into<String>) -> Self {
        self.diagnostic.help.push(help.into());
        self
    }
}

/// A raised plugin is a finding here: to be told once.
struct WithoutRaised(Arc<dyn Reporter>);

impl Reporter for WithoutRaised {
    fn report(&self, event: Event) {
        if !matches!(event, Event::Raised(_)) {
            self.0.report(event);
        }
    }
}
