//! The side of a caller whose HTTP client outlives the certificates it was made with.
//! Invariant: every handshake asks for what is current, so that new files hold for clients made long before.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::Tls;
use super::material::provider;

pub(super) fn client_config(tls: Arc<Tls>) -> ClientConfig {
    let current = Arc::new(Current(tls));
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("this provider speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&current) as Arc<dyn ServerCertVerifier>)
        .with_client_cert_resolver(current)
}

/// Of a process that speaks no TLS: it trusts nobody, so that a call by `https` fails instead of falling back.
pub(crate) fn trusting_nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("this provider speaks TLS 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

#[derive(Debug)]
struct Current(Arc<Tls>);

impl ServerCertVerifier for Current {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge = Arc::clone(&self.0.current.load().servers);
        judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let judge = Arc::clone(&self.0.current.load().servers);
        judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let judge = Arc::clone(&self.0.current.load().servers);
        judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current.load().servers.supported_verify_schemes()
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current.load().own.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.current.load().own.is_some()
    }
}
