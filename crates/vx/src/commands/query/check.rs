use std::path::Path;

use serde_json::json;
use velox_manifest::{Diagnostic, Level, SourceFile, catalogue};
use velox_query::{CheckReport, Finding, RR_CONFIG_FILE_NAME, RrConfig};

use crate::{
    cli::{OutputFormat, query::CheckCommand},
    commands::{
        rr_config,
        session::{Session, working_directory},
    },
    report::{
        self,
        findings::{finding_event, render_finding},
        text::{count, human_size},
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn check(settings: Settings, mut arguments: CheckCommand) -> CommandResult {
    let directory = working_directory()?;
    let config = &mut arguments.project.source.config;
    if let Some(file) = config.take_if(|file| rr_config::is_at(file, &directory)) {
        arguments.rr_config.push(file);
    }
    let mut session = Session::silent(settings.clone(), arguments.project)?;
    if arguments.rr_config.is_empty() {
        let beside = session.request.base.join(RR_CONFIG_FILE_NAME);
        arguments.rr_config.extend(Some(beside).filter(|file| file.is_file()));
    }
    let read = |file: &Path| rr_config::read(&settings, file, &directory);
    let rr_configs: Result<Vec<RrConfig>, _> = arguments.rr_config.iter().map(|file| read(file)).collect();
    let rr_configs = rr_configs.map_err(|error| session.failed(&error))?;
    let warnings = std::mem::take(&mut session.warnings);
    let checked =
        velox_query::check(&session.request, &rr_configs, session.reporter(), session.cancel.clone()).await;
    let mut checked = checked.map_err(|error| session.failed(&error))?;
    checked.findings.splice(0..0, warnings.into_iter().map(Finding::of_warning));
    let source = session.request.source.as_ref();
    session.print(&match session.format {
        OutputFormat::Json => events(&checked, source),
        OutputFormat::Human => render(&checked, source),
    })?;
    let denied = if arguments.deny_warnings { count_level(&checked, Level::Warning) } else { 0 };
    if count_level(&checked, Level::Error) + denied > 0 { Err(ExitStatus::Failure) } else { Ok(()) }
}

fn count_level(checked: &CheckReport, level: Level) -> usize {
    let of_rr_configs = checked.rr_configs.iter().flat_map(|checked| &checked.reports);
    let diagnostics = checked.findings.iter().map(|finding| &finding.diagnostic);
    let diagnostics = diagnostics.chain(of_rr_configs.flat_map(|report| &report.findings));
    diagnostics.filter(|diagnostic: &&Diagnostic| diagnostic.level == level).count()
}

fn render(checked: &CheckReport, source: Option<&SourceFile>) -> String {
    let mut text = String::new();
    for finding in &checked.findings {
        text += &render_finding(finding, source);
    }
    for rr_config in &checked.rr_configs {
        for report in &rr_config.reports {
            text += &rr_config::render(report, OutputFormat::Human);
        }
        if let (Some(report), false) = (rr_config.reports.first(), rr_config.unused.is_empty()) {
            let plugin = |(name, module): &(String, String)| match catalogue::plugin_size(module) {
                Some(bytes) => format!("{name} (about {})", human_size(bytes)),
                None => name.clone(),
            };
            let plugins = rr_config.unused.iter().map(plugin).collect::<Vec<_>>().join(", ");
            text += &format!("note: `{}` does not use these plugins: {plugins}\n", report.source.name);
        }
    }
    let subject = checked.roadrunner.as_ref().map(|version| format!("RoadRunner {version}: "));
    let found = match (count_level(checked, Level::Error), count_level(checked, Level::Warning)) {
        (0, 0) => "no problems found".to_owned(),
        (errors, warnings) => {
            format!("{}, {}", count(errors as u64, "error"), count(warnings as u64, "warning"))
        }
    };
    text + &format!("{}{found}\n", subject.unwrap_or_default())
}

fn events(checked: &CheckReport, source: Option<&SourceFile>) -> String {
    let mut text: String = checked.findings.iter().map(|finding| finding_event(finding, source)).collect();
    let reports = checked.rr_configs.iter().flat_map(|checked| &checked.reports);
    text.extend(reports.map(|report| rr_config::render(report, OutputFormat::Json)));
    let unused = checked.rr_configs.iter().flat_map(|checked| &checked.unused);
    let unused: Vec<&String> = unused.map(|(name, _)| name).collect();
    let summary = json!({
        "roadrunner": checked.roadrunner,
        "errors": count_level(checked, Level::Error),
        "warnings": count_level(checked, Level::Warning),
        "unused_plugins": unused,
    });
    text += &report::event("checked", &summary);
    text
}
