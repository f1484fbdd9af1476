//! Shell and editor integration: completions, man pages, the schema, examples.

use std::{fs, io::Write as _, process::Command, process::Stdio};

use crate::support::sandbox::Sandbox;

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

#[test]
fn completions_cover_every_command_and_parse() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = sandbox.vx_command(&format!("completions {shell}")).output().unwrap();
        assert!(script.status.success() && script.stderr.is_empty(), "{shell}");
        let text = String::from_utf8(script.stdout).unwrap();
        for word in ["build", "doctor", "roadrunner", "keep-workspace", "prune"] {
            assert!(text.contains(word), "{shell} has no {word}");
        }
        assert!(!text.contains("compile-cache"), "{shell}: hidden commands stay hidden");
        let Ok(mut child) =
            Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
        else {
            continue;
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let parsed = child.wait_with_output().unwrap();
        assert!(parsed.status.success(), "{shell}: {}", String::from_utf8_lossy(&parsed.stderr));
    }
    assert!(
        sandbox.vx_shown("completions csh").contains("possible values: bash, elvish, fish, powershell, zsh")
    );
}

/// Completes as bash does after Tab.
#[test]
fn bash_completion_offers_flags() {
    let sandbox = Sandbox::new();
    let script = sandbox.vx_command("completions bash").output().unwrap();
    fs::write(sandbox.path().join("vx.bash"), script.stdout).unwrap();
    let complete = "source vx.bash; COMP_WORDS=(vx build --with); COMP_CWORD=2; \
                    COMPREPLY=(); _vx vx --with build; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", complete]).current_dir(sandbox.path()).output() else {
        return println!("skipped: there is no bash");
    };
    let offered = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(offered.contains("--with\n") && offered.contains("--without\n"), "{offered:?}");
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
