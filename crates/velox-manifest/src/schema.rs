//! The JSON Schema of velox.toml in all its formats, generated from [`TABLES`]. It is
//! <https://json-schema.org/draft-07>, the newest draft that TOML editors support; the parser is stricter.

use serde_json::{Map, Value, json};

use crate::{
    reference::{
        DEPENDENCIES, IMAGE_COMPRESSIONS, KeySpec, LOG_LEVELS, LOG_MODES, TABLES, TableSpec, ValueKind, is_in,
    },
    target::TARGETS,
};

/// The schema as indented JSON with a final newline.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", root())
}

fn root() -> Value {
    let mut schema = table("");
    let with_plugins =
        |forge: &str| json!({ "required": [forge], "properties": { (forge): { "required": ["plugins"] } } });
    insert(
        &mut schema,
        [
            ("$schema", json!("http://json-schema.org/draft-07/schema#")),
            ("title", json!("velox.toml")),
            ("description", json!("What a RoadRunner server is built from: https://docs.roadrunner.dev")),
            ("anyOf", json!([{ "required": ["plugins"] }, with_plugins("github"), with_plugins("gitlab")])),
            // Formats can't be mixed in one file.
            (
                "not",
                json!({
                    "required": ["plugins"],
                    "anyOf": [with_plugins("github"), with_plugins("gitlab")],
                }),
            ),
        ],
    );
    schema
}

/// The schema of a table with its keys and subtables.
fn table(name: &str) -> Value {
    let spec = TABLES.iter().find(|table| table.name == name);
    let keys = spec.map(|table| table.keys).unwrap_or_default();
    let path = |inner: &str| if name.is_empty() { inner.to_owned() } else { format!("{name}.{inner}") };
    let mut properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), value(name, key))).collect();
    properties.extend(
        TABLES
            .iter()
            .filter_map(|other| is_in(name, other))
            .map(|inner| (inner.to_owned(), table(&path(inner)))),
    );
    // User-defined keys.
    let mut schema = match properties.remove("NAME") {
        Some(each) => json!({ "type": "object", "minProperties": 1, "additionalProperties": each }),
        None => json!({ "type": "object", "additionalProperties": false, "properties": properties }),
    };
    let Some(TableSpec { about, listed, .. }) = spec else { return schema };
    let required = keys.iter().filter(|key| key.default.is_none()).map(|key| key.name);
    insert(&mut schema, [("required", required.collect())]);
    if keys.iter().any(|key| key.name == "os") {
        insert(&mut schema, [("allOf", targets())]);
    }
    if *listed {
        schema = json!({ "type": "array", "items": schema });
    }
    if !about.is_empty() {
        insert(&mut schema, [("description", json!(about))]);
    }
    schema
}

/// The schema of a key, restricted to an enumeration or a pattern where possible.
fn value(table: &str, KeySpec { name, kind, about, .. }: &KeySpec) -> Value {
    let mut schema = match (*name, kind) {
        ("dependencies", _) => choice(DEPENDENCIES),
        ("compression", _) => choice(IMAGE_COMPRESSIONS),
        ("level", _) => choice(LOG_LEVELS),
        ("mode", _) => choice(LOG_MODES),
        ("os", _) => words(TARGETS.iter().map(|(os, _)| *os).collect()),
        ("ref" | "tag", _) => json!({ "type": "string", "pattern": r"^\S+$|^\s*[\^~<>=]" }),
        ("version", _) if table == "go" => {
            json!({ "type": "string", "pattern": r"^1\.(2[1-9]|[3-9][0-9]|[1-9][0-9]{2,})(\.[0-9]+|(rc|beta)[0-9]+)?$|^release$|\$\{" })
        }
        ("version", _) => json!({ "type": "string", "pattern": r"^v[0-9]+\.[0-9]+\.[0-9]+|\$\{" }),
        ("base_url" | "endpoint", _) => json!({ "type": "string", "pattern": r"^\s*https?://|\$\{" }),
        // A project id can be a number.
        ("repository", _) if table.starts_with("gitlab") => json!({
            "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 1 }],
        }),
        ("token" | "folder" | "arch" | "NAME", _) => json!({ "type": "string" }),
        (_, ValueKind::Text) => json!({ "type": "string", "minLength": 1 }),
        (_, ValueKind::Boolean) => json!({ "type": "boolean" }),
        (_, ValueKind::Texts) => json!({ "type": "array", "items": { "type": "string" } }),
    };
    insert(&mut schema, [("description", json!(about))]);
    schema
}

/// The architectures of each operating system.
fn targets() -> Value {
    let of_each = TARGETS.iter().map(|(os, arches)| {
        json!({
            "if": { "required": ["os"], "properties": { "os": { "const": os } } },
            "then": { "properties": { "arch": words(arches.to_vec()) } },
        })
    });
    of_each.collect()
}

fn words(words: Vec<&str>) -> Value {
    json!({ "anyOf": [{ "enum": words }, variable()] })
}

/// A case-insensitive enumeration; editors suggest the lowercase values.
fn choice<T>(words: &[(&str, T)]) -> Value {
    let usual: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let any_case: Vec<String> = usual
        .iter()
        .map(|word| word.chars().map(|c| format!("[{}{c}]", c.to_ascii_uppercase())).collect())
        .collect();
    let pattern = format!("^({})$", any_case.join("|"));
    json!({ "anyOf": [{ "enum": usual }, { "type": "string", "pattern": pattern }, variable()] })
}

/// A value that contains an environment variable.
fn variable() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn insert<const N: usize>(schema: &mut Value, fields: [(&str, Value); N]) {
    if let Some(schema) = schema.as_object_mut() {
        schema.extend(fields.map(|(key, value)| (key.to_owned(), value)));
    }
}
