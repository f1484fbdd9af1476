use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anstyle::{AnsiColor, Style};
use tokio_util::sync::CancellationToken;
use velox_build::{BuildOptions, Event, Goal, Reporter};
use velox_manifest::LogConfig;
use velox_query::{Diagnosis, Health};

use crate::commands::session::{Asked, Misconfigured, working_directory};
use crate::{
    cli::{self, Format},
    configuration::USUAL_NAME,
    report::{
        self,
        text::{clean, count},
    },
    settings::{Settings, Verbosity},
    signals,
    status::Ending,
};

/// `vx doctor`: a line for each finding; exit code 1 where a build will fail.
pub(crate) async fn doctor(settings: Settings, mut source: cli::ServerSource) -> ExitCode {
    let working_directory = match working_directory() {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    let teller = Teller::new(&settings);
    let config = source.config.take();
    // Without a configuration there is still a machine to look at.
    let there = config.is_some() || working_directory.join(USUAL_NAME).exists();
    let asked = match there {
        true => Asked::read(&settings, config.as_deref(), &cli::Changes::default(), &working_directory),
        false => Ok(Asked::nothing(&working_directory)),
    };
    let asked = match asked {
        Ok(asked) => {
            if there {
                let plugins = asked.manifest.plugins.len();
                let name = asked.source.as_ref().map_or(USUAL_NAME, |source| source.name.as_str());
                teller.tell(&Diagnosis {
                    check: "config",
                    state: Health::Ok,
                    message: format!("{name} asks for {}", count(plugins as u64, "plugin")),
                    remedy: None,
                });
            }
            asked
        }
        Err(wrong) => {
            teller.tell(&misconfigured(&wrong));
            Asked::nothing(&working_directory)
        }
    };
    let cancel = CancellationToken::new();
    if let Err(error) = signals::watch(cancel.clone(), |_| ()) {
        return report::complain(&format!("can't listen for signals: {error}"));
    }
    let options = source.options(BuildOptions::default(), &working_directory);
    let request = asked.request(settings, options, Goal::Plan);
    let ended =
        velox_query::diagnose(&request, Arc::new(Silent), cancel, |finding| teller.tell(&finding)).await;
    match ended {
        Ok(()) => teller.end(),
        Err(error) => Ending::of(error.kind, None).into(),
    }
}

/// A configuration with mistakes, as one finding: `vx build` shows them all, with their places.
fn misconfigured(wrong: &Misconfigured) -> Diagnosis {
    let first = wrong.diagnostics.first().map_or("it can't be read", |first| first.message.as_str());
    let more = match wrong.diagnostics.len() {
        0 | 1 => String::new(),
        many => format!(" (and {} more)", many - 1),
    };
    Diagnosis {
        check: "config",
        state: Health::Error,
        message: format!("{first}{more}"),
        remedy: Some("`vx build --dry-run` shows where".to_owned()),
    }
}

/// What go and git print is no finding.
struct Silent;

impl Reporter for Silent {
    fn report(&self, _: Event) {}
}

/// Writes findings as they come.
struct Teller {
    json: bool,
    /// Whether only what is wrong is shown.
    quiet: bool,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    ok: u64,
    warnings: u64,
    errors: u64,
    /// The first that couldn't be written.
    failure: Option<std::io::Error>,
}

impl Teller {
    fn new(settings: &Settings) -> Self {
        Self {
            json: settings.format(LogConfig::default()) == Format::Json,
            quiet: settings.verbosity(LogConfig::default()) < Verbosity::Normal,
            told: Mutex::default(),
        }
    }

    fn tell(&self, finding: &Diagnosis) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match finding.state {
            Health::Ok => told.ok += 1,
            Health::Warning => told.warnings += 1,
            Health::Error => told.errors += 1,
        }
        if self.quiet && finding.state == Health::Ok {
            return;
        }
        let text = if self.json { event(finding) } else { line(finding) };
        if let Err(error) = report::print(&text) {
            told.failure.get_or_insert(error);
        }
    }

    fn end(self) -> ExitCode {
        let Told { ok, warnings, errors, failure } =
            self.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let summary = if self.json {
            let event = serde_json::json!({
                "v": 1, "event": "diagnosed", "ok": ok, "warnings": warnings, "errors": errors,
            });
            format!("{event}\n")
        } else if self.quiet {
            String::new()
        } else {
            let verdict = if errors == 0 { "builds should work" } else { "builds will fail" };
            let (errors, warnings) = (count(errors, "error"), count(warnings, "warning"));
            format!("\n{verdict}: {errors}, {warnings}\n")
        };
        let written = failure.map_or_else(|| report::print(&summary), Err);
        match written {
            Err(error) => report::complain(&format!("can't write to the standard output: {error}")),
            Ok(()) if errors > 0 => Ending::Build.into(),
            Ok(()) => ExitCode::SUCCESS,
        }
    }
}

fn event(finding: &Diagnosis) -> String {
    let Diagnosis { check, state, message, remedy } = finding;
    let event = serde_json::json!({
        "v": 1, "event": "examined", "check": check, "state": state, "message": message, "remedy": remedy,
    });
    format!("{event}\n")
}

/// `warning  proxy    what was found`, and below it what to do.
fn line(finding: &Diagnosis) -> String {
    let (word, color) = match finding.state {
        Health::Ok => ("ok", AnsiColor::Green),
        Health::Warning => ("warning", AnsiColor::Yellow),
        Health::Error => ("error", AnsiColor::BrightRed),
    };
    let style = Style::new().bold().fg_color(Some(color.into()));
    let message = clean(&finding.message).replace('\n', " ");
    let mut text = format!("{style}{word:7}{style:#}  {:7}  {message}\n", finding.check);
    if let Some(remedy) = &finding.remedy {
        let help = AnsiColor::BrightCyan.on_default().bold();
        text += &format!("{:18}{help}help{help:#}: {}\n", "", clean(remedy).replace('\n', " "));
    }
    text
}
