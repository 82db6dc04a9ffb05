//! The bytes under a peer connection: plain, or TLS in which each end shows the certificate of its node.
//! Invariant: with TLS nothing is read or written outside of it, and an end's number is the one its certificate names.

use std::io;

use service::tls::{Certified, Tls};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(super) type Incoming = Box<dyn AsyncRead + Send + Sync + Unpin>;
pub(super) type Outgoing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

pub(super) async fn open(tls: Option<&Tls>, stream: TcpStream, to: u64) -> io::Result<(Incoming, Outgoing)> {
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(halves(stream.into_split())),
        Some(tls) => {
            let stream = tls.connect_peer(stream, to).await.map_err(io::Error::other)?;
            Ok(halves(tokio::io::split(stream)))
        }
    }
}

/// What came in, and with TLS the certificate that the other end showed.
pub(super) async fn take(
    tls: Option<&Tls>,
    stream: TcpStream,
) -> io::Result<(Incoming, Outgoing, Option<Certified>)> {
    stream.set_nodelay(true)?;
    match tls {
        None => {
            let (reader, writer) = halves(stream.into_split());
            Ok((reader, writer, None))
        }
        Some(tls) => {
            let (stream, shown) = tls.accept_peer(stream).await.map_err(io::Error::other)?;
            let (reader, writer) = halves(tokio::io::split(stream));
            Ok((reader, writer, Some(shown)))
        }
    }
}

fn halves<R, W>((reader, writer): (R, W)) -> (Incoming, Outgoing)
where
    R: AsyncRead + Send + Sync + Unpin + 'static,
    W: AsyncWrite + Send + Sync + Unpin + 'static,
{
    (Box::new(reader), Box::new(writer))
}

/// TLS holds back what the socket did not take at once, unless it is flushed.
pub(super) async fn write_flushed(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
