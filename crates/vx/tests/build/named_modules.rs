//! What was named is what is compiled: forks, branches and commits, version prefixes, `[[replaces]]`, `[[excludes]]`
//! and `[[requires]]`.

use velox_testkit::{Internet, ModuleProxy, TestForge, plugin, roadrunner};

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy, assert_contains, configuration};

const BRANCH: &str = "v3.0.0-20260611105417-0123456789ab";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const V3: &str = "github.com/roadrunner-server/roadrunner/v3";

/// RoadRunner 3 on a branch, an older answer for the branch at the previous major, and a fork of a plugin.
fn proxy() -> ModuleProxy {
    let proxy = acme_proxy();
    proxy.module(V3, BRANCH, roadrunner("v3").files());
    for query in ["trunk", "0123456789ab", COMMIT] {
        proxy.query(V3, query, BRANCH);
    }
    let says = |line: &str| plugin("github.com/orig/hello", "hello").says(line).files();
    proxy.module("github.com/orig/hello", "v1.0.0", says("the original"));
    proxy.module("github.com/fork/hello", "v1.0.0", says("the fork"));
    // The same files under a path of another host, and other files.
    let vanity = plugin("go.example.com/hello", "hello").says("vanity").files();
    proxy.module("go.example.com/hello", "v1.0.0", vanity.clone());
    proxy.module("github.com/vanity/hello", "v1.0.0", vanity);
    proxy.module(
        "github.com/vanity/fork",
        "v1.0.0",
        plugin("go.example.com/hello", "hello").says("2").files(),
    );
    proxy
}

fn on_github(reference: &str, owner: &str, repository: &str) -> String {
    format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[github.plugins]\n\
         hello = {{ ref = \"{reference}\", owner = \"{owner}\", repository = \"{repository}\" }}\n"
    )
}

#[test]
fn a_branch_or_commit_of_roadrunner_comes_from_the_proxies() {
    let proxy = proxy();
    for reference in ["trunk", "0123456789ab", COMMIT] {
        let text = configuration("hello@v1.0.0").replace(RELEASE, reference);
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", text);
        sandbox.vx("lock").ok();
        let lock = sandbox.read("velox.lock");
        assert_contains(&lock, &[&format!("module = \"{V3}\"\nversion = \"{BRANCH}\"")]);
        proxy.forget_requests();
        sandbox.vx("lock").ok();
        assert!(!proxy.requests().iter().any(|path| path.contains("trunk")), "{:?}", proxy.requests());
        sandbox.vx("outdated").ok();
    }
}

#[test]
fn a_fork_replaces_the_original_in_the_manuals_format() {
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", on_github("v1.0.0", "fork", "hello"));
    sandbox.vx("build").succeeds_with(&[
        "plugin hello: github.com/fork/hello is a fork of github.com/orig/hello, and replaces it",
    ]);
    let module = |path: &str| sandbox.module_in("rr", path);
    assert_eq!(module("github.com/orig/hello").as_deref(), Some("v1.0.0 => github.com/fork/hello v1.0.0"));
    std::fs::remove_dir_all(sandbox.value("VX_CACHE_DIR")).unwrap();
    sandbox.vx("build --locked").ok();
    assert_eq!(module("github.com/orig/hello").as_deref(), Some("v1.0.0 => github.com/fork/hello v1.0.0"));

    // A module path of another host is the same module if it has the same files.
    for (repository, expected) in [("hello", "v1.0.0"), ("fork", "v1.0.0 => github.com/vanity/fork v1.0.0")] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", on_github("v1.0.0", "vanity", repository));
        sandbox.vx("build").ok();
        assert_eq!(sandbox.module_in("rr", "go.example.com/hello").as_deref(), Some(expected));
    }
}

#[test]
fn a_fork_named_by_its_module_path_is_refused_with_the_lines_to_write() {
    let proxy = proxy();
    let fork = "\n[plugins.fork]\nmodule_name = \"github.com/fork/hello\"\ntag = \"v1.0.0\"\n";
    let text = format!("[roadrunner]\nref = \"{RELEASE}\"\n{fork}");
    let sandbox = Sandbox::behind(&proxy).file("velox.toml", text);
    insta::assert_snapshot!(sandbox.vx("build").fails(1));
    sandbox.vx(&format!("build --roadrunner {RELEASE} -c none --with github.com/fork/hello@v1.0.0")).fails(2);
    std::fs::remove_file(sandbox.at("velox.toml")).unwrap();
    sandbox.vx(&format!("build --roadrunner {RELEASE} --with github.com/fork/hello@v1.0.0")).fails_with(
        1,
        &[
            "its go.mod declares module github.com/orig/hello",
            "--with github.com/orig/hello=github.com/fork/hello@v1.0.0",
        ],
    );
    let line = "--with github.com/orig/hello=github.com/fork/hello@v1.0.0";
    sandbox.vx(&format!("build --roadrunner {RELEASE} {line}")).ok();
    assert!(sandbox.module_in("rr", "github.com/orig/hello").unwrap().contains("fork"));
}

#[test]
fn a_fork_on_a_forge_keeps_its_own_path() {
    let forge = TestForge::start();
    let repository = forge.github("fork/mine");
    repository.files(plugin("github.com/orig/mine", "mine").files()).commit("first").branch("main");
    let internet = Internet::start(&forge);
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy)
        .envs(internet.environment())
        .env("NO_PROXY", "127.0.0.1")
        .file("velox.toml", on_github("main", "fork", "mine"));
    sandbox.vx("build").ok();
    let module = sandbox.module_in("rr", "github.com/orig/mine").unwrap();
    assert!(module.contains(" => github.com/fork/mine v0.0.0-"), "{module}");
}

#[test]
fn a_version_prefix_is_a_branch_only_if_the_forge_has_one() {
    let forge = TestForge::start();
    let repository = forge.github("orig/hello");
    let files = plugin("github.com/orig/hello", "hello").files();
    repository.files(files).commit("first").tag("v1.0.0").branch("main");
    let internet = Internet::start(&forge);
    let proxy = proxy();
    let sandbox = Sandbox::behind(&proxy)
        .envs(internet.environment())
        .env("NO_PROXY", "127.0.0.1")
        .file("velox.toml", on_github("v1", "orig", "hello"));
    sandbox.vx("lock").succeeds_with(&["v1 is a version prefix; the newest version is v1.0.0"]);

    let other = plugin("github.com/orig/hello", "hello").says("on the branch").files();
    repository.files(other).commit("second").branch("v1");
    sandbox.vx("lock --upgrade").ok();
    assert_contains(&sandbox.read("velox.lock"), &["version = \"v1.0.1-0."]);
}

#[test]
fn directives_that_contradict_the_build_are_errors_and_unused_ones_are_warnings() {
    let proxy = proxy();
    proxy.roadrunner(RELEASE);
    let text = configuration("hello@v1.0.0");
    let replace =
        |old: &str| format!("\n[[replaces]]\nold = \"{old}\"\nnew = \"example.com/acme/bye@v1.0.0\"\n");
    let exclude = |module: &str, version: &str| {
        format!("\n[[excludes]]\nmodule = \"{module}\"\nversion = \"{version}\"\n")
    };
    let roadrunner = "github.com/roadrunner-server/roadrunner/v2025";
    let require = |module: &str, version: &str| {
        format!("\n[[requires]]\nmodule = \"{module}\"\nversion = \"{version}\"\n")
    };
    let both = exclude("example.com/acme/bye", "v1.1.0") + &require("example.com/acme/bye", "v1.1.0");
    let mut shown = String::new();
    for (directive, code) in [
        (replace(roadrunner), 2),
        (exclude("example.com/acme/hello", "v1.0.0"), 2),
        (exclude(roadrunner, RELEASE), 2),
        (replace("example.com/acme/nothing"), 0),
        (replace("github.com/roadrunner-server/endure/v2@v2.0.0"), 0),
        (require("example.com/acme/hello", "v1.1.0"), 2),
        (require(roadrunner, RELEASE), 2),
        (both, 2),
        (require("example.com/acme/bye", "v1.1.0"), 0),
    ] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", format!("{text}{directive}"));
        let output = sandbox.vx("build --dry-run");
        assert_eq!(output.code(), Some(code), "{directive}{}", output.stderr());
        let lines: Vec<String> = output
            .stderr()
            .lines()
            .skip_while(|line| !line.starts_with("error") && !line.starts_with("warning"))
            .take_while(|line| !line.contains("Resolved RoadRunner"))
            .map(str::to_owned)
            .collect();
        shown += &format!("{}\n\n", lines.join("\n"));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_version_without_its_v_is_recognized() {
    let proxy = proxy();
    for text in [on_github("1.0.0", "orig", "hello"), configuration("hello@1.0.0")] {
        let sandbox = Sandbox::behind(&proxy).file("velox.toml", text);
        let output = sandbox.vx("build");
        assert_ne!(output.code(), Some(0));
        assert_contains(&output.stderr(), &["did you mean `v1.0.0`?"]);
    }
}

#[test]
fn the_replace_and_exclude_lines_of_a_local_plugin_count() {
    let proxy = proxy();
    let library = |constant: &str| {
        let source = format!("package lib\n\nconst {constant} = 1\n");
        [("go.mod", "module example.com/me/lib\n\ngo 1.22\n".to_owned()), ("lib.go", source)]
            .map(|(file, text)| (file.to_owned(), text.into_bytes()))
            .into()
    };
    let go_mod = "module example.com/me/mine\n\ngo 1.22\n\nrequire example.com/me/lib v0.0.0\n\n\
                  replace example.com/me/lib => ../lib\n\nreplace example.com/acme/hello => ../hello\n\n\
                  exclude example.com/acme/bye v1.0.0\n";
    let source = "package mine\n\nimport \"example.com/me/lib\"\n\nvar _ = lib.Local\n";
    let mut mine = plugin("example.com/me/mine", "mine").files();
    mine.insert("go.mod".to_owned(), go_mod.into());
    mine.insert("use.go".to_owned(), source.into());
    let text = configuration("hello@v1.0.0")
        + "\n[plugins.mine]\nmodule_name = \"example.com/me/mine\"\ntag = \"v1.0.0\"\nreplace = \"../plugins/mine\"\n";
    let sandbox = Sandbox::behind(&proxy)
        .files("plugins/mine", mine)
        .files("plugins/lib", library("Local"))
        .file("server/velox.toml", text);
    sandbox.vx("build -c server/velox.toml").succeeds_with(&[
        "go.mod: `replace example.com/me/lib` applies",
        "go.mod: `replace example.com/acme/hello` is ignored",
    ]);
    assert_eq!(sandbox.module_in("rr", "example.com/acme/hello").as_deref(), Some("v1.0.0"));
    let lib = sandbox.module_in("rr", "example.com/me/lib").unwrap();
    assert!(lib.contains("=> ./replace/example.com_me_lib"), "{lib}");
    assert_contains(&sandbox.read("server/velox.lock"), &["exclude example.com/acme/bye v1.0.0"]);

    // From the lock too: its imports are part of the lock, and its content of the artifact's key.
    let write = |text: &str| std::fs::write(sandbox.at("plugins/lib/lib.go"), text).unwrap();
    write("package lib\n\nimport _ \"unsafe\"\n\nconst Local = 2\n");
    sandbox.vx("build -c server/velox.toml --locked").fails_with(2, &["does not match the configuration"]);
    write("package lib\n\nconst Other = 1\n");
    sandbox.vx("build -c server/velox.toml --locked").fails_with(1, &["undefined: lib.Local"]);
}
