//! What a mirror passes on to the shop, and what it takes back.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use service::config::{MirrorEngine, MirrorMode};
use service::serve::{self, Limits};
use service::tasks::Tasks;
use tokio::net::TcpListener;

use crate::system::System;

const PIECE: &[u8] = &[b'x'; 16 << 10];

/// So many pieces, without a word of how long they are together.
async fn pieces(Path(count): Path<usize>) -> Body {
    let pieces = (0..count).map(|_| Ok::<_, Infallible>(Bytes::from_static(PIECE)));
    Body::from_stream(stream::iter(pieces))
}

async fn shop(tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = Router::new().route("/cart/{pieces}", get(pieces));
    let serving = serve::serve(listener, app, Limits::default(), tasks.clone());
    let _serving = tasks.spawn("shop", serving);
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_bounded_also_where_it_does_not_say_how_long_it_is() {
    let tasks = Tasks::new();
    let mut system = System::start(MirrorEngine::Json, MirrorMode::Async).await;
    system.config.gateway.body_bytes_max = 4 * PIECE.len();
    system.config.shop.addresses = vec![shop(&tasks).await];
    let mirror = system.mirror().await;
    let whole = mirror.client.get("/cart/4").await.expect(200);
    assert_eq!(whole.body.len(), 4 * PIECE.len());
    let unknown = mirror.client.get("/cart/5").await;
    unknown.refused(503, "outcome-unknown");
    mirror.stop().await;
    system.cluster.stop().await;
    tasks.stop();
}
