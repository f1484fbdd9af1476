//! Completions: the scripts that make shells run vx, and the values that it then prints. Nothing uses the network.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory as _, ValueHint};
use clap_complete::{
    CompletionCandidate, PathCompleter, Shell,
    engine::{ValueCompleter as _, complete},
    env::{self, CompleteEnv, EnvCompleter, Shells},
};
use velox_build::CachedModules;
use velox_gomod::semver;
use velox_manifest::{
    Manifest,
    catalogue::{self, KnownPlugin, PluginGroup, PluginStatus, ROADRUNNER_MODULE},
    is_directory,
};
use velox_query::{ROADRUNNER, RR_CONFIG_FILE_NAME};

use super::Cli;
use crate::{
    config_file::{ConfigFile, default_file},
    environment,
};

/// A shell's completion script sets one of these variables to the name of the shell.
const VARIABLE: &str = "VX_COMPLETE";
const WITHOUT_DESCRIPTIONS: &str = "VX_COMPLETE_WITHOUT_DESCRIPTIONS";

/// The commands of RoadRunner.
const RR_COMMANDS: [&str; 5] = ["serve", "workers", "reset", "jobs", "stop"];

const SHELLS: Shells<'_> = Shells(&[&Bash, &env::Elvish, &env::Fish, &env::Powershell, &env::Zsh]);

/// Prints completions and ends the process, if a completion script runs it.
pub(crate) fn answer() {
    let with_descriptions = || with_path_hints(Cli::command());
    let without_descriptions = || without_descriptions(with_descriptions());
    CompleteEnv::with_factory(without_descriptions).var(WITHOUT_DESCRIPTIONS).shells(SHELLS).complete();
    CompleteEnv::with_factory(with_descriptions).var(VARIABLE).shells(SHELLS).complete();
}

/// The script of a shell, which runs `vx` from PATH.
///
/// # Errors
/// clap_complete has no script for this shell.
pub(crate) fn script(shell: Shell, with_descriptions: bool) -> io::Result<Vec<u8>> {
    let variable = if with_descriptions { VARIABLE } else { WITHOUT_DESCRIPTIONS };
    let mut script = Vec::new();
    let completer = SHELLS.completer(&shell.to_string()).ok_or(io::ErrorKind::Unsupported)?;
    completer.write_registration(variable, "vx", "vx", "vx", &mut script)?;
    Ok(script)
}

fn without_descriptions(command: Command) -> Command {
    command.about("").mut_args(|argument| argument.help("")).mut_subcommands(without_descriptions)
}

/// Completes files and directories where only these go.
fn with_path_hints(command: Command) -> Command {
    let with_hint = |argument: clap::Arg| {
        let names = argument.get_value_names().unwrap_or_default();
        let hint = match names.iter().any(|name| name.as_str() == "DIR") {
            true => ValueHint::DirPath,
            false => ValueHint::FilePath,
        };
        if argument.get_value_hint() == ValueHint::AnyPath { argument.value_hint(hint) } else { argument }
    };
    command.mut_args(with_hint).mut_subcommands(with_path_hints)
}

/// Bash splits words at `=`, `:` and `@` too, and replaces only the last part. The script of clap_complete sends these
/// parts; this one sends words.
struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        program: &str,
        completer: &str,
        script: &mut dyn io::Write,
    ) -> io::Result<()> {
        let text = r#"_PROGRAM() {
    local line="${COMP_LINE:0:COMP_POINT}" words candidate
    read -a words <<<"$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local word="${words[${#words[@]}-1]}"
    local kept="${word%"$2"}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        candidate="$(printf %q "${candidate#"$kept"}")"
        COMPREPLY+=("${candidate//\\,/,}")
    done < <(VARIABLE=bash COMPLETER -- "${words[@]}")
    [[ ${#COMPREPLY[@]} == 1 && "$COMPREPLY" == *[/@=] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o nosort -F _PROGRAM PROGRAM 2>/dev/null || complete -F _PROGRAM PROGRAM
"#;
        let text = text.replace("PROGRAM", program).replace("COMPLETER", completer);
        script.write_all(text.replace("VARIABLE", variable).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        candidates: &mut dyn io::Write,
    ) -> io::Result<()> {
        let last = words.len().saturating_sub(1);
        for candidate in complete(command, words, last, directory)? {
            writeln!(candidates, "{}", candidate.get_value().to_string_lossy())?;
        }
        Ok(())
    }
}

/// The values of `--target`.
pub(super) fn targets() -> Vec<CompletionCandidate> {
    let targets = velox_manifest::targets().into_iter().map(|target| target.to_string());
    targets.chain(["all".to_owned()]).map(CompletionCandidate::new).collect()
}

/// The values of `--group`.
pub(super) fn groups() -> Vec<CompletionCandidate> {
    let name = |group: PluginGroup| format!("{group:?}").to_lowercase();
    let groups = PluginGroup::ALL.into_iter();
    groups.map(|group| CompletionCandidate::new(name(group)).help(Some(group.title().into()))).collect()
}

/// The names of the plugins in the configuration.
pub(super) fn configured_plugins() -> Vec<CompletionCandidate> {
    let plugins = manifest().map(|manifest| manifest.plugins).unwrap_or_default();
    plugins.into_iter().map(|plugin| CompletionCandidate::new(plugin.name.value)).collect()
}

/// The names of the plugins in the configuration, and `roadrunner`.
pub(super) fn updatable_plugins() -> Vec<CompletionCandidate> {
    let mut names = configured_plugins();
    names.push(CompletionCandidate::new(ROADRUNNER).help(Some("RoadRunner itself".into())));
    names
}

/// The refs of RoadRunner that are known on this machine.
pub(super) fn roadrunner_refs() -> Vec<CompletionCandidate> {
    let mut versions = cached_versions(ROADRUNNER_MODULE, "");
    let known = catalogue::known_releases().iter().map(|release| release.version.clone());
    let known: Vec<String> = known.filter(|version| !versions.contains(version)).collect();
    versions.extend(known);
    versions.into_iter().map(CompletionCandidate::new).collect()
}

/// The values of `--to`.
pub(super) fn roadrunner_majors_and_refs() -> Vec<CompletionCandidate> {
    let majors = catalogue::generations().iter().flat_map(|generation| &generation.majors);
    majors.map(CompletionCandidate::new).chain(roadrunner_refs()).collect()
}

/// The versions of a module in the module cache that start with `prefix`; pre-releases only if there are no releases.
fn cached_versions(module: &str, prefix: &str) -> Vec<String> {
    let mut versions = CachedModules::new(&environment::variables()).versions(module);
    versions.retain(|version| version.starts_with(prefix));
    if versions.iter().any(|version| semver::is_release(version)) {
        versions.retain(|version| semver::is_release(version));
    }
    versions
}

/// `PLUGIN[@REF]`: names of the catalogue and of the configuration; after `@`, the versions in the module cache.
pub(super) fn plugins(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    if let Some((plugin, prefix)) = current.split_once('@') {
        let module = match catalogue::find(plugin) {
            Some(known) if !plugin.contains('/') => known.module.clone(),
            None if plugin.matches('/').count() == 1 => format!("github.com/{plugin}"),
            _ => plugin.to_owned(),
        };
        let versions = cached_versions(&module, prefix).into_iter();
        return versions.map(|version| CompletionCandidate::new(format!("{plugin}@{version}"))).collect();
    }
    let is_offered = |plugin: &&KnownPlugin| {
        plugin.status != PluginStatus::Deprecated && plugin.name.starts_with(&*current)
    };
    let known = catalogue::catalogue().iter().filter(is_offered);
    known
        .map(|plugin| CompletionCandidate::new(&plugin.name).help(Some(plugin.description.as_str().into())))
        .collect()
}

/// Like [`plugins`], and local directories, also as a replacement after `=`.
pub(super) fn plugins_and_directories(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    let (plugin, directory) = text.split_at(text.find('=').map_or(0, |at| at + 1));
    let mut found = plugins(current);
    // Without the dot, it would be a name.
    let directory = if directory.is_empty() && !plugin.is_empty() { "./" } else { directory };
    if is_directory(directory) {
        let directories = PathCompleter::dir().complete(OsStr::new(directory)).into_iter();
        found.extend(directories.map(|candidate| candidate.add_prefix(plugin)));
    }
    found
}

/// Files, and the `.rr.yaml` of the directory, which shells hide with other names that start with a dot.
pub(super) fn rr_configs(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_rr_config =
        |it: &CompletionCandidate| it.get_value().to_string_lossy().ends_with(RR_CONFIG_FILE_NAME);
    let (mut found, others): (Vec<_>, Vec<_>) =
        PathCompleter::file().complete(current).into_iter().partition(is_rr_config);
    found = found.into_iter().map(|candidate| candidate.hide(false)).collect();
    found.extend(others);
    found
}

/// The arguments of `rr`: its command, then files.
pub(super) fn rr_arguments(current: &OsStr) -> Vec<CompletionCandidate> {
    let has_command = std::env::args().any(|word| RR_COMMANDS.contains(&&*word));
    let starts = |command: &&str| !has_command && command.starts_with(&*current.to_string_lossy());
    let commands = RR_COMMANDS.into_iter().filter(starts).map(CompletionCandidate::new);
    commands.chain(rr_configs(current)).collect()
}

/// The values of `--sbom`.
pub(super) fn sbom_types() -> Vec<CompletionCandidate> {
    ["cyclonedx", "spdx"].map(CompletionCandidate::new).into()
}

/// The configuration that the command line selects; `None` if it can't be read.
fn manifest() -> Option<Manifest> {
    let directory = std::env::current_dir().ok()?;
    let path = selected_file().unwrap_or_else(|| default_file(&directory));
    // A pipe could wait for its writer.
    let is_file = directory.join(&path).is_file();
    let file = is_file.then(|| ConfigFile::read(&path, &directory).ok()).flatten()?;
    let variables = environment::variables();
    Manifest::parse(&file.source, &|name| variables.get(name).cloned()).ok().map(|(manifest, _)| manifest)
}

/// The value of `--config` among the words that are completed.
fn selected_file() -> Option<PathBuf> {
    let mut words = std::env::args_os();
    while let Some(word) = words.next() {
        if word == "-c" || word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}
