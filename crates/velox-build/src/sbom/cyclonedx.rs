//! CycloneDX 1.6 (<https://cyclonedx.org/docs/1.6/json/>).

use serde_json::{Map, Value, json};

use super::{Sbom, SbomModule, uuid_of};

/// The document; its serial number is from its content.
pub(super) fn document(sbom: &Sbom) -> Value {
    let (tool, tool_version) = Sbom::tool();
    let purls: Vec<String> = sbom.modules.iter().map(SbomModule::purl).collect();
    let dependencies = |module: &SbomModule| {
        let mut on: Vec<&String> = module.requires.iter().filter_map(|at| purls.get(*at)).collect();
        on.sort();
        let reference = module.purl();
        if on.is_empty() { json!({ "ref": reference }) } else { json!({ "ref": reference, "dependsOn": on }) }
    };
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": sbom.created,
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [{ "type": "application", "name": tool, "version": tool_version }] },
            "component": application(sbom),
        },
        "components": sbom.modules.iter().map(library).collect::<Vec<_>>(),
        "dependencies":
            std::iter::once(&sbom.roadrunner).chain(&sbom.modules).map(dependencies).collect::<Vec<_>>(),
    });
    let serial = uuid_of(&document);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("serialNumber".to_owned(), json!(format!("urn:uuid:{serial}")));
    }
    document
}

fn application(sbom: &Sbom) -> Value {
    let mut fields = common("application", &sbom.roadrunner);
    if let Some(sha256) = &sbom.binary {
        // Of the binary, not of the module.
        fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": sha256 }]));
    }
    let sum = sbom.roadrunner.sum.iter().map(|sum| property("vx:go.sum", sum));
    let properties: Vec<Value> =
        sum.chain(sbom.properties.iter().map(|(name, value)| property(name, value))).collect();
    fields.insert("properties".to_owned(), json!(properties));
    Value::Object(fields)
}

fn library(module: &SbomModule) -> Value {
    let mut fields = common("library", module);
    fields.insert("scope".to_owned(), json!("required"));
    if let Some(sha256) = module.sha256() {
        fields.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": sha256 }]));
    }
    if module.is_stdlib() {
        fields
            .insert("cpe".to_owned(), json!(format!("cpe:2.3:a:golang:go:{}:*:*:*:*:*:*:*", module.version)));
    }
    let properties: Vec<Value> = [
        ("vx:go.sum", module.sum.clone()),
        ("vx:plugin", module.plugin.clone()),
        ("vx:replaces", module.replaced()),
        ("vx:license", module.license.expression.is_none().then(|| "unknown".to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(property(name, &value?)))
    .collect();
    if !properties.is_empty() {
        fields.insert("properties".to_owned(), json!(properties));
    }
    Value::Object(fields)
}

/// The fields of the application and of libraries.
fn common(kind: &str, module: &SbomModule) -> Map<String, Value> {
    let (name, version) = module.source();
    let mut fields = Map::new();
    let mut insert = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    let purl = module.purl();
    insert("type", json!(kind));
    insert("bom-ref", json!(purl));
    insert("name", json!(name));
    insert("version", json!(version.unwrap_or("(devel)")));
    insert("purl", json!(purl));
    let licenses = match module.license.expression.as_deref() {
        None => json!([]),
        Some(license) if license.contains(' ') => {
            json!([{ "expression": license, "acknowledgement": "declared" }])
        }
        Some(license) => json!([{ "license": { "id": license, "acknowledgement": "declared" } }]),
    };
    insert("licenses", licenses);
    if let Some(url) = &module.repository {
        insert("externalReferences", json!([{ "type": "vcs", "url": url }]));
    }
    if let Some(commit) = &module.commit {
        insert("pedigree", json!({ "commits": [{ "uid": commit }] }));
    }
    fields
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}
