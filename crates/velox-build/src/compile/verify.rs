//! Whether the binary is what was asked for: its own build information against the [`Lock`], and one run of it.

use std::{path::Path, sync::Arc, time::Duration};

use velox_gomod::{buildinfo::BuildInfo, goversion};

use crate::{
    error::Error,
    lock::{Lock, LockedTarget},
    process::{CommandRunner, Invocation},
    stamp::Stamp,
};

const SMOKE_TEST_TIME: Duration = Duration::from_secs(60);

/// Reads the build information back and compares every module with the Lock.
pub(crate) fn build_information(binary: &Path, lock: &Lock, target: &LockedTarget) -> Result<(), Error> {
    let info = BuildInfo::read(binary).map_err(|error| {
        Error::build(format!("can't read the build information of {}: {error}", binary.display()))
    })?;
    let mut differences = Vec::new();
    for (path, selected) in &lock.selected(target)? {
        let Some(module) = info.deps.iter().find(|module| module.path == *path) else {
            differences.push(format!("{path} {} isn't in the binary", selected.version));
            continue;
        };
        let replaced = module.replace.as_ref().map(|new| {
            let local = new.path.starts_with("./");
            (new.path.clone(), (!local).then(|| new.version.clone()))
        });
        if module.version != selected.version || replaced != selected.replacement {
            differences.push(format!("{path} is at {}, not at {}", module.version, selected.version));
        }
    }
    if goversion::name(&info.go_version) != lock.go_version {
        differences.push(format!("compiled by {}, not by {}", info.go_version, lock.go_version));
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(Error::build("the binary isn't made of what was resolved").output(differences))
    }
}

/// Runs `rr --version` and looks for the stamp in what it says.
pub(crate) async fn smoke_test(
    binary: &Path,
    children: &CommandRunner,
    stamp: &Stamp,
    directory: &Path,
) -> Result<(), Error> {
    // Tokens are for git and go: the server is everybody's code.
    let children = CommandRunner { secrets: Arc::default(), ..children.clone() };
    let run = children.run(Invocation {
        name: "rr",
        program: binary,
        arguments: vec!["--version".into()],
        directory,
        environment: Vec::new(),
        on_line: None,
    });
    let skip = "leave the smoke test out with --no-smoke-test where this machine can't run it";
    let finished = tokio::time::timeout(SMOKE_TEST_TIME, run).await.map_err(|_| {
        Error::build(format!("`rr --version` didn't end within {} seconds", SMOKE_TEST_TIME.as_secs()))
            .help(skip)
    })??;
    if !finished.status.success() {
        return Err(Error::build(format!(
            "the new server fails its smoke test: `rr --version` ended with {}",
            finished.status
        ))
        .help(skip)
        .output(finished.stderr));
    }
    if !finished.stdout.contains(&stamp.version) {
        return Err(Error::build(format!(
            "the new server doesn't say its version: {} isn't in what `rr --version` prints",
            stamp.version
        ))
        .help(
            "is internal/meta of this RoadRunner another one? Leave the smoke test out with --no-smoke-test",
        )
        .output(finished.stdout.lines().map(str::to_owned).collect()));
    }
    Ok(())
}
