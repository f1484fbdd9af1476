//! YAML and JSON: the same manifest as TOML, and errors that point into the file.

use std::collections::BTreeMap;

use velox_manifest::{Diagnostic, Manifest, ManifestFormat, SourceFile, edit};

use crate::{MANUAL, MODULES, valid};

fn read(name: &str, text: &str) -> Result<(Manifest, Vec<Diagnostic>), Vec<Diagnostic>> {
    let source = SourceFile { name: name.to_owned(), text: text.to_owned() };
    Manifest::parse(&source, &|name| (name == "T").then(|| "a-token-1".to_owned()))
}

#[track_caller]
fn read_all(name: &str, text: &str) -> Manifest {
    match read(name, text) {
        Ok((manifest, warnings)) if warnings.is_empty() => manifest,
        other => {
            panic!("{}", rendered(name, text, &other.map_or_else(|errors| errors, |(_, warnings)| warnings)))
        }
    }
}

/// `line:column: message`, and the text of the span.
fn rendered(name: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let source = SourceFile { name: name.to_owned(), text: text.to_owned() };
    let line = |diagnostic: &Diagnostic| match &diagnostic.span {
        Some(span) => {
            let (line, column) = source.line_column(span.start);
            let marked = text.get(span.clone()).unwrap().escape_debug();
            let related = diagnostic.related.as_ref().map(|related| source.line_column(related.span.start));
            let related = related.map(|place| format!(" and {place:?}")).unwrap_or_default();
            format!("{line}:{column} `{marked}`{related}: {}", diagnostic.message)
        }
        None => diagnostic.message.clone(),
    };
    diagnostics.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Everything but the spans.
fn content(manifest: &Manifest) -> String {
    let text = format!("{manifest:?}");
    let mut content = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("span: ") {
        content.push_str(before);
        rest = after.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "(). ".contains(c));
    }
    content + rest
}

/// A TOML text as JSON, which is YAML too.
pub(crate) fn json(text: &str) -> String {
    let value: serde_json::Value = toml_edit::de::from_str(text).unwrap();
    format!("{value:#}")
}

#[test]
fn the_same_manifest_in_every_syntax() {
    for text in [MANUAL, MODULES] {
        let mut expected = valid(text, &[]);
        let json = json(text);
        for name in ["velox.json", "velox.yaml", "dir/velox.YML"] {
            let mut manifest = read_all(name, &json);
            for manifest in [&mut manifest, &mut expected] {
                manifest.plugins.sort_by(|a, b| a.name.value.cmp(&b.name.value));
            }
            assert_eq!(content(&manifest), content(&expected), "{name}");
        }
    }
}

const YAML: &str = "# A comment\n\
defaults: &defaults\n  owner: roadrunner-server\n\
roadrunner:\n  ref: v2025.1.15 # größer\n\
github:\n  token: {token: \"${T}\"}\n  plugins:\n    logger: {ref: v5.1.9, <<: *defaults, repository: logger}\n\
\x20   rpc:\n      ref: 'v5.1.9'\n      owner: roadrunner-server\n      repository: rpc\n\
gitlab:\n  plugins:\n    id: {ref: main, repository: 36405203}\n\
log:\ndebug:\n  enabled: yes please\n";

#[test]
fn yaml_with_anchors_comments_and_block_style() {
    let text = YAML.replace("yes please", "~").replace("defaults: &defaults", "velox: &defaults");
    let (manifest, warnings) = read("velox.yaml", &text).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!((manifest.format, manifest.plugins.len()), (ManifestFormat::Ancestor, 3));
    for plugin in &manifest.plugins {
        assert_eq!(&text[plugin.name.span.clone().unwrap()], plugin.name.value);
    }
    let reference = manifest.roadrunner.reference.unwrap();
    assert_eq!(&text[reference.span.unwrap()], "v2025.1.15");
    assert!(manifest.github.token.is_some());
}

#[test]
fn errors_in_yaml_and_json() {
    let yaml = [
        YAML,
        "roadrunner:\n  reff: v1\n",
        "a: [1, 2\nb: 3\n",
        "é: 1\nroadrunner: {ref: v1}\nRoadRunner: {ref: v2}\n",
        "roadrunner:\n\tref: v1\n",
        "- a\n",
        "just text",
        "roadrunner: {ref: v1}\n---\nlog: {}\n",
        "? [a]\n: b\n",
        "a: &a [x, x]\nb: *c\n",
        "github:\n  token:\n    token: ghp_hunter2hunter2\n    tokn: 1\n",
        "github:\n  token:\n    token:\n      - ghp_hunter2hunter2\n",
        "github: {token: ghp_hunter2hunter2}\n",
        "\u{feff}roadrunner:\r\n  ref: 'a b'\r\n",
        "",
    ];
    let json = [
        "{\"roadrunner\": {\"reff\": \"v1\"}}",
        "{\"roadrunner\": {\"ref\": \"v1\",}}",
        "{\n  \"é\": 1,\n  \"roadrunner\" \"x\"\n}",
        "{\"log\": {}, \"log\": {\"mode\": \"dev\"}, \"plugins\": {\"a\": {\"module_name\": \"a.b/c\", \"tag\": [true]}}}",
        "{\"github\": {\"token\": {\n\"token\":\n\"ghp_hunter2hunter2 x\"}}}",
        "[]",
        "{} {}",
        "{\"a\": 1",
        "",
    ];
    let answers: Vec<String> = yaml
        .iter()
        .map(|text| ("velox.yaml", *text))
        .chain(json.iter().map(|text| ("velox.json", *text)))
        .map(|(name, text)| {
            let errors = read(name, text).err().unwrap_or_default();
            assert!(!errors.is_empty(), "{text}");
            format!("{text}\n--\n{}", rendered(name, text, &errors))
        })
        .collect();
    let answers = answers.join("\n\n========\n");
    assert!(
        !answers.split("--\n").skip(1).any(|part| part.split("\n\n").next().unwrap().contains("hunter2")),
        "{answers}"
    );
    insta::assert_snapshot!(answers);
}

#[test]
fn nesting_and_aliases_are_limited() {
    let deep = format!("a: {}", "[".repeat(100_000));
    assert!(read("velox.yaml", &deep).is_err());
    assert!(read("velox.json", &format!("{{\"a\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000))).is_err());
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", vec![alias; 9].join(", "));
    }
    let errors = read("velox.yaml", &laughs).unwrap_err();
    assert_eq!(errors[0].message, "too many values by YAML aliases");
}

#[test]
fn yaml_and_json_become_toml() {
    let source = SourceFile { name: "velox.yaml".to_owned(), text: YAML.replace("yes please", "true") };
    let toml = edit::to_toml(&source).unwrap();
    insta::assert_snapshot!(toml);
    let old = Manifest::parse(&source, &|_| None).unwrap().0;
    let new =
        Manifest::parse(&SourceFile { name: "velox.toml".to_owned(), text: toml }, &|_| None).unwrap().0;
    assert_eq!(content(&old), content(&new));
    for text in [MANUAL, MODULES] {
        let source = SourceFile { name: "velox.json".to_owned(), text: json(text) };
        let toml = edit::to_toml(&source).unwrap();
        let migrated = SourceFile { name: "velox.toml".to_owned(), text: toml };
        let manifest = Manifest::parse(&migrated, &|_| None).unwrap().0;
        let modules: BTreeMap<String, String> = manifest
            .plugins
            .iter()
            .map(|plugin| (plugin.name.value.clone(), format!("{}/v5", plugin.identity(&manifest))))
            .collect();
        if manifest.gitlab.endpoint.is_none() && manifest.format == ManifestFormat::Modules {
            assert!(edit::migrate(&migrated, &manifest, &modules, &|_| None).is_ok());
        }
    }
}
