//! TLS for every port of a process, and for every call it makes.
//! Invariant: a process speaks TLS everywhere or nowhere; TLS 1.3 only; who is not vouched for by the cluster's own
//! authority is not spoken with, and a node only as the node whose number its certificate names.
//! Certificates are read anew when their files change, without a restart.
//! It must not know what is said.

mod live;
mod material;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::ClientCertificates;
use crate::tasks::Tasks;
use material::{Material, Stamp};

pub(crate) use live::trusting_nobody;
pub use material::{AUTHORITY, file_of};

/// The name that people and programs use which are no process of the cluster.
pub const CLIENT: &str = "client";

/// How often one looks whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Either side of a connection, as far as whoever reads and writes cares.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What one process needs to prove who it is, and to see who the others are.
#[derive(Debug)]
pub struct Tls {
    folder: PathBuf,
    name: String,
    clients: ClientCertificates,
    /// Of the files that were loaded first.
    loaded: Stamp,
    current: ArcSwap<Material>,
    calls: OnceLock<ClientConfig>,
}

static OF_PROCESS: OnceLock<Arc<Tls>> = OnceLock::new();

/// What this process speaks, if it speaks TLS at all.
pub fn of_process() -> Option<&'static Arc<Tls>> {
    OF_PROCESS.get()
}

/// From here on this process speaks TLS, on every port and in every call.
pub fn install(tls: Arc<Tls>) -> anyhow::Result<()> {
    let fresh = OF_PROCESS.set(tls).is_ok();
    anyhow::ensure!(fresh, "this process has its certificates already");
    Ok(())
}

/// The name that the certificate of a node carries, so that none can pass for another.
pub fn node_name(id: u64) -> String {
    format!("n{id}.menagerie")
}

impl Tls {
    /// The authority and, where there is one, the certificate of the process `name`.
    pub fn load(folder: &Path, name: &str, clients: ClientCertificates) -> anyhow::Result<Arc<Self>> {
        // Before they are read, and not when somebody begins to look: what changes meanwhile is read once more.
        let loaded = material::stamp(folder, name);
        let material = Material::read(folder, name, clients)?;
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            clients,
            loaded,
            current: ArcSwap::from_pointee(material),
            calls: OnceLock::new(),
        }))
    }

    /// Fails where a process that listens has nothing to show.
    pub fn check_own(&self) -> anyhow::Result<()> {
        self.check_own_in(&self.current.load())
    }

    fn check_own_in(&self, material: &Material) -> anyhow::Result<()> {
        anyhow::ensure!(
            material.own.is_some(),
            "{} is missing: `menagerie certs` makes it",
            file_of(&self.folder, &self.name).display()
        );
        Ok(())
    }

    /// Reads the files anew whenever they change, and again until they can be used; files that are wrong change nothing
    /// but the log, which is told of each wrong once.
    pub fn keep_fresh(self: &Arc<Self>, tasks: &Tasks) {
        let (tls, stop) = (Arc::clone(self), tasks.clone());
        tasks.spawn("certificates", async move {
            let mut used = tls.loaded;
            let mut told: Option<String> = None;
            while tokio::time::timeout(LOOK_EVERY, stop.stopping()).await.is_err() {
                // Taken first, so that a file which changes while it is read is read once more.
                let now = material::stamp(&tls.folder, &tls.name);
                let wrong = if now == used { None } else { tls.reload().err() };
                let wrong = wrong.map(|error| format!("{error:#}"));
                // Not all that mends a file changes the stamp: a mode does not, and a disk that can be read again.
                if wrong.is_none() {
                    used = now;
                }
                if let Some(error) = &wrong
                    && wrong != told
                {
                    tracing::error!(%error, "new certificates cannot be used yet; the old ones stay");
                }
                told = wrong;
            }
        });
    }

    fn reload(&self) -> anyhow::Result<()> {
        let material = Material::read(&self.folder, &self.name, self.clients)?;
        // Whoever listens would refuse everybody without it.
        if self.check_own().is_ok() {
            self.check_own_in(&material)?;
        }
        self.current.store(Arc::new(material));
        tracing::info!("read the certificates anew");
        Ok(())
    }

    /// What HTTP clients are made with: it follows the files, however long the client lives.
    pub(crate) fn calls(self: &Arc<Self>) -> ClientConfig {
        let made = self.calls.get_or_init(|| live::client_config(Arc::clone(self)));
        made.clone()
    }

    /// Opens a connection to a server that is called by this host in URLs.
    pub async fn connect(
        self: &Arc<Self>,
        stream: TcpStream,
        host: &str,
    ) -> anyhow::Result<impl Stream + use<>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).context("name the server")?;
        let config = Arc::new(self.calls());
        Ok(TlsConnector::from(config).connect(name, stream).await?)
    }

    /// Takes a connection of a client.
    pub(crate) async fn accept<S: Stream>(&self, stream: S) -> anyhow::Result<impl Stream + use<S>> {
        let config = self.current.load().for_clients()?;
        Ok(TlsAcceptor::from(config).accept(stream).await?)
    }

    /// Takes a connection that is said to be a node's; which one is shown by [`Certified::is_node`].
    pub async fn accept_peer(
        &self,
        stream: TcpStream,
    ) -> anyhow::Result<(tokio_rustls::server::TlsStream<TcpStream>, Certified)> {
        let config = self.current.load().for_peers()?;
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown
            .and_then(<[_]>::first)
            .context("the other end showed no certificate")?;
        let certified = Certified(shown.clone().into_owned());
        Ok((stream, certified))
    }

    /// Opens a connection to the node `id`, and to no other.
    pub async fn connect_peer(
        &self,
        stream: TcpStream,
        id: u64,
    ) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let config = self.current.load().to_peers()?;
        let name = ServerName::try_from(node_name(id)).context("name the node")?;
        Ok(TlsConnector::from(config).connect(name, stream).await?)
    }
}

/// A certificate that the authority vouches for.
pub struct Certified(CertificateDer<'static>);

impl Certified {
    /// Whether it stands for the node `id`.
    pub fn is_node(&self, id: u64) -> bool {
        let Ok(name) = ServerName::try_from(node_name(id)) else {
            return false;
        };
        ParsedCertificate::try_from(&self.0)
            .is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, &name).is_ok())
    }
}
