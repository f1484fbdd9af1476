//! Clients of Velox's build service: RoadRunner's middleware and the web configurator.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    server::{CALL, answers_of, go_arch, go_client},
    support::{
        sandbox::{RELEASE, Sandbox, acme_proxy, assert_contains, wait_until},
        service::{Answer, RunningService, request},
    },
};

/// The request of the web configurator.
fn call(version: &str, plugins: &Value, force: bool) -> Value {
    json!({
        "request_id": "b66d5617-64dd-419b-a68b-b002938320ab",
        "force_rebuild": force,
        "target_platform": {"os": "linux", "arch": go_arch()},
        "rr_version": version,
        "plugins": plugins,
    })
}

fn hello() -> Value {
    json!([{"module_name": "example.com/acme/hello", "tag": "v1.0.0"}])
}

fn path_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["path"].as_str().unwrap().to_owned()
}

#[test]
fn middleware_opens_the_path_of_the_answer() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy);
    let Some(client) = go_client(&sandbox) else { return };
    let service = RunningService::start(&mut sandbox.vx_command("server --data data --share-dir shared"));
    let call = json!({"protocol": "connect", "request_id": "0d0a1b9e-7c3b-4f5e-8f52-3b1f2a9f0c11", "open": true,
        "version": RELEASE, "module": "example.com/acme/hello", "tag": "v1.0.0", "os": "linux", "arch": go_arch()});
    let answers = answers_of(&client, &sandbox, &service, &[call.clone(), call]);
    assert_eq!(answers.len(), 2);
    for answer in &answers {
        assert_eq!(
            (&answer["path"], &answer["mode"]),
            (&answers[0]["path"], &json!("-rwxr-xr-x")),
            "{answer}"
        );
        assert!(answer["size"].as_u64().unwrap() > 1_000_000, "{answer}");
    }
    let binary = answers[0]["path"].as_str().unwrap();
    assert!(Path::new(binary).starts_with(sandbox.at("shared").canonicalize().unwrap()), "{binary}");
    assert_contains(&sandbox.run(&format!("{binary} --version")), &[RELEASE.trim_start_matches('v')]);
}

#[test]
fn web_configurator_probes_builds_and_opens() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy);
    // As its compose file has it; other machines need tokens or --allow-anonymous.
    let service =
        RunningService::start(&mut sandbox.vx_command("server -a :0 --data data --share-dir shared"));
    assert!(service.url.starts_with("http://127.0.0.1:"), "{}", service.url);
    assert_eq!(service.get("/health").status, 200);
    assert_eq!(service.get("/version").json(), json!({"version": env!("CARGO_PKG_VERSION")}));

    let file = path_of(&service.post(CALL, &call(RELEASE, &hello(), false)));
    assert!(file.ends_with("/rr"), "{file}");
    assert_contains(&sandbox.run(&format!("{file} --version")), &[RELEASE.trim_start_matches('v')]);
    let again = service.post(CALL, &call(RELEASE, &hello(), true));
    assert_eq!(path_of(&again), file, "the same bytes");
    assert!(!again.text().contains("already built"), "{again:?}");
    // Empty and harmless fields of its plugins.
    let described = json!([{"module_name": "example.com/acme/hello", "tag": "v1.0.0", "replace": "",
        "docs_url": "https://docs.example.com"}]);
    let answer = service.post(CALL, &call(RELEASE, &described, false));
    assert_eq!(path_of(&answer), file);
    assert_contains(&answer.text(), &["docs_url"]);

    let replaced =
        json!([{"module_name": "example.com/acme/hello", "tag": "v1.0.0", "replace": "github.com/acme/x"}]);
    let refused = service.post(CALL, &call(RELEASE, &replaced, false));
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("invalid_argument")));
    assert_contains(&refused.text(), &["plugins[0].replace"]);

    let mut windows = call(RELEASE, &hello(), false);
    windows["target_platform"] = json!({"os": "windows", "arch": "amd64"});
    let windows = path_of(&service.post(CALL, &windows));
    assert!(windows.ends_with("/rr.exe") && Path::new(&windows).is_file(), "{windows}");

    // A client that only knows GET receives the same binary.
    let query = format!(
        "/v1/download?roadrunner={RELEASE}&plugin=example.com/acme/hello@v1.0.0&target=linux/{}",
        go_arch()
    );
    let download = service.get(&query);
    assert!(download.status == 200 && download.body == std::fs::read(&file).unwrap(), "{}", download.status);
}

#[test]
fn shared_directory_is_cleaned_at_start() {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy);
    let command = || sandbox.vx_command("server --data data --share-dir shared");
    let service = RunningService::start(&mut command());
    let file = path_of(&service.post(CALL, &call(RELEASE, &hello(), false)));
    service.kill();
    let service = RunningService::start(&mut command());
    assert_eq!(path_of(&service.post(CALL, &call(RELEASE, &hello(), false))), file);
    service.kill();
    std::fs::remove_dir_all(sandbox.at("data/artifacts")).unwrap();
    let service = RunningService::start(&mut command());
    wait_until("the file is removed", || !Path::new(&file).exists());
    assert_eq!(path_of(&service.post(CALL, &call(RELEASE, &hello(), false))), file, "it is built again");
    drop(service);
    let sandbox = Sandbox::new().file("file", "");
    sandbox.vx("server -a 127.0.0.1:0 --data data --share-dir file").fails_with(1, &["file"]);
}

#[test]
fn production_logs_are_json_on_stderr() {
    let sandbox = Sandbox::new().file(
        "velox.toml",
        "[roadrunner]\nref = \"v2025.1.15\"\n[log]\nmode = \"production\"\n\
        [plugins.rpc]\nmodule_name = \"github.com/roadrunner-server/rpc/v5\"\ntag = \"v5.1.8\"\n",
    );
    let mut command =
        sandbox.vx_command("-c velox.toml -a localhost:0 server --data data --jobs 0 --drain 0s");
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.trim().rsplit('/').next().unwrap().parse().unwrap();
    assert_eq!(request(address, "GET", "/healthz", &[("X-Request-Id", "probe-1")], b"").unwrap().status, 200);
    let stop = Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert!(stop.success() && server.wait().unwrap().success());
    let mut printed = String::new();
    server.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        line["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        assert!(["INFO", "WARN", "ERROR"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(!line["msg"].as_str().unwrap().is_empty(), "{line}");
    }
    let handled = lines.iter().find(|line| line["msg"] == "handled request").expect("a line");
    assert_eq!((&handled["request_id"], &handled["status"]), (&json!("probe-1"), &json!(200)), "{handled}");
}
