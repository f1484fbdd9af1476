//! Downloads from working and faulty proxies, with the resulting cache checked by the go command.
use std::{
    fs,
    io::{Cursor, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::{NamedTempFile, TempDir};
use velox_fetch::{
    download::{DownloadError, DownloadOptions, DownloadRequest, DownloadedModule, Fetcher, Verification},
    http::HttpOptions,
    modcache::{CacheFile, ModCache, ModCacheError},
    proxy::{Netrc, ProxyList, redirect_policy},
    sumdb::{SumDbConfig, SumDbError},
};
use velox_gomod::{module::ModuleVersion, modzip};
use velox_testkit::{Fault, ModuleProxy, plugin};
use zip::{ZipWriter, write::SimpleFileOptions};

/// A machine with its own caches.
struct Machine {
    directory: TempDir,
    options: DownloadOptions,
}

fn module(number: usize) -> ModuleVersion {
    ModuleVersion { path: format!("example.com/Acme/m{number}"), version: "v1.0.0".to_owned() }
}

/// Adds `count` modules to a proxy.
fn add_modules(proxy: ModuleProxy, count: usize) -> ModuleProxy {
    for number in 0..count {
        let ModuleVersion { path, version } = module(number);
        proxy.module(&path, &version, plugin(&path, "hello").files());
    }
    proxy
}

fn proxy(count: usize) -> ModuleProxy {
    add_modules(ModuleProxy::start(), count)
}

fn machine(goproxy: &str) -> Machine {
    trusting("", goproxy)
}

/// A machine that trusts only this certificate authority.
fn trusting(authority: &str, goproxy: &str) -> Machine {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), authority).unwrap();
    let http = HttpOptions {
        ca_bundle: Some(file.path().to_owned()),
        read_timeout: Duration::from_millis(700),
        ..HttpOptions::default()
    };
    let client = http.client(redirect_policy()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = DownloadOptions {
        client,
        cache: ModCache::new(directory.path().join("modules")),
        proxies: ProxyList::parse(goproxy).unwrap(),
        no_proxy: String::new(),
        sum_db: None,
        no_sum_db: String::new(),
        sum_db_state: directory.path().join("pkg/sumdb"),
        netrc: Netrc::default(),
        writable: false,
        max_downloads: 8,
    };
    Machine { directory, options }
}

impl Machine {
    fn proxies(mut self, goproxy: &str) -> Self {
        self.options.proxies = ProxyList::parse(goproxy).unwrap();
        self
    }

    fn verified_by(mut self, gosumdb: &str) -> Self {
        self.options.sum_db = SumDbConfig::parse(gosumdb).unwrap();
        self
    }

    /// Downloads with a new fetcher and runtime.
    fn fetch_all(&self, requests: Vec<DownloadRequest>) -> Vec<Result<DownloadedModule, DownloadError>> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { Fetcher::new(self.options.clone()).fetch_all(requests, &|_, _| ()).await })
    }

    fn fetch(&self, number: usize) -> Result<DownloadedModule, DownloadError> {
        self.fetch_all(vec![request(number)]).remove(0)
    }

    fn cache(&self) -> &ModCache {
        &self.options.cache
    }

    /// The cached file names of a module, without its version.
    fn cached_files(&self, number: usize) -> Vec<String> {
        let folder = self.cache().path(&module(number), CacheFile::Zip).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder.parent().unwrap())
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap().replace("v1.0.0.", ""))
            // Written by the go command.
            .filter(|name| name != "list")
            .collect();
        names.sort();
        if self.cache().dir(&module(number)).unwrap().exists() {
            names.push("its content".to_owned());
        }
        names
    }

    /// The go command in a module that requires the first `count` modules.
    fn go(&self, count: usize, goproxy: &str, gosumdb: &str, arguments: &[&str]) -> Command {
        static APPS: AtomicU32 = AtomicU32::new(0);
        let app = self.directory.path().join(format!("app{}", APPS.fetch_add(1, Ordering::Relaxed)));
        let requires: String =
            (0..count).map(|number| format!("require {} v1.0.0\n", module(number).path)).collect();
        fs::create_dir_all(&app).unwrap();
        fs::write(app.join("go.mod"), format!("module example.com/app\n\ngo 1.21\n\n{requires}")).unwrap();
        let mut command = Command::new("go");
        command
            .args(arguments)
            .current_dir(app)
            .env("GOPATH", self.directory.path())
            .env("GOMODCACHE", self.cache().root())
            .envs([("GOPROXY", goproxy), ("GOSUMDB", gosumdb), ("GOFLAGS", "-mod=mod"), ("GOWORK", "off")])
            .envs([("GONOSUMDB", ""), ("GOPRIVATE", ""), ("GOTOOLCHAIN", "local")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = modzip::remove_all(self.cache().root());
    }
}

fn request(number: usize) -> DownloadRequest {
    DownloadRequest { module: module(number), zip_sums: Vec::new(), mod_sums: Vec::new() }
}

const ALL: [&str; 6] = ["info", "lock", "mod", "zip", "ziphash", "its content"];

fn has_nothing(names: &[String]) -> bool {
    names.is_empty() || names == ["lock"]
}

fn go_said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned())
}

#[test]
fn what_the_database_vouches_for_is_kept_as_go_keeps_it() {
    let proxy = proxy(6);
    let gosumdb = proxy.gosumdb();
    let machine = machine(&proxy.url()).verified_by(&gosumdb);
    for fetched in machine.fetch_all((0..6).map(request).collect()) {
        assert_eq!(fetched.unwrap().verified, Verification::ChecksumDatabase);
    }
    assert_eq!(machine.cached_files(0), ALL);
    let state = machine.directory.path().join("pkg/sumdb/sum.testkit.example/latest");
    let state = fs::read_to_string(state).unwrap();
    assert!(state.starts_with("go.sum database tree\n6\n"), "{state}");

    // The go command verifies everything from the cache, without a go.sum or a proxy.
    proxy.forget_requests();
    proxy.fail("", Fault::Status(500));
    let modules: Vec<String> = (0..6).map(|number| format!("{}@v1.0.0", module(number).path)).collect();
    let arguments: Vec<&str> =
        ["mod", "download"].into_iter().chain(modules.iter().map(String::as_str)).collect();
    let mut go = machine.go(6, &proxy.url(), &gosumdb, &arguments);
    let (good, said) = go_said(&mut go);
    assert!(good, "{said}");
    let sums = fs::read_to_string(go.get_current_dir().unwrap().join("go.sum")).unwrap();
    assert_eq!(sums.lines().count(), 12, "{sums}");
    let (good, said) = go_said(&mut machine.go(6, &proxy.url(), &gosumdb, &["mod", "verify"]));
    assert!(good && said == "all modules verified\n", "{said}");
    assert_eq!(proxy.requests(), [""; 0]);
}

#[test]
fn what_go_left_of_the_database_is_used() {
    let proxy = proxy(6);
    for gosumdb in [proxy.gosumdb(), proxy.gosumdb_direct()] {
        let machine = machine(&proxy.url()).verified_by(&gosumdb);
        let (good, said) = go_said(&mut machine.go(6, &proxy.url(), &gosumdb, &["mod", "download"]));
        assert!(good, "{said}");
        proxy.forget_requests();
        for fetched in machine.fetch_all((0..6).map(request).collect()) {
            let fetched = fetched.unwrap();
            assert_eq!((fetched.verified, fetched.bytes), (Verification::ChecksumDatabase, 0));
        }
        assert_eq!(proxy.requests(), [""; 0]);
    }
}

#[test]
fn of_what_a_build_of_go_left_only_the_information_is_missing() {
    let proxy = proxy(1);
    let machine = machine(&proxy.url());
    machine.fetch(0).unwrap();
    fs::remove_file(machine.cache().path(&module(0), CacheFile::Info).unwrap()).unwrap();
    proxy.forget_requests();
    machine.fetch(0).unwrap();
    assert_eq!(proxy.requests(), ["/example.com/!acme/m0/@v/v1.0.0.info"]);
    assert_eq!(machine.cached_files(0), ALL);
}

#[test]
fn a_proxy_made_of_what_a_build_left_serves_without_information() {
    let (without, with) = (proxy(1), proxy(1));
    without.fail(".info", Fault::Status(404));
    let machine = machine(&without.url());
    for _ in 0..2 {
        machine.fetch(0).unwrap();
        assert_eq!(machine.cached_files(0), ALL[1..]);
    }
    let (good, said) = go_said(&mut machine.go(1, "off", "off", &["mod", "verify"]));
    assert!(good && said == "all modules verified\n", "{said}");
    // The next proxy may have the version's time.
    let machine = self::machine(&format!("{},{}", without.url(), with.url()));
    machine.fetch(0).unwrap();
    assert_eq!(machine.cached_files(0), ALL);
    assert_eq!(with.requests(), ["/example.com/!acme/m0/@v/v1.0.0.info"]);
}

const WRONG: &str = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn a_wrong_sum_of_a_zip_or_a_go_mod_is_refused() {
    let proxy = proxy(3);
    let machine = machine(&proxy.url()).verified_by(&proxy.gosumdb());
    proxy.vouch(&module(0).path, "v1.0.0", WRONG).vouch(&module(1).path, "v1.0.0/go.mod", WRONG);
    for (number, wrong) in [(0, "zip"), (1, "go.mod")] {
        match machine.fetch(number) {
            Err(DownloadError::Mismatch { file, expected, .. }) => {
                assert_eq!((file, &*expected), (wrong, WRONG))
            }
            other => panic!("{other:?}"),
        }
        assert!(has_nothing(&machine.cached_files(number)), "{:?}", machine.cached_files(number));
    }
    // Known checksums are enforced without the database.
    for (zip_sums, mod_sums) in [(vec![WRONG.to_owned()], vec![]), (vec![], vec![WRONG.to_owned()])] {
        let wrong = DownloadRequest { zip_sums, mod_sums, ..request(2) };
        let said = machine.fetch_all(vec![wrong.clone()]).remove(0);
        assert!(matches!(said, Err(DownloadError::Mismatch { .. })), "{said:?}");
        assert!(has_nothing(&machine.cached_files(2)));
    }
    // They are enforced for cached modules too.
    machine.fetch(2).unwrap();
    let known = DownloadRequest { zip_sums: vec![WRONG.to_owned()], ..request(2) };
    assert!(matches!(machine.fetch_all(vec![known]).remove(0), Err(DownloadError::Mismatch { .. })));
}

#[test]
fn a_database_that_lies_is_not_believed() {
    let proxy = proxy(12);
    let machine = machine(&proxy.url()).verified_by(&proxy.gosumdb());
    machine.fetch_all((0..5).map(request).collect());
    let refused = |number: usize| {
        let error = machine.fetch(number).unwrap_err();
        assert!(has_nothing(&machine.cached_files(number)), "{:?}", machine.cached_files(number));
        match error {
            DownloadError::Database { source, .. } => source,
            other => panic!("{other:?}"),
        }
    };
    proxy.fail("/lookup/", Fault::Altered).times(1);
    assert!(matches!(refused(5), SumDbError::Note(_)));
    proxy.fail("/tile/", Fault::Altered).times(1);
    assert!(matches!(refused(6), SumDbError::Log(_)));
    proxy.heal();
    // The server has recovered, and no bad response was cached.
    machine.fetch(5).unwrap();
    machine.fetch(6).unwrap();

    proxy.forge_sum_db();
    assert!(matches!(refused(7), SumDbError::Note(_)));
    let other = ModuleProxy::start();
    let with_other_key =
        Machine { options: machine.options.clone(), directory: tempfile::tempdir().unwrap() }
            .verified_by(&format!("{} {}/sumdb/sum.testkit.example", other.gosumdb(), proxy.url()));
    assert!(with_other_key.fetch(8).is_err());
}

#[test]
fn a_database_may_lag_but_never_tell_another_history() {
    let proxy = proxy(12);
    let gosumdb = proxy.gosumdb();
    let machine = machine(&proxy.url()).verified_by(&gosumdb);
    let elsewhere = self::machine(&proxy.url()).verified_by(&gosumdb);
    for number in 0..5 {
        machine.fetch(number).unwrap();
    }
    elsewhere.fetch(5).unwrap();
    machine.fetch(6).unwrap();
    let latest = machine.directory.path().join("pkg/sumdb/sum.testkit.example/latest");
    let before = fs::read_to_string(&latest).unwrap();
    assert!(before.starts_with("go.sum database tree\n7\n"), "{before}");

    // A lagging mirror's older but consistent tree is accepted.
    proxy.shrink_sum_db(6);
    assert_eq!(machine.fetch(5).unwrap().verified, Verification::ChecksumDatabase);
    assert_eq!(fs::read_to_string(&latest).unwrap(), before, "what was seen isn't forgotten");
    // A tree of the same size with other records is rejected.
    match machine.fetch(9).unwrap_err() {
        DownloadError::Database { source: SumDbError::Security { .. }, .. } => {}
        other => panic!("{other:?}"),
    }
    assert!(has_nothing(&machine.cached_files(9)));
    assert_eq!(fs::read_to_string(&latest).unwrap(), before);

    let proxy = self::proxy(12);
    let machine = self::machine(&proxy.url()).verified_by(&proxy.gosumdb());
    machine.fetch_all((0..5).map(request).collect());
    proxy.fork_sum_db();
    match machine.fetch(8).unwrap_err() {
        DownloadError::Database { source: SumDbError::Security { report, .. }, .. } => {
            assert!(report.contains("proof of misbehavior"), "{report}");
        }
        other => panic!("{other:?}"),
    }
    assert!(has_nothing(&machine.cached_files(8)));
    // Modules that were verified before remain usable.
    assert_eq!(machine.fetch(0).unwrap().bytes, 0);
}

#[test]
fn a_list_falls_through_as_its_commas_and_bars_say() {
    for (separator, fault, falls_through) in [
        (",", Fault::Status(404), true),
        (",", Fault::Status(410), true),
        (",", Fault::Status(500), false),
        (",", Fault::Status(403), false),
        ("|", Fault::Status(500), true),
        ("|", Fault::CutBody, true),
        ("|", Fault::HangUp, true),
    ] {
        let (bad, good) = (proxy(2), proxy(2));
        bad.fail(".mod", fault.clone());
        let machine = machine(&format!("{}{separator}{}", bad.url(), good.url()));
        match machine.fetch(0) {
            Ok(_) => assert!(falls_through, "{separator} {fault:?}"),
            Err(DownloadError::Download { tried, module }) => {
                assert!(!falls_through, "{separator} {fault:?}: {tried:?}");
                assert_eq!(
                    (tried.len(), &*tried[0].host, &*module),
                    (1, &*bad.host(), "example.com/Acme/m0@v1.0.0")
                );
                assert_eq!(good.requests(), [""; 0]);
                assert!(has_nothing(&machine.cached_files(0)));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    // The error lists all attempts.
    let (bad, empty) = (proxy(1), proxy(0));
    bad.fail("", Fault::Status(502));
    let error = machine(&format!("{}|{},off", bad.url(), empty.url())).fetch(0).unwrap_err();
    let said = error.to_string();
    assert!(said.contains(&format!("{}: 502 Bad Gateway", bad.host())), "{said}");
    assert!(said.contains(&format!("{}: 404 Not Found", empty.host())), "{said}");
}

#[test]
fn off_direct_and_private_modules_ask_no_proxy() {
    let proxy = proxy(1);
    assert!(matches!(machine("off").fetch(0), Err(DownloadError::Off { .. })));
    assert!(matches!(machine("direct").fetch(0), Err(DownloadError::NeedsGo { .. })));
    let mut private = machine(&proxy.url());
    private.options.no_proxy = "example.com/acme,example.com/Acme/*".to_owned();
    private = private.verified_by(&proxy.gosumdb());
    assert!(matches!(private.fetch(0), Err(DownloadError::NeedsGo { .. })));
    assert_eq!(proxy.requests(), [""; 0]);

    proxy.fail("", Fault::Status(404));
    match machine(&format!("{},direct", proxy.url())).fetch(0) {
        Err(DownloadError::NeedsGo { tried, .. }) => {
            assert!(tried[0].error.message.starts_with("404 Not Found"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn passing_faults_are_lived_through() {
    let proxy = proxy(1);
    for fault in [
        Fault::CutBody,
        Fault::HangUp,
        Fault::Status(503),
        Fault::TooManyRequests { retry_after: 0 },
        Fault::Moved,
        Fault::Delayed(Duration::from_millis(300)),
    ] {
        proxy.fail(".zip", fault.clone()).times(1);
        let machine = machine(&proxy.url());
        machine.fetch(0).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(machine.cached_files(0), ALL);
        proxy.heal();
    }
    proxy.fail(".zip", Fault::TooManyRequests { retry_after: 1 }).times(1);
    let since = Instant::now();
    machine(&proxy.url()).fetch(0).unwrap();
    assert!(since.elapsed() >= Duration::from_secs(1), "asked again before it was allowed");
}

#[test]
fn lasting_faults_are_told_and_leave_nothing() {
    let proxy = proxy(1);
    let other = r#"{"Version":"v1.0.1","Time":"2024-01-01T00:00:00Z"}"#;
    let long = format!("/{}/@v/v1.0.0.info", "example.com/!acme/m0");
    for (part, fault, sign) in [
        (".zip", Fault::CutBody, "response ended early"),
        (".info", Fault::HangUp, "onnection"),
        (
            ".zip",
            Fault::TooManyRequests { retry_after: 3600 },
            "429 Too Many Requests: too many requests (retry after 3600 s)",
        ),
        (".mod", Fault::Status(401), "401 Unauthorized: "),
        (".info", Fault::Oversized(17 << 20), "16777216 bytes"),
        (".info", Fault::Oversized(10), ".info is not JSON"),
    ] {
        proxy.fail(part, fault.clone());
        let machine = machine(&proxy.url());
        proxy.forget_requests();
        let said = machine.fetch(0).unwrap_err().to_string();
        let start = format!("failed to download example.com/Acme/m0@v1.0.0: {}: ", proxy.host());
        assert!(said.starts_with(&start) && said.contains(sign), "{fault:?}: {said}");
        let tries = proxy.requests().iter().filter(|request| request.ends_with(part)).count();
        assert!((1..=3).contains(&tries), "{fault:?}: {tries} tries");
        assert!(has_nothing(&machine.cached_files(0)), "{fault:?}: {:?}", machine.cached_files(0));
        proxy.heal();
        machine.fetch(0).unwrap();
        assert_eq!(machine.cached_files(0), ALL);
    }
    proxy.fail(".zip", Fault::StalledBody(Duration::from_secs(3))).times(3);
    let said = machine(&proxy.url()).fetch(0).unwrap_err().to_string();
    assert!(said.contains("timed out"), "{said}");
    proxy.heal();
    proxy.serve(&long, other);
    assert!(machine(&proxy.url()).fetch(0).unwrap_err().to_string().contains(".info is not JSON"));
}

#[test]
fn a_proxy_that_dies_midway_delays_nothing_for_long_and_spoils_nothing() {
    let proxy = proxy(40);
    proxy.fail("", Fault::HangUp).after(30);
    let machine = machine(&proxy.url());
    let all = machine.fetch_all((0..40).map(request).collect());
    // Once a request failed after all tries, later ones get a single try. Until then, the three requests of
    // each of the 8 concurrent downloads get all three tries.
    let (files, tries_in_flight) = (40 * 3, 8 * 3 * 2);
    let requests = proxy.requests().len();
    assert!(requests <= files + tries_in_flight, "{requests} requests");
    let good = all.iter().filter(|fetched| fetched.is_ok()).count();
    assert!((1..40).contains(&good), "{good} came");
    for (number, fetched) in all.iter().enumerate() {
        match fetched {
            Ok(_) => assert_eq!(machine.cached_files(number), ALL),
            Err(_) => assert!(has_nothing(&machine.cached_files(number))),
        }
    }
    proxy.heal();
    for fetched in machine.fetch_all((0..40).map(request).collect()) {
        fetched.unwrap();
    }
    let (good, said) = go_said(&mut machine.go(40, "off", "off", &["mod", "download"]));
    assert!(good, "{said}");
    assert_eq!(go_said(&mut machine.go(40, "off", "off", &["mod", "verify"])).1, "all modules verified\n");
}

/// 40 modules, three files each: without a limit, hours of waiting for a minute each.
#[test]
fn a_proxy_that_never_answers_is_asked_few_times_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicU32::new(0));
    thread::spawn({
        let connections = Arc::clone(&connections);
        // The connections stay open.
        move || {
            let _open: Vec<_> =
                listener.incoming().inspect(|_| _ = connections.fetch_add(1, Ordering::SeqCst)).collect();
        }
    });
    let machine = machine(&format!("http://{address}"));
    let all = machine.fetch_all((0..40).map(request).collect());
    assert_eq!(all.len(), 40);
    for fetched in all {
        let message = fetched.unwrap_err().to_string();
        assert!(message.contains(&format!("{address}: ")), "{message}");
        assert!(message.contains("timed out") || message.contains("not asked again"), "{message}");
    }
    // Eight downloads at once, each with concurrent requests, and one retry.
    let connections = connections.load(Ordering::SeqCst);
    assert!((1..=8 * 3 * 2).contains(&connections), "{connections}");
}

#[test]
fn a_login_is_sent_over_https_only_and_never_shown() {
    let secret = "s3cret%21";
    let proxy = add_modules(ModuleProxy::start_tls(), 1);
    proxy.demand_login("me", "s3cret!");
    let trusting = |goproxy: &str| self::trusting(proxy.ca(), goproxy);
    let with = |password: &str| format!("https://me:{password}@{}", proxy.host());
    trusting(&with(secret)).fetch(0).unwrap();

    let mut by_netrc = trusting(&proxy.url());
    by_netrc.options.netrc = Netrc::parse(&format!("machine {} login me password s3cret!", proxy.host()));
    by_netrc.fetch(0).unwrap();
    // As in the go command, credentials don't apply to other ports.
    by_netrc.options.netrc = Netrc::parse("machine 127.0.0.1 login me password s3cret!");
    modzip::remove_all(by_netrc.cache().root()).unwrap();
    assert!(by_netrc.fetch(0).unwrap_err().to_string().contains("401 Unauthorized"));

    let wrong = trusting(&with("wr0ng")).fetch(0).unwrap_err();
    let shown = format!("{wrong} {wrong:?}");
    assert!(shown.contains("401") && shown.contains(&proxy.host()) && !shown.contains("wr0ng"), "{shown}");
    // A certificate of an unknown authority.
    let untrusted = machine(&with(secret)).fetch(0).unwrap_err();
    let shown = format!("{untrusted} {untrusted:?}");
    assert!(shown.contains("certificate") && !shown.contains("s3cret"), "{shown}");

    let plain = self::proxy(1);
    let mut over_http = machine(&format!("http://me:{secret}@{}", plain.host()));
    let shown = over_http.fetch(0).unwrap_err().to_string();
    assert!(shown.contains("not sent over plain HTTP") && !shown.contains("s3cret"), "{shown}");
    assert_eq!(plain.requests(), [""; 0]);
    plain.demand_login("me", "s3cret!");
    over_http.options.netrc = Netrc::parse(&format!("machine {} login me password s3cret!", plain.host()));
    over_http = over_http.proxies(&plain.url());
    assert!(over_http.fetch(0).unwrap_err().to_string().contains("401"), "netrc is for HTTPS");
}

fn zip_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in files {
        let options = SimpleFileOptions::default();
        let name = name.replace("@@", "example.com/Acme/m0@v1.0.0/");
        if *mode == 0o120_000 {
            zip.add_symlink(name, String::from_utf8_lossy(content), options).unwrap();
        } else {
            zip.start_file(name, options.unix_permissions(*mode)).unwrap();
            zip.write_all(content).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_hostile_zip_is_refused_and_leaves_nothing() {
    let go_mod = ("@@go.mod", &b"module example.com/Acme/m0\n"[..], 0o644);
    let lying = {
        // A file with a declared size of ten bytes and a megabyte of content.
        let mut zip = zip_of(&[go_mod, ("@@big.go", &vec![b' '; 1 << 20], 0o644)]);
        let said = (1_u32 << 20).to_le_bytes();
        for at in 0..zip.len() - 4 {
            if zip[at..at + 4] == said {
                zip[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
            }
        }
        zip
    };
    let large = vec![0; (16 << 20) + 1];
    for (what, zip) in [
        ("leaves", zip_of(&[go_mod, ("@@../../../../escaped.go", b"x", 0o644)])),
        ("leaves at once", zip_of(&[go_mod, ("../../../../escaped.go", b"x", 0o644)])),
        ("is absolute", zip_of(&[go_mod, ("/tmp/velox-escaped.go", b"x", 0o644)])),
        ("is absolute inside", zip_of(&[go_mod, ("@@/tmp/velox-escaped.go", b"x", 0o644)])),
        ("is a link", zip_of(&[go_mod, ("@@link", b"/etc/passwd", 0o120_000)])),
        ("differs by case", zip_of(&[go_mod, ("@@a.go", b"x", 0o644), ("@@A.go", b"y", 0o644)])),
        ("is of another module", zip_of(&[("example.com/other@v1.0.0/go.mod", b"module x\n", 0o644)])),
        ("is a bomb", zip_of(&[go_mod, ("@@LICENSE", &large, 0o644)])),
        ("lies", lying),
        ("is cut", zip_of(&[go_mod])[..60].to_vec()),
        ("is none", b"<html>log in first</html>".to_vec()),
        ("is empty", Vec::new()),
    ] {
        let proxy = proxy(1);
        proxy.serve("/example.com/!acme/m0/@v/v1.0.0.zip", zip);
        let machine = machine(&proxy.url());
        match machine.fetch(0) {
            Err(DownloadError::InvalidZip { host, module, .. }) => {
                assert_eq!((&*host, &*module), (&*proxy.host(), "example.com/Acme/m0@v1.0.0"), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(has_nothing(&machine.cached_files(0)), "{what}: {:?}", machine.cached_files(0));
        let names: Vec<_> =
            fs::read_dir(machine.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["modules"], "{what}");
        assert!(!Path::new("/tmp/velox-escaped.go").exists());
    }
}

#[test]
fn go_and_vx_fetch_into_one_cache_at_once() {
    let proxy = proxy(25);
    proxy.fail(".zip", Fault::Delayed(Duration::from_millis(20))).times(30);
    let machine = machine(&proxy.url());
    let gos: Vec<_> =
        (0..3).map(|_| machine.go(25, &proxy.url(), "off", &["mod", "download"]).spawn().unwrap()).collect();
    std::thread::scope(|scope| {
        for start in [0, 8, 16] {
            let machine = &machine;
            scope.spawn(move || {
                let numbers = (0..25).map(|number| request((number + start) % 25)).collect();
                for fetched in machine.fetch_all(numbers) {
                    fetched.unwrap();
                }
            });
        }
    });
    for go in gos {
        let output = go.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for number in 0..25 {
        assert_eq!(machine.cached_files(number), ALL);
    }
    let (good, said) = go_said(&mut machine.go(25, "off", "off", &["mod", "verify"]));
    assert!(good && said == "all modules verified\n", "{said}");
}

#[test]
fn what_a_killed_process_left_is_made_good() {
    let proxy = proxy(3);
    let machine = machine(&proxy.url());
    for fetched in machine.fetch_all((0..3).map(request).collect()) {
        fetched.unwrap();
    }
    let path = |number: usize, part| machine.cache().path(&module(number), part).unwrap();
    // Killed during a download.
    modzip::remove_all(&machine.cache().dir(&module(0)).unwrap()).unwrap();
    for part in [CacheFile::Info, CacheFile::Mod, CacheFile::ZipHash] {
        fs::remove_file(path(0, part)).unwrap();
    }
    fs::rename(path(0, CacheFile::Zip), path(0, CacheFile::Zip).with_extension("zip123.tmp")).unwrap();
    // Killed while unpacking.
    fs::write(path(1, CacheFile::Partial), "").unwrap();
    let dir = machine.cache().dir(&module(1)).unwrap();
    modzip::remove_all(&dir.join("plugin.go")).unwrap();
    // Killed between writing the zip and its hash.
    modzip::remove_all(&machine.cache().dir(&module(2)).unwrap()).unwrap();
    for part in [CacheFile::Info, CacheFile::Mod, CacheFile::ZipHash] {
        fs::remove_file(path(2, part)).unwrap();
    }
    for fetched in machine.fetch_all((0..3).map(request).collect()) {
        fetched.unwrap();
    }
    for number in 0..3 {
        assert_eq!(machine.cached_files(number), ALL, "{number}");
    }
    assert!(go_said(&mut machine.go(3, "off", "off", &["mod", "download"])).0);
    assert_eq!(go_said(&mut machine.go(3, "off", "off", &["mod", "verify"])).1, "all modules verified\n");
}

#[test]
fn another_module_of_the_same_name_in_the_cache_is_no_reason_to_replace_it() {
    let proxy = proxy(1);
    let machine = machine(&proxy.url());
    machine.fetch(0).unwrap();
    let before = fs::read(machine.cache().path(&module(0), CacheFile::Zip).unwrap()).unwrap();
    for part in [CacheFile::Info, CacheFile::Mod] {
        fs::remove_file(machine.cache().path(&module(0), part).unwrap()).unwrap();
    }
    proxy.fail(".zip", Fault::Altered);
    let conflict = machine.fetch(0).unwrap_err();
    assert!(
        matches!(&conflict, DownloadError::Cache(ModCacheError::Conflict { file: "zip", .. })),
        "{conflict:?}"
    );
    assert_eq!(fs::read(machine.cache().path(&module(0), CacheFile::Zip).unwrap()).unwrap(), before);
}

#[test]
fn a_cache_that_cannot_be_used_is_named() {
    let proxy = proxy(1);
    let mut machine = machine(&proxy.url());
    let file = machine.directory.path().join("a file");
    fs::write(&file, "").unwrap();
    machine.options.cache = ModCache::new(file.join("modules"));
    let said = machine.fetch(0).unwrap_err();
    assert!(matches!(&said, DownloadError::Cache(ModCacheError::File { .. })), "{said:?}");
    assert!(said.to_string().contains("a file/modules"), "{said}");

    // Without a writable state, verification fails.
    machine.options.cache = ModCache::new(machine.directory.path().join("modules"));
    machine.options.sum_db_state = file.join("sumdb");
    let machine = machine.verified_by(&proxy.gosumdb());
    let said = machine.fetch(0).unwrap_err().to_string();
    assert!(
        said.contains("failed to read") && said.contains("a file/sumdb/sum.testkit.example/latest"),
        "{said}"
    );
    assert!(has_nothing(&machine.cached_files(0)));
}
