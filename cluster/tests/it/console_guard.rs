//! Who may see the console and press its buttons, and what its pages are allowed to do.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, SOON, wait_until};

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
        config.tls.plain_beyond_loopback = true;
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
