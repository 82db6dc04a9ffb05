//! TLS: who is let in, and who is not.

use std::sync::Arc;
use std::time::Duration;

use service::config::ClientCertificates;
use service::tasks::Tasks;
use service::tls::{self, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::authority::{Authority, MONTH, OPTIONAL, ask, caller, ping};
use crate::harness::{DEADLINE, Server};
use crate::serve::{ask_and_do_not_read, large, small};

/// Whether node 2 lets in `from`, who says it is node 1.
async fn lets_in(node_2: &Arc<Tls>, from: &Arc<Tls>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = Arc::clone(node_2);
    let tasks = Tasks::new();
    let accepted = tasks.spawn("accept", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, shown) = accepting
            .accept_peer(stream)
            .await
            .map_err(|error| format!("{error:#}"))?;
        if !shown.is_node(1) {
            return Err("it is not node 1".to_owned());
        }
        stream
            .write_all(b"welcome")
            .await
            .map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let met = async {
        let mut stream = from
            .connect_peer(stream, 2)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let mut said = Vec::new();
        stream
            .read_to_end(&mut said)
            .await
            .map_err(|error| error.to_string())?;
        if said == b"welcome" {
            Ok(())
        } else {
            Err("sent away".to_owned())
        }
    };
    let (met, accepted) = tokio::join!(tokio::time::timeout(DEADLINE, met), accepted);
    match (met.unwrap(), accepted.unwrap()) {
        (Ok(()), Ok(())) => Ok(()),
        (met, accepted) => Err(format!("{met:?}, {accepted:?}")),
    }
}

#[tokio::test]
async fn peers_let_in_a_member_and_nobody_else() {
    let ours = Authority::new();
    for (file, name, days) in [
        ("n1", "n1", 30),
        ("n2", "n2", 30),
        ("late", "n1", -1),
        ("n3", "n3", 30),
        ("shop1", "shop1", 30),
    ] {
        ours.issue(file, name, days);
    }
    let node_2 = ours.load("n2");
    lets_in(&node_2, &ours.load("n1")).await.unwrap();

    let expired = lets_in(&node_2, &ours.load("late")).await.unwrap_err();
    assert!(
        expired.contains("Expired") || expired.contains("expired"),
        "{expired}"
    );
    for other in ["n3", "shop1"] {
        let refused = lets_in(&node_2, &ours.load(other)).await.unwrap_err();
        assert!(refused.contains("it is not node 1"), "{other}: {refused}");
    }
    // Its own authority vouches for it, and it trusts ours.
    let theirs = Authority::new();
    theirs.issue_into(ours.folder.path(), "foreign", "n1", MONTH);
    let foreign = lets_in(&node_2, &ours.load("foreign")).await.unwrap_err();
    assert!(
        ["UnknownCA", "UnknownIssuer", "BadSignature"]
            .iter()
            .any(|word| foreign.contains(word)),
        "{foreign}"
    );
    // And one that shows nothing at all.
    let nobody = lets_in(&node_2, &ours.load("nobody")).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn a_member_speaks_only_with_the_node_it_wanted() {
    let ours = Authority::new();
    ours.issue("n1", "n1", 30);
    ours.issue("n2", "n3", 30);
    let refused = lets_in(&ours.load("n2"), &ours.load("n1")).await.unwrap_err();
    assert!(
        refused.contains("NotValidForName") || refused.contains("not valid for name"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let ours = Authority::new();
    ours.issue("n1", "n1", 30);
    let path = tls::file_of(ours.folder.path(), "n1");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = Tls::load(ours.folder.path(), "n1", OPTIONAL).unwrap_err();
    assert!(format!("{refused:#}").contains("chmod 600"), "{refused:#}");
}

#[tokio::test]
async fn clients_may_be_asked_for_certificates() {
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    ours.issue("client", "client", 30);
    ours.issue("late", "client", -1);
    let tls = Tls::load(ours.folder.path(), "shell1", ClientCertificates::Required).unwrap();
    tls::install(tls).unwrap();
    let server = Server::start(ping()).await;
    assert!(
        ask(&caller(&ours, None), &server).await.is_err(),
        "nobody is let in without"
    );
    assert!(
        ask(&caller(&ours, Some("late")), &server).await.is_err(),
        "nor with one that has ended"
    );
    assert_eq!(
        ask(&caller(&ours, Some("client")), &server).await.unwrap(),
        "pong"
    );
}

/// Also not for who was let in before and could come back with what he got then in place of a certificate.
#[tokio::test]
async fn nobody_is_let_in_once_his_certificate_has_ended() {
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    let tls = Tls::load(ours.folder.path(), "shell1", ClientCertificates::Required).unwrap();
    tls::install(tls).unwrap();
    let server = Server::start(ping()).await;
    let left = time::Duration::seconds(3);
    ours.issue_into(ours.folder.path(), "client", "client", left);
    // Each of its requests goes over a connection of its own.
    let caller = caller(&ours, Some("client"));
    assert_eq!(ask(&caller, &server).await.unwrap(), "pong");
    let ending = async {
        while ask(&caller, &server).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ending)
        .await
        .expect("it is let in although its certificate has ended");
}

/// A handshake that never comes holds no place for ever.
#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    tls::install(ours.load("shell1")).unwrap();
    let limits = service::serve::Limits {
        header_timeout: Duration::from_millis(200),
        ..service::serve::Limits::default()
    };
    let server = Server::start_with(ping(), limits).await;
    let mut silent = server.connect().await;
    let mut said = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, silent.read_to_end(&mut said)).await;
    assert!(closed.is_ok(), "it is still open");
}

/// TLS takes in much of an answer itself, which must not pass for somebody who reads.
#[tokio::test]
async fn who_does_not_read_the_answer_keeps_no_place() {
    let ours = Authority::new();
    ours.issue("shell1", "shell1", 30);
    let tls = ours.load("shell1");
    tls::install(Arc::clone(&tls)).unwrap();
    let server = Server::start_with(large(), small()).await;
    let connect = async || {
        let stream = server.connect_narrow().await;
        tls.connect(stream, "127.0.0.1").await.unwrap()
    };
    let deaf = ask_and_do_not_read(connect).await;
    let caller = caller(&ours, None);
    let asking = async { while ask(&caller, &server).await.is_err() {} };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .expect("no place was given back");
    drop(deaf);
}
