//! The console: what its page shows while the leader is killed and comes back, who may press its buttons,
//! and that it costs nothing when nobody looks.

use std::time::Duration;

use futures_util::StreamExt as _;
use kvstore_client::RangeRequest;
use serde_json::Value;

use crate::browser::Browser;
use crate::harness::{Cluster, SOON, wait_until};

const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

async fn says(browser: &Browser, process: &str, expected: &str) {
    let state = format!("[data-process={process}] [data-field=says]");
    browser.wait_for_text(&state, |text| text == expected).await;
}

async fn acknowledged(browser: &Browser) -> u64 {
    let text = browser.text("#acknowledged").await;
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Waits until the probe has got so many answers.
async fn wait_for_writes(browser: &Browser, count: u64) {
    wait_until("writes of the probe", SOON, async || {
        let seen = acknowledged(browser).await;
        if seen >= count {
            Ok(())
        } else {
            Err(format!("{seen} of {count}"))
        }
    })
    .await;
}

/// Whether the canvas shows a pixel that is the colour of a style variable.
async fn is_drawn(browser: &Browser, colour: &str) -> bool {
    let script = format!(
        "const probe = document.createElement('canvas').getContext('2d', {{willReadFrequently: true}});
         probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--{colour}').trim();
         probe.fillRect(0, 0, 1, 1);
         const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
         const canvas = document.querySelector('canvas');
         const {{ data }} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
         for (let i = 0; i < data.length; i += 4)
           if (data[i] === r && data[i + 1] === g && data[i + 2] === b && data[i + 3] === 255) return true;
         return false;"
    );
    browser.run(&script).await == Value::Bool(true)
}

#[tokio::test]
async fn the_page_shows_how_the_leader_is_killed_and_comes_back() {
    let cluster = Cluster::start(3).await;
    let browser = Browser::open(&cluster.console("/")).await;
    let old = cluster.leader().await;
    browser
        .wait_for_text("#headline", |text| {
            text == format!("{old} leads, and all is well.")
        })
        .await;
    for name in ["n1", "n2", "n3"] {
        says(&browser, name, if name == old { "leads" } else { "follows" }).await;
        assert_eq!(browser.text(&format!("[data-spot={name}] .name")).await, name);
    }
    wait_for_writes(&browser, 300).await;
    assert!(is_drawn(&browser, "lead").await, "the timeline shows writes");
    assert!(is_drawn(&browser, "read").await, "the timeline shows reads");
    assert!(!is_drawn(&browser, "bad").await, "nothing has failed yet");

    browser.click("#kill-leader button").await;
    says(&browser, &old, "killed").await;
    let headline = browser
        .wait_for_text("#headline", |text| {
            text.contains(&format!("leads without {old}."))
        })
        .await;
    assert_eq!(cluster.state(&old).await, "killed");
    let new = cluster.leader().await;
    assert!(headline.starts_with(&new) && new != old, "{headline}");
    let before = acknowledged(&browser).await;
    wait_for_writes(&browser, before + 300).await;

    // The gap, in the facts, in the log, and as a mark on the timeline.
    browser
        .wait_for_text("#last-pause", |text| text.ends_with(" ms"))
        .await;
    let log = browser
        .wait_for_text("#log", |text| text.contains("writes paused for"))
        .await;
    assert!(log.contains(&format!("{old} was killed")), "{log}");
    assert!(
        log.contains(&format!("{new} leads term")) && log.contains("none lost"),
        "{log}"
    );
    assert!(is_drawn(&browser, "bad").await, "the timeline shows the gap");
    browser.keep_picture("console.png").await;

    // The button that brings it back stands where the one that killed it stood.
    browser
        .click(&format!("[data-process={old}] [data-action=start] button"))
        .await;
    says(&browser, &old, "follows").await;
    browser
        .wait_for_text("#log", |text| text.contains(&format!("{old} has caught up")))
        .await;
    browser
        .wait_for_text("#headline", |text| {
            text == format!("{new} leads, and all is well.")
        })
        .await;
    // Read back through every node, the one that came back too.
    browser
        .wait_for_text("#through", |text| text.ends_with(&old))
        .await;
    assert_eq!(browser.text("#lost").await, "lost: 0");
    browser.has_no_complaints().await;
}

#[tokio::test]
async fn the_page_works_by_keyboard_on_a_phone_and_in_the_dark() {
    let cluster = Cluster::start(3).await;
    let browser = Browser::open(&cluster.console("/")).await;
    wait_for_writes(&browser, 100).await;
    let focused = async || {
        browser
            .run("return document.activeElement.getAttribute('aria-label') ?? ''")
            .await
    };
    for _ in 0..20 {
        browser.press(TAB).await;
        if focused().await == "pause n2" {
            break;
        }
    }
    assert_eq!(focused().await, "pause n2");
    browser.press(ENTER).await;
    says(&browser, "n2", "paused").await;
    // The button is gone; the keyboard stays where it was, on what can be done next.
    wait_until("the focus moves on", SOON, async || {
        let seen = focused().await;
        if seen == "resume n2" {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
    browser.press(ENTER).await;
    wait_until("n2 goes on", SOON, async || {
        let text = browser.text("[data-process=n2] [data-field=says]").await;
        if ["follows", "leads"].contains(&text.as_str()) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;

    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        browser.resize(375, 812, true).await;
        let wide = browser.run("return document.scrollingElement.scrollWidth").await;
        assert_eq!(wide, 375, "nothing sticks out on a phone");
        let small = browser
            .run("return [...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 36).length")
            .await;
        assert_eq!(small, 0, "buttons can be hit with a thumb");
        browser.keep_picture(&format!("console-phone-{scheme}.png")).await;
        browser.resize(1280, 900, false).await;
        browser.keep_picture(&format!("console-{scheme}.png")).await;
    }
    browser.has_no_complaints().await;
}

/// A press of a button as a browser would send it, but for these headers.
async fn press(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = cluster.http.post(cluster.console(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn only_its_own_page_may_press_a_button() {
    let cluster = Cluster::start(1).await;
    let own = cluster.console("");
    for foreign in [
        &[][..],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("origin", "http://127.0.0.1:1"), ("sec-fetch-site", "same-site")],
        &[("origin", own.as_str()), ("sec-fetch-site", "cross-site")],
    ] {
        let answer = press(&cluster, "/processes/n1/kill", foreign).await;
        assert_eq!(answer.status(), 403, "{foreign:?}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "cross-origin");
    }
    assert_eq!(cluster.state("n1").await, "running");
    // A site whose name was pointed here would be of its own origin, but not of this host.
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(
        press(&cluster, "/processes/n1/kill", &rebound).await.status(),
        421
    );
    let page = cluster
        .http
        .get(cluster.console("/"))
        .header("host", "evil.example:8080");
    assert_eq!(page.send().await.unwrap().status(), 421);

    let own = [("origin", own.as_str())];
    for unknown in ["/processes/n9/kill", "/processes/n1/explode"] {
        assert_eq!(press(&cluster, unknown, &own).await.status(), 404, "{unknown}");
    }
    let answer = press(&cluster, "/processes/n1/start", &own).await;
    assert_eq!(answer.status(), 409);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["detail"], "n1 runs already (running)");

    // Without the script a button is a form, and leads back to the page.
    let answer = press(&cluster, "/processes/n1/kill", &own).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (303, &"/".parse().unwrap())
    );
    assert_eq!(cluster.state("n1").await, "killed");
    let json = [own[0], ("accept", "application/json")];
    let view: Value = press(&cluster, "/processes/n1/start", &json)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(view["name"], "n1");
}

#[tokio::test]
async fn pages_forbid_what_they_do_not_need() {
    let cluster = Cluster::start(1).await;
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/console.css", "text/css; charset=utf-8"),
        ("/console.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = cluster.http.get(cluster.console(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let headers = answer.headers().clone();
        assert_eq!(headers["content-type"], content_type);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let text = answer.text().await.unwrap();
        assert!(
            !text.contains("style=\"") && !text.contains(&cluster.token("root")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn from_other_machines_it_asks_for_the_root_token() {
    let mut cluster = Cluster::with(1, |config| {
        config.console.address = config.console.address.replace("127.0.0.1", "0.0.0.0");
    });
    cluster.up().await;
    cluster.config.console.address = cluster.config.console.address.replace("0.0.0.0", "127.0.0.1");
    let ask = |path: &str| cluster.http.get(cluster.console(path));
    for path in ["/", "/events", "/console.js"] {
        let answer = ask(path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let asked = answer.headers().get_all("www-authenticate").iter();
        assert!(
            asked
                .into_iter()
                .any(|asked| asked.to_str().unwrap().starts_with("Basic "))
        );
        let wrong = ask(path).basic_auth("root", Some("wrong")).send().await.unwrap();
        assert_eq!(wrong.status(), 401, "{path}");
    }
    let token = cluster.token("root");
    let page = ask("/").basic_auth("anybody", Some(&token)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(ask("/").bearer_auth(&token).send().await.unwrap().status(), 200);
    let pressed = cluster
        .http
        .post(cluster.console("/processes/n1/kill"))
        .bearer_auth(&token);
    assert_eq!(
        pressed.send().await.unwrap().status(),
        403,
        "the token is no origin"
    );
}

async fn keys_of_the_probe(cluster: &Cluster) -> u64 {
    let range = RangeRequest {
        count_only: true,
        ..RangeRequest::prefix("menagerie/probe/")
    };
    cluster.client().range(range).await.unwrap().count
}

#[tokio::test]
async fn the_probe_works_only_while_somebody_looks() {
    let cluster = Cluster::start(1).await;
    let page = cluster.http.get(cluster.console("/")).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("n1 leads, and all is well."));
    assert_eq!(
        keys_of_the_probe(&cluster).await,
        0,
        "a page alone is nobody who looks"
    );

    let mut events = cluster
        .http
        .get(cluster.console("/events"))
        .send()
        .await
        .unwrap()
        .bytes_stream();
    let mut heard = String::new();
    let all_heard = async {
        while ![
            "event: picture\n",
            "event: entry\n",
            "event: beat\n",
            "event: second\n",
        ]
        .iter()
        .all(|event| heard.contains(event))
        {
            let piece = events.next().await.unwrap().unwrap();
            heard.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    tokio::time::timeout(SOON, all_heard).await.unwrap();
    assert!(heard.starts_with("event: picture\ndata: {"), "{heard}");
    wait_until("the probe writes", SOON, async || {
        match keys_of_the_probe(&cluster).await {
            0 => Err("no keys".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    drop(events);
    wait_until(
        "the probe leaves nothing behind",
        SOON,
        async || match keys_of_the_probe(&cluster).await {
            0 => Ok(()),
            keys => Err(format!("{keys} keys")),
        },
    )
    .await;
}

#[tokio::test]
async fn too_many_pages_are_refused() {
    let cluster = Cluster::start(1).await;
    let mut open = Vec::new();
    for _ in 0..16 {
        let answer = cluster.http.get(cluster.console("/events")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        open.push(answer);
    }
    let refused = cluster.http.get(cluster.console("/events")).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    open.pop();
    wait_until("a place is free again", SOON, async || {
        let answer = cluster
            .http
            .get(cluster.console("/events"))
            .timeout(Duration::from_secs(5));
        match answer.send().await.unwrap().status().as_u16() {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_address_means_no_console() {
    let cluster = Cluster::with(1, |config| config.console.address.clear());
    let told = cluster.run(&["up", "--detach"]).await.ok();
    assert!(!told.contains("Console"), "{told}");
    assert_eq!(cluster.status().await["console"], Value::Null);
}
