//! A real browser for tests of pages: headless Chromium, driven over `WebDriver`.
//! Invariant: dropping it ends the driver and the browser; what the browser complained about fails the test.
//! Other test binaries may include this folder by its path; it must not know any page.

#![allow(
    dead_code,
    reason = "each test binary that includes this file uses a part of it"
)]

mod driver;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use driver::Driver;

/// Long enough for a busy machine, short enough for a person to wait for a failure.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Browser {
    driver: Driver,
}

impl Browser {
    /// A fresh browser that shows this page at the size of a desk.
    pub(crate) async fn open(url: &str) -> Self {
        let browser = Self {
            driver: Driver::start().await,
        };
        browser.resize(1280, 900, false).await;
        browser.go(url).await;
        browser
    }

    pub(crate) async fn go(&self, url: &str) {
        self.driver.post("url", &json!({ "url": url })).await;
    }

    /// What the body of a function answers in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let call = json!({ "script": script, "args": [] });
        self.driver.post("execute/sync", &call).await
    }

    /// The text of the first element that fits, as a reader sees it.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.text_if_there(selector).await;
        text.unwrap_or_else(|| panic!("there is no {selector} on the page"))
    }

    async fn text_if_there(&self, selector: &str) -> Option<String> {
        let found = self
            .run(&format!(
                "const found = document.querySelector({});
                 return found?.innerText ?? found?.textContent ?? null",
                json!(selector)
            ))
            .await;
        found.as_str().map(str::to_owned)
    }

    /// Waits until the text of an element is as it should be, and answers it. The page may be another one by then.
    pub(crate) async fn wait_for_text(&self, selector: &str, holds: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = match self.text_if_there(selector).await {
                Some(text) if holds(&text) => return text,
                seen => seen,
            };
            assert!(Instant::now() < end, "waited for {selector}; last seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A click where the pointer would click: on something else, or on nothing, it fails.
    pub(crate) async fn click(&self, selector: &str) {
        let found = self
            .driver
            .post("element", &json!({ "using": "css selector", "value": selector }))
            .await;
        let element = found
            .as_object()
            .and_then(|found| found.values().next()?.as_str())
            .unwrap_or_else(|| panic!("there is no {selector} on the page: {found}"))
            .to_owned();
        self.driver
            .post(&format!("element/{element}/click"), &json!({}))
            .await;
    }

    /// Another page beside this one, which is looked at from now on; the tab that was looked at until now.
    pub(crate) async fn open_tab(&self, url: &str) -> String {
        let tab = self.driver.post("window/new", &json!({ "type": "tab" })).await;
        let before = self.look_at(tab["handle"].as_str().unwrap()).await;
        self.go(url).await;
        before
    }

    /// Turns to another tab, and answers the one that was looked at until now.
    pub(crate) async fn look_at(&self, tab: &str) -> String {
        let before = self.driver.get("window").await;
        self.driver.post("window", &json!({ "handle": tab })).await;
        before.as_str().unwrap().to_owned()
    }

    /// From now on pages run no script of theirs, as in a browser that has none.
    pub(crate) async fn switch_scripts_off(&self) {
        self.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": true }))
            .await;
    }

    /// Types as on a keyboard, into what has the focus.
    pub(crate) async fn type_text(&self, text: &str) {
        let strokes = text.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
        });
        let strokes: Vec<Value> = strokes.collect();
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.driver.post("actions", &actions).await;
    }

    /// Presses one key, such as "\u{E004}" for Tab.
    pub(crate) async fn press(&self, key: &str) {
        let strokes = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] });
        self.driver.post("actions", &actions).await;
    }

    pub(crate) async fn resize(&self, width: u32, height: u32, phone: bool) {
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": phone }),
        )
        .await;
    }

    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features }))
            .await;
    }

    async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let call = json!({ "cmd": command, "params": parameters });
        self.driver.post("goog/cdp/execute", &call).await
    }

    /// A picture of the whole page.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        use base64::Engine as _;
        let taken = self
            .cdp(
                "Page.captureScreenshot",
                json!({ "format": "png", "captureBeyondViewport": true }),
            )
            .await;
        let data = taken["data"].as_str().unwrap();
        base64::engine::general_purpose::STANDARD.decode(data).unwrap()
    }

    /// Keeps a picture where `MENAGERIE_PICTURES` says, for documentation; otherwise it only must be one.
    pub(crate) async fn keep_picture(&self, name: &str) {
        // What the pointer rests on looks different.
        let aside = json!([{ "type": "pointerMove", "x": 1, "y": 1 }]);
        let actions = json!({ "actions": [{ "type": "pointer", "id": "mouse", "actions": aside }] });
        self.driver.post("actions", &actions).await;
        let picture = self.picture().await;
        assert!(
            picture.starts_with(b"\x89PNG") && picture.len() > 10_000,
            "{name} is no picture"
        );
        if let Some(folder) = std::env::var_os("MENAGERIE_PICTURES") {
            std::fs::write(Path::new(&folder).join(name), picture).unwrap();
        }
    }

    /// Fails when the browser complained about anything: scripts that broke, what the policy forbade, lost files.
    pub(crate) async fn has_no_complaints(&self) {
        let log = self.driver.post("se/log", &json!({ "type": "browser" })).await;
        assert_eq!(log, json!([]), "the browser complained");
    }
}
