//! The bytes under a peer connection: plain, or TLS in which each end shows the certificate of its node.
//! Invariant: with TLS nothing is read or written outside of it, and an end's number is the one its certificate names.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use service::tls::{Certified, Tls};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(super) type Incoming = Box<dyn AsyncRead + Send + Sync + Unpin>;
pub(super) type Outgoing = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// What the other end has not confirmed by then is thrown away with the connection: a question that lies in a cut
/// network must not arrive when those who asked have long asked again, and nobody may wait for who is not there.
const UNCONFIRMED_MAX_MS: u32 = 5000;
/// The same while there is nothing to say: after so long, the other end is asked whether it is still there.
const QUIET: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_TIMES: u32 = 3;

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_user_timeout(stream, UNCONFIRMED_MAX_MS)?;
        sockopt::set_tcp_keepidle(stream, QUIET)?;
        sockopt::set_tcp_keepintvl(stream, ASK_AGAIN)?;
        sockopt::set_tcp_keepcnt(stream, ASK_TIMES)?;
    }
    Ok(())
}

pub(super) async fn open(tls: Option<&Tls>, stream: TcpStream, to: u64) -> io::Result<(Incoming, Outgoing)> {
    prepare(&stream)?;
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
    prepare(&stream)?;
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends: either may have said what must not arrive late.
    #[tokio::test]
    async fn what_is_not_confirmed_in_time_is_thrown_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let calling = TcpStream::connect(listener.local_addr().unwrap());
        let (called, caller) = tokio::join!(listener.accept(), calling);
        for stream in [called.unwrap().0, caller.unwrap()] {
            prepare(&stream).unwrap();
            assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), UNCONFIRMED_MAX_MS);
            assert!(sockopt::socket_keepalive(&stream).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), QUIET);
        }
    }
}
