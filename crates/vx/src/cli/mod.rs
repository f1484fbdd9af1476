//! The command line: the arguments of each command and their help texts.

// Doc comments here are help texts: their brackets are not links.
#![allow(rustdoc::broken_intra_doc_links)]

mod advice;
pub(crate) mod build;
pub(crate) mod completion;
pub(crate) mod edit;
mod leading;
pub(crate) mod query;
#[cfg(feature = "service")]
pub(crate) mod service;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{
    Arg, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, Styles, TypedValueParser, styling::AnsiColor},
    error::ErrorKind,
};
use clap_complete::ArgValueCandidates;
use velox_manifest::GoTarget;

use self::leading::LeadingArgs;
use crate::config_file::DEFAULT_FILE_NAME;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Build custom RoadRunner binaries from a velox.toml
#[derive(Debug, Parser)]
#[command(name = "vx", version, styles = STYLES, arg_required_else_help = true, max_term_width = 100)]
#[command(
    // An option that is repeated takes its last value, as in Velox.
    args_override_self = true,
    after_help = "Exit codes: 0 success, 1 failure, 2 invalid usage or configuration, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: CliCommand,
    #[command(flatten)]
    leading: LeadingArgs,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
}

impl Cli {
    /// Parses the arguments of the process.
    ///
    /// # Errors
    /// The usage is invalid, with advice, or help or the version is requested.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        // The short form of `--version` in Velox; `-v` is useless without a command.
        if let [_, only] = arguments.as_mut_slice()
            && only == "-v"
        {
            *only = "--version".into();
        }
        let mut command = Self::command();
        let matches = command
            .try_get_matches_from_mut(&arguments)
            .map_err(|error| advice::advise(error, &command, &arguments))?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        std::mem::take(&mut cli.leading)
            .pass_to(&mut cli.command, &matches)
            .map_err(|error| error.format(&mut command))?;
        let only = match cli.global.format {
            Some(FormatArg::Dot | FormatArg::Mermaid) if !matches!(cli.command, CliCommand::Graph(_)) => {
                "only `vx graph` prints diagrams"
            }
            Some(FormatArg::Sarif | FormatArg::Openvex) if !matches!(cli.command, CliCommand::Audit(_)) => {
                "only `vx audit` prints SARIF and OpenVEX"
            }
            _ => return Ok(cli),
        };
        let message = format!("invalid value for '--format <FORMAT>': {only}");
        Err(clap::Error::raw(ErrorKind::InvalidValue, message).format(&mut command))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Build the RoadRunner binary that velox.toml describes
    Build(Box<build::BuildCommand>),
    /// Build the binary if needed, and run it
    Run(Box<build::RunCommand>),
    /// Resolve versions and write velox.lock
    Lock(Box<build::LockCommand>),
    /// Download everything that a build with --offline needs
    Fetch(Box<build::FetchCommand>),
    /// Find the version change that breaks a test, between two lock files
    Bisect(Box<build::BisectCommand>),
    /// Create a plugin from a template
    #[command(after_help = edit::NEW_EXAMPLES)]
    New {
        #[command(subcommand)]
        command: edit::NewCommand,
    },
    /// Diagnose problems with the toolchain, the network and the configuration
    #[command(mut_arg("dependencies", |argument| argument.hide(true)))]
    Doctor(query::DoctorCommand),
    /// Create a velox.toml
    #[command(mut_arg("config", |argument| argument.help("The file to create [default: velox.toml]")))]
    Init(Box<edit::InitCommand>),
    /// Add plugins to velox.toml, or change their versions
    Add(Box<edit::AddCommand>),
    /// Remove plugins from velox.toml
    #[command(visible_alias = "rm")]
    Remove(Box<edit::RemoveCommand>),
    /// Update plugins in velox.toml to their latest versions
    Update(Box<edit::UpdateCommand>),
    /// Show plugins with newer versions
    Outdated(Box<query::OutdatedCommand>),
    /// Replace an installed binary by one with newer versions
    Upgrade(Box<edit::UpgradeCommand>),
    /// Show what changes between two lock files or binaries, as Markdown
    Diff(Box<query::DiffCommand>),
    /// Convert velox.toml to the latest format
    Migrate(Box<edit::MigrateCommand>),
    /// Search known plugins by name, module path or description
    Search(query::SearchCommand),
    /// List plugins with their requested, locked and released versions
    List(Box<query::ListCommand>),
    /// Show why a module is included, and at which version
    Why(Box<query::WhyCommand>),
    /// Show the dependency tree of the plugins
    Tree(Box<query::TreeCommand>),
    /// Show how RoadRunner connects the plugins, and which sections of .rr.yaml they read
    Graph(Box<query::GraphCommand>),
    /// Show the licenses of everything that is compiled in, or write their texts to a file
    Licenses(Box<query::LicensesCommand>),
    /// Print the bill of materials (SBOM) of a binary, or of velox.toml
    Sbom(Box<query::SbomCommand>),
    /// Show the plugins and build settings of a RoadRunner binary
    Inspect(query::InspectCommand),
    /// Verify that a binary is exactly what its velox.lock builds
    Verify(Box<build::VerifyCommand>),
    /// Show how many bytes belong to each plugin, and predict the size without some
    Size(Box<query::SizeCommand>),
    /// Check the configuration for errors, without compiling
    Check(Box<query::CheckCommand>),
    /// Show known vulnerabilities, and whether the vulnerable code is called
    Audit(Box<query::AuditCommand>),
    /// Run the build service, an HTTP server that builds binaries on request
    #[cfg(feature = "service")]
    #[command(mut_args(|argument| argument.hide_env(true)))]
    Server(Box<service::ServerCommand>),
    /// Run a build worker for a cluster of build services
    #[cfg(feature = "service")]
    #[command(mut_args(|argument| argument.hide_env(true)))]
    Worker(Box<service::WorkerCommand>),
    /// Not available: this vx was built without the build service
    #[cfg(not(feature = "service"))]
    #[command(name = "server", aliases = ["worker", "job"], hide = true, disable_help_flag = true)]
    MissingService {
        #[arg(allow_hyphen_values = true, trailing_var_arg = true, hide = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Manage the cache of built binaries
    #[command(after_help = build::CACHE_EXAMPLES)]
    Cache {
        #[command(subcommand)]
        command: build::CacheCommand,
    },
    /// Generate shell completions
    #[command(
        visible_alias = "completion",
        after_help = "Examples:
  source <(vx completions bash)                # in ~/.bashrc
  source <(vx completions zsh)                 # in ~/.zshrc, after compinit
  vx completions fish | source                 # in ~/.config/fish/completions/vx.fish
  vx completions powershell | Out-String | Invoke-Expression    # in $PROFILE

Options, plugins, versions in the module cache, targets and files are completed, without network
access. The script runs vx, and belongs to this version: load it when the shell starts, rather than
from a copy."
    )]
    Completions {
        /// The shell to generate completions for
        shell: clap_complete::Shell,
        /// Leave out the descriptions
        #[arg(long)]
        no_descriptions: bool,
    },
    /// Print the manual page of vx, or write the pages of all commands to a directory
    #[command(after_help = "Examples:
  vx man | man -l -                            # read the page
  vx man ~/.local/share/man/man1               # install all pages, for `man vx-build`")]
    Man {
        /// The directory to write vx.1, vx-build.1 and so on to; created if missing
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Print the JSON Schema of velox.toml
    #[command(after_help = "Examples:
  vx schema > velox.schema.json
  sed -i '1i #:schema ./velox.schema.json' velox.toml    # for editors with Taplo")]
    Schema,
    /// Show the version of vx
    #[command(after_help = "Examples:
  vx version                                   # version, commit and platform
  vx version --format json")]
    Version,
    /// Serve the shared compile cache to the go command (GOCACHEPROG)
    #[command(hide = true)]
    CompileCache,
    /// Run one build of the build service
    #[cfg(feature = "service")]
    #[command(hide = true)]
    Job,
}

#[derive(Debug, Args)]
#[command(next_help_heading = OUTPUT_OPTIONS)]
pub(crate) struct GlobalArgs {
    /// Show the output of go and git; twice: also each module and package
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Show errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[arg(long, global = true, value_enum, help = FORMAT_HELP)]
    pub(crate) format: Option<FormatArg>,
    /// When to use colors; auto respects NO_COLOR and CLICOLOR_FORCE
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

/// A value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Human,
    Json,
    #[value(hide = true)]
    Dot,
    #[value(hide = true)]
    Mermaid,
    #[value(hide = true)]
    Sarif,
    #[value(hide = true)]
    Openvex,
}

const OUTPUT_OPTIONS: &str = "Output options";
const FORMAT_HELP: &str = "The output format: text on stderr, or JSON events on stdout [default: human; [log] mode in velox.toml changes the text]";

/// `--format` of a command with further formats.
fn format_argument(further: [FormatArg; 2]) -> Arg {
    let formats = [FormatArg::Human, FormatArg::Json].into_iter().chain(further);
    let values = formats.filter_map(|format| Some(format.to_possible_value()?.hide(false)));
    let parser = PossibleValuesParser::new(values).try_map(|text| FormatArg::from_str(&text, false));
    Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .global(true)
        .value_parser(parser)
        .help(FORMAT_HELP)
        .help_heading(OUTPUT_OPTIONS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Human,
    Json,
}

/// The format of a graph that another program draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiagramFormat {
    Dot,
    Mermaid,
}

/// The format of a report about vulnerabilities that another program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditFormat {
    Sarif,
    Openvex,
}

impl FormatArg {
    /// The format of messages and results; `None`: as without the flag.
    pub(crate) fn output(self) -> Option<OutputFormat> {
        match self {
            Self::Human => Some(OutputFormat::Human),
            Self::Json => Some(OutputFormat::Json),
            Self::Dot | Self::Mermaid | Self::Sarif | Self::Openvex => None,
        }
    }

    pub(crate) fn diagram(self) -> Option<DiagramFormat> {
        match self {
            Self::Dot => Some(DiagramFormat::Dot),
            Self::Mermaid => Some(DiagramFormat::Mermaid),
            Self::Human | Self::Json | Self::Sarif | Self::Openvex => None,
        }
    }

    pub(crate) fn audit(self) -> Option<AuditFormat> {
        match self {
            Self::Sarif => Some(AuditFormat::Sarif),
            Self::Openvex => Some(AuditFormat::Openvex),
            Self::Human | Self::Json | Self::Dot | Self::Mermaid => None,
        }
    }
}

/// The configuration of a command that builds or inspects it, with its target platforms.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProjectArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// A target platform as GOOS/GOARCH, such as linux/arm64; can be repeated. `all` selects every platform that
    /// RoadRunner is released for [default: from velox.toml, or the host]
    #[arg(long = "target", value_name = "OS/ARCH", value_parser = TargetArg::parse, add = ArgValueCandidates::new(completion::targets))]
    pub(crate) targets: Vec<TargetArg>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// The configuration file; `-` reads from stdin [default: velox.toml in this directory or the nearest parent]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which versions of other dependencies to select: those of the RoadRunner release, or the minimum that the plugins
    /// require [default: release, where compatible with the plugins]
    #[arg(long, value_enum)]
    pub(crate) dependencies: Option<DependenciesArg>,
    /// Run without network access; list what is missing from the caches
    #[arg(long)]
    pub(crate) offline: bool,
    /// The go command to use [default: go from PATH; a suitable toolchain is downloaded if it is missing or too old and
    /// GOTOOLCHAIN allows it]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

/// The configuration file of a command that edits it.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: velox.toml in this directory or the nearest parent]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The go command to use [default: go from PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

impl ConfigArgs {
    /// The path of the file, in the working directory by default.
    pub(crate) fn file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE_NAME))
    }
}

/// One value of `--target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetArg(pub(crate) Vec<GoTarget>);

impl TargetArg {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(velox_manifest::release_targets()));
        }
        velox_manifest::parse_target(text).map(|target| Self(vec![target]))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DependenciesArg {
    Release,
    Minimal,
}

impl From<DependenciesArg> for velox_manifest::Dependencies {
    fn from(choice: DependenciesArg) -> Self {
        match choice {
            DependenciesArg::Release => Self::Release,
            DependenciesArg::Minimal => Self::Minimal,
        }
    }
}

/// The type of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SbomFormatArg {
    /// CycloneDX 1.6, as JSON
    #[value(name = "cyclonedx", alias = "cyclonedx-json")]
    CycloneDx,
    /// SPDX 2.3, as JSON
    #[value(alias = "spdx-json")]
    Spdx,
}

impl From<SbomFormatArg> for velox_build::SbomFormat {
    fn from(format: SbomFormatArg) -> Self {
        match format {
            SbomFormatArg::CycloneDx => Self::CycloneDx,
            SbomFormatArg::Spdx => Self::Spdx,
        }
    }
}

/// Parses a size such as `500M`, in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "B" => Some(1),
        "K" | "KB" | "KIB" => Some(1 << 10),
        "M" | "MB" | "MIB" => Some(1 << 20),
        "G" | "GB" | "GIB" => Some(1 << 30),
        "T" | "TB" | "TIB" => Some(1 << 40),
        _ => None,
    };
    digits
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "expected a size in bytes, or such as 500M or 2G".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn sizes_are_parsed() {
        assert_eq!(super::parse_size("500M"), Ok(500 << 20));
        assert_eq!(super::parse_size("12"), Ok(12));
        for invalid in ["", "G", "1X", "99999999999T", "-1", "1.5G", "é"] {
            assert!(super::parse_size(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
