//! The build service's web page, in a real browser and without scripts.
//!
//! `VX_SCREENSHOTS=docs/images cargo test -p vx --test service page` renders the images of the documentation;
//! `pngquant --force --ext .png docs/images/page-*.png` compresses them.

use std::{env, fs, ops::Deref, path::PathBuf, time::Duration};

use data_encoding::HEXLOWER;
use fantoccini::key::Key;
use serde_json::json;
use sha2::{Digest, Sha256};
use velox_testkit::{ModuleProxy, plugin};

use crate::support::{
    browser::{self, Browser},
    sandbox::{Sandbox, skip, wait_until},
    service::RunningService,
};

/// RoadRunner releases of these tests: small servers with the versions of real ones, whose plugins vx knows.
const RELEASE: &str = "v2025.1.15";
const OLDER: &str = "v2024.2.1";
/// A release that only the module proxy lists.
const UNKNOWN: &str = "v2023.9.9";
/// Real plugins for the small server.
const PLUGINS: [(&str, &str); 5] = [
    ("fileserver", "v5.1.9"),
    ("logger", "v5.1.9"),
    ("metrics", "v5.2.0"),
    ("rpc", "v5.1.9"),
    ("status", "v5.1.9"),
];

/// A plugin that doesn't compile.
const BROKEN: &str = "github.com/acme/rr-broken";

/// A service with its web page.
struct Site {
    service: RunningService,
    /// A token with all scopes, if the service requires one.
    token: Option<String>,
    sandbox: Sandbox,
    _proxy: ModuleProxy,
}

impl Deref for Site {
    type Target = RunningService;

    fn deref(&self) -> &RunningService {
        &self.service
    }
}

impl Site {
    fn start(needs_token: bool) -> Self {
        let proxy = ModuleProxy::start();
        proxy.roadrunner(RELEASE).roadrunner(OLDER).roadrunner(UNKNOWN);
        proxy.module(BROKEN, "v1.0.0", plugin(BROKEN, "broken").compile_error().files());
        let sandbox = Sandbox::behind(&proxy);
        let token = needs_token.then(|| sandbox.vx("server token new me").ok().trim().to_owned());
        let tokens = if needs_token { "--tokens tokens.toml" } else { "" };
        let mut command = sandbox.vx_command(&format!("server --data data --jobs 1 {tokens}"));
        Self { service: RunningService::start(&mut command), token, sandbox, _proxy: proxy }
    }

    /// The path and query of a selection.
    fn link(&self, plugins: &[(&str, &str)]) -> String {
        let plugin =
            |(name, version): &(&str, &str)| format!("&p=github.com/roadrunner-server/{name}/v5@{version}");
        let plugins: String = plugins.iter().map(plugin).collect();
        format!("{}/?rr={RELEASE}{plugins}&target=linux/amd64", self.url)
    }
}

/// Runs a test with a service and a browser; without a browser it is skipped with a printed reason.
fn story(name: &str, report: impl AsyncFnOnce(&Site, &Browser)) {
    story_with(name, false, report);
}

fn story_with(name: &str, needs_token: bool, report: impl AsyncFnOnce(&Site, &Browser)) {
    if let Some(why) = browser::missing() {
        return skip(name, &why);
    }
    // The proxy has its own runtime, which can't be started within another one.
    let service = Site::start(needs_token);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let browser = Browser::start().await;
        browser.size(1280, 960, false).await;
        report(&service, &browser).await;
        let complaints = browser.complaints().await;
        assert_eq!(complaints, Vec::<String>::new(), "the console is quiet");
        browser.close().await;
    });
}

const READY: &str = "document.querySelector('[data-download]')";

#[test]
fn page_works_with_the_keyboard_alone() {
    story("page_works_with_the_keyboard_alone", async |service, browser| {
        browser.goto(&service.url).await;
        browser.until(&format!("document.querySelector('#rr').value === '{RELEASE}'")).await;
        let tab = String::from(char::from(Key::Tab));

        // The first tab stop skips the header and is visible.
        browser.press(&tab).await;
        assert_eq!(browser.focus().await, "Skip to content");
        assert_eq!(browser.value("document.activeElement.getBoundingClientRect().top > 0").await, true);
        browser.press(&String::from(char::from(Key::Enter))).await;
        browser.tab_to("Clear").await;
        browser.press(" ").await;
        assert_eq!(browser.text("[data-said=count]").await, "0");

        // A slash focuses the search.
        browser.press("/").await;
        assert_eq!(browser.focus().await, "search");
        browser.press("health checks").await;
        assert_eq!(browser.text("[data-found]").await, "1 plugin");
        // Enter searches; it doesn't build.
        browser.press(&String::from(char::from(Key::Enter))).await;
        browser.tab_to("p-status").await;
        browser.press(" ").await;
        assert_eq!(browser.text("[data-said=count]").await, "1");
        assert_eq!(browser.text("[data-chips]").await, "status");
        browser.press("/").await;
        browser.press(&String::from(char::from(Key::Escape))).await;
        assert_eq!(browser.text("[data-found]").await, "");
        browser.tab_to("p-rpc").await;
        browser.press(" ").await;
        assert_eq!(browser.text("[data-said=count]").await, "2");

        // Both need the logger, which one press adds.
        browser.until("document.querySelector('#missing').dataset.missing === 'logger'").await;
        browser.tab_to("Add logger").await;
        browser.press(" ").await;
        assert_eq!(browser.focus().await, "Build");
        assert_eq!(browser.text("[data-said=count]").await, "3");
        browser.until("document.querySelector('#missing').dataset.missing === ''").await;
        browser.press("/").await;

        // Every tab stop shows the focus.
        let ring = "(() => { const at = document.activeElement, card = at.closest('.card'); \
                    return [at, card].some((it) => it && getComputedStyle(it).outlineStyle === 'solid'); })()";
        let mut stops = 0;
        while browser.focus().await != "Build" {
            assert_eq!(browser.value(ring).await, true, "{} shows no focus", browser.focus().await);
            browser.press(&tab).await;
            stops += 1;
            assert!(stops < 300, "Build is never reached");
        }
        browser.press(&String::from(char::from(Key::Enter))).await;
        browser.until("location.pathname.startsWith('/builds/')").await;

        // The log grows on the open page, which is replaced when the build ends.
        browser.script("window.stays = true").await;
        browser.until("window.stays && document.querySelectorAll('[data-lines] .text').length > 2").await;
        browser.until(READY).await;
        assert_eq!(browser.text("h1").await, format!("RoadRunner {RELEASE} with 3 plugins"));
        assert!(browser.text(".head .chips").await.contains("rpc v5.1.9"));
        assert_eq!(browser.text("[data-state-word]").await, "Ready");

        // The download has the checksum that the page shows.
        let sha256 = browser.text("#sha256").await;
        let path = browser.href("[data-download]").await;
        let answer = browser::http().get(format!("{}{path}", service.url)).send().await.unwrap();
        let bytes = answer.bytes().await.unwrap();
        let sum = HEXLOWER.encode(&Sha256::digest(&bytes));
        assert_eq!(sum, sha256);
        assert!(bytes.len() > 1_000_000, "{} bytes", bytes.len());

        // The files are present, and the lock is shown on demand.
        browser.script("document.querySelector('[data-file]').open = true").await;
        browser
            .until("document.querySelector('[data-file] code').textContent.includes('[roadrunner]')")
            .await;
        let toml = browser.href("[data-configuration]").await;
        let toml =
            browser::http().get(format!("{}{toml}", service.url)).send().await.unwrap().text().await.unwrap();
        assert!(toml.contains("[plugins.status]") && toml.contains(RELEASE), "{toml}");

        // The link back restores the selection, whose build is available immediately.
        browser.goto(&format!("{}{}", service.url, browser.href("[data-again]").await)).await;
        assert_eq!(checked(browser).await, json!(["rpc", "logger", "status"]));
        browser.click("button.primary").await;
        browser.until(READY).await;
    });
}

/// The names of the selection, in page order.
async fn checked(browser: &Browser) -> serde_json::Value {
    browser
        .value(
            "[...document.querySelectorAll('[data-plugin]')].filter((card) => card.querySelector(':checked')).\
             map((card) => card.querySelector('label').textContent)",
        )
        .await
}

#[test]
fn page_address_holds_the_selection() {
    story("page_address_holds_the_selection", async |service, browser| {
        let link = service.link(&[("kv", "v5.0.0"), ("http", "v5.3.0")]);
        browser
            .goto(&format!(
                "{link}&more=example.com/acme/x@v1.0.0&tags=one,two&strict=1&go=1.26&requires=a.b/c@v1.0.0"
            ))
            .await;
        assert_eq!(checked(browser).await, json!(["http", "kv"]));
        let before = browser.client.current_url().await.unwrap();
        browser.client.refresh().await.unwrap();
        assert_eq!(browser.client.current_url().await.unwrap(), before);
        assert_eq!(checked(browser).await, json!(["http", "kv"]));
        assert_eq!(browser.value("document.querySelector('#v-kv').value").await, "v5.0.0");
        assert_eq!(browser.value("document.querySelector('#more').value").await, "example.com/acme/x@v1.0.0");
        assert_eq!(browser.value("document.querySelector('#requires').value").await, "a.b/c@v1.0.0");
        assert_eq!(browser.value("document.querySelector('#go').value").await, "1.26");
        assert_eq!(browser.value("document.querySelector('#strict').checked").await, true);
        assert_eq!(browser.value("document.querySelector('.advanced').open").await, true);

        // It follows the selection, and so does the copied text.
        browser.click("label[for=p-redis]").await;
        browser.client.refresh().await.unwrap();
        assert_eq!(checked(browser).await, json!(["http", "kv", "redis"]));
        let link = browser.href("[data-link]").await;
        assert_eq!(browser.value("location.pathname + location.search").await, link);
        browser.click("[data-link]").await;
        browser.until("document.querySelector('[data-link]').textContent === 'Copied'").await;

        // Another RoadRunner changes the versions; manual changes stay.
        let release = "const rr = document.querySelector('#rr'); rr.value = 'OLDER'; \
                       for (const name of ['input', 'change']) rr.dispatchEvent(new Event(name, { bubbles: true }))";
        browser.script(&release.replace("OLDER", OLDER)).await;
        browser.until("document.querySelector('#v-http').value === 'v5.0.4'").await;
        assert_eq!(browser.value("document.querySelector('#v-kv').value").await, "v5.0.0");
        assert_eq!(checked(browser).await, json!(["http", "kv", "redis"]));

        // All plugins of RoadRunner's own but those that are always included, and none.
        browser.click("[name=preset][value=full]").await;
        assert_eq!(browser.value("document.querySelectorAll('[data-plugin] :checked').length").await, 33);
        browser.click("[name=set]").await;
        browser.client.refresh().await.unwrap();
        assert_eq!(checked(browser).await, json!([]));

        // Everything is loaded from the service, and is small.
        let sizes = "performance.getEntries().filter((entry) => entry.name.startsWith('http')).\
                     map((entry) => [entry.name, entry.decodedBodySize])";
        let sizes = browser.value(sizes).await;
        let sizes: Vec<(String, u64)> = serde_json::from_value(sizes).unwrap();
        assert!(
            sizes.len() >= 3 && sizes.iter().all(|(name, _)| name.starts_with(&service.url)),
            "{sizes:?}"
        );
        let total: u64 = sizes.iter().map(|(_, size)| size).sum();
        assert!(total < 100_000, "{total} bytes: {sizes:?}");
    });
}

#[test]
fn page_warns_of_incomplete_selections() {
    story("page_warns_of_incomplete_selections", async |service, browser| {
        browser.goto(&format!("{}/?rr={RELEASE}&p=&target=linux/amd64", service.url)).await;
        assert_eq!(browser.text("#missing").await, "");
        browser.click("label[for=p-http]").await;
        browser.until("document.querySelector('#missing').dataset.missing === 'server,logger'").await;
        let warning = browser.text("#missing").await;
        assert!(warning.contains("http does not start without server."), "{warning}");
        audit(browser, "warning").await;
        pictures(browser, "warning").await;

        // It is built on purpose only.
        browser.click("button.primary").await;
        browser.until("document.querySelector('#wrong')").await;
        assert_eq!(browser.text("button.primary").await, "Build anyway");
        audit(browser, "confirming").await;
        only_422(browser).await;
        // Another selection is another warning.
        browser.click("label[for=p-gzip]").await;
        browser.click("label[for=p-http]").await;
        browser.until("document.querySelector('#missing').dataset.missing === 'gzip:http'").await;
        assert_eq!(browser.text("button.primary").await, "Build");
        browser.click("#missing [name=add]").await;
        browser.until("document.querySelector('#missing').dataset.missing === ''").await;
        assert_eq!(checked(browser).await, json!(["server", "gzip", "http", "logger"]));

        // Presets add to the selection.
        browser.click("[name=preset][value=monitoring]").await;
        let checked = checked(browser).await;
        assert!(
            ["gzip", "metrics", "status"]
                .iter()
                .all(|name| checked.as_array().unwrap().contains(&json!(name))),
            "{checked}"
        );

        // The files are downloaded, and the page stays.
        let place = service.sandbox.at("files");
        browser.downloads(&place).await;
        for name in ["velox.toml", "Dockerfile"] {
            browser.click(&format!("[formaction='/{name}']")).await;
            wait_until("it is downloaded", || place.join(name).exists());
        }
        let toml = fs::read_to_string(place.join("velox.toml")).unwrap();
        assert!(toml.contains("[plugins.gzip]") && toml.contains("[plugins.metrics]"), "{toml}");
    });
}

#[test]
fn page_selects_plugins_for_a_configuration() {
    story("page_selects_plugins_for_a_configuration", async |service, browser| {
        let file = service.sandbox.at("my.rr.yaml");
        fs::write(&file, "version: '3'\nserver: { command: a }\nhttp: { middleware: [gzip] }\nno: {}\n")
            .unwrap();
        browser.goto(&service.link(&[("status", "v5.1.9")])).await;
        browser.click("details.configuration summary").await;
        browser.find("#configuration-file").await.send_keys(file.to_str().unwrap()).await.unwrap();
        browser.until("document.querySelector('#configured').textContent.includes('Selected for')").await;
        assert_eq!(checked(browser).await, json!(["server", "gzip", "http", "logger"]));
        let told = browser.text("#configured").await;
        assert!(told.contains("Line 4: "), "{told}");
        let address = browser.value("location.href").await;
        assert!(address.as_str().unwrap().contains("/gzip/"), "{address}");
        audit(browser, "configuration").await;
        pictures(browser, "configuration").await;

        // Dropped on any place of the page; an unusable file changes nothing.
        let drop = "const files = new DataTransfer(); files.items.add(new File([TEXT], '.rr.yaml')); \
                    for (const name of ['dragover', 'drop']) \
                    document.querySelector('h1').dispatchEvent(new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: files }))";
        browser.script(&drop.replace("TEXT", "'http: ['")).await;
        browser.until("document.querySelector('#configured').textContent.includes('No plugins')").await;
        assert_eq!(checked(browser).await, json!(["server", "gzip", "http", "logger"]));
        browser.script(&drop.replace("TEXT", "'a'.repeat(300 * 1024)")).await;
        browser.until("document.querySelector('#configured').textContent.includes('larger than')").await;
        browser.script(&drop.replace("TEXT", "'version: \"3\"\\nrpc: { listen: a }'")).await;
        browser.until("document.querySelector('#configured').textContent.includes('Selected for')").await;
        assert_eq!(checked(browser).await, json!(["rpc", "logger"]));
        // The rejected file is logged by the browser.
        only_422(browser).await;
    });
}

#[test]
fn page_shows_errors_beside_their_fields() {
    story("page_shows_errors_beside_their_fields", async |service, browser| {
        browser.goto(&service.link(&[("http", "v5.3.0")])).await;
        let version = browser.find("#v-http").await;
        version.clear().await.unwrap();
        version.send_keys("no version").await.unwrap();
        browser.find("#more").await.send_keys("example.com/acme/x").await.unwrap();
        browser.click("button.primary").await;
        browser.until("document.querySelector('#wrong')").await;
        assert_eq!(browser.focus().await, "wrong");
        assert!(browser.text("#v-http-wrong").await.contains("no version"));
        assert!(browser.text("#more-wrong").await.contains("example.com/acme/x"));
        assert_eq!(browser.value("document.querySelector('#v-http').value").await, "no version");
        browser.click("#wrong a[href='#v-http']").await;
        assert_eq!(browser.focus().await, "v-http");
        let described =
            "document.getElementById(document.activeElement.getAttribute('aria-describedby')).textContent";
        assert!(browser.value(described).await.as_str().unwrap().contains("no version"));
        // The response is an error, which browsers log.
        only_422(browser).await;

        // A compile error is shown on the page of the build, with a link back to the selection.
        browser
            .goto(&format!(
                "{}&more={BROKEN}@v1.0.0",
                service.link(&[("logger", "v5.1.9"), ("status", "v5.1.9")])
            ))
            .await;
        browser.click("button.primary").await;
        browser.until("document.querySelector('.message')").await;
        let message = browser.text(".message").await;
        assert!(message.contains("undefined: missing"), "{message}");
        assert_eq!(browser.text("[data-state-word]").await, "Failed");
        pictures(browser, "failed").await;
        browser.click("[data-change]").await;
        browser.until("location.pathname === '/'").await;
        assert_eq!(browser.value("document.querySelector('#more').value").await, format!("{BROKEN}@v1.0.0"));
    });
}

#[test]
fn page_is_accessible() {
    story("page_is_accessible", async |service, browser| {
        browser.goto(&service.link(&PLUGINS)).await;
        for scheme in ["light", "dark"] {
            browser.scheme(scheme).await;
            audit(browser, &format!("choosing, {scheme}")).await;
        }
        pictures(browser, "choose").await;

        browser.click("button.primary").await;
        browser.until("document.querySelector('[data-phase=compile].now') || document.querySelector('[data-download]')").await;
        if browser.value(READY).await.is_null() {
            audit(browser, "building").await;
            pictures(browser, "building").await;
        }
        browser.until(READY).await;
        browser.script("for (const part of document.querySelectorAll('details')) part.open = true").await;
        for scheme in ["light", "dark"] {
            browser.scheme(scheme).await;
            audit(browser, &format!("ready, {scheme}")).await;
        }
        browser.client.refresh().await.unwrap();
        pictures(browser, "ready").await;

        // On a phone nothing is cut off.
        browser.size(360, 740, true).await;
        for path in ["", &format!("{}?", browser.client.current_url().await.unwrap().path())] {
            browser.goto(&format!("{}{path}", service.url)).await;
            let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(browser.value(overflow).await, 0, "{path} is wider than a phone");
        }
    });
}

/// Asserts that the browser only logged rejected forms.
async fn only_422(browser: &Browser) {
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|printed| printed.contains("422")), "{complaints:?}");
}

/// Asserts accessibility: names, headings, landmarks, references, contrast.
async fn audit(browser: &Browser, what: &str) {
    let found = browser.script(include_str!("../support/audit.js")).await;
    assert_eq!(found, json!([]), "{what}");
}

/// Takes screenshots for the documentation if requested.
async fn pictures(browser: &Browser, name: &str) {
    let Some(directory) = env::var_os("VX_SCREENSHOTS").map(PathBuf::from) else { return };
    // Tests run in the package's directory.
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory);
    fs::create_dir_all(&directory).unwrap();
    for (kind, scheme, width, height, mobile) in [
        ("light", "light", 1280, 960, false),
        ("dark", "dark", 1280, 960, false),
        ("phone", "light", 390, 844, true),
    ] {
        browser.scheme(scheme).await;
        browser.size(width, height, mobile).await;
        browser.script("scrollTo(0, 0)").await;
        fs::write(directory.join(format!("page-{name}-{kind}.png")), browser.picture().await).unwrap();
    }
    browser.scheme("light").await;
    browser.size(1280, 960, false).await;
}

#[test]
fn page_takes_a_token_as_password() {
    story_with("page_takes_a_token_as_password", true, async |service, browser| {
        // The page for a missing and for a wrong token.
        let seen = async |token: Option<&str>| {
            let request = browser::http().get(&service.url).header("accept", "text/html");
            let request = match token {
                Some(token) => request.basic_auth("me", Some(token)),
                None => request,
            };
            let answer = request.send().await.unwrap();
            let challenges = answer.headers().get_all("www-authenticate").iter();
            assert!(challenges.into_iter().any(|challenge| challenge.as_bytes().starts_with(b"Basic ")));
            assert_eq!(answer.status(), 401);
            answer.text().await.unwrap()
        };
        assert!(seen(None).await.contains("<h1>Sign in</h1>"));
        assert!(seen(Some("vx_wrong")).await.contains("<h1>Invalid token</h1>"));

        let host = service.url.strip_prefix("http://").unwrap();
        browser.goto(&format!("http://me:{}@{host}/", service.token.as_ref().unwrap())).await;
        assert_eq!(browser.text("h1").await, "Build a RoadRunner binary");

        // The browser keeps the token for all requests: forms, the live log, files, downloads.
        browser.goto(&service.link(&[("logger", "v5.1.9"), ("rpc", "v5.1.9")])).await;
        browser.click("button.primary").await;
        browser.until("location.pathname.startsWith('/builds/')").await;
        browser.script("window.stays = true").await;
        browser.until("window.stays && document.querySelectorAll('[data-lines] .text').length > 2").await;
        browser.until(READY).await;
        browser.script("document.querySelector('[data-file]').open = true").await;
        browser
            .until("document.querySelector('[data-file] code').textContent.includes('[roadrunner]')")
            .await;
        let place = service.sandbox.at("downloads");
        browser.downloads(&place).await;
        browser.click("[data-download]").await;
        // It has a temporary name until it is complete.
        wait_until("it is downloaded", || place.join("rr").exists());
        let sum = HEXLOWER.encode(&Sha256::digest(fs::read(place.join("rr")).unwrap()));
        assert_eq!(sum, browser.text("#sha256").await);
    });
}

#[test]
fn page_works_without_javascript() {
    let service = Site::start(false);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let http = browser::http();
        let get = async |path: &str| {
            let answer = http.get(format!("{}{path}", service.url)).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let post = async |path: &str, body: String| {
            let request = http.post(format!("{}{path}", service.url)).body(body);
            let answer =
                request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
            let location = answer.headers().get("location").map(|path| path.to_str().unwrap().to_owned());
            (answer.status().as_u16(), location)
        };
        let (status, text) = get("/").await;
        assert_eq!(status, 200);
        assert!(text.contains("<form class=\"choose\" method=\"post\" action=\"/build\""), "{text}");

        // The list of releases and their plugins comes from the module proxy in the background.
        loop {
            let (_, text) = get(&format!("/?rr={UNKNOWN}")).await;
            let listed = text.contains(&format!("<option value=\"{UNKNOWN}\" selected"));
            if listed && text.contains("are those of this release") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        let rpc = "github.com/roadrunner-server/rpc/v5";
        let form = format!(
            "was={RELEASE}&rr={RELEASE}&ref=&p={rpc}&v.{rpc}=v5.1.9&more=&target=linux%2Famd64&tags="
        );
        let logger = "github.com/roadrunner-server/logger/v5";
        let form = format!("{form}&p={logger}&v.{logger}=v5.1.9");
        let (status, location) = post("/build", form.clone()).await;
        assert_eq!(status, 303);
        let location = location.unwrap();
        let mut seen_waiting = false;
        let text = loop {
            let (status, text) = get(&location).await;
            assert_eq!(status, 200);
            if text.contains("data-state=\"succeeded\"") {
                break text;
            }
            assert!(!text.contains("data-state=\"failed\""), "{text}");
            seen_waiting |= text.contains("<meta http-equiv=\"refresh\"");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert!(seen_waiting && !text.contains("http-equiv=\"refresh\""), "{text}");
        let (_, rest) = text.split_once("href=\"/v1/artifacts/").unwrap();
        let sha256 = rest.split('"').next().unwrap();
        let bytes = http
            .get(format!("{}/v1/artifacts/{sha256}", service.url))
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let sum = HEXLOWER.encode(&Sha256::digest(&bytes));
        assert_eq!(sum, sha256);

        // The same request again is the same build.
        assert_eq!(post("/build", form).await.1, Some(location));
    });
}
