//! Fields of JSON calls that are not in the protobuf files.
//!
//! Such fields are usually ignored. But a client that sends one with a meaning for the build, such as
//! `plugins[].replace`, would get another binary than it requested: those are rejected by name.

use connectrpc::{
    CodecFormat, ConnectError,
    interceptor::{Interceptor, Next, UnaryRequest, UnaryResponse},
};
use serde_json::Value;
use velox_api::Violation;

use crate::{error::ApiError, proto::api::service::v1::BUILD_SERVICE_SERVICE_NAME, telemetry};

/// The maximum number of ignored fields that a response names.
const MAX_IGNORED_FIELDS: usize = 20;

/// The maximum length of a field's name in a message.
const MAX_NAME_CHARS: usize = 64;

/// The fields of a `BuildRequest`.
const REQUEST_FIELDS: [&str; 9] = [
    "request_id",
    "rr_version",
    "force_rebuild",
    "target_platform",
    "plugins",
    "replaces",
    "excludes",
    "race",
    "debug",
];

/// The fields of the messages in a `BuildRequest`.
const INNER_FIELDS: [(&str, &[&str]); 4] = [
    ("target_platform", &["os", "arch"]),
    ("plugins", &["module_name", "tag"]),
    ("replaces", &["new", "old"]),
    ("excludes", &["module", "version"]),
];

/// The unknown fields of a call that have no meaning for the build.
#[derive(Debug, Clone, Default)]
pub(super) struct IgnoredFields(pub(super) Vec<String>);

/// Rejects calls with a meaningful unknown field, and adds [`IgnoredFields`] to others.
pub(super) struct UnknownFieldCheck;

#[connectrpc::async_trait]
impl Interceptor for UnknownFieldCheck {
    async fn intercept_unary(
        &self,
        mut request: UnaryRequest,
        next: Next<'_>,
    ) -> Result<UnaryResponse, ConnectError> {
        let is_build = request.ctx.path().is_some_and(|path| path.contains(BUILD_SERVICE_SERVICE_NAME));
        if is_build && request.payload.format() == CodecFormat::Json {
            match check(request.payload.bytes()) {
                Ok(ignored) => _ = request.ctx.extensions_mut().insert(ignored),
                Err(violations) => {
                    let error = ConnectError::from(ApiError::invalid(violations));
                    telemetry::record_call_status(error.http_status());
                    return Err(error);
                }
            }
        }
        next.run(request).await
    }
}

/// The ignored fields of a request, or the violations of meaningful ones. Malformed JSON is reported later.
fn check(json: &[u8]) -> Result<IgnoredFields, Vec<Violation>> {
    let Ok(Value::Object(request)) = serde_json::from_slice(json) else {
        return Ok(IgnoredFields::default());
    };
    let mut unknown = Vec::new();
    for (name, value) in &request {
        if !is_field(name, &REQUEST_FIELDS) {
            unknown.extend(UnknownField::new("", name, value));
            continue;
        }
        let Some((list, fields)) = INNER_FIELDS.into_iter().find(|(inner, _)| is_field(name, &[inner]))
        else {
            continue;
        };
        let inner = match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, it)| (format!("{list}[{at}]"), it)).collect()
            }
            one => vec![(list.to_owned(), one)],
        };
        for (parent, message) in inner {
            let values = message.as_object().into_iter().flatten();
            let others = values.filter(|(name, _)| !is_field(name, fields));
            unknown.extend(others.filter_map(|(name, value)| UnknownField::new(&parent, name, value)));
        }
    }
    let violations: Vec<Violation> = unknown.iter().filter_map(UnknownField::violation).collect();
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(IgnoredFields(unknown.iter().map(UnknownField::path).take(MAX_IGNORED_FIELDS).collect()))
}

/// Whether the name is one of these protobuf fields, as it is or in camel case
/// (<https://protobuf.dev/programming-guides/json/>).
fn is_field(name: &str, fields: &[&str]) -> bool {
    let is_camel_case = |field: &str| {
        let mut parts = field.split('_');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (first, rest) = part.split_at(part.ceil_char_boundary(1));
            text.extend(first.chars().map(|c| c.to_ascii_uppercase()).chain(rest.chars()));
        }
        text == name
    };
    fields.iter().any(|field| *field == name || is_camel_case(field))
}

struct UnknownField<'a> {
    /// Such as `plugins[1]`; empty for the request.
    parent: String,
    name: &'a str,
}

impl<'a> UnknownField<'a> {
    /// `None` for an empty value, which says nothing.
    fn new(parent: &str, name: &'a str, value: &Value) -> Option<Self> {
        let is_empty = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.trim().is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(true) | Value::Number(_) => false,
        };
        (!is_empty).then(|| Self { parent: parent.to_owned(), name })
    }

    fn path(&self) -> String {
        let name: String = self.name.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
        if self.parent.is_empty() { name } else { format!("{}.{name}", self.parent) }
    }

    /// The error if the field has a meaning for the build: its name is one of a velox.toml, of the REST API or
    /// of the go command, or is similar to one of the protobuf files.
    fn violation(&self) -> Option<Violation> {
        let letters = self.name.chars().filter(char::is_ascii_alphanumeric);
        let name = letters.map(|c| c.to_ascii_lowercase()).collect::<String>();
        let help = match (self.parent.split('[').next().unwrap_or_default(), name.as_str()) {
            ("plugins", "replace" | "replacement" | "replaces") => "use `replaces` with `old` and `new`",
            ("plugins", "ref" | "reference" | "version" | "branch" | "commit" | "revision") => "use `tag`",
            (
                "plugins",
                "module" | "owner" | "repository" | "repo" | "folder" | "subdir" | "path" | "endpoint"
                | "url",
            ) => "use `module_name` with the module path",
            ("", "replace") => "use `replaces`",
            ("", "exclude") => "use `excludes`",
            ("", "plugin") => "use `plugins`",
            ("", "roadrunner" | "version" | "ref") => "use `rr_version`",
            ("", "os" | "arch" | "goos" | "goarch" | "platform" | "target" | "targets") => {
                "use `target_platform` with `os` and `arch`"
            }
            ("", "force" | "rebuild" | "nocache") => "use `force_rebuild`",
            (
                _,
                "arm" | "goarm" | "amd64" | "goamd64" | "variant" | "tags" | "buildtags" | "buildargs"
                | "args" | "flags" | "ldflags" | "gcflags" | "cgo" | "cgoenabled" | "strip" | "strict"
                | "dependencies" | "require" | "requires" | "go" | "goversion" | "toolchain" | "gotoolchain"
                | "env" | "environment" | "stampversion" | "stamptime" | "buildtime" | "github" | "gitlab"
                | "token" | "baseurl" | "configuration" | "config" | "build",
            ) => "it has no equivalent here",
            (parent, _) => {
                let inner = INNER_FIELDS.into_iter().find(|(list, _)| *list == parent);
                let fields = inner.map_or(&REQUEST_FIELDS[..], |(_, fields)| fields);
                let near =
                    fields.iter().find(|known| strsim::osa_distance(&known.replace('_', ""), &name) <= 1)?;
                return Some(self.unknown(&format!("did you mean `{near}`?")));
            }
        };
        Some(self.unknown(help))
    }

    fn unknown(&self, help: &str) -> Violation {
        Violation::new(self.path(), format!("unknown field; {help}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::api::request::v1::BuildRequest;

    fn rejected(json: &str) -> Vec<String> {
        let violations = check(json.as_bytes()).err().unwrap_or_default();
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn meaningful_fields_are_rejected() {
        for (json, field) in [
            (r#"{"plugins": [{}, {"module_name": "a", "replace": "b"}]}"#, "plugins[1].replace"),
            (r#"{"plugins": [{"ref": "v1"}]}"#, "plugins[0].ref"),
            (r#"{"plugins": [{"folder": "x"}]}"#, "plugins[0].folder"),
            (r#"{"plugins": [{"moduleNam": "x"}]}"#, "plugins[0].moduleNam"),
            (r#"{"build_args": ["-race"]}"#, "build_args"),
            (r#"{"buildArgs": ["-race"]}"#, "buildArgs"),
            (r#"{"strict": true}"#, "strict"),
            (r#"{"rr_versio": "v1"}"#, "rr_versio"),
            (r#"{"RR-Version": "v1"}"#, "RR-Version"),
            (r#"{"target_platform": {"os": "linux", "goarm": 7}}"#, "target_platform.goarm"),
        ] {
            assert_eq!(rejected(json), [field], "{json}");
        }
    }

    #[test]
    fn other_fields_are_ignored() {
        let json = r#"{"plugins": [{"module_name": "a", "docs_url": "b", "replace": ""}], "strict": false, "x": 1,
                       "replace": null, "tags": []}"#;
        assert_eq!(
            check(json.as_bytes()).map(|ignored| ignored.0),
            Ok(vec!["plugins[0].docs_url".into(), "x".into()])
        );
        for malformed in ["", "{", "[]", r#"{"plugins": 7}"#, r#"{"plugins": [7]}"#] {
            assert_eq!(rejected(malformed), [""; 0], "{malformed}");
        }
    }

    #[test]
    fn all_fields_of_the_messages_are_known() {
        let all = |value: &str| {
            let inner = INNER_FIELDS.map(|(list, fields)| {
                let fields: Vec<String> = fields.iter().map(|field| format!("\"{field}\": \"x\"")).collect();
                let message = format!("{{{}}}", fields.join(", "));
                let message = if list == "target_platform" { message } else { format!("[{message}]") };
                format!("\"{list}\": {message}")
            });
            format!(
                r#"{{"request_id": "x", "rr_version": "x", "force_rebuild": true, {}, "race": true, "debug": {value}}}"#,
                inner.join(", ")
            )
        };
        let json = all("true");
        assert_eq!(check(json.as_bytes()).map(|ignored| ignored.0), Ok(Vec::new()));
        // What is written again has every field, in camel case.
        let request: BuildRequest = serde_json::from_str(&json).expect("a request");
        let written = serde_json::to_string(&request).expect("JSON");
        assert_eq!(check(written.as_bytes()).map(|ignored| ignored.0), Ok(Vec::new()));
        for field in
            REQUEST_FIELDS.into_iter().chain(INNER_FIELDS.into_iter().flat_map(|(_, fields)| fields).copied())
        {
            assert!(written.split('"').any(|name| is_field(name, &[field])), "{field}: {written}");
        }
    }
}
