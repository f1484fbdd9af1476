//! The steps of the GitHub Action (action.yml), run in the order of a runner.

#![cfg(target_os = "linux")]

use std::fs;

use velox_testkit::ModuleProxy;

use crate::support::{
    book::top,
    release::{release, serve},
    sandbox::{CommandOutput, Sandbox, acme_proxy, configuration},
};

/// A job on a runner; steps pass values through the files named by GITHUB_PATH and GITHUB_OUTPUT.
struct Job {
    _proxy: ModuleProxy,
    sandbox: Sandbox,
}

impl Job {
    fn new(inputs: &[(&str, &str)]) -> Self {
        let proxy = acme_proxy();
        let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
        let temporary = sandbox.home();
        let sandbox = inputs.iter().fold(sandbox, |sandbox, (name, value)| sandbox.env(name, value));
        let sandbox = sandbox
            .env("RUNNER_TEMP", &temporary)
            .env("GITHUB_PATH", temporary.join("path"))
            .env("GITHUB_OUTPUT", temporary.join("output"))
            .env("VX_ACTION_FROM", serve(release().to_owned()));
        Self { _proxy: proxy, sandbox }
    }

    fn step(&self, name: &str) -> CommandOutput {
        let path = top().join("packaging/action");
        // Directories that earlier steps added to the PATH come first.
        let added = fs::read_to_string(self.sandbox.home().join("path")).unwrap_or_default();
        let path_variable = format!("{}:{}", added.trim(), std::env::var("PATH").unwrap());
        self.sandbox.command(path, &[name]).env("PATH", path_variable).into()
    }

    fn outputs(&self) -> String {
        fs::read_to_string(self.sandbox.home().join("output")).unwrap()
    }
}

#[test]
fn action_installs_vx_lists_caches_and_builds() {
    let job = Job::new(&[
        ("VX_ACTION_VERSION", "latest"),
        ("VX_ACTION_CONFIG", "velox.toml"),
        ("VX_ACTION_OUTPUT", "bin"),
        ("VX_ACTION_ARGUMENTS", "--stamp-version 9.8.7"),
    ]);
    assert!(job.step("install").ok().starts_with("vx "));
    job.step("caches").ok();
    let outputs = job.outputs();
    let cache = job.sandbox.vx("cache dir").ok();
    let modules = job.sandbox.run("go env GOMODCACHE");
    assert!(outputs.starts_with(&format!("directories<<END\n{cache}{modules}")), "{outputs}");
    assert!(outputs.ends_with("\nEND\n"), "{outputs}");

    job.step("build").ok();
    assert!(job.outputs().ends_with("\ndirectory=bin\n"));
    let version = job.sandbox.run("bin/rr --version");
    assert!(version.starts_with("rr version 9.8.7 "), "{version}");
    assert!(job.sandbox.has("velox.lock"));

    // A committed lock must match the configuration.
    let changed = configuration("hello@v1.0.0").replace("[plugins.hello]", "[plugins.other]");
    fs::write(job.sandbox.at("velox.toml"), changed).unwrap();
    job.step("build").fails_with(2, &["vx lock"]);
}

/// `gh`: writes its arguments and the text to the home directory; there is an open pull request after the first one.
const GH: &str = r#"#!/bin/sh
echo "$@" >>"$HOME/gh"
case "$1 $2" in
"pr list") [ ! -f "$HOME/text.md" ] || echo https://github.com/acme/app/pull/7 ;;
"pr create") echo https://github.com/acme/app/pull/7 ;;
esac
while [ $# -gt 0 ]; do
    [ "$1" != --body-file ] || cp "$2" "$HOME/text.md"
    shift
done
"#;

#[test]
fn action_opens_a_pull_request_with_what_an_update_changes() {
    let job = Job::new(&[
        ("VX_ACTION_CONFIG", "velox.toml"),
        ("VX_ACTION_BRANCH", "vx/update"),
        ("GITHUB_REF_NAME", "main"),
        // A database that can't be read: the pull request has the rest.
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("NO_PROXY", "127.0.0.1,localhost"),
    ]);
    let sandbox = &job.sandbox;
    job.step("install").ok();
    let gh = sandbox.home().join("gh-bin");
    fs::create_dir(&gh).unwrap();
    fs::write(gh.join("gh"), GH).unwrap();
    sandbox.run(&format!("chmod +x {}/gh", gh.display()));
    let path = fs::read_to_string(sandbox.home().join("path")).unwrap();
    fs::write(sandbox.home().join("path"), format!("{}:{}", gh.display(), path.trim())).unwrap();
    sandbox.vx("lock -q").ok();
    let git = |line: &str| sandbox.run(&format!("git -c user.name=a -c user.email=a@example.com {line}"));
    git("init -q -b main .");
    git("add velox.toml velox.lock");
    git("commit -q -m first");
    git("init -q --bare ../home/origin");
    git("remote add origin ../home/origin");

    job.step("update").ok();
    assert!(job.outputs().ends_with("changed=true\npull-request=https://github.com/acme/app/pull/7\n"));
    let text = fs::read_to_string(sandbox.home().join("text.md")).unwrap();
    assert!(
        text.starts_with("| | from | to |\n|---|---|---|\n| `hello` | `v1.0.0` | `v1.1.0` |\n"),
        "{text}"
    );
    for sizes in ["old.size.json", "old.lock"] {
        assert!(sandbox.home().join("vx/update").join(sizes).is_file(), "{sizes}");
    }
    assert!(sandbox.has("velox.size.json") && !git("status --porcelain").contains(" M "));
    let asked = || fs::read_to_string(sandbox.home().join("gh")).unwrap();
    let created =
        "pr create --head vx/update --base main --title Update RoadRunner and its plugins --body-file ";
    assert!(asked().contains(created), "{}", asked());
    let pushed = git("--git-dir ../home/origin show --stat --format=%s vx/update");
    assert!(pushed.starts_with("Update RoadRunner and its plugins\n"), "{pushed}");
    assert!(pushed.contains(" velox.lock ") && pushed.contains(" velox.toml "), "{pushed}");
    assert!(!pushed.contains("size.json"), "{pushed}");

    // The next day, nothing was merged: the same pull request.
    git("checkout -q main");
    job.step("update").ok();
    assert!(asked().contains("pr edit https://github.com/acme/app/pull/7 --body-file "), "{}", asked());
    // Merged: nothing is newer.
    job.step("update").ok();
    assert!(job.outputs().ends_with("changed=false\n"), "{}", job.outputs());
}

#[test]
fn action_passes_every_input_to_its_script() {
    let text = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let (action, script) = (text("action.yml"), text("packaging/action"));
    for name in script.split("VX_ACTION_").skip(1) {
        let name: String = name.chars().take_while(|c| c.is_ascii_uppercase()).collect();
        let input = format!("VX_ACTION_{name}: ${{{{ inputs.{} }}}}", name.to_lowercase());
        assert!(action.contains(&input), "action.yml has no {input}");
    }
    for step in ["install", "caches", "build", "update"] {
        let run = format!("run: '\"$GITHUB_ACTION_PATH/packaging/action\" {step}'");
        assert!(action.contains(&run), "action.yml has no {run}");
    }
}
