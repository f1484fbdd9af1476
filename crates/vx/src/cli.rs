// Doc comments here are help texts: their brackets are no links.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{
    Args, ColorChoice, Parser, Subcommand, ValueEnum,
    builder::{NonEmptyStringValueParser, Styles, styling::AnsiColor},
};
use velox_manifest::GoTarget;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Builds your own RoadRunner server from a velox.toml
#[derive(Debug, Parser)]
#[command(name = "vx", version, styles = STYLES, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 the build failed, 2 wrong usage or configuration, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the server that velox.toml describes
    Build(Box<Build>),
    /// Show what this vx is
    Version,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What is shown")]
pub(crate) struct Global {
    /// Show the output of go and git too; twice: every module and package as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Show errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Lines for people on stderr, or JSON events on stdout [default: human, but json off a terminal with
    /// velox.toml's [log] mode = "production"]
    #[arg(long, global = true, value_enum)]
    pub(crate) format: Option<Format>,
    /// Colours: NO_COLOR and CLICOLOR_FORCE are honoured with auto
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Human,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The configuration; `-` reads it from the standard input
    #[arg(short, long, value_name = "FILE", default_value = "velox.toml")]
    pub(crate) config: PathBuf,
    /// The directory that gets rr (rr.exe for Windows), made when missing [default: the working directory]
    #[arg(short, long = "output-dir", visible_alias = "out", value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// The binary's own path, instead of a directory for it
    #[arg(long, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output_file: Option<PathBuf>,
    /// The platform to compile for, as Go names it, such as linux/arm64 [default: velox.toml's, else this one]
    #[arg(long, value_name = "OS/ARCH", value_parser = velox_manifest::parse_target)]
    pub(crate) target: Option<GoTarget>,
    /// Keep debug symbols, for pprof and delve
    #[arg(long)]
    pub(crate) debug: bool,
    /// Compile with Go's race detector (needs a C compiler)
    #[arg(long)]
    pub(crate) race: bool,
    /// Fail when a plugin would be compiled at a newer version than asked for
    #[arg(long)]
    pub(crate) strict: bool,
    /// Which dependency versions to start from: those that RoadRunner was released with, or what the plugins
    /// demand and no more [default: release, as far as the plugins allow]
    #[arg(long, value_enum)]
    pub(crate) dependencies: Option<Dependencies>,
    /// The version that `rr --version` shows [default: $VERSION, $APP_VERSION, else RoadRunner's ref]
    #[arg(long, value_name = "VERSION", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stamp_version: Option<String>,
    /// The build time that `rr --version` shows [default: $TIME, $BUILD_TIME, $SOURCE_DATE_EPOCH, else the
    /// commit time of RoadRunner's ref]
    #[arg(long, value_name = "TIME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stamp_time: Option<String>,
    /// Leave the generated source tree in place, and say where it is
    #[arg(long)]
    pub(crate) keep_workspace: bool,
    /// Don't run `rr --version` on what was built
    #[arg(long)]
    pub(crate) no_smoke_test: bool,
    /// Print the exact versions and the go.mod (stdout), and compile nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dependencies {
    Release,
    Minimal,
}

impl From<Dependencies> for velox_manifest::Dependencies {
    fn from(choice: Dependencies) -> Self {
        match choice {
            Dependencies::Release => Self::Release,
            Dependencies::Minimal => Self::Minimal,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
