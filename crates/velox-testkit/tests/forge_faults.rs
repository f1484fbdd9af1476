//! What goes wrong, as a plain HTTP client sees it; and the answers that the foreign clients don't look at.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

use std::time::{Duration, Instant};

use reqwest::blocking::Client;
use reqwest::redirect::Policy;
use velox_testkit::{Fault, Internet, TestForge};

fn builder() -> reqwest::blocking::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy()
}

fn forge() -> (TestForge, String) {
    let forge = TestForge::start();
    forge
        .github("acme/plugin")
        .file("go.mod", "module github.com/acme/plugin\n")
        .commit("first")
        .tag("v1.0.0");
    let url = format!("{}/api/v3/repos/acme/plugin", forge.github_url());
    (forge, url)
}

#[test]
fn each_fault_is_what_it_says() {
    let (forge, url) = forge();
    let http = builder().build().unwrap();
    let get = || http.get(&url).send();
    let strike = |fault| forge.fault(fault).on("GET", "/repos/acme/*").times(1);

    strike(Fault::Status(500));
    assert_eq!(get().unwrap().status(), 500);
    strike(Fault::RateLimited { reset_in: 90 });
    let limited = get().unwrap();
    let reset: u64 = limited.headers()["x-ratelimit-reset"].to_str().unwrap().parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["x-ratelimit-remaining"]),
        (403, &"0".parse().unwrap())
    );
    assert!((80..=90).contains(&(reset - now)));
    strike(Fault::TooManyRequests { retry_after: 2 });
    let many = get().unwrap();
    assert_eq!((many.status().as_u16(), &many.headers()["retry-after"]), (429, &"2".parse().unwrap()));
    strike(Fault::GarbageJson);
    assert!(serde_json::from_slice::<serde_json::Value>(&get().unwrap().bytes().unwrap()).is_err());
    strike(Fault::CutBody);
    let cut = get().unwrap();
    assert_eq!(cut.status(), 200);
    assert!(cut.bytes().is_err());
    strike(Fault::HangUp);
    assert!(http.post(&url).send().unwrap().status() == 404, "another method isn't struck");
    forge.clear_faults();
    strike(Fault::SlowBody(Duration::from_millis(20)));
    let start = Instant::now();
    assert!(get().unwrap().text().unwrap().contains("acme/plugin"));
    assert!(start.elapsed() >= Duration::from_millis(160));
    forge.fault(Fault::RedirectLoop);
    assert!(get().unwrap_err().is_redirect());
    forge.clear_faults();
    assert_eq!(get().unwrap().status(), 200);
}

#[test]
fn hang_up_gives_no_answer() {
    let (forge, url) = forge();
    let rule = forge.fault(Fault::HangUp);
    assert!(builder().build().unwrap().get(&url).send().is_err());
    assert!(rule.hits() >= 1);
}

#[test]
fn a_known_answer_costs_no_body() {
    let (_forge, url) = forge();
    let http = builder().build().unwrap();
    let first = http.get(format!("{url}/commits/main")).send().unwrap();
    let again = http
        .get(format!("{url}/commits/main"))
        .header("if-none-match", &first.headers()["etag"])
        .send()
        .unwrap();
    assert_eq!(again.status(), 304);
    let id = http
        .get(format!("{url}/commits/main"))
        .header("accept", "application/vnd.github.sha")
        .send()
        .unwrap();
    assert_eq!(id.text().unwrap().len(), 40);
}

#[test]
fn the_web_archives_of_github_com_redirect_to_codeload() {
    let (forge, _) = forge();
    let internet = Internet::start(&forge).offline();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(internet.ca_file()).unwrap()).unwrap();
    let http = builder()
        .proxy(reqwest::Proxy::https(internet.proxy_url()).unwrap())
        .tls_certs_only([ca])
        .redirect(Policy::none())
        .build()
        .unwrap();
    let first = http.get("https://github.com/acme/plugin/archive/refs/tags/v1.0.0.zip").send().unwrap();
    assert_eq!(first.status(), 302);
    let location = first.headers()["location"].to_str().unwrap();
    assert_eq!(location, "https://codeload.github.com/acme/plugin/zip/refs/tags/v1.0.0");
    let bytes = http.get(location).send().unwrap().bytes().unwrap();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    assert!(archive.by_name("plugin-1.0.0/go.mod").is_ok());
    let limits = http.get("https://api.github.com/repos/acme/plugin").send().unwrap();
    assert_eq!(limits.headers()["x-ratelimit-limit"], "60");
    let hosts: Vec<String> = forge.requests().into_iter().map(|it| it.host).collect();
    assert_eq!(hosts, ["github.com", "codeload.github.com", "api.github.com"]);
}
