use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use anstyle::{AnsiColor, Style};
use tokio_util::sync::CancellationToken;
use velox_build::{BuildOptions, Event, Goal, Reporter};
use velox_manifest::LogConfig;
use velox_query::{Diagnosis, Health};

use crate::{
    cli::{OutputFormat, build::OverrideArgs, query::DoctorCommand},
    commands::session::{LoadError, LoadedManifest, watch_signals, working_directory},
    config_file::{DEFAULT_FILE_NAME, default_file},
    report::{
        self,
        text::{clean, count},
    },
    settings::{Settings, Verbosity},
    status::{CommandResult, ExitStatus},
};

pub(crate) async fn doctor(settings: Settings, arguments: DoctorCommand) -> CommandResult {
    let mut source = arguments.source;
    let directory = working_directory()?;
    let config = source.config.take();
    let printer = DiagnosisPrinter::new(&settings);
    let mut loaded = LoadedManifest::empty(&directory);
    if config.is_some() || directory.join(default_file(&directory)).exists() {
        match LoadedManifest::load(&settings, config, &OverrideArgs::default(), &directory) {
            Ok(configured) => {
                loaded = configured;
                let name = loaded.source.as_ref().map_or(DEFAULT_FILE_NAME, |source| &source.name);
                let plugins = count(loaded.manifest.plugins.len() as u64, "plugin");
                printer.print(&config_diagnosis(Health::Ok, format!("{name} has {plugins}")));
            }
            Err(error) => printer.print(&invalid_configuration(&error)),
        }
    }
    let cancel = CancellationToken::new();
    let _signals = watch_signals(&cancel, |_| ())?;
    let options = source.options(BuildOptions::default(), &directory);
    let request = loaded.into_request(settings, options, Goal::Plan);
    velox_query::diagnose(&request, Arc::new(NoReport), cancel, |diagnosis| printer.print(&diagnosis))
        .await
        .map_err(|error| ExitStatus::from(error.kind))?;
    printer.finish()
}

/// Summarizes configuration errors, which `vx build` shows in full.
fn invalid_configuration(error: &LoadError) -> Diagnosis {
    let message = match error.diagnostics.as_slice() {
        [] => "invalid configuration".to_owned(),
        [only] => only.message.clone(),
        [first, others @ ..] => format!("{} (and {} more)", first.message, others.len()),
    };
    let remedy = Some("`vx build --dry-run` shows details".to_owned());
    Diagnosis { remedy, ..config_diagnosis(Health::Error, message) }
}

fn config_diagnosis(state: Health, message: String) -> Diagnosis {
    Diagnosis { check: "config", state, message, remedy: None }
}

/// Discards the output of go and git.
struct NoReport;

impl Reporter for NoReport {
    fn report(&self, _: Event) {}
}

/// Prints and counts diagnoses.
struct DiagnosisPrinter {
    format: OutputFormat,
    quiet: bool,
    printed: Mutex<PrintedDiagnoses>,
}

#[derive(Default)]
struct PrintedDiagnoses {
    ok: u64,
    warnings: u64,
    errors: u64,
    /// The first error of writing to stdout.
    failure: Option<io::Error>,
}

impl DiagnosisPrinter {
    fn new(settings: &Settings) -> Self {
        Self {
            format: settings.format(),
            quiet: settings.verbosity(LogConfig::default()) < Verbosity::Normal,
            printed: Mutex::default(),
        }
    }

    fn print(&self, diagnosis: &Diagnosis) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        match diagnosis.state {
            Health::Ok => printed.ok += 1,
            Health::Warning => printed.warnings += 1,
            Health::Error => printed.errors += 1,
        }
        if self.quiet && diagnosis.state == Health::Ok {
            return;
        }
        let text = match self.format {
            OutputFormat::Json => report::event("examined", diagnosis),
            OutputFormat::Human => render(diagnosis),
        };
        if let Err(error) = report::write(&text) {
            printed.failure.get_or_insert(error);
        }
    }

    fn finish(self) -> CommandResult {
        let PrintedDiagnoses { ok, warnings, errors, failure } =
            self.printed.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            return Err(report::output_error(error));
        }
        report::print(&match self.format {
            OutputFormat::Json => {
                let counts = serde_json::json!({ "ok": ok, "warnings": warnings, "errors": errors });
                report::event("diagnosed", &counts)
            }
            OutputFormat::Human if self.quiet => String::new(),
            OutputFormat::Human => {
                let verdict = if errors == 0 { "builds should work" } else { "builds will fail" };
                format!("\n{verdict}: {}, {}\n", count(errors, "error"), count(warnings, "warning"))
            }
        })?;
        if errors > 0 { Err(ExitStatus::Failure) } else { Ok(()) }
    }
}

/// `warning  proxy    message`, with the remedy on a second line.
fn render(diagnosis: &Diagnosis) -> String {
    let (word, color) = match diagnosis.state {
        Health::Ok => ("ok", AnsiColor::Green),
        Health::Warning => ("warning", AnsiColor::Yellow),
        Health::Error => ("error", AnsiColor::BrightRed),
    };
    let style = Style::new().bold().fg_color(Some(color.into()));
    let message = clean(&diagnosis.message).replace('\n', " ");
    let mut text = format!("{style}{word:7}{style:#}  {:7}  {message}\n", diagnosis.check);
    if let Some(remedy) = &diagnosis.remedy {
        let help = AnsiColor::BrightCyan.on_default().bold();
        text += &format!("{:18}{help}help{help:#}: {}\n", "", clean(remedy).replace('\n', " "));
    }
    text
}
