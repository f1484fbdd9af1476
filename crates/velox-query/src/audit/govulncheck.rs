//! The output of govulncheck: a stream of JSON messages
//! (<https://pkg.go.dev/golang.org/x/vuln/internal/govulncheck>).

use std::collections::BTreeMap;

use serde::Deserialize;
use velox_build::{Error, GoTool};
use velox_gomod::semver;

/// Pinned with the checksums of everything that it is compiled from.
pub(super) const GOVULNCHECK: GoTool = GoTool {
    name: "govulncheck",
    package: "golang.org/x/vuln/cmd/govulncheck",
    version: "v1.9.0",
    go_mod: include_str!("govulncheck.mod"),
    go_sum: include_str!("govulncheck.sum"),
};

/// The messages of one analysis.
#[derive(Debug, Default)]
pub(super) struct Analysis {
    pub(super) config: ScanConfig,
    pub(super) modules: Vec<ScannedModule>,
    /// By id.
    pub(super) entries: BTreeMap<String, OsvEntry>,
    pub(super) findings: Vec<ScanFinding>,
}

#[derive(Deserialize)]
struct ScanMessage {
    config: Option<ScanConfig>,
    #[serde(rename = "SBOM")]
    sbom: Option<ScannedModules>,
    osv: Option<OsvEntry>,
    finding: Option<ScanFinding>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ScanConfig {
    pub(super) protocol_version: String,
    pub(super) go_version: Option<String>,
}

#[derive(Deserialize)]
struct ScannedModules {
    #[serde(default)]
    modules: Vec<ScannedModule>,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScannedModule {
    pub(super) path: String,
    /// Empty for the main module and for local directories.
    #[serde(default)]
    pub(super) version: String,
}

/// One way in which a vulnerability affects the program.
#[derive(Debug, Deserialize)]
pub(super) struct ScanFinding {
    pub(super) osv: String,
    /// From the vulnerable symbol to the entry point; only the module, or the module and the package, if the symbol
    /// isn't called.
    #[serde(default)]
    pub(super) trace: Vec<ScanFrame>,
    /// The target that was analyzed.
    #[serde(skip)]
    pub(super) target: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ScanFrame {
    pub(super) module: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) package: String,
    #[serde(default)]
    pub(super) function: String,
    #[serde(default)]
    pub(super) receiver: String,
    pub(super) position: Option<ScanPosition>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ScanPosition {
    #[serde(default)]
    pub(super) filename: String,
    #[serde(default)]
    pub(super) line: u64,
}

/// The used part of an entry of the database (<https://ossf.github.io/osv-schema/>).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct OsvEntry {
    pub(super) id: String,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    #[serde(default)]
    pub(super) summary: String,
    #[serde(default)]
    pub(super) details: String,
    pub(super) withdrawn: Option<String>,
    #[serde(default)]
    pub(super) affected: Vec<AffectedModule>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AffectedModule {
    package: AffectedPackage,
    #[serde(default)]
    ranges: Vec<AffectedRange>,
}

#[derive(Debug, Clone, Deserialize)]
struct AffectedPackage {
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct AffectedRange {
    #[serde(default)]
    events: Vec<RangeEvent>,
}

/// The first version with or without the vulnerability, without `v`; the introduced one can be `0`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
struct RangeEvent {
    introduced: Option<String>,
    fixed: Option<String>,
}

impl Analysis {
    pub(super) fn parse(output: &str) -> Result<Self, Error> {
        let failed = |message: String| {
            Error::build(format!("failed to parse the output of {}: {message}", GOVULNCHECK.name))
        };
        let mut analysis = Self::default();
        for message in serde_json::Deserializer::from_str(output).into_iter::<ScanMessage>() {
            let ScanMessage { config, sbom, osv, finding } =
                message.map_err(|error| failed(error.to_string()))?;
            if let Some(config) = config {
                analysis.config = config;
            }
            analysis.modules.extend(sbom.into_iter().flat_map(|sbom| sbom.modules));
            analysis.entries.extend(osv.map(|entry| (entry.id.clone(), entry)));
            analysis.findings.extend(finding);
        }
        if analysis.config.protocol_version.is_empty() || analysis.modules.is_empty() {
            return Err(failed("it is incomplete".to_owned()));
        }
        analysis.modules.sort();
        analysis.modules.dedup();
        Ok(analysis)
    }
}

impl Analysis {
    /// Adds the analysis of another target of the same versions.
    pub(super) fn add(&mut self, other: Self, target: &str) {
        let Self { config, modules, entries, findings } = other;
        self.config = config;
        self.modules.extend(modules);
        self.modules.sort();
        self.modules.dedup();
        self.entries.extend(entries);
        let of_target = |finding| ScanFinding { target: target.to_owned(), ..finding };
        self.findings.extend(findings.into_iter().map(of_target));
    }
}

impl ScanFrame {
    /// `example.com/acme/lib.Reader.Read`
    pub(super) fn symbol(&self) -> String {
        let receiver = self.receiver.trim_start_matches('*');
        let names = [self.package.as_str(), receiver, self.function.as_str()];
        names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
    }
}

impl OsvEntry {
    /// One line.
    pub(super) fn title(&self) -> String {
        const MAX_CHARS: usize = 200;
        let text = if self.summary.is_empty() { &self.details } else { &self.summary };
        text.lines().next().unwrap_or_default().chars().take(MAX_CHARS).collect()
    }

    /// The lowest fixed version of a module above `version`, with `v`.
    pub(super) fn fixed(&self, module: &str, version: &str) -> Option<String> {
        self.events(module)
            .filter_map(|event| Some(with_v(event.fixed.as_ref()?)))
            .filter(|fixed| semver::compare(fixed, version).is_gt())
            // A fix of this version's range, if the versions in between are not vulnerable again.
            .filter(|fixed| !self.is_affected(module, fixed))
            .min_by(|one, other| semver::compare(one, other))
    }

    /// Whether a version of a module is in a vulnerable range.
    pub(super) fn is_affected(&self, module: &str, version: &str) -> bool {
        let mut affected = self.affected.iter().filter(|affected| affected.package.name == module);
        affected.any(|affected| {
            // Without ranges, all versions are affected.
            affected.ranges.is_empty() || affected.ranges.iter().any(|range| range.contains(version))
        })
    }

    fn events(&self, module: &str) -> impl Iterator<Item = &RangeEvent> {
        let affected = self.affected.iter().filter(move |affected| affected.package.name == module);
        affected.flat_map(|affected| &affected.ranges).flat_map(|range| &range.events)
    }
}

impl AffectedRange {
    /// <https://ossf.github.io/osv-schema/#evaluation>
    fn contains(&self, version: &str) -> bool {
        let is_reached = |event: &Option<String>| {
            event
                .as_ref()
                .is_some_and(|event| event == "0" || semver::compare(&with_v(event), version).is_le())
        };
        let newest = |of: &dyn Fn(&RangeEvent) -> &Option<String>| {
            let reached = self.events.iter().map(of).filter(|event| is_reached(event)).flatten();
            reached
                .map(|event| if event == "0" { "v0.0.0-0".to_owned() } else { with_v(event) })
                .max_by(|one, other| semver::compare(one, other))
        };
        match (newest(&|event| &event.introduced), newest(&|event| &event.fixed)) {
            (Some(introduced), Some(fixed)) => semver::compare(&introduced, &fixed).is_gt(),
            (introduced, None) => introduced.is_some(),
            (None, Some(_)) => false,
        }
    }
}

fn with_v(version: &str) -> String {
    format!("v{}", version.trim_start_matches('v'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn entry() -> OsvEntry {
        serde_json::from_str(
            r#"{"id":"GO-1","details":"read too far\nmore","affected":[
               {"package":{"name":"a.b/c","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[
                 {"introduced":"0"},{"fixed":"1.0.5"},{"introduced":"1.1.0"},{"fixed":"1.2.3"},{"introduced":"1.4.0"}]}]},
               {"package":{"name":"a.b/all","ecosystem":"Go"}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn ranges_are_evaluated_as_osv_defines_them() {
        let entry = entry();
        for (version, affected, fixed) in [
            ("v0.0.0-20200101000000-0123456789ab", true, Some("v1.0.5")),
            ("v1.0.4", true, Some("v1.0.5")),
            ("v1.0.5", false, Some("v1.2.3")),
            ("v1.1.0", true, Some("v1.2.3")),
            ("v1.2.3", false, None),
            ("v1.5.0", true, None),
        ] {
            assert_eq!(entry.is_affected("a.b/c", version), affected, "{version}");
            assert_eq!(entry.fixed("a.b/c", version).as_deref(), fixed, "{version}");
        }
        assert!(entry.is_affected("a.b/all", "v9.0.0") && !entry.is_affected("a.b/other", "v1.0.0"));
        assert_eq!(entry.title(), "read too far");
    }

    #[test]
    fn a_cut_output_is_an_error() {
        let whole = r#"{"config":{"protocol_version":"v1.0.0"}}{"SBOM":{"modules":[{"path":"stdlib","version":"v1.26.8"}]}}
            {"progress":{"message":"x"}}{"finding":{"osv":"GO-1","trace":[{"module":"a.b/c","version":"v1.0.0"}]}}"#;
        assert_eq!(Analysis::parse(whole).unwrap().findings.len(), 1);
        for cut in ["", "{", &whole[..whole.len() - 3], r#"{"config":{"protocol_version":"v1.0.0"}}"#] {
            assert!(Analysis::parse(cut).is_err(), "{cut}");
        }
    }
}
