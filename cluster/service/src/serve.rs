//! Takes connections and speaks HTTP/1.1 on them until told to stop.
//! Invariant: connections are bounded in all and for each address, a head must arrive in time and in bounds, an answer
//! must be taken, and stopping lets every request that has begun end, up to the deadline.
//! It must not know what is served.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::arrival::{self, LastRead};
use crate::config::LimitsConfig;
use crate::edge::Refused;
use crate::impatient::Impatient;
use crate::open_files;
use crate::problem::{self, Problem};
use crate::tasks::Tasks;
use crate::tls::{self, Tls};

/// No refusal says as much.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What may wait unsent in the kernel. With more, it would say that there is room only after a third of some megabytes
/// was taken, and who reads slowly would pass for one who does not read.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// After a failed accept, most often for want of file descriptors, some connections get time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long an idle connection stays open once we stop. A request that is on its way meanwhile is not lost: it gets its
/// answer, which says that no other will follow.
const GRACE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub header_timeout: Duration,
    pub header_bytes_max: usize,
    /// How long a write may wait for the other end to take some of it: without an end, who asks and never reads would
    /// keep a place for ever.
    pub write_timeout: Duration,
    pub drain_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 10_000,
            header_timeout: Duration::from_secs(5),
            header_bytes_max: 16 * 1024,
            write_timeout: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(5),
        }
    }
}

impl From<&LimitsConfig> for Limits {
    fn from(limits: &LimitsConfig) -> Self {
        Self {
            connections_max: limits.connections_max,
            connections_per_address_max: limits.connections_per_address_max,
            ..Self::default()
        }
    }
}

impl Limits {
    /// The same with fewer connections, where so many would take away what the process needs for its files. Of its ports
    /// one takes many; the few that the others take, such as that for peers, are counted among the files.
    fn within_open_files(self) -> Self {
        let files = open_files::limit();
        let connections_max = open_files::connections(files, self.connections_max);
        if connections_max < self.connections_max {
            tracing::warn!(
                connections = connections_max,
                files,
                "fewer connections are taken than limits.connections_max says, since the limit of open files leaves no \
                 room for more: raise it (ulimit -Hn, LimitNOFILE=)"
            );
        }
        Self {
            connections_max,
            ..self
        }
    }
}

/// Serves until `tasks` is stopping, then lets open requests end and returns. The app is one that `edge::wrap` made: what
/// is refused whatever it asks for is only marked here, and the edge answers it.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, tasks: Tasks) -> io::Result<()> {
    let limits = limits.within_open_files();
    let server = Server {
        app: app.with_state(()),
        limits: limits.clone(),
        open: Arc::default(),
        connections: tasks.child(),
        cut: CancellationToken::new(),
        tls: tls::of_process().cloned(),
    };
    if let Some(tls) = &server.tls {
        tls.keep_fresh(&tasks);
    }
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => server.take(stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept connections; trying again");
                let _stopping = tokio::time::timeout(ACCEPT_PAUSE, tasks.stopping()).await;
            }
        }
    }
    // Callers that the kernel has connected already would be reset; they get their answer instead.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        server.take(stream, peer);
    }
    drop(listener);
    if !server.connections.drain(limits.drain_deadline).await {
        let left = server.connections.running();
        tracing::warn!(connections = left, "cut connections that did not end in time");
        server.cut.cancel();
        server.connections.drain(ACCEPT_PAUSE).await;
    }
    Ok(())
}

/// Such an error ends one connection before it was taken; the next accept may succeed at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place among the bounded connections, given back when dropped.
struct Place {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
}

impl Place {
    fn take(open: &Arc<Mutex<Open>>, address: IpAddr, limits: &Limits) -> Option<Self> {
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.all >= limits.connections_max || here >= limits.connections_per_address_max {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(address, here + 1);
        drop(counts);
        Some(Self {
            open: Arc::clone(open),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(here) = counts.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

struct Server {
    app: Router,
    limits: Limits,
    open: Arc<Mutex<Open>>,
    connections: Tasks,
    cut: CancellationToken,
    tls: Option<Arc<Tls>>,
}

impl Server {
    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = Place::take(&self.open, peer.ip(), &self.limits) else {
            tracing::debug!("refused a connection: too many are open");
            if self.tls.is_none()
                && let Some(told) = too_many_connections(&self.app)
            {
                // Best effort: who cannot take these few bytes at once learns it from the close.
                let _written = stream.try_write(&told);
            }
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "cannot switch off Nagle's algorithm");
        }
        #[cfg(target_os = "linux")]
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX) {
            tracing::debug!(error = %error, "cannot bound what waits unsent");
        }
        let stream = Impatient::new(stream, self.limits.write_timeout);
        let conversation = Conversation {
            peer,
            app: self.app.clone(),
            limits: self.limits.clone(),
            connections: self.connections.clone(),
            last_read: stream.last_read(),
        };
        let tls = self.tls.clone();
        let connection = async move {
            match tls {
                Some(tls) => secured(&tls, stream, conversation).await,
                None => conversation.hold(stream).await,
            }
        };
        let cut = self.cut.clone();
        self.connections.spawn("connection", async move {
            let _place = place;
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

/// What a connection too many is told before anything is read from it, as the edge of the app words it.
fn too_many_connections(app: &Router) -> Option<Vec<u8>> {
    let detail = "Too many connections are open; try again shortly.";
    let refused = Refused(Problem::new(problem::OVERLOADED, detail));
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(refused);
    // It waits for nobody, so it is there at once.
    let response = match app.clone().call(request).now_or_never()? {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (mut head, body) = response.into_parts();
    let body = to_bytes(body, REFUSAL_BYTES_MAX).now_or_never()?.ok()?;
    let headers = &mut head.headers;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let mut told = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        told.extend_from_slice(name.as_str().as_bytes());
        told.extend_from_slice(b": ");
        told.extend_from_slice(value.as_bytes());
        told.extend_from_slice(b"\r\n");
    }
    told.extend_from_slice(b"\r\n");
    told.extend_from_slice(&body);
    Some(told)
}

/// A handshake has the time that a head has.
async fn secured(tls: &Tls, stream: Impatient<TcpStream>, conversation: Conversation) {
    match tokio::time::timeout(conversation.limits.header_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => conversation.hold(stream).await,
        Ok(Err(error)) => {
            tracing::debug!(error = %format!("{error:#}"), "a connection was not secured");
        }
        Err(_elapsed) => tracing::debug!("a connection was not secured in time"),
    }
}

struct Conversation {
    peer: SocketAddr,
    app: Router,
    limits: Limits,
    connections: Tasks,
    last_read: LastRead,
}

impl Conversation {
    async fn hold(self, stream: impl tls::Stream) {
        let Self {
            peer,
            app,
            limits,
            connections,
            last_read,
        } = self;
        let used = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&used);
        let header_bytes_max = limits.header_bytes_max;
        let stop = connections.clone();
        let service = service_fn(move |request| {
            mark.store(true, Ordering::Relaxed);
            let (app, stop, came) = (app.clone(), stop.clone(), last_read.get());
            async move {
                let answer = answer(app, request, peer, header_bytes_max);
                let mut response = arrival::answering(came, answer).await;
                if stop.is_stopping() {
                    let headers = response.headers_mut();
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            // Room for a body to be read in few pieces; the head has its own, smaller bound.
            .max_buf_size((4 * header_bytes_max).max(64 * 1024))
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let grace = async {
            connections.stopping().await;
            tokio::time::sleep(GRACE).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            // Pools keep spare connections that never carried anything; nobody waits for those.
            () = grace => if used.load(Ordering::Relaxed) {
                connection.as_mut().graceful_shutdown();
                connection.await
            } else {
                Ok(())
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection ended with an error");
        }
    }
}

async fn answer(
    mut app: Router,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    header_bytes_max: usize,
) -> Response {
    if head_bytes(&request) > header_bytes_max {
        let detail = format!("The request line and headers exceed {header_bytes_max} bytes.");
        let refused = Refused(Problem::new(problem::HEADERS_TOO_LARGE, detail));
        request.extensions_mut().insert(refused);
    }
    request.extensions_mut().insert(ConnectInfo(peer));
    match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request.uri().path_and_query();
    let target = target.map_or(0, |target| target.as_str().len());
    // Each line of a head has a colon, a space and a line end besides the name and the value.
    let headers = request.headers().iter();
    headers.fold(target, |sum, (name, value)| {
        sum + name.as_str().len() + value.len() + 4
    })
}
