//! A real browser: headless Chromium, driven over WebDriver.

// Each test binary uses only a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element, key::Key};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Timeout for any condition of a page, including builds on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(240);

/// A browser with an empty profile.
pub struct Browser {
    pub client: Client,
    driver: Child,
    /// The session's URL at the driver, for commands that the WebDriver client lacks.
    session: String,
    http: reqwest::Client,
    _profile: TempDir,
}

/// The reason why no browser is available; `None` if there is one.
pub fn missing() -> Option<String> {
    let lacks = |program: &&&str| Command::new(program).arg("--version").output().is_err();
    let lacking: Vec<&str> = ["chromium", "chromedriver"].iter().filter(lacks).copied().collect();
    (!lacking.is_empty()).then(|| format!("{} is missing", lacking.join(" and ")))
}

impl Browser {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let printed = lines.find_map(|line| {
            line.unwrap().split_once("started successfully on port ").map(|(_, port)| port.to_owned())
        });
        let url = format!("http://127.0.0.1:{}", printed.unwrap().trim_end_matches('.'));
        // Drains the output so that the pipe never fills.
        std::thread::spawn(move || lines.for_each(drop));

        let profile_argument = format!("--user-data-dir={}", profile.path().join("chromium").display());
        let arguments = [
            "--headless=new",
            // Chromium has no sandbox for root, the usual user of containers.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--window-size=1280,960",
            &profile_argument,
        ];
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&url)
            .await
            .unwrap();
        let session = client.session_id().await.unwrap().unwrap();
        let session = format!("{url}/session/{session}");
        Self { client, driver, session, http: http(), _profile: profile }
    }

    pub async fn close(self) {
        self.client.clone().close().await.unwrap();
    }

    async fn driver(&self, command: &str, body: Value) -> Value {
        let answer = self.http.post(format!("{}/{command}", self.session)).json(&body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{command}: {value}");
        value
    }

    /// A command of the DevTools protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    async fn devtools(&self, command: &str, parameters: Value) {
        self.driver("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await;
    }

    /// Sets the color scheme: `light` or `dark`.
    pub async fn scheme(&self, scheme: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Sets the download directory.
    pub async fn downloads(&self, place: &Path) {
        let parameters = json!({ "behavior": "allow", "downloadPath": place });
        self.devtools("Browser.setDownloadBehavior", parameters).await;
    }

    /// Sets the viewport size in CSS pixels.
    pub async fn size(&self, width: u32, height: u32, mobile: bool) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Console messages since the last call: script errors and violations of the content security policy.
    pub async fn complaints(&self) -> Vec<String> {
        let entries = self.driver("se/log", json!({ "type": "browser" })).await;
        let entries = entries.as_array().unwrap();
        entries.iter().map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    pub async fn goto(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    pub async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Evaluates an expression.
    pub async fn value(&self, expression: &str) -> Value {
        self.script(&format!("return ({expression});")).await
    }

    pub async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    pub async fn find(&self, selector: &str) -> Element {
        self.client.find(Locator::Css(selector)).await.unwrap_or_else(|error| panic!("{selector}: {error}"))
    }

    pub async fn click(&self, selector: &str) {
        self.find(selector).await.click().await.unwrap();
    }

    pub async fn href(&self, selector: &str) -> String {
        self.find(selector).await.attr("href").await.unwrap().unwrap()
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let end = Instant::now() + WAIT_TIMEOUT;
        loop {
            // There is no document during navigation.
            let answer = self.client.execute(&format!("return Boolean({expression});"), Vec::new()).await;
            if answer.is_ok_and(|value| value == json!(true)) {
                return;
            }
            if Instant::now() > end {
                let text = self.script("return document.body.innerText").await;
                panic!(
                    "{expression} never became true on {}:\n{text}",
                    self.client.current_url().await.unwrap()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends keys to the focused element.
    pub async fn press(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// The focused element: its `id`, else its text.
    pub async fn focus(&self) -> String {
        let name = "document.activeElement.id || document.activeElement.textContent.trim()";
        self.value(name).await.as_str().unwrap().to_owned()
    }

    /// Presses Tab until an element has the focus.
    pub async fn tab_to(&self, name: &str) {
        let mut passed = Vec::new();
        while self.focus().await != name {
            passed.push(self.focus().await);
            assert!(passed.len() < 300, "{name} is never reached by Tab: {passed:?}");
            self.press(&String::from(char::from(Key::Tab))).await;
        }
    }

    pub async fn picture(&self) -> Vec<u8> {
        self.client.screenshot().await.unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// An HTTP client that follows no redirects.
pub fn http() -> reqwest::Client {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}
