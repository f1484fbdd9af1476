//! OpenVEX 0.2.0, for scanners that only read the list of modules in a binary
//! (<https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md>).

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use velox_build::package_url;
use velox_gomod::module::ModuleVersion;

use super::{AuditReport, Reach, STANDARD_LIBRARY, Vulnerability, number};

impl AuditReport {
    /// A statement about each vulnerability. `version`: that of this program; `author`: who states it.
    #[must_use]
    pub fn openvex(&self, version: &str, author: &str, timestamp: Timestamp) -> Value {
        let ModuleVersion { path, version: release } = &self.roadrunner;
        let product = json!({
            "@id": package_url(path, Some(release)),
            // The build information of a binary doesn't have the version of the main module.
            "identifiers": { "purl": package_url(path, None) },
        });
        let statement = |known: &Vulnerability| statement(known, product.clone(), known.module != *path);
        let statements: Vec<Value> = self.vulnerabilities.iter().map(statement).collect();
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

fn statement(known: &Vulnerability, mut product: Value, is_in_module: bool) -> Value {
    let Vulnerability { id, aliases, url, module, version, reach, .. } = known;
    if is_in_module && let Some(fields) = product.as_object_mut() {
        let modules = package_urls(module, version).into_iter().map(|url| json!({ "@id": url }));
        fields.insert("subcomponents".to_owned(), modules.collect());
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

/// The package URLs by which scanners know a module.
fn package_urls(module: &str, version: &str) -> Vec<String> {
    let url = |version: &str| package_url(module, Some(version));
    match module {
        // Syft's and Trivy's.
        STANDARD_LIBRARY => vec![url(number(version)), url(&format!("v{}", number(version)))],
        _ => vec![url(version)],
    }
}
