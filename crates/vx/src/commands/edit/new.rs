use std::{path::PathBuf, process::ExitCode};

use velox_build::{Error, PluginTemplate};
use velox_manifest::LogConfig;

use crate::commands::session::working_directory;
use crate::{
    cli::{self, Format},
    report::{self, Failure},
    settings::Settings,
    status::Ending,
};

/// `vx new`.
pub(crate) fn new(settings: &Settings, command: cli::New) -> ExitCode {
    let cli::New::Plugin { name, module, dir } = command;
    let working_directory = match working_directory() {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    let shown = dir.unwrap_or_else(|| PathBuf::from(&name));
    let directory: PathBuf = working_directory.join(&shown).components().collect();
    let made = || -> Result<_, Error> {
        let skeleton = PluginTemplate::new(&name, module.as_deref())?;
        Ok((skeleton.write(&directory)?, skeleton))
    };
    match made() {
        Ok((files, skeleton)) => {
            let module = skeleton.module();
            let text = if settings.format(LogConfig::default()) == Format::Json {
                let event = serde_json::json!({
                    "v": 1, "event": "plugin_created", "name": name, "module": module,
                    "directory": directory, "files": files,
                });
                format!("{event}\n")
            } else {
                let enter = match shown.as_os_str() == "." {
                    true => String::new(),
                    false => format!("    cd {}\n", shown.display()),
                };
                format!(
                    "created the plugin {name} in {}, a module by the path {module}\n\n{enter}    \
                     go test ./...\n    vx run serve\n",
                    shown.display()
                )
            };
            report::answer(&text)
        }
        Err(error) => {
            let ending = Ending::of(error.kind, None);
            let failure = Failure { ending, diagnostics: &error.diagnostics, output: &error.output };
            report::open(settings, LogConfig::default(), None).failed(&failure);
            ending.into()
        }
    }
}
