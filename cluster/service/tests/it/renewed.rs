//! Certificates that are renewed, vanish or go wrong while a process uses them.

use std::time::Duration;

use service::tasks::Tasks;
use service::tls;

use crate::authority::{Authority, MONTH, ask, caller, ping};
use crate::harness::{DEADLINE, Server};
use crate::heard::{Lines, listen};

/// Waits until the log says that.
async fn told(lines: &Lines, what: &str) {
    let telling = async {
        while !lines.text().contains(what) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(DEADLINE, telling).await;
    assert!(
        told.is_ok(),
        "waited for {what:?}; the log says:\n{}",
        lines.text()
    );
}

#[tokio::test]
async fn a_port_speaks_tls_and_takes_new_certificates_over() {
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    tls::install(ours.load("shell1")).unwrap();
    let server = Server::start(ping()).await;
    let stranger = caller(&ours, None);
    assert_eq!(ask(&stranger, &server).await.unwrap(), "pong");
    // Our own client was made before what follows, and knows it all the same.
    assert_eq!(ask(&server.http, &server).await.unwrap(), "pong");
    // In the clear nobody is answered.
    assert!(
        !server
            .exchange(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .contains("pong")
    );
    // Another authority does not know this server.
    let theirs = Authority::new();
    assert!(ask(&caller(&theirs, None), &server).await.is_err());

    // Everything moves to the other authority: the files change, and nothing is restarted.
    let (lines, _listening) = listen();
    // For a moment it has no certificate at all.
    std::fs::remove_file(tls::file_of(ours.folder.path(), "shell1")).unwrap();
    told(&lines, "is missing").await;
    assert_eq!(ask(&stranger, &server).await.unwrap(), "pong");
    let ca = std::fs::read(theirs.folder.path().join(tls::AUTHORITY)).unwrap();
    std::fs::write(ours.folder.path().join(tls::AUTHORITY), ca).unwrap();
    theirs.issue_into(ours.folder.path(), "shell1", "shell1", MONTH);
    // At first others may read the key. What mends that changes neither the file nor its time.
    let allow = |mode| {
        let path = tls::file_of(ours.folder.path(), "shell1");
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(0o644);
    told(&lines, "chmod 600").await;
    assert_eq!(ask(&stranger, &server).await.unwrap(), "pong");
    allow(0o600);
    let moved = caller(&theirs, None);
    let moving = async {
        while ask(&moved, &server).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, moving)
        .await
        .expect("the new certificate was not taken over");
    assert!(
        ask(&stranger, &server).await.is_err(),
        "the old authority is no longer vouched for"
    );
    let client = service::http::client(DEADLINE);
    assert_eq!(ask(&client, &server).await.unwrap(), "pong");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_told_of_once() {
    const LOOKS: Duration = Duration::from_secs(5);
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    let tls = ours.load("shell1");
    std::fs::remove_file(tls::file_of(ours.folder.path(), "shell1")).unwrap();
    let (lines, _listening) = listen();
    let tasks = Tasks::new();
    tls.keep_fresh(&tasks);
    told(&lines, "is missing").await;
    // Time enough to look twice more, at what is as wrong as before.
    tokio::time::sleep(LOOKS).await;
    assert_eq!(
        lines.text().matches("cannot be used yet").count(),
        1,
        "{}",
        lines.text()
    );
    ours.issue("shell1", "shell1", 30);
    told(&lines, "read the certificates anew").await;
    tasks.stop();
}

/// A node opens its folder between the two, and may wait there for long.
#[tokio::test]
async fn a_certificate_that_is_renewed_between_loading_and_listening_is_taken_over() {
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    let tls = ours.load("shell1");
    ours.issue("shell1", "shell1", 60);
    let (lines, _listening) = listen();
    let tasks = Tasks::new();
    tls.keep_fresh(&tasks);
    told(&lines, "read the certificates anew").await;
    tasks.stop();
}
