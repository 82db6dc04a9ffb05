//! Both ends of a new connection prove that they know the cluster's secret, and that they are who the
//! other expects: same cluster, this number, this disk. Nothing else is read before that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use service::planted::{Bug, is_planted};
use service::tls::Tls;
use sha2::Sha256;
use tokio::net::TcpStream;

use super::frame::{FrameReader, write_frame};
use super::stream::{self, Incoming, Outgoing};
use crate::raft::identity::{Identity, IdentityError};

/// Raised when peers of different versions could not talk to each other.
const PROTOCOL: u16 = 1;
const DEADLINE: Duration = Duration::from_secs(2);
const HELLO_BYTES_MAX: usize = 4096;

/// What a connection is for; each kind has its own, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    Append,
    Control,
    Snapshot,
    Ask,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    protocol: u16,
    from: u64,
    from_disk: String,
    to: u64,
    /// The disk that the cluster has bound to `to`, if it has bound one.
    to_disk: Option<String>,
    cluster_id: Option<String>,
    purpose: Purpose,
    nonce: [u8; 16],
}

#[derive(Debug, Serialize, Deserialize)]
enum Welcome {
    Yes {
        disk: String,
        cluster_id: Option<String>,
        nonce: [u8; 16],
        proof: Vec<u8>,
    },
    No(Refused),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error("the peer speaks another protocol version, {0}")]
    Protocol(u16),
    #[error("the peer at this address is node {0}")]
    OtherNode(u64),
    #[error("the peer belongs to another cluster, {0}")]
    OtherCluster(String),
    #[error(
        "node-id-reused: the number belongs to another disk; a node that lost its disk joins under a new number"
    )]
    DiskReused,
}

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("talk to the peer")]
    Io(#[from] io::Error),
    #[error("the peer did not answer in time")]
    Late,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the peer does not know the cluster's secret, or its message is malformed")]
    Untrusted,
    /// It stopped, or did not trust this end.
    #[error("the peer ended the connection before both ends had proved who they are")]
    Ended,
    #[error("the peer says it is node {0}, and its certificate says otherwise")]
    OtherCertificate(u64),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What both sides of every connection need to know.
pub struct Trust {
    pub identity: Identity,
    pub secret: Vec<u8>,
    /// Absent where peers speak in the clear.
    pub tls: Option<Arc<Tls>>,
    /// The disk that the replicated state has bound to a member.
    pub bound_disk: Box<dyn Fn(u64) -> Option<String> + Send + Sync>,
}

pub struct Connection {
    pub reader: FrameReader<Incoming>,
    pub writer: Outgoing,
    /// The other end's number.
    pub peer: u64,
    pub peer_disk: String,
    pub peer_cluster: Option<String>,
    pub purpose: Purpose,
}

type Proof = Hmac<Sha256>;

fn mac(secret: &[u8], side: &[u8], hello: &[u8], nonce: &[u8; 16]) -> Proof {
    let mut mac = Proof::new_from_slice(secret).expect("a key of any length will do");
    mac.update(side);
    mac.update(hello);
    mac.update(nonce);
    mac
}

fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("the system has random numbers");
    nonce
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("handshakes are plain data")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, HandshakeError> {
    postcard::from_bytes(bytes).map_err(|_malformed| HandshakeError::Untrusted)
}

/// Some of each that either side reads before the other has proved anything.
#[cfg(test)]
pub(super) fn whole() -> [Vec<u8>; 3] {
    let hello = Hello {
        protocol: PROTOCOL,
        from: 1,
        from_disk: "disk-1".to_owned(),
        to: 2,
        to_disk: Some("disk-2".to_owned()),
        cluster_id: None,
        purpose: Purpose::Append,
        nonce: [7; 16],
    };
    let yes = Welcome::Yes {
        disk: "disk-2".to_owned(),
        cluster_id: Some("cluster".to_owned()),
        nonce: [8; 16],
        proof: vec![9; 32],
    };
    let no = Welcome::No(Refused::OtherCluster("cluster".to_owned()));
    [encode(&hello), encode(&yes), encode(&no)]
}

/// Whether it is one of them.
#[cfg(test)]
pub(super) fn is_any(bytes: &[u8]) -> bool {
    let read = [decode::<Hello>(bytes).is_ok(), decode::<Welcome>(bytes).is_ok()];
    read.contains(&true)
}

/// Opens a connection to node `to` and proves both ends.
pub async fn connect(
    trust: &Arc<Trust>,
    to: u64,
    address: &str,
    purpose: Purpose,
) -> Result<Connection, HandshakeError> {
    let greeting = async {
        let stream = TcpStream::connect(address).await?;
        greet(trust, stream, to, purpose).await
    };
    tokio::time::timeout(DEADLINE, greeting)
        .await
        .unwrap_or(Err(HandshakeError::Late))
}

async fn greet(
    trust: &Trust,
    stream: TcpStream,
    to: u64,
    purpose: Purpose,
) -> Result<Connection, HandshakeError> {
    let (reader, mut writer) = stream::open(trust.tls.as_deref(), stream, to).await?;
    let mut reader = FrameReader::limited(reader, HELLO_BYTES_MAX);
    let hello = encode(&Hello {
        protocol: PROTOCOL,
        from: trust.identity.id(),
        from_disk: trust.identity.disk(),
        to,
        to_disk: (trust.bound_disk)(to),
        cluster_id: trust.identity.cluster_id(),
        purpose,
        nonce: nonce(),
    });
    write_frame(&mut writer, &hello).await?;
    let answer = reader.next().await?.ok_or(HandshakeError::Ended)?;
    match decode::<Welcome>(&answer)? {
        Welcome::No(refused) => Err(refused.into()),
        Welcome::Yes {
            disk,
            cluster_id,
            nonce,
            proof,
        } => {
            mac(&trust.secret, b"server", &hello, &nonce)
                .verify_slice(&proof)
                .map_err(|_wrong| HandshakeError::Untrusted)?;
            let proof = mac(&trust.secret, b"client", &hello, &nonce)
                .finalize()
                .into_bytes();
            write_frame(&mut writer, &proof).await?;
            reader.unlimit();
            Ok(Connection {
                reader,
                writer,
                peer: to,
                peer_disk: disk,
                peer_cluster: cluster_id,
                purpose,
            })
        }
    }
}

/// The other side of [`connect`].
pub async fn accept(trust: &Arc<Trust>, stream: TcpStream) -> Result<Connection, HandshakeError> {
    tokio::time::timeout(DEADLINE, welcome(trust, stream))
        .await
        .unwrap_or(Err(HandshakeError::Late))
}

async fn welcome(trust: &Trust, stream: TcpStream) -> Result<Connection, HandshakeError> {
    let (reader, mut writer, shown) = stream::take(trust.tls.as_deref(), stream).await?;
    let mut reader = FrameReader::limited(reader, HELLO_BYTES_MAX);
    let bytes = reader.next().await?.ok_or(HandshakeError::Ended)?;
    let hello: Hello = decode(&bytes)?;
    if shown.is_some_and(|shown| !shown.is_node(hello.from)) {
        return Err(HandshakeError::OtherCertificate(hello.from));
    }
    if let Some(refused) = refuse(trust, &hello) {
        write_frame(&mut writer, &encode(&Welcome::No(refused.clone()))).await?;
        return Err(refused.into());
    }
    let nonce = nonce();
    let proof = mac(&trust.secret, b"server", &bytes, &nonce)
        .finalize()
        .into_bytes()
        .to_vec();
    let yes = Welcome::Yes {
        disk: trust.identity.disk(),
        cluster_id: trust.identity.cluster_id(),
        nonce,
        proof,
    };
    write_frame(&mut writer, &encode(&yes)).await?;
    let proof = reader.next().await?.ok_or(HandshakeError::Ended)?;
    mac(&trust.secret, b"client", &bytes, &nonce)
        .verify_slice(&proof)
        .map_err(|_wrong| HandshakeError::Untrusted)?;
    if let (Some(theirs), true) = (&hello.cluster_id, hello.purpose != Purpose::Ask) {
        trust.identity.adopt_cluster(theirs)?;
    }
    reader.unlimit();
    Ok(Connection {
        reader,
        writer,
        peer: hello.from,
        peer_disk: hello.from_disk,
        peer_cluster: hello.cluster_id,
        purpose: hello.purpose,
    })
}

fn refuse(trust: &Trust, hello: &Hello) -> Option<Refused> {
    let me = &trust.identity;
    if hello.protocol != PROTOCOL {
        return Some(Refused::Protocol(PROTOCOL));
    }
    if hello.to != me.id() {
        return Some(Refused::OtherNode(me.id()));
    }
    if let (Some(mine), Some(theirs)) = (me.cluster_id(), &hello.cluster_id)
        && mine != *theirs
    {
        return Some(Refused::OtherCluster(mine));
    }
    let foreign = |bound: Option<String>, disk: &str| bound.is_some_and(|bound| bound != disk);
    let reused = foreign((trust.bound_disk)(hello.from), &hello.from_disk)
        || foreign(hello.to_disk.clone(), &me.disk());
    (reused && !is_planted(Bug::NodeIdReused)).then_some(Refused::DiskReused)
}
