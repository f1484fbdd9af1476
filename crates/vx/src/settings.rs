use std::{collections::BTreeMap, io::IsTerminal};

use clap::ColorChoice;
use velox_manifest::{LogConfig, LogLevel, LogMode};

use crate::cli::{Format, Global};

/// All that the process has around it, read once.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The process's environment, without what is not UTF-8.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) terminal: Terminal,
    verbosity: Option<Verbosity>,
    format: Option<Format>,
}

/// What the standard streams are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Whether it shows more than ASCII.
    pub(crate) unicode: bool,
    /// Whether stderr takes colours.
    pub(crate) color: bool,
}

/// How much is told; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors only (`-q`, `[log] level = "error"`, `mode = "off"`).
    Errors,
    /// Warnings too (`level = "warn"`).
    Warnings,
    /// Phases and notes too.
    Normal,
    /// What go and git print too (`-v`, `level = "debug"`).
    Verbose,
    /// Every module and package too (`-vv`).
    Everything,
}

impl Settings {
    /// From the flags, the environment and the standard streams; sets the process's colours.
    pub(crate) fn new(flags: &Global) -> Self {
        match flags.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
        .write_global();
        let stderr = std::io::stderr();
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            terminal: Terminal {
                stdin: std::io::stdin().is_terminal(),
                stdout: std::io::stdout().is_terminal(),
                // A terminal that can't move its cursor gets plain lines.
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
            format: flags.format,
            environment,
        }
    }

    /// `-v` and `-q`, else `[log]`: `mode = "off"` is silence save for errors, `level` the rest.
    pub(crate) fn verbosity(&self, log: LogConfig) -> Verbosity {
        self.verbosity.unwrap_or(match (log.mode, log.level) {
            (Some(LogMode::Off), _) | (_, Some(LogLevel::Error)) => Verbosity::Errors,
            (_, Some(LogLevel::Warn)) => Verbosity::Warnings,
            (_, Some(LogLevel::Info) | None) => Verbosity::Normal,
            (_, Some(LogLevel::Debug)) => Verbosity::Verbose,
        })
    }

    /// `--format`, else `[log]`: `mode = "production"` is JSON where nobody watches a terminal.
    pub(crate) fn format(&self, log: LogConfig) -> Format {
        let watched = self.terminal.stdout || self.terminal.stderr;
        self.format.unwrap_or(match log.mode {
            Some(LogMode::Production) if !watched => Format::Json,
            _ => Format::Human,
        })
    }
}

/// The rule of POSIX: the first of these that is set and not empty names the character set, and with none of them it
/// is the "C" locale's ASCII (<https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html#tag_08_02>).
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

    fn settings(verbosity: Option<Verbosity>, format: Option<Format>, watched: bool) -> Settings {
        let terminal =
            Terminal { stdin: false, stdout: false, stderr: watched, unicode: false, color: false };
        Settings { environment: BTreeMap::new(), terminal, verbosity, format }
    }

    fn log(level: Option<LogLevel>, mode: Option<LogMode>) -> LogConfig {
        LogConfig { level, mode }
    }

    #[test]
    fn flags_win_over_the_level() {
        let debug = log(Some(LogLevel::Debug), None);
        assert_eq!(settings(None, None, false).verbosity(debug), Verbosity::Verbose);
        assert_eq!(settings(Some(Verbosity::Errors), None, false).verbosity(debug), Verbosity::Errors);
        let off = log(Some(LogLevel::Debug), Some(LogMode::Off));
        assert_eq!(settings(None, None, false).verbosity(off), Verbosity::Errors);
        assert_eq!(settings(Some(Verbosity::Verbose), None, false).verbosity(off), Verbosity::Verbose);
        assert_eq!(settings(None, None, false).verbosity(LogConfig::default()), Verbosity::Normal);
    }

    #[test]
    fn production_is_json_where_nobody_watches() {
        let production = log(None, Some(LogMode::Production));
        assert_eq!(settings(None, None, false).format(production), Format::Json);
        assert_eq!(settings(None, None, true).format(production), Format::Human);
        assert_eq!(settings(None, Some(Format::Human), false).format(production), Format::Human);
        assert_eq!(settings(None, Some(Format::Json), true).format(LogConfig::default()), Format::Json);
        assert_eq!(settings(None, None, false).format(log(None, Some(LogMode::Development))), Format::Human);
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        let unicode = |pairs: &[(&str, &str)]| {
            unicode(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert!(unicode(&[("LANG", "de_DE.UTF-8")]));
        assert!(unicode(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!unicode(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert_eq!(unicode(&[]), cfg!(windows));
    }
}
