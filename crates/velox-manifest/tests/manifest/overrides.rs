//! Command-line overrides of a manifest.

use crate::valid;

use velox_manifest::{Diagnostic, Manifest, ManifestOverrides, Origin, Replacement};

const MANUAL: &str = r#"
[roadrunner]
ref = "v2024.2.1"

[github.plugins]
http = { ref = "v5.0.2", owner = "Roadrunner-Server", repository = "http", replace = "../http" }
inner = { ref = "v1.0.0", owner = "acme", repository = "tools", folder = "plugins/inner" }

[gitlab.plugins]
far = { ref = "main", owner = "group/sub", repository = "far" }
"#;

const MODULES: &str = r#"
[roadrunner]
ref = "v2025.1.15"

[plugins.http]
module_name = "github.com/roadrunner-server/http/v5"
tag = "v5.3.0"

[[replaces]]
old = "github.com/roadrunner-server/http/v5"
new = "../http"
"#;

fn flags(with: &[&str], without: &[&str]) -> ManifestOverrides {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    ManifestOverrides::read(None, &list(with), &list(without), |_| Ok("example.com/me/mine".into())).unwrap()
}

/// A readable line for each plugin.
fn shown(manifest: &Manifest) -> Vec<String> {
    let plugins = manifest.plugins.iter().map(|plugin| {
        let from = match &plugin.origin {
            Origin::Module(path) => path.value.clone(),
            Origin::GitHub { owner, repository, .. } => format!("{}/{}", owner.value, repository.value),
            Origin::GitLab { .. } => "GitLab".to_owned(),
        };
        let replace = match plugin.replace.as_ref().map(|replace| &replace.value) {
            Some(Replacement::Directory(directory)) => format!(" => {directory}"),
            Some(Replacement::Module { path, version }) => format!(" => {path} {version:?}"),
            None => String::new(),
        };
        format!("{}: {from} {}{replace}", plugin.name.value, plugin.reference.value)
    });
    plugins.collect()
}

fn changed(text: &str, with: &[&str], without: &[&str]) -> Vec<String> {
    shown(&valid(text, &[]).changed_by(&flags(with, without)).unwrap())
}

const MODULE: &str = "inner: acme/tools v1.0.0";
const GITLAB: &str = "far: GitLab main";

#[test]
fn a_plugin_is_matched_by_its_module_in_every_format() {
    assert_eq!(
        changed(MANUAL, &["github.com/roadrunner-server/http/v5@v5.1.0"], &[]),
        ["http: Roadrunner-Server/http v5.1.0", MODULE, GITLAB],
        "the file's replacement would make the ref mean nothing"
    );
    assert_eq!(
        changed(MANUAL, &["github.com/roadrunner-server/http/v5=./mine"], &[]),
        ["http: Roadrunner-Server/http v5.0.2 => ./mine", MODULE, GITLAB]
    );
    assert_eq!(
        changed(MANUAL, &["github.com/roadrunner-server/http/v5"], &[]),
        ["http: Roadrunner-Server/http v5.0.2 => ../http", MODULE, GITLAB],
        "nothing else was asked for"
    );
    assert_eq!(
        changed(
            MANUAL,
            &["github.com/acme/tools/plugins/inner@v1.1.0", "gitlab.com/group/sub/far@v1.0.0"],
            &["http"]
        ),
        ["inner: acme/tools v1.1.0", "far: GitLab v1.0.0"]
    );
}

#[test]
fn another_major_replaces_the_first() {
    let now = valid(MODULES, &[]).changed_by(&flags(&["github.com/roadrunner-server/http/v6@v6.0.0"], &[]));
    let now = now.unwrap();
    assert_eq!(shown(&now), ["http: github.com/roadrunner-server/http/v6 v6.0.0"]);
    let now = valid(MODULES, &[]).changed_by(&flags(&["github.com/roadrunner-server/http/v5@v5.4.0"], &[]));
    assert!(now.unwrap().replaces.is_empty(), "its own replace would win over the ref");
}

#[test]
fn a_new_plugin_gets_a_name_that_is_free() {
    assert_eq!(
        changed(
            MODULES,
            &[
                "github.com/acme/http/v2@v2.0.0",
                "github.com/acme/mine=github.com/fork/mine@v1.0.0",
                "./here",
                "example.com/other/mine@main",
            ],
            &[]
        ),
        [
            "http: github.com/roadrunner-server/http/v5 v5.3.0",
            "acme-http: github.com/acme/http/v2 v2.0.0",
            "mine: github.com/acme/mine latest => github.com/fork/mine Some(\"v1.0.0\")",
            "me-mine: example.com/me/mine latest => ./here",
            "other-mine: example.com/other/mine main",
        ]
    );
}

#[test]
fn without_is_applied_before_with() {
    let with = ["example.com/fork/http@v1.0.0"];
    assert_eq!(changed(MODULES, &with, &["http"]), ["http: example.com/fork/http v1.0.0"]);
    assert_eq!(
        changed(MODULES, &with, &["github.com/roadrunner-server/http"]),
        ["http: example.com/fork/http v1.0.0"]
    );
}

#[test]
fn the_default_is_the_newest_roadrunner() {
    let mut flags = flags(&["example.com/acme/hello"], &[]);
    let of = |manifest: Manifest| manifest.roadrunner.reference.unwrap().value;
    assert_eq!(of(Manifest::without_a_file().changed_by(&flags).unwrap()), "latest");
    flags.roadrunner = Some("v2025.1.15".into());
    assert_eq!(of(Manifest::without_a_file().changed_by(&flags).unwrap()), "v2025.1.15");
    assert_eq!(of(valid(MODULES, &[]).changed_by(&flags).unwrap()), "v2025.1.15");
    assert!(Manifest::without_a_file().changed_by(&ManifestOverrides::default()).is_err());
}

#[test]
fn invalid_flags_are_errors() {
    let no_module = |_: &std::path::Path| Ok("module with spaces".to_owned());
    let texts = [
        "",
        "=",
        "@",
        "@=",
        "./",
        ".",
        "..",
        "=./x",
        "a=b=c",
        "example.com/a@",
        "example.com/a=",
        "example.com/a@v1.0.0=./x=y",
        "https://a:b@c.d/e",
        "\u{0}",
        "é.com/ü",
        "C:\\x",
    ];
    for text in texts {
        let read = ManifestOverrides::read(None, &[text.to_owned()], &[], no_module);
        // Only this one is valid: a directory name can contain `=`.
        let is_valid = text == "example.com/a@v1.0.0=./x=y";
        assert_eq!(read.is_ok(), is_valid, "{text:?}: {read:?}");
        let errors = read.err().unwrap_or_default();
        assert!(
            errors.iter().all(|Diagnostic { span, message, .. }| span.is_none() && !message.contains("a:b"))
        );
    }
}
