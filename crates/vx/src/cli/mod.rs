// Doc comments here are help texts: their brackets are no links.
#![allow(rustdoc::broken_intra_doc_links)]

pub(crate) mod service;
pub(crate) mod token;

use std::path::PathBuf;

use clap::{
    Args, ColorChoice, Parser, Subcommand, ValueEnum,
    builder::{NonEmptyStringValueParser, Styles, styling::AnsiColor},
};
use velox_manifest::{GoTarget, Replacement, catalogue};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Examples below a command's help.
mod examples {
    pub(super) const BUILD: &str = "\
Examples:
  vx build                                     # velox.toml, into ./rr
  vx build -c conf/velox.toml -o bin           # another file, another directory
  vx build --target linux/arm64 --archive      # for another machine, with a release archive
  vx build --remote https://builds.example.com # by a build service: no Go is needed here
  vx build --with ./my-plugin                  # with a plugin that is being written
  vx build --roadrunner v2025.1.15 \\
    --with github.com/roadrunner-server/http/v5@v5.3.0 \\
    --with github.com/acme/mine=../mine        # with no velox.toml at all";
    pub(super) const RUN: &str = "\
Examples:
  vx run serve -c .rr.yaml                     # the server of velox.toml
  vx run --with ./my-plugin serve              # with a plugin that is being written
  vx run -- --version                          # `--` where the server's arguments begin with a dash

vx's own flags stand before the server's arguments. The exit code is the server's.";
    pub(super) const LOCK: &str = "\
Examples:
  vx lock                                      # lock what velox.toml asks for
  vx lock --check                              # in CI: is the committed lock up to date?
  vx lock --upgrade http                       # the newest that http's ref names by now";
    pub(super) const FETCH: &str = "\
Examples:
  vx fetch && vx build --offline               # two steps of a Dockerfile, the first with the network
  vx fetch --locked --target all               # exactly velox.lock, for every platform";
    pub(super) const DOCTOR: &str = "\
Examples:
  vx doctor                                    # this machine, and velox.toml where there is one
  vx doctor -q --format json                   # only what is wrong, for programs

Exit codes: 0 builds should work, 1 something that they need is broken.";
    pub(super) const NEW: &str = "\
Examples:
  vx new plugin hello --module github.com/me/hello
  cd hello && go test ./... && vx run serve";
    pub(super) const CACHE: &str = "\
Examples:
  vx cache info                                # how much is kept
  vx cache prune --max-size 500M               # keep the newest 500 MiB
  rm -rf \"$(vx cache dir)\"                     # all of it, by hand";
    pub(super) const COMPLETIONS: &str = "\
Examples:
  vx completions bash > ~/.local/share/bash-completion/completions/vx
  vx completions zsh > ~/.zfunc/_vx            # with `fpath+=~/.zfunc` before compinit in .zshrc
  vx completions fish > ~/.config/fish/completions/vx.fish
  vx completions powershell >> $PROFILE";
    pub(super) const MAN: &str = "\
Examples:
  vx man | man -l -                            # read it
  vx man ~/.local/share/man/man1               # all of them, for `man vx-build`";
    pub(super) const SCHEMA: &str = "\
Examples:
  vx schema > velox.schema.json
  sed -i '1i #:schema ./velox.schema.json' velox.toml    # for editors with Taplo";
    pub(super) const VERSION: &str = "\
Examples:
  vx version                                   # with its commit and this machine
  vx version --format json                     # for programs";
}

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
    #[command(after_help = examples::BUILD)]
    Build(Box<Build>),
    /// Build the server as far as it isn't built yet, and run it
    #[command(after_help = examples::RUN)]
    Run(Box<Run>),
    /// Write velox.lock: the exact versions of the server, for every machine the same
    #[command(after_help = examples::LOCK)]
    Lock(Box<Lock>),
    /// Download all that a later build needs, so that it can be run with --offline
    #[command(after_help = examples::FETCH)]
    Fetch(Box<Fetch>),
    /// Start something new: a plugin of your own
    #[command(after_help = examples::NEW)]
    New {
        #[command(subcommand)]
        command: New,
    },
    /// Look for what would keep a build from working, and say what to do
    #[command(after_help = examples::DOCTOR)]
    #[command(mut_arg("dependencies", |argument| argument.hide(true)))]
    Doctor(ServerSource),
    /// Write a velox.toml to begin with
    Init(Box<Init>),
    /// Add plugins to velox.toml, or change the refs of those that are in it
    Add(Box<Add>),
    /// Remove plugins from velox.toml
    #[command(visible_alias = "rm")]
    Remove(Box<Remove>),
    /// Move plugins in velox.toml to their newest versions
    Update(Box<Update>),
    /// Show which plugins have newer versions
    Outdated(Box<Outdated>),
    /// Move velox.toml to the newest format
    Migrate(Box<Migrate>),
    /// Find plugins by name, module path or description
    Search(Search),
    /// Show the plugins: asked for, locked, and in RoadRunner's own release
    List(Box<List>),
    /// Show who needs a module, and at which version
    Why(Box<Why>),
    /// Show the plugins and what they require
    Tree(Box<Tree>),
    /// Show what is inside a RoadRunner binary
    Inspect(Inspect),
    /// Look for what is wrong or risky with the server, without compiling it
    Check(Box<Check>),
    /// Build servers for others, over HTTP
    #[command(mut_args(|argument| argument.hide_env(true)))]
    Server(Box<service::Serve>),
    /// Build what servers of the same cluster were asked for
    #[command(mut_args(|argument| argument.hide_env(true)))]
    Worker(Box<service::Work>),
    /// Show or remove what vx keeps of earlier builds
    #[command(after_help = examples::CACHE)]
    Cache {
        #[command(subcommand)]
        command: Cache,
    },
    /// Print what makes a shell complete vx's commands and flags
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of vx, or write those of all commands into a directory
    #[command(after_help = examples::MAN)]
    Man {
        /// The directory that gets vx.1, vx-build.1 and so on, made when missing
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Print the JSON Schema of velox.toml, for editors that complete and check it
    #[command(after_help = examples::SCHEMA)]
    Schema,
    /// Show what this vx is
    #[command(after_help = examples::VERSION)]
    Version,
    /// What the go command runs for a shared compile cache
    #[command(hide = true)]
    CompileCache,
    /// What a build service runs for each build
    #[command(hide = true)]
    Job,
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

/// What every command that builds a server, or looks at one, takes.
#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) source: ServerSource,
    /// A platform to compile for, as Go names it, such as linux/arm64; may be given several times. `all` is
    /// every one that RoadRunner is released for [default: velox.toml's, else this one]
    #[arg(long = "target", value_name = "OS/ARCH", value_parser = Targets::parse)]
    pub(crate) targets: Vec<Targets>,
}

/// What a server is made from, whatever the platform.
#[derive(Debug, Args)]
pub(crate) struct ServerSource {
    /// The configuration; `-` reads it from the standard input [default: velox.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which dependency versions to start from: those that RoadRunner was released with, or what the plugins
    /// demand and no more [default: release, as far as the plugins allow]
    #[arg(long, value_enum)]
    pub(crate) dependencies: Option<Dependencies>,
    /// Don't use the network: fail with a list of what is missing
    #[arg(long)]
    pub(crate) offline: bool,
    /// The go command to use, and no other [default: the one on the PATH; where there is none, or it is too old, the
    /// right one is downloaded as GOTOOLCHAIN allows]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

/// What is changed for one build, and no file knows of.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What is built, this time")]
pub(crate) struct Changes {
    /// Compile this plugin in, or change the one that velox.toml has: by its module path, at a tag, a branch or a
    /// commit [default: velox.toml's, else the newest release], and with a directory or another MODULE@REF in its
    /// place. A directory alone is the plugin in it. May be given several times; needs no velox.toml
    #[arg(long, value_name = "MODULE[@REF][=REPLACEMENT]")]
    pub(crate) with: Vec<String>,
    /// Leave this plugin of velox.toml out; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) without: Vec<String>,
    /// The RoadRunner to build: a tag, a branch or a commit [default: velox.toml's, else the newest release]
    #[arg(long, value_name = "REF")]
    pub(crate) roadrunner: Option<String>,
}

/// One argument of `--target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets(pub(crate) Vec<GoTarget>);

impl Targets {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(velox_manifest::release_targets()));
        }
        velox_manifest::parse_target(text).map(|target| Self(vec![target]))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) server: Server,
    /// The directory that gets rr (rr.exe for Windows; rr-OS-ARCH where there are several targets), made when
    /// missing [default: the working directory]
    #[arg(short, long = "output-dir", visible_alias = "out", value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// The binary's own path, instead of a directory for it
    #[arg(long, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output_file: Option<PathBuf>,
    /// Fail unless velox.lock is there and says what the configuration asks for
    #[arg(long, conflicts_with_all = ["with", "without", "roadrunner"])]
    pub(crate) locked: bool,
    /// Keep debug symbols, for pprof and delve
    #[arg(long)]
    pub(crate) debug: bool,
    /// Compile with Go's race detector (needs a C compiler)
    #[arg(long)]
    pub(crate) race: bool,
    /// Fail when a plugin would be compiled at a newer version than asked for
    #[arg(long)]
    pub(crate) strict: bool,
    /// The version that `rr --version` shows [default: $VERSION, $APP_VERSION, else RoadRunner's ref]
    #[arg(long, value_name = "VERSION", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stamp_version: Option<String>,
    /// The build time that `rr --version` shows [default: $TIME, $BUILD_TIME, $SOURCE_DATE_EPOCH, else the
    /// commit time of RoadRunner's ref]
    #[arg(long, value_name = "TIME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stamp_time: Option<String>,
    /// Make a release archive of each binary too, and checksums.txt
    #[arg(long)]
    pub(crate) archive: bool,
    /// Compile, even where the very same server was built before
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// The compile cache that a team shares: a directory, or an s3://, gs:// or az:// URL; `off` leaves
    /// velox.toml's out
    #[arg(long, value_name = "URL")]
    pub(crate) remote_cache: Option<String>,
    /// Leave the generated source tree in place, and say where it is
    #[arg(long)]
    pub(crate) keep_workspace: bool,
    /// Don't run `rr --version` on what was built
    #[arg(long)]
    pub(crate) no_smoke_test: bool,
    /// Print the exact versions and the go.mod (stdout), and compile nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) changes: Changes,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Where a build is done.
#[derive(Debug, Args)]
#[command(next_help_heading = "Where it is built")]
pub(crate) struct Remote {
    /// The build service that builds it, instead of this machine; `off` builds here [default: $VX_REMOTE, else here]
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// The file with the token for the build service [default: $VX_REMOTE_TOKEN is the token itself]
    #[arg(long, value_name = "FILE")]
    pub(crate) remote_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Change nothing, and fail unless velox.lock says what the configuration asks for
    #[arg(long)]
    pub(crate) check: bool,
    /// Take the newest that the refs name by now: of all plugins and RoadRunner, or of those named
    #[arg(long, value_name = "PLUGIN", num_args = 0.., conflicts_with = "check")]
    pub(crate) upgrade: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Fail unless velox.lock is there and says what the configuration asks for
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) source: ServerSource,
    /// Keep debug symbols, for pprof and delve
    #[arg(long)]
    pub(crate) debug: bool,
    /// Compile with Go's race detector (needs a C compiler)
    #[arg(long)]
    pub(crate) race: bool,
    /// What the server is started with; all that follows its first word is the server's too
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
    #[command(flatten)]
    pub(crate) changes: Changes,
}

#[derive(Debug, Subcommand)]
pub(crate) enum New {
    /// Write a plugin that compiles into a server and passes its own tests, to go on from
    #[command(after_help = examples::NEW)]
    Plugin {
        /// What the plugin is called: its section in .rr.yaml, its name in RPC calls
        name: String,
        /// The path of its Go module, where others will fetch it from [default: example.com/NAME]
        #[arg(long, value_name = "PATH")]
        module: Option<String>,
        /// The directory that gets it, made when missing [default: NAME]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx init                                     # asks for the version and the plugins
  vx init --default                           # RoadRunner as it is released
  vx init --roadrunner v2025.1.15 --group http --plugin rpc
  vx init --plugin http@v5.3.0 --plugin acme/plugin@main
  vx init --from ./rr                         # what would build this binary again

An existing file is never written over without --force.")]
pub(crate) struct Init {
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "velox.toml")]
    pub(crate) config: PathBuf,
    /// RoadRunner's version: a tag, a branch or a commit [default: the newest release]
    #[arg(long, value_name = "REF", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) roadrunner: Option<String>,
    /// A plugin, named as for `vx add`; may be given several times
    #[arg(long = "plugin", value_name = "PLUGIN[@REF]", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) plugins: Vec<String>,
    /// All plugins of a group that this RoadRunner is released with; may be given several times
    #[arg(long = "group", value_name = "GROUP", value_parser = PluginGroup::parse)]
    pub(crate) groups: Vec<PluginGroup>,
    /// Exactly the plugins that this RoadRunner is released with
    #[arg(long, conflicts_with_all = ["groups", "from"])]
    pub(crate) default: bool,
    /// An existing RoadRunner binary, to take everything from
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["groups", "plugins"])]
    pub(crate) from: Option<PathBuf>,
    /// Write over an existing file
    #[arg(long)]
    pub(crate) force: bool,
    /// The go command to use [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

/// One argument of `--group`; `None` is what no group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PluginGroup(pub(crate) Option<catalogue::PluginGroup>);

impl PluginGroup {
    fn parse(text: &str) -> Result<Self, String> {
        let word = |group: catalogue::PluginGroup| format!("{group:?}").to_lowercase();
        let found = catalogue::PluginGroup::ALL.into_iter().find(|group| word(*group) == text.to_lowercase());
        found.map(|group| Self(Some(group))).ok_or_else(|| {
            let known: Vec<String> = catalogue::PluginGroup::ALL.into_iter().map(word).collect();
            format!("there is no group `{text}`; there are {}", known.join(", "))
        })
    }
}

/// What every command takes that changes a configuration file.
#[derive(Debug, Args)]
pub(crate) struct Edit {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "velox.toml")]
    pub(crate) config: PathBuf,
    /// Leave velox.lock as it is: the next build brings it up to date, and finds out whether the versions are there
    #[arg(long)]
    pub(crate) no_lock: bool,
    /// The go command to use [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx add http                            # the version that RoadRunner was released with, else the newest
  vx add http@v5.2.0 kv                  # several at once
  vx add acme/plugin@main                # a branch of github.com/acme/plugin
  vx add gitlab.com/acme/x/v2@v2.1.0     # a module, wherever it is
  vx add acme/plugin@v1.0.0 --replace ../plugin

velox.toml is changed in its own format; every line that isn't a plugin's stays as it is.")]
pub(crate) struct Add {
    /// A known name, OWNER/REPOSITORY of GitHub, or a module path; REF is a tag, a branch, a commit or `latest`
    #[arg(required = true, value_name = "PLUGIN[@REF]", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) plugins: Vec<String>,
    /// What to compile in its place: a directory, or another module
    #[arg(long, value_name = "DIR|MODULE[@REF]", value_parser = parse_replacement)]
    pub(crate) replace: Option<Replacement>,
    /// What velox.toml calls it; a plugin that is there already keeps its name [default: the name, else the last part
    /// of the path]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) edit: Edit,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx remove http
  vx remove kv redis memory")]
pub(crate) struct Remove {
    /// Plugins, by their names in velox.toml
    #[arg(required = true, value_name = "NAME")]
    pub(crate) plugins: Vec<String>,
    #[command(flatten)]
    pub(crate) edit: Edit,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx update                # all plugins, each within its major
  vx update http kv        # these alone
  vx update --major http   # to the newest major; its module path changes too
  vx update roadrunner     # RoadRunner itself, which is only updated when it is named

A plugin at a branch stays there; its newest commit goes into velox.lock. A plugin that is replaced stays.")]
pub(crate) struct Update {
    /// Plugins, by their names in velox.toml, or `roadrunner`; nothing updates all plugins
    #[arg(value_name = "NAME")]
    pub(crate) plugins: Vec<String>,
    /// Go to a newer major where there is one
    #[arg(long)]
    pub(crate) major: bool,
    #[command(flatten)]
    pub(crate) edit: Edit,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx outdated
  vx outdated --all                      # those at their newest version, too
  vx outdated --format json | jq '.plugins[] | select(.outdated)'

The exit code is 0 either way.")]
pub(crate) struct Outdated {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "velox.toml")]
    pub(crate) config: PathBuf,
    /// Show what is at its newest version, too
    #[arg(long)]
    pub(crate) all: bool,
    /// The go command to use [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx migrate
  vx migrate --check       # in CI: exit with 1 where the file isn't in the newest format

Comments stay. Module paths that the file doesn't tell (of a branch, a commit, a folder, a GitLab id) come from
velox.lock, else they are resolved.")]
pub(crate) struct Migrate {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = "velox.toml")]
    pub(crate) config: PathBuf,
    /// Change nothing, and exit with 1 where the file isn't in the newest format
    #[arg(long)]
    pub(crate) check: bool,
    /// The go command to use [default: the one on the PATH]
    #[arg(long, value_name = "PATH")]
    pub(crate) go: Option<PathBuf>,
}

fn parse_replacement(text: &str) -> Result<Replacement, String> {
    text.parse().map_err(|wrong: velox_manifest::Diagnostic| {
        std::iter::once(wrong.message).chain(wrong.help).collect::<Vec<_>>().join("; ")
    })
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx search            # every known plugin, by group
  vx search kafka      # one by its name
  vx search \"job queues\" words of the description")]
pub(crate) struct Search {
    /// What to look for; nothing lists them all
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx list              # the plugins of velox.toml
  vx list --all        # and those that RoadRunner is released with, but this server lacks")]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Show the plugins too that RoadRunner's release has and velox.toml lacks
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx why go.uber.org/zap
  vx why zap           # the last part of the path is enough
  vx why http          # a plugin, by its name in velox.toml")]
pub(crate) struct Why {
    /// A module path, with its major or without, a plugin's name, or the last part of a path
    #[arg(value_name = "MODULE", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) module: String,
    #[command(flatten)]
    pub(crate) server: Server,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx tree              # everything that is compiled in
  vx tree --depth 1    # the plugins, and what they require directly
  vx tree --all        # what is only required for tests, and // indirect lines, too")]
pub(crate) struct Tree {
    #[command(flatten)]
    pub(crate) server: Server,
    /// How deep to go; 0 shows the plugins alone
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
    /// Show every line of each go.mod, not only what is required directly and compiled in
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx inspect rr
  vx inspect rr --all              # every module, not the plugins alone
  vx inspect rr --format json | jq -r .stamp_version

The file isn't run: a binary for another system can be inspected just as well.")]
pub(crate) struct Inspect {
    /// A RoadRunner binary, built by vx or anybody else
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Show the modules too that are no plugins
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx check
  vx check --deny-warnings         # in CI: a warning fails, too
  vx check --offline               # ask nobody, not for vulnerabilities either

Known vulnerabilities are asked of https://api.osv.dev; private modules (GOPRIVATE) are left out of the question.")]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) server: Server,
    /// Exit with 1 when there are only warnings, too
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Cache {
    /// Print the directory
    #[command(after_help = examples::CACHE)]
    Dir,
    /// Show what is in it, and how large that is
    #[command(after_help = examples::CACHE)]
    Info,
    /// Remove the binaries that were longest not used
    #[command(after_help = examples::CACHE)]
    Prune {
        /// Keep at most so much: a number of bytes, or with K, M, G
        #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
        max_size: u64,
    },
    /// Remove all binaries that are kept for reuse
    #[command(after_help = examples::CACHE)]
    Clear,
    /// Read every kept binary, and remove those that were changed
    #[command(after_help = examples::CACHE)]
    Verify,
}

/// `500M`, in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write bytes, or such as 500M or 2G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..).unwrap_or_default().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
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
    fn sizes_are_read() {
        assert_eq!(super::parse_size("500M"), Ok(500 << 20));
        assert_eq!(super::parse_size("12"), Ok(12));
        for wrong in ["", "G", "1X", "99999999999T", "-1", "1.5G", "é"] {
            assert!(super::parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
