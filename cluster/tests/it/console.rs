//! The console: what its page shows while the leader is killed and comes back, by mouse and by keyboard, and that
//! it costs nothing when nobody looks.

use futures_util::StreamExt as _;
use kvstore_client::RangeRequest;
use serde_json::Value;

use crate::browser::Browser;
use crate::harness::{Cluster, SOON, free_ports, signal, wait_until};

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
    // Looked at in a copy, which is made for that.
    let script = format!(
        "const shown = document.querySelector('canvas');
         const copy = Object.assign(document.createElement('canvas'), {{ width: shown.width, height: shown.height }});
         const pen = copy.getContext('2d', {{ willReadFrequently: true }});
         pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--{colour}').trim();
         pen.fillRect(0, 0, 1, 1);
         const [r, g, b] = pen.getImageData(0, 0, 1, 1).data;
         pen.clearRect(0, 0, 1, 1);
         pen.drawImage(shown, 0, 0);
         const {{ data }} = pen.getImageData(0, 0, copy.width, copy.height);
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
    assert!(is_drawn(&browser, "bad-soft").await, "the timeline shows the gap");
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
        let awkward = browser
            .run(
                "return [...document.querySelectorAll('button')].filter((button) => button.offsetParent)
                   .map((button) => button.getBoundingClientRect())
                   .filter((box) => box.height < 36 || box.left < 15 || box.right > 360).length",
            )
            .await;
        assert_eq!(
            awkward, 0,
            "buttons are within reach, and can be hit with a thumb"
        );
        browser.keep_picture(&format!("console-phone-{scheme}.png")).await;
        browser.resize(1280, 900, false).await;
        browser.keep_picture(&format!("console-{scheme}.png")).await;
    }
    browser.has_no_complaints().await;
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
async fn a_service_that_hangs_is_not_called_well() {
    let cluster = Cluster::with(1, |config| {
        let ports = free_ports(1).into_iter();
        config.payment.addresses = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    });
    cluster.up().await;
    let (well, without) = ("n1 leads, and all is well.", "n1 leads without pay1.");
    let a_new_page_says = async |headline: &str| {
        wait_until(headline, SOON, async || {
            let page = cluster.http.get(cluster.console("/")).send().await.unwrap();
            let page = page.text().await.unwrap();
            if page.contains(headline) {
                Ok(())
            } else {
                Err(page)
            }
        })
        .await;
    };
    a_new_page_says(well).await;
    let pid = cluster.pid("pay1").await.unwrap();
    signal(pid, "STOP");
    a_new_page_says(without).await;
    signal(pid, "CONT");
    a_new_page_says(well).await;

    // A page that is open hears of it.
    let events = cluster.http.get(cluster.console("/events")).send().await;
    let mut events = events.unwrap().bytes_stream();
    let mut heard = String::new();
    for headline in [well, without, well] {
        let told = async {
            while !heard.contains(headline) {
                let piece = events.next().await.unwrap().unwrap();
                heard.push_str(&String::from_utf8_lossy(&piece));
            }
        };
        tokio::time::timeout(SOON, told).await.unwrap();
        heard.clear();
        signal(pid, if headline == well { "STOP" } else { "CONT" });
    }
    signal(pid, "CONT");
}
