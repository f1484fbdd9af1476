//! The build service compiles untrusted code: the limits of a job and how they are enforced.
#![cfg(unix)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use velox_api::{BuildFailure, BuildSpec, FailureKind, LogEntry, PluginSpec, ReplaceSpec};
use velox_service::{
    Build, BuildResult, JobLimits, JobRunner as _, NewBuild, RunOutcome, ServiceOptions, Tenant,
    job::ProcessRunner,
};
use velox_testkit::{Fault, Internet, ModuleProxy, Repo, TestForge, plugin};

use crate::support::{
    sandbox::{RELEASE, Sandbox, VX, program, wait_until},
    small_disk::SmallDisk,
};

const HELLO: &str = "example.com/acme/hello";

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A service in its own sandbox, with the operator's module proxy.
struct Machine {
    sandbox: Sandbox,
    proxy: ModuleProxy,
    options: ServiceOptions,
}

impl Machine {
    fn new() -> Self {
        Self::with(ModuleProxy::start())
    }

    fn with(proxy: ModuleProxy) -> Self {
        proxy.roadrunner(RELEASE).plugin(HELLO, "v1.0.0");
        let sandbox = Sandbox::new().own_module_cache();
        // Public modules come from the tests' shared cache, others from the proxy.
        let public = sandbox.value("GOPROXY");
        let shared = public.split(',').next().unwrap();
        let sandbox = sandbox.env("GOPROXY", format!("{shared},{}", proxy.url()));
        let environment = ["PATH", "HOME", "GOMODCACHE", "GOCACHE", "GOPROXY", "GONOSUMDB"]
            .map(|name| (name.to_owned(), sandbox.value(name)));
        let options = ServiceOptions {
            data: sandbox.at("data"),
            jobs: 1,
            job_user: is_root().then(|| "root".to_owned()),
            program: PathBuf::from(VX),
            environment: environment.into(),
            ..ServiceOptions::default()
        };
        Self { sandbox, proxy, options }
    }

    /// In this network, with these modules fetched directly.
    fn behind(internet: &Internet, direct: &[&str]) -> Self {
        let mut machine = Self::new();
        machine.options.environment.extend(internet.environment());
        machine.options.policy.direct = direct.iter().map(|pattern| (*pattern).to_owned()).collect();
        machine
    }

    /// With the caches of the service, not those of the tests' user.
    fn own_caches(mut self) -> Self {
        self.options.environment.retain(|name, _| name != "GOMODCACHE" && name != "GOCACHE");
        self
    }

    /// Sets a variable of the service's environment.
    fn env(mut self, name: &str, value: &str) -> Self {
        self.options.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Puts a shell script in front of the go command; `$GO` is the real one, and `$HOME` is writable.
    fn go(self, script: &str) -> Self {
        let go = program("go").unwrap();
        let sandbox = self
            .sandbox
            .script("go", &format!("#!/bin/sh\nGO={}\n{script}\nexec $GO \"$@\"\n", go.display()));
        let path = sandbox.value("PATH");
        Self { sandbox, ..self }.env("PATH", &path)
    }

    fn limits(mut self, change: impl FnOnce(&mut JobLimits)) -> Self {
        change(&mut self.options.limits);
        self
    }

    fn home(&self) -> PathBuf {
        self.options.data.join("home")
    }

    /// The remaining job directories.
    fn jobs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.options.data.join("jobs")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    fn run(&self, spec: BuildSpec) -> Ended {
        self.run_until(spec, CancellationToken::new())
    }

    fn run_until(&self, spec: BuildSpec, cancel: CancellationToken) -> Ended {
        // The fixtures have their own runtimes.
        tokio::runtime::Runtime::new().unwrap().block_on(self.attempt(spec, cancel))
    }

    async fn attempt(&self, spec: BuildSpec, cancel: CancellationToken) -> Ended {
        let jobs = ProcessRunner::new(&self.options).unwrap();
        let key = spec.key().unwrap();
        let build = Build::queued(NewBuild::new(spec, Tenant("test".to_owned())), key);
        let (sender, mut receiver) = mpsc::channel(16);
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            while let Some(entry) = receiver.recv().await {
                log.push(entry);
            }
            log
        });
        let ran = jobs.run(&build, sender, cancel).await;
        Ended { ran, log: log.await.unwrap() }
    }
}

struct Ended {
    ran: RunOutcome,
    log: Vec<LogEntry>,
}

impl Ended {
    fn log(&self) -> String {
        self.log.iter().map(|entry| format!("{}\n", entry.text)).collect()
    }

    fn made(&self) -> (&BuildResult, &PathBuf) {
        match &self.ran {
            RunOutcome::Succeeded { made, file, .. } => (made, file),
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    fn failed(&self) -> &BuildFailure {
        match &self.ran {
            RunOutcome::Failed(failure) => failure,
            other => panic!("{other:?}\n{}", self.log()),
        }
    }
}

fn spec(plugins: &[(&str, &str)]) -> BuildSpec {
    BuildSpec::new(
        RELEASE,
        plugins.iter().map(|(module, reference)| PluginSpec::new(*module, *reference)).collect(),
    )
}

/// Whether the process whose id a script wrote is still running.
fn is_running(file: &Path) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return false };
    let status = fs::read_to_string(format!("/proc/{}/status", text.trim())).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// Starts a server that must not receive a request; returns its port and its request count.
fn canary() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret";
            let _ = stream.write_all(answer);
        }
    });
    (port, asked)
}

#[test]
fn job_builds_and_reports_progress() {
    let machine = Machine::new();
    let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
    let (made, file) = ended.made();
    assert_eq!((made.version.as_str(), made.artifact.file_name.as_str()), (RELEASE, "rr"));
    assert_eq!(fs::metadata(file).unwrap().len(), made.artifact.size);
    assert!(made.lock.contains(HELLO) && made.configuration.contains(HELLO));
    let sum = made.artifact.sha256.clone();
    let log = ended.log();
    assert!(log.contains(&format!("hello {HELLO} v1.0.0")), "{log}");
    let phases: Vec<&str> = ended.log.iter().filter_map(|entry| entry.phase.as_deref()).collect();
    assert!(phases.contains(&"resolve") && phases.contains(&"compile"), "{phases:?}");
    // Only files that other jobs can use remain.
    let RunOutcome::Succeeded { directory, .. } = ended.ran else { unreachable!() };
    directory.close().unwrap();
    assert!(machine.jobs().is_empty(), "{:?}", machine.jobs());
    let again = machine.run(spec(&[(HELLO, "v1.0.0")]));
    let phases: Vec<&str> = again.log.iter().filter_map(|entry| entry.phase.as_deref()).collect();
    assert!(!phases.contains(&"compile"), "{phases:?}");
    assert_eq!(again.made().0.artifact.sha256, sum);
}

#[test]
fn module_paths_with_capitals_are_built() {
    const LOUD: &str = "example.com/Acme/Loud";
    const ONE: &str = "example.com/One/Of/One";
    let machine = Machine::new();
    machine.proxy.plugin(ONE, "v1.0.0").plugin("example.com/Two", "v1.2.0");
    let quiet = plugin(HELLO, "hello").imports(ONE, "v1.0.0").imports("example.com/Two", "v1.2.0");
    machine.proxy.module(HELLO, "v1.1.0", quiet.files());
    machine.proxy.module(LOUD, "v1.0.0", plugin(LOUD, "loud").imports(ONE, "v1.0.0").files());
    machine.proxy.query(LOUD, "Main", "v1.0.0");
    // A module outside of RoadRunner's graph makes the go command load the whole graph.
    let goproxy = format!("{},{}", machine.proxy.url(), Sandbox::new().own_module_cache().value("GOPROXY"));
    let machine = machine.env("GOPROXY", &goproxy);
    for reference in ["v1.0.0", "latest", "Main"] {
        let ended = machine.run(spec(&[(HELLO, "v1.1.0"), (LOUD, reference)]));
        let lock = &ended.made().0.lock;
        for module in [LOUD, "example.com/One/Of/One v1.0.0", "example.com/Two v1.2.0"] {
            assert!(lock.contains(module), "{reference}: {module} in {lock}");
        }
    }
}

#[test]
fn job_errors_name_the_place_and_hide_the_service() {
    let machine = Machine::new();
    let ended = machine.run(spec(&[(HELLO, "v1.0.9")]));
    let failure = ended.failed();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    for text in ["plugin hello", "404 Not Found"] {
        assert!(failure.message.contains(text), "{}", failure.message);
    }
    // The place in the configuration that the build's page offers.
    let configuration = spec(&[(HELLO, "v1.0.9")]).configuration();
    let line = configuration.lines().position(|line| line == "tag = \"v1.0.9\"").unwrap() + 1;
    for place in [format!("--> velox.toml:{line}:7"), format!("{line} | tag = \"v1.0.9\""), "^".repeat(8)] {
        assert!(failure.message.contains(&place), "{place} in {}", failure.message);
    }
    let all = ended.log() + &failure.message;
    assert!(ended.log().contains("plugin hello"), "{all}");
    for text in ["127.0.0.1", "/mod/", &machine.options.data.to_string_lossy()] {
        assert!(!all.contains(text), "{text} in {all}");
    }
    assert!(machine.jobs().is_empty());
}

#[test]
fn job_sees_nothing_of_the_service_environment() {
    const SECRET: &str = "s3cret-of-the-service";
    let machine = Machine::with(ModuleProxy::start_tls());
    machine.proxy.demand_login("operator", SECRET);
    let netrc = machine.sandbox.at("netrc");
    let host = machine.proxy.host();
    fs::write(&netrc, format!("machine {host} login operator password {SECRET}\n")).unwrap();
    let roots = machine.sandbox.at("roots.pem");
    fs::write(&roots, machine.proxy.ca()).unwrap();
    // ProcessRunner may write to the jobs' home, and these files stay.
    let mut machine = machine
        .go("env >> $HOME/seen; cat /proc/$PPID/environ | tr '\\0' '\\n' >> $HOME/seen")
        .env("NETRC", netrc.to_str().unwrap())
        .env("SSL_CERT_FILE", roots.to_str().unwrap());
    for name in [
        "GITHUB_TOKEN",
        "GITLAB_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "SSH_AUTH_SOCK",
        "NATS_CREDENTIALS",
        "VX_TOKENS",
        "GOFLAGS",
        "GIT_SSH_COMMAND",
        "CGO_CFLAGS",
        "VERSION",
    ] {
        machine = machine.env(name, SECRET);
    }
    let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
    ended.made();
    let seen = fs::read_to_string(machine.home().join("seen")).unwrap();
    assert!(seen.contains("GOVCS=*:off") && seen.contains("CGO_ENABLED=0"), "{seen}");
    for text in [SECRET, "netrc", &host] {
        assert!(!seen.contains(text), "{text} in {seen}");
        assert!(!ended.log().contains(text), "{}", ended.log());
    }
}

#[test]
fn foreign_code_is_compiled_and_never_run() {
    let machine = Machine::new();
    let [run, generated] = ["run", "generated"].map(|name| machine.sandbox.at(name));
    let mut files = plugin(HELLO, "hello").files();
    let own = files.iter().find(|(name, _)| name.ends_with(".go") && !name.ends_with("_test.go")).unwrap();
    let package =
        String::from_utf8_lossy(own.1).lines().find(|line| line.starts_with("package ")).unwrap().to_owned();
    let init = format!(
        "{package}\n\nimport \"os\"\n\n//go:generate touch {}\n\nfunc init() {{ os.WriteFile({:?}, nil, 0o600) }}\n",
        generated.display(),
        run
    );
    files.insert("init.go".to_owned(), init.into_bytes());
    // A syntax error for a C compiler, which cgo would run.
    let c = format!("{package}\n\n/*\n#error a C compiler saw this\n*/\nimport \"C\"\n");
    files.insert("native.go".to_owned(), c.into_bytes());
    machine.proxy.module(HELLO, "v1.1.0", files);
    let ended = machine.run(spec(&[(HELLO, "v1.1.0")]));
    let (_, file) = ended.made();
    assert!(!run.exists() && !generated.exists());
    // The binary contains that code.
    let status = Command::new(file).arg("--version").stdout(Stdio::null()).status().unwrap();
    assert!(status.success() && run.exists());
}

#[test]
fn requests_can_name_no_directory_and_no_flag() {
    let machine = Machine::new();
    let ran = machine.sandbox.at("ran");
    let tool = machine.sandbox.at("tool");
    fs::write(&tool, format!("#!/bin/sh\ntouch {}\nexec \"$@\"\n", ran.display())).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let flag = format!("-toolexec={}", tool.display());
    let good = || spec(&[(HELLO, "v1.0.0")]);
    let replaced = |new: &str| BuildSpec { replaces: vec![ReplaceSpec::new(HELLO, new)], ..good() };
    let mut bad = vec![
        replaced("/etc"),
        replaced("../../../../etc"),
        replaced("file:///etc"),
        replaced("./x@v1.0.0"),
        replaced("localhost/x@v1.0.0"),
        replaced(&format!("{HELLO}@{flag}")),
        spec(&[(HELLO, &flag)]),
        spec(&[(HELLO, &format!("v1.0.0 {flag}"))]),
        spec(&[(HELLO, "v1.0.0\nreplace x => /etc")]),
        spec(&[("/etc", "v1.0.0")]),
        spec(&[("127.0.0.1/x", "v1.0.0")]),
        BuildSpec { roadrunner: flag.clone(), ..good() },
        BuildSpec { race: true, ..good() },
    ];
    for tag in [flag.clone(), format!("x {flag}"), format!("x' {flag} '"), format!("x,{flag}")] {
        bad.push(BuildSpec { tags: vec![tag], ..good() });
    }
    for spec in bad {
        let ended = machine.run(spec.clone());
        assert_eq!(ended.failed().kind, FailureKind::Invalid, "{spec:?}: {:?}", ended.failed());
    }
    // A stamp is text, whatever it contains.
    let stamped = BuildSpec { stamp_version: Some(format!("1 {flag}")), ..good() };
    let ended = machine.run(stamped);
    let (_, file) = ended.made();
    let version = Command::new(file).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains(&flag));
    assert!(!ran.exists());
}

#[test]
fn direct_modules_reach_nothing_on_this_machine() {
    if !has_landlock() {
        return;
    }
    let (port, asked) = canary();
    // This script connects as the go command and git do, wherever a page redirects.
    let outside = tempfile::tempdir().unwrap();
    let stray = outside.path().join("stray");
    let script = format!(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached > $HOME/reached'
         echo wrote > {} && echo wrote > $HOME/reached
         echo tried > $HOME/tried",
        stray.display()
    );
    let mut machine = Machine::new().go(&script);
    machine.options.policy.direct = vec!["canary.localhost".to_owned()];
    let ended = machine.run(spec(&[("canary.localhost/x", "v1.0.0")]));
    assert!(ended.failed().message.contains("canary.localhost"), "{:?}", ended.failed());
    assert!(machine.home().join("tried").exists());
    assert!(!machine.home().join("reached").exists() && !stray.exists());
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn misleading_go_import_pages_are_blocked() {
    const HOST: &str = "go.acme.test";
    let (port, asked) = canary();
    let outside = tempfile::tempdir().unwrap();
    let inner = Repo::new().file("word", "word_of_the_service\n").commit("inner");
    fs::write(outside.path().join("secret"), "word_of_the_service\n").unwrap();
    let forge = TestForge::start();
    forge
        .github("acme/honest")
        .files(plugin("go.acme.test/honest", "honest").files())
        .commit("1")
        .tag("v1.0.0");
    let internet = Internet::start(&forge).offline().github_at(HOST);
    let page = |name: &str, import: &str| {
        let html =
            format!("<html><head><meta name=\"go-import\" content=\"{HOST}/{name} {import}\"></head></html>");
        forge.fault(Fault::Page(html)).on("GET", &format!("/{name}*")).host(HOST);
    };
    let moved = |name: &str, to: String| {
        forge.fault(Fault::Redirect(to)).on("GET", &format!("/{name}*")).host(HOST);
    };
    page("honest", &format!("git https://{HOST}/acme/honest"));
    let cases = [
        ("metadata", "169.254.169.254:443 is not an allowed host"),
        ("mapped", "is not an allowed host"),
        ("loopback", "127.0.0.1:"),
        ("plain", "insecure"),
        ("repository", "intranet.acme.test:443 is not an allowed host"),
        ("folder", "file scheme disallowed"),
        ("shell", "transport 'ssh' not allowed"),
        ("proxy", "intranet.acme.test:443 is not an allowed host"),
        ("local", "file scheme disallowed"),
    ];
    moved("metadata", "https://169.254.169.254/latest/meta-data".to_owned());
    moved("mapped", "https://[::ffff:127.0.0.1]/?go-get=1".to_owned());
    moved("loopback", format!("https://127.0.0.1:{port}/?go-get=1"));
    moved("plain", format!("http://127.0.0.1:{port}/?go-get=1"));
    page("repository", "git https://intranet.acme.test/secret");
    page("folder", &format!("git {}", inner.url()));
    page("shell", "git ssh://git@intranet.acme.test/secret");
    page("proxy", "mod https://intranet.acme.test/modules");
    page("local", &format!("mod file://{}", outside.path().display()));

    let machine = Machine::behind(&internet, &[HOST]);
    machine.run(spec(&[(&format!("{HOST}/honest"), "v1.0.0")])).made();
    for (name, printed) in cases {
        let ended = machine.run(spec(&[(&format!("{HOST}/{name}"), "v1.0.0")]));
        let all = ended.log() + &ended.failed().message;
        assert!(all.contains(printed), "{name}: {all}");
        assert!(!all.contains("word_of_the_service"), "{name}: {all}");
        let asked: Vec<_> = forge.requests().into_iter().filter(|request| request.host != HOST).collect();
        assert!(asked.is_empty(), "{name}: {asked:?}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Whether the kernel can restrict a job's access to files and ports with Landlock.
fn has_landlock() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let whole = (numbers.next(), numbers.next()) >= (Some(6), Some(7));
    if !whole {
        println!("skipped: only newer kernels keep a job from this machine's files and ports");
    }
    whole
}

#[test]
fn assembler_includes_no_file_of_this_machine() {
    if !has_landlock() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.h");
    fs::write(&secret, "word_of_the_service 1\n").unwrap();
    let machine = Machine::new();
    let module = "example.com/acme/reader";
    let reader = |included: &str| {
        let mut files = plugin(module, "reader").files();
        files.extend(
            [
                ("shown.s", format!("#include \"{included}\"\n")),
                ("own.h", "word_of_its_own 1\n".to_owned()),
                ("shown.go", "package reader\n\nfunc shown()\n".to_owned()),
            ]
            .map(|(name, text)| (name.to_owned(), text.into())),
        );
        files
    };
    machine.proxy.module(module, "v1.0.0", reader("own.h"));
    let ended = machine.run(spec(&[(module, "v1.0.0")]));
    let own = ended.log() + &ended.failed().message;
    assert!(own.contains("word_of_its_own"), "the assembler quotes what it reads: {own}");
    // Messages don't reveal the path of the service's module cache either.
    assert!(!own.contains(&machine.sandbox.value("GOMODCACHE")), "{own}");

    machine.proxy.module(module, "v1.0.1", reader(&secret.to_string_lossy()));
    let ended = machine.run(spec(&[(module, "v1.0.1")]));
    let all = ended.log() + &ended.failed().message;
    assert!(all.contains("#include: open"), "{all}");
    assert!(!all.contains("word_of_the_service"), "{all}");
}

/// What a build tries, each line by name.
const PROBE: &str = include_str!("probe.go");

/// What a build may do of what it tries: as root, as the user of `--job-user`, and as the user of a service that is not
/// root.
const ALLOWED: [&str; 6] = ["pair", "process", "certificates", "hosts", "cpus", "temporary"];

/// The directory of the probe, for the same test as another user.
const PROBE_DIRECTORY: &str = "VX_TEST_PROBE";

/// Runs the probe in place of the go command; returns what it prints. `outside` is a directory that is none of a build's.
fn probe(outside: &Path, user: Option<&str>) -> String {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    };
    let (port, asked) = canary();
    let pid = std::process::id();
    // Once is enough: the build need not succeed.
    let script = format!("probe {port} {pid} {} > $HOME/probed 2>&1; exit 1", outside.display());
    let mut machine = Machine::new().go(&script).own_caches();
    fs::copy(outside.join("probe"), machine.sandbox.at("bin/probe")).unwrap();
    machine.options.job_user = user.map(str::to_owned);
    fs::create_dir_all(machine.home()).unwrap();
    for directory in [machine.sandbox.path().parent().unwrap(), &machine.sandbox.path()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).unwrap();
    }
    // It gives the directories to the user.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let jobs = runtime.block_on(async { ProcessRunner::new(&machine.options) }).unwrap();
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
    drop(jobs);
    let socket = machine.home().join("agent.sock");
    let _agent = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let name = SocketAddr::from_abstract_name(format!("vx-test-{pid}")).unwrap();
    let _abstract = UnixListener::bind_addr(&name).unwrap();
    let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
    ended.failed();
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    fs::read_to_string(machine.home().join("probed"))
        .unwrap_or_else(|error| panic!("{error}: {}", ended.log()))
}

fn assert_isolated(printed: &str) {
    let tried: Vec<_> = printed.lines().filter_map(|line| line.split_once(": ")).collect();
    let allowed: Vec<_> = tried.iter().filter(|(_, answer)| *answer == "allowed").map(|it| it.0).collect();
    let denied = tried.iter().filter(|(_, answer)| *answer == "denied").count();
    assert_eq!((allowed.as_slice(), denied), (&ALLOWED[..], 32), "{printed}");
}

#[test]
fn builds_are_isolated() {
    if !has_landlock() {
        return;
    }
    if let Some(directory) = std::env::var_os(PROBE_DIRECTORY) {
        assert_isolated(&probe(Path::new(&directory), None));
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    // The rights of files are not what the probe measures.
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    fs::write(outside.path().join("probe.go"), PROBE).unwrap();
    let sandbox = Sandbox::new();
    let compiled = Command::new(program("go").unwrap())
        .args(["build", "-o"])
        .arg(outside.path().join("probe"))
        .arg(outside.path().join("probe.go"))
        .envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", "")])
        .env("GOCACHE", sandbox.value("GOCACHE"))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    if !is_root() {
        println!("skipped in part: only root can run builds as root and as another user");
        assert_isolated(&probe(outside.path(), None));
        return;
    }
    assert_isolated(&probe(outside.path(), Some("root")));
    let test = std::env::current_exe().unwrap();
    let mut other = Command::new("setpriv");
    other.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    let runs = |program: &Path| {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "test", "-x"]).arg(program);
        other.status().is_ok_and(|status| status.success())
    };
    if !runs(&test) || !runs(Path::new(VX)) {
        println!("skipped in part: setpriv can't run {} as nobody", test.display());
        return;
    }
    assert_isolated(&probe(outside.path(), Some("nobody")));
    let ended = other
        .arg(test)
        .args(["server_safety::builds_are_isolated", "--exact", "--nocapture"])
        .env(PROBE_DIRECTORY, outside.path())
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && output.contains("1 passed"), "as nobody: {output}");
}

#[test]
fn root_needs_another_user_for_builds() {
    if !is_root() {
        println!("skipped: only root can run builds as another user");
        return;
    }
    let mut machine = Machine::new().own_caches();
    machine.options.job_user = None;
    let refused = ProcessRunner::new(&machine.options).err().unwrap().to_string();
    assert!(refused.contains("would run as root") && refused.contains("--job-user"), "{refused}");
    machine.options.job_user = Some("nobody-of-that-name".to_owned());
    let refused = ProcessRunner::new(&machine.options).err().unwrap().to_string();
    assert!(refused.contains("there is no user `nobody-of-that-name`"), "{refused}");

    machine.options.job_user = Some("nobody".to_owned());
    fs::set_permissions(machine.sandbox.path().parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    let refused = ProcessRunner::new(&machine.options).err().unwrap().to_string();
    assert!(refused.contains("must be able to reach"), "{refused}");
}

#[test]
fn endless_identifier_is_cut_in_messages() {
    const LENGTH: usize = 1 << 20;
    let machine = Machine::new();
    let module = "example.com/acme/endless";
    let mut files = plugin(module, "endless").files();
    let name = "x".repeat(LENGTH);
    files.insert("endless.go".to_owned(), format!("package endless\n\nvar _ = {name}\n").into());
    machine.proxy.module(module, "v1.0.0", files);
    let ended = machine.run(spec(&[(module, "v1.0.0")]));
    let message = &ended.failed().message;
    assert!(message.contains("undefined: xxx") && message.ends_with("see the log for the rest"));
    assert!(message.len() < LENGTH / 8 && ended.log().len() < LENGTH / 8, "{}", message.len());
}

#[test]
fn every_limit_ends_a_build() {
    const SLEEP: &str = r#"case "$1" in build) echo $$ > $HOME/pid; exec sleep 600;; esac"#;
    const FILL: &str = r#"case "$1" in build) for n in 1 2 3 4 5 6; do head -c 8000000 /dev/zero > $TMPDIR/$n; done; exec sleep 600;; esac"#;
    const MIB: u64 = 1 << 20;
    let cases: [(Machine, &str); 6] = [
        (
            Machine::new().go(SLEEP).limits(|limits| limits.time = Duration::from_secs(8)),
            "time limit of 8 seconds",
        ),
        (Machine::new().go(FILL).limits(|limits| limits.disk = 32 * MIB), "disk limit of 32 MiB"),
        (Machine::new().limits(|limits| limits.download = 2000), "download limit of 2000 bytes"),
        (Machine::new().limits(|limits| limits.log = 100), "log exceeded the limit of 100 bytes"),
        (Machine::new().limits(|limits| limits.artifact = 1000), "exceeds the limit of 1000 bytes"),
        (Machine::new().limits(|limits| limits.memory = 48 * MIB), "memory limit of 48 MiB"),
    ];
    for (machine, sentence) in cases {
        let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
        let failure = ended.failed();
        assert_eq!(failure.kind, FailureKind::Limit, "{sentence}: {failure:?}\n{}", ended.log());
        assert!(failure.message.contains(sentence), "{}", failure.message);
        assert!(ended.log().contains(sentence), "{}", ended.log());
        assert!(!is_running(&machine.home().join("pid")));
        assert!(machine.jobs().is_empty());
    }
}

/// Adds versions v1.0.1 … of a module that are small zips and large when unpacked.
fn large_modules(proxy: &ModuleProxy, count: usize, bytes: usize) -> Vec<String> {
    let module = |at: usize| format!("example.com/acme/large{at}");
    for at in 0..count {
        let mut files = plugin(&module(at), &format!("large{at}")).files();
        files.insert("large.bin".to_owned(), vec![0; bytes]);
        proxy.module(&module(at), "v1.0.0", files);
    }
    (0..count).map(module).collect()
}

#[test]
fn unpacked_modules_count_against_the_disk_limit() {
    const MIB: usize = 1 << 20;
    let mut machine = Machine::new().limits(|limits| limits.disk = 160 << 20);
    machine.options.environment.remove("GOMODCACHE");
    let modules = large_modules(&machine.proxy, 6, 40 * MIB);
    let plugins: Vec<(&str, &str)> = modules.iter().map(|module| (module.as_str(), "v1.0.0")).collect();
    let ended = machine.run(spec(&plugins));
    let failure = ended.failed();
    assert_eq!(failure.kind, FailureKind::Limit, "{failure:?}");
    assert!(failure.message.contains("disk limit of 160 MiB"), "{failure:?}");
    // Its downloads don't count against later builds.
    machine.run(spec(&[(HELLO, "v1.0.0")])).made();
    machine.run(spec(&plugins[..1])).made();
}

#[test]
fn full_disk_is_cleaned_up_and_the_build_gets_another_try() {
    const MIB: u64 = 1 << 20;
    let place = tempfile::tempdir().unwrap();
    let mounted = SmallDisk::mount("full_disk_is_cleaned_up", place.path().to_owned(), "400m");
    let Some(_disk) = mounted else { return };
    let mut machine = Machine::new().limits(|limits| limits.disk = 300 * MIB);
    machine.options.data = place.path().join("data");
    machine.options.environment.remove("GOMODCACHE");
    // As left by earlier builds, less than the limit of the caches.
    let cache = machine.options.data.join("go/pkg/mod/example.com/acme/old@v1.0.0");
    fs::create_dir_all(&cache).unwrap();
    fs::write(cache.join("large.bin"), vec![1; 390 << 20]).unwrap();
    let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
    ended.made();
    assert!(ended.log().contains("the disk of the service is full; clearing its caches"), "{}", ended.log());
    assert!(!cache.exists());

    // Nothing to clean up.
    let filled = place.path().join("filled");
    let mut large = fs::File::create(&filled).unwrap();
    while large.write_all(&[1; 1 << 20]).is_ok() {}
    let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
    let failure = ended.failed();
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure:?}");
    assert!(failure.message.contains("disk of the service is full; try again later"), "{failure:?}");
    drop(large);
    fs::remove_file(&filled).unwrap();
    machine.run(spec(&[(HELLO, "v1.0.0")])).made();
}

#[test]
fn cancelled_build_leaves_no_process() {
    let machine = Machine::new().go(r#"case "$1" in build) sleep 600 & echo $! > $HOME/pid; wait;; esac"#);
    let pid = machine.home().join("pid");
    let cancel = CancellationToken::new();
    let ended = std::thread::scope(|scope| {
        let running = scope.spawn(|| machine.run_until(spec(&[(HELLO, "v1.0.0")]), cancel.clone()));
        wait_until("the compiler starts", || is_running(&pid));
        cancel.cancel();
        running.join().unwrap()
    });
    assert!(matches!(ended.ran, RunOutcome::Cancelled), "{:?}", ended.ran);
    assert!(!is_running(&pid));
    assert!(machine.jobs().is_empty());
}

#[test]
fn job_ends_with_its_service() {
    let machine = Machine::new().go(r#"case "$1" in env) sleep 600 & echo $! > $HOME/pid; wait;; esac"#);
    let (home, pid) = (machine.home(), machine.home().join("pid"));
    let directory = machine.sandbox.at("job");
    for folder in [&home, &directory.join("work")] {
        fs::create_dir_all(folder).unwrap();
    }
    let task = serde_json::json!({
        "spec": spec(&[(HELLO, "v1.0.0")]), "force": false, "directory": directory, "memory": 4_u64 << 30, "disk": 1_u64 << 30,
        "port": 1,
    });
    let mut job = Command::new(VX);
    let environment = machine.options.environment.iter().filter(|(name, _)| *name != "HOME");
    std::os::unix::process::CommandExt::process_group(&mut job, 0);
    let mut job = job
        .arg("job")
        .env_clear()
        .envs(environment)
        .env("HOME", &home)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = job.stdin.take().unwrap();
    input.write_all(format!("{task}\n").as_bytes()).unwrap();
    wait_until("the go command starts", || is_running(&pid));
    // As the kernel does when the service is killed.
    drop(input);
    assert!(!job.wait().unwrap().success());
    wait_until("its children end too", || !is_running(&pid));
}

#[test]
fn forges_are_asked_only_for_direct_modules() {
    const DIRECT: &str = "github.com/acme/direct";
    let forge = TestForge::start();
    forge.github("acme/direct").files(plugin(DIRECT, "direct").files()).commit("first").tag("v1.0.0");
    let internet = Internet::start(&forge).offline();
    for patterns in [&[][..], &["github.com/stranger/*"], &["gitlab.com/acme"]] {
        let ended = Machine::behind(&internet, patterns).run(spec(&[(DIRECT, "v1.0.0")]));
        let printed = &ended.failed().message;
        assert!(printed.contains("this service uses module proxies only"), "{printed}");
    }
    assert!(forge.requests().is_empty(), "{:?}", forge.requests());
    Machine::behind(&internet, &["github.com/acme/*"]).run(spec(&[(DIRECT, "v1.0.0")])).made();
    assert!(!forge.requests().is_empty());
}

#[test]
fn start_removes_leftovers_and_locks_the_directory() {
    let machine = Machine::new();
    let left = machine.options.data.join("jobs/job-left/tmp");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("half"), "half").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let jobs = ProcessRunner::new(&machine.options).unwrap();
    assert!(machine.jobs().is_empty(), "{:?}", machine.jobs());
    let error = ProcessRunner::new(&machine.options).err().unwrap();
    assert!(error.to_string().contains("another service"), "{error}");
    drop(jobs);
    ProcessRunner::new(&machine.options).unwrap();
}
