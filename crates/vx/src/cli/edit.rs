//! The arguments of `vx new`, `init`, `add`, `remove`, `update`, `upgrade` and `migrate`.

use std::path::PathBuf;

use clap::{
    Args, Subcommand, ValueHint,
    builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser},
};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use velox_manifest::{
    Replacement,
    catalogue::{self, PluginGroup},
};

use super::{ConfigArgs, completion, query::DatabaseArgs};

/// The installed binary of `vx upgrade`.
const DEFAULT_BINARY: &str = if cfg!(windows) { "rr.exe" } else { "rr" };

pub(super) const NEW_EXAMPLES: &str = "\
Examples:
  vx new plugin hello --module github.com/me/hello
  vx new plugin hello --roadrunner v2025.1.15  # for the plugin interfaces of an older release
  cd hello && go test ./... && vx run serve";

#[derive(Debug, Subcommand)]
pub(crate) enum NewCommand {
    /// Create a plugin that compiles and has a passing test
    #[command(after_help = NEW_EXAMPLES)]
    Plugin {
        /// The name of the plugin: its section in .rr.yaml and its RPC service
        name: String,
        /// The path of its Go module [default: example.com/NAME]
        #[arg(long, value_name = "PATH")]
        module: Option<String>,
        /// The RoadRunner that the plugin is for: a tag, branch or commit [default: the latest release]
        #[arg(long, value_name = "REF", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::roadrunner_refs))]
        roadrunner: Option<String>,
        /// The directory to create it in [default: NAME]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx init                                     # choose the version and the plugins interactively
  vx init --default                           # the plugins of the latest RoadRunner release
  vx init --roadrunner v2025.1.15 --group http --plugin rpc
  vx init --plugin http@v5.3.0 --plugin acme/plugin@main
  vx init --preset web,queue                  # the plugins for a purpose
  vx init --from .rr.yaml                     # the plugins that a configuration of RoadRunner needs
  vx init --from ./rr                         # the plugins and settings of a binary

--preset, --group, --plugin and --from can be combined.

An existing file is only overwritten with --force.")]
pub(crate) struct InitCommand {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The RoadRunner version: a tag, branch or commit [default: the latest release]
    #[arg(long, value_name = "REF", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::roadrunner_refs))]
    pub(crate) roadrunner: Option<String>,
    /// A plugin to include, in any form that `vx add` accepts; can be repeated
    #[arg(long = "plugin", value_name = "PLUGIN[@REF]", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCompleter::new(completion::plugins_and_directories))]
    pub(crate) plugins: Vec<String>,
    /// Include all plugins of a group that the RoadRunner release has; can be repeated
    #[arg(long = "group", value_name = "GROUP", value_parser = parse_group, add = ArgValueCandidates::new(completion::groups))]
    pub(crate) groups: Vec<PluginGroup>,
    /// Include plugins for one purpose, as far as the RoadRunner release has them; can be repeated
    #[arg(long = "preset", value_name = "PRESET", value_delimiter = ',', value_parser = preset_parser())]
    pub(crate) presets: Vec<String>,
    /// Include exactly the plugins of the RoadRunner release
    #[arg(long, conflicts_with_all = ["groups", "presets", "from"])]
    pub(crate) default: bool,
    /// Copy the plugins and settings of an existing RoadRunner binary, or include the plugins that a .rr.yaml needs
    #[arg(long, value_name = "FILE", add = ArgValueCompleter::new(completion::rr_configs))]
    pub(crate) from: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

pub(super) fn preset_parser() -> PossibleValuesParser {
    let presets = catalogue::presets().iter();
    PossibleValuesParser::new(
        presets.map(|preset| PossibleValue::new(preset.name.as_str()).help(preset.description.as_str())),
    )
}

fn parse_group(text: &str) -> Result<PluginGroup, String> {
    let name = |group: PluginGroup| format!("{group:?}").to_lowercase();
    PluginGroup::ALL.into_iter().find(|group| name(*group) == text.to_lowercase()).ok_or_else(|| {
        let names = PluginGroup::ALL.map(name);
        format!("unknown group; expected one of {}", names.join(", "))
    })
}

/// The configuration file to edit, and whether to update its lock.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Don't update velox.lock; the next build resolves and verifies the versions
    #[arg(long)]
    pub(crate) no_lock: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx add http                            # the version of the RoadRunner release, or the latest
  vx add http@v5.2.0 kv                  # several plugins
  vx add http --with-dependencies        # also server and logger, without which http does not start
  vx add 'http@^5.2'                     # a version constraint, which `vx update` stays within
  vx add acme/plugin@main                # a branch of github.com/acme/plugin
  vx add gitlab.com/acme/x/v2@v2.1.0     # any Go module
  vx add ./my-plugin                     # a local directory
  vx add acme/plugin@v1.0.0 --replace ../plugin

The format, comments and other lines of velox.toml are preserved.")]
pub(crate) struct AddCommand {
    /// A known plugin name, a GitHub OWNER/REPOSITORY, a module path or a directory such as ./my-plugin; REF is a tag,
    /// branch, commit, `latest` or a version constraint
    #[arg(required = true, value_name = "PLUGIN[@REF]", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCompleter::new(completion::plugins_and_directories))]
    pub(crate) plugins: Vec<String>,
    /// Replace the plugin with a directory or another module
    #[arg(long, value_name = "DIR|MODULE[@REF]", value_parser = parse_replacement, value_hint = ValueHint::DirPath)]
    pub(crate) replace: Option<Replacement>,
    /// The name of the plugin in velox.toml; an existing plugin keeps its name [default: the known name, or the last
    /// element of the path]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: Option<String>,
    /// Also add the plugins that these need and that are not in velox.toml, such as server and logger for http
    #[arg(long)]
    pub(crate) with_dependencies: bool,
    /// Add the newest version of a plugin without a REF, even if it is a pre-release
    #[arg(long)]
    pub(crate) pre: bool,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

fn parse_replacement(text: &str) -> Result<Replacement, String> {
    text.parse().map_err(|error: velox_manifest::Diagnostic| {
        std::iter::once(error.message).chain(error.help).collect::<Vec<_>>().join("; ")
    })
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx remove http
  vx remove kv redis memory")]
pub(crate) struct RemoveCommand {
    /// The plugins to remove: by their names in velox.toml, known names or module paths
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(completion::configured_plugins))]
    pub(crate) plugins: Vec<String>,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx update                # all plugins, within their major versions or version constraints
  vx update http kv        # only these plugins
  vx update --major http   # to the latest major version, with its module path
  vx update --dry-run      # what would change
  vx update roadrunner     # RoadRunner itself, which is only updated when named
  vx update --security     # the smallest changes that remove known vulnerabilities
  vx update --security --dry-run

--security changes Go to a patch release, plugins and RoadRunner to fixed versions of the same major version, and adds \
[[requires]] for other modules. The result is compiled before anything is written.

A plugin at a branch or with a version constraint keeps its ref; velox.lock moves to the newest commit or version. A replaced plugin is not updated.")]
pub(crate) struct UpdateCommand {
    /// The plugins to update: by their names in velox.toml, known names or module paths, or `roadrunner` [default: all
    /// plugins]
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(completion::updatable_plugins))]
    pub(crate) plugins: Vec<String>,
    /// Allow updates to a new major version, and beyond a version constraint, which is rewritten; RoadRunner's own plugins
    /// always have the major version of the RoadRunner release
    #[arg(long, visible_alias = "breaking")]
    pub(crate) major: bool,
    /// Update to pre-releases too; a version constraint only allows those that it names
    #[arg(long)]
    pub(crate) pre: bool,
    /// Remove known vulnerabilities (see `vx audit`), and change nothing else
    #[arg(long, conflicts_with_all = ["plugins", "major", "pre", "no_lock"])]
    pub(crate) security: bool,
    /// Show the changes without making them
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) edit: EditArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx upgrade                                   # ./rr, to the newest compatible versions
  vx upgrade /usr/local/bin/rr -c .rr.yaml     # and start it on free ports before it is installed
  vx upgrade --to v3                           # to another generation of RoadRunner and its plugins
  vx upgrade --security                        # only what removes known vulnerabilities
  vx upgrade --check --format json             # for cron and CI: exit with 1 if there is something newer
  vx upgrade --rollback                        # put the replaced binary back

The binary can be one of vx or of another tool, such as Velox. Where a velox.toml is in its directory or a parent of that, \
velox.toml and velox.lock are updated with it. Pre-releases, and majors that this RoadRunner can't use, need --to.

Nothing is replaced unless the new binary was built, answers `--version` and, with a .rr.yaml, starts. Its mode and owner \
stay; a symbolic link stays one. The old binary stays beside it as rr.previous.

Exit codes: 0 upgraded or up to date, 1 failure, or --check found something newer, 2 invalid usage or configuration.")]
pub(crate) struct UpgradeCommand {
    /// The installed binary
    #[arg(value_name = "BINARY", default_value = DEFAULT_BINARY)]
    pub(crate) binary: PathBuf,
    /// Move to this RoadRunner, with the plugins for it: a major version such as v3, or a tag, branch or commit
    #[arg(long, value_name = "REF", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "security", add = ArgValueCandidates::new(completion::roadrunner_majors_and_refs))]
    pub(crate) to: Option<String>,
    /// Remove known vulnerabilities (see `vx audit`), and change nothing else
    #[arg(long)]
    pub(crate) security: bool,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Only look for newer versions; exit with 1 if there are some, or if they can't be listed
    #[arg(long)]
    pub(crate) check: bool,
    /// Show the changes without making them
    #[arg(long, conflicts_with = "check")]
    pub(crate) dry_run: bool,
    /// Put the binary back that the last upgrade replaced; velox.toml and velox.lock stay as they are
    #[arg(long, conflicts_with_all = ["to", "security", "check", "dry_run", "config", "rr_config"])]
    pub(crate) rollback: bool,
    /// The configuration file that the binary was built from [default: velox.toml in the directory of the binary or the nearest
    /// parent; without one, what the binary contains]. A .rr.yaml is taken for --rr-config
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The RoadRunner configuration to start the new binary with, before it is installed: on free ports of the loopback
    /// interface, without consuming queues and without the commands of `service`
    #[arg(long, value_name = "FILE", add = ArgValueCompleter::new(completion::rr_configs))]
    pub(crate) rr_config: Option<PathBuf>,
    /// The go command to use [default: go from PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx migrate
  vx migrate --check       # in CI: fail if velox.toml is in an old format
  vx migrate --to v3 --dry-run
  vx migrate --to v3       # RoadRunner and its plugins, to the newest release of RoadRunner 3

With --to, RoadRunner's own plugins move to their newest versions for that RoadRunner; other plugins move if one of \
their versions is for it. The file keeps its format. A .rr.yaml beside it is checked for what changes with RoadRunner 3.

Exit codes with --to: 0 everything moved, 1 some plugins have no version for that RoadRunner and stay (the others \
moved), or --check found something to do, 2 invalid configuration or no such RoadRunner.

Comments are preserved. Module paths that the file does not contain (of branches, commits, folders and GitLab project \
ids) are read from velox.lock, or resolved.")]
pub(crate) struct MigrateCommand {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Check that the file is in the latest format, without changing it; with --to, that nothing has to be changed
    #[arg(long)]
    pub(crate) check: bool,
    /// Move to another RoadRunner, with the plugins for it: a major version such as v3, or a tag, branch or commit
    #[arg(long, value_name = "REF", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::roadrunner_majors_and_refs))]
    pub(crate) to: Option<String>,
    /// Show the changes without making them
    #[arg(long, requires = "to")]
    pub(crate) dry_run: bool,
    /// The RoadRunner configuration to check, without changing it; can be repeated [default: .rr.yaml beside velox.toml,
    /// if there is one]
    #[arg(long, value_name = "FILE", requires = "to", add = ArgValueCompleter::new(completion::rr_configs))]
    pub(crate) rr_config: Vec<PathBuf>,
    /// Don't update velox.lock; the next build resolves and verifies the versions
    #[arg(long, requires = "to")]
    pub(crate) no_lock: bool,
}
