use std::path::PathBuf;

use velox_build::PluginTemplate;

use crate::{
    cli::{OutputFormat, edit::NewCommand},
    commands::session::working_directory,
    report,
    settings::Settings,
    status::CommandResult,
};

pub(crate) fn new(settings: &Settings, command: NewCommand) -> CommandResult {
    let NewCommand::Plugin { name, module, dir } = command;
    let relative = dir.unwrap_or_else(|| PathBuf::from(&name));
    let directory: PathBuf = working_directory()?.join(&relative).components().collect();
    let skeleton =
        PluginTemplate::new(&name, module.as_deref()).map_err(|error| report::failed(settings, &error))?;
    let files = skeleton.write(&directory).map_err(|error| report::failed(settings, &error))?;
    let module = skeleton.module();
    report::print(&match settings.format() {
        OutputFormat::Json => report::event(
            "plugin_created",
            &serde_json::json!({ "name": name, "module": module, "directory": directory, "files": files }),
        ),
        OutputFormat::Human => {
            let relative = relative.display().to_string();
            let enter = if relative == "." { String::new() } else { format!("    cd {relative}\n") };
            format!(
                "created plugin `{name}` in {relative} (module {module})\n\n{enter}    go test ./...\n    vx run serve\n"
            )
        }
    })
}
