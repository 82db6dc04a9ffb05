//! Accounts: signing up, in and out, and what belongs to whom.

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::json;

use super::system::{PASSWORD, System, VISA, ask, keyed, order};
use crate::harness::{Answer, DEADLINE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_taken_once() {
    let system = System::start().await;
    system.user("ada").await;
    let sign_up = async |name: &str, password: &str| {
        let body = json!({"username": name, "password": password});
        let answer = system.browse(Method::POST, "/users", &body).await;
        match answer.status {
            201 => "201".to_owned(),
            _ => format!("{} {} {:?}", answer.status, answer.code(), answer.pointers()),
        }
    };
    let told = [
        sign_up("ADA", "12345678").await,
        sign_up("admin", "12345678").await,
        sign_up("x", "1234567").await,
        sign_up("..", "12345678").await,
        sign_up("Ada Lovelace <b>", "12345678").await,
    ]
    .join("\n");
    assert_snapshot!(told, @r#"
    409 username-taken []
    409 username-taken []
    422 invalid-request ["/username", "/password"]
    422 invalid-request ["/username"]
    201
    "#);
    let twins = (0..8).map(|_| sign_up("grace", "12345678"));
    let made = futures_util::future::join_all(twins).await;
    assert_eq!(
        made.iter().filter(|answer| *answer == "201").count(),
        1,
        "{made:?}"
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_throttled_on_all_instances_together() {
    let system = System::start_with(1, 2, |config| {
        config.sign_in_tries_max = 5;
        config.sign_in_window_s = 2;
    })
    .await;
    system.user("ada").await;
    let guess = async |n: usize, password: &str| {
        let client = system.operator_at(n % 2);
        ask(
            &client,
            Method::POST,
            "/login",
            &json!({"username": "Ada", "password": password}),
        )
        .await
    };
    for n in 0..5 {
        guess(n, "wrong password")
            .await
            .refused(401, "invalid-credentials");
    }
    // Now the right one is refused as well, wherever it comes from.
    for n in 0..2 {
        let refused = guess(n, PASSWORD).await.refused(429, "too-many-requests");
        assert_eq!(refused.header("retry-after"), "2");
    }
    crate::harness::wait_for("the tries to be forgotten", async || {
        let answer = guess(0, PASSWORD).await;
        (answer.status == 200).then_some(()).ok_or(answer.status)
    })
    .await;
    // Success forgets the failures before it.
    for n in 0..4 {
        guess(n, "wrong password")
            .await
            .refused(401, "invalid-credentials");
    }
    guess(1, PASSWORD).await.expect(200);
    guess(0, "wrong password")
        .await
        .refused(401, "invalid-credentials");
    // A name that nobody has is answered the same way.
    let body = json!({"username": "nobody here", "password": "wrong password"});
    let nobody = ask(&system.operator(), Method::POST, "/login", &body).await;
    nobody.refused(401, "invalid-credentials");
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_a_user_is_for_that_user_and_the_admin() {
    let system = System::start().await;
    let (ada, client) = system.user("ada").await;
    let (_, mallory) = system.user("mallory").await;
    let made = client.post("/orders", &order("6", 1, VISA)).await.expect(201);
    let order_path = made.header("location").to_owned();
    let routes = [
        (Method::GET, format!("/cart/{ada}")),
        (Method::POST, format!("/cart/{ada}")),
        (Method::DELETE, format!("/cart/{ada}")),
        (Method::PUT, format!("/cart/{ada}/item/6")),
        (Method::DELETE, format!("/cart/{ada}/item/6")),
        (Method::GET, format!("/orders/{ada}")),
        (Method::GET, order_path.clone()),
        (Method::POST, format!("{order_path}/cancel")),
        (Method::GET, format!("/events?userId={ada}")),
    ];
    for (method, target) in &routes {
        ask(&mallory, method.clone(), target, &json!({}))
            .await
            .refused(403, "forbidden");
        system
            .browse(method.clone(), target, &json!({}))
            .await
            .refused(401, "unauthorized");
    }
    let mut body = order("6", 1, VISA);
    body["userId"] = json!(ada);
    mallory.post("/orders", &body).await.refused(403, "forbidden");
    system
        .browse(Method::POST, "/orders", &body)
        .await
        .refused(401, "unauthorized");
    for (method, target) in [
        (Method::POST, "/products"),
        (Method::PUT, "/products/1"),
        (Method::DELETE, "/products/1"),
        (Method::POST, "/pets"),
        (Method::GET, "/admin/audit"),
        (Method::GET, "/metrics"),
    ] {
        ask(&mallory, method.clone(), target, &json!({}))
            .await
            .refused(403, "forbidden");
        system
            .browse(method, target, &json!({}))
            .await
            .refused(401, "unauthorized");
    }
    // The admin signs in like everybody else, with the password of the secrets.
    let password = system.cluster.secrets().shop.admin_password.expose();
    let admin = system.sign_in("admin", password).await;
    assert_eq!(
        admin.get(&order_path).await.expect(200).json()["user_id"],
        json!(ada)
    );
    admin.get(&format!("/cart/{ada}")).await.expect(200);
    admin.get("/admin/audit").await.expect(200);
    ask(&admin, Method::PUT, "/products/1", &json!({"price": 1}))
        .await
        .expect(200);
    system.stop().await;
}

/// As a browser sends it: with a cookie, and saying where it comes from or not.
async fn with_cookie(system: &System, method: Method, cookie: &str, headers: &[(&str, &str)]) -> Answer {
    let http = service::http::client(DEADLINE);
    let url = format!("http://{}/logout", system.shops[0].address);
    let url = if method == Method::GET {
        url.replace("/logout", "/me")
    } else {
        url
    };
    let mut request = http.request(method, url).header("cookie", cookie);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    system.operator().send(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_work_only_from_our_own_pages() {
    let system = System::start().await;
    system.user("ada").await;
    let body = json!({"username": "ada", "password": PASSWORD});
    let signed_in = system.browse(Method::POST, "/login", &body).await.expect(200);
    let cookie = signed_in.header("set-cookie").to_owned();
    assert!(
        cookie.starts_with("ps=ps_") && cookie.ends_with("; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap();
    let own = format!("http://{}", system.shops[0].address);
    with_cookie(&system, Method::GET, cookie, &[]).await.expect(200);
    with_cookie(&system, Method::GET, cookie, &[("sec-fetch-site", "cross-site")])
        .await
        .expect(200);
    for headers in [
        [("origin", "http://evil.example")].as_slice(),
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", &own)],
        &[("origin", "null")],
    ] {
        with_cookie(&system, Method::POST, cookie, headers)
            .await
            .refused(403, "cross-origin");
    }
    // Nobody can be signed in from elsewhere either.
    let http = service::http::client(DEADLINE);
    let request = http
        .post(format!("{own}/login"))
        .header("origin", "http://evil.example")
        .json(&body);
    system.operator().send(request).await.refused(403, "cross-origin");
    let out = with_cookie(&system, Method::POST, cookie, &[("origin", &own)])
        .await
        .expect(204);
    assert!(out.header("set-cookie").starts_with("ps=; Path=/; Max-Age=0"));
    with_cookie(&system, Method::GET, cookie, &[])
        .await
        .refused(401, "unauthorized");
    system.stop().await;
}

/// Nothing that must stay secret is in any key or value of the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_the_store() {
    let system = System::start().await;
    let (_, client) = system.user("ada").await;
    keyed(&client, "/orders", "my-secret-key", &order("6", 1, VISA))
        .await
        .expect(201);
    let body = json!({"username": "bob", "password": "bobs-password"});
    keyed(&client, "/users", "k", &body).await.expect(201);
    // In the field of the name.
    let body = json!({"username": "bobs-other-password", "password": "bob-himself"});
    let mistaken = system.browse(Method::POST, "/login", &body).await;
    mistaken.refused(401, "invalid-credentials");
    let root = system.cluster.client(0);
    let rows = root.get("/v1/kv?prefix=shop/").await.expect(200).json();
    let rows = rows["kvs"].as_array().unwrap();
    assert!(rows.len() > 30);
    let tried = |row: &serde_json::Value| row["key"].as_str().unwrap().contains("/tried/");
    assert!(rows.iter().any(tried), "the try is counted");
    let all = rows.iter().map(ToString::to_string).collect::<String>();
    let admin = system.cluster.secrets().shop.admin_password.expose();
    for secret in [
        PASSWORD,
        "bobs-password",
        "bobs-other-password",
        "4242424242424242",
        VISA,
        &client.token,
        "my-secret-key",
        admin,
    ] {
        assert!(!all.contains(secret), "{secret} is in the store");
    }
    system.stop().await;
}
