//! An authority that issues certificates, and what speaks TLS in the tests: a server that says pong, and its callers.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use service::config::ClientCertificates;
use service::tls::{self, Tls};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::harness::{DEADLINE, Server};

pub(crate) const OPTIONAL: ClientCertificates = ClientCertificates::Optional;
pub(crate) const MONTH: time::Duration = time::Duration::days(30);

/// An authority with a folder of its own.
pub(crate) struct Authority {
    pub(crate) folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn issue(&self, file: &str, name: &str, days: i64) {
        self.issue_into(self.folder.path(), file, name, time::Duration::days(days));
    }

    pub(crate) fn issue_into(&self, folder: &Path, file: &str, name: &str, left: time::Duration) {
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

    pub(crate) fn load(&self, name: &str) -> Arc<Tls> {
        Tls::load(self.folder.path(), name, OPTIONAL).unwrap()
    }
}

pub(crate) fn ping() -> Router {
    Router::new().route("/ping", get(async || "pong"))
}

pub(crate) async fn ask(http: &reqwest::Client, server: &Server) -> Result<String, reqwest::Error> {
    let url = format!("https://{}/ping", server.address);
    http.get(url).send().await?.text().await
}

/// A caller of its own, since this process speaks as the server does.
pub(crate) fn caller(authority: &Authority, name: Option<&str>) -> reqwest::Client {
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
