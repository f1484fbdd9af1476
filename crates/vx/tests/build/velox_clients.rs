//! Programs that run Velox run vx with the same command lines.

use std::fs;

use crate::support::sandbox::{RELEASE, Sandbox, acme_proxy, assert_contains};

/// The first `X.Y.Z` of a text, as dload finds a version.
fn first_version(text: &str) -> Option<&str> {
    let is_version = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() == 3
            && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit()))
    };
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find(is_version)
}

#[test]
fn dload_builds_in_its_temporary_directory() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy);
    let version = sandbox.vx("--version").ok();
    assert_eq!(first_version(&version), Some(env!("CARGO_PKG_VERSION")), "{version}");

    // dload's template has a mode that Velox treats as `development`.
    let configuration = format!(
        "[roadrunner]\nref = \"{RELEASE}\"\n\n[log]\nlevel = \"info\"\nmode = \"dev\"\n\n\
         [plugins]\n[plugins.hello]\nmodule_name = \"example.com/acme/hello\"\ntag = \"v1.0.0\"\n"
    );
    let temporary = sandbox.at("../tmp/velox-build-1234");
    fs::create_dir_all(&temporary).unwrap();
    fs::write(temporary.join("velox.toml"), configuration).unwrap();
    let temporary = temporary.canonicalize().unwrap();
    let shell = format!(
        "{} build -o {} -c {}/velox.toml 2>&1",
        crate::support::sandbox::VX,
        temporary.display(),
        temporary.display()
    );
    let output = sandbox.run(&format!("sh -c {}", shlex::try_quote(&shell).unwrap()));
    assert_contains(&output, &["warning: ", "mode", "Finished"]);
    let binary = temporary.join(format!("rr{}", std::env::consts::EXE_SUFFIX));
    assert_contains(
        &sandbox.run(&format!("{} --version", binary.display())),
        &[RELEASE.trim_start_matches('v')],
    );
}

#[test]
fn command_of_the_compose_file() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0");
    fs::rename(sandbox.at("velox.toml"), sandbox.home().join("velox.toml")).unwrap();
    let file = sandbox.home().join("velox.toml");
    sandbox.vx(&format!("build -c={} -o=out/", file.display())).ok();
    assert!(sandbox.has("out/rr"));
    sandbox.vx(&format!("-c={} -o=other build", file.display())).ok();
    assert!(sandbox.has("other/rr"));
}
