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
    // Velox has the short form; clients take the first version number in the output.
    assert_eq!(vx("-v"), vx("--version"));
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
fn options_of_velox_before_the_command() {
    let missing = |line: &str, file: &str| {
        let shown = vx(line);
        assert!(shown.contains(&format!("configuration file `[DIR]/{file}` not found")), "{line}: {shown}");
    };
    for line in [
        "-c x.toml build -o bin",
        "-c=x.toml build -o=bin",
        "-cx.toml -obin build",
        "--config x.toml --out bin build",
        "--config=x.toml --output-dir=bin build",
        "-o bin -c x.toml -q build",
        "-c x.toml lock",
        "-c x.toml fetch",
        "-c x.toml run",
        "-c x.toml check",
        "-c x.toml list",
        "-c x.toml tree",
        "-c x.toml why zap",
        "-c x.toml outdated",
        "-c x.toml add http",
        "-c x.toml remove http",
        "-c x.toml update",
        "-c x.toml migrate",
        // The last one is taken, as in Velox.
        "-c y.toml build -c x.toml",
        "-c y.toml -c x.toml build",
        "build -c y.toml -c x.toml -o a -o b",
    ] {
        missing(line, "x.toml");
    }
    let wrong = [
        "-c x.toml search",
        "-c x.toml version",
        "-o bin lock",
        "-o bin build --output-file rr",
        "-c x.toml",
        "-c",
    ];
    let shown: String = wrong.iter().map(|line| format!("$ vx {line}\n{}\n", vx(line))).collect();
    insta::assert_snapshot!(shown);
}

#[test]
fn words_without_an_option_get_advice() {
    let sandbox = Sandbox::new()
        .file("velox.toml", WRONG)
        .file("project/velox.toml", WRONG)
        .file("plugin/go.mod", "module example.com/plugin\n");
    let wrong = [
        "build velox.toml",
        "build conf/missing.yaml",
        "build -c velox.toml .",
        "build bin/",
        "build project",
        "build ./plugin",
        "build linux/arm64",
        "build v2025.1.15",
        "build github.com/acme/x@v1.0.0",
        "build http@v5.2.0",
        "build something",
        "lock velox.toml",
        "search -c velox.toml",
        "check -o bin",
        "velox.toml",
    ];
    let tip = |line: &&str| {
        let output = sandbox.vx(line);
        let message = output.fails(2);
        let lines = message.lines().filter(|line| line.starts_with("error:") || line.contains("tip:"));
        format!("$ vx {line}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    insta::assert_snapshot!(wrong.iter().map(tip).collect::<String>());
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
