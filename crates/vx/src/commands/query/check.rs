use serde_json::json;
use velox_manifest::{Level, SourceFile};
use velox_query::{CheckReport, Finding};

use crate::{
    cli::{OutputFormat, query::CheckCommand},
    commands::session::Session,
    report::{
        self,
        findings::{finding_event, render_finding},
        text::count,
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn check(settings: Settings, arguments: CheckCommand) -> CommandResult {
    let mut session = Session::silent(settings, arguments.project)?;
    let warnings = std::mem::take(&mut session.warnings);
    let checked = velox_query::check(&session.request, session.reporter(), session.cancel.clone()).await;
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
    checked.findings.iter().filter(|finding| finding.diagnostic.level == level).count()
}

fn render(checked: &CheckReport, source: Option<&SourceFile>) -> String {
    let mut text = String::new();
    for finding in &checked.findings {
        text += &render_finding(finding, source);
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
    let summary = json!({
        "roadrunner": checked.roadrunner,
        "errors": count_level(checked, Level::Error),
        "warnings": count_level(checked, Level::Warning),
    });
    text += &report::event("checked", &summary);
    text
}
