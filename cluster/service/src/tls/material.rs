//! The files in `DATA/tls`: the authority in `ca.pem`, and for each process its key and certificate in one file.
//! Invariant: key and certificate are one file, replaced in one step, so that nobody reads a pair that does not fit;
//! a file with a key that others can read is refused.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::ClientCertificates;

/// Whom everybody in the cluster trusts.
pub const AUTHORITY: &str = "ca.pem";

/// The key and the certificate of one process.
pub fn file_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pem"))
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Of the files of a process: which they are, and when they were written.
pub(super) type Stamp = [Option<(u64, SystemTime)>; 2];

/// Changes when a file of this process is replaced.
pub(super) fn stamp(folder: &Path, name: &str) -> Stamp {
    [folder.join(AUTHORITY), file_of(folder, name)].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.modified().ok()?))
    })
}

#[derive(Debug)]
pub(super) struct Material {
    pub(super) own: Option<Arc<CertifiedKey>>,
    /// Judges the servers that this process calls.
    pub(super) servers: Arc<WebPkiServerVerifier>,
    listening: Option<Listening>,
}

#[derive(Debug)]
struct Listening {
    for_clients: Arc<ServerConfig>,
    for_peers: Arc<ServerConfig>,
    to_peers: Arc<ClientConfig>,
}

impl Material {
    pub(super) fn read(folder: &Path, name: &str, clients: ClientCertificates) -> anyhow::Result<Self> {
        let roots = Arc::new(authority(&folder.join(AUTHORITY))?);
        let own = own(&file_of(folder, name))?;
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .context("prepare to judge servers")?;
        let listening = own.as_ref().map(|own| Listening::new(&roots, own, clients));
        Ok(Self {
            servers,
            listening: listening.transpose()?,
            own: own.map(|own| own.certified).map(Arc::new),
        })
    }

    fn listening(&self) -> anyhow::Result<&Listening> {
        self.listening.as_ref().context("this process has no certificate")
    }

    pub(super) fn for_clients(&self) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(Arc::clone(&self.listening()?.for_clients))
    }

    pub(super) fn for_peers(&self) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(Arc::clone(&self.listening()?.for_peers))
    }

    pub(super) fn to_peers(&self) -> anyhow::Result<Arc<ClientConfig>> {
        Ok(Arc::clone(&self.listening()?.to_peers))
    }
}

impl Listening {
    fn new(roots: &Arc<RootCertStore>, own: &Own, clients: ClientCertificates) -> anyhow::Result<Self> {
        let judge = || WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
        let of_peers = judge().build().context("prepare to judge peers")?;
        let of_clients = match clients {
            ClientCertificates::Required => judge(),
            ClientCertificates::Optional => judge().allow_unauthenticated(),
        };
        let of_clients = of_clients.build().context("prepare to judge clients")?;
        let mut for_clients = own.server(of_clients)?;
        for_clients.alpn_protocols = vec![b"http/1.1".to_vec()];
        let for_peers = own.server(of_peers)?;
        let mut to_peers = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(roots))
            .with_client_auth_cert(own.certified.cert.clone(), own.key.clone_key())?;
        to_peers.resumption = Resumption::disabled();
        Ok(Self {
            for_clients: Arc::new(for_clients),
            for_peers: Arc::new(for_peers),
            to_peers: Arc::new(to_peers),
        })
    }
}

struct Own {
    key: PrivateKeyDer<'static>,
    certified: CertifiedKey,
}

impl Own {
    fn server(&self, judge: Arc<dyn ClientCertVerifier>) -> anyhow::Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(judge)
            .with_single_cert(self.certified.cert.clone(), self.key.clone_key())
            .context("use the certificate")?;
        // Who comes back with a ticket shows no certificate, so that one would outlive its end.
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn authority(path: &Path) -> anyhow::Result<RootCertStore> {
    let shown = path.display();
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path)
        .with_context(|| format!("open {shown} (`menagerie certs` makes it; a further host needs a copy)"))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("read {shown}"))?;
        roots.add(certificate).with_context(|| format!("use {shown}"))?;
    }
    if roots.is_empty() {
        bail!("{shown} has no certificate in it");
    }
    Ok(roots)
}

fn own(path: &Path) -> anyhow::Result<Option<Own>> {
    let shown = path.display();
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.mode() & 0o777,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
    };
    if mode & 0o077 != 0 {
        bail!("{shown} can be read by others (mode {mode:04o}); run: chmod 600 {shown}");
    }
    let text = fs::read(path).with_context(|| format!("read {shown}"))?;
    let key = PrivateKeyDer::from_pem_slice(&text).with_context(|| format!("find the key in {shown}"))?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("find the certificate in {shown}"))?;
    let certified = CertifiedKey::from_der(chain, key.clone_key(), &provider())
        .with_context(|| format!("use the key and the certificate in {shown}"))?;
    Ok(Some(Own { key, certified }))
}
