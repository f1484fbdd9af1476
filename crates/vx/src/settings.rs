use std::{collections::BTreeMap, io::IsTerminal};

use clap::ColorChoice;
use velox_manifest::{LogConfig, LogLevel, LogMode};

use crate::{
    cli::{AuditFormat, DiagramFormat, FormatArg, GlobalArgs, OutputFormat},
    environment,
};

/// The global flags and the environment of the process.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The environment variables that are valid UTF-8.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) terminal: Terminal,
    verbosity: Option<Verbosity>,
    format: Option<OutputFormat>,
    /// The format of `vx graph`, if it is a diagram.
    pub(crate) diagram: Option<DiagramFormat>,
    /// The format of `vx audit`, if another program reads it.
    pub(crate) audit: Option<AuditFormat>,
}

/// The terminal capabilities of the standard streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) stdin: bool,
    pub(crate) stderr: bool,
    pub(crate) unicode: bool,
    pub(crate) color: bool,
}

/// The verbosity; each level includes the previous ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only (`-q`, `[log] level = "error"`, `mode = "off"`).
    Errors,
    /// Also warnings (`level = "warn"`).
    Warnings,
    /// Also phases and notes.
    Normal,
    /// Also the output of go and git (`-v`, `level = "debug"`).
    Verbose,
    /// Also each module and package (`-vv`).
    Everything,
}

impl Settings {
    /// Reads the environment and the standard streams, and sets the global color choice.
    pub(crate) fn new(flags: &GlobalArgs) -> Self {
        match flags.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
        .write_global();
        let stderr = std::io::stderr();
        let environment = environment::variables();
        Self {
            terminal: Terminal {
                stdin: std::io::stdin().is_terminal(),
                // A dumb terminal can't move its cursor.
                stderr: stderr.is_terminal() && environment.get("TERM").is_none_or(|term| term != "dumb"),
                unicode: unicode(&environment),
                color: anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never,
            },
            verbosity: match (flags.quiet, flags.verbose) {
                (true, _) => Some(Verbosity::Errors),
                (false, 0) => None,
                (false, 1) => Some(Verbosity::Verbose),
                (false, _) => Some(Verbosity::Everything),
            },
            format: flags.format.and_then(FormatArg::output),
            diagram: flags.format.and_then(FormatArg::diagram),
            audit: flags.format.and_then(FormatArg::audit),
            environment,
        }
    }

    /// The verbosity from `-v` and `-q`, else from `[log] mode` and `level`.
    pub(crate) fn verbosity(&self, log: LogConfig) -> Verbosity {
        self.verbosity.unwrap_or(match (log.mode, log.level) {
            (Some(LogMode::Off), _) | (_, Some(LogLevel::Error)) => Verbosity::Errors,
            (_, Some(LogLevel::Warn)) => Verbosity::Warnings,
            (_, Some(LogLevel::Info) | None) => Verbosity::Normal,
            (_, Some(LogLevel::Debug)) => Verbosity::Verbose,
        })
    }

    /// The format from `--format`.
    pub(crate) fn format(&self) -> OutputFormat {
        self.format.unwrap_or(OutputFormat::Human)
    }

    /// The `[log] mode` of text on stderr; `--format human` overrides it.
    pub(crate) fn log_mode(&self, log: LogConfig) -> LogMode {
        log.mode.filter(|_| self.format.is_none()).unwrap_or(LogMode::Development)
    }
}

/// Whether the locale is UTF-8: the first non-empty variable names the character set
/// (<https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html#tag_08_02>).
fn unicode(environment: &BTreeMap<String, String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| environment.get(*name).filter(|value| !value.is_empty()));
    match locale {
        Some(locale) => {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        }
        None => cfg!(windows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(verbosity: Option<Verbosity>, format: Option<OutputFormat>, stderr: bool) -> Settings {
        let terminal = Terminal { stdin: false, stderr, unicode: false, color: false };
        Settings { environment: BTreeMap::new(), terminal, verbosity, format, diagram: None, audit: None }
    }

    #[test]
    fn flags_override_the_log_level() {
        let (errors, verbose) = (Some(Verbosity::Errors), Some(Verbosity::Verbose));
        let (debug, off) = (Some(LogLevel::Debug), Some(LogMode::Off));
        for (flag, level, mode, expected) in [
            (None, debug, None, Verbosity::Verbose),
            (errors, debug, None, Verbosity::Errors),
            (None, debug, off, Verbosity::Errors),
            (verbose, debug, off, Verbosity::Verbose),
            (None, None, None, Verbosity::Normal),
        ] {
            assert_eq!(settings(flag, None, false).verbosity(LogConfig { level, mode }), expected);
        }
    }

    #[test]
    fn the_format_flag_overrides_the_log_mode() {
        let log = |mode| LogConfig { level: None, mode };
        let production = log(Some(LogMode::Production));
        let mode = |format, log| settings(None, format, true).log_mode(log);
        assert_eq!(mode(None, production), LogMode::Production);
        assert_eq!(mode(None, log(None)), LogMode::Development);
        assert_eq!(mode(Some(OutputFormat::Human), production), LogMode::Development);
    }

    #[test]
    fn the_first_locale_variable_decides() {
        let unicode = |pairs: &[(&str, &str)]| {
            unicode(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert!(unicode(&[("LANG", "de_DE.UTF-8")]));
        assert!(unicode(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!unicode(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert_eq!(unicode(&[]), cfg!(windows));
    }
}
