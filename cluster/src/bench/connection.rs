//! One keep-alive connection of a load generator: plain requests to one node.
//! Invariant: each has a connection of its own; two never share one. It is made of hyper's parts, without what a client
//! for everything has around them (a pool, redirects, a clock for each step): what a generator takes of the processor,
//! it takes from those it measures. `drive` tells how much that is for each side; `etcd` is as bare.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use service::tls;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::etcd::Failed;
use crate::moving::{Moving, beside};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_TTL: HeaderName = HeaderName::from_static("idempotency-ttl");
/// As long as `KvClient` has the store remember its answers.
const TTL: HeaderValue = HeaderValue::from_static("60");

pub(crate) struct Connection {
    headers: HeaderMap,
    deadline: Duration,
    /// While no request is under way.
    open: Mutex<Option<Open>>,
}

/// How a request ended, as far as a generator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Done,
    /// The node answered with this status.
    Refused(u16),
    /// No whole answer came.
    Broken,
    /// There was no connection, or it was closed at once, and so nothing was sent.
    Unreached,
}

/// The same of a call to etcd. As HTTP has statuses, so has gRPC, with smaller numbers.
impl<T> From<Result<T, Failed>> for Outcome {
    fn from(answer: Result<T, Failed>) -> Self {
        match answer {
            Ok(_) => Self::Done,
            Err(Failed::Refused(code)) => Self::Refused(code),
            Err(Failed::Broken) => Self::Broken,
            Err(Failed::Unreached) => Self::Unreached,
        }
    }
}

/// Whom to ask for what.
pub(crate) fn uri(text: &str) -> anyhow::Result<Uri> {
    let uri = Uri::try_from(text).with_context(|| format!("make a URI of {text}"))?;
    anyhow::ensure!(uri.authority().is_some(), "{text} names no host");
    Ok(uri)
}

impl Connection {
    pub(crate) fn new(token: &str, deadline: Duration) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        let bearer =
            HeaderValue::try_from(format!("Bearer {token}")).context("write the token into a header")?;
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            headers,
            deadline,
            open: Mutex::new(None),
        })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        body: Option<Bytes>,
        key: Option<HeaderValue>,
    ) -> Outcome {
        let until = Instant::now() + self.deadline;
        let exchange = self.exchange(method, &uri, body, key, until);
        timeout_at(until, exchange).await.unwrap_or(Outcome::Broken)
    }

    async fn exchange(
        &self,
        method: Method,
        uri: &Uri,
        body: Option<Bytes>,
        key: Option<HeaderValue>,
        until: Instant,
    ) -> Outcome {
        let request = self.request(method, uri, body, key);
        let (mut open, answer) = match self.ask(uri, request, until).await {
            Ok(answered) => answered,
            Err(outcome) => return outcome,
        };
        let status = answer.status();
        // The body is read to its end, or the connection could not be used again.
        if open.read(answer).await.is_err() {
            return Outcome::Broken;
        }
        self.keep(Some(open));
        if status.is_success() {
            Outcome::Done
        } else {
            Outcome::Refused(status.as_u16())
        }
    }

    /// On the connection of before or, where there is none or the node has just closed it, on a new one.
    async fn ask(
        &self,
        uri: &Uri,
        mut request: Request<Full<Bytes>>,
        until: Instant,
    ) -> Result<(Open, Response<Incoming>), Outcome> {
        if let Some(mut kept) = self.kept(uri).await {
            match kept.try_send(request).await {
                Ok(answer) => return Ok((kept, answer)),
                // What is given back was not sent: as if the connection had not been there.
                Err(mut failed) => request = failed.take_message().ok_or(Outcome::Broken)?,
            }
        }
        let mut open = self.opened(uri, until).await.ok_or(Outcome::Unreached)?;
        match open.try_send(request).await {
            Ok(answer) => Ok((open, answer)),
            Err(failed) if failed.message().is_some() => Err(Outcome::Unreached),
            Err(_) => Err(Outcome::Broken),
        }
    }

    fn request(
        &self,
        method: Method,
        uri: &Uri,
        body: Option<Bytes>,
        key: Option<HeaderValue>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.headers_mut() = self.headers.clone();
        if let Some(host) = uri
            .authority()
            .and_then(|to| HeaderValue::try_from(to.as_str()).ok())
        {
            request.headers_mut().insert(HOST, host);
        }
        if let Some(key) = key {
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
            request.headers_mut().insert(IDEMPOTENCY_TTL, TTL);
        }
        if let Some(path) = uri.path_and_query() {
            *request.uri_mut() = Uri::from(path.clone());
        }
        request
    }

    /// The connection of before, if it leads there and still stands.
    async fn kept(&self, uri: &Uri) -> Option<Open> {
        let mut open = self.keep(None).filter(|open| Some(&open.to) == uri.authority())?;
        open.is_ready().await.then_some(open)
    }

    /// A new one, if the node takes it: one that does not was sent nothing, however long one waited. The deadline is
    /// that of the whole and not one a little later, or it would be chance which of the two is heard first.
    async fn opened(&self, uri: &Uri, until: Instant) -> Option<Open> {
        timeout_at(until, Open::new(uri)).await.ok()?.ok()
    }

    fn keep(&self, open: Option<Open>) -> Option<Open> {
        let mut kept = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, open)
    }
}

struct Open {
    to: Authority,
    sender: SendRequest<Full<Bytes>>,
    /// What moves the bytes: only while somebody waits for something, so that there need be no task for it.
    moving: Moving,
}

impl Open {
    async fn new(uri: &Uri) -> anyhow::Result<Self> {
        let to = uri.authority().context("find the host in a URI")?.clone();
        let stream = TcpStream::connect(to.as_str()).await?;
        stream.set_nodelay(true)?;
        let (sender, moving) = if uri.scheme() == Some(&Scheme::HTTPS) {
            let tls = tls::of_process().context("this process speaks no TLS")?;
            speak(tls.connect(stream, to.host()).await?).await?
        } else {
            speak(stream).await?
        };
        Ok(Self { to, sender, moving })
    }

    async fn is_ready(&mut self) -> bool {
        beside(&mut self.moving, self.sender.ready()).await.is_ok()
    }

    async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        beside(&mut self.moving, self.sender.try_send_request(request)).await
    }

    async fn read(&mut self, answer: Response<Incoming>) -> hyper::Result<()> {
        let mut body = answer.into_body();
        while let Some(frame) = beside(&mut self.moving, body.frame()).await {
            frame?;
        }
        Ok(())
    }
}

async fn speak(stream: impl tls::Stream + 'static) -> anyhow::Result<(SendRequest<Full<Bytes>>, Moving)> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let mut moving = connection.map(drop).boxed().fuse();
    beside(&mut moving, sender.ready()).await?;
    Ok((sender, moving))
}

#[cfg(test)]
mod tests {
    use service::tasks::Tasks;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// A server that answers so many requests on each connection and then closes it without a word; how often it was
    /// connected to.
    async fn server(
        answers_each: usize,
        answer: &'static [u8],
    ) -> (Uri, tokio::sync::watch::Receiver<u32>, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = uri(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let (count, counted) = tokio::sync::watch::channel(0);
        let tasks = Tasks::new();
        tasks.spawn("server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                for _ in 0..answers_each {
                    let mut heard = [0; 4096];
                    loop {
                        let read = stream.read(&mut heard).await.unwrap();
                        assert!(read > 0, "the other end left before its request was whole");
                        if heard[..read].ends_with(b"\r\n\r\n") {
                            break;
                        }
                    }
                    stream.write_all(answer).await.unwrap();
                }
            }
        });
        (uri, counted, tasks)
    }

    async fn get(connection: &Connection, uri: &Uri) -> Outcome {
        connection.send(Method::GET, uri.clone(), None, None).await
    }

    #[tokio::test]
    async fn one_connection_serves_all_requests_until_it_is_closed() {
        let (uri, counted, _tasks) = server(3, ANSWER).await;
        let connection = Connection::new("token", Duration::from_secs(10)).unwrap();
        for n in 0..9 {
            assert_eq!(get(&connection, &uri).await, Outcome::Done, "{n}");
        }
        assert_eq!(*counted.borrow(), 3);
    }

    #[tokio::test]
    async fn how_it_ended_is_told_apart() {
        let connection = Connection::new("token", Duration::from_millis(300)).unwrap();
        let (uri, _counted, _tasks) = server(1, b"HTTP/1.1 507 full\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(get(&connection, &uri).await, Outcome::Refused(507));
        let (uri, _counted, _tasks) = server(1, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        assert_eq!(get(&connection, &uri).await, Outcome::Broken);
        let (uri, _counted, _tasks) = server(0, b"").await;
        assert_eq!(get(&connection, &uri).await, Outcome::Broken);
        let nobody = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let nobody = super::uri(&format!("http://{nobody}/")).unwrap();
        assert_eq!(get(&connection, &nobody).await, Outcome::Unreached);
        let (uri, _counted, _tasks) = server(1, b"").await;
        assert_eq!(get(&connection, &uri).await, Outcome::Broken);
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_waited_for_until_the_deadline() {
        const DEADLINE: Duration = Duration::from_millis(300);
        // The kernel takes the connection and the request; nobody ever looks at them.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = uri(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let connection = Connection::new("token", DEADLINE).unwrap();
        let begin = Instant::now();
        assert_eq!(get(&connection, &uri).await, Outcome::Broken);
        let waited = begin.elapsed();
        assert!(
            (DEADLINE..DEADLINE + Duration::from_secs(5)).contains(&waited),
            "{waited:?}"
        );
    }
}
