//! What Velox read, and vx reads too: unknown keys, other types, letter case, empty values, the first format.

use crate::{parse, shown, valid};
use secrecy::ExposeSecret;
use velox_manifest::{
    DiagnosticKind, GoTarget, LogMode, Manifest, ManifestFormat, Origin,
    check::{can_be_token, with_v},
};

const PLUGIN: &str = "github.plugins.a = { ref = 'v1', owner = 'o', repository = 'r' }\n";

/// The manifest and the warnings of a text.
#[track_caller]
fn warned(text: &str, variables: &[(&str, &str)]) -> (Manifest, String) {
    match parse(text, variables) {
        Ok((manifest, warnings)) => {
            let warnings = shown(text, &warnings);
            (manifest, warnings)
        }
        Err(errors) => panic!("errors:\n{}", shown(text, &errors)),
    }
}

#[test]
fn unknown_keys_are_warnings() {
    let text = r#"[roadrunner]
ref = "v2025.1.15"

[build]
output = "rr"

[github.plugins.http]
ref = "v5.1.9"
owner = "roadrunner-server"
repository = "http"
docs_url = "https://docs.roadrunner.dev"
version = 5
url = "https://example.com"

[log]
encoding = "json"
"#;
    let (_, warnings) = warned(text, &[]);
    insta::assert_snapshot!(warnings);
    let (_, warnings) = parse(text, &[]).unwrap();
    assert!(warnings.iter().all(|warning| warning.kind == DiagnosticKind::UnknownKey));
    let modules = "[plugins.a]\nmodule_name = 'a.b/c'\ntag = 'v1'\ndescription = 'x'\npath = 'x'\n[[replaces]]\n\
                   old = 'a.b/d'\nnew = '../d'\nwhy = 'x'\n";
    assert_eq!(parse(modules, &[]).unwrap().1.len(), 3);
}

#[test]
fn misspelled_keys_are_errors() {
    for (line, meant) in [
        ("roadruner.ref = 'v1'", "roadrunner"),
        ("road-runner.ref = 'v1'", "roadrunner"),
        ("roadrunner.reff = 'v1'", "ref"),
        ("roadrunner.tag = 'v1'", "ref"),
        ("plugin.b.tag = 'v1'", "plugins"),
        ("replace = []", "replaces"),
        ("debug.enable = true", "enabled"),
        ("velox.buildargs = []", "build_args"),
        ("github.url = 'https://example.com'", "base_url"),
        ("targetplatform.os = 'linux'", "target_platform"),
    ] {
        let errors = parse(&format!("{line}\n{PLUGIN}"), &[]).unwrap_err();
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        assert!(errors[0].message.ends_with(&format!("; did you mean `{meant}`?")), "{}", errors[0].message);
    }
    let errors = parse("[plugins.a]\nmodul_name = 'a.b/c'\ntag = 'v1'", &[]).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn letter_case_does_not_matter() {
    let text = "[RoadRunner]\nRef = 'v1.2.3'\n[GitHub.Token]\nTOKEN = '$T'\n[GitHub.Plugins]\n\
                Logger = { Ref = 'v5.1.9', OWNER = 'o', Repository = 'logger' }\n[Debug]\nEnabled = true";
    let manifest = valid(text, &[("T", "a-token-1")]);
    assert_eq!(manifest.roadrunner.reference.unwrap().value, "v1.2.3");
    assert_eq!(manifest.plugins[0].name.value, "Logger");
    assert_eq!(manifest.github.token.unwrap().expose_secret(), "a-token-1");
    assert!(manifest.debug.enabled);
}

#[test]
fn empty_values_count_as_missing() {
    let text = "roadrunner.ref = ''\nlog = { level = '', mode = '' }\ndebug.enabled = ''\ntarget_platform.os = ''\n\
                github.base_url = ''\ngithub.token.token = ''\ngithub.endpoint.endpoint = ''\nvelox.build_args = ''\n\
                github.plugins.a = { ref = 'v1', owner = 'o', repository = 'r', folder = '', replace = '' }";
    let manifest = valid(text, &[]);
    assert_eq!(manifest.roadrunner.reference.unwrap().value, "master");
    assert!(manifest.log.level.is_none() && manifest.targets.is_empty() && manifest.github.token.is_none());
    assert!(manifest.plugins[0].replace.is_none());
    let errors = parse("github.plugins.a = { ref = '', owner = '', repository = '' }", &[]).unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    // Building the newest commit instead of nothing in particular would be a surprise.
    let errors = parse(&format!("roadrunner.ref = '$RR'\n{PLUGIN}"), &[("RR", "")]).unwrap_err();
    assert_eq!(errors[0].message, "`ref` is empty");
}

#[test]
fn values_of_another_type_are_read_with_a_warning() {
    let text = "[roadrunner]\nref = 2024\n[debug]\nenabled = \"true\"\nrace = 0\n[velox]\nbuild_args = \"-race,-tags=a\"\n\
                [github.plugins]\na = { ref = 1.10, owner = \"o\", repository = 7 }";
    let (manifest, warnings) = warned(text, &[]);
    assert_eq!(manifest.roadrunner.reference.unwrap().value, "2024");
    assert_eq!(manifest.plugins[0].reference.value, "1.10");
    assert!(manifest.debug.enabled && !manifest.debug.race && manifest.build_args.race);
    insta::assert_snapshot!(warnings);
}

#[test]
fn an_unknown_log_setting_is_a_warning() {
    for (mode, expected) in [
        ("dev", LogMode::Development),
        ("Production", LogMode::Production),
        ("development", LogMode::Development),
        ("raw", LogMode::Raw),
        ("none", LogMode::Off),
        ("off", LogMode::Off),
        ("json", LogMode::Development),
    ] {
        let (manifest, warnings) = warned(&format!("log.mode = '{mode}'\n{PLUGIN}"), &[]);
        assert_eq!(manifest.log.mode, Some(expected), "{mode}");
        assert_eq!(warnings.contains("invalid value"), matches!(mode, "dev" | "json"), "{warnings}");
    }
    let (_, warnings) = warned(&format!("log = {{ level = 'trace', mode = 'prod' }}\n{PLUGIN}"), &[]);
    insta::assert_snapshot!(warnings, @r"
    warning 1:17: invalid value `trace` for `level`
      ^ \'trace\'  <- read as `info`
      = possible values: debug, info, warn, warning, error, dpanic, panic, fatal
    warning 1:33: invalid value `prod` for `mode`; did you mean `production`?
      ^ \'prod\'  <- read as `development`
      = possible values: production, development, raw, off, none
    ");
}

#[test]
fn folders_with_slashes() {
    let folder = |folder: &str| {
        let text = format!(
            "github.plugins.a = {{ ref = 'v1', owner = 'o', repository = 'r', folder = '{folder}' }}"
        );
        match valid(&text, &[]).plugins.remove(0).origin {
            Origin::GitHub { folder, .. } => folder.map(|folder| folder.value),
            _ => None,
        }
    };
    for same in ["a/b", "/a/b", "//a//b/", "./a/b", "/./a/b/."] {
        assert_eq!(folder(same).as_deref(), Some("a/b"), "{same}");
    }
    for root in ["/", "", ".", "./", "//"] {
        assert_eq!(folder(root), None, "{root}");
    }
    for outside in ["/../b", "..", "a/../../b"] {
        let text = format!("{} ", PLUGIN.replace(" }", &format!(", folder = '{outside}' }}")));
        assert!(parse(&text, &[]).is_err(), "{outside}");
    }
}

#[test]
fn the_first_format() {
    let text = "[github_token]\ntoken = \"${T}\"\n[roadrunner]\nref = 'v2025.1.15'\n[plugins]\n\
                logger = { ref = 'v5.1.9', owner = 'roadrunner-server', repository = 'logger', folder = '/x' }\n";
    let manifest = valid(text, &[("T", "a-token-1")]);
    assert_eq!(manifest.format, ManifestFormat::First);
    assert!(manifest.github.token.is_some());
    assert!(matches!(&manifest.plugins[0].origin, Origin::GitHub { folder: Some(_), .. }));
    // One entry of the newest format, and the rest is a mistake in it.
    assert!(
        parse(
            "plugins.a = { ref = 'v1', owner = 'o' }\nplugins.b = { module_name = 'a.b/c', tag = 'v1' }",
            &[]
        )
        .is_err()
    );
}

#[test]
fn the_host_completes_a_target() {
    let host = GoTarget::host();
    let (manifest, warnings) = warned(&format!("target_platform.arch = 'amd64'\n{PLUGIN}"), &[]);
    assert_eq!((manifest.targets[0].value.os.as_str(), warnings.as_str()), (host.os.as_str(), ""));
    let (manifest, _) = warned(&format!("target_platform.os = 'linux'\n{PLUGIN}"), &[]);
    assert_eq!(manifest.targets[0].value.arch, host.arch);
}

#[test]
fn placeholders_count_as_unset() {
    for value in ["undefined", "", "null", "Undefined", "none"] {
        let text = format!(
            "github.token.token = '$RT_TOKEN'\n{PLUGIN}velox.build_args = ['-ldflags', '-X \
             github.com/roadrunner-server/roadrunner/v2025/internal/meta.version=$APP_VERSION']"
        );
        let manifest = valid(&text, &[("RT_TOKEN", value), ("APP_VERSION", value)]);
        assert!(manifest.github.token.is_none() && manifest.build_args.stamp_version.is_none(), "{value}");
        let text = format!("roadrunner.ref = '${{RR:-v1}}'\n{PLUGIN}");
        assert_eq!(valid(&text, &[("RR", value)]).roadrunner.reference.unwrap().value, "v1", "{value}");
    }
    let errors = parse(&format!("roadrunner.ref = '$RR'\n{PLUGIN}"), &[("RR", "undefined")]).unwrap_err();
    assert_eq!(errors[0].message, "environment variable `RR` is `undefined`, which counts as not set");
}

#[test]
fn only_what_can_be_a_token_is_redacted() {
    for word in ["x", "undefined", "roadrunner", "missing", "abc123", "hunter2"] {
        assert!(!can_be_token(word), "{word}");
    }
    for token in ["ghp_0123456789", "glpat-abcdefgh", "abcdefghijklmnopqrst", "0a1b2c3d"] {
        assert!(can_be_token(token), "{token}");
    }
}

#[test]
fn dollars_in_build_arguments() {
    let text =
        format!("velox.build_args = ['-ldflags', '-X main.a=$A -X main.b=${{A}}$$ -X main.c=5$']\n{PLUGIN}");
    let definitions = valid(&text, &[("A", "1")]).build_args.definitions;
    assert_eq!(definitions.into_values().collect::<Vec<_>>(), ["1", "1$", "5$"]);
    let errors = parse(&text, &[]).unwrap_err();
    assert_eq!(errors[0].message, "environment variable `A` is not set");
}

#[test]
fn a_version_without_its_v() {
    assert_eq!(with_v("5.2.0").as_deref(), Some("v5.2.0"));
    assert_eq!(with_v("5.2.0-rc.1").as_deref(), Some("v5.2.0-rc.1"));
    for other in ["v5.2.0", "5.2", "master", ""] {
        assert_eq!(with_v(other), None, "{other}");
    }
}
