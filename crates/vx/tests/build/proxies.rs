//! Faulty and malicious module proxies and checksum databases: the error, and that the next build succeeds.

use std::{fs, io::Read as _, process::Stdio, time::Duration};

use velox_fetch::modcache::ModCache;
use velox_gomod::module::ModuleVersion;
use velox_testkit::{Fault, ModuleProxy};

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains, configuration};

const HELLO: &str = "example.com/acme/hello";

fn fill(proxy: ModuleProxy) -> ModuleProxy {
    proxy.roadrunner(RELEASE).plugin(HELLO, "v1.0.0");
    proxy
}

/// A sandbox with its own module cache; public modules come from the shared one, others from `goproxy`.
fn machine(goproxy: &str) -> Sandbox {
    let sandbox = Sandbox::new().own_module_cache().plugins("hello@v1.0.0");
    let public = sandbox.value("GOPROXY");
    let shared = public.split(',').next().unwrap();
    sandbox.env("GOPROXY", format!("{shared},{goproxy}"))
}

fn cache(sandbox: &Sandbox) -> ModCache {
    ModCache::new(sandbox.value("GOMODCACHE"))
}

fn hello() -> ModuleVersion {
    ModuleVersion::new(HELLO, "v1.0.0")
}

/// Asserts that a failed attempt left nothing that a build would accept as the module. The go command, used
/// as the last fallback, may keep a version's time and go.mod.
fn assert_nothing_of_hello(sandbox: &Sandbox) {
    let folder = cache(sandbox).root().join("cache/download").join(HELLO).join("@v");
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let harmless = [".lock", ".info", ".mod"].iter().any(|end| name.ends_with(end)) || name == "list";
        assert!(harmless, "{name}");
    }
    assert!(!cache(sandbox).dir(&hello()).unwrap().exists());
    assert!(!sandbox.has("velox.lock"));
}

#[test]
fn proxy_errors_name_plugin_host_and_remedy() {
    let proxy = fill(ModuleProxy::start());
    let sandbox = machine(&proxy.url());
    for (part, fault, sign, way_out) in [
        (".zip", Fault::Status(500), "500 Internal Server Error", "try again"),
        (".mod", Fault::Status(404), "404 Not Found", ""),
        (".info", Fault::Status(403), "403 Forbidden", "a login at the proxy"),
        (".zip", Fault::TooManyRequests { retry_after: 3600 }, "429 Too Many Requests", "try again later"),
        (".zip", Fault::CutBody, "EOF", "try again"),
        (".zip", Fault::HangUp, "EOF", "try again"),
    ] {
        proxy.fail(&format!("{HELLO}/@v/v1.0.0{part}"), fault.clone());
        let message = sandbox.vx("lock").fails(1);
        for text in ["plugin hello", &proxy.host(), sign, way_out, "velox.toml:6"] {
            assert!(message.contains(text), "{fault:?} lacks {text}:\n{message}");
        }
        assert_nothing_of_hello(&sandbox);
        proxy.heal();
        // The go command's fallback may have cached the file that the next fault affects.
        fs::remove_dir_all(cache(&sandbox).root().join("cache/download/example.com")).unwrap();
    }
    sandbox.vx("lock").ok();
    sandbox.vx("fetch --locked").ok();
    assert!(cache(&sandbox).contains(&hello()));
}

#[test]
fn missing_version_error_lists_the_nearest() {
    let proxy = fill(ModuleProxy::start());
    // No forge is reachable.
    let message = |text: &str| {
        let sandbox = machine(&proxy.url()).file("velox.toml", text).env("HTTPS_PROXY", "http://127.0.0.1:1");
        sandbox.vx("lock").fails(1)
    };
    let missing = configuration("hello@v1.0.0").replace("v1.0.0", "v1.0.1");
    for status in [403, 404, 410] {
        proxy.fail(&format!("{HELLO}/@v/v1.0.1"), Fault::Status(status));
        let message = message(&missing);
        let [nearest, login] = ["similar versions: v1.0.0", "a login"].map(|text| message.find(text));
        assert!(nearest.is_some_and(|nearest| login.is_none_or(|login| nearest < login)), "{message}");
        assert_eq!(login.is_some(), status == 403, "{message}");
        proxy.heal();
    }
    let misspelt = configuration("hello@v1.0.0")
        .replace(HELLO, "github.com/roadrunner-server/htpp/v5")
        .replace("v1.0.0", "v5.1.0");
    let message = message(&misspelt);
    assert_contains(&message, &["404 Not Found", "did you mean `github.com/roadrunner-server/http/v5`?"]);
}

#[test]
fn errors_of_proxies_are_kept_when_go_is_asked() {
    let proxy = fill(ModuleProxy::start());
    let configuration = configuration("hello@v1.0.0").replace("example.com", "velox.invalid");
    let sandbox = machine(&format!("{},direct", proxy.url())).file("velox.toml", configuration);
    let message = sandbox.vx("lock").fails(1);
    let before = format!("{}: 404 Not Found", proxy.host());
    for text in ["plugin hello", "velox.invalid", "tried before: ", &before] {
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn goproxy_off_is_named_in_the_error() {
    let sandbox = machine("off");
    sandbox.vx("lock").fails_with(1, &["GOPROXY", "allows no download"]);
}

#[test]
fn private_module_is_never_requested_from_a_proxy() {
    let proxy = fill(ModuleProxy::start());
    let configuration = configuration("hello@v1.0.0").replace("example.com", "velox.invalid");
    for variable in ["GOPRIVATE", "GONOPROXY"] {
        let sandbox =
            machine(&proxy.url()).file("velox.toml", &configuration).env(variable, "velox.invalid/acme");
        sandbox.vx("lock").fails_with(1, &["plugin hello", "velox.invalid"]);
        let asked = proxy.requests();
        assert!(!asked.iter().any(|path| path.contains("velox.invalid")), "{asked:?}");
    }
}

#[test]
fn proxy_logins_work_and_are_never_shown() {
    let proxy = fill(ModuleProxy::start_tls());
    proxy.demand_login("me", "s3cret!");
    let ca = |sandbox: Sandbox| {
        let sandbox = sandbox.file("ca.pem", proxy.ca());
        let file = sandbox.at("ca.pem");
        sandbox.env("SSL_CERT_FILE", file)
    };
    let wrong = format!("https://me:wr0ng-s3cret@{}", proxy.host());
    let sandbox = ca(machine(&wrong));
    for arguments in ["lock", "lock --format json", "lock -v"] {
        let ran = sandbox.vx(arguments);
        let shown = ran.fails(1) + &ran.stdout();
        assert!(shown.contains("401 Unauthorized") && shown.contains(&proxy.host()), "{shown}");
        assert!(!shown.contains("wr0ng-s3cret"), "{shown}");
    }
    assert_nothing_of_hello(&sandbox);
    // Without the certificate of the authority.
    let message = machine(&wrong).without("SSL_CERT_FILE").vx("lock").fails(1);
    assert!(message.contains("certificate") && message.contains("SSL_CERT_FILE"), "{message}");
    assert!(!message.contains("wr0ng-s3cret"), "{message}");

    let sandbox = ca(machine(&proxy.url()));
    let login = format!("machine {} login me password s3cret!\n", proxy.host());
    fs::write(sandbox.home().join(".netrc"), login).unwrap();
    let ran = sandbox.vx("lock -v");
    assert!(!(ran.ok() + &ran.stderr()).contains("s3cret!"));
    let lock = sandbox.read("velox.lock");
    assert!(!lock.contains("s3cret"));
}

/// A sandbox whose checksum database covers only this proxy's modules; others are unverified.
fn verified(proxy: &ModuleProxy) -> Sandbox {
    machine(&proxy.url()).env("GOSUMDB", proxy.gosumdb()).env("GONOSUMDB", "[^e]*")
}

#[test]
fn checksum_database_decides() {
    let proxy = fill(ModuleProxy::start());
    let sandbox = verified(&proxy);
    sandbox.vx("lock").ok();
    let asked = proxy.requests();
    assert!(asked.iter().any(|path| path.ends_with("/lookup/example.com/acme/hello@v1.0.0")), "{asked:?}");
    assert!(sandbox.home().join("go/pkg/sumdb/sum.testkit.example/latest").is_file());

    let proxy = fill(ModuleProxy::start());
    proxy.vouch(HELLO, "v1.0.0", "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let sandbox = verified(&proxy);
    sandbox.vx("lock").fails_with(1, &[HELLO, "verification failed: checksum mismatch for"]);
    assert_nothing_of_hello(&sandbox);

    let proxy = fill(ModuleProxy::start());
    proxy.forge_sum_db();
    let sandbox = verified(&proxy);
    sandbox.vx("lock").fails_with(1, &[HELLO, "verification failed", "signature"]);
    assert_nothing_of_hello(&sandbox);

    let proxy = fill(ModuleProxy::start());
    proxy.fail("/lookup/", Fault::Status(500));
    let sandbox = verified(&proxy);
    sandbox.vx("lock").fails_with(1, &["plugin hello", "500"]);
    assert_nothing_of_hello(&sandbox);
    proxy.heal();
    sandbox.vx("lock").ok();
}

#[test]
fn invalid_zip_is_rejected() {
    let proxy = fill(ModuleProxy::start());
    proxy.serve(&format!("/{HELLO}/@v/v1.0.0.zip"), "<html>please log in</html>");
    let sandbox = machine(&proxy.url());
    sandbox.vx("lock").fails_with(1, &[&proxy.host(), "invalid zip for module example.com/acme/hello"]);
    assert_nothing_of_hello(&sandbox);
}

/// A `vx` process that waits for the rest of a zip.
fn stuck(sandbox: &Sandbox, proxy: &ModuleProxy) -> std::process::Child {
    proxy.fail(&format!("{HELLO}/@v/v1.0.0.zip"), Fault::StalledBody(Duration::from_secs(50)));
    let mut command = sandbox.vx_command("lock");
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let folder = cache(sandbox).root().join("cache/download").join(HELLO).join("@v");
    let half = || {
        fs::read_dir(&folder).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().to_string_lossy().ends_with(".tmp") && entry.metadata().unwrap().len() > 0
        })
    };
    while !half() {
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn download_resumes_after_kill_9() {
    let proxy = fill(ModuleProxy::start());
    for go_first in [true, false] {
        let sandbox = machine(&proxy.url());
        let mut child = stuck(&sandbox, &proxy);
        child.kill().unwrap();
        child.wait().unwrap();
        proxy.heal();
        if go_first {
            sandbox.run("go mod download example.com/acme/hello@v1.0.0");
        }
        sandbox.vx("lock").ok();
        let folder = cache(&sandbox).root().join("cache/download").join(HELLO).join("@v");
        let names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{names:?}");
        assert!(cache(&sandbox).contains(&hello()));
    }
}

#[test]
fn ctrl_c_ends_downloads_and_lock_waits() {
    use rustix::process::{Pid, Signal, kill_process};
    let proxy = fill(ModuleProxy::start());
    let sandbox = machine(&proxy.url());
    let interrupted = |mut child: std::process::Child| {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let mut message = String::new();
        child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{message}");
    };
    interrupted(stuck(&sandbox, &proxy));
    assert_nothing_of_hello(&sandbox);
    proxy.heal();

    let held = cache(&sandbox).lock(&hello()).unwrap();
    let mut command = sandbox.vx_command("lock");
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    interrupted(child);
    drop(held);
    sandbox.vx("lock").ok();
}

#[test]
fn fetch_resumes_after_the_proxy_died() {
    let proxy = fill(ModuleProxy::start());
    let sandbox = machine(&proxy.url());
    sandbox.vx("lock").ok();
    let empty = sandbox.at("../other-modules");
    let sandbox = sandbox.env("GOMODCACHE", &empty);
    proxy.fail("", Fault::HangUp);
    let message = sandbox.vx("fetch --locked").fails(1);
    for text in ["of RoadRunner", "of plugin hello", HELLO, &proxy.host(), "try again"] {
        assert!(message.contains(text), "{text}: {message}");
    }
    proxy.heal();
    proxy.forget_requests();
    sandbox.vx("fetch --locked").ok();
    assert!(proxy.requests().iter().all(|path| path.contains("hello") || path.contains("/roadrunner/")));
    // Everything is cached: the next fetch sends no request.
    proxy.forget_requests();
    sandbox.vx("fetch --locked").ok();
    assert_eq!(proxy.requests(), [""; 0]);
    sandbox.run("chmod -R u+w ../other-modules");
}
