//! The arguments of `vx build`, `verify`, `run`, `lock`, `fetch`, `bisect` and `cache`.

use std::{ffi::OsString, path::PathBuf};

use clap::{
    ArgGroup, Args, Subcommand, ValueEnum, ValueHint,
    builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser},
};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};
use velox_build::SbomFormat;
use velox_manifest::{GoSelection, ImageCompression};

use super::{ProjectArgs, SbomFormatArg, SourceArgs, TargetArg, completion, edit::preset_parser, parse_size};

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  vx build                                     # build velox.toml into ./rr
  vx build -c conf/velox.toml -o bin           # another file, another directory
  vx build --target linux/arm64 --archive      # cross-compile, with a release archive
  vx build --sbom cyclonedx --sbom spdx        # with rr.cdx.json and rr.spdx.json
  vx build --attestation rr.intoto.jsonl --sign-key cosign.key
  vx build --image ghcr.io/acme/rr:1.4 --push  # as a container image, without Docker
  vx build --remote https://builds.example.com # build on a build service, without a local Go
  vx build --with ./my-plugin                  # include a local plugin
  vx build --watch                             # again when velox.toml or a local plugin changes
  vx build --roadrunner v2025.1.15 \\
    --with github.com/roadrunner-server/http/v5@v5.3.0 \\
    --with github.com/acme/mine=../mine        # without a velox.toml")]
pub(crate) struct BuildCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// The directory for rr (rr.exe for Windows, rr-OS-ARCH for several targets); created if missing [default: the
    /// current directory]
    #[arg(short, long = "output-dir", visible_alias = "out", value_name = "DIR")]
    pub(crate) output_dir: Option<PathBuf>,
    /// The path of the binary, instead of a directory
    #[arg(long, value_name = "FILE", conflicts_with = "output_dir")]
    pub(crate) output_file: Option<PathBuf>,
    /// Require that velox.lock is up to date
    #[arg(long, conflicts_with_all = ["with", "without", "roadrunner"])]
    pub(crate) locked: bool,
    /// Keep debug symbols and disable optimizations, for Delve; also enables RoadRunner's profiler
    #[arg(long)]
    pub(crate) debug: bool,
    /// Enable Go's race detector (requires a C compiler)
    #[arg(long)]
    pub(crate) race: bool,
    /// Fail if a plugin is selected at a newer version than requested, does not start, or is not used
    #[arg(long)]
    pub(crate) strict: bool,
    /// The version that `rr --version` reports [default: $VERSION, $APP_VERSION, or RoadRunner's ref]
    #[arg(long, value_name = "VERSION", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stamp_version: Option<String>,
    /// The build time that `rr --version` reports [default: $TIME, $BUILD_TIME, $SOURCE_DATE_EPOCH, or the commit time
    /// of RoadRunner's ref]
    #[arg(long, value_name = "TIME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stamp_time: Option<String>,
    /// Also create a release archive of each binary, and checksums.txt
    #[arg(long)]
    pub(crate) archive: bool,
    /// Also write a bill of materials of each binary: `cyclonedx` (rr.cdx.json) or `spdx` (rr.spdx.json), beside the
    /// binary or to a FILE. Can be repeated
    #[arg(long, add = ArgValueCandidates::new(completion::sbom_types), value_name = "TYPE[=FILE]", value_parser = SbomArg::parse)]
    pub(crate) sbom: Vec<SbomArg>,
    /// Also write the signed provenance of the binaries to this file: an in-toto statement with SLSA v1 provenance in a
    /// DSSE envelope
    #[arg(long, value_name = "FILE")]
    pub(crate) attestation: Option<PathBuf>,
    /// The private key that signs the provenance: ECDSA P-256 or Ed25519 in PKCS#8, or cosign's. The password of an
    /// encrypted key is read from $VX_SIGN_KEY_PASSWORD, $COSIGN_PASSWORD or the terminal [default: $VX_SIGN_KEY, a
    /// path or the key itself]
    #[arg(long, value_name = "KEY", requires = "attestation")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Compile even if an identical binary is cached
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// The shared cache: a directory, or an s3://, gs://, az:// or oci:// URL; `off` disables those in velox.toml
    #[arg(long, value_name = "URL")]
    pub(crate) remote_cache: Option<String>,
    /// Keep the generated source tree, and print its path
    #[arg(long)]
    pub(crate) keep_workspace: bool,
    /// Skip running `rr --version` after the build
    #[arg(long)]
    pub(crate) no_smoke_test: bool,
    /// Fail if a binary is larger: in bytes, or with a suffix K, M or G; lists what grew since `vx size --save`
    #[arg(long, value_name = "SIZE", value_parser = parse_size, conflicts_with = "dry_run")]
    pub(crate) max_size: Option<u64>,
    /// Build again whenever velox.toml or the Go code of a local plugin changes, until Ctrl-C
    #[arg(long, conflicts_with_all = ["dry_run", "remote"])]
    pub(crate) watch: bool,
    /// Print the resolved versions and the go.mod to stdout, without compiling
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) image: ImageArgs,
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// The container image of a build.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image options")]
#[command(group = ArgGroup::new("wanted_image").args(["image", "push", "image_output"]).multiple(true))]
pub(crate) struct ImageArgs {
    /// Make a container image of the binary, with this name: [REGISTRY/]REPOSITORY[:TAG]. Can be repeated [default:
    /// `repository` and `tags` of [image] in velox.toml, with --push or --image-output]
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Vec<String>,
    /// The base of the image: an image such as php:8.4-cli, `scratch`, oci:DIR[:TAG], docker-archive:FILE, or a path
    /// that begins with `.` or `/` [default: `base` of [image] in velox.toml, or scratch]
    #[arg(long, value_name = "IMAGE", requires = "wanted_image")]
    pub(crate) base: Option<String>,
    /// Push the image to its registry, after the build and its checks
    #[arg(long)]
    pub(crate) push: bool,
    /// Write the image to a directory (an OCI layout), or to FILE.tar for `docker load`
    #[arg(long, value_name = "DIR|FILE.tar")]
    pub(crate) image_output: Option<PathBuf>,
    /// The path of the binary in the image
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/rr", requires = "wanted_image")]
    pub(crate) image_path: String,
    /// Add a file or the content of a directory to the image, in a layer of its own. Can be repeated
    #[arg(long, value_name = "SRC:DST", requires = "wanted_image")]
    pub(crate) image_add: Vec<String>,
    /// The compression of the new layers; zstd is smaller, but Docker before 23 can't read it [default: `compression` of
    /// [image] in velox.toml, or gzip]
    #[arg(long, value_name = "gzip|zstd", requires = "wanted_image", value_parser = image_compression())]
    pub(crate) image_compression: Option<ImageCompression>,
}

fn image_compression() -> impl TypedValueParser<Value = ImageCompression> {
    PossibleValuesParser::new(["gzip", "zstd"]).map(|word| match word.as_str() {
        "zstd" => ImageCompression::Zstd,
        _ => ImageCompression::Gzip,
    })
}

impl ImageArgs {
    /// Whether an image is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.image.is_empty() || self.push || self.image_output.is_some()
    }
}

/// One value of `--sbom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SbomArg {
    pub(crate) format: SbomFormat,
    pub(crate) file: Option<PathBuf>,
}

impl SbomArg {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, file) = match text.split_once('=') {
            None => (text, None),
            Some((name, "")) => return Err(format!("expected a file name after `{name}=`")),
            Some((name, file)) => (name, Some(file.into())),
        };
        let format =
            SbomFormatArg::from_str(name, false).map_err(|_| "expected cyclonedx or spdx".to_owned())?;
        Ok(Self { format: format.into(), file })
    }
}

/// Changes to the configuration for one build.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Override options")]
pub(crate) struct OverrideArgs {
    /// Add a plugin, or override the one in velox.toml: by module path, or by name in the version that `vx add` takes;
    /// optionally at a tag, branch or commit [default for a module path: the ref in velox.toml, or the latest release],
    /// and optionally replaced by a directory or another MODULE@REF. A directory alone is a local plugin. Can be
    /// repeated; works without a velox.toml
    #[arg(long, value_name = "MODULE[@REF][=REPLACEMENT]", add = ArgValueCompleter::new(completion::plugins_and_directories))]
    pub(crate) with: Vec<String>,
    /// Leave out a plugin of velox.toml; can be repeated
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(completion::configured_plugins))]
    pub(crate) without: Vec<String>,
    /// The RoadRunner version: a tag, branch or commit [default: from velox.toml, or the latest release]
    #[arg(long, value_name = "REF", add = ArgValueCandidates::new(completion::roadrunner_refs))]
    pub(crate) roadrunner: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Remote build options")]
pub(crate) struct RemoteArgs {
    /// The build service to build on; `off` builds locally [default: $VX_REMOTE, or local]
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// The file with the token for the build service [default: the token in $VX_REMOTE_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub(crate) remote_token_file: Option<PathBuf>,
    /// The public key that must have signed the provenance of each binary of the build service: ECDSA P-256 or Ed25519,
    /// in PEM
    #[arg(long, value_name = "PUB")]
    pub(crate) trusted_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  vx verify rr                                 # build it again from velox.lock, and compare the bytes
  vx verify rr --attestation rr.intoto.jsonl --key cosign.pub --sbom rr.cdx.json
  vx verify rr --lock https://builds.example.com/v1/builds/ID/velox.lock
  vx verify rr --remote https://builds.example.com   # let another build service build it again

The binary is not executed, and can be for another platform.

Exit codes: 0 identical bytes, 1 different bytes, or something could not be verified, 2 invalid usage or configuration.")]
pub(crate) struct VerifyCommand {
    /// A binary that vx built
    #[arg(value_name = "BINARY")]
    pub(crate) binary: PathBuf,
    /// The lock file that it was built from, or the URL of a velox.lock on a build service [default: velox.lock beside
    /// the binary, or beside velox.toml in this directory or the nearest parent]
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) lock: Option<String>,
    /// The configuration file, for self-hosted forges and local directories [default: velox.toml beside the lock, if
    /// there is one]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Also verify the signed provenance in this file: the signature, the checksum of the binary, and how it was built
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) attestation: Option<PathBuf>,
    /// The public key that the provenance must be signed with: ECDSA P-256 or Ed25519, in PEM
    #[arg(long, value_name = "PUB", requires = "attestation")]
    pub(crate) key: Option<PathBuf>,
    /// Also check that this bill of materials is about the binary, and lists its modules; can be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) sbom: Vec<PathBuf>,
    /// Use modules and packages in GOMODCACHE and GOCACHE, instead of downloading and compiling everything again
    #[arg(long, conflicts_with = "remote")]
    pub(crate) shared_caches: bool,
    /// Run without network access (requires --shared-caches)
    #[arg(long, requires = "shared_caches")]
    pub(crate) offline: bool,
    /// The go command to use [default: go from PATH; the locked version is downloaded if GOTOOLCHAIN allows it]
    #[arg(long, value_name = "PATH", conflicts_with = "remote")]
    pub(crate) go: Option<PathBuf>,
    /// Let this build service build the binary again, from velox.toml at the versions of velox.lock
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// The file with the token for the build service of --remote, or else of --lock [default: the token in
    /// $VX_REMOTE_TOKEN; for --lock only if $VX_REMOTE is that service]
    #[arg(long, value_name = "FILE")]
    pub(crate) remote_token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  vx run serve -c .rr.yaml                     # run the binary that velox.toml describes
  vx run --watch serve                         # build and restart when velox.toml or a local plugin changes
  vx run --with ./my-plugin serve              # include a local plugin
  vx run -- --version                          # `--` before arguments that start with a dash

Without a velox.toml, `vx run serve` builds the newest RoadRunner with the plugins that .rr.yaml needs.

Options of vx go before the arguments of rr. The exit code is that of rr.")]
pub(crate) struct RunCommand {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Keep debug symbols and disable optimizations, for Delve; also enables RoadRunner's profiler
    #[arg(long)]
    pub(crate) debug: bool,
    /// Enable Go's race detector (requires a C compiler)
    #[arg(long)]
    pub(crate) race: bool,
    /// Build again and restart rr whenever velox.toml, the Go code of a local plugin or the configuration of rr changes, until
    /// Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// The arguments of rr; everything after the first one is passed on
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true, add = ArgValueCompleter::new(completion::rr_arguments))]
    pub(crate) arguments: Vec<OsString>,
    #[command(flatten)]
    pub(crate) overrides: OverrideArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx lock                                      # resolve velox.toml and write velox.lock
  vx lock --check                              # in CI: fail if velox.lock is out of date
  vx lock --upgrade http                       # move http to the newest commit of its ref")]
pub(crate) struct LockCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Check that velox.lock is up to date, without writing it
    #[arg(long)]
    pub(crate) check: bool,
    /// Ignore locked versions of these plugins, or of everything, and resolve their refs again
    #[arg(long, value_name = "PLUGIN", num_args = 0.., conflicts_with = "check", add = ArgValueCandidates::new(completion::configured_plugins))]
    pub(crate) upgrade: Option<Vec<String>>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  vx fetch && vx build --offline               # two steps of a Dockerfile, the first with network access
  vx fetch --locked --target all               # exactly velox.lock, for every platform")]
pub(crate) struct FetchCommand {
    #[command(flatten)]
    pub(crate) project: ProjectArgs,
    /// Require that velox.lock is up to date
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  git show v1.4:velox.lock > good.lock
  vx bisect --good good.lock -- ./test.sh      # ./test.sh runs the binary $RR
  vx bisect --good good.lock --bad new.lock -- php test.php {rr}
  vx bisect --good good.lock -- sh -c '$RR --version | grep 2025'

The test exits with 0 if the binary is good, with 125 if it can't tell, and with another code up to
127 if the binary is bad; others stop the search. After Ctrl-C, the same command continues.

Exit codes: 0 found, 1 not found, 2 invalid usage, 130 interrupted.")]
pub(crate) struct BisectCommand {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The lock file of a good binary
    #[arg(long, value_name = "FILE")]
    pub(crate) good: PathBuf,
    /// The lock file of a bad binary [default: the lock of the configuration, velox.lock]
    #[arg(long, value_name = "FILE")]
    pub(crate) bad: Option<PathBuf>,
    /// The test and its arguments, after `--`: `{rr}` and the environment variable RR are the path of the binary
    #[arg(value_name = "COMMAND", last = true, required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) command: Vec<OsString>,
}

pub(super) const CACHE_EXAMPLES: &str = "\
Examples:
  vx cache info                                # show the size
  vx cache prune --max-size 500M               # keep the most recently used 500 MiB
  rm -rf \"$(vx cache dir)\"                     # remove everything";

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CacheCommand {
    /// Print the cache directory
    #[command(after_help = CACHE_EXAMPLES)]
    Dir,
    /// Show the number and size of cached binaries
    #[command(after_help = CACHE_EXAMPLES)]
    Info,
    /// Remove the least recently used binaries
    #[command(after_help = CACHE_EXAMPLES)]
    Prune {
        /// The size to shrink the cache to: in bytes, or with a suffix K, M or G
        #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
        max_size: u64,
    },
    /// Remove all cached binaries
    #[command(after_help = CACHE_EXAMPLES)]
    Clear,
    /// Verify the checksums of all cached binaries, and remove corrupted ones
    #[command(after_help = CACHE_EXAMPLES)]
    Verify,
    /// Compile the plugins of a RoadRunner release, and publish the packages in a container registry
    Publish(PublishCacheCommand),
}

#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  vx cache publish --for v2025.1.15 --preset full --sign-key cosign.key \\
    --target linux/amd64 --target linux/arm64 oci://ghcr.io/acme/velox-cache:v2025.1.15

Builds read it with `--remote-cache` and the printed location, which has its digest. The login is that of Docker or Podman.")]
pub(crate) struct PublishCacheCommand {
    /// A tag in a registry, such as oci://ghcr.io/acme/velox-cache:v2025.1.15
    #[arg(value_name = "LOCATION")]
    pub(crate) location: String,
    /// The RoadRunner release
    #[arg(long = "for", value_name = "REF", value_parser = NonEmptyStringValueParser::new(), add = ArgValueCandidates::new(completion::roadrunner_refs))]
    pub(crate) roadrunner: String,
    /// Its plugins for one purpose; can be repeated [default: exactly the plugins of the release]
    #[arg(long = "preset", value_name = "PRESET", value_delimiter = ',', value_parser = preset_parser())]
    pub(crate) presets: Vec<String>,
    /// A target platform as GOOS/GOARCH, such as linux/arm64; can be repeated [default: this machine's]
    #[arg(long = "target", value_name = "OS/ARCH", value_parser = TargetArg::parse, add = ArgValueCandidates::new(completion::targets))]
    pub(crate) targets: Vec<TargetArg>,
    /// A Go version: `1.26`, `1.26.4` or `release`, as in velox.toml; can be repeated. A build reads the packages of its
    /// own Go version only [default: as for a build]
    #[arg(long = "go-version", value_name = "VERSION", value_parser = go_selection)]
    pub(crate) go_versions: Vec<GoSelection>,
    /// The private key that signs the cache, as for `vx build --attestation` [default: $VX_SIGN_KEY; without a key, the
    /// cache is not signed]
    #[arg(long, value_name = "KEY")]
    pub(crate) sign_key: Option<PathBuf>,
    /// Overwrite what the tag has; without it, packages are added to a cache that the same key signed, and anything else stays
    #[arg(long)]
    pub(crate) replace: bool,
    /// The go command to use
    #[arg(long, value_name = "FILE")]
    pub(crate) go: Option<PathBuf>,
}

fn go_selection(text: &str) -> Result<GoSelection, String> {
    velox_manifest::go_selection(text).map_err(|_| "expected `1.26`, `1.26.4` or `release`".to_owned())
}
