//! `menagerie certs`: makes an authority and a certificate for every process, and renews what nears its end.
//! Invariant: what is still good stays, so that running it again harms nothing; keys are readable by their owner only.
//! Also the one place that decides as whom this process speaks.

mod issue;
mod read;

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use service::tls::{self, Tls};

use crate::context::Context;
use crate::launcher::plan;
use crate::output::Usage;
use issue::Authority;

pub(crate) use read::Certificate;

/// A certificate that ends sooner is renewed, and complained about.
pub(crate) const RENEW_BEFORE: time::Duration = time::Duration::days(30);

/// That of the authority is renewed by nobody else.
pub(crate) const RENEW_AUTHORITY: &str = "where ca.key is, remove ca.pem and run `menagerie certs`: it makes another of the \
     same key, under which all that was signed stays good. Copy it to every host, and to the programs that trust it.";

/// As whom the launcher shows its console.
pub(crate) const CONSOLE: &str = "console";

#[derive(Args)]
pub(crate) struct Certs {
    /// How many days new certificates hold
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
    /// A further host name or address that a process is reached by, such as shop1=shop.example.org. Later
    /// certificates of the process are for it too, without its being named again
    #[arg(long, value_name = "NAME=HOST")]
    also: Vec<String>,
    /// Drop the hosts of present certificates that neither the configuration nor --also names
    #[arg(long)]
    drop_hosts: bool,
    /// Make new ones also where the present ones are still good
    #[arg(long)]
    renew: bool,
}

/// Whom a command speaks as.
pub(crate) enum Identity {
    /// It needs no network.
    Nobody,
    /// Whoever sits at the keyboard.
    Client,
    /// It listens, so it must have a certificate.
    Process(String),
}

/// One certificate that there should be.
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) hosts: Vec<String>,
}

/// From here on this process speaks TLS, if the configuration says so.
pub(crate) fn speak(context: &Context, identity: &Identity) -> anyhow::Result<()> {
    let name = match identity {
        Identity::Nobody => return Ok(()),
        _ if !context.config.tls.enabled => return Ok(()),
        Identity::Client => tls::CLIENT,
        Identity::Process(name) => name,
    };
    let folder = context.config.tls_folder(&context.data);
    let tls =
        Tls::load(&folder, name, context.config.tls.client_certificates).context("load the certificates")?;
    if let Identity::Process(_) = identity {
        tls.check_own()?;
    }
    tls::install(tls)
}

/// The same for a command that finds out on its way that it has to ask somebody, perhaps again and again.
pub(crate) fn speak_as_client(context: &Context) -> anyhow::Result<()> {
    match tls::of_process() {
        Some(_) => Ok(()),
        None => speak(context, &Identity::Client),
    }
}

/// Makes what is missing, so that the first `up` needs no preparation; never renews.
pub(crate) fn make_missing(context: &Context) -> anyhow::Result<()> {
    let folder = context.config.tls_folder(&context.data);
    // Copied here without the authority's key: new ones are made elsewhere.
    let copied = folder.join(tls::AUTHORITY).exists() && !folder.join(issue::AUTHORITY_KEY).exists();
    if !context.config.tls.enabled || copied {
        return Ok(());
    }
    let mut missing = wanted(context, &[])?;
    missing.retain(|wanted| !tls::file_of(&folder, &wanted.name).exists());
    if missing.is_empty() && folder.join(tls::AUTHORITY).exists() {
        return Ok(());
    }
    let authority = Authority::load_or_create(&folder)?;
    for wanted in missing {
        authority.issue(&folder, &wanted, 365)?;
    }
    Ok(())
}

/// Every process of the configuration, the console, and one for those who call from outside.
pub(crate) fn wanted(context: &Context, also: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::new();
    for process in plan::processes(&context.config) {
        let listens = process.listens.iter().map(|listen| listen.address.clone());
        let addresses = listens.chain([process.address.clone()]);
        all.push(Wanted::new(process.name, addresses));
    }
    for node in &context.config.nodes {
        let peer = host_of(&node.peer).to_owned();
        if let Some(wanted) = all.iter_mut().find(|wanted| wanted.name == node.name()) {
            wanted.hosts.push(peer);
        }
    }
    all.push(Wanted::new(
        CONSOLE.to_owned(),
        [context.config.console.address.clone()],
    ));
    all.push(Wanted::new(tls::CLIENT.to_owned(), []));
    for also in also {
        let parts = also.split_once('=').filter(|(_, host)| !host.is_empty());
        let found = parts.and_then(|(name, host)| {
            let wanted = all.iter_mut().find(|wanted| wanted.name == name)?;
            wanted.hosts.push(host.to_owned());
            Some(())
        });
        found.ok_or_else(|| {
            Usage(format!(
                "--also {also} must be NAME=HOST, with the name of a process"
            ))
        })?;
    }
    for wanted in &mut all {
        wanted.hosts.sort();
        wanted.hosts.dedup();
    }
    Ok(all)
}

impl Wanted {
    /// The name by which it can always be called, and that no other process has.
    fn own_name(&self) -> String {
        format!("{}.menagerie", self.name)
    }

    /// The other hosts that its present certificate is for. That of another process, copied here, tells nothing of it.
    fn further_of(&self, present: &Certificate) -> Vec<String> {
        let own = self.own_name();
        if !present.hosts.contains(&own) {
            return Vec::new();
        }
        let further = present.hosts.iter();
        let further = further.filter(|host| **host != own && !self.hosts.contains(host));
        further.cloned().collect()
    }

    fn new(name: String, addresses: impl IntoIterator<Item = String>) -> Self {
        let hosts = addresses.into_iter().map(|address| host_of(&address).to_owned());
        // An address to listen on is none to be called by.
        let callable = |host: &String| {
            let unspecified = host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_unspecified());
            !host.is_empty() && !unspecified
        };
        let mut hosts: Vec<String> = hosts.filter(callable).collect();
        // Whoever is on the same machine may say so.
        hosts.extend(["127.0.0.1", "::1", "localhost"].map(str::to_owned));
        Self { name, hosts }
    }
}

fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Certs {
    pub(crate) fn run(self, context: Context) -> anyhow::Result<()> {
        let folder = context.config.tls_folder(&context.data);
        let authority = Authority::load_or_create(&folder)?;
        let mut rows = Vec::new();
        for mut wanted in wanted(&context, &self.also)? {
            let what = self.bring(&folder, &authority, &mut wanted)?;
            let certificate = Certificate::of(&tls::file_of(&folder, &wanted.name))?;
            rows.push((wanted, certificate, what));
        }
        if context.output.json {
            let certificates = rows.iter().map(|(wanted, certificate, what)| {
                serde_json::json!({
                    "name": wanted.name, "hosts": certificate.hosts, "ends": certificate.ends_text(), "action": what
                })
            });
            let certificates: Vec<_> = certificates.collect();
            let document = serde_json::json!({ "folder": folder, "certificates": certificates });
            return Ok(context.output.document(&document)?);
        }
        let rows = rows.into_iter().map(|(wanted, certificate, what)| {
            [
                wanted.name,
                certificate.ends_text(),
                what.to_owned(),
                certificate.hosts.join(" "),
            ]
        });
        context.output.table(["NAME", "ENDS", "", "REACHED AS"], rows)?;
        context.output.note(format!(
            "\nIn {}. Each host needs {} and the files of its own processes; {} stays here. Programs trust {} \
             (curl --cacert). Running processes take new files over by themselves.",
            folder.display(),
            tls::AUTHORITY,
            issue::AUTHORITY_KEY,
            tls::AUTHORITY,
        ));
        if !context.config.tls.enabled {
            context
                .output
                .note("TLS is not switched on: set enabled = true under [tls] in cluster.toml.");
        }
        Ok(())
    }

    /// What was done about one certificate.
    fn bring(
        &self,
        folder: &Path,
        authority: &Authority,
        wanted: &mut Wanted,
    ) -> anyhow::Result<&'static str> {
        let path = tls::file_of(folder, &wanted.name);
        let present = path.exists().then(|| Certificate::of(&path)).transpose()?;
        let further = present.as_ref().map(|old| wanted.further_of(old));
        let further = further.unwrap_or_default();
        let what = match present {
            None => "made",
            Some(_) if self.renew => "renewed",
            Some(old) if old.ends - time::OffsetDateTime::now_utc() < RENEW_BEFORE => {
                "renewed: it was near its end"
            }
            Some(old) if !wanted.hosts.iter().all(|host| old.hosts.contains(host)) => {
                "renewed: it lacked a host"
            }
            Some(old) if old.issuer != authority.fingerprint() => "renewed: another authority had made it",
            Some(_) if self.drop_hosts && !further.is_empty() => "renewed: it had hosts to drop",
            Some(_) => return Ok("kept"),
        };
        // Whoever renews it need not know by what others once gave with --also.
        if !self.drop_hosts {
            wanted.hosts.extend(further);
        }
        authority.issue(folder, wanted, self.days)?;
        Ok(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What there is to do for this process with these switches, and then the hosts of its certificate.
    fn brought(
        folder: &Path,
        switches: [bool; 2],
        name: &str,
        hosts: &[&str],
    ) -> (&'static str, Vec<String>) {
        let [renew, drop_hosts] = switches;
        let certs = Certs {
            days: 365,
            also: Vec::new(),
            drop_hosts,
            renew,
        };
        let mut wanted = Wanted {
            name: name.to_owned(),
            hosts: hosts.iter().copied().map(str::to_owned).collect(),
        };
        let authority = Authority::load_or_create(folder).unwrap();
        let what = certs.bring(folder, &authority, &mut wanted).unwrap();
        let mut hosts = Certificate::of(&tls::file_of(folder, name)).unwrap().hosts;
        hosts.sort();
        (what, hosts)
    }

    #[test]
    fn a_new_certificate_keeps_the_hosts_of_the_one_before_until_they_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let bring = |switches, name, hosts: &[&str]| brought(folder.path(), switches, name, hosts);
        let all = ["localhost", "shop.example.org", "shop1.menagerie"];
        let (kept, renew, dropped) = ([false, false], [true, false], [false, true]);
        assert_eq!(
            bring(kept, "shop1", &all[..2]),
            ("made", all.map(str::to_owned).to_vec())
        );
        // The one who renews it names fewer.
        let (what, hosts) = bring(renew, "shop1", &all[..1]);
        assert_eq!((what, hosts), ("renewed", all.map(str::to_owned).to_vec()));
        let (what, hosts) = bring(kept, "shop1", &["127.0.0.1", "localhost"]);
        assert_eq!(what, "renewed: it lacked a host");
        assert_eq!(hosts, [&["127.0.0.1"][..], &all].concat());
        // That of another process tells nothing of this one.
        let [other, own] = ["shop2", "shop1"].map(|name| tls::file_of(folder.path(), name));
        std::fs::copy(own, other).unwrap();
        let (_, hosts) = bring(renew, "shop2", &["localhost"]);
        assert_eq!(hosts, ["localhost", "shop2.menagerie"]);

        let (what, hosts) = bring(dropped, "shop1", &["localhost"]);
        assert_eq!(what, "renewed: it had hosts to drop");
        assert_eq!(hosts, ["localhost", "shop1.menagerie"]);
        assert_eq!(bring(dropped, "shop1", &["localhost"]).0, "kept");
    }
}
