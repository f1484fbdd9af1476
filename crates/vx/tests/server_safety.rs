//! A build service runs what strangers ask for: what a job can't do, and what stops it.
#![allow(clippy::unwrap_used)]

#[path = "support/sandbox.rs"]
mod sandbox;

use std::{path::PathBuf, time::Duration};

use sandbox::Sandbox;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use velox_server::{
    Build, BuildId, Entry, Failure, FailureKind, Limits, Made, Options, Plugin, Policy, Ran, Runner as _,
    Spec, State, Tenant, job::Jobs,
};
use velox_testkit::{ModuleProxy, plugin, roadrunner};

const RELEASE: &str = "v2025.0.78";
const HELLO: &str = "example.com/acme/hello";

/// A service on a machine of its own, with a module proxy of its operator's.
struct Machine {
    sandbox: Sandbox,
    proxy: ModuleProxy,
    options: Options,
}

impl Machine {
    fn new() -> Self {
        let proxy = ModuleProxy::start();
        proxy.module("github.com/roadrunner-server/roadrunner/v2025", RELEASE, roadrunner("v2025").files());
        proxy.module(HELLO, "v1.0.0", plugin(HELLO, "hello").files());
        let sandbox = Sandbox::new().own_module_cache();
        // What is public comes from the tests' shared cache, the rest is the proxy's to serve.
        let public = sandbox.value("GOPROXY");
        let shared = public.split(',').next().unwrap();
        let sandbox = sandbox.env("GOPROXY", format!("{shared},{}", proxy.url()));
        let environment = ["PATH", "HOME", "GOMODCACHE", "GOCACHE", "GOPROXY", "GONOSUMDB"]
            .map(|name| (name.to_owned(), sandbox.value(name)));
        let options = Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: sandbox.path().join("data"),
            jobs: 1,
            queue: 10,
            time_to_live: Duration::from_secs(60),
            tls: None,
            tokens: None,
            anonymous: false,
            origins: Vec::new(),
            policy: Policy::default(),
            limits: Limits::default(),
            retention: velox_server::Retention::default(),
            cluster: None,
            program: PathBuf::from(env!("CARGO_BIN_EXE_vx")),
            environment: environment.into(),
            drain: Duration::ZERO,
        };
        Self { sandbox, proxy, options }
    }

    /// Sets a variable of the service's environment.
    fn env(mut self, name: &str, value: &str) -> Self {
        self.options.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn run(&self, spec: Spec) -> Ended {
        self.run_until(spec, CancellationToken::new())
    }

    fn run_until(&self, spec: Spec, cancel: CancellationToken) -> Ended {
        // Whatever listens on this machine for a test has a runtime of its own.
        tokio::runtime::Runtime::new().unwrap().block_on(self.attempt(spec, cancel))
    }

    async fn attempt(&self, spec: Spec, cancel: CancellationToken) -> Ended {
        let jobs = Jobs::new(&self.options).unwrap();
        let build = Build {
            id: BuildId::new(),
            key: spec.key(),
            spec,
            force: false,
            state: State::Running,
            tenant: Tenant("test".to_owned()),
            wanted_by: [Tenant("test".to_owned())].into(),
            attempts: 1,
            created: jiff::Timestamp::now(),
            started: None,
            finished: None,
            outcome: None,
        };
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
    ran: Ran,
    log: Vec<Entry>,
}

impl Ended {
    fn log(&self) -> String {
        self.log.iter().map(|entry| format!("{}\n", entry.text)).collect()
    }

    fn made(&self) -> (&Made, &PathBuf) {
        match &self.ran {
            Ran::Made { made, file, .. } => (made, file),
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    fn failed(&self) -> &Failure {
        match &self.ran {
            Ran::Failed(failure) => failure,
            other => panic!("{other:?}\n{}", self.log()),
        }
    }
}

fn spec(plugins: &[(&str, &str)]) -> Spec {
    let plugin = |(module, reference): &(&str, &str)| Plugin {
        module: (*module).to_owned(),
        reference: (*reference).to_owned(),
    };
    Spec {
        roadrunner: RELEASE.to_owned(),
        plugins: plugins.iter().map(plugin).collect(),
        replaces: Vec::new(),
        excludes: Vec::new(),
        target: velox_manifest::GoTarget::host().to_string(),
        tags: Vec::new(),
        debug: false,
        race: false,
        strict: false,
        dependencies: None,
        stamp_version: None,
        stamp_time: None,
    }
}

#[test]
fn a_job_makes_a_server_and_says_what_goes_on() {
    let machine = Machine::new();
    let ended = machine.run(spec(&[(HELLO, "v1.0.0")]));
    let (made, file) = ended.made();
    assert_eq!((made.version.as_str(), made.artifact.file_name.as_str()), (RELEASE, "rr"));
    assert_eq!(std::fs::metadata(file).unwrap().len(), made.artifact.size);
    assert!(made.lock.contains(HELLO) && made.configuration.contains(HELLO));
    let log = ended.log();
    assert!(log.contains(&format!("hello {HELLO} v1.0.0")), "{log}");
    let phases: Vec<&str> = ended.log.iter().filter_map(|entry| entry.phase.as_deref()).collect();
    assert!(phases.contains(&"resolve") && phases.contains(&"compile"), "{phases:?}");
    // All that is left is what other jobs can use.
    let Ran::Made { directory, .. } = ended.ran else { unreachable!() };
    directory.close().unwrap();
    let left: Vec<_> = std::fs::read_dir(machine.options.data.join("jobs")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_version_that_is_not_there_is_told_with_its_place() {
    let machine = Machine::new();
    let ended = machine.run(spec(&[(HELLO, "v1.0.9")]));
    let failure = ended.failed();
    assert_eq!(failure.kind, FailureKind::Failed, "{failure:?}");
    for text in ["plugin hello", "^^^^", "404 Not Found"] {
        assert!(failure.message.contains(text), "{}", failure.message);
    }
    assert!(ended.log().contains("plugin hello"), "{}", ended.log());
}
