//! Versions, paths and go.mod compared with golang.org/x/mod on generated input.

use std::cmp::Ordering;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use velox_gomod::{
    modfile::{self, GoMod},
    module::{self, ModuleVersion},
    pseudo, semver,
};
use velox_testkit::GoOracle;

/// Deterministic samples.
fn samples<T>(count: usize, strategy: impl Strategy<Value = T>) -> Vec<T> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn version() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => r"v[0-9]{1,2}(\.[0-9]{1,2}(\.[0-9]{1,2}(-[a-z0-9.-]{1,6})?(\+(incompatible|[a-z0-9.]{1,5}))?)?)?",
        2 => r"v[0-3]\.[0-9]\.[0-9]{1,2}-([a-z]{2}\.)?0\.[0-9]{14}-[0-9a-f]{12}(\+incompatible)?",
        1 => r"v[0-3]\.0\.0-20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|2[0-8])(1[0-9]|2[0-3])[0-5][0-9][0-5][0-9]-[0-9a-f]{12}",
        1 => r"[v0-9.+a-c-]{0,10}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => r"(github\.com|Gitlab\.com|example|a\.b)/[A-Za-z0-9._~-]{1,8}(/[A-Za-z0-9._~!+-]{1,6}){0,2}(/v[0-9]{1,2})?",
        1 => r"gopkg\.in/[a-z]{1,5}(\.v[0-9]{0,2})?(-unstable)?",
        1 => r"[a-zA-Z0-9./~!é \\:-]{0,14}",
        1 => r"a\.b/(con|AUX|com1|nul\.x|x~1|x~1\.go|\.\.|\.x|x\.)(/y)?",
    ]
}

fn go_mod() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => r"require (a\.b/c|a\.b/d/v2|gopkg\.in/x\.v1) v[0-2]\.[0-9]\.[0-9](-pre)?( // (indirect|indirect; x|other))?",
        2 => r#"require \(\n\t"?a\.b/c"? v1\.2\.3( // indirect)?\n(// c\n)?\ta\.b/e v0\.1\n\)"#,
        1 => r"exclude a\.b/c v[01]\.0\.0",
        2 => r"replace a\.b/c( v1\.0\.0)? => (\.\./x|\./y|/z|a\.b/f v1\.0\.0|a\.b/f|a\.b/f@v1\.0\.0)( v1)?",
        1 => r"retract (v1\.0\.0|\[v1\.0\.0, v1\.1\.0\]|\[v1\.0\.0\])",
        1 => r"go (1\.2[0-9](\.[0-9])?|1\.21rc1|1|x|v1\.18|1\.18\.x)",
        1 => r"toolchain (go1\.2[0-9]|default|x)",
        1 => r"(future|tool|ignore|godebug) (x|x=y)",
        1 => r"future \(\n\tx\n\)",
        1 => r#"[a-z" ()/,=>\[\]`\t-]{0,12}"#,
    ];
    ("(module (a\\.b/m|\"a.b/m/v2\"|`x`)( // note)?\n)?", prop::collection::vec(line, 0..5))
        .prop_map(|(module, lines)| format!("{module}{}\n", lines.join("\n")))
}

/// The oracle's result, null for an error.
fn ask(oracle: &GoOracle, operation: &str, arguments: &[&str]) -> Value {
    oracle.ask(operation, arguments).unwrap_or(Value::Null)
}

fn parts(file: Option<GoMod>) -> Value {
    let Some(file) = file else { return Value::Null };
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let mut lines = Vec::new();
    for line in &file.require {
        lines.push(format!(
            "require {} {}{}",
            line.path,
            line.version,
            if line.indirect { " indirect" } else { "" }
        ));
    }
    lines.extend(file.exclude.iter().map(|line| format!("exclude {} {}", line.path, line.version)));
    lines.extend(file.replace.iter().map(|line| {
        format!(
            "replace {} {} => {} {}",
            line.old_path,
            version(&line.old_version),
            line.new_path,
            version(&line.new_version)
        )
    }));
    lines.extend(file.retract.iter().map(|line| format!("retract {} {}", line.low, line.high)));
    json!({
        "module": version(&file.module), "go": version(&file.go), "toolchain": version(&file.toolchain), "lines": lines
    })
}

#[test]
fn versions() {
    let Some(oracle) = GoOracle::get() else { return };
    let all = samples(1500, version());
    for v in &all {
        let text = |answer: Option<String>| json!(answer.unwrap_or_default());
        assert_eq!(text(semver::canonical(v)), ask(oracle, "semver.canonical", &[v]), "{v:?}");
        assert_eq!(text(semver::major(v).map(Into::into)), ask(oracle, "semver.major", &[v]), "{v:?}");
        assert_eq!(
            text(semver::prerelease(v).map(Into::into)),
            ask(oracle, "semver.prerelease", &[v]),
            "{v:?}"
        );
        assert_eq!(text(semver::build(v).map(Into::into)), ask(oracle, "semver.build", &[v]), "{v:?}");
        assert_eq!(json!(module::canonical_version(v)), ask(oracle, "module.canonical", &[v]), "{v:?}");
        assert_eq!(json!(module::escape_version(v).ok()), ask(oracle, "module.escapeversion", &[v]), "{v:?}");
        assert_eq!(
            json!(module::unescape_version(v).ok()),
            ask(oracle, "module.unescapeversion", &[v]),
            "{v:?}"
        );
        assert_eq!(json!(pseudo::is_pseudo_version(v)), ask(oracle, "pseudo.is", &[v]), "{v:?}");
        assert_eq!(json!(pseudo::base(v)), ask(oracle, "pseudo.base", &[v]), "{v:?}");
        assert_eq!(json!(pseudo::revision(v)), ask(oracle, "pseudo.rev", &[v]), "{v:?}");
        assert_eq!(json!(pseudo::time(v)), ask(oracle, "pseudo.time", &[v]), "{v:?}");
        let made = pseudo::pseudo_version("", v, 1_700_000_000, "abcdefabcdef");
        let expected = ask(oracle, "pseudo.make", &["", v, "2023-11-14T22:13:20Z", "abcdefabcdef"]);
        assert_eq!(json!(made), expected, "{v:?}");
    }
    for pair in all.windows(2) {
        let ours = match semver::compare(&pair[0], &pair[1]) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        };
        assert_eq!(json!(ours), ask(oracle, "semver.compare", &[&pair[0], &pair[1]]), "{pair:?}");
    }
}

#[test]
fn paths() {
    let Some(oracle) = GoOracle::get() else { return };
    let versions = samples(1500, version());
    for (p, v) in samples(1500, path()).iter().zip(&versions) {
        assert_eq!(json!(module::check_path(p).is_ok()), ask(oracle, "module.checkpath", &[p]), "{p:?}");
        assert_eq!(json!(module::check_file_path(p).is_ok()), ask(oracle, "module.checkfile", &[p]), "{p:?}");
        assert_eq!(json!(module::check(p, v).is_ok()), ask(oracle, "module.check", &[p, v]), "{p:?} {v:?}");
        assert_eq!(json!(module::escape_path(p).ok()), ask(oracle, "module.escape", &[p]), "{p:?}");
        assert_eq!(json!(module::unescape_path(p).ok()), ask(oracle, "module.unescape", &[p]), "{p:?}");
        let split = module::split_path_version(p);
        assert_eq!(json!(split.map(|(a, b)| [a, b])), ask(oracle, "module.split", &[p]), "{p:?}");
        let suffix = split.map_or("", |(_, suffix)| suffix);
        assert_eq!(
            json!(module::path_major_matches(v, suffix)),
            ask(oracle, "module.major", &[v, suffix]),
            "{v:?} {suffix:?}"
        );
    }
    let globs = samples(600, r"([a-c*?/.]|\[a-b\]|\[\^a\]|\[|\\a|,){0,8}");
    for (glob, target) in globs.iter().zip(samples(600, "[a-c/.]{0,7}")) {
        let ours = module::match_prefix_patterns(glob, &target);
        assert_eq!(json!(ours), ask(oracle, "module.match", &[glob, &target]), "{glob:?} {target:?}");
    }
    for chunk in versions.chunks(12) {
        let mut list: Vec<ModuleVersion> = chunk
            .iter()
            .filter(|v| semver::is_valid(v) && !v.contains('+'))
            .enumerate()
            .map(|(index, v)| {
                let version = if index % 3 == 0 { format!("{v}/go.mod") } else { v.clone() };
                ModuleVersion { path: ["a.b/c", "a.b/d"][index % 2].to_owned(), version }
            })
            .collect();
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        list.sort();
        list.dedup_by(|a, b| semver::compare(&a.version, &b.version).is_eq() && a.path == b.path && a == b);
        let sorted = ask(oracle, "module.sort", &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let ours: Vec<String> = list.iter().map(ToString::to_string).collect();
        // Short and long forms of a version (v1, v1.0.0) compare equal in Go, so their order is unspecified.
        if chunk.iter().all(|v| semver::canonical(v).as_ref() == Some(v)) {
            assert_eq!(json!(ours), sorted);
        }
    }
}

#[test]
fn go_mod_files() {
    let Some(oracle) = GoOracle::get() else { return };
    let (mut accepted, mut refused) = (0, 0);
    for text in samples(3000, go_mod()) {
        let file = GoMod::parse(&text).ok();
        assert_eq!(parts(file.clone()), ask(oracle, "modfile.parse", &[&text]), "strict: {text:?}");
        assert_eq!(
            parts(GoMod::parse_lax(&text).ok()),
            ask(oracle, "modfile.lax", &[&text]),
            "lax: {text:?}"
        );
        let path = modfile::module_line(&text).unwrap_or_default();
        assert_eq!(json!(path), ask(oracle, "modfile.path", &[&text]), "path: {text:?}");
        let Some(file) = file else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let printed = file.to_string();
        // Printing sorts direct requirements before indirect ones.
        let sorted = |mut parts: Value| {
            if let Some(lines) = parts["lines"].as_array_mut() {
                lines.sort_by_key(ToString::to_string);
            }
            parts
        };
        let read_back = ask(oracle, "modfile.parse", &[&printed]);
        assert_eq!(sorted(read_back), sorted(parts(Some(file))), "printed: {printed:?}");
        if !printed.is_empty() {
            assert_eq!(json!(printed), ask(oracle, "modfile.format", &[&printed]), "formatted: {printed:?}");
        }
    }
    assert!(accepted > 300 && refused > 300, "{accepted} accepted, {refused} refused");
}

proptest! {
    #[test]
    fn nothing_panics(text in any::<String>(), other in any::<String>()) {
        let _ = (semver::canonical(&text), semver::compare(&text, &other), pseudo::base(&text), pseudo::time(&text));
        let _ = (module::check(&text, &other), module::escape_path(&text), module::unescape_path(&text));
        let _ = (module::split_path_version(&text), module::match_prefix_patterns(&text, &other));
        let _ = (module::canonical_version(&text), module::escape_version(&text), module::path_major_matches(&text, &other));
        let _ = (GoMod::parse(&text), GoMod::parse_lax(&text), modfile::module_line(&text));
        let _ = velox_gomod::gosum::GoSum::parse(&text);
    }
}
