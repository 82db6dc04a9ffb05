//! TLS: who is let in, who is not, and certificates that change while connections are made.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use service::config::ClientCertificates;
use service::tasks::Tasks;
use service::tls::{self, Tls};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{DEADLINE, Server};
use crate::heard::{Lines, listen};
use crate::serve::{ask_and_do_not_read, large, small};

const OPTIONAL: ClientCertificates = ClientCertificates::Optional;
const MONTH: time::Duration = time::Duration::days(30);

/// An authority with a folder of its own.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let folder = tempfile::tempdir().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join(tls::AUTHORITY), certificate.pem()).unwrap();
        Self {
            folder,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate in the file of `file` that stands for the process `name`, and ended or ends so many days from now.
    fn issue(&self, file: &str, name: &str, days: i64) {
        self.issue_into(self.folder.path(), file, name, time::Duration::days(days));
    }

    fn issue_into(&self, folder: &Path, file: &str, name: &str, left: time::Duration) {
        let key = KeyPair::generate().unwrap();
        let names = ["127.0.0.1".to_owned(), format!("{name}.menagerie")];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(30);
        params.not_after = OffsetDateTime::now_utc() + left;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = tls::file_of(folder, file);
        let beside = path.with_extension("new");
        std::fs::write(&beside, key.serialize_pem() + &certificate.pem()).unwrap();
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&beside, owner_only).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    fn load(&self, name: &str) -> Arc<Tls> {
        Tls::load(self.folder.path(), name, OPTIONAL).unwrap()
    }
}

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

fn ping() -> Router {
    Router::new().route("/ping", get(async || "pong"))
}

async fn ask(http: &reqwest::Client, server: &Server) -> Result<String, reqwest::Error> {
    let url = format!("https://{}/ping", server.address);
    http.get(url).send().await?.text().await
}

/// A caller of its own, since this process speaks as the server does.
fn caller(authority: &Authority, name: Option<&str>) -> reqwest::Client {
    let ca = std::fs::read(authority.folder.path().join(tls::AUTHORITY)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(&ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match name {
        None => config.with_no_client_auth(),
        Some(name) => {
            let text = std::fs::read(tls::file_of(authority.folder.path(), name)).unwrap();
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&text).unwrap();
            let certificate = rustls::pki_types::CertificateDer::from_pem_slice(&text).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "a stranger makes its client as it likes"
    )]
    let builder = reqwest::Client::builder();
    builder
        .tls_backend_preconfigured(config)
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(DEADLINE)
        .build()
        .unwrap()
}

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
