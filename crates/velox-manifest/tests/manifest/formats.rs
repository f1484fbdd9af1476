//! Parsing of the three formats.

use crate::{MANUAL, MODULES, valid};
use secrecy::ExposeSecret;
use velox_manifest::{
    Dependencies, GoTarget, LogLevel, LogMode, ManifestFormat, Origin, Plugin, Project, Replacement,
    SourceFile, parse_target,
};

/// `owner/repository//folder @ ref`, or another origin.
fn line(plugin: &Plugin) -> String {
    let inner = |folder: &Option<velox_manifest::Spanned<String>>| {
        folder.as_ref().map_or_else(String::new, |folder| format!("//{}", folder.value))
    };
    let origin = match &plugin.origin {
        Origin::Module(path) => path.value.clone(),
        Origin::GitHub { owner, repository, folder } => {
            format!("github {}/{}{}", owner.value, repository.value, inner(folder))
        }
        Origin::GitLab { project, folder } => match &project.value {
            Project::Id(id) => format!("gitlab #{id}{}", inner(folder)),
            Project::Path(path) => format!("gitlab {path}{}", inner(folder)),
        },
    };
    let replace =
        plugin.replace.as_ref().map_or_else(String::new, |replace| format!(" => {:?}", replace.value));
    format!("{} = {origin} @ {}{replace}", plugin.name.value, plugin.reference.value)
}

fn lines(plugins: &[Plugin]) -> String {
    plugins.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn with_plugin(text: &str) -> String {
    format!(
        "{text}\n[github.plugins]\nhttp = {{ ref = \"v5.0.2\", owner = \"roadrunner-server\", repository = \"http\" }}\n"
    )
}

#[test]
fn the_manuals_whole_example() {
    let manifest = valid(MANUAL, &[("RT_TOKEN", "hub-secret"), ("GL_TOKEN", "lab-secret")]);
    assert_eq!(manifest.format, ManifestFormat::Manual);
    let reference = manifest.roadrunner.reference.as_ref().unwrap();
    assert_eq!(
        (reference.value.as_str(), &MANUAL[reference.span.clone().unwrap()]),
        ("master", "\"master\"")
    );
    assert!(manifest.debug.enabled && !manifest.debug.race && !manifest.strict);
    assert_eq!(manifest.github.token.as_ref().unwrap().expose_secret(), "hub-secret");
    assert_eq!(manifest.gitlab.token.as_ref().unwrap().expose_secret(), "lab-secret");
    assert!(manifest.github.endpoint.is_none() && manifest.gitlab.endpoint.is_none());
    assert_eq!((manifest.log.level, manifest.log.mode), (Some(LogLevel::Info), Some(LogMode::Production)));
    assert!(manifest.targets.is_empty() && manifest.replaces.is_empty() && manifest.excludes.is_empty());
    assert_eq!(manifest.plugins.iter().filter(|p| matches!(p.origin, Origin::GitHub { .. })).count(), 32);
    assert_eq!(manifest.plugins.iter().filter(|p| matches!(p.origin, Origin::GitLab { .. })).count(), 2);
    insta::assert_snapshot!(lines(&manifest.plugins));

    let debug = format!("{manifest:?}");
    assert!(!debug.contains("hub-secret") && !debug.contains("lab-secret"), "{debug}");
}

#[test]
fn tokens_may_be_missing_or_empty() {
    let manifest = valid(MANUAL, &[("RT_TOKEN", " \n")]);
    assert!(manifest.github.token.is_none() && manifest.gitlab.token.is_none());
}

#[test]
fn the_ancestor() {
    const STAMP: &str = "github.com/roadrunner-server/roadrunner/v2023/internal/meta";
    let text = with_plugin(&format!(
        "[velox]\nbuild_args = ['-trimpath', '-ldflags', '-s -X {STAMP}.version=${{VERSION}} -X {STAMP}.buildTime=${{TIME}}']\n"
    ));
    let manifest = valid(&text, &[]);
    assert_eq!(manifest.format, ManifestFormat::Ancestor);
    let arguments = manifest.build_args;
    assert_eq!((arguments.stamp_version, arguments.stamp_time, arguments.strip), (None, None, Some(true)));
    assert!(arguments.flags.is_empty() && arguments.definitions.is_empty());
}

#[test]
fn all_supported_build_arguments() {
    const META: &str = "github.com/roadrunner-server/roadrunner/internal/meta";
    let text = with_plugin(&format!(
        r#"[velox]
build_args = ["-v", "-race", "-buildvcs=false", "-p", "4", "-tags=a,b", "--tags", "b c", "-gcflags=all=-N -l", "-asmflags", "-l",
  """-ldflags=-w -s=false -X {META}.version=v${{MAJOR}}.0 -X={META}.buildTime=now '-X' 'main.title=it is "${{NAME}}"'""" ]
"#
    ));
    let manifest = valid(&text, &[("MAJOR", "9"), ("NAME", "x -extld=sh")]);
    insta::assert_debug_snapshot!(manifest.build_args);
}

#[test]
fn modules_of_a_real_configuration() {
    let manifest = valid(MODULES, &[]);
    assert_eq!((manifest.format, manifest.plugins.len()), (ManifestFormat::Modules, 35));
    assert_eq!(line(&manifest.plugins[0]), "amqp = github.com/roadrunner-server/amqp/v5 @ v5.2.3");
}

#[test]
fn everything_in_the_newest_format() {
    let manifest = valid(
        r#"
strict = true
roadrunner = { ref = "feature/x", dependencies = "minimal" }
github.base_url = "https://ghe.example.com:8443/sub/"
github.token.token = "${TOKEN}"
log = { level = "WARN", mode = "none" }

[target_platform]
os = "${GOOS:-windows}"
arch = "arm64"

[plugins.http]
module_name = "github.com/roadrunner-server/http/v5"
tag = "latest"
replace = "github.com/acme/http v5.0.1-fork"
[plugins."my logger"]
module_name = "git.example.com/group/logger"
tag = "0123abc"

[[replaces]]
old = "github.com/foo/bar@v1.2.3"
new = "github.com/me/bar@v1.2.4"
[[replaces]]
old = "github.com/foo/baz"
new = 'C:\work\baz'

[[excludes]]
module = "github.com/redis/go-redis/v9"
version = "v9.15.0"
"#,
        &[("TOKEN", "secret\n")],
    );
    assert!(manifest.strict);
    assert_eq!(manifest.roadrunner.dependencies, Some(Dependencies::Minimal));
    assert_eq!(manifest.github.endpoint.unwrap().value.as_str(), "https://ghe.example.com:8443/sub");
    assert_eq!(manifest.github.token.unwrap().expose_secret(), "secret");
    assert_eq!((manifest.log.level, manifest.log.mode), (Some(LogLevel::Warn), Some(LogMode::Off)));
    let target = manifest.targets[0].value.clone();
    assert_eq!((target.os.as_str(), target.arch.as_str()), ("windows", "arm64"));
    let replaces: Vec<_> = manifest.replaces.iter().map(|r| (&r.old.value, &r.new.value)).collect();
    let excludes: Vec<_> = manifest.excludes.iter().map(|e| (&e.module.value, &e.version.value)).collect();
    insta::assert_snapshot!(format!("{}\n{replaces:#?}\n{excludes:?}", lines(&manifest.plugins)));
}

#[test]
fn the_newest_format_keeps_the_build_arguments_of_an_older_one() {
    let manifest =
        valid("[velox]\nbuild_args = ['-tags=aws']\n[plugins.a]\nmodule_name = 'a.b/c'\ntag = 'v1'", &[]);
    assert_eq!(
        (manifest.format, manifest.build_args.tags),
        (ManifestFormat::Modules, vec!["aws".to_owned()])
    );
}

#[test]
fn inline_tables_dotted_keys_and_headers_are_equivalent() {
    let inline = "[github.plugins]\nhttp = { ref = \"v1\", owner = \"o\", repository = \"r\", folder = \"./a//b/\" }\n";
    let dotted = "github.plugins.http.ref = \"v1\"\ngithub.plugins.http.owner = \"o\"\ngithub.plugins.http.repository = \"r\"\n\
                  github.plugins.http.folder = \"a/b\"\n";
    let header = "[github.plugins.http]\nref = \"v1\"\nowner = 'o'\nrepository = \"r\"\nfolder = \"a/b/.\"\n";
    for text in [inline, dotted, header] {
        assert_eq!(lines(&valid(text, &[]).plugins), "http = github o/r//a/b @ v1");
    }
}

#[test]
fn gitlab_projects_and_endpoints() {
    let manifest = valid(
        r#"
[gitlab.plugins]
id = { ref = "main", repository = "36405203" }
number = { ref = "main", owner = "ignored", repository = 7 }
path = { ref = "main", repository = "group/sub/project" }
both = { ref = "main", owner = "group/sub", repository = "other" }
[gitlab.endpoint]
endpoint = "http://127.0.0.1:8080/gitlab"
[github.endpoint]
endpoint = "https://api.github.com/"
"#,
        &[],
    );
    assert_eq!(
        lines(&manifest.plugins),
        "id = gitlab #36405203 @ main\nnumber = gitlab #7 @ main\npath = gitlab group/sub/project @ main\n\
         both = gitlab group/sub/other @ main"
    );
    assert_eq!(manifest.gitlab.endpoint.unwrap().value.as_str(), "http://127.0.0.1:8080/gitlab");
    assert!(manifest.github.endpoint.is_none());
}

#[test]
fn replacements() {
    let read = |replace: &str| {
        let text = with_plugin("")
            .replace("repository = \"http\"", &format!("repository = \"http\", replace = '{replace}'"));
        valid(&text, &[("HOME", "/home/me")]).plugins.remove(0).replace.unwrap().value
    };
    for directory in [
        "../http",
        "./http",
        "/srv/http",
        "C:\\http",
        "C:/http",
        "..\\http",
        ".",
        "..",
        "../a@b",
        "./a@v1.2.3",
    ] {
        assert_eq!(read(directory), Replacement::Directory(directory.into()));
    }
    assert_eq!(read("${HOME}/http"), Replacement::Directory("/home/me/http".into()));
    let module = |version: Option<&str>| Replacement::Module {
        path: "github.com/owner2/repo2".into(),
        version: version.map(str::to_owned),
    };
    assert_eq!(read("github.com/owner2/repo2"), module(None));
    assert_eq!(read("github.com/owner2/repo2@v1.2.3"), module(Some("v1.2.3")));
    assert_eq!(read("github.com/owner2/repo2  my-branch"), module(Some("my-branch")));
}

#[test]
fn variables() {
    let reference = |text: &str| {
        let text = with_plugin("").replace("v5.0.2", text);
        let variables = [("MAJOR", "v5"), ("EMPTY", ""), ("DOLLAR", "${MAJOR}")];
        valid(&text, &variables).plugins.remove(0).reference.value
    };
    assert_eq!(reference("${MAJOR}.1"), "v5.1");
    assert_eq!(reference("${UNSET:-v4}${EMPTY}"), "v4");
    assert_eq!(reference("${EMPTY:-v3}"), "v3");
    assert_eq!(reference("$MAJOR.${MAJOR}-$MAJOR"), "v5.v5-v5");
    assert_eq!(reference("a$$b$1$-c$"), "a$b$1$-c$");
    assert_eq!(reference("$${MAJOR").as_str(), "${MAJOR");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let text = format!("\u{feff}{}", MANUAL.replace('\n', "\r\n"));
    let manifest = valid(&text, &[]);
    assert_eq!(manifest.plugins.len(), 34);
    for plugin in &manifest.plugins {
        assert_eq!(&text[plugin.name.span.clone().unwrap()], plugin.name.value);
        assert_eq!(&text[plugin.reference.span.clone().unwrap()], format!("\"{}\"", plugin.reference.value));
    }
}

#[test]
fn targets_are_checked() {
    assert_eq!(parse_target("linux/arm64"), Ok(GoTarget { os: "linux".into(), arch: "arm64".into() }));
    assert_eq!(
        parse_target("linus/arm64").unwrap_err(),
        "unknown operating system `linus`; did you mean `linux`?"
    );
    assert_eq!(
        parse_target("darwin/s390x").unwrap_err(),
        "unknown architecture for darwin `s390x`; supported: amd64, arm64"
    );
    assert!(parse_target("linux").is_err());
}

#[test]
fn columns_count_characters() {
    let source = SourceFile { name: "velox.toml".into(), text: "é = 1\nö = 2".into() };
    assert_eq!(source.line_column(0), (1, 1));
    assert_eq!(source.line_column(2), (1, 2));
    assert_eq!(source.line_column(7), (2, 1));
    assert_eq!(source.line_column(8), (2, 1));
    assert_eq!(source.line_column(99), (2, 6));
}
