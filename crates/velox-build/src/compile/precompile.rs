//! Compiling the standard library while modules are being downloaded.

use std::time::Duration;

use crate::{
    context::{BuildContext, BuildTools},
    lock::TargetVariant,
    toolchain::ModuleMode,
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
    context: &BuildContext<'_>,
    tools: &BuildTools,
    variant: &TargetVariant,
    work: impl Future<Output = T>,
) -> T {
    let stop = context.cancel.child_token();
    let (go, settings) = (tools.go.until(&stop), &context.settings);
    let compile = async {
        if stop.run_until_cancelled(tokio::time::sleep(START_DELAY)).await.is_none() {
            return;
        }
        let mut arguments = vec!["build", "-trimpath"];
        arguments.extend(settings.compiler_flags().filter(|flags| flags.contains("all=")));
        if settings.race {
            arguments.push("-race");
        }
        arguments.extend(PACKAGES);
        // This only warms the cache; `go build` reports errors.
        let _ = go.run(ModuleMode::ReadOnly, Some(variant), &arguments, tools.scratch.path(), None).await;
    };
    let work = async {
        let done = work.await;
        stop.cancel();
        done
    };
    tokio::join!(work, compile).0
}
