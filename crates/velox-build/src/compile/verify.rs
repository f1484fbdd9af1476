//! Verification of a compiled binary: its build information against the [`Lock`], and a smoke test.

use std::{path::Path, sync::Arc, time::Duration};

use velox_gomod::{buildinfo::BuildInfo, goversion};

use crate::{
    error::Error,
    lock::{Lock, LockedTarget},
    process::{CommandRunner, Invocation},
    stamp::Stamp,
};

const SMOKE_TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Compares the modules in the build information of the binary with the lock.
pub(crate) fn build_information(binary: &Path, lock: &Lock, target: &LockedTarget) -> Result<(), Error> {
    let info = BuildInfo::read(binary).map_err(|error| {
        Error::build(format!("failed to read the build information of {}: {error}", binary.display()))
    })?;
    let mut differences = Vec::new();
    for (path, selected) in &lock.selected(target) {
        let Some(module) = info.deps.iter().find(|module| module.path == *path) else {
            differences.push(format!("{path} {} is missing", selected.version));
            continue;
        };
        let replaced = module.replace.as_ref().map(|new| {
            let local = new.path.starts_with("./");
            (new.path.clone(), (!local).then(|| new.version.clone()))
        });
        if module.version != selected.version || replaced != selected.replacement {
            differences.push(format!("{path} is {}, expected {}", module.version, selected.version));
        }
    }
    if goversion::toolchain_name(&info.go_version) != lock.go_version {
        differences.push(format!("compiled with {}, expected {}", info.go_version, lock.go_version));
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Error::build("verification failed: the binary does not contain the resolved modules")
            .output(differences))
    }
}

/// Runs `rr --version` and checks that it prints the stamp.
pub(crate) async fn smoke_test(
    binary: &Path,
    children: &CommandRunner,
    stamp: &Stamp,
    directory: &Path,
) -> Result<(), Error> {
    // The binary must not see the tokens of git and go.
    let children = CommandRunner { secrets: Arc::default(), ..children.clone() };
    let run = children.run(Invocation {
        name: "rr",
        program: binary,
        arguments: vec!["--version".into()],
        directory,
        environment: Vec::new(),
        max_silence: None,
        on_line: None,
    });
    let skip = "skip the smoke test with --no-smoke-test if this machine can't run the binary";
    let finished = tokio::time::timeout(SMOKE_TEST_TIMEOUT, run).await.map_err(|_| {
        Error::build(format!(
            "smoke test failed: `rr --version` did not exit within {} seconds",
            SMOKE_TEST_TIMEOUT.as_secs()
        ))
        .help(skip)
    })??;
    if !finished.status.success() {
        return Err(Error::build(format!(
            "smoke test failed: `rr --version` exited with {}",
            finished.status
        ))
        .help(skip)
        .output(finished.stderr));
    }
    if !finished.stdout.contains(&stamp.version) {
        return Err(Error::build(format!(
            "smoke test failed: `rr --version` does not print {}",
            stamp.version
        ))
        .help(
            "this RoadRunner may have another internal/meta package; skip the smoke test with --no-smoke-test",
        )
        .output(finished.stdout.lines().map(str::to_owned).collect()));
    }
    Ok(())
}
