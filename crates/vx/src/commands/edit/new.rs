use std::path::PathBuf;

use velox_build::{Error, ErrorKind, Event, PluginTemplate};
use velox_manifest::{Diagnostic, catalogue};

use crate::{
    cli::{OutputFormat, edit::NewCommand},
    commands::{
        edit::init::{newest_release, query_session},
        session::{Session, working_directory},
    },
    report,
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn new(settings: Settings, command: NewCommand) -> CommandResult {
    let NewCommand::Plugin { name, module, roadrunner, dir } = command;
    let relative = dir.unwrap_or_else(|| PathBuf::from(&name));
    let current = working_directory()?;
    let directory: PathBuf = current.join(&relative).components().collect();
    let template =
        PluginTemplate::new(&name, module.as_deref()).map_err(|error| report::failed(&settings, &error))?;
    let session = query_session(&settings, roadrunner.as_deref(), None, &current)?;
    let template = for_release(&session, template, roadrunner.as_deref())
        .await
        .map_err(|error| session.failed(&error))?;
    if let Some(known) = catalogue::find(&name) {
        let message = format!("`{name}` is also the name of a known plugin, {}", known.module);
        let warning = Diagnostic::warning(message).help(
            "RoadRunner tells plugins apart by their names: choose another one to use both in one binary",
        );
        session.report.report(Event::Warning(warning));
    }
    let files = template.write(&directory).map_err(|error| session.failed(&error))?;
    let (module, roadrunner) = (template.module(), template.roadrunner());
    session.print(&match settings.format() {
        OutputFormat::Json => report::event(
            "plugin_created",
            &serde_json::json!({
                "name": name, "module": module, "roadrunner": roadrunner, "directory": directory, "files": files,
            }),
        ),
        OutputFormat::Human => {
            let relative = relative.display().to_string();
            let enter = if relative == "." { String::new() } else { format!("    cd {relative}\n") };
            format!(
                "created plugin `{name}` in {relative} (module {module}) for RoadRunner {roadrunner}\n\n\
                 {enter}    go test ./...\n    vx run serve\n"
            )
        }
    })
}

/// The template for the requested RoadRunner, else for the latest release: without module proxies, the latest one of
/// the catalogue.
async fn for_release(
    session: &Session,
    template: PluginTemplate,
    roadrunner: Option<&str>,
) -> Result<PluginTemplate, Error> {
    let release = match roadrunner {
        Some(reference) => session.query()?.release().await.map(|release| (reference.to_owned(), release)),
        None => newest_release(session).await,
    };
    match release {
        Ok((reference, release)) => template.for_release(&reference, &release.plugins),
        Err(error) if roadrunner.is_some() || error.kind == ErrorKind::Interrupted => Err(error),
        Err(error) => {
            session.note(format!(
                "the latest RoadRunner release is unknown: {error}; the plugin is for {}",
                template.roadrunner()
            ));
            Ok(template)
        }
    }
}
