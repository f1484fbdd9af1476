//! The plugins that a `.rr.yaml` needs.

use std::{collections::BTreeMap, path::Path};

use maud::{Markup, html};
use velox_api::PluginSpec;
use velox_gomod::module::without_major;
use velox_manifest::{Diagnostic, Level, catalogue::KnownPlugin};
use velox_query::{RrConfig, RrConfigPlugins, RrConfigReport};

use super::{layout::code_spans, selection::Selection};
use crate::catalogue::PluginCatalogue;

/// The maximum size of a configuration.
const MAX_CONFIGURATION_BYTES: usize = 256 << 10;
/// The maximum number of findings that are shown.
const MAX_FINDINGS: usize = 20;
const FILE_NAME: &str = ".rr.yaml";

/// A `.rr.yaml` that was read for its plugins.
pub(super) struct ReadConfiguration {
    plugins: Vec<&'static KnownPlugin>,
    /// The problems, each with its line, if it has one.
    findings: Vec<ConfigurationFinding>,
    /// The names of the selected plugins.
    selected: Vec<String>,
}

struct ConfigurationFinding {
    is_error: bool,
    line: Option<usize>,
    text: String,
}

impl ReadConfiguration {
    /// Reads a configuration; other files that it names are not read.
    pub(super) fn new(text: &str) -> Self {
        let error = |text: &str| {
            let finding = ConfigurationFinding { is_error: true, line: None, text: text.to_owned() };
            Self { plugins: Vec::new(), findings: vec![finding], selected: Vec::new() }
        };
        if text.trim().is_empty() {
            return error("the configuration is empty; paste the text of a `.rr.yaml`");
        }
        if text.len() > MAX_CONFIGURATION_BYTES {
            return error("the configuration is larger than 256 KiB");
        }
        let read = |path: &Path| match path == Path::new(FILE_NAME) {
            true => Ok(text.to_owned()),
            false => Err(Diagnostic::error("other files are not read here; select their plugins below")),
        };
        let config = match RrConfig::read(FILE_NAME, Path::new(FILE_NAME), &BTreeMap::new(), &read) {
            Ok(config) => config,
            Err(diagnostic) => return error(&diagnostic.message),
        };
        let RrConfigPlugins { plugins, reports } = config.plugins();
        Self { plugins, findings: reports.iter().flat_map(findings).collect(), selected: Vec::new() }
    }

    /// Whether it needs any plugins.
    pub(super) fn is_usable(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// Selects the plugins, instead of those that were selected before.
    pub(super) fn select(&mut self, selection: &mut Selection, catalogue: &PluginCatalogue) {
        let is_needed = |module: &str| self.plugins.iter().any(|known| known.module == without_major(module));
        let offered = || catalogue.plugins().filter(|plugin| is_needed(&plugin.module));
        selection.plugins = offered()
            .filter(|plugin| !plugin.always_included)
            .map(|plugin| PluginSpec::new(&plugin.module, plugin.reference()))
            .collect();
        self.selected = offered().map(|plugin| plugin.name.clone()).collect();
        let missing = self.plugins.iter().filter(|known| !self.selected.contains(&known.name));
        let missing: Vec<_> = missing
            .map(|known| ConfigurationFinding {
                is_error: true,
                line: None,
                text: format!("plugin `{}` does not exist for RoadRunner {}", known.name, catalogue.of),
            })
            .collect();
        self.findings.extend(missing);
    }

    pub(super) fn markup(&self) -> Markup {
        html! {
            @if self.is_usable() {
                p { "Selected for " code { (FILE_NAME) } ": " (self.selected.join(", ")) "." }
            } @else {
                p.wrong { "No plugins were selected." }
            }
            @if !self.findings.is_empty() {
                ul.findings {
                    @for finding in self.findings.iter().take(MAX_FINDINGS) {
                        li.wrong[finding.is_error] {
                            @if let Some(line) = finding.line { "Line " (line) ": " }
                            (code_spans(&finding.text))
                        }
                    }
                    @if let more @ 1.. = self.findings.len().saturating_sub(MAX_FINDINGS) {
                        li { "and " (more) " more" }
                    }
                }
            }
        }
    }
}

fn findings(report: &RrConfigReport) -> impl Iterator<Item = ConfigurationFinding> {
    report.findings.iter().map(|finding| {
        // The page has its own ways to add plugins.
        let help = finding.help.iter().filter(|text| !text.contains("`vx "));
        let parts = [&finding.message].into_iter().chain(help);
        ConfigurationFinding {
            is_error: finding.level == Level::Error,
            line: finding.span.as_ref().map(|span| report.source.line_column(span.start).0),
            text: parts.map(String::as_str).collect::<Vec<_>>().join("; "),
        }
    })
}
