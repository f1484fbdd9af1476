//! `.rr.yaml`: what `vx check` finds in it, and the configuration that `vx init` writes for it.

use velox_testkit::ModuleProxy;

use crate::support::sandbox::{RELEASE, Sandbox, assert_contains};

const RR_YAML: &str = "\
version: \"3\"
include: [queues.yaml]

rpc:
  listen: tcp://127.0.0.1:6001

http:
  address: :8080
  middleware: [gzip, headrs]

metrcs:
  address: 127.0.0.1:2112
";

const QUEUES_YAML: &str = "\
version: \"3\"
amqp:
  addr: amqp://guest:s3cret@127.0.0.1:5672
jobs:
  pipelines:
    mail: { driver: amqp }
";

fn sandbox(proxy: &ModuleProxy) -> Sandbox {
    proxy.roadrunner(RELEASE);
    Sandbox::behind(proxy)
        .env("LANG", "C.UTF-8")
        .plugins(
            "github.com/roadrunner-server/logger/v5@v5.1.9 github.com/roadrunner-server/metrics/v5@v5.1.9",
        )
        .file(".rr.yaml", RR_YAML)
        .file("queues.yaml", QUEUES_YAML)
}

#[test]
fn check_compares_the_plugins_with_the_configuration_beside_velox_toml() {
    let proxy = ModuleProxy::start();
    let sandbox = sandbox(&proxy);
    let checked = sandbox.vx("check");
    checked.fails(1);
    let shown = checked.stdout();
    let missing =
        ["`rpc` is configured", "`http` is configured", "the HTTP middleware `gzip` is not compiled in"];
    let others =
        ["no plugin provides the HTTP middleware `headrs`", "--> .rr.yaml:9:22", "did you mean `headers`?"];
    let included = ["--> queues.yaml:6:21", "the queue driver `amqp` is not compiled in", "`vx add amqp`"];
    for texts in [missing, others, included] {
        assert_contains(&shown, &texts);
    }
    assert_contains(
        &shown,
        &[
            "warning: no plugin reads the section `metrcs`\n  --> .rr.yaml:11:1\n",
            "note: `.rr.yaml` does not use these plugins: metrics (about 76 KiB)\n",
        ],
    );
    assert!(!shown.contains("s3cret"), "{shown}");

    let events = sandbox.vx("check --format json").events();
    let of_rule = events.iter().filter(|event| event["rule"] == "rr_config");
    let places: Vec<String> = of_rule.map(|event| format!("{}:{}", event["file"], event["line"])).collect();
    assert!(places.contains(&"\"queues.yaml\":2".to_owned()), "{events:?}");
    assert_eq!(events.last().unwrap()["unused_plugins"], serde_json::json!(["metrics"]));
}

#[test]
fn a_configuration_with_its_plugins_has_no_findings() {
    let proxy = ModuleProxy::start();
    let sandbox = sandbox(&proxy)
        .file("conf/good.yaml", "version: \"3\"\nmetrics: { address: \"127.0.0.1:2112\" }\nlogs: {}\n");
    for flag in ["--rr-config", "--config", "-c"] {
        let checked = sandbox.vx(&format!("check {flag} conf/good.yaml")).ok();
        assert!(!checked.contains("good.yaml"), "{checked}");
    }
    sandbox.vx("check --rr-config no.yaml").fails_with(2, &["no.yaml`: No such file or directory"]);
}

#[cfg(unix)]
#[test]
fn what_is_no_configuration_of_roadrunner_is_an_error_with_its_place() {
    let proxy = ModuleProxy::start();
    let mut sandbox = sandbox(&proxy);
    for (text, expected) in [
        ("version: \"3\"\nhttp:\n\taddress: x\n", "bad.yaml:3:"),
        ("version: \"3\"\nlogs: {}\nlogs: {}\n", "bad.yaml:3:1"),
        ("version: \"3\"\ninclude: [no.yaml]\n", "bad.yaml:2:11"),
        ("not a configuration", "expected sections, found a string"),
    ] {
        sandbox = sandbox.file("bad.yaml", text);
        let checked = sandbox.vx("check --rr-config bad.yaml");
        checked.fails(1);
        let help = if text.contains('\t') { "help: indent with spaces" } else { "" };
        assert_contains(&checked.stdout(), &[expected, help]);
    }
    sandbox = sandbox.file("bad.yaml", "logs: {}\n");
    let checked = sandbox.vx("check --config bad.yaml");
    checked.fails(1);
    assert_contains(&checked.stdout(), &["`bad.yaml` has no `version`"]);
    sandbox.run("mkfifo pipe.yaml");
    sandbox.vx("check --rr-config pipe.yaml").fails_with(2, &["no program writes to this pipe"]);
}
