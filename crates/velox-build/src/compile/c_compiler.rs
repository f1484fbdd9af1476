//! What the race detector and cgo need of this machine.

use std::path::Path;

use velox_fetch::goenv::GoEnv;
use velox_manifest::GoTarget;

use crate::{context::BuildContext, error::Error, process::CommandRunner};

/// The platforms of the race detector (<https://go.dev/doc/articles/race_detector#Requirements>).
const RACE_TARGETS: [&str; 11] = [
    "darwin/amd64",
    "darwin/arm64",
    "freebsd/amd64",
    "linux/amd64",
    "linux/arm64",
    "linux/loong64",
    "linux/ppc64le",
    "linux/riscv64",
    "linux/s390x",
    "netbsd/amd64",
    "windows/amd64",
];

/// Fails before anything is downloaded if the race detector or cgo can't work.
pub(crate) fn check(context: &BuildContext<'_>) -> Result<(), Error> {
    let settings = &context.settings;
    let host = GoTarget::host();
    if settings.race {
        if let Some(foreign) = settings.targets.iter().find(|target| **target != host) {
            return Err(Error::configuration(format!(
                "the race detector can't be compiled for {foreign} on {host}: it requires a C compiler and a C library of the target"
            ))
            .help(format!("build on a {foreign} machine, or without `race` (--race, `[debug] race`, `-race`)")));
        }
        if !RACE_TARGETS.contains(&host.to_string().as_str()) {
            return Err(Error::configuration(format!("Go has no race detector for {host}"))
                .help("build without `race` (--race, `[debug] race`, `-race`)"));
        }
    }
    // A cross compiler is only known to the user, in CC.
    if !settings.cgo || !settings.targets.contains(&host) {
        return Ok(());
    }
    let environment = &context.request.environment;
    let configured = GoEnv::read(environment, None).value("CC");
    let fallback = if matches!(host.os.as_str(), "darwin" | "freebsd" | "openbsd") { "clang" } else { "gcc" };
    let compiler = configured.split_whitespace().next().unwrap_or(fallback);
    let commands = CommandRunner::new(context.request, &context.reporter, &context.cancel);
    let exists = match compiler.contains(['/', '\\']) {
        true => Path::new(compiler).is_file(),
        false => commands.find(compiler).is_some(),
    };
    if exists {
        return Ok(());
    }
    let purpose = if settings.race { "the race detector" } else { "CGO_ENABLED=1" };
    Err(Error::build(format!("{purpose} requires a C compiler, but `{compiler}` was not found")).help(
        "install one (Debian: apt-get install gcc libc6-dev; Alpine: apk add gcc musl-dev), or name it in CC",
    ))
}
