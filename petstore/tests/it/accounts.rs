//! Accounts: signing up, in and out, and what belongs to whom.

use insta::assert_snapshot;
use reqwest::Method;
use serde_json::json;
use service::secrets::Secret;

use super::system::{PASSWORD, System, VISA, ask, keyed, order};
use crate::harness::{Answer, Client, DEADLINE};
use crate::vessel::Vessel;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_the_same_on_every_instance() {
    let system = System::start_with(1, 2, |_config| {}).await;
    let (ada, client) = system.user("Ada").await;
    let elsewhere = system.at(1, &client);
    let me = elsewhere.get("/me").await.expect(200).json();
    assert_eq!(
        (&me["user_id"], &me["username"], &me["admin"]),
        (&json!(ada), &json!("Ada"), &json!(false))
    );
    elsewhere.post("/logout", &json!({})).await.expect(204);
    client.get("/me").await.refused(401, "unauthorized");
    // All sessions of a user end together.
    let body = json!({"username": "ADA", "password": PASSWORD});
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let token = system
            .browse(Method::POST, "/login", &body)
            .await
            .expect(200)
            .json()["token"]
            .clone();
        sessions.push(Client::at(system.shops[0].address, token.as_str().unwrap()));
    }
    sessions[0]
        .post("/logout", &json!({"everywhere": true}))
        .await
        .expect(204);
    for session in &sessions {
        session.get("/me").await.refused(401, "unauthorized");
    }
    system.stop().await;
}

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

/// Leases are few and everybody's: neither one who signs in again and again takes many, nor names that are made up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_in_takes_few_leases() {
    let system = System::start_with(1, 1, |config| {
        config.sign_in_tries_max = 1000;
        // A time that no other lease has.
        config.sign_in_window_s = 77;
    })
    .await;
    let (_, oldest) = system.user("ada").await;
    let root = system.cluster.client(0);
    let leases = async |ttl_s: u64| {
        let leases = root.get("/v1/leases").await.expect(200).json();
        let leases = leases.as_array().unwrap().iter();
        leases.filter(|lease| lease["ttl_ms"] == ttl_s * 1000).count()
    };
    let shop = system.config.shop.clone();
    for n in 0..3 {
        let body = json!({"username": format!("nobody {n}"), "password": "wrong password"});
        let refused = system.browse(Method::POST, "/login", &body).await;
        refused.refused(401, "invalid-credentials");
    }
    assert_eq!(leases(shop.sign_in_window_s).await, 0);
    let body = json!({"username": "ada", "password": PASSWORD});
    let more = (0..20).map(|_| system.browse(Method::POST, "/login", &body));
    let more = futures_util::future::join_all(more).await.into_iter();
    let more: Vec<Client> = more
        .map(|answer| {
            let session = answer.expect(200).json();
            Client::at(system.shops[0].address, session["token"].as_str().unwrap())
        })
        .collect();
    assert_eq!(leases(shop.session_s).await, 20);
    oldest.get("/me").await.refused(401, "unauthorized");
    for client in &more {
        client.get("/me").await.expect(200);
    }
    more[0].post("/logout", &json!({})).await.expect(204);
    assert_eq!(leases(shop.session_s).await, 19);
    let everywhere = json!({"everywhere": true});
    more[1].post("/logout", &everywhere).await.expect(204);
    assert_eq!(leases(shop.session_s).await, 0);
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
    let body = json!({"username": "admin", "password": password});
    let session = system
        .browse(Method::POST, "/login", &body)
        .await
        .expect(200)
        .json();
    let admin = Client::at(system.shops[0].address, session["token"].as_str().unwrap());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_of_the_admin_ends_the_sessions_of_the_old_one() {
    let system = System::start().await;
    let sign_in = async |password: &str| {
        let body = json!({"username": "admin", "password": password});
        let session = system.browse(Method::POST, "/login", &body).await.expect(200);
        let session = session.json();
        Client::at(system.shops[0].address, session["token"].as_str().unwrap())
    };
    let (config, mut secrets) = (system.config.clone(), system.cluster.secrets().clone());
    let admin = sign_in(secrets.shop.admin_password.expose()).await;
    admin.get("/me").await.expect(200);
    secrets.shop.admin_password = Secret::new("another password");
    let mut other = Vessel::launch(0, |listener, tasks| {
        let settings = petstore::Settings {
            config,
            name: "shop2".to_owned(),
            address: listener.local_addr().unwrap().to_string(),
            secrets,
            points: petstore::Points::none(),
        };
        petstore::run(settings, listener, tasks)
    });
    let operator = Client::at(other.address, system.token("operator"));
    crate::harness::wait_for("the other shop", async || {
        let answer = operator.get("/readyz").await;
        (answer.status == 200).then_some(()).ok_or(answer.status)
    })
    .await;
    admin.get("/me").await.refused(401, "unauthorized");
    sign_in("another password").await.get("/me").await.expect(200);
    other.stop().await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_by_themselves() {
    let system = System::start_with(1, 1, |config| config.session_s = 1).await;
    let (_, client) = system.user("ada").await;
    crate::harness::wait_for("the session to end", async || {
        let answer = client.get("/me").await;
        (answer.status == 401).then_some(()).ok_or(answer.status)
    })
    .await;
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
    let root = system.cluster.client(0);
    let rows = root.get("/v1/kv?prefix=shop/").await.expect(200).json();
    let rows = rows["kvs"].as_array().unwrap();
    assert!(rows.len() > 30);
    let all = rows.iter().map(ToString::to_string).collect::<String>();
    let admin = system.cluster.secrets().shop.admin_password.expose();
    for secret in [
        PASSWORD,
        "bobs-password",
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
