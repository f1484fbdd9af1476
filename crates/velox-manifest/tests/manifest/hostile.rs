//! Arbitrary texts: the spans of all diagnostics are inside the text.

use crate::{MANUAL, MODULES, parse, syntaxes::json};
use proptest::{prelude::*, sample::Index};
use velox_manifest::{Diagnostic, Manifest, SourceFile, edit};

/// In every syntax.
fn check(text: &str) {
    for name in ["velox.toml", "velox.yaml", "velox.json"] {
        let source = SourceFile { name: name.to_owned(), text: text.to_owned() };
        let environment = |name: &str| match name {
            "RT_TOKEN" => Some("\u{0}".to_owned()),
            "VERSION" => Some("é\"'".to_owned()),
            _ => None,
        };
        let diagnostics = match Manifest::parse(&source, &environment) {
            Ok((_, warnings)) => warnings,
            Err(errors) => {
                assert!(!errors.is_empty());
                errors
            }
        };
        let related =
            |diagnostic: &Diagnostic| diagnostic.related.as_ref().map(|related| related.span.clone());
        for span in
            diagnostics.iter().flat_map(|diagnostic| [diagnostic.span.clone(), related(diagnostic)]).flatten()
        {
            assert!(text.get(span.clone()).is_some(), "{span:?} is outside of {text:?} ({name})");
        }
        if edit::to_toml(&source).is_ok_and(|toml| toml_edit::Document::parse(toml.as_str()).is_err()) {
            panic!("{text:?} ({name}) becomes invalid TOML");
        }
    }
}

/// Tokens of configurations, in random order.
fn pieces() -> impl Strategy<Value = String> {
    const PIECES: &str = "[ ] [[ ]] { } \" ' \"\"\" = . , \\ \u{feff} é ${ } $ :- roadrunner ref github plugins gitlab \
                          repository owner folder replace replaces excludes old new velox build_args -ldflags -X \
                          '-tags' target_platform os arch token endpoint https:// @ :// 1 true v5.0.0 module_name tag \
                          log level a.b/c/v0 github.com/a/b/v2 .. / : - ? | > & &a *a << ! !!int # --- ... ~ null \t";
    let mut pieces: Vec<&str> = PIECES.split(' ').collect();
    pieces.extend([" ", "\n", "\r\n", "\n  ", ": ", "- "]);
    let piece = prop::sample::select(pieces);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A value for every key, valid or not.
fn valid_toml() -> impl Strategy<Value = String> {
    const KEYS: &str = "roadrunner.ref roadrunner.dependencies debug.enabled strict log log.level github.token.token \
                        gitlab.endpoint.endpoint github.base_url github.plugins.a.ref github.plugins.a.owner \
                        github.plugins.a.repository github.plugins.a.folder github.plugins.a.replace \
                        gitlab.plugins.b.repository gitlab.plugins.b.ref plugins.c.module_name plugins.c.tag \
                        target_platform.os target_platform.arch velox.build_args replaces excludes plugins \"é\"";
    let key = prop::sample::select(KEYS.split(' ').collect::<Vec<_>>());
    let text = prop_oneof![
        any::<String>(),
        "[-a-z0-9./@:$ {}é~\\\\]{0,12}",
        "-(ldflags|tags|p|gcflags)(=-[sXw] [a-z.=']{0,8})?"
    ];
    let string = text.prop_map(|text| toml_edit::Value::from(text).to_string());
    let value = prop_oneof![
        3 => string.clone(),
        1 => prop::collection::vec(string, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => Just("{}".to_owned()),
        1 => Just("[{}, {old = 'a.b/c', new = '.'}]".to_owned()),
    ];
    prop::collection::hash_map(key, value, 0..12)
        .prop_map(|lines| lines.iter().map(|(k, v)| format!("{k} = {v}\n")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text: String) {
        check(&text);
    }

    #[test]
    fn any_pieces(text in pieces()) {
        check(&text);
    }

    #[test]
    fn any_values(text in valid_toml()) {
        check(&text);
        let value: Result<serde_json::Value, _> = toml_edit::de::from_str(&text);
        if let Ok(value) = value {
            check(&value.to_string());
            check(&format!("{value:#}"));
        }
    }

    #[test]
    fn a_real_file_with_a_part_changed(modules: bool, at: Index, length in 0..9_usize, other in prop_oneof![any::<String>(), pieces()]) {
        let text = if modules { MODULES } else { MANUAL };
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.floor_char_boundary((start + length).min(text.len())).max(start);
        check(&format!("{}{other}{}", &text[..start], &text[end..]));
        let json = json(text);
        let start = json.floor_char_boundary(at.index(json.len()));
        let end = json.floor_char_boundary((start + length).min(json.len())).max(start);
        check(&format!("{}{other}{}", &json[..start], &json[end..]));
    }
}

#[test]
fn a_large_file_gets_few_messages() {
    let text: String = (0..20_000).map(|n| format!("key{n} = {n}\n")).collect();
    assert!(parse(&text, &[]).unwrap_err().len() <= 202);
    check(&"[".repeat(100_000));
    check(&format!("a = {}", "[".repeat(100_000)));
    check(&format!("{}=1", "a.".repeat(50_000)));
}
