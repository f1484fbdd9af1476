//! The schema for editors says of a file what the parser says, as far as a schema can.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use jsonschema::Validator;
use serde_json::Value;
use velox_manifest::{Manifest, SourceFile, schema};

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    jsonschema::draft7::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn read(text: &str) -> Value {
    toml_edit::de::from_str(text).unwrap()
}

fn parses(text: &str) -> bool {
    // Every variable is set, to something that suits most keys.
    let source = SourceFile { name: "velox.toml".into(), text: text.into() };
    Manifest::parse(&source, &|_| Some("v1.0.0".into())).is_ok()
}

fn tomls(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Everything that the newest format has.
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
"#;

#[test]
fn every_example_and_the_manuals_own_file_are_valid() {
    let validator = validator();
    let mut files = tomls("../../examples");
    files.extend(tomls("tests"));
    assert!(files.len() >= 6, "{files:?}");
    files.push(("everything".into(), EVERYTHING.into()));
    for (name, text) in files {
        let value = read(&text);
        let wrong: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(wrong, [""; 0], "{name}");
    }
    assert!(parses(&EVERYTHING.replace("${GOOS:-linux}", "linux").replace("${GOARCH:-amd64}", "amd64")));
}

#[test]
fn what_the_parser_refuses_the_schema_refuses_too() {
    const PLUGIN: &str = "plugins.a = { module_name = 'a.b/c', tag = 'v1.0.0' }\n";
    const HTTP: &str = "ref = 'v1', owner = 'o', repository = 'r'";
    let validator = validator();
    let arguments = format!("{PLUGIN}velox.build_args = ['-race']");
    for right in [PLUGIN, &arguments] {
        assert!(validator.is_valid(&read(right)) && parses(right), "{right}");
    }
    let wrong = [
        String::new(),
        "[roadrunner]\nref = 'v1'".into(),
        "[plugins]".into(),
        "[github.plugins]".into(),
        format!("{PLUGIN}unknown = 1"),
        format!("{PLUGIN}roadrunner.reff = 'v1'"),
        format!("{PLUGIN}roadrunner.ref = 1"),
        format!("{PLUGIN}roadrunner.ref = ''"),
        format!("{PLUGIN}roadrunner.ref = 'a b'"),
        format!("{PLUGIN}roadrunner.dependencies = 'newest'"),
        format!("{PLUGIN}debug.enabled = 'yes'"),
        format!("{PLUGIN}strict = 'true'"),
        format!("{PLUGIN}log.level = 'loud'"),
        format!("{PLUGIN}target_platform.os = 'linux'"),
        format!("{PLUGIN}target_platform = {{ os = 'plan9', arch = 'amd64' }}"),
        format!("{PLUGIN}target_platform = {{ os = 'darwin', arch = 'riscv64' }}"),
        format!("{PLUGIN}targets = {{ os = 'linux', arch = 'amd64' }}"),
        format!("{PLUGIN}replaces = [{{ old = 'a.b/c' }}]"),
        format!("{PLUGIN}excludes = [{{ module = 'a.b/c', version = '1' }}]"),
        format!("{PLUGIN}github.base_url = 'ghe.example.com'"),
        format!("{PLUGIN}github.token = 'secret'"),
        format!("{PLUGIN}github.plugins.b = {{ {HTTP} }}"),
        format!("{PLUGIN}velox.build_args = [1]"),
        "plugins.a = { module_name = 'a.b/c' }".into(),
        "plugins.a = { module_name = '', tag = 'v1' }".into(),
        "plugins.a = 'a.b/c'".into(),
        "github.plugins.a = { ref = 'v1', repository = 'r' }".into(),
        "github.plugins.a = { ref = 'v1', owner = 'o', repository = 1 }".into(),
        format!("github.plugins.a = {{ {HTTP}, dir = 'x' }}"),
        format!("github.plugins.a = {{ {HTTP} }}\nvelox.build_args = 'x'"),
        "gitlab.plugins.a = { ref = 'v1', owner = 'o', repository = 0 }".into(),
    ];
    for text in wrong {
        assert!(!parses(&text), "the parser takes it: {text}");
        assert!(!validator.is_valid(&read(&text)), "the schema takes it: {text}");
    }
}
