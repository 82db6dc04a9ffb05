//! The driver of the browser: one process, one session, JSON over HTTP as `WebDriver` has it.
//! Invariant: both the driver and the browser end with this value, also when the test panics.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const CALL_DEADLINE: Duration = Duration::from_mins(1);

pub(super) struct Driver {
    process: Child,
    port: u16,
    session: String,
    http: reqwest::Client,
    profile: TempDir,
}

impl Driver {
    pub(super) async fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests of pages need chromedriver: `make test` installs it");
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let port = stdout.lines().map_while(Result::ok).find_map(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            port.trim_end_matches('.').parse().ok()
        });
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Self {
            process,
            port: port.expect("chromedriver says on which port it listens"),
            session: String::new(),
            http: service::http::client(CALL_DEADLINE),
            profile,
        };
        let wish = capabilities(driver.profile.path().to_str().unwrap());
        let begun = driver.call("/session", Some(&wish)).await;
        begun["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut driver.session);
        driver
    }

    /// One command of the session.
    pub(super) async fn post(&self, command: &str, body: &Value) -> Value {
        self.call(&format!("/session/{}/{command}", self.session), Some(body))
            .await
    }

    /// A question to the session.
    pub(super) async fn get(&self, question: &str) -> Value {
        self.call(&format!("/session/{}/{question}", self.session), None)
            .await
    }

    async fn call(&self, path: &str, body: Option<&Value>) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let request = match body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let mut answer: Value = answer.json().await.unwrap();
        assert!(
            status.is_success(),
            "{path}: {}: {}",
            answer["value"]["error"],
            answer["value"]["message"]
        );
        answer["value"].take()
    }
}

fn capabilities(profile: &str) -> Value {
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--lang=en-GB",
        &format!("--user-data-dir={profile}"),
    ];
    json!({ "capabilities": { "alwaysMatch": {
        "goog:chromeOptions": { "args": arguments },
        "goog:loggingPrefs": { "browser": "WARNING" },
        // A page that a click asked for may still be on its way: what is to be clicked next is waited for.
        "timeouts": { "implicit": 10_000 },
    }}})
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Ending the session ends the browser. Blocking, since nothing may be awaited here.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = write!(
                stream,
                "DELETE /session/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                self.session
            );
            let _ = stream.read(&mut [0; 512]);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
