//! Shell and editor integration: completions, man pages, the schema, examples.

use std::{fs, path::Path};

use crate::support::sandbox::{Sandbox, VX, configuration, program, skip};

/// Every visible command with its help.
fn commands() -> Vec<(Vec<String>, String)> {
    let mut found = Vec::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let help = Sandbox::new().vx_shown(&format!("{} --help", path.join(" ")));
        let listed = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        for line in listed.lines().take_while(|line| !line.is_empty()) {
            let name = line.split_whitespace().next().unwrap();
            // Continuation lines of a description are indented further.
            if line.starts_with("   ") || name == "help" {
                continue;
            }
            open.push([&path[..], &[name.to_owned()]].concat());
        }
        found.push((path, help));
    }
    found
}

#[test]
fn every_command_has_examples() {
    let commands = commands();
    assert!(commands.len() > 12, "{commands:?}");
    for (path, help) in &commands {
        assert!(path.is_empty() || help.contains("\nExamples:\n"), "{path:?}: {help}");
    }
}

/// A sandbox with a configuration, and two versions of http in its module cache.
fn completing() -> Sandbox {
    let versions = "modules/cache/download/github.com/roadrunner-server/http/v5/@v";
    let sandbox = Sandbox::new()
        .file("velox.toml", configuration("hello@v1.0.0 bye@v1.0.0"))
        .file("my dir/other.toml", configuration("third@v1.0.0"))
        .file(&format!("{versions}/v5.2.0.mod"), "")
        .file(&format!("{versions}/list"), "v5.2.0\nv5.3.0\nv5.4.0-rc.1\n")
        .file(&format!("{}/list", versions.replace("v5", "v6")), "v6.0.0-beta.1\n")
        .file(".rr.yaml", "");
    let modules = sandbox.at("modules");
    sandbox.env("GOMODCACHE", modules)
}

/// What is typed, what is offered, and what is not.
const COMPLETIONS: [(&str, &[&str], &[&str]); 19] = [
    ("vx bui", &["build"], &["compile-cache", "bisect"]),
    ("vx build --with", &["--with", "--without"], &["--roadrunner"]),
    ("vx build --target linux/ar", &["linux/arm", "linux/arm64"], &["linux/amd64"]),
    ("vx build --without ", &["hello", "bye"], &["third", "velox.toml"]),
    ("vx update -c my\\ dir/other.toml ", &["third", "roadrunner"], &["hello", "velox.toml"]),
    ("vx init --group jo", &["jobs"], &["http"]),
    ("vx add htt", &["http"], &["hello", "velox.toml"]),
    ("vx add http@", &["http@v5.3.0", "http@v5.2.0"], &["http", "http@v5.4.0-rc.1", "http@v6.0.0-beta.1"]),
    ("vx add http@v6", &["http@v6.0.0-beta.1"], &["http@v5.3.0"]),
    ("vx add re", &["resetter"], &["reload"]),
    ("vx search kaf", &["kafka"], &["velox.toml"]),
    ("vx add ./", &["./modules/"], &["http"]),
    ("vx sbom ve", &["velox.toml"], &["verify"]),
    ("vx build --sbom ", &["cyclonedx", "spdx"], &["velox.toml"]),
    ("vx build -c ", &["velox.toml"], &["."]),
    ("vx init --from .r", &[".rr.yaml"], &["velox.toml"]),
    ("vx init --preset web,q", &["web,queue"], &["queue"]),
    ("vx graph --format ", &["human", "json", "dot", "mermaid"], &["sarif"]),
    ("vx bisect --good velox.toml -- ve", &["velox.toml"], &["verify"]),
];

/// Runs a shell that loads the completions; they call the vx of the tests.
fn offered(sandbox: &Sandbox, shell: &str, script: &str) -> Option<Vec<String>> {
    program(shell)?;
    let bin = Path::new(VX).parent().unwrap();
    let path = format!("{}:{}", bin.display(), sandbox.value("PATH"));
    let output = sandbox.command(shell, &["-c", script]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn shells_complete_commands_options_and_values() {
    let sandbox = completing();
    for (typed, expected, other) in COMPLETIONS {
        // Bash replaces only what follows `@`.
        let word = typed.rsplit([' ', '@']).next().unwrap();
        let bash = format!(
            "source <(vx completions bash); COMP_LINE='{typed}'; COMP_POINT=${{#COMP_LINE}}; \
             _vx vx '{word}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let fish = format!("vx completions fish | source; complete -C '{typed}'");
        for (shell, script) in [("bash", bash), ("fish", fish)] {
            let Some(offered) = offered(&sandbox, shell, &script) else {
                skip("shells_complete_commands_options_and_values", &format!("{shell} is not here"));
                continue;
            };
            let kept = if shell == "bash" { typed.rsplit(' ').next().unwrap().len() - word.len() } else { 0 };
            let has = |text: &&str| offered.iter().any(|line| line.split('\t').next() == text.get(kept..));
            assert!(expected.iter().all(&has), "{shell}: {typed:?}: {offered:?}");
            assert!(!other.iter().any(has), "{shell}: {typed:?}: {offered:?}");
        }
    }
}

#[test]
fn zsh_completion_describes_values() {
    let script = "autoload -U compinit; compinit -u -d .zdump; source <(vx completions zsh); \
                  CURRENT=4; words=(vx build --without ''); _describe() { print -rl -- ${(P)3}; }; \
                  _clap_dynamic_completer_vx";
    let Some(offered) = offered(&completing(), "zsh", script) else {
        return skip("zsh_completion_describes_values", "zsh is not here");
    };
    assert_eq!(offered, ["hello", "bye"]);
}

#[test]
fn every_shell_has_completions() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.vx(&format!("completions {shell}")).ok();
        assert!(script.contains("VX_COMPLETE") && !script.contains("WITHOUT"), "{shell}: {script}");
        let brief = sandbox.vx(&format!("completions {shell} --no-descriptions")).ok();
        assert!(brief.contains("VX_COMPLETE_WITHOUT_DESCRIPTIONS"), "{shell}: {brief}");
    }
    assert!(
        sandbox.vx_shown("completions csh").contains("possible values: bash, elvish, fish, powershell, zsh")
    );
    let complete = |variable: &str| {
        let mut command = sandbox.command(VX, &["--", "vx", "bui"]);
        let output = command.env(variable, "fish").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(complete("VX_COMPLETE").starts_with("build\tBuild the RoadRunner binary"));
    assert_eq!(complete("VX_COMPLETE_WITHOUT_DESCRIPTIONS").trim_end(), "build");
}

#[test]
fn every_command_has_a_man_page() {
    let sandbox = Sandbox::new();
    let message = sandbox.vx_shown("man man1");
    let pages: Vec<String> = fs::read_dir(sandbox.path().join("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for (path, _) in commands() {
        let page = format!("vx{}.1", path.iter().map(|name| format!("-{name}")).collect::<String>());
        assert!(pages.contains(&page) && message.contains(&format!("man1/{page}\n")), "{page}: {message}");
    }
    assert!(!pages.iter().any(|page| page.contains("compile-cache") || page.contains("help")), "{pages:?}");
    let build = sandbox.read("man1/vx-build.1");
    assert!(build.contains(r".TH vx-build 1") && build.contains("Examples:"), "{build}");
    assert!(build.contains(r"vx build") && build.contains(r"\-\-roadrunner"), "{build}");
    assert!(Sandbox::new().vx_shown("man").contains(".TH vx 1"));
    assert!(sandbox.file("file", "").vx_shown("man file/below").starts_with("exit code: 1"));
}

#[test]
fn schema_prints_only_json() {
    let output = Sandbox::new().vx_command("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["title"], "velox.toml");
    assert!(output.stderr.is_empty());
}

#[test]
fn doctor_output_is_plain_ascii_without_color() {
    let sandbox = Sandbox::new();
    let doctor = |variables: &[(&str, &str)]| {
        let mut command = sandbox.vx_command("doctor --offline");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let forced = doctor(&[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains("\u{1b}[1m"), "{forced:?}");
    for variables in [&[][..], &[("NO_COLOR", "1")], &[("NO_COLOR", "1"), ("LC_ALL", "C")]] {
        let plain = doctor(variables);
        assert!(plain.is_ascii() && !plain.contains('\u{1b}') && plain.contains("ok "), "{plain:?}");
    }
}
