//! The program itself: help, usage, the configuration file, the standard streams.

use std::fs::File;

use crate::support::sandbox::{Sandbox, assert_contains};

/// A configuration with an error that every command reports first.
const WRONG: &str = "[roadrunner]\nreff = 'v2024.2.1'\n";

/// Runs `vx` in an empty directory.
fn vx(line: &str) -> String {
    Sandbox::new().vx_shown(line)
}

#[test]
fn help() {
    insta::assert_snapshot!("help", vx("help"));
    assert_eq!(vx("--help"), vx("help"));
    insta::assert_snapshot!("help_build", vx("help build"));
    assert_eq!(vx("build --help"), vx("help build"));
}

#[test]
fn no_command_prints_help() {
    let shown = vx("");
    assert!(
        shown.starts_with("exit code: 2\n--- stdout\n--- stderr\n") && shown.contains("Usage: vx"),
        "{shown}"
    );
}

#[test]
fn version() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(vx("--version"), format!("exit code: 0\n--- stdout\nvx {version}\n--- stderr\n"));
    let shown = vx("version");
    assert!(shown.starts_with(&format!("exit code: 0\n--- stdout\nvx {version} ")), "{shown}");
    let shown = vx("version --format json");
    assert_contains(&shown, &[&format!(r#""version":"{version}""#), r#""v":1"#, std::env::consts::ARCH]);
}

#[test]
fn invalid_arguments() {
    let wrong = [
        "bulid",
        "build --outputfile rr",
        "build -o bin --output-file rr",
        "build --target linux",
        "build --target plan9/amd46",
        "build --dependencies newest",
        "build --stamp-version ''",
        "build -o ''",
        "build -v -q",
        "build --format xml",
        "build --color sometimes",
        "build velox.toml",
    ];
    let shown: String = wrong.iter().map(|line| format!("$ vx {line}\n{}\n", vx(line))).collect();
    insta::assert_snapshot!(shown);
}

#[test]
fn missing_configuration() {
    insta::assert_snapshot!(vx("build"));
    let shown = vx("build -c conf/my.toml -o bin");
    assert!(shown.contains("configuration file `[DIR]/conf/my.toml` not found"), "{shown}");
}

#[test]
fn every_alias_of_an_option_works() {
    for arguments in [
        "build -c x.toml -o bin",
        "build --config x.toml --out bin",
        "build --config x.toml --output-dir bin",
        "build --config x.toml --output-file bin/server",
    ] {
        let shown = vx(arguments);
        assert!(shown.contains("configuration file `[DIR]/x.toml` not found"), "{shown}");
    }
}

#[test]
fn configuration_is_not_a_text_file() {
    let sandbox = Sandbox::new()
        .file("conf/velox.toml", "")
        .file("latin1.toml", b"[roadrunner]\n# \xfcber\n")
        .file("utf16.toml", b"\xff\xfe[\0r\0r\0]\0")
        .file("huge.toml", vec![b'#'; (16 << 20) + 1]);
    let shown: String = ["conf", "latin1.toml", "utf16.toml", "huge.toml"]
        .iter()
        .map(|file| format!("$ vx build -c {file}\n{}\n", sandbox.vx_shown(&format!("build -c {file}"))))
        .collect();
    insta::assert_snapshot!(shown);
}

#[test]
fn unreadable_configuration() {
    // Root can read everything, but a path through a file fails for everyone.
    let sandbox = Sandbox::new().file("file", "");
    let shown = sandbox.vx_shown("build -c file/velox.toml");
    assert!(shown.starts_with("exit code: 2\n"), "{shown}");
    assert!(shown.contains("error: failed to read `file/velox.toml`: "), "{shown}");
}

#[test]
fn empty_configuration() {
    insta::assert_snapshot!(Sandbox::new().file("velox.toml", "").vx_shown("build"));
}

#[test]
fn configuration_from_stdin() {
    let sandbox = Sandbox::new().file("input", WRONG);
    let input = File::open(sandbox.at("input")).unwrap();
    let shown = sandbox.shown(&sandbox.vx_command("build -c -").stdin(input).into());
    assert!(shown.starts_with("exit code: 2\n"), "{shown}");
    assert!(shown.contains(" --> <stdin>:2:1\n"), "{shown}");
}

#[test]
fn json_format_prints_errors_as_events() {
    let sandbox = Sandbox::new().file("velox.toml", WRONG);
    let shown = sandbox.vx_shown("build --format json");
    let (out, err) = shown.split_once("--- stderr\n").unwrap();
    assert_eq!(err, "");
    let lines: Vec<&str> = out.lines().skip(2).collect();
    let first = lines.first().unwrap();
    assert!(first.starts_with(r#"{"v":1,"time":""#), "{shown}");
    assert!(first.contains(r#""event":"error""#), "{shown}");
    assert!(first.contains(r#""file":"velox.toml","line":2,"column":1"#), "{shown}");
    let last = lines.last().unwrap();
    assert!(last.contains(r#""event":"failed","kind":"configuration","exit_code":2"#), "{shown}");
}

#[test]
fn colors_follow_flag_and_environment() {
    let sandbox = Sandbox::new().file("velox.toml", WRONG);
    let colored = |arguments: &str, environment: &[(&str, &str)]| {
        let mut command = sandbox.vx_command(arguments);
        let shown = sandbox.shown(&command.envs(environment.iter().copied()).into());
        assert!(shown.starts_with("exit code: 2\n"), "{shown}");
        shown.contains('\u{1b}')
    };
    assert!(!colored("build", &[]));
    assert!(colored("build --color always", &[]));
    assert!(colored("build --color always", &[("NO_COLOR", "1")]));
    assert!(colored("build", &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored("build --color never", &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored("build", &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
}

#[test]
fn closed_stdout_is_not_a_failure() {
    let sandbox = Sandbox::new().file("velox.toml", WRONG);
    for (arguments, code) in [("help build", 0), ("version", 0), ("build --format json", 2), ("build", 2)] {
        let (reader, out) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = sandbox.vx_command(arguments);
        let status = command.stdout(out.try_clone().unwrap()).stderr(out).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_stdout_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let sandbox = Sandbox::new();
    let shown = sandbox.shown(&sandbox.vx_command("version").stdout(full).into());
    assert!(shown.starts_with("exit code: 1\n") && shown.contains("failed to write to stdout"), "{shown}");
}
