//! The JSON Schema of velox.toml in all its formats, for editors (<https://json-schema.org/draft-07>, the newest that
//! TOML editors know). It is made from the parser's own keys; the parser still knows more than any schema can say.

use serde_json::{Map, Value, json};

use crate::{keys, target::TARGETS};

/// The schema, as indented JSON with a line feed at its end.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", whole())
}

fn whole() -> Value {
    let mut schema = object(keys::TOP, &[], top);
    let with_plugins =
        |forge: &str| json!({ "required": [forge], "properties": { (forge): { "required": ["plugins"] } } });
    insert(
        &mut schema,
        [
            ("$schema", json!("http://json-schema.org/draft-07/schema#")),
            ("title", json!("velox.toml")),
            ("description", json!("What a RoadRunner server is built from: https://docs.roadrunner.dev")),
            ("anyOf", json!([{ "required": ["plugins"] }, with_plugins("github"), with_plugins("gitlab")])),
            // Two formats in one file.
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

fn top(key: &str) -> Value {
    match key {
        "roadrunner" => described(
            object(keys::ROADRUNNER, &[], |key| match key {
                "ref" => reference(
                    "The RoadRunner to build: a tag, a branch or a commit. Left out: the default branch.",
                ),
                "dependencies" => described(
                    choice(keys::DEPENDENCIES),
                    "Which dependency versions to start from: RoadRunner's own, or what the plugins demand.",
                ),
                _ => Value::Null,
            }),
            "RoadRunner itself.",
        ),
        "debug" => described(
            object(keys::DEBUG, &[], |_| boolean("Keep debug symbols, for pprof and delve.")),
            "Debugging of the server.",
        ),
        "strict" => boolean("Fail where a plugin would be compiled at a newer version than asked for."),
        "log" => described(
            object(keys::LOG, &[], |key| match key {
                "level" => described(choice(keys::LEVELS), "How much the build tells."),
                "mode" => {
                    described(choice(keys::MODES), "`production`: JSON off a terminal; `off`: errors only.")
                }
                _ => Value::Null,
            }),
            "What the build tells.",
        ),
        "target_platform" => described(target(), "What to compile for. Left out: the machine that builds."),
        "targets" => list(target(), "What to compile for, each with a binary of its own."),
        "cache" => described(
            object(keys::CACHE, &[], |key| match key {
                "remote" => text("A directory, or an s3://, gs:// or az:// URL."),
                "read_only" => boolean("Take from it, and put nothing in."),
                _ => Value::Null,
            }),
            "The compile cache that a team shares.",
        ),
        "github" => described(
            forge(&["ref", "owner", "repository"], false),
            "GitHub: its plugins, token and address.",
        ),
        "gitlab" => described(forge(&["ref", "repository"], true), "GitLab: its plugins, token and address."),
        "plugins" => plugins(object(keys::MODULE, &["module_name", "tag"], |key| match key {
            "module_name" => {
                text("The path in the plugin's go.mod, such as github.com/roadrunner-server/http/v5.")
            }
            "tag" => reference("A tag, a branch, a commit or `latest`."),
            "replace" => replacement(),
            _ => Value::Null,
        })),
        "replaces" => list(
            object(keys::REPLACE, &["old", "new"], |key| match key {
                "old" => text("The module to replace, with or without a version."),
                "new" => replacement(),
                _ => Value::Null,
            }),
            "Replaces of go.mod.",
        ),
        "excludes" => list(
            object(keys::EXCLUDE, &["module", "version"], |key| match key {
                "module" => text("The module's path."),
                "version" => json!({
                    "type": "string",
                    "description": "The version never to use.",
                    "pattern": r"^v[0-9]+\.[0-9]+\.[0-9]+|\$\{",
                }),
                _ => Value::Null,
            }),
            "Excludes of go.mod.",
        ),
        "velox" => described(
            object(keys::VELOX, &[], |_| {
                json!({
                    "type": "array",
                    "items": { "type": "string" },
                    "description": "Arguments of go build, as far as they are safe.",
                })
            }),
            "Build arguments, as of velox 1.x.",
        ),
        _ => Value::Null,
    }
}

/// `[github]`, `[gitlab]`: a project's id may be a number.
fn forge(required: &[&str], ids: bool) -> Value {
    object(keys::FORGE, &[], |key| match key {
        "token" => object(
            keys::TOKEN,
            &[],
            |_| json!({ "type": "string", "description": "From the environment: \"${RT_TOKEN}\". Public plugins need none." }),
        ),
        "endpoint" => object(keys::ENDPOINT, &[], |_| url()),
        "base_url" => url(),
        "plugins" => plugins(object(keys::REPOSITORY, required, |key| match key {
            "ref" => reference("A tag, a branch or a commit."),
            "owner" => text("The user, organization or group."),
            "repository" if ids => json!({
                "description": "The project's numeric id, or its path.",
                "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "integer", "minimum": 1 }],
            }),
            "repository" => text("The repository's name."),
            "folder" => {
                json!({ "type": "string", "description": "The folder that holds the plugin's go.mod." })
            }
            "replace" => replacement(),
            _ => Value::Null,
        })),
        _ => Value::Null,
    })
}

/// A table whose keys are these, each as `property` has it.
fn object(known: &[&str], required: &[&str], property: impl Fn(&str) -> Value) -> Value {
    let properties: Map<String, Value> = known.iter().map(|key| ((*key).to_owned(), property(key))).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        insert(&mut schema, [("required", json!(required))]);
    }
    schema
}

/// Plugins by the user's own names.
fn plugins(each: Value) -> Value {
    json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": each,
        "description": "The plugins, by names of your own.",
    })
}

fn list(items: Value, description: &str) -> Value {
    json!({ "type": "array", "items": items, "description": description })
}

fn target() -> Value {
    let words = |words: Vec<&str>| json!({ "anyOf": [{ "enum": words }, variable()] });
    let mut schema = object(keys::TARGET, &[], |key| match key {
        "os" => words(TARGETS.iter().map(|(os, _)| *os).collect()),
        _ => json!({ "type": "string" }),
    });
    let of_each = TARGETS.iter().map(|(os, arches)| {
        json!({
            "if": { "required": ["os"], "properties": { "os": { "const": os } } },
            "then": { "properties": { "arch": words(arches.to_vec()) } },
        })
    });
    let both = json!({ "os": ["arch"], "arch": ["os"] });
    insert(&mut schema, [("allOf", of_each.collect()), ("dependencies", both)]);
    schema
}

/// One of a few words, in whichever case; the usual one is what editors offer.
fn choice<T>(words: &[(&str, T)]) -> Value {
    let usual: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let any_case: Vec<String> = usual
        .iter()
        .map(|word| word.chars().map(|c| format!("[{}{c}]", c.to_ascii_uppercase())).collect())
        .collect();
    let pattern = format!("^({})$", any_case.join("|"));
    json!({ "anyOf": [{ "enum": usual }, { "type": "string", "pattern": pattern }, variable()] })
}

/// A value that only the environment tells.
fn variable() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn reference(description: &str) -> Value {
    json!({ "type": "string", "pattern": r"^\S+$", "description": description })
}

fn replacement() -> Value {
    text(
        "A directory (\"../http\", relative to this file), or a module with its version (\"github.com/me/http@v1.2.3\").",
    )
}

fn url() -> Value {
    json!({
        "type": "string",
        "pattern": r"^\s*https?://|\$\{",
        "description": "Where the instance's start page is, such as https://git.example.com.",
    })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "description": description })
}

fn boolean(description: &str) -> Value {
    json!({ "type": "boolean", "description": description })
}

fn described(mut schema: Value, description: &str) -> Value {
    insert(&mut schema, [("description", json!(description))]);
    schema
}

fn insert<const N: usize>(schema: &mut Value, fields: [(&str, Value); N]) {
    if let Some(schema) = schema.as_object_mut() {
        schema.extend(fields.map(|(key, value)| (key.to_owned(), value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that the parser learns has to be said here too.
    #[test]
    fn every_key_is_described() {
        fn check(at: &str, schema: &Value) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (key, property) in properties {
                    let at = format!("{at}.{key}");
                    assert!(!property.is_null(), "{at} isn't described");
                    check(&at, property);
                }
            }
            for inner in ["additionalProperties", "items"].iter().filter_map(|key| schema.get(*key)) {
                check(at, inner);
            }
        }
        check("", &whole());
    }
}
