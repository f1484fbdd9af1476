//! SARIF 2.1.0, for code scanning (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>).

use serde_json::{Value, json};
use velox_manifest::{Manifest, SourceFile};

use super::{AuditReport, CallFrame, Reach, STANDARD_LIBRARY, Vulnerability};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

impl AuditReport {
    /// The vulnerabilities as a SARIF log. Each result is at the plugin in `source` through which it is reached.
    /// `version`: that of this program.
    #[must_use]
    pub fn sarif(&self, version: &str, manifest: &Manifest, source: Option<&SourceFile>) -> Value {
        let mut ids: Vec<&str> = self.vulnerabilities.iter().map(|known| known.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let rules = ids.iter().filter_map(|id| self.vulnerabilities.iter().find(|known| known.id == *id));
        let results = self.vulnerabilities.iter().map(|known| {
            let place = ConfigurationLine::new(known, manifest, source);
            result(known, ids.iter().position(|id| *id == known.id), &place)
        });
        json!({
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [{
                "tool": {
                    "driver": {
                        "name": "vx",
                        "version": version,
                        "informationUri": "https://github.com/roadrunner-server/velox",
                        "rules": rules.map(rule).collect::<Vec<_>>(),
                    },
                    "extensions": [{
                        "name": "govulncheck",
                        "fullName": self.scanner,
                        "informationUri": "https://pkg.go.dev/golang.org/x/vuln/cmd/govulncheck",
                    }],
                },
                "results": results.collect::<Vec<_>>(),
                "columnKind": "unicodeCodePoints",
                "properties": self,
            }],
        })
    }
}

/// The place of a result in the configuration.
struct ConfigurationLine {
    file: String,
    line: usize,
}

impl ConfigurationLine {
    /// Code scanning needs a file of the repository.
    fn new(known: &Vulnerability, manifest: &Manifest, source: Option<&SourceFile>) -> Self {
        let Some(source) = source else { return Self { file: "velox.toml".to_owned(), line: 1 } };
        let plugin = manifest.plugins.iter().find(|plugin| known.plugins.contains(&plugin.name.value));
        let span = match plugin {
            Some(plugin) => plugin.name.span.clone(),
            None if known.module == STANDARD_LIBRARY => manifest.go.as_ref().and_then(|go| go.span.clone()),
            None => manifest.roadrunner.reference.as_ref().and_then(|reference| reference.span.clone()),
        };
        let line = span.map_or(1, |span| source.line_column(span.start).0);
        Self { file: source.name.trim_start_matches("./").to_owned(), line }
    }
}

fn rule(known: &Vulnerability) -> Value {
    let Vulnerability { id, aliases, summary, url, .. } = known;
    let text = if summary.is_empty() { id } else { summary };
    json!({
        "id": id,
        "shortDescription": { "text": text },
        "helpUri": url,
        "help": { "text": format!("{text}\n{url}") },
        "properties": { "tags": aliases },
    })
}

fn result(
    known: &Vulnerability,
    rule: Option<usize>,
    ConfigurationLine { file, line }: &ConfigurationLine,
) -> Value {
    let Vulnerability { id, module, version, reach, calls, .. } = known;
    let flows: Vec<Value> = calls.iter().map(|calls| flow(calls)).collect();
    let mut result = json!({
        "ruleId": id,
        "level": match reach {
            Reach::Called => "error",
            Reach::Imported => "warning",
            Reach::Required => "note",
        },
        "message": { "text": known.sentence() },
        "locations": [{
            "physicalLocation": {
                "artifactLocation": { "uri": file },
                "region": { "startLine": line },
            },
        }],
        "partialFingerprints": { "vulnerability/v1": format!("{id} {module}") },
        "properties": { "module": module, "version": version, "fixed": known.fixed, "reach": reach, "plugins": known.plugins },
    });
    if let (Some(fields), Some(rule)) = (result.as_object_mut(), rule) {
        fields.insert("ruleIndex".to_owned(), json!(rule));
        if !flows.is_empty() {
            fields.insert("codeFlows".to_owned(), json!(flows));
        }
    }
    result
}

fn flow(calls: &[CallFrame]) -> Value {
    let locations = calls.iter().map(|frame| {
        let mut location = json!({ "message": { "text": frame.function } });
        if let (Some(file), Some(line), Some(fields)) = (&frame.file, frame.line, location.as_object_mut()) {
            let version = if frame.version.is_empty() { String::new() } else { format!("@{}", frame.version) };
            let path = format!("{}{version}/{file}", frame.module);
            let place = json!({ "artifactLocation": { "uri": uri(&path), "uriBaseId": "GOMODCACHE" }, "region": { "startLine": line } });
            fields.insert("physicalLocation".to_owned(), place);
        }
        json!({ "location": location })
    });
    json!({ "threadFlows": [{ "locations": locations.collect::<Vec<_>>() }] })
}

/// A relative path as a URI reference.
fn uri(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@+!$".contains(&byte);
    path.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
