//! The parser, the JSON Schema and docs/configuration.md match the table of keys.

use std::{fmt::Write as _, fs, path::Path};

use jsonschema::Validator;
use serde_json::Value;
use velox_manifest::{Diagnostic, KeySpec, Manifest, TABLES, TableSpec, ValueKind, schema};

use crate::{parse, source};

fn errors(text: &str) -> Vec<Diagnostic> {
    parse(text, &[]).err().unwrap_or_default()
}

/// A file with `line` in `table`, and a plugin unless the table is one.
fn file(table: &TableSpec, line: &str) -> String {
    let header = match table {
        TableSpec { name: "", .. } => String::new(),
        TableSpec { name, listed: true, .. } => format!("[[{name}]]\n"),
        TableSpec { name, .. } => format!("[{name}]\n"),
    };
    let plugin = if table.name.contains("plugins") {
        ""
    } else {
        "[github.plugins]\nhttp = { ref = \"v5.0.0\", owner = \"a\", repository = \"b\" }\n"
    };
    format!("{header}{line}\n{plugin}")
}

#[test]
fn exactly_the_required_keys_are_required() {
    for table in TABLES {
        for key in table.keys {
            // `os` and `arch` are only required together.
            let line = match key.name {
                "os" => "arch = \"amd64\"",
                "arch" => "os = \"linux\"",
                _ => "",
            };
            let missing = format!("missing key `{}` in ", key.name);
            let is_required =
                errors(&file(table, line)).iter().any(|found| found.message.starts_with(&missing));
            assert_eq!(is_required, key.default.is_none(), "[{}] {}", table.name, key.name);
        }
    }
}

#[test]
fn values_have_the_documented_type() {
    for table in TABLES {
        for KeySpec { name, kind, .. } in table.keys {
            let (invalid, expected) = match kind {
                ValueKind::Text => ("true", "expected a string"),
                ValueKind::Boolean => ("\"yes\"", "expected `true` or `false`"),
                ValueKind::Texts => ("true", "expected an array of strings"),
            };
            let errors = errors(&file(table, &format!("{name} = {invalid}")));
            assert!(
                errors.iter().any(|found| found.message.contains(expected)),
                "[{}] {name} is no {kind:?}: {errors:?}",
                table.name
            );
        }
    }
}

#[test]
fn the_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = markdown();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&page, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(&page).unwrap_or_default() == expected,
        "docs/configuration.md is out of date: run `make book`"
    );
}

fn markdown() -> String {
    let mut text = String::from(
        "<!-- Made from crates/velox-manifest/src/reference.rs by `make book`. -->\n\n# Configuration reference\n\n\
         All tables and keys of `velox.toml`. [Building](building.md) has examples, and \
         [Migrating from Velox](migrating-from-velox.md) lists the formats.\n\n\
         In every string, `${NAME}` and `$NAME` are replaced by the environment variable, `${NAME:-default}` has a default, \
         and `$$` is a dollar sign. A `$` before anything but a letter, `_` or `{` stays.\n\n\
         The extension of the file selects the syntax: `.yaml` and `.yml` are YAML, `.json` is JSON, and everything else is \
         TOML. The case of letters in keys doesn't matter. An empty value of an optional key counts as missing.\n",
    );
    for TableSpec { name, listed, about, keys } in TABLES {
        let heading = match (*name, listed) {
            ("", _) => "Top level".to_owned(),
            (name, true) => format!("`[[{name}]]`"),
            (name, false) => format!("`[{name}]`"),
        };
        writeln!(text, "\n## {heading}\n").unwrap();
        if !about.is_empty() {
            writeln!(text, "{about}\n").unwrap();
        }
        text.push_str("| Key | Type | Default | Description |\n|---|---|---|---|\n");
        for KeySpec { name, kind, default, about } in *keys {
            let kind = match kind {
                ValueKind::Text => "string",
                ValueKind::Boolean => "boolean",
                ValueKind::Texts => "array of strings",
            };
            let default = default.unwrap_or("required");
            writeln!(text, "| `{name}` | {kind} | {default} | {about} |").unwrap();
        }
    }
    text
}

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    jsonschema::draft7::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn read(text: &str) -> Value {
    toml_edit::de::from_str(text).unwrap()
}

fn parses(text: &str) -> bool {
    // Every variable has a value that is valid for most keys.
    Manifest::parse(&source(text), &|_| Some("v1.0.0".into())).is_ok()
}

fn tomls(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// All tables of the newest format.
const EVERYTHING: &str = r#"
strict = true

[roadrunner]
ref = "${RR:-v2025.1.15}"
dependencies = "Minimal"

[debug]
enabled = true

[log]
level = "WARN"
mode = "none"

[[targets]]
os = "linux"
arch = "riscv64"

[[targets]]
os = "${GOOS:-linux}"
arch = "${GOARCH:-amd64}"

[cache]
remote = "s3://bucket/prefix"
read_only = true

[image]
base = "php:8.4-cli"
repository = "ghcr.io/acme/app-rr"
tags = ["1.4", "${TAG:-latest}"]
entrypoint = ["/usr/bin/rr", "serve"]
user = "www-data"
add = [".rr.yaml:/etc/rr.yaml"]
compression = "zstd"

[image.labels]
"org.opencontainers.image.vendor" = "${VENDOR}"

[github]
base_url = "https://ghe.example.com"
token = { token = "${RT_TOKEN}" }

[plugins.http]
module_name = "github.com/roadrunner-server/http/v5"
tag = "latest"
replace = "../http"

[[replaces]]
old = "github.com/acme/old v1.2.3"
new = "github.com/acme/new@v1.3.0"

[[excludes]]
module = "github.com/redis/go-redis/v9"
version = "v9.15.0"

[[requires]]
module = "golang.org/x/crypto"
version = "v0.45.0"

[go]
version = "1.26"
"#;

#[test]
fn every_example_matches_the_schema() {
    let validator = validator();
    let mut files = tomls("../../examples");
    files.extend(tomls("tests"));
    assert!(files.len() >= 6, "{files:?}");
    files.push(("everything".into(), EVERYTHING.into()));
    for (name, text) in files {
        let value = read(&text);
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [""; 0], "{name}");
    }
    assert!(parses(&EVERYTHING.replace("${GOOS:-linux}", "linux").replace("${GOARCH:-amd64}", "amd64")));
}

#[test]
fn the_schema_rejects_what_the_parser_rejects() {
    const PLUGIN: &str = "plugins.a = { module_name = 'a.b/c', tag = 'v1.0.0' }\n";
    const HTTP: &str = "ref = 'v1', owner = 'o', repository = 'r'";
    let validator = validator();
    let arguments = format!("{PLUGIN}velox.build_args = ['-race']");
    for right in [PLUGIN, &arguments] {
        assert!(validator.is_valid(&read(right)) && parses(right), "{right}");
    }
    let invalid = [
        String::new(),
        "[roadrunner]\nref = 'v1'".into(),
        "[plugins]".into(),
        "[github.plugins]".into(),
        format!("{PLUGIN}roadrunner.reff = 'v1'"),
        format!("{PLUGIN}roadrunner.ref = 'a b'"),
        format!("{PLUGIN}roadrunner.dependencies = 'newest'"),
        format!("{PLUGIN}debug.enabled = 'yes'"),
        format!("{PLUGIN}target_platform = {{ os = 'plan9', arch = 'amd64' }}"),
        format!("{PLUGIN}target_platform = {{ os = 'darwin', arch = 'riscv64' }}"),
        format!("{PLUGIN}targets = {{ os = 'linux', arch = 'amd64' }}"),
        format!("{PLUGIN}replaces = [{{ old = 'a.b/c' }}]"),
        format!("{PLUGIN}excludes = [{{ module = 'a.b/c', version = '1' }}]"),
        format!("{PLUGIN}requires = [{{ module = 'a.b/c' }}]"),
        format!("{PLUGIN}go.version = '1.20'"),
        format!("{PLUGIN}go.version = 'go1.26'"),
        format!("{PLUGIN}github.base_url = 'ghe.example.com'"),
        format!("{PLUGIN}github.token = 'secret'"),
        format!("{PLUGIN}github.plugins.b = {{ {HTTP} }}"),
        format!("{PLUGIN}velox.build_args = [1]"),
        "plugins.a = { module_name = 'a.b/c' }".into(),
        "plugins.a = { module_name = '', tag = 'v1' }".into(),
        "plugins.a = 'a.b/c'".into(),
        "github.plugins.a = { ref = 'v1', repository = 'r' }".into(),
        format!("github.plugins.a = {{ {HTTP}, dir = 'x' }}"),
        format!("{PLUGIN}targets = [{{ os = 'linux' }}]"),
        format!("github.plugins.a = {{ {HTTP} }}\nvelox.build_args = 'x'"),
        "gitlab.plugins.a = { ref = 'v1', owner = 'o', repository = 0 }".into(),
    ];
    for text in invalid {
        assert!(!parses(&text), "the parser accepts it: {text}");
        assert!(!validator.is_valid(&read(&text)), "the schema accepts it: {text}");
    }
}
