//! All keys of velox.toml, for the parser, the JSON Schema and docs/configuration.md.

use crate::manifest::{Dependencies, ImageCompression, LogLevel, LogMode};

/// A table of velox.toml.
#[derive(Debug, Clone, Copy)]
pub struct TableSpec {
    /// The header without brackets, with `NAME` for a user-defined key; empty for the top level.
    pub name: &'static str,
    /// Whether it is an array of tables: `[[name]]`.
    pub listed: bool,
    /// A description in Markdown.
    pub about: &'static str,
    /// The keys, without subtables.
    pub keys: &'static [KeySpec],
}

/// A key of a [`TableSpec`].
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    /// The name.
    pub name: &'static str,
    /// The type of the value.
    pub kind: ValueKind,
    /// The default, in Markdown; `None` for a required key.
    pub default: Option<&'static str>,
    /// A description in Markdown.
    pub about: &'static str,
}

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A string.
    Text,
    /// `true` or `false`.
    Boolean,
    /// An array of strings.
    Texts,
}

const fn table(name: &'static str, about: &'static str, keys: &'static [KeySpec]) -> TableSpec {
    TableSpec { name, listed: false, about, keys }
}

const fn array(name: &'static str, about: &'static str, keys: &'static [KeySpec]) -> TableSpec {
    TableSpec { listed: true, ..table(name, about, keys) }
}

const fn key(name: &'static str, default: Option<&'static str>, about: &'static str) -> KeySpec {
    KeySpec { name, kind: ValueKind::Text, default, about }
}

const fn list(name: &'static str, default: &'static str, about: &'static str) -> KeySpec {
    KeySpec { name, kind: ValueKind::Texts, default: Some(default), about }
}

const fn flag(name: &'static str, about: &'static str) -> KeySpec {
    KeySpec { name, kind: ValueKind::Boolean, default: Some("`false`"), about }
}

const FOLDER: KeySpec = key(
    "folder",
    Some("the repository's root"),
    "The folder that holds the plugin's go.mod, such as `plugins/roadrunner`.",
);
const REPLACE: KeySpec = key(
    "replace",
    Some("no replacement"),
    "The replacement: a directory (`../http`, relative to velox.toml), or a module \
     (`github.com/acme/http`, at this plugin's ref, or `github.com/acme/http@v1.2.3`).",
);
const REFERENCE: KeySpec = key(
    "ref",
    None,
    "A tag, a branch, a commit (full or short), `latest`, or a version constraint, such as `^5.1`.",
);
const TOKEN: KeySpec = key(
    "token",
    Some("no token"),
    "Used for the REST API and for git, and never printed. `${NAME}` reads it from the environment; if that variable \
     isn't set, no token is used.",
);
const ENDPOINT: &str = "The URL of a self-hosted instance.";
const TARGET_PLATFORM: &[KeySpec] = &[
    key("os", Some("that of the host"), "The operating system (GOOS): `linux`, `darwin`, `windows`, …"),
    key("arch", Some("that of the host"), "The architecture (GOARCH): `amd64`, `arm64`, …"),
];
const TARGET: &[KeySpec] = &[
    key("os", None, "The operating system (GOOS): `linux`, `darwin`, `windows`, …"),
    key("arch", None, "The architecture (GOARCH): `amd64`, `arm64`, …"),
];

/// The values of `[roadrunner] dependencies`.
pub(crate) const DEPENDENCIES: &[(&str, Dependencies)] =
    &[("release", Dependencies::Release), ("minimal", Dependencies::Minimal)];

/// The values of `[image] compression`.
pub(crate) const IMAGE_COMPRESSIONS: &[(&str, ImageCompression)] =
    &[("gzip", ImageCompression::Gzip), ("zstd", ImageCompression::Zstd)];

/// The values of `[log] level`.
pub(crate) const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("warning", LogLevel::Warn),
    ("error", LogLevel::Error),
    ("dpanic", LogLevel::Error),
    ("panic", LogLevel::Error),
    ("fatal", LogLevel::Error),
];

/// The values of `[log] mode`.
pub(crate) const LOG_MODES: &[(&str, LogMode)] = &[
    ("production", LogMode::Production),
    ("development", LogMode::Development),
    ("raw", LogMode::Raw),
    ("off", LogMode::Off),
    ("none", LogMode::Off),
];

/// The keys and subtables of a table; empty for user-defined keys.
pub(crate) fn keys_of(table: &str) -> Vec<&'static str> {
    let own = TABLES.iter().filter(|spec| spec.name == table).flat_map(|spec| spec.keys).map(|key| key.name);
    let mut keys: Vec<_> = own.chain(TABLES.iter().filter_map(|other| is_in(table, other))).collect();
    // Equal names are adjacent.
    keys.dedup();
    keys.retain(|key| *key != "NAME");
    keys
}

/// The key of `parent` that leads to `table`, if it is a descendant.
pub(crate) fn is_in(parent: &str, table: &TableSpec) -> Option<&'static str> {
    let rest = match parent {
        "" => table.name,
        _ => table.name.strip_prefix(parent)?.strip_prefix('.')?,
    };
    rest.split('.').next().filter(|key| !key.is_empty())
}

/// All tables of velox.toml with their keys.
pub const TABLES: &[TableSpec] = &[
    table(
        "",
        "",
        &[flag(
            "strict",
            "Fail, instead of warning, if Go's minimal version selection raises a plugin above the requested version, or if a plugin does not start or is not used.",
        )],
    ),
    table(
        "roadrunner",
        "RoadRunner itself.",
        &[
            key("ref", Some("`master`"), "A tag, a branch, a commit or a version constraint of RoadRunner."),
            key(
                "dependencies",
                Some("those of the release, as far as the plugins allow"),
                "Which versions of indirect dependencies are used: `release` keeps those of this RoadRunner release, \
                 `minimal` uses the versions that the plugins require.",
            ),
        ],
    ),
    table(
        "debug",
        "",
        &[
            flag(
                "enabled",
                "Keep debug symbols and disable optimizations, for Delve; also enables RoadRunner's profiler.",
            ),
            flag("race", "Compile with the race detector, which needs a C compiler; the same as `--race`."),
        ],
    ),
    table(
        "plugins.NAME",
        "A plugin, named by its module path. Can't be combined with `[github.plugins]` and `[gitlab.plugins]`.",
        &[
            key(
                "module_name",
                None,
                "The path in the plugin's go.mod, such as `github.com/roadrunner-server/http/v5`.",
            ),
            key(
                "tag",
                None,
                "A tag, a branch, a commit (full or short), `latest`, or a version constraint, such as `^5.1`.",
            ),
            REPLACE,
        ],
    ),
    table(
        "github",
        "GitHub: github.com, or an Enterprise Server.",
        &[key("base_url", Some("`https://github.com`"), ENDPOINT)],
    ),
    table("github.token", "", &[TOKEN]),
    table(
        "github.endpoint",
        "An alternative to `base_url`.",
        &[key("endpoint", Some("`https://github.com`"), ENDPOINT)],
    ),
    table(
        "github.plugins.NAME",
        "A plugin, named by its repository on GitHub.",
        &[
            REFERENCE,
            key("owner", None, "The user or organization."),
            key("repository", None, "The repository's name."),
            FOLDER,
            REPLACE,
        ],
    ),
    table("github_token", "The same as `[github.token]`, from the first format.", &[TOKEN]),
    table(
        "gitlab",
        "GitLab: gitlab.com, or a self-hosted instance.",
        &[key("base_url", Some("`https://gitlab.com`"), ENDPOINT)],
    ),
    table("gitlab.token", "", &[TOKEN]),
    table(
        "gitlab.endpoint",
        "An alternative to `base_url`.",
        &[key("endpoint", Some("`https://gitlab.com`"), ENDPOINT)],
    ),
    table(
        "gitlab.plugins.NAME",
        "A plugin, named by its project on GitLab.",
        &[
            REFERENCE,
            key("owner", Some("part of `repository`, if that is an ID or a path"), "The user or the group."),
            key(
                "repository",
                None,
                "The project: its numeric ID (`\"36405203\"`), its path (`\"group/project\"`), or its name, together with `owner`.",
            ),
            FOLDER,
            REPLACE,
        ],
    ),
    table(
        "target_platform",
        "The target platform. Default: the platform of the machine that builds.",
        TARGET_PLATFORM,
    ),
    array("targets", "Several target platforms, instead of `[target_platform]`.", TARGET),
    array(
        "replaces",
        "A `replace` directive of go.mod, for any module of the build.",
        &[
            key("old", None, "The module path, with `@version` to replace only that version."),
            key(
                "new",
                None,
                "A directory (`../http`, relative to velox.toml), or a module with its version.",
            ),
        ],
    ),
    array(
        "excludes",
        "An `exclude` directive of go.mod: a version that must not be used.",
        &[key("module", None, "The module path."), key("version", None, "The version, such as `v1.18.0`.")],
    ),
    array(
        "requires",
        "The lowest version of a module that other modules require, such as one with a security fix. Unlike `[[replaces]]` it \
         never lowers a version, and takes none from another place.",
        &[
            key("module", None, "The module path."),
            key("version", None, "The lowest version, such as `v0.45.0`."),
        ],
    ),
    table(
        "go",
        "The Go toolchain that compiles RoadRunner.",
        &[key(
            "version",
            Some(
                "the installed Go, if it is new enough; else the newest patch release of the required version",
            ),
            "`1.26`: the newest patch release of Go 1.26. `1.26.4`: this one. `release`: the one that RoadRunner's go.mod names. \
             The lock keeps it until `vx lock --upgrade`.",
        )],
    ),
    table(
        "cache",
        "The [caches](caching.md) that machines share: compiled packages and finished binaries.",
        &[
            key(
                "remote",
                Some("no shared cache"),
                "A directory, or an `s3://`, `gs://`, `az://` or `oci://` URL; the same as `--remote-cache`.",
            ),
            KeySpec {
                name: "remotes",
                kind: ValueKind::Texts,
                default: Some("none"),
                about: "Several of them, in place of `remote`, in the order in which they are asked. Only the first one is \
                        written to.",
            },
            flag("read_only", "Read from the caches, but don't write to them."),
            KeySpec {
                name: "artifacts",
                kind: ValueKind::Boolean,
                default: Some("`true`"),
                about: "Share finished binaries, too; `false`: compiled packages only.",
            },
            key(
                "trusted_key",
                Some("none"),
                "The public key that verifies `oci://` caches without a digest: a file, or the key itself in PEM.",
            ),
        ],
    ),
    table(
        "image",
        "The container image that `vx build --image`, `--image-output` and `--push` make.",
        &[
            key(
                "base",
                Some("`scratch`"),
                "The base: an image (`php:8.4-cli`), `scratch`, `oci:DIR[:TAG]`, `docker-archive:FILE`, or a path; the same as `--base`.",
            ),
            key("repository", Some("that of `--image`"), "The repository, such as `ghcr.io/acme/app-rr`."),
            list("tags", "`[\"latest\"]`", "The tags in the repository."),
            list("entrypoint", "the binary", "The command of a container; `[]` is that of the base."),
            key(
                "user",
                Some("that of the base"),
                "The user of a container, such as `www-data` or `1000:1000`.",
            ),
            list(
                "add",
                "none",
                "Added files and directories, `SRC:DST`, each in a layer of its own; more can be added with `--image-add`.",
            ),
            key(
                "compression",
                Some("`gzip`"),
                "The compression of the new layers, `gzip` or `zstd`; the same as `--image-compression`.",
            ),
        ],
    ),
    table(
        "image.labels",
        "Labels of the image, which are annotations, too. They take precedence over those of vx.",
        &[key("NAME", Some("none"), "A label, such as `\"org.opencontainers.image.source\"`.")],
    ),
    table(
        "log",
        "The output of vx itself. Command-line flags take precedence.",
        &[
            key("level", Some("`info`"), "`debug`, `info`, `warn` or `error`."),
            key(
                "mode",
                Some("`development`"),
                "`production`: JSON log lines on standard error. `development`: human-readable output. `raw`: plain messages. \
                 `off`, `none`: errors only.",
            ),
        ],
    ),
    table(
        "velox",
        "Flags of `go build`, from the oldest format; allowed in every format.",
        &[KeySpec {
            name: "build_args",
            kind: ValueKind::Texts,
            default: Some("none"),
            about: "Arguments of `go build`. Safe ones are applied, all others are an error.",
        }],
    ),
];
