//! “The network is homogeneous”: one value, written by hand over a bare socket, read by everything else there is.

use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::ground::Ground;
use super::told::Told;
use crate::arena::wait_for;

const PREFIX: &str = "fallacies/homogeneity/";
const KEY: &str = "fallacies/homogeneity/Grüße 🐈";
const IN_A_PATH: &str = "fallacies/homogeneity/Gr%C3%BC%C3%9Fe%20%F0%9F%90%88";
/// No text in any encoding.
const VALUE: [u8; 6] = [0, 255, 13, 10, 128, 7];
const TRY: Duration = Duration::from_secs(10);
const MIRROR_READY: Duration = Duration::from_secs(30);

pub(super) async fn play(ground: &mut Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let nodes = &ground.store.config.nodes;
    told.say(format_args!(
        "A program that knows no library writes {} bytes that are no text under “{KEY}”: some lines into a bare socket of n1.",
        VALUE.len()
    ));
    let answer = by_hand(&nodes[0].client, ground.store.token()).await?;
    told.claim(
        answer.starts_with("HTTP/1.1 200"),
        format_args!("it is answered: {}", answer.lines().next().unwrap_or_default()),
    );
    let read = ground.only(1)?.get(KEY).await?.map(|found| found.bytes());
    told.claim(
        read.as_deref() == Some(VALUE.as_slice()),
        "the client in Rust reads the same bytes from n2",
    );
    let listed = as_json(ground, &nodes[2].client).await?;
    told.claim(
        listed.as_deref() == Some(VALUE.as_slice()),
        "JSON from n3 has them too, as base64, since they are no text",
    );
    match with_curl(
        &format!("http://{}/v1/kv/{IN_A_PATH}", nodes[1].client),
        ground.store.token(),
    )
    .await
    {
        Some(bytes) => told.claim(bytes == VALUE, "curl prints them as they are"),
        None => told.say("  (There is no curl here to ask as well.)"),
    }
    numbers(ground, told).await?;
    other_structure(ground, told).await
}

/// HTTP as anybody would write it who has nothing but a socket.
async fn by_hand(address: &str, token: &str) -> anyhow::Result<String> {
    let head = format!(
        "PUT /v1/kv/{IN_A_PATH} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        VALUE.len()
    );
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&VALUE).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(TRY, talk)
        .await
        .context("wait for the answer to a request made by hand")?
        .context("make a request by hand")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn as_json(ground: &Ground, address: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let url = format!("http://{address}/v1/kv?prefix={PREFIX}");
    let request = service::http::client(TRY)
        .get(url)
        .bearer_auth(ground.store.token());
    let page: Value = request.send().await?.error_for_status()?.json().await?;
    let Some(rows) = page["kvs"].as_array() else {
        bail!("a page without rows: {page}");
    };
    let row = rows.iter().find(|row| row["key"] == KEY);
    let text = row.and_then(|row| row["value_base64"].as_str());
    text.map(|text| BASE64_STANDARD.decode(text))
        .transpose()
        .context("read base64")
}

/// None where there is no curl.
async fn with_curl(url: &str, token: &str) -> Option<Vec<u8>> {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--fail",
        "--max-time",
        "10",
        "--noproxy",
        "*",
        "--header",
    ]);
    command.arg(format!("Authorization: Bearer {token}")).arg(url);
    Some(command.output().await.ok()?.stdout)
}

/// Numbers are text, so that no machine's way to write them matters.
async fn numbers(ground: &Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    let key = format!("{PREFIX}count");
    ground.client.put(&key, "9007199254740993").await?;
    let url = format!("http://{}/v1/txn", ground.store.config.nodes[2].client);
    let body = json!({"then": [{"add": {"key": key, "by": 2}}]});
    let request = service::http::client(TRY)
        .post(url)
        .bearer_auth(ground.store.token())
        .json(&body);
    request.send().await?.error_for_status()?;
    let sum = ground.client.get(&key).await?.map(|found| found.bytes());
    told.claim(
        sum.as_deref() == Some(b"9007199254740995".as_slice()),
        "a number that a double cannot hold is added to in JSON, and is right to the last digit",
    );
    Ok(())
}

async fn other_structure(ground: &Ground, told: &mut Told<'_>) -> anyhow::Result<()> {
    told.say(
        "A mirror starts, which keeps the same in the tables of SQLite, and compares itself with the store.",
    );
    let (server, address) = ground.start_mirror()?;
    let revision = ground.client.revision().await?;
    let http = service::http::client(TRY);
    let verdict = wait_for("the mirror to have everything", MIRROR_READY, async || {
        let answer = http.get(format!("http://{address}/verify")).send().await.ok()?;
        let verdict: Value = answer.error_for_status().ok()?.json().await.ok()?;
        (verdict["revision"].as_u64()? >= revision).then_some(verdict)
    })
    .await
    .with_context(|| server.last_words())?;
    told.claim(
        verdict["equal"] == true,
        format_args!(
            "at revision {} the two are equal, row by row: differences {}",
            verdict["revision"], verdict["differences"]
        ),
    );
    Ok(())
}
