//! What others read from the copy: programs of SQLite, and the catalogue over HTTP.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvstore_client::KvClient;
use service::config::{MirrorEngine, MirrorMode};
use service::tasks::Tasks;

use crate::harness::Answer;
use crate::system::{Mirror, System, write_goods};

fn sqlite3(database: &std::path::Path, sql: &str) -> String {
    let ran = Command::new("sqlite3")
        .args(["-readonly", "-cmd", ".timeout 2000"])
        .arg(database)
        .arg(sql)
        .output()
        .unwrap();
    let (out, error) = (
        String::from_utf8(ran.stdout).unwrap(),
        String::from_utf8_lossy(&ran.stderr).into_owned(),
    );
    assert!(ran.status.success() && error.is_empty(), "{sql}: {error}");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_sqlite_reads_while_it_is_written() {
    let system = System::start(MirrorEngine::Sqlite, MirrorMode::Sync).await;
    let store = system.store();
    // Made by hand, so that everybody may look into it.
    std::fs::create_dir(system.folder()).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(system.folder(), open).unwrap();
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&store, 1..5).await).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = Tasks::new().spawn("writer", {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        async move {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                write_goods(&store, 1..20).await;
                rounds += 1;
            }
            rounds
        }
    });
    let database = system.folder().join("mirror.db");
    let (mut last, mut changed) = (0, 0);
    while changed < 5 {
        // One statement sees one revision: record and stock of a product come in one transaction of the store.
        let sql = "SELECT (SELECT value FROM meta WHERE name = 'revision'), (SELECT max(mod_revision) FROM kv), \
                   count(*), sum(name IS NULL OR stock IS NULL) FROM products";
        let (database, sql) = (database.clone(), sql.to_owned());
        let read = tokio::task::spawn_blocking(move || sqlite3(&database, &sql))
            .await
            .unwrap();
        let numbers: Vec<u64> = read
            .trim()
            .split('|')
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(numbers[1] <= numbers[0], "no row is newer than the copy: {read}");
        assert_eq!(numbers[3], 0, "no product is half there: {read}");
        assert!(numbers[0] >= last, "the copy never goes back");
        changed += u32::from(numbers[0] > last);
        last = numbers[0];
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writing.await.unwrap() > 0);
    let mode = |path: &std::path::Path| {
        let permissions = std::fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::mode(&permissions) & 0o777
    };
    assert_eq!(mode(&database), 0o600, "the raw table is for its owner alone");
    assert_eq!(mode(&system.folder()), 0o700);
    mirror.stop().await;
    system.cluster.stop().await;
}

/// The target of the link to the next page.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link").strip_prefix('<')?;
    link.strip_suffix(">; rel=\"next\"").map(str::to_owned)
}

/// All pages from this one on, each as the ids on it.
async fn walk(mirror: &Mirror, first: &str, id: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = Some(first.to_owned());
    while let Some(page) = target {
        let answer = mirror.client.get(&page).await.expect(200);
        let rows = answer.json();
        let ids = rows.as_array().unwrap().iter();
        pages.push(ids.map(|row| row[id].as_str().unwrap().to_owned()).collect());
        target = next(&answer);
    }
    pages
}

async fn shows_pages_of_products(mirror: &Mirror) {
    let numbers: Vec<String> = (1..=60).map(|number| number.to_string()).collect();
    let pages = walk(mirror, "/products", "id").await;
    assert_eq!(pages, [&numbers[..50], &numbers[50..]]);
    let dearest = walk(mirror, "/products?sort=-price&minPrice=10.50&limit=6", "id").await;
    let wanted: Vec<String> = (50..=60).rev().map(|number| number.to_string()).collect();
    assert_eq!(dearest, [&wanted[..6], &wanted[6..]]);
    let cheap = mirror.client.get("/products?maxPrice=10.03&limit=2").await;
    assert_eq!(cheap.header("x-total-count"), "3", "of all pages");
    // A cursor of the shop, one for another order, and what is none at all.
    let by_name = next(&mirror.client.get("/products?sort=name").await).unwrap();
    let marked = by_name.contains("cursor=m%2Emirror-one%2E");
    assert!(marked, "the gateway goes by the mirror's name: {by_name}");
    for refused in [
        "/products?cursor=MTIzLjUw",
        &by_name.replace("sort=name", "sort=price"),
        "/products?cursor=50",
        "/products?minPrice=cheap",
        "/products?sort=age",
        "/products?limit=0",
    ] {
        let answer = mirror.client.get(refused).await;
        answer.refused(400, "malformed-parameter");
    }
}

/// Three of the same user.
async fn write_orders(store: &KvClient) {
    let order = r#"{"status":"paid","created_ms":1700000000000,"changed_ms":1700000000000,"lines":[{"product":"1","name":"Pet 1","unit_minor":1001,"quantity":2}],"total_minor":2002,"currency":"EUR"}"#;
    for number in 7..10 {
        let key = format!("shop/petstore/live/order/u%2F1/{number}");
        store.put(&key, order).await.unwrap();
    }
}

async fn shows_pages_of_orders(mirror: &Mirror) {
    let orders = mirror.client.get("/orders/u%2F1").await.expect(200);
    assert_eq!(orders.header("link"), "");
    for order in orders.json().as_array().unwrap() {
        assert_eq!(
            order["items"].as_array().unwrap().len(),
            1,
            "its own lines: {order}"
        );
        assert_eq!(order["items"][0]["subtotal_minor"], 2002, "{order}");
    }
    let pages = walk(mirror, "/orders/u%2F1?limit=2", "order_id").await;
    assert_eq!(pages, [vec!["9", "8"], vec!["7"]], "the newest first");
    let of_products = next(&mirror.client.get("/products").await).unwrap();
    let (_, cursor) = of_products.split_once('?').unwrap();
    for refused in [cursor, "cursor=7", "limit=201"] {
        let answer = mirror.client.get(&format!("/orders/u%2F1?{refused}")).await;
        answer.refused(400, "malformed-parameter");
    }
}

async fn shows_the_catalogue(engine: MirrorEngine) {
    let mut system = System::start(engine, MirrorMode::Async).await;
    let store = system.store();
    write_orders(&store).await;
    let mirror = system.mirror().await;
    mirror.reaches(write_goods(&store, 1..61).await).await;
    // The copy answers when the store is gone.
    system.cluster.stop_node(0).await;
    let first = mirror.client.get("/products").await.expect(200);
    assert_eq!(first.json().as_array().unwrap().len(), 50);
    assert_eq!(first.header("x-total-count"), "60");
    assert_eq!(first.header("x-served-by"), crate::system::NAME);
    shows_pages_of_products(&mirror).await;
    let one = mirror.client.get("/products/7").await.expect(200).json();
    insta::assert_json_snapshot!(one, @r#"
    {
      "category": "pets",
      "created": "2023-11-14T22:13:20Z",
      "currency": "EUR",
      "description": "good",
      "id": "7",
      "image": "/pictures/dog.svg",
      "inStock": true,
      "name": "Pet 7",
      "price": 10.07,
      "price_minor": 1007,
      "species": "dog",
      "stock": 7
    }
    "#);
    mirror.client.get("/products/99").await.refused(404, "not-found");
    let found = mirror
        .client
        .get("/products?q=pet%201&species=DOG&limit=200")
        .await
        .expect(200);
    assert_eq!(found.json().as_array().unwrap().len(), 11);
    shows_pages_of_orders(&mirror).await;
    mirror
        .client
        .with_token("stranger")
        .get("/orders/u%2F1")
        .await
        .refused(401, "unauthorized");
    let lost = mirror
        .client
        .request(reqwest::Method::POST, "/products")
        .body("{}");
    mirror.client.send(lost).await.refused(503, "no-instance");
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_shows_the_catalogue() {
    shows_the_catalogue(MirrorEngine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_shows_the_catalogue() {
    shows_the_catalogue(MirrorEngine::Json).await;
}
