//! SPDX 2.3 (<https://spdx.github.io/spdx-spec/v2.3/>).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Sbom, SbomModule, uuid_of};

const UNKNOWN: &str = "NOASSERTION";

/// The document; the UUID in its namespace is from its content.
pub(super) fn document(sbom: &Sbom) -> Value {
    let (tool, version) = Sbom::tool();
    let mut ids = BTreeSet::new();
    let mut id_of = |module: &SbomModule| {
        let (path, version) = module.source();
        let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let mut id: String =
            format!("SPDXRef-{path}-{}", version.unwrap_or("devel")).chars().map(allowed).collect();
        while !ids.insert(id.clone()) {
            id.push('-');
        }
        id
    };
    let root = id_of(&sbom.roadrunner);
    let ids: Vec<String> = sbom.modules.iter().map(id_of).collect();
    let packages: Vec<Value> = std::iter::once(application(sbom, &root))
        .chain(sbom.modules.iter().zip(&ids).map(|(module, id)| package(module, id, "LIBRARY")))
        .collect();
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", &root)];
    let all = std::iter::once((&sbom.roadrunner, &root)).chain(sbom.modules.iter().zip(&ids));
    for (module, id) in all {
        let on = module.requires.iter().filter_map(|at| ids.get(*at));
        relationships.extend(on.map(|on| relationship(id, "DEPENDS_ON", on)));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("roadrunner-{}-{}-{}", sbom.roadrunner.version, sbom.target.os, sbom.target.arch),
        "creationInfo": {
            "created": sbom.created,
            "creators": [format!("Tool: {tool}-{version}")],
        },
        "packages": packages,
        "relationships": relationships,
    });
    let namespace = format!("http://spdx.org/spdxdocs/roadrunner-{}", uuid_of(&document));
    if let Some(fields) = document.as_object_mut() {
        fields.insert("documentNamespace".to_owned(), json!(namespace));
    }
    document
}

fn application(sbom: &Sbom, id: &str) -> Value {
    let mut package = package(&sbom.roadrunner, id, "APPLICATION");
    let settings: Vec<String> =
        sbom.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if let Some(fields) = package.as_object_mut() {
        fields.remove("checksums");
        if let Some(sha256) = &sbom.binary {
            // Of the binary, not of the module.
            fields.insert("checksums".to_owned(), checksums(sha256));
        }
        fields.insert("comment".to_owned(), json!(settings.join("\n")));
    }
    package
}

fn package(module: &SbomModule, id: &str, purpose: &str) -> Value {
    let (name, version) = module.source();
    let license = module.license.expression.as_deref().unwrap_or(UNKNOWN);
    let location = match (&module.repository, &module.commit) {
        (Some(url), Some(commit)) => format!("git+{url}@{commit}"),
        (Some(url), None) => format!("git+{url}"),
        (None, _) => UNKNOWN.to_owned(),
    };
    let mut package = json!({
        "SPDXID": id,
        "name": name,
        "versionInfo": version.unwrap_or("(devel)"),
        "downloadLocation": location,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": license,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": purpose,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": module.purl(),
        }],
    });
    let facts: Vec<String> =
        [("go.sum", module.sum.clone()), ("plugin", module.plugin.clone()), ("replaces", module.replaced())]
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}: {}", value?)))
            .collect();
    if let Some(fields) = package.as_object_mut() {
        if let Some(sha256) = module.sha256() {
            fields.insert("checksums".to_owned(), checksums(&sha256));
        }
        if !facts.is_empty() {
            fields.insert("sourceInfo".to_owned(), json!(facts.join("\n")));
        }
        if module.is_stdlib()
            && let Some(references) = fields.get_mut("externalRefs").and_then(Value::as_array_mut)
        {
            references.push(json!({
                "referenceCategory": "SECURITY",
                "referenceType": "cpe23Type",
                "referenceLocator": format!("cpe:2.3:a:golang:go:{}:*:*:*:*:*:*:*", module.version),
            }));
        }
    }
    package
}

fn checksums(sha256: &str) -> Value {
    json!([{ "algorithm": "SHA256", "checksumValue": sha256 }])
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}
