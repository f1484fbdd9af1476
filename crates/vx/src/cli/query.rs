//! The arguments of `vx doctor`, `outdated`, `search`, `list`, `why`, `tree`, `graph`, `inspect`, `size` and
//! `check`.

use std::path::PathBuf;

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{ConfigArgs, ProjectArgs, SourceArgs, parse_size};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx doctor                                    # check this machine, and velox.toml if there is one
  vx doctor -q --format json                   # only problems, as JSON

Exit codes: 0 no errors, 1 errors that make builds fail.")]
pub(crate) struct DoctorCommand {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx outdated
  vx outdated --all                      # include up-to-date plugins
  vx outdated --format json | jq '.plugins[] | select(.outdated)'

The exit code is 0 in both cases.")]
pub(crate) struct OutdatedCommand {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Include plugins that are up to date
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx search            # all known plugins, by group
  vx search kafka      # by name
  vx search \"job queues\" # by words of the description")]
pub(crate) struct SearchCommand {
    /// The words to search for [default: list all plugins]
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx list              # the plugins of velox.toml
  vx list --all        # include plugins that only the RoadRunner release has")]
pub(crate) struct ListCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Include plugins of the RoadRunner release that are not in velox.toml
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx why go.uber.org/zap
  vx why zap           # the last element of the path is enough
  vx why http          # a plugin, by its name in velox.toml")]
pub(crate) struct WhyCommand {
    /// A module path, with or without its major version, a plugin name, or the last element of a path
    #[arg(value_name = "MODULE", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) module: String,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx tree              # everything that is compiled in
  vx tree --depth 1    # the plugins and their direct requirements
  vx tree --all        # include requirements of tests, and // indirect lines")]
pub(crate) struct TreeCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// The maximum depth; 0 shows only the plugins
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// Show every requirement of each go.mod, not only direct ones that are compiled in
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx graph                                     # what each plugin needs, collects and reads
  vx graph --format dot | dot -Tsvg > rr.svg   # for Graphviz
  vx graph --format mermaid                    # for Markdown
  vx graph --format json

The first time, packages that were not built yet are compiled. No plugin is executed.")]
pub(crate) struct GraphCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx inspect rr
  vx inspect rr --all              # include all other modules
  vx inspect rr --format json | jq -r .stamp_version

The binary is not executed, and can be for another platform.")]
pub(crate) struct InspectCommand {
    /// A RoadRunner binary, built by vx or any other tool
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Include modules that are not plugins
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx size                                      # plugins, modules and kinds of data
  vx size --without temporal --without otel    # predict the size of a smaller binary
  vx size --max-size 40M                       # in CI: fail if the binary is larger
  vx size --save                               # record the sizes, for the list of what grew
  vx size bin/rr                               # an existing binary

The first time, the binary is linked once more, with symbols. Exit codes: 0 success, 1 larger than --max-size.")]
pub(crate) struct SizeCommand {
    /// A RoadRunner binary, or a configuration file [default: velox.toml]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Predict the size without this plugin; can be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) without: Vec<String>,
    /// Fail if the binary is larger: in bytes, or with a suffix K, M or G; lists what grew since --save
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "without")]
    pub(crate) max_size: Option<u64>,
    /// Record the sizes in velox.size.json, beside velox.lock
    #[arg(long, conflicts_with_all = ["without", "max_size"])]
    pub(crate) save: bool,
    /// Include all modules and packages
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx check
  vx check --deny-warnings         # in CI: fail on warnings
  vx check --offline               # without network access, and so without vulnerabilities

Known vulnerabilities are looked up at https://api.osv.dev; private modules (GOPRIVATE) are not sent.")]
pub(crate) struct CheckCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Exit with 1 on warnings
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}
