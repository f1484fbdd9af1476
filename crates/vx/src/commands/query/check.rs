use std::{process::ExitCode, sync::Arc};

use serde_json::{Value, json};
use velox_build::{BuildOptions, Goal};
use velox_manifest::{Level, SourceFile};
use velox_query::{CheckReport, Finding, LookedUp, Rule};

use crate::{
    cli::{self, Format},
    commands::session::Prepared,
    report::{
        self,
        diagnostics::{position, render_explained, within},
        text::count,
    },
    settings::Settings,
    status::Ending,
};

/// `vx check`.
pub(crate) async fn check(settings: Settings, arguments: cli::Check) -> ExitCode {
    let mut prepared =
        match Prepared::new(settings, arguments.server, |_| Goal::Plan, BuildOptions::default()) {
            Ok(prepared) => prepared,
            Err(code) => return code,
        };
    let warnings = std::mem::take(&mut prepared.warnings);
    let Prepared { request, report, cancel, .. } = &prepared;
    let mut checked = match velox_query::check(request, Arc::clone(report) as _, cancel.clone()).await {
        Ok(checked) => checked,
        Err(error) => return prepared.failed(&error),
    };
    checked.findings.splice(0..0, warnings.into_iter().map(Finding::of_warning));
    let source = request.source.as_ref();
    let text = match prepared.format {
        Format::Json => events(&checked, source),
        Format::Human => shown(&checked, source),
    };
    let wrong = of_level(&checked, Level::Error) > 0
        || (arguments.deny_warnings && of_level(&checked, Level::Warning) > 0);
    let written = prepared.answer(&text);
    if wrong { Ending::Build.into() } else { written }
}

fn of_level(checked: &CheckReport, level: Level) -> usize {
    checked.findings.iter().filter(|finding| finding.diagnostic.level == level).count()
}

fn shown(checked: &CheckReport, source: Option<&SourceFile>) -> String {
    let mut text = String::new();
    for Finding { diagnostic, explanation, .. } in &checked.findings {
        text += &render_explained(diagnostic, explanation, source);
        text.push('\n');
    }
    if let Err(why) = &checked.looked_up {
        text += &format!("note: known vulnerabilities weren't looked for: {why}\n");
    }
    let of = checked.roadrunner.as_ref().map(|version| format!("RoadRunner {version}: ")).unwrap_or_default();
    let found = match (of_level(checked, Level::Error), of_level(checked, Level::Warning)) {
        (0, 0) => "nothing is wrong".to_owned(),
        (errors, warnings) => {
            format!("{}, {}", count(errors as u64, "error"), count(warnings as u64, "warning"))
        }
    };
    let looked_up = match &checked.looked_up {
        Ok(LookedUp { asked, private: 0 }) => {
            format!("; {} looked up for known vulnerabilities", count(*asked as u64, "module"))
        }
        Ok(LookedUp { asked, private }) => format!(
            "; {} looked up for known vulnerabilities, {private} private not",
            count(*asked as u64, "module")
        ),
        Err(_) => String::new(),
    };
    text + &format!("{of}{found}{looked_up}\n")
}

fn events(checked: &CheckReport, source: Option<&SourceFile>) -> String {
    let mut text: String =
        checked.findings.iter().map(|finding| report::event("finding", &fields(finding, source))).collect();
    let (looked_up, why) = match &checked.looked_up {
        Ok(looked_up) => (Some(looked_up), None),
        Err(why) => (None, Some(why)),
    };
    let summary = json!({
        "roadrunner": checked.roadrunner,
        "errors": of_level(checked, Level::Error),
        "warnings": of_level(checked, Level::Warning),
        "vulnerabilities_looked_up": looked_up,
        "vulnerabilities_unknown": why,
    });
    text += &report::event("checked", &summary);
    text
}

fn fields(finding: &Finding, source: Option<&SourceFile>) -> Value {
    let Finding { rule, diagnostic, explanation, vulnerabilities } = finding;
    let mut fields = json!({
        "rule": rule,
        "level": match diagnostic.level { Level::Error => "error", Level::Warning => "warning" },
        "message": diagnostic.message,
        "label": diagnostic.label,
        "explanation": explanation,
        "help": diagnostic.help,
    });
    let Some(object) = fields.as_object_mut() else { return fields };
    if *rule == Rule::Vulnerable {
        object.insert("vulnerabilities".to_owned(), json!(vulnerabilities));
    }
    if let (Some(source), Some(span)) = (source, &diagnostic.span) {
        let span = within(&source.text, span);
        let (start, end) = (position(&source.text, span.start), position(&source.text, span.end));
        let place = json!({
            "file": source.name, "line": start.line, "column": start.column,
            "end_line": end.line, "end_column": end.column,
        });
        if let Value::Object(place) = place {
            object.extend(place);
        }
    }
    fields
}
