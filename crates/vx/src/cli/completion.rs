//! Completions: the scripts that make shells run vx, and the values that it then prints. Nothing uses the network.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory as _};
use clap_complete::{
    CompletionCandidate, PathCompleter, Shell,
    engine::{ValueCompleter as _, complete},
    env::{self, CompleteEnv, EnvCompleter, Shells},
};
use velox_build::CachedModules;
use velox_manifest::{
    Manifest,
    catalogue::{self, PluginGroup, ROADRUNNER_MODULE},
};
use velox_query::ROADRUNNER;

use super::Cli;
use crate::{
    config_file::{ConfigFile, default_file},
    environment,
};

/// A shell's completion script sets one of these variables to the name of the shell.
const VARIABLE: &str = "VX_COMPLETE";
const WITHOUT_DESCRIPTIONS: &str = "VX_COMPLETE_WITHOUT_DESCRIPTIONS";

const SHELLS: Shells<'_> = Shells(&[&Bash, &env::Elvish, &env::Fish, &env::Powershell, &env::Zsh]);

/// Prints completions and ends the process, if a completion script runs it.
pub(crate) fn answer() {
    let without_descriptions = || without_descriptions(Cli::command());
    CompleteEnv::with_factory(without_descriptions).var(WITHOUT_DESCRIPTIONS).shells(SHELLS).complete();
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).shells(SHELLS).complete();
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
        COMPREPLY+=("$(printf %q "${candidate#"$kept"}")")
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
    let mut versions = CachedModules::new(&environment::variables()).versions(ROADRUNNER_MODULE);
    let known = catalogue::known_releases().iter().map(|release| release.version.clone());
    let known: Vec<String> = known.filter(|version| !versions.contains(version)).collect();
    versions.extend(known);
    versions.into_iter().map(CompletionCandidate::new).collect()
}

/// `PLUGIN[@REF]`: names of the catalogue and of the configuration; after `@`, the versions in the module cache.
pub(super) fn plugins(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    if let Some((plugin, _)) = current.split_once('@') {
        let module = match catalogue::find(plugin) {
            Some(known) if !plugin.contains('/') => known.module.clone(),
            None if plugin.matches('/').count() == 1 => format!("github.com/{plugin}"),
            _ => plugin.to_owned(),
        };
        let versions = CachedModules::new(&environment::variables()).versions(&module);
        let refs = versions.into_iter().map(|version| format!("{plugin}@{version}"));
        return refs.filter(|text| text.starts_with(&*current)).map(CompletionCandidate::new).collect();
    }
    let known = catalogue::catalogue().iter().filter(|plugin| plugin.name.starts_with(&*current));
    known
        .map(|plugin| CompletionCandidate::new(&plugin.name).help(Some(plugin.description.as_str().into())))
        .collect()
}

/// The values of `--with`: like [`plugins`], or local directories, also as a replacement after `=`.
pub(super) fn plugins_and_directories(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    let (plugin, directory) = text.split_at(text.find('=').map_or(0, |at| at + 1));
    let directories = PathCompleter::dir().complete(OsStr::new(directory)).into_iter();
    let mut found: Vec<_> = directories.map(|candidate| candidate.add_prefix(plugin)).collect();
    found.extend(plugins(current));
    found
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
