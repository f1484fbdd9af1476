//! OpenVEX 0.2.0, for scanners that only read the list of modules in a binary
//! (<https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md>).

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{AuditReport, Reach, STANDARD_LIBRARY, Vulnerability, number};

impl AuditReport {
    /// A statement about each vulnerability. `version`: that of this program; `author`: who states it.
    #[must_use]
    pub fn openvex(&self, version: &str, author: &str, timestamp: Timestamp) -> Value {
        let product = package_url(&self.roadrunner.path, &self.roadrunner.version);
        let statements: Vec<Value> =
            self.vulnerabilities.iter().map(|known| statement(known, &product)).collect();
        // Equal statements have an equal id.
        let digest = HEXLOWER.encode(&Sha256::digest(json!([author, statements]).to_string()));
        json!({
            "@context": "https://openvex.dev/ns/v0.2.0",
            "@id": format!("https://openvex.dev/docs/public/vex-{digest}"),
            "author": author,
            "timestamp": timestamp.to_string(),
            "version": 1,
            "tooling": format!("vx {version}, {}, {}", self.scanner, self.database),
            "statements": statements,
        })
    }
}

fn statement(known: &Vulnerability, product: &str) -> Value {
    let Vulnerability { id, aliases, url, module, version, reach, .. } = known;
    let component = package_url(module, version);
    let mut product = json!({ "@id": product });
    if component != product["@id"]
        && let Some(fields) = product.as_object_mut()
    {
        fields.insert("subcomponents".to_owned(), json!([{ "@id": component }]));
    }
    let mut statement = json!({
        "vulnerability": { "@id": url, "name": id, "description": known.summary, "aliases": aliases },
        "products": [product],
    });
    let (status, reason) = match reach {
        Reach::Called => ("affected", ("action_statement", known.action())),
        Reach::Imported => {
            ("not_affected", ("justification", "vulnerable_code_not_in_execute_path".to_owned()))
        }
        Reach::Required => ("not_affected", ("justification", "vulnerable_code_not_present".to_owned())),
    };
    if let Some(fields) = statement.as_object_mut() {
        fields.insert("status".to_owned(), json!(status));
        fields.insert(reason.0.to_owned(), json!(reason.1));
        if *reach != Reach::Called {
            fields.insert("impact_statement".to_owned(), json!(known.sentence()));
        }
    }
    statement
}

/// <https://github.com/package-url/purl-spec/blob/main/types-doc/golang-definition.md>
fn package_url(module: &str, version: &str) -> String {
    let version = match module {
        // As scanners name the standard library.
        STANDARD_LIBRARY => number(version),
        _ => version,
    };
    format!("pkg:golang/{module}@{}", version.replace('+', "%2B"))
}
