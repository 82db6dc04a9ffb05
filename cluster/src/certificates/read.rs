//! What a certificate says: when it ends, for which hosts it stands, and who signed it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use time::OffsetDateTime;
use time::macros::format_description;
use x509_cert::der::DecodePem as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectAltName, SubjectKeyIdentifier};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

pub(crate) struct Certificate {
    pub(crate) ends: OffsetDateTime,
    pub(crate) hosts: Vec<String>,
    /// The key that signed it.
    pub(super) issuer: String,
    /// The key it is for.
    pub(super) key_id: String,
    pub(super) public_key: Vec<u8>,
}

impl Certificate {
    /// The last certificate in a file, which may hold a key before it.
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
        let start = text
            .rfind(BEGIN)
            .with_context(|| format!("find a certificate in {shown}"))?;
        Self::parse(&text[start..]).with_context(|| format!("read the certificate in {shown}"))
    }

    /// All certificates in a file: that of the authority may hold those of several, so that all of them are trusted.
    pub(super) fn all_of(path: &Path) -> anyhow::Result<Vec<Self>> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
        let parts = text.match_indices(BEGIN).map(|(start, _)| {
            let end = text[start..].find(END).map(|at| start + at + END.len());
            Self::parse(&text[start..end.unwrap_or(text.len())])
        });
        let all: anyhow::Result<Vec<Self>> = parts.collect();
        all.with_context(|| format!("read the certificates in {shown}"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let certificate = x509_cert::Certificate::from_pem(text)?;
        let contents = certificate.tbs_certificate();
        let ends = contents.validity().not_after.to_unix_duration().as_secs();
        let names = contents.get_extension::<SubjectAltName>()?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let signed_by = contents.get_extension::<AuthorityKeyIdentifier>()?;
        let signed_by = signed_by.and_then(|(_, key)| key.key_identifier);
        let key = contents.get_extension::<SubjectKeyIdentifier>()?;
        Ok(Self {
            ends: OffsetDateTime::from_unix_timestamp(i64::try_from(ends)?)?,
            hosts: names.iter().filter_map(host).collect(),
            issuer: signed_by.map(|key| hex(key.as_bytes())).unwrap_or_default(),
            key_id: key.map(|(_, key)| hex(key.0.as_bytes())).unwrap_or_default(),
            public_key: contents
                .subject_public_key_info()
                .subject_public_key
                .raw_bytes()
                .to_vec(),
        })
    }

    pub(crate) fn ends_text(&self) -> String {
        let format = format_description!("[year]-[month]-[day]");
        self.ends.format(format).unwrap_or_default()
    }
}

fn host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let address = <[u8; 4]>::try_from(bytes)
                .map(IpAddr::from)
                .or_else(|_longer| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
