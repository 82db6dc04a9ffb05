//! The authority, and what it signs.
//! Invariant: a file appears only whole and synced, and replaces an older one in one step.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use service::tls;
use time::{Duration, OffsetDateTime};

use super::Wanted;
use super::read::Certificate;

pub(super) const AUTHORITY_KEY: &str = "ca.key";
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks of hosts differ a little.
const BACKDATED: Duration = Duration::hours(1);

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key_id: String,
}

impl Authority {
    pub(super) fn load_or_create(folder: &Path) -> anyhow::Result<Self> {
        let (key, certificate) = (folder.join(AUTHORITY_KEY), folder.join(tls::AUTHORITY));
        match (key.exists(), certificate.exists()) {
            (true, _) => {}
            (false, false) => make_key(folder, &key).context("make the authority")?,
            (false, true) => bail!(
                "{} is not here, so nothing can be signed: do this where the authority was made",
                key.display()
            ),
        }
        let text = fs::read_to_string(&key).with_context(|| format!("read {}", key.display()))?;
        let pair = KeyPair::from_pem(&text).with_context(|| format!("use {}", key.display()))?;
        // The key may be an old one, whose certificate was lost. An issuer is found by its name and its key, so what it
        // has signed is good under a new certificate too, and under another key nothing would be.
        if !certificate.exists() {
            let made = authority_params().self_signed(&pair);
            let made = made.context("make the certificate of the authority")?;
            write(&certificate, &made.pem(), 0o644)?;
        }
        let issuer = Issuer::new(authority_params(), pair);
        let key_id = Certificate::of(&certificate)?.key_id;
        Ok(Self { issuer, key_id })
    }

    /// What its certificates name as the key that signed them.
    pub(super) fn fingerprint(&self) -> &str {
        &self.key_id
    }

    /// Writes a new key and certificate.
    pub(super) fn issue(&self, folder: &Path, wanted: &Wanted, days: u16) -> anyhow::Result<()> {
        let pair = KeyPair::generate()?;
        let mut names = wanted.hosts.clone();
        names.push(wanted.own_name());
        let mut params = CertificateParams::new(names)
            .with_context(|| format!("write the hosts of {} into a certificate", wanted.name))?;
        params.distinguished_name = named(&wanted.name);
        (params.not_before, params.not_after) = span(i64::from(days));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&pair, &self.issuer)?;
        let text = pair.serialize_pem() + &certificate.pem();
        write(&tls::file_of(folder, &wanted.name), &text, 0o600)
    }
}

fn make_key(folder: &Path, key: &Path) -> anyhow::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(folder)
        .with_context(|| format!("create {}", folder.display()))?;
    write(key, &KeyPair::generate()?.serialize_pem(), 0o600)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Menagerie authority");
    (params.not_before, params.not_after) = span(AUTHORITY_DAYS);
    // It signs processes and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn span(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BACKDATED, now + Duration::days(days))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    let whole = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        // The name must not appear before the content can survive a loss of power.
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    whole().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_whose_certificate_is_lost_keeps_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let load = || Authority::load_or_create(folder.path());
        let key = || fs::read(folder.path().join(AUTHORITY_KEY)).unwrap();
        let certificate = folder.path().join(tls::AUTHORITY);
        let (made, first) = (load().unwrap().fingerprint().to_owned(), key());
        fs::remove_file(&certificate).unwrap();
        assert_eq!(load().unwrap().fingerprint(), made);
        assert!(certificate.exists() && key() == first);
        // Nor is one replaced that cannot be read.
        fs::remove_file(&certificate).unwrap();
        fs::write(folder.path().join(AUTHORITY_KEY), "torn").unwrap();
        assert!(load().is_err());
        assert_eq!(key(), b"torn");
    }
}
