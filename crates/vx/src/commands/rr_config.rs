//! Reading `.rr.yaml`, and showing what was found in it.

use std::path::{Path, PathBuf};

use velox_build::{Error, ErrorKind};
use velox_manifest::{Diagnostic, SourceFile};
use velox_query::{Finding, RrConfig, RrConfigReport, is_rr_config};

use crate::{
    cli::OutputFormat,
    config_file::ConfigFile,
    report::findings::{finding_event, render_finding},
    settings::Settings,
};

/// Reads a configuration at a path relative to the working directory.
pub(super) fn read(settings: &Settings, path: &Path, working_directory: &Path) -> Result<RrConfig, Error> {
    let read = |file: &Path| read_text(file, working_directory).map(|source| source.text);
    let name = path.strip_prefix(working_directory).unwrap_or(path).display().to_string();
    RrConfig::read(&name, &working_directory.join(path), &settings.environment, &read)
        .map_err(|error| Error::many(ErrorKind::Configuration, vec![error]))
}

/// Whether a file is YAML and a configuration of RoadRunner, rather than one of vx.
pub(super) fn is_at(path: &Path, working_directory: &Path) -> bool {
    let is_file = working_directory.join(path).is_file();
    is_yaml(path) && is_file && read_text(path, working_directory).is_ok_and(|source| is_rr_config(&source))
}

pub(super) fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read_text(path: &Path, working_directory: &Path) -> Result<SourceFile, Diagnostic> {
    let absolute: PathBuf = working_directory.join(path);
    if let Err(error) = absolute.metadata() {
        return Err(Diagnostic::error(format!("failed to read `{}`: {error}", path.display())));
    }
    ConfigFile::read(&absolute, working_directory).map(|file| file.source)
}

pub(super) fn render(report: &RrConfigReport, format: OutputFormat) -> String {
    let findings = report.findings.iter().map(|finding| Finding::of_rr_config(finding.clone()));
    let source = Some(&report.source);
    findings
        .map(|finding| match format {
            OutputFormat::Json => finding_event(&finding, source),
            OutputFormat::Human => render_finding(&finding, source),
        })
        .collect()
}
