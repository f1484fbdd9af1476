use axum::{body::Body, http::Request};
use velox_api::{BuildId, FailureKind, LogEntry, Severity};

use super::{Answer, TestService, answer};
use crate::page::{ICON, SCRIPT, STYLE};

/// A plugin that works without others.
const LOGGER: &str = "github.com/roadrunner-server/logger/v5";
const HTTP: &str = "github.com/roadrunner-server/http/v5";
const GZIP: &str = "github.com/roadrunner-server/gzip/v5";

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is missing: {text:.2000}");
    }
}

impl TestService {
    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.text
    }

    async fn post_form(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.request("POST", path, headers, body).await
    }

    /// The answer to a form, which has this status.
    async fn form(&self, path: &str, body: &str, status: u16) -> String {
        let answer = self.post_form(path, &[], body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        answer.text
    }
}

fn entry(severity: Severity, text: &str, phase: Option<&str>) -> LogEntry {
    LogEntry { phase: phase.map(str::to_owned), ..LogEntry::new(severity, text) }
}

#[tokio::test]
async fn pages_are_small() {
    const MAX_BYTES: usize = 100_000;
    let service = TestService::start().await;
    let id = service.submit("v5.1.8").await;
    let lease = service.lease().await;
    let line = entry(Severity::Output, &"x".repeat(200), Some("compile"));
    service.log(&lease, vec![line; 5000]).await;
    let form = service.get("/?preset=full").await;
    assert_eq!(form.status, 303);
    let assets: usize = [&*STYLE, &*SCRIPT, &*ICON].iter().map(|asset| asset.text.len()).sum();
    for path in [form.header("location"), &format!("/builds/{id}")] {
        let size = service.page(path).await.len() + assets;
        assert!(size < MAX_BYTES, "{path}: {size} bytes");
    }
}

/// Entries that can't be read stand for those that are not read.
#[tokio::test]
async fn a_page_reads_only_the_ends_of_a_long_log() {
    let service = TestService::start().await;
    let id = service.submit("v5.1.8").await;
    let lease = service.lease().await;
    let compiling = entry(Severity::Info, "compiling the last package", Some("compile"));
    service.log(&lease, vec![entry(Severity::Output, &"x".repeat(1 << 10), None); 8 << 10]).await;
    service.log(&lease, vec![LogEntry { done: Some(7), total: Some(7), ..compiling }]).await;
    service.corrupt_log("seq > 1 AND seq < 8 * 1024 - 200");
    let text = service.page(&format!("/builds/{id}")).await;
    contains(&text, &["compiling the last package", "7 of 7", "data-after=\"8193\"", "Show the whole log"]);
    service.corrupt_log("seq = 8 * 1024");
    assert_eq!(service.get(&format!("/builds/{id}")).await.status, 503, "it is read");
}

#[tokio::test]
async fn pages_load_nothing_from_other_hosts_and_nothing_inline() {
    let service = TestService::start().await;
    let running = service.submit("v5.0.0").await;
    service.lease().await;
    let succeeded = service.submit("v5.0.1").await;
    service.succeed(&service.lease().await, b"binary").await;
    let failed = service.submit("v5.0.2").await;
    service.fail(&service.lease().await, FailureKind::Invalid, "no").await;
    let cancelled = service.submit("v5.0.3").await;
    service.request("DELETE", &format!("/v1/builds/{cancelled}"), &[], "").await;
    let queued = service.submit("v5.0.4").await;
    let builds = [(running, true), (succeeded, false), (failed, false), (cancelled, false), (queued, true)];
    let pages = builds.iter().map(|(id, is_live)| (format!("/builds/{id}"), *is_live));
    for (path, is_live) in pages.chain([("/".to_owned(), false)]) {
        let Answer { headers, text, .. } = service.get(&path).await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for inline in [" style=", "<style", "javascript:", " onclick", " onload", " onsubmit"] {
            assert!(!text.contains(inline), "{path} has {inline}");
        }
        assert_eq!(text.matches("<script").count(), 1, "{path}");
        for source in text.split(" src=\"").skip(1) {
            assert!(source.starts_with("/assets/"), "{path} loads {source:.60}");
        }
        assert_eq!(text.contains("http-equiv=\"refresh\""), is_live, "{path}");
    }
}

#[tokio::test]
async fn assets_are_immutable() {
    let service = TestService::start().await;
    let index = service.page("/").await;
    for asset in [&*STYLE, &*SCRIPT, &*ICON] {
        assert!(index.contains(&asset.path));
        let answer = service.get(&asset.path).await;
        assert_eq!(answer.text, asset.text);
        assert!(answer.header("cache-control").contains("immutable"));
    }
    assert_eq!(service.get("/assets/page-000000000000.css").await.status, 404);
}

#[tokio::test]
async fn a_form_starts_a_build() {
    let service = TestService::start().await;
    service.submit("v5.1.8").await;
    service.lease().await;
    service.submit("v5.1.9").await;
    let form = format!("rr=v2025.1.15&p={LOGGER}&v.{LOGGER}=v5.2.7");
    let answer = service.post_form("/build", &[], &form).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let path = answer.header("location");
    let text = service.page(path).await;
    let link = format!("/?rr=v2025.1.15&amp;p={LOGGER}@v5.2.7&amp;target=");
    contains(
        &text,
        &[
            "RoadRunner v2025.1.15 with 1 plugin<",
            ">logger <span class=\"code\">v5.2.7</span>",
            "Position 2 of 2 in the queue; 1 build is running.",
            "Cancel this build",
            &link,
        ],
    );
    assert_eq!(service.post_form(&format!("{path}/cancel"), &[], "").await.status, 303);
    assert!(service.page(path).await.contains("Cancelled"));
}

#[tokio::test]
async fn errors_are_shown_beside_their_fields() {
    let service = TestService::start().await;
    let form = format!(
        "rr=v2025.1.15&p={LOGGER}&v.{LOGGER}=%3Cv%209%3E&more=example.com/x&target=plan9/amd64&race=1&debug=1&tags=one"
    );
    let text = service.form("/build", &form, 422).await;
    for id in ["v-logger", "more", "target"] {
        assert!(text.contains(&format!("id=\"{id}-wrong\"")), "no error at {id}: {text}");
        assert!(text.contains(&format!("href=\"#{id}\"")), "no link to {id}");
        assert!(text.contains(&format!(" id=\"{id}\"")), "no field {id}");
    }
    contains(
        &text,
        &[
            "value=\"&lt;v 9&gt;\"",
            ">example.com/x</textarea>",
            "value=\"one\"",
            "<details class=\"step advanced\" open",
        ],
    );
    assert!(!text.contains("<v 9>"));

    // The versions for an unknown release are unknown: the plugin moves to the field for other modules.
    let form = format!("rr=v2025.1.15&ref=a%20b&p={LOGGER}&v.{LOGGER}=v5.3.0");
    let text = service.form("/build", &form, 422).await;
    for kept in
        ["id=\"ref-wrong\"", "href=\"#ref\"", "value=\"a b\"", &format!(">{LOGGER}@v5.3.0</textarea>")]
    {
        assert!(text.contains(kept), "{kept} is missing: {text}");
    }

    let text = service.form("/build", "rr=v2025.1.15&p=", 422).await;
    assert_eq!(text.matches("select at least one plugin").count(), 2, "in the summary and beside the field");
    // A form without a selected plugin has no `p`; the default plugins are not built instead.
    for form in ["", "was=v2025.1.15&rr=v2025.1.15&target=linux/amd64"] {
        let text = service.form("/build", form, 422).await;
        assert!(text.contains("select at least one plugin") && !text.contains(" checked"), "{text}");
    }

    // Violations of the policy are also shown.
    let form = format!("rr=v2025.1.15&p={LOGGER}@v5.3.0&race=1");
    let text = service.form("/build", &form, 422).await;
    assert!(text.contains("id=\"race-wrong\""), "{text}");
}

#[tokio::test]
async fn an_incomplete_selection_is_built_on_purpose_only() {
    let service = TestService::start().await;
    let form = format!("was=v2025.1.15&rr=v2025.1.15&target=linux/amd64&p={HTTP}&p={GZIP}");
    let text = service.form("/build", &form, 422).await;
    let added = ["logger", "server"].map(|name| format!("github.com/roadrunner-server/{name}/v5"));
    contains(
        &text,
        &[
            "href=\"#missing\"",
            "<code>http</code> does not start without <code>server</code>.",
            "<code>http</code> and <code>server</code> do not start without <code>logger</code>.",
            "name=\"accepted\" value=\"server,logger\"",
            "Add server, logger",
            "Build anyway",
        ],
    );
    // The button adds both plugins to the submitted selection.
    let answer = service.get(&format!("/?{form}&add={},{}", added[0], added[1])).await;
    let link = answer.header("location");
    assert!(answer.status == 303 && added.iter().all(|module| link.contains(module)), "{answer:?}");
    let complete = service.get(link).await.text;
    assert!(complete.contains("data-missing=\"\"") && !complete.contains("Build anyway"), "{complete}");

    // Another warning is shown again; the same one is accepted.
    let other = format!("{form}&accepted=server");
    assert_eq!(service.post_form("/build", &[], &other).await.status, 422);
    let accepted = format!("{form}&accepted=server,logger");
    assert_eq!(service.post_form("/build", &[], &accepted).await.status, 303);

    // Middleware without a server does nothing. The part of the page for scripts says the same.
    let part = service.get(&format!("/missing?rr=v2025.1.15&p={GZIP}")).await;
    assert_eq!(part.status, 200);
    contains(
        &part.text,
        &["<code>gzip</code> does nothing without <code>http</code>.", "Add server, http, logger"],
    );
    let part = service.get("/missing?rr=v2025.1.15&p=github.com/roadrunner-server/memory/v5").await;
    contains(
        &part.text,
        &["without <code>jobs</code> or <code>kv</code>.", ">Add logger<", ">Add jobs<", ">Add kv<"],
    );
    assert!(service.get("/missing?p=").await.text.contains("data-missing=\"\""));
}

/// A form body with a `.rr.yaml`.
fn configuration_form(text: &str) -> String {
    url::form_urlencoded::Serializer::new("rr=v2025.1.15&target=linux/arm64&".to_owned())
        .append_pair("configuration", text)
        .finish()
}

#[tokio::test]
async fn plugins_are_selected_for_a_configuration() {
    let service = TestService::start().await;
    let text = "version: '3'\r\nserver: { command: php worker.php }\r\nrpc: { listen: 'tcp://u:hidden@127.0.0.1:6001' }\r\n\
                http:\r\n  address: :80\r\n  middleware: [gzip, nope]\r\nkv: { a: { driver: memory } }\r\n";
    let text = service.form("/select", &configuration_form(text), 200).await;
    assert!(text.contains("Selected for <code>.rr.yaml</code>"), "{text}");
    for name in ["gzip", "http", "kv", "logger", "memory", "rpc", "server"] {
        let module = format!("github.com/roadrunner-server/{name}/v5");
        assert!(text.contains(&format!("id=\"p-{name}\" value=\"{module}\" checked")), "{name}: {text}");
    }
    assert_eq!(text.matches(" checked").count(), 7, "only these: {text}");
    assert!(text.contains("Line 6: ") && text.contains("<code>nope</code>"), "{text}");
    assert!(text.contains("value=\"linux/arm64\" selected") && text.contains("data-missing=\"\""), "{text}");
    assert!(
        !text.contains("hidden@") && !text.contains("php worker.php"),
        "the text is not repeated: {text}"
    );

    // A plugin that the release has no version of.
    let nsq = "version: '3'\njobs: { pipelines: { a: { driver: nsq } } }\nserver: { command: a }\n";
    let text = service.form("/select", &configuration_form(nsq), 200).await;
    assert!(text.contains("plugin <code>nsq</code> does not exist for RoadRunner v2025.1.15"), "{text}");

    // What can't be used leaves the selection as it is.
    for (configuration, message) in [
        ("", "configuration is empty"),
        ("http: [", "Line "),
        ("a:\n\tb: c\n", "Line 2: "),
        ("- a\n- b\n", "expected sections"),
        (&"#".repeat(300 << 10), "larger than 256 KiB"),
    ] {
        let form = format!("{}&p={LOGGER}", configuration_form(configuration));
        let text = service.form("/select", &form, 422).await;
        assert!(text.contains("No plugins were selected.") && text.contains(message), "{message}: {text}");
        assert!(text.contains(&format!("value=\"{LOGGER}\" checked")), "{text}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(service.post_form("/select", &[], &configuration_form(&nested)).await.status, 422);
    let huge = configuration_form(&"a".repeat(2 << 20));
    assert_eq!(service.post_form("/select", &[], &huge).await.status, 413);
    let other_site = [("sec-fetch-site", "cross-site")];
    assert_eq!(service.post_form("/select", &other_site, &configuration_form(nsq)).await.status, 403);
}

#[tokio::test]
async fn selections_are_downloaded_as_files() {
    let service = TestService::start().await;
    let selection = format!("rr=v2025.1.15&p={LOGGER}@v5.1.9&target=linux/arm64");
    let toml = service.get(&format!("/velox.toml?{selection}")).await;
    assert_eq!(toml.header("content-disposition"), "attachment; filename=\"velox.toml\"");
    assert!(toml.text.contains("[plugins.logger]") && toml.text.contains("arch = \"arm64\""), "{toml:?}");
    let dockerfile = service.get(&format!("/Dockerfile?{selection}")).await;
    assert_eq!(dockerfile.header("content-disposition"), "attachment; filename=\"Dockerfile\"");
    assert!(dockerfile.text.contains("COPY velox.toml ./"), "{dockerfile:?}");

    let invalid = service.get("/velox.toml?rr=v2025.1.15&p=").await;
    assert!(invalid.status == 422 && invalid.text.contains("select at least one plugin"), "{invalid:?}");
    let windows = service.get(&format!("/Dockerfile?p={LOGGER}&target=windows/amd64")).await;
    assert!(windows.status == 422 && windows.text.contains("requires a Linux target"), "{windows:?}");

    // The files of a build.
    let id = service.submit("v5.1.8").await;
    let path = format!("/builds/{id}/Dockerfile");
    assert!(service.get(&path).await.text.contains("COPY velox.toml ./"));
    service.succeed(&service.lease().await, b"binary").await;
    assert!(service.get(&path).await.text.contains("COPY velox.toml velox.lock ./"));
}

#[tokio::test]
async fn the_platform_of_the_browser_is_preselected() {
    const MAC: (&str, &str) =
        ("user-agent", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari/605.1.15");
    let service = TestService::start().await;
    let text = service.request("GET", "/", &[MAC], "").await.text;
    assert!(
        text.contains("value=\"darwin/arm64\" selected") && text.contains("platform of your browser"),
        "{text}"
    );
    let first = text.split("<optgroup label=\"").nth(1).unwrap();
    assert!(first.starts_with("Linux"), "{first:.40}");
    let text = service.request("GET", "/?target=linux/amd64", &[MAC], "").await.text;
    assert!(
        text.contains("value=\"linux/amd64\" selected") && !text.contains("platform of your browser"),
        "{text}"
    );
}

#[tokio::test]
async fn cards_link_to_documentation_and_modules() {
    let service = TestService::start().await;
    let text = service.page("/?rr=v2025.1.15").await;
    contains(
        &text,
        &[
            "href=\"https://docs.roadrunner.dev/docs/http/http\"",
            &format!("href=\"https://pkg.go.dev/{HTTP}\""),
            "Needs logger, server",
            "always included",
        ],
    );
    for module in ["informer", "resetter"] {
        assert!(!text.contains(&format!("id=\"p-{module}\"")), "{module} can't be deselected");
    }
    assert!(!text.contains(">websockets<"), "not for this release");
    let text = service.page("/?rr=v3.0.0&p=").await;
    assert!(
        text.contains("roadrunner-server/http/v6") && !text.contains("roadrunner-server/http/v5"),
        "{text}"
    );
}

#[tokio::test]
async fn a_full_queue_keeps_the_selection() {
    let service = TestService::with(Default::default(), 0).await;
    let answer = service.post_form("/build", &[], &format!("rr=v2025.1.15&p={LOGGER}@v5.2.1")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "15"));
    assert!(answer.text.contains("selection is kept"), "{answer:?}");
    assert!(answer.text.contains("value=\"v5.2.1\""), "{answer:?}");
}

#[tokio::test]
async fn forms_of_other_sites_are_rejected() {
    let service = TestService::start().await;
    let cancel = format!("/builds/{}/cancel", service.submit("v5.1.8").await);
    let form = format!("rr=v2025.1.15&p={LOGGER}@v5.3.0");
    let host = ("host", "vx.example:8080");
    for headers in [
        &[host, ("sec-fetch-site", "cross-site")][..],
        &[host, ("sec-fetch-site", "same-site"), ("origin", "http://vx.example:8080")],
        &[host, ("origin", "http://evil.example")],
        &[host, ("origin", "null")],
        &[host, ("origin", "http://vx.example")],
    ] {
        for path in ["/build", &cancel] {
            assert_eq!(service.post_form(path, headers, &form).await.status, 403, "{path} {headers:?}");
        }
    }
    for headers in [
        &[host, ("sec-fetch-site", "same-origin")][..],
        &[host, ("origin", "http://vx.example:8080")],
        &[host, ("origin", "https://vx.example:8080")],
        &[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")],
        &[host],
    ] {
        assert_eq!(service.post_form("/build", headers, &form).await.status, 303, "{headers:?}");
    }
}

#[tokio::test]
async fn build_pages_show_progress_and_results() {
    let service = TestService::start().await;
    let other = Request::post("/build").body(Body::from(format!("rr=v2025.1.15&p={LOGGER}@v5.3.0"))).unwrap();
    let other = answer(service.send_from([10, 1, 1, 1], other).await).await;
    let path = other.header("location");
    let lease = service.lease().await;
    let compiling = entry(Severity::Info, "compiling", Some("compile"));
    let log = vec![
        entry(Severity::Info, "resolving <versions>", Some("resolve")),
        LogEntry { done: Some(3), total: Some(7), ..compiling },
        entry(Severity::Error, "undefined: x", None),
    ];
    service.log(&lease, log).await;
    let text = service.page(path).await;
    contains(&text, &["resolving &lt;versions&gt;", "data-after=\"3\"", "3 of 7", "aria-current=\"step\""]);
    assert!(!text.contains("Cancel this build"), "it belongs to another caller");
    assert_eq!(service.post_form(&format!("{path}/cancel"), &[], "").await.status, 403);

    let id = service.submit("v5.1.8").await;
    let artifact = service.succeed(&service.lease().await, &[0; 57_234]).await;
    let text = service.page(&format!("/builds/{id}")).await;
    let link = format!("href=\"/v1/artifacts/{}\"", artifact.sha256);
    contains(&text, &[&link, "56 KiB", "kv was raised", "velox.lock"]);
    assert!(!text.contains("vulnerabilities"), "there is no database: {text}");

    let id = service.submit("v5.1.9").await;
    let message = "http has no version <v9>\nhelp: use v5.3.0";
    service.fail(&service.lease().await, FailureKind::Invalid, message).await;
    let text = service.page(&format!("/builds/{id}")).await;
    contains(&text, &["http has no version &lt;v9&gt;\nhelp", "Change selection"]);

    // The advice doesn't contradict the message.
    let id = service.submit("v5.1.7").await;
    service
        .fail(&service.lease().await, FailureKind::Unavailable, "403 Forbidden\nhelp: check the name")
        .await;
    let text = service.page(&format!("/builds/{id}")).await;
    assert!(text.contains("the message says which") && !text.contains("not your selection"), "{text}");

    for unknown in [BuildId::new().to_string(), "x".to_owned()] {
        let path = format!("/builds/{unknown}");
        let answer = service.request("GET", &path, &[("accept", "text/html")], "").await;
        assert_eq!(answer.status, 404);
        assert!(answer.text.contains("<h1>Not found</h1>"), "{answer:?}");
    }
}

/// WCAG 2.2, 1.4.3 and 1.4.11, for the color variables of both schemes.
#[test]
fn colors_have_sufficient_contrast() {
    fn luminance(hex: &str) -> f64 {
        let channel = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }
    fn variable<'a>(scheme: &'a str, name: &str) -> Option<&'a str> {
        let (_, rest) = scheme.split_once(&format!("--{name}: "))?;
        rest.get(..7)
    }
    let style = STYLE.text;
    let (light, rest) = style.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let (dark, _) = rest.split_once("\n}\n").unwrap();
    let text = [
        ("text", "ground"),
        ("text", "surface"),
        ("text", "sunk"),
        ("text", "accent-soft"),
        ("text", "bad-soft"),
        ("text", "warn-soft"),
        ("muted", "ground"),
        ("muted", "surface"),
        ("muted", "sunk"),
        ("accent", "ground"),
        ("accent", "surface"),
        ("accent", "accent-soft"),
        ("accent-hover", "surface"),
        ("on-accent", "accent"),
        ("on-accent", "accent-hover"),
        ("good", "accent-soft"),
        ("bad", "surface"),
        ("bad", "bad-soft"),
        ("bad", "accent-soft"),
        ("warn", "warn-soft"),
        ("log-text", "log"),
        ("log-muted", "log"),
        ("log-warn", "log"),
        ("log-bad", "log"),
    ];
    let borders = [("edge", "surface"), ("edge", "accent-soft"), ("accent", "sunk"), ("accent", "ground")];
    for (scheme, name) in [(light, "light"), (dark, "dark")] {
        let of = |variable_name| {
            luminance(variable(scheme, variable_name).or_else(|| variable(light, variable_name)).unwrap())
        };
        let checked = text.iter().map(|pair| (pair, 4.5)).chain(borders.iter().map(|pair| (pair, 3.0)));
        for ((front, back), least) in checked {
            let (one, other) = (of(front), of(back));
            let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
            assert!(contrast >= least, "{name}: {front} on {back} is {contrast:.2}");
        }
    }
}
