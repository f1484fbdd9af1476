//! Compiling the standard library while modules are being downloaded.

use std::{future::Future, path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    lock::TargetVariant,
    settings::BuildSettings,
    toolchain::{ModuleMode, Toolchain},
};

/// Shorter downloads leave no time to compile anything.
const START_DELAY: Duration = Duration::from_millis(1500);

/// Packages that import most of what RoadRunner uses of the standard library.
const PACKAGES: [&str; 15] = [
    "crypto/tls",
    "database/sql/driver",
    "embed",
    "encoding/gob",
    "encoding/xml",
    "expvar",
    "html/template",
    "log/slog",
    "net/http/httptrace",
    "net/http/httputil",
    "net/http/pprof",
    "net/rpc",
    "os/signal",
    "runtime/trace",
    "text/tabwriter",
];

/// Runs `work`, and compiles the standard library for `variant` into GOCACHE until `work` is done.
pub(crate) async fn beside<T>(
    work: impl Future<Output = T>,
    go: &Toolchain,
    settings: &BuildSettings,
    variant: &TargetVariant,
    directory: &Path,
) -> T {
    let stop = CancellationToken::new();
    let go = go.until(&stop);
    let compile = async {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(START_DELAY) => {}
        }
        let mut arguments = vec!["build", "-trimpath"];
        arguments.extend(settings.compiler_flags().filter(|flags| flags.contains("all=")));
        if settings.race {
            arguments.push("-race");
        }
        arguments.extend(PACKAGES);
        // This only warms the cache; `go build` reports errors.
        let _ = go.run(ModuleMode::ReadOnly, Some(variant), &arguments, directory, None).await;
    };
    let work = async {
        let done = work.await;
        stop.cancel();
        done
    };
    tokio::join!(work, compile).0
}
