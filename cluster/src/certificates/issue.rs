//! The authority, and what it signs.
//! Invariant: a file appears only whole and synced, and replaces an older one in one step; the key of the authority never
//! replaces another, and signs only what its certificate vouches for.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use service::tls;
use tempfile::NamedTempFile;
use time::{Duration, OffsetDateTime};

use super::read::Certificate;
use super::{RENEW_AUTHORITY, Wanted};

pub(super) const AUTHORITY_KEY: &str = "ca.key";
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks of hosts differ a little.
const BACKDATED: Duration = Duration::hours(1);

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key_id: String,
    /// What it has signed is trusted no longer than this.
    ends: OffsetDateTime,
}

impl Authority {
    pub(super) fn load_or_create(folder: &Path) -> anyhow::Result<Self> {
        let (key, certificate) = (folder.join(AUTHORITY_KEY), folder.join(tls::AUTHORITY));
        // In this order: somebody else may be making them, the key first.
        let is_made = certificate.exists();
        match (key.exists(), is_made) {
            (true, _) => {}
            (false, false) => make_key(folder, &key).context("make the authority")?,
            (false, true) => bail!(
                "{} is not here, so nothing can be signed: do this where the authority was made",
                key.display()
            ),
        }
        // Read in any case, since somebody else may have been quicker to make it.
        let text = fs::read_to_string(&key).with_context(|| format!("read {}", key.display()))?;
        let pair = KeyPair::from_pem(&text).with_context(|| format!("use {}", key.display()))?;
        // The key may be an old one, whose certificate was lost. An issuer is found by its name and its key, so what it
        // has signed is good under a new certificate too, and under another key nothing would be.
        if !certificate.exists() {
            let made = authority_params().self_signed(&pair);
            let made = made.context("make the certificate of the authority")?;
            write_first(&certificate, &made.pem(), 0o644)?;
        }
        let vouched = Certificate::all_of(&certificate)?.into_iter();
        let own = vouched.filter(|vouched| vouched.public_key == pair.public_key_raw());
        // A renewed one may stand behind the one of before.
        let Some(own) = own.max_by_key(|own| own.ends) else {
            bail!(
                "{} is not the key of {}, so nobody would trust what it signs: put back the one that is, or remove both, \
                 and `menagerie certs` makes a new authority, and new certificates of all processes",
                key.display(),
                certificate.display()
            );
        };
        let issuer = Issuer::new(authority_params(), pair);
        Ok(Self {
            issuer,
            key_id: own.key_id,
            ends: own.ends,
        })
    }

    /// What its certificates name as the key that signed them.
    pub(super) fn fingerprint(&self) -> &str {
        &self.key_id
    }

    /// Writes a new key and certificate, which ends with that of the authority at the latest.
    pub(super) fn issue(&self, folder: &Path, wanted: &Wanted, days: u16) -> anyhow::Result<()> {
        if self.ends <= OffsetDateTime::now_utc() {
            bail!(
                "{} has ended, so nothing that is signed is trusted: {RENEW_AUTHORITY}",
                folder.join(tls::AUTHORITY).display()
            );
        }
        let pair = KeyPair::generate()?;
        let mut names = wanted.hosts.clone();
        names.push(wanted.own_name());
        let mut params = CertificateParams::new(names)
            .with_context(|| format!("write the hosts of {} into a certificate", wanted.name))?;
        params.distinguished_name = named(&wanted.name);
        (params.not_before, params.not_after) = span(i64::from(days));
        params.not_after = params.not_after.min(self.ends);
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
    write_first(key, &KeyPair::generate()?.serialize_pem(), 0o600)
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
    let whole = || -> io::Result<()> {
        beside(path, text, mode)?.persist(path)?;
        File::open(folder_of(path))?.sync_all()
    };
    whole().with_context(|| format!("write {}", path.display()))
}

/// The same where nothing is yet. Whoever has been quicker is right: others may have read that by now.
fn write_first(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let whole = || -> io::Result<()> {
        match beside(path, text, mode)?.persist_noclobber(path) {
            Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => {}
            named => drop(named?),
        }
        File::open(folder_of(path))?.sync_all()
    };
    whole().with_context(|| format!("write {}", path.display()))
}

/// The name must not appear before the content can survive a loss of power.
fn beside(path: &Path, text: &str, mode: u32) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(folder_of(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().expect("a file lies in a folder")
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

    #[test]
    fn whoever_makes_the_authority_at_once_has_the_same_one() {
        const MAKERS: usize = 4;
        for _ in 0..8 {
            let folder = tempfile::tempdir().unwrap();
            let begin = std::sync::Barrier::new(MAKERS);
            let load = || {
                begin.wait();
                Authority::load_or_create(folder.path()).unwrap().key_id
            };
            let made: Vec<String> = std::thread::scope(|scope| {
                let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(load)).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            let now = Authority::load_or_create(folder.path()).unwrap().key_id;
            assert!(made.iter().all(|key_id| *key_id == now), "{made:?} and {now}");
        }
    }

    #[test]
    fn a_key_signs_nothing_that_the_certificate_of_the_authority_does_not_vouch_for() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&folder, &other] {
            Authority::load_or_create(folder.path()).unwrap();
        }
        let own = folder.path().join(tls::AUTHORITY);
        let strange = fs::read_to_string(other.path().join(tls::AUTHORITY)).unwrap();
        let both = fs::read_to_string(&own).unwrap() + &strange;
        fs::write(&own, both).unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        fs::write(&own, strange).unwrap();
        let refused = Authority::load_or_create(folder.path()).err().unwrap();
        assert!(refused.to_string().contains("is not the key of"), "{refused:#}");
    }

    #[test]
    fn no_certificate_outlives_that_of_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        Authority::load_or_create(folder).unwrap();
        let wanted = Wanted {
            name: "n1".to_owned(),
            hosts: Vec::new(),
        };
        let pair = KeyPair::from_pem(&fs::read_to_string(folder.join(AUTHORITY_KEY)).unwrap()).unwrap();
        let issued = |authority_days, days| {
            let mut params = authority_params();
            (params.not_before, params.not_after) = span(authority_days);
            let ends = params.self_signed(&pair).unwrap().pem();
            fs::write(folder.join(tls::AUTHORITY), ends).unwrap();
            let authority = Authority::load_or_create(folder).unwrap();
            authority.issue(folder, &wanted, days)?;
            let issued = Certificate::of(&tls::file_of(folder, "n1")).unwrap();
            // A second may have passed between the two.
            anyhow::Ok((authority.ends - issued.ends + BACKDATED).whole_days())
        };
        assert_eq!(issued(100, 365).unwrap(), 0);
        assert_eq!(issued(100, 30).unwrap(), 70);
        let told = issued(0, 365).unwrap_err().to_string();
        assert!(told.contains("has ended"), "{told}");
    }
}
