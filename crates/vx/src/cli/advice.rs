//! Advice for words and options that a command does not take.

use std::{ffi::OsString, path::Path};

use clap::{
    Command, Error,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};
use velox_manifest::{catalogue, parse_target};

use crate::config_file::DEFAULT_FILE_NAME;

/// Adds advice to an error of the command line `arguments`.
pub(super) fn advise(mut error: Error, root: &Command, arguments: &[OsString]) -> Error {
    let context = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return error,
    };
    let Some(ContextValue::String(word)) = error.get(context) else { return error };
    let command = arguments.iter().skip(1).find_map(|argument| root.find_subcommand(argument.to_str()?));
    let tips = match command {
        Some(command) if context == ContextKind::InvalidArg => tips(word, command),
        _ => unknown_command(word),
    };
    if !tips.is_empty() {
        let tips = tips.into_iter().map(StyledStr::from).collect();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// Advice for a word in place of a command.
fn unknown_command(word: &str) -> Vec<String> {
    if is_configuration(word) {
        vec![format!("to build a configuration, use `vx build -c {word}`")]
    } else {
        Vec::new()
    }
}

/// Advice for an argument of `command`.
fn tips(word: &str, command: &Command) -> Vec<String> {
    let name = command.get_name();
    let has = |id: &str| command.get_arguments().any(|argument| argument.get_id() == id);
    let mut tips = Vec::new();
    if word.starts_with('-') {
        let option = word.split('=').next().unwrap_or_default();
        tips.extend(match option {
            "-c" | "--config" => Some(format!("`vx {name}` reads no configuration file")),
            "-o" | "--out" | "--output-dir" => Some("only `vx build` has an output directory".to_owned()),
            "-a" | "--address" => Some("only `vx server` listens on an address".to_owned()),
            _ => None,
        });
        return tips;
    }
    let path = Path::new(word);
    if is_configuration(word) {
        if has("config") {
            tips.push(format!("to select the configuration file, use `-c {word}`"));
        }
    } else if path.is_dir() || is_directory(word) {
        if has("output_dir") {
            tips.push(format!("to write the binary to a directory, use `-o {word}`"));
        }
        let inner = path.join(DEFAULT_FILE_NAME);
        if has("config") && inner.is_file() && !matches!(word, "." | "./") {
            tips.push(format!("to select the configuration file, use `-c {}`", inner.display()));
        }
        if has("with") && path.join("go.mod").is_file() {
            tips.push(format!("to include a local plugin, use `--with {word}`"));
        }
    } else if has("address") && word.contains(':') {
        tips.push(format!("to listen on an address, use `--address {word}`"));
    } else if has("targets") && parse_target(word).is_ok() {
        tips.push(format!("to select a target platform, use `--target {word}`"));
    } else if has("roadrunner") && is_version(word) {
        tips.push(format!("to select the version of RoadRunner, use `--roadrunner {word}`"));
    } else if has("with") {
        let module = word.split('@').next().unwrap_or_default();
        let host = module.split('/').next().unwrap_or_default();
        if module.contains('/') && host.contains('.') {
            tips.push(format!("to include a plugin, use `--with {word}`"));
        } else if let Some(plugin) = catalogue::find(module) {
            let version = word.get(module.len()..).unwrap_or_default();
            let path = plugin.module_path_for(version.trim_start_matches('@'), None);
            tips.push(format!("to include a plugin, use `--with {path}{version}`"));
        }
    }
    tips
}

/// Whether the word is the path of a configuration, existing or not.
fn is_configuration(word: &str) -> bool {
    let path = Path::new(word);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_format = ["toml", "yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known));
    !path.is_dir() && (is_format || path.is_file())
}

fn is_directory(word: &str) -> bool {
    matches!(word, "." | "..")
        || word.ends_with('/')
        || word.starts_with(['/', '~'])
        || word.starts_with("./")
}

/// Whether the word is a version, with or without its `v`.
fn is_version(word: &str) -> bool {
    let digits = word.strip_prefix('v').unwrap_or(word);
    digits.starts_with(|first: char| first.is_ascii_digit()) && digits.contains('.') && !digits.contains('/')
}
