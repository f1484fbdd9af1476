//! The diagnostics of invalid configurations.

use crate::{parse, shown};

/// The diagnostics of each configuration, in one snapshot.
#[track_caller]
fn diagnostics(name: &str, configurations: impl IntoIterator<Item = impl AsRef<str>>) {
    let answers: Vec<_> = configurations
        .into_iter()
        .map(|text| (text.as_ref().to_owned(), parse(text.as_ref(), &[("LEAK", "hunter2")])))
        .map(|(text, result)| match result {
            Ok((_, warnings)) => format!("{text}\n--\nACCEPTED\n{}", shown(&text, &warnings)),
            Err(errors) => format!("{text}\n--\n{}", shown(&text, &errors)),
        })
        .collect();
    let answers = answers.join("\n\n========\n");
    assert!(!answers.contains("ACCEPTED"), "{answers}");
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, answers) });
}

/// A valid plugin for each value of `key`.
fn github(key: &str, values: &[&str]) -> Vec<String> {
    let plugin = |value: &str| {
        let mut keys = vec![("ref", "'v1'"), ("owner", "'o'"), ("repository", "'r'")];
        keys.retain(|(name, _)| *name != key);
        keys.push((key, value));
        let keys: Vec<_> = keys.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        format!("github.plugins.a = {{ {} }}", keys.join(", "))
    };
    values.iter().map(|value| plugin(value)).collect()
}

fn with_module(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .map(|line| format!("plugins.a = {{ module_name = 'a.b/c', tag = 'v1.0.0' }}\n{line}"))
        .collect()
}

#[test]
fn refs() {
    let values = [
        "'.lock'",
        "'a.lock/b'",
        "'a@{1}'",
        "'a b'",
        "'a~1'",
        "'/a'",
        "'a/'",
        "'a.'",
        "'@'",
        "\"a\\u0007\"",
        "'a\\b'",
        "'-a'",
        "['a']",
    ];
    diagnostics("refs", github("ref", &values));
}

#[test]
fn owners_repositories_and_folders() {
    let mut texts = github("owner", &["'ö'", "'.'", "''"]);
    texts
        .extend(github("repository", &["'r.git'", "'https://user:hunter2@github.com/o/r'", "'o/r'", "true"]));
    texts.extend(github("folder", &["'a/../b'", "'C:/a'", "'a\\b'"]));
    diagnostics("owners_repositories_and_folders", texts);
}

#[test]
fn replacements() {
    let values =
        ["'http'", "'~/http'", "'https://github.com/a/b'", "'github.com/a/b@'", "'github.com/a/b v1 v2'"];
    diagnostics("replacements", github("replace", &values));
}

#[test]
fn gitlab_projects() {
    let plugin = |rest: &str| format!("gitlab.plugins.a = {{ ref = 'main', {rest} }}");
    let rest = [
        "repository = 'r'",
        "owner = 'o'",
        "repository = 0",
        "repository = '99999999999999999999'",
        "repository = '/a/b'",
        "repository = 'a/../b'",
    ];
    diagnostics("gitlab_projects", rest.map(plugin));
}

#[test]
fn modules() {
    let plugin = |rest: &str| format!("plugins.a = {{ {rest} }}");
    let rest = [
        "module_name = 'http', tag = 'v1'",
        "module_name = 'a.b/c@v1', tag = 'v1'",
        "module_name = 'a.b/c/v1', tag = 'v1'",
        "module_name = 'a.b/c', tag = 'v2.0.0'",
        "module_name = 'a.b/c/v5', tag = 'v1.0.0'",
        "module_name = 'a.b/c/', tag = 'v1'",
        "module_name = 'https://x:hunter2@a.b/c.git', tag = 'v1'",
        "module_name = 'a.b/c', ref = 'v1'",
        "module_name = 'a.b/c', owner = 'o', ref = 'v1'",
    ];
    diagnostics("modules", rest.map(plugin));
}

#[test]
fn endpoints_and_tokens_never_show_a_secret() {
    let texts = with_module(&[
        "github.base_url = 'ftp://example.com'",
        "github.base_url = 'https://user:hunter2@example.com'",
        "github.base_url = 'https://user:hunter2/x@example.com'",
        "github.base_url = 'https://example.com?private_token=hunter2'",
        "github = { base_url = 'https://a.example', endpoint.endpoint = 'https://b.example' }",
        "github.endpoint.endpoint = '${NO_ENDPOINT}'",
        "github.token = 'hunter2'",
        "github.token = { token = 'hunter2', tokn = 'hunter2' }",
        "github.token.token = 1234",
        "github.token.token = hunter2",
        "github.token.token = '${LEAK} hunter2'",
        "github.token.token = '${NAME:-hunter2'",
    ]);
    diagnostics("endpoints_and_tokens_never_show_a_secret", &texts);
    let output: String = texts
        .iter()
        .map(|text| shown(text, &parse(text, &[("LEAK", "hunter2")]).err().unwrap_or_default()))
        .collect();
    assert!(!output.contains("hunter2"), "{output}");
}

#[test]
fn replaces_excludes_and_targets() {
    let texts = with_module(&[
        "replaces = [{ old = 'a.b/c' }, { new = '.' }, 1]",
        "replaces = [{ old = 'a.b/c' }, { new = '.', olt = 'x' }]",
        "[[replaces]]\nold = 'a.b/x@v2.0.0'\nnew = '../x'",
        "[[replaces]]\nold = 'a.b/x'\nnew = '../x'\n[[replaces]]\nold = 'a.b/x'\nnew = '../y'",
        "[[excludes]]\nmodule = 'a.b/x'\nversion = 'v1'",
        "[[excludes]]\nmodule = 'a.b/x'\nversion = 'v3.0.0'",
        "target_platform = { os = 'macos', arch = 'x86_64' }",
        "target_platform = { os = 'macos', arch = '' }",
        "target_platform = { os = 'linux', arch = 'x86_64' }",
        "targets = [{ arch = 'amd64' }]",
        "[[excludes]]\nmodule = 'a.b/x'\nversion = '1.2.3'",
        "[[replaces]]\nold = 'a.b/x@1.2.3'\nnew = '../x'",
    ]);
    diagnostics("replaces_excludes_and_targets", texts);
}

#[test]
fn build_arguments() {
    let arguments = |list: &str| {
        format!(
            "velox.build_args = [{list}]\ngithub.plugins.a = {{ ref = 'v1', owner = 'o', repository = 'r' }}"
        )
    };
    let lists = [
        "'-toolexec', '/bin/sh', '-overlay=x', '-exec', 'sh', '-o', 'rr', '-C=/', '-mod=mod', '-modfile', 'x'",
        "'-ldflags=-s -extldflags=-Wl,x -linkmode external'",
        "'-ldflags', \"-X 'a.b=c\"",
        "'-ldflags', '-X a'",
        "'-ldflags'",
        "'-tag=x', '-tags=a;b', '-p', '0'",
        "'-gcflags=-N -importcfg=x'",
        "'-trimpath=false', '-buildvcs', '-trimpath -race', './cmd'",
        "'-ldflags=-X main.name=${UNSET}'",
        "1",
    ];
    diagnostics("build_arguments", lists.map(arguments));
}

#[test]
fn syntax_and_structure() {
    diagnostics(
        "syntax_and_structure",
        [
            "[github.plugins]\na = { replace = \"C:\\work\\http\" }",
            "[github.plugins]\na = { replace = \"..\\users\\http\" }",
            "github = 1\nplugins = 2\nreplaces = 3\nlog = []\nvelox = true",
            "\u{feff}[roadrunner]\r\nrf = 'é'\r\ndependencies = 'releas'\r\n",
            "[plugins]\n[log]\nmode = 'prod'\nstrict = true",
            "[log]\nlevel = 'info'\nlevel = 'warn'\n[github.plugins]\na = { ref = 'v1', ref = 'v2' }\n[log]\nmode = 'raw'",
            "[roadrunner]\nref = 'v1'\nRef = 'v2'",
            "[gitlab.plugins]\n[plugins.a]\nmodule_name = 'a.b/c'\ntag = 'v1'",
            "[github.plugins]\na = { ref = 'v1', owner = 'O', repository = 'R', folder = 'x' }\nb = { ref = 'v1', owner = 'o', repository = 'r', folder = './x/' }\nc = { ref = 'v1', owner = 'o', repository = 'r' }",
            "[roadrunner]\nref = '${A-B}'\n[plugins]",
        ],
    );
}

#[test]
fn a_token_in_place_of_a_ref_is_not_shown() {
    let token = "ghp_0123456789abcdefghij";
    let text = "[github.token]\ntoken = \"${TOKEN}\"\n[github.plugins]\n\
                http = { ref = \"${TOKEN}\", owner = \"o\", repository = \"http\" }\n\
                rpc = { ref = \"v1 ${TOKEN}\", owner = \"o\", repository = \"rpc\" }\n\
                kv = { ref = \"v1\", owner = \"o ${TOKEN}\", repository = \"kv\" }\n";
    let errors = parse(text, &[("TOKEN", token)]).unwrap_err();
    let output = shown(text, &errors);
    assert!(!output.contains(token), "{output}");
    assert!(output.contains("has a token, not a version"), "{output}");
    assert!(output.contains("[redacted]"), "{output}");
    // A short placeholder token occurs in many words.
    let text = text.replace("\"v1 ${TOKEN}", "\"v1x").replace("\"o ${TOKEN}", "\"ox");
    let text = text.replace("ref = \"${TOKEN}", "ref = \"x1");
    parse(&text, &[("TOKEN", "x")]).unwrap();
}
