use serde_json::json;
use velox_build::Error;
use velox_manifest::Diagnostic;
use velox_query::{LicenseGroup, LicenseReport};

use crate::{
    cli::{OutputFormat, query::LicensesCommand},
    commands::session::{Session, working_directory},
    report::{
        self,
        text::{clean, count},
    },
    settings::Settings,
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn licenses(settings: Settings, arguments: LicensesCommand) -> CommandResult {
    let LicensesCommand { project, output, deny } = arguments;
    let directory = working_directory()?;
    let output = output.map(|file| directory.join(file));
    let session = Session::open(settings, project)?;
    let denied: Vec<_> = deny.into_iter().flat_map(|argument| argument.0).collect();
    let found =
        velox_query::licenses(&session.request, &denied, session.reporter(), session.cancel.clone()).await;
    let found = found.map_err(|error| session.failed(&error))?;
    if let Some(file) = &output {
        velox_build::write_text(file, &found.notice())
            .map_err(|error| session.failed(&Error::file("write", file, &error)))?;
    }
    match (session.format, &output) {
        (OutputFormat::Json, _) => session.print(&event(&found))?,
        (OutputFormat::Human, None) => session.print(&clean(&render(&found)))?,
        (OutputFormat::Human, Some(file)) => session.note(format!("wrote {}", file.display())),
    }
    if found.denied.is_empty() {
        return Ok(());
    }
    let errors: Vec<Diagnostic> = found
        .denied
        .iter()
        .map(|(license, module)| {
            let version = module.version.as_deref().unwrap_or("(local directory)");
            Diagnostic::error(format!("license {license} is denied: {} {version}", module.module))
                .help(format!("`vx why {}` shows what requires it", module.module))
        })
        .collect();
    session.report.failed(ExitStatus::Failure, &errors, &[]);
    Err(ExitStatus::Failure)
}

fn render(found: &LicenseReport) -> String {
    let mut groups = Vec::new();
    for LicenseGroup { license, modules } in &found.groups {
        let name = license.as_deref().unwrap_or("unknown");
        let mut text = format!("{name} ({})\n", count(modules.len() as u64, "module"));
        for module in modules {
            let version = module.version.as_deref().unwrap_or("(local directory)");
            text += &format!("  {} {version}", module.module);
            if license.is_none() {
                text += &format!(" ({})", module.unknown_cause());
            }
            text += "\n";
        }
        groups.push(text);
    }
    groups.join("\n")
}

fn event(found: &LicenseReport) -> String {
    let denied: Vec<_> = found
        .denied
        .iter()
        .map(|(license, module)| {
            json!({ "license": license.to_string(), "module": module.module, "version": module.version })
        })
        .collect();
    report::event("licenses", &json!({ "licenses": found.groups, "denied": denied }))
}
