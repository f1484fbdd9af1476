//! The documentation: its configurations are valid, its commands run, its links resolve.
//!
//! The console blocks of each page run in order. github.com and gitlab.com are the testkit's forge, and the
//! module proxy has the modules of the page's configurations: RoadRunner is the testkit's small module,
//! unknown plugins are generated. A block that can't run has the reason in a hidden comment.

#![cfg(target_os = "linux")]

use std::{collections::BTreeMap, fs, path::Path};

use velox_manifest::{Manifest, Origin, Plugin, Project, SourceFile};
use velox_testkit::{Internet, ModuleProxy, TestForge, plugin};

use crate::support::{
    book::{Block, Page, fits, page, pages, top},
    sandbox::{CommandOutput, Sandbox, VX},
};

const RELEASE: &str = "v2025.1.15";

/// Plugins of the small RoadRunner, for which the real modules are used.
const REAL: &[&str] = &["fileserver", "informer", "logger", "metrics", "resetter", "rpc", "status"];

const LANGUAGES: &[&str] = &["console", "dockerfile", "json", "text", "toml", "yaml"];

#[test]
fn every_block_has_a_language() {
    for block in pages().iter().flat_map(Page::blocks) {
        assert!(LANGUAGES.contains(&&*block.language), "{}: what is `{}`?", block.place, block.language);
        let Some(remark) = &block.remark else { continue };
        let (kind, text) = remark.split_once(": ").unwrap_or_else(|| panic!("{}: {remark}", block.place));
        assert!(matches!(kind, "not run" | "file") && !text.is_empty(), "{}: {remark}", block.place);
    }
}

#[test]
fn every_configuration_is_valid() {
    let mut read = 0;
    for block in pages().iter().flat_map(Page::blocks).filter(|block| block.language == "toml") {
        // A page may show a few keys only; required plugins are added.
        let whole = if block.text.contains("plugins") {
            block.text.clone()
        } else {
            format!(
                "{}\n[plugins.http]\nmodule_name = \"github.com/acme/http\"\ntag = \"v1.0.0\"\n",
                block.text
            )
        };
        manifest(&block.place, &whole);
        read += 1;
    }
    for entry in fs::read_dir(top().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            manifest(&path.to_string_lossy(), &fs::read_to_string(&path).unwrap());
            read += 1;
        }
    }
    assert!(read > 5);
}

#[test]
fn every_key_is_in_the_migration_guide() {
    let text = page("docs/migrating-from-velox.md").text;
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    for table in velox_manifest::TABLES {
        let header = table.name.strip_suffix(".NAME").unwrap_or(table.name);
        for key in table.keys {
            let about = |row: &&&str| {
                let cell = row.split(" | ").next().unwrap();
                let words: Vec<&str> =
                    cell.split(|c: char| !c.is_alphanumeric() && !"._-".contains(c)).collect();
                (header.is_empty() || words.contains(&header) || words.contains(&table.name))
                    && words.contains(&key.name)
            };
            assert!(
                rows.iter().any(|row| about(&row)),
                "docs/migrating-from-velox.md: no row for [{header}] {}",
                key.name
            );
        }
    }
}

#[test]
fn every_link_resolves() {
    let anchors: BTreeMap<String, Vec<String>> =
        pages().iter().map(|page| (page.name.clone(), page.anchors())).collect();
    for page in pages() {
        for (link, place) in page.links() {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            let (path, anchor) =
                link.split_once('#').map_or((&*link, None), |(path, anchor)| (path, Some(anchor)));
            let name = match path {
                "" => page.name.clone(),
                path => {
                    let folder = top().join(&page.name).parent().unwrap().to_owned();
                    let target = folder
                        .join(path)
                        .canonicalize()
                        .unwrap_or_else(|_| panic!("{place}: {link} isn't there"));
                    target.strip_prefix(top()).unwrap().to_string_lossy().into_owned()
                }
            };
            // The book contains only its own pages.
            let outside = page.name.starts_with("docs/") && !name.starts_with("docs/");
            assert!(!outside, "{place}: {link} leads out of the book");
            if let Some(anchor) = anchor {
                assert!(
                    anchors[&name].iter().any(|known| known == anchor),
                    "{place}: {name} has no #{anchor}"
                );
            }
        }
    }
}

#[test]
fn every_page_is_in_the_book() {
    let summary = page("docs/SUMMARY.md");
    let mut listed: Vec<String> =
        summary.links().into_iter().map(|(link, _)| format!("docs/{link}")).collect();
    listed.push(summary.name);
    listed.sort();
    let there: Vec<String> =
        pages().into_iter().map(|page| page.name).filter(|name| name.starts_with("docs/")).collect();
    assert_eq!(listed, there);
}

/// One test for each page.
macro_rules! pages_that_run {
    ($($test:ident: $page:literal),* $(,)?) => {
        $(#[test] fn $test() { run($page); })*

        #[test]
        fn every_page_with_commands_has_a_test() {
            let run = [$($page),*];
            for page in pages() {
                let commands = page.blocks().iter().any(runs);
                assert_eq!(commands, run.contains(&&*page.name), "{}: pages_that_run! has to agree", page.name);
            }
        }
    };
}

pages_that_run! {
    binary_size: "docs/binary-size.md",
    build_service: "docs/build-service.md",
    building: "docs/building.md",
    caching: "docs/caching.md",
    ci: "docs/ci.md",
    container_images: "docs/container-images.md",
    developing_plugins: "docs/developing-plugins.md",
    editing: "docs/editing.md",
    inspecting_a_binary: "docs/inspecting-a-binary.md",
    installing: "docs/installing.md",
    migrating_from_velox: "docs/migrating-from-velox.md",
    plugin_graph: "docs/plugin-graph.md",
    private_repositories: "docs/private-repositories.md",
    quick_start: "docs/quick-start.md",
    readme: "README.md",
    sbom_and_provenance: "docs/sbom-and-provenance.md",
    understanding_a_server: "docs/understanding-a-server.md",
    verifying_a_build: "docs/verifying-a-build.md",
}

fn runs(block: &Block) -> bool {
    block.language == "console" && !not_run(block)
}

fn not_run(block: &Block) -> bool {
    block.remark.as_ref().is_some_and(|remark| remark.starts_with("not run: "))
}

fn run(name: &str) {
    let page = page(name);
    let mut user = User::of(&page);
    for block in page.blocks() {
        if let Some(file) = block.remark.as_ref().and_then(|remark| remark.strip_prefix("file: ")) {
            user.sandbox = user.sandbox.file(file, &block.text);
        } else if runs(&block) {
            user.run(&block);
        }
    }
    // The commands of CI jobs.
    for block in page.blocks().iter().filter(|block| block.language == "yaml" && !not_run(block)) {
        for line in block.text.lines() {
            let line = line.trim_start_matches([' ', '-']);
            let line = line.strip_prefix("run: ").unwrap_or(line);
            if line.starts_with("vx ") {
                user.shell(&block.place, line);
            }
        }
    }
}

struct User {
    _forge: TestForge,
    _internet: Internet,
    _proxy: ModuleProxy,
    sandbox: Sandbox,
}

impl User {
    /// A user whose network has all modules of a page's configurations.
    fn of(page: &Page) -> Self {
        let (forge, proxy) = (TestForge::start(), ModuleProxy::start());
        proxy.roadrunner(RELEASE);
        forge.github_token("the-github-token");
        for block in page.blocks().iter().filter(|block| block.remark.as_deref() == Some("file: velox.toml"))
        {
            for plugin in manifest(&block.place, &block.text).plugins {
                publish(&plugin, &forge, &proxy);
            }
        }
        let internet = Internet::start(&forge);
        let vx = Path::new(VX).parent().unwrap();
        let path = format!("{}:{}", vx.display(), std::env::var("PATH").unwrap());
        let sandbox = Sandbox::new()
            .own_module_cache()
            .envs(internet.environment())
            .proxy(&proxy.url())
            .env("PATH", path)
            .env("LANG", "C.UTF-8");
        Self { _forge: forge, _internet: internet, _proxy: proxy, sandbox }
    }

    /// Runs a block's commands in one shell and expects its output lines, in order.
    fn run(&self, block: &Block) {
        let (mut script, mut shown, mut continued) = (String::new(), Vec::new(), false);
        for line in block.text.lines() {
            match line.strip_prefix("$ ").or(continued.then_some(line)) {
                Some(command) => {
                    script.push_str(command);
                    script.push('\n');
                    continued = command.ends_with('\\');
                }
                None => shown.push(line),
            }
        }
        assert!(!script.is_empty(), "{}: a console block without a command", block.place);
        let output = self.shell(&block.place, &script);
        let mut lines = output.lines();
        for wanted in shown.into_iter().filter(|line| !line.trim().is_empty()) {
            assert!(
                lines.any(|line| fits(wanted, line)),
                "{}: there is no {wanted}\nin\n{output}",
                block.place
            );
        }
    }

    fn shell(&self, place: &str, script: &str) -> String {
        let script = format!("set -euo pipefail\nexec 2>&1\n{script}");
        let ran = CommandOutput::from(self.sandbox.command("bash", &["-c", &script]));
        assert!(ran.code() == Some(0), "{place}: {script}\n{}{}", ran.stdout(), ran.stderr());
        ran.stdout()
    }
}

/// Publishes a plugin at the location of its entry; repositories of `acme` are private.
fn publish(entry: &Plugin, forge: &TestForge, proxy: &ModuleProxy) {
    let (name, reference) = (&entry.name.value, &entry.reference.value);
    match &entry.origin {
        Origin::GitHub { owner, repository, .. } if owner.value == "acme" => {
            let path = format!("acme/{}", repository.value);
            let repo = forge.github(&path).private().token("the-github-token");
            repo.files(plugin(&format!("github.com/{path}"), name).files()).commit("first").tag(reference);
        }
        Origin::GitHub { owner, repository, .. } => {
            let major = reference.split('.').next().unwrap();
            let module = format!("github.com/{}/{}/{major}", owner.value, repository.value);
            if !REAL.contains(&&*repository.value) {
                proxy.module(&module, reference, plugin(&module, name).files());
            }
        }
        Origin::GitLab { project, .. } => {
            let repo = match &project.value {
                Project::Id(id) => forge.gitlab(&format!("me/{name}")).id(*id),
                Project::Path(path) => forge.gitlab(path).private().token("the-gitlab-token"),
            };
            let path = match &project.value {
                Project::Id(_) => format!("me/{name}"),
                Project::Path(path) => path.clone(),
            };
            repo.files(plugin(&format!("gitlab.com/{path}"), name).files()).commit("first").branch(reference);
        }
        Origin::Module(path) => {
            if !REAL.iter().any(|real| path.value.contains(&format!("/{real}/"))) {
                proxy.module(&path.value, reference, plugin(&path.value, name).files());
            }
        }
    }
}

fn manifest(place: &str, text: &str) -> Manifest {
    let source = SourceFile { name: place.to_owned(), text: text.to_owned() };
    match Manifest::parse(&source, &|_| Some("1".to_owned())) {
        Ok((manifest, warnings)) => {
            assert!(warnings.is_empty(), "{place}: {warnings:?}");
            manifest
        }
        Err(errors) => panic!("{place}: {errors:?}\n{text}"),
    }
}

#[test]
fn ellipsis_matches_anything() {
    assert!(fits("Built … for linux/…", "   Built RoadRunner for linux/amd64"));
    assert!(fits("…built before…", "x built before y") && fits("a", "a"));
    assert!(!fits("a", "ab") && !fits("a…b", "acd") && !fits("a…b…c", "ac"));
}
