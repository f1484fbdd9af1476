//! Foreign readers of the documents that vx writes, installed into a directory of the tests: Python packages, and programs
//! with Go libraries.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use super::sandbox::{CommandOutput, Sandbox, program, skip};

const PACKAGES: [&str; 6] = [
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "spdx-tools==0.8.5",
    "securesystemslib[crypto]==1.6.0",
    "in-toto-attestation==0.9.3",
    "sarif-pydantic==0.6.2",
    "vexipy==0.3.0",
];

/// A Python with the packages; without one, or without PyPI, the test is skipped with a printed reason.
pub fn python(test: &str) -> Option<PathBuf> {
    let Some(python) = program("python3") else {
        skip(test, "there is no python3");
        return None;
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("validators");
    fs::create_dir_all(&directory).unwrap();
    let (own, installed) = (directory.join("bin/python"), directory.join("installed"));
    // Other tests may be installing them.
    let lock = File::create(directory.join(".lock")).unwrap();
    lock.lock().unwrap();
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Some(own);
    }
    let run = |program: &Path, arguments: &[&str]| {
        CommandOutput::from(Command::new(program).args(arguments).current_dir(&directory))
    };
    let made = run(&python, &["-m", "venv", "."]);
    let fetched = run(
        &own,
        &[&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"], &PACKAGES[..]].concat(),
    );
    if made.code() != Some(0) || fetched.code() != Some(0) {
        println!("skipped: {test}: the validators can't be installed: {}", fetched.stderr());
        return None;
    }
    fs::write(installed, wanted).unwrap();
    Some(own)
}

/// A program of `foreign/`, which reads a document with the Go library of others; without its modules the test is skipped
/// with a printed reason.
pub fn go(test: &str, name: &str) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let sandbox = Sandbox::new();
    let mut build = sandbox.go_build(&program);
    let built = CommandOutput::from(build.arg(format!("./{name}")).current_dir(source));
    if built.code() != Some(0) {
        println!("skipped: {test}: {name} can't be compiled: {}", built.stderr());
        return None;
    }
    Some(program)
}
