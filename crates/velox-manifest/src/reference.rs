/// A table that a velox.toml may have.
#[derive(Debug, Clone, Copy)]
pub struct TableSpec {
    /// Its header without brackets, `NAME` where the user chooses it; empty: the file's top.
    pub name: &'static str,
    /// Whether there may be several: `[[name]]`.
    pub listed: bool,
    /// What it is for, in Markdown.
    pub about: &'static str,
    /// Its keys, without the tables in it.
    pub keys: &'static [KeySpec],
}

/// A key of a [`TableSpec`].
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    /// As it is written.
    pub name: &'static str,
    /// What its value is.
    pub kind: ValueKind,
    /// What holds without it; `None`: it has to be there.
    pub default: Option<&'static str>,
    /// What it means, in Markdown.
    pub about: &'static str,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A string.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A list of strings.
    Texts,
}

const fn key(name: &'static str, default: Option<&'static str>, about: &'static str) -> KeySpec {
    KeySpec { name, kind: ValueKind::Text, default, about }
}

const fn flag(name: &'static str, about: &'static str) -> KeySpec {
    KeySpec { name, kind: ValueKind::Boolean, default: Some("`false`"), about }
}

const FOLDER: KeySpec = key(
    "folder",
    Some("the repository's top"),
    "The folder that holds the plugin's go.mod, such as `plugins/roadrunner`.",
);
const REPLACE: KeySpec = key(
    "replace",
    Some("nothing is replaced"),
    "What to compile instead: a directory (`../http`, relative to velox.toml), or a module \
     (`github.com/acme/http`, at the entry's own ref, or `github.com/acme/http@v1.2.3`).",
);
const REFERENCE: KeySpec = key("ref", None, "A tag, a branch, a commit (full or short), or `latest`.");
const TOKEN: KeySpec = key(
    "token",
    Some("no token"),
    "Used for the API and for git alike, and never printed. `${NAME}` takes it from the environment; where that variable \
     isn't set, there is no token.",
);
const ENDPOINT: &str = "The URL of your own instance.";
const TARGET: &[KeySpec] = &[
    key("os", None, "The operating system as Go names it: `linux`, `darwin`, `windows`, …"),
    key("arch", None, "The processor as Go names it: `amd64`, `arm64`, …"),
];

/// All that a velox.toml may say.
pub const TABLES: &[TableSpec] = &[
    TableSpec {
        name: "",
        listed: false,
        about: "",
        keys: &[flag(
            "strict",
            "A plugin that Go's version selection raises above the version asked for is an error, not a warning.",
        )],
    },
    TableSpec {
        name: "roadrunner",
        listed: false,
        about: "The server itself.",
        keys: &[
            key("ref", Some("the default branch"), "A tag, a branch or a commit of RoadRunner."),
            key(
                "dependencies",
                Some("the release's, as far as the plugins allow"),
                "Where the versions of everything else come from: `release` keeps those that this RoadRunner was released \
                 with, `minimal` takes what the plugins demand and no more.",
            ),
        ],
    },
    TableSpec {
        name: "debug",
        listed: false,
        about: "",
        keys: &[flag("enabled", "Keep debug symbols, for pprof and delve.")],
    },
    TableSpec {
        name: "plugins.NAME",
        listed: false,
        about: "A plugin by its module path. A file has either these, or `[github.plugins]` and `[gitlab.plugins]`.",
        keys: &[
            key(
                "module_name",
                None,
                "The path in the plugin's go.mod, such as `github.com/roadrunner-server/http/v5`.",
            ),
            key("tag", None, "A tag, a branch, a commit (full or short), or `latest`."),
            REPLACE,
        ],
    },
    TableSpec {
        name: "github",
        listed: false,
        about: "GitHub, public or your own.",
        keys: &[key("base_url", Some("`https://github.com`"), ENDPOINT)],
    },
    TableSpec { name: "github.token", listed: false, about: "", keys: &[TOKEN] },
    TableSpec {
        name: "github.endpoint",
        listed: false,
        about: "Another way to write `base_url`.",
        keys: &[key("endpoint", Some("`https://github.com`"), ENDPOINT)],
    },
    TableSpec {
        name: "github.plugins.NAME",
        listed: false,
        about: "A plugin by its repository.",
        keys: &[
            REFERENCE,
            key("owner", None, "The user or organization."),
            key("repository", None, "The repository's name."),
            FOLDER,
            REPLACE,
        ],
    },
    TableSpec {
        name: "gitlab",
        listed: false,
        about: "GitLab, public or your own.",
        keys: &[key("base_url", Some("`https://gitlab.com`"), ENDPOINT)],
    },
    TableSpec { name: "gitlab.token", listed: false, about: "", keys: &[TOKEN] },
    TableSpec {
        name: "gitlab.endpoint",
        listed: false,
        about: "Another way to write `base_url`.",
        keys: &[key("endpoint", Some("`https://gitlab.com`"), ENDPOINT)],
    },
    TableSpec {
        name: "gitlab.plugins.NAME",
        listed: false,
        about: "A plugin by its project.",
        keys: &[
            REFERENCE,
            key(
                "owner",
                Some("part of `repository`, where that is a number or a path"),
                "The user or the group.",
            ),
            key(
                "repository",
                None,
                "The project: its numeric id (`\"36405203\"`), its path (`\"group/project\"`), or its name below `owner`.",
            ),
            FOLDER,
            REPLACE,
        ],
    },
    TableSpec {
        name: "target_platform",
        listed: false,
        about: "The platform to compile for; without it, the machine that builds.",
        keys: TARGET,
    },
    TableSpec {
        name: "targets",
        listed: true,
        about: "Several platforms to compile for, instead of `[target_platform]`.",
        keys: TARGET,
    },
    TableSpec {
        name: "replaces",
        listed: true,
        about: "Any module of the build from elsewhere: a `replace` line of go.mod.",
        keys: &[
            key("old", None, "The module's path, with `@version` where only that one is meant."),
            key(
                "new",
                None,
                "A directory (`../http`, relative to velox.toml), or a module with its version.",
            ),
        ],
    },
    TableSpec {
        name: "excludes",
        listed: true,
        about: "A version that must not be used: an `exclude` line of go.mod.",
        keys: &[
            key("module", None, "The module's path."),
            key("version", None, "The version, such as `v1.18.0`."),
        ],
    },
    TableSpec {
        name: "cache",
        listed: false,
        about: "A compile cache that a team shares.",
        keys: &[
            key(
                "remote",
                Some("there is none"),
                "A directory, or an `s3://`, `gs://` or `az://` URL; the same as `--remote-cache`.",
            ),
            flag("read_only", "Take from it, and put nothing there."),
        ],
    },
    TableSpec {
        name: "log",
        listed: false,
        about: "What vx itself tells; flags win over it.",
        keys: &[
            key("level", Some("`info`"), "`debug`, `info`, `warn` or `error`."),
            key(
                "mode",
                Some("`development`"),
                "`production`: JSON lines where no terminal looks on. `development`, `raw`: lines for people. `off`, `none`: \
                 errors only.",
            ),
        ],
    },
    TableSpec {
        name: "velox",
        listed: false,
        about: "What the oldest format began; every format may have it.",
        keys: &[KeySpec {
            name: "build_args",
            kind: ValueKind::Texts,
            default: Some("none"),
            about: "Arguments for `go build`: those that are safe are honoured, the rest is refused by name.",
        }],
    },
];
