//! `GET /v1/snapshot`: a backup, streamed while writes go on.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream;
use kvstore_client::wire::level::Consistency;
use service::problem::{self, Problem, Result};

use super::{Shared, reply};
use crate::backup::Source;
use crate::store::Turn;

pub(super) async fn snapshot(State(api): State<Shared>, request: Request) -> Result<Response> {
    let (parts, _body) = request.into_parts();
    // Waits for the read index, so all that was acknowledged before is in it.
    api.root(&parts.headers).await?;
    let Some(turn) = api.store.backup_turn() else {
        let detail = "This node is making a backup already. Ask another one, or wait.";
        return Err(Problem::new(problem::OVERLOADED, detail).retry_after_ms(5000));
    };
    let internal = |error| Problem::internal("make a backup", error);
    let (source, turn) = api.store.backup(turn).await.map_err(internal)?;
    let bytes = source.bytes().map_err(|error| internal(error.into()))?;
    let revision = source.head.revision;
    let name = format!("attachment; filename=\"menagerie-r{revision}.mng\"");
    let pieces = stream::try_unfold((api, source, turn), next);
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    reply::stamp_read(revision, Consistency::Linearizable, headers);
    Ok(response)
}

type Sending = (Shared, Source, Turn);

async fn next((api, mut source, turn): Sending) -> std::io::Result<Option<(Vec<u8>, Sending)>> {
    let reading = api.streams.spawn_blocking("backup", move || {
        let piece = source.next_piece()?;
        Ok::<_, std::io::Error>((piece, source))
    });
    let read = reading.await.map_err(std::io::Error::other)?;
    let (piece, source) = read.inspect_err(|error| {
        tracing::error!(%error, "a backup could not be read to its end");
    })?;
    Ok(piece.map(|piece| (piece, (api, source, turn))))
}
