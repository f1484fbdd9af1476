//! A server from flags: `--with`, `--without`, `--roadrunner`, with and without a velox.toml.

use std::fs;

use crate::support::sandbox::Sandbox;
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

const RELEASE: &str = "v2025.0.77";
/// The plugin of [`mine`], as the build information names it.
const MINE: &str = "example.com/me/mine => ./replace/example.com_me_mine (devel)";

/// A small RoadRunner, two plugins at two versions each, and a fork of the first.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE).roadrunner("v2025.0.78");
    for name in ["hello", "bye"] {
        let module = format!("example.com/acme/{name}");
        for version in ["v1.0.0", "v1.1.0"] {
            let says = format!("{name} {version}");
            proxy.module(&module, version, plugin(&module, name).says(&says).files());
        }
    }
    let fork = plugin("example.com/acme/hello", "hello").says("a fork");
    proxy.module("example.com/other/hello", "v1.2.0", fork.files());
    proxy.query("example.com/acme/bye", "main", "v1.0.0");
    proxy
}

fn machine(proxy: &ModuleProxy) -> Sandbox {
    Sandbox::new().own_module_cache().proxy(&proxy.url())
}

/// A plugin in a directory of the user's.
fn mine(sandbox: Sandbox, directory: &str) -> Sandbox {
    let files = plugin("example.com/me/mine", "mine").says("mine").files();
    files
        .into_iter()
        .fold(sandbox, |sandbox, (name, text)| sandbox.file(&format!("{directory}/{name}"), text))
}

const FILE: &str = r#"[roadrunner]
ref = "v2025.0.77"

[plugins.hello]
module_name = "example.com/acme/hello"
tag = "v1.0.0"

[plugins.bye]
module_name = "example.com/acme/bye"
tag = "main"
"#;

fn modules(sandbox: &Sandbox) -> Vec<String> {
    let info = BuildInfo::read(&sandbox.path().join("rr")).unwrap();
    let ours = info.deps.into_iter().filter(|module| module.path.starts_with("example.com/"));
    ours.map(|module| match module.replace {
        Some(new) => format!("{} => {} {}", module.path, new.path, new.version).trim_end().to_owned(),
        None => format!("{} {}", module.path, module.version),
    })
    .collect()
}

fn files(sandbox: &Sandbox) -> Vec<String> {
    let entries = fs::read_dir(sandbox.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_server_from_flags_alone() {
    let proxy = proxy();
    let sandbox = mine(machine(&proxy), "mine");
    let said = sandbox.vx(&[
        "build",
        "--roadrunner",
        RELEASE,
        "--with",
        "example.com/acme/hello@v1.0.0",
        "--with",
        "example.com/acme/bye",
        "--with",
        "example.com/me/mine=./mine",
    ]);
    said.ok();
    assert_eq!(modules(&sandbox), ["example.com/acme/bye v1.1.0", "example.com/acme/hello v1.0.0", MINE]);
    assert_eq!(files(&sandbox), ["mine", "rr"], "no lock where there is no file");

    // The same, the module path read from the directory's go.mod, and not from the configuration's directory.
    fs::remove_file(sandbox.path().join("rr")).unwrap();
    let again = sandbox.vx(&["build", "--roadrunner", RELEASE, "--with", "./mine"]);
    again.ok();
    assert_eq!(modules(&sandbox), [MINE]);
}

#[test]
fn flags_change_a_file_for_one_build_and_its_lock_stays() {
    let proxy = proxy();
    let sandbox = mine(machine(&proxy), "mine").file("velox.toml", FILE);
    sandbox.vx(&["lock"]).ok();
    let locked = fs::read_to_string(sandbox.path().join("velox.lock")).unwrap();
    proxy.query("example.com/acme/bye", "main", "v1.1.0");

    // bye's branch has moved, and nobody asked for it to be looked up again.
    sandbox.vx(&["build", "--with", "example.com/acme/hello@v1.1.0", "--with", "./mine"]).ok();
    assert_eq!(modules(&sandbox), ["example.com/acme/bye v1.0.0", "example.com/acme/hello v1.1.0", MINE]);
    sandbox.vx(&["build", "--with", "example.com/acme/hello=example.com/other/hello@v1.2.0"]).ok();
    assert_eq!(
        modules(&sandbox),
        ["example.com/acme/bye v1.0.0", "example.com/acme/hello => example.com/other/hello v1.2.0"]
    );
    let said = sandbox.vx(&["build", "--without", "hello", "--roadrunner", "v2025.0.78", "--format", "json"]);
    assert!(said.ok().contains(r#""lock":null"#), "that lock doesn't say what was built");
    assert_eq!(modules(&sandbox), ["example.com/acme/bye v1.0.0"]);
    assert!(said.stdout().contains(r#""version":"v2025.0.78""#), "{}", said.stdout());

    assert_eq!(fs::read_to_string(sandbox.path().join("velox.lock")).unwrap(), locked);
    sandbox.vx(&["lock", "--check"]).ok();
}

#[test]
fn directories_are_below_the_working_directory_wherever_the_file_is() {
    let proxy = proxy();
    let sandbox = mine(machine(&proxy), "mine").file("conf/velox.toml", FILE);
    sandbox.vx(&["build", "-c", "conf/velox.toml", "--with", "./mine", "--without", "bye"]).ok();
    assert_eq!(modules(&sandbox), ["example.com/acme/hello v1.0.0", MINE]);
    assert_eq!(files(&sandbox), ["conf", "mine", "rr"]);
    assert_eq!(fs::read_dir(sandbox.path().join("conf")).unwrap().count(), 1, "a lock is for the file alone");
}

#[test]
fn wrong_flags_are_told_before_anything_is_asked() {
    let proxy = proxy();
    let sandbox = machine(&proxy).file("velox.toml", FILE).file("empty/README", "");
    let wrong: &[&[&str]] = &[
        &["--with", "http"],
        &["--with", "./nowhere", "--with", "./empty"],
        &["--with", "https://me:s3cret@example.com/acme/hello"],
        &["--with", "example.com/acme/hello/v5@v6.0.0"],
        &["--with", "example.com/acme/hello@", "--with", "example.com/acme/hello=somewhere"],
        &["--with", "example.com/acme/hello", "--with", "example.com/acme/hello/v2@v2.0.0"],
        &["--with", "", "--roadrunner", "v1 0"],
        &["--without", "helo"],
        &["--without", "hello", "--without", "bye"],
        &["--locked", "--with", "example.com/acme/hello"],
        &["-c", "none.toml", "--with", "example.com/acme/hello"],
    ];
    let real = sandbox.path().canonicalize().unwrap();
    let shown: String = wrong
        .iter()
        .map(|arguments| {
            let said = sandbox.vx(&[&["build"], *arguments].concat()).fails(2);
            format!("$ vx build {}\n{said}\n", arguments.join(" ")).replace(&*real.to_string_lossy(), "[DIR]")
        })
        .collect();
    assert_eq!(shown.matches("s3cret").count(), 1, "the command line's own, and nowhere else");
    insta::assert_snapshot!(shown);
    assert_eq!(proxy.requests(), [""; 0]);
}
