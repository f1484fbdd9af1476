//! The arguments of `vx doctor`, `outdated`, `diff`, `search`, `list`, `why`, `tree`, `graph`, `licenses`, `sbom`, `inspect`,
//! `size`, `check` and `audit`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use velox_query::{DeniedLicense, PUBLIC_VULNERABILITY_DATABASE, Reach};

use super::{ConfigArgs, FormatArg, ProjectArgs, SbomFormatArg, SourceArgs, completion, parse_size};

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
    /// Show pre-releases too
    #[arg(long)]
    pub(crate) pre: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  git show main:velox.lock | vx diff -         # what changes in velox.lock since main
  vx diff old.lock new.lock --audit            # with the vulnerabilities that are closed and opened
  vx diff /usr/local/bin/rr bin/rr             # two binaries, of vx or any other tool
  vx diff old.lock --format json | jq '.changes[] | select(.kind == \"plugin\")'

The output is Markdown, for the text of a pull request. Only files on this machine are read, except with --audit.")]
pub(crate) struct DiffCommand {
    /// A velox.lock or a RoadRunner binary; `-` reads a lock from stdin
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// A velox.lock or a RoadRunner binary [default: the lock of the configuration, velox.lock]
    #[arg(value_name = "NEW")]
    pub(crate) new: Option<PathBuf>,
    /// Look up the vulnerabilities of both versions of each module
    #[arg(long)]
    pub(crate) audit: bool,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx search            # all known plugins, by group
  vx search kafka      # by name
  vx search \"job queues\" # by words of the description")]
pub(crate) struct SearchCommand {
    /// The words to search for [default: list all plugins]
    #[arg(value_name = "WORD", add = ArgValueCompleter::new(completion::plugins))]
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
    #[arg(value_name = "MODULE", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::configured_plugins))]
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
#[command(arg(super::format_argument([FormatArg::Dot, FormatArg::Mermaid])))]
pub(crate) struct GraphCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx licenses                                    # the modules, grouped by license
  vx licenses --output NOTICE                    # with the texts, to distribute with the binary
  vx licenses --deny GPL-3.0 --deny AGPL-3.0     # in CI: fail if a module has one of these
  vx licenses --deny unknown

A license is only named if the text of the module's license file was recognized. Nothing is compiled.")]
pub(crate) struct LicensesCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Write the texts of all licenses and notices to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Exit with 1 if a module has this license: an SPDX identifier, several joined with OR, or `unknown` for modules
    /// without a recognized license. `GPL-3.0` stands for GPL-3.0-only and GPL-3.0-or-later. Can be repeated
    #[arg(long, value_name = "LICENSE", value_parser = DeniedArg::parse)]
    pub(crate) deny: Vec<DeniedArg>,
}

/// One value of `--deny`.
#[derive(Debug, Clone)]
pub(crate) struct DeniedArg(pub(crate) Vec<DeniedLicense>);

impl DeniedArg {
    fn parse(text: &str) -> Result<Self, String> {
        DeniedLicense::parse(text).map(Self)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx sbom > rr.cdx.json                # of velox.toml and velox.lock, without compiling
  vx sbom rr --type spdx               # of a binary that this machine built
  vx build --sbom cyclonedx            # with the binary

A document of velox.toml is the same as that of its binary, but has no checksum of the binary.")]
pub(crate) struct SbomCommand {
    /// A binary that vx built on this machine [default: the configuration]
    #[arg(value_name = "BINARY", conflicts_with_all = ["config", "targets", "dependencies", "offline", "go"])]
    pub(crate) binary: Option<PathBuf>,
    /// The type of document
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "cyclonedx")]
    pub(crate) document: SbomFormatArg,
    /// The file to write to [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
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
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(completion::configured_plugins))]
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
  vx check --rr-config prod.yaml   # compare the plugins with a configuration of RoadRunner

`vx audit` shows known vulnerabilities.")]
pub(crate) struct CheckCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// The RoadRunner configuration whose settings the plugins must serve; can be repeated. `--config` accepts it too
    /// [default: .rr.yaml beside velox.toml, if there is one]
    #[arg(long, value_name = "FILE", add = ArgValueCompleter::new(completion::rr_configs))]
    pub(crate) rr_config: Vec<PathBuf>,
    /// Exit with 1 on warnings
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx audit                                  # fail if vulnerable code is called
  vx audit --fail-on imported               # also if it is only compiled
  vx audit --format sarif                   # for code scanning
  vx audit --format openvex                 # for scanners that read the binary
  vx audit --db file:///srv/vulndb --offline

The analysis is that of govulncheck, which is compiled once, on the source tree that `vx build` compiles. No name of a \
module is sent anywhere.

Exit codes: 0 nothing found at this level, 1 vulnerabilities, or something could not be checked, 2 invalid usage or \
configuration.")]
#[command(arg(super::format_argument([FormatArg::Sarif, FormatArg::Openvex])))]
pub(crate) struct AuditCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// The least use of a vulnerability that is a failure
    #[arg(long, value_name = "USE", value_enum, default_value = "called")]
    pub(crate) fail_on: FailOn,
}

/// The vulnerability database.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// The Go vulnerability database: the URL of a mirror, or file:// with the path of a copy
    #[arg(long = "db", value_name = "URL", default_value = PUBLIC_VULNERABILITY_DATABASE)]
    pub(crate) url: String,
}

/// A value of `--fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// A vulnerable function is called
    Called,
    /// A vulnerable package is compiled
    Imported,
    /// A module with a vulnerable package is required
    Required,
    /// Never
    None,
}

impl FailOn {
    pub(crate) fn includes(self, reach: Reach) -> bool {
        match self {
            Self::Called => reach == Reach::Called,
            Self::Imported => reach >= Reach::Imported,
            Self::Required => true,
            Self::None => false,
        }
    }
}
