//! A network of namespaces joined by a bridge, one host for each server, whose links can be cut. Root on Linux only.
//! Invariant: names carry the number of this process, and everything made is removed when it is dropped.
//! It must not know what runs on its hosts.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::{elsewhere, within_time};

pub(crate) struct Network {
    /// What all names begin with; short, since the name of a link has at most 15 bytes.
    tag: String,
    /// The third number of all addresses.
    subnet: u32,
    hosts: usize,
}

impl Network {
    /// An error is why there can be none here. Only making one shows it, since root may not have the right to; what was
    /// made by then is removed again.
    pub(crate) fn open(hosts: usize) -> anyhow::Result<Self> {
        if !cfg!(target_os = "linux") {
            bail!("network namespaces need Linux");
        }
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces need root");
        }
        let id = std::process::id();
        let network = Self {
            tag: format!("m{}", id % 1_000_000),
            subnet: id % 250,
            hosts,
        };
        let bridge = network.bridge();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("link set {bridge} up"))?;
        ip(&format!(
            "addr add 10.213.{}.254/24 dev {}",
            network.subnet,
            network.bridge()
        ))?;
        for host in 0..hosts {
            let (space, link) = (network.namespace(host), network.link(host));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {link} master {} up", network.bridge()))?;
            ip(&format!(
                "-n {space} addr add {}/24 dev eth0",
                network.address(host)
            ))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(network)
    }

    fn bridge(&self) -> String {
        format!("{}a", self.tag)
    }

    fn link(&self, host: usize) -> String {
        format!("{}v{host}", self.tag)
    }

    pub(crate) fn namespace(&self, host: usize) -> String {
        format!("{}-{host}", self.tag)
    }

    pub(crate) fn address(&self, host: usize) -> String {
        format!("10.213.{}.{}", self.subnet, host + 1)
    }

    /// Changing it and asking it take programs of the system, which another thread waits for.
    pub(crate) async fn elsewhere<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let network = Arc::clone(self);
        elsewhere(move || work(&network)).await
    }

    /// Nothing reaches this host, and nothing it says reaches anybody.
    pub(crate) fn cut(&self, host: usize) -> anyhow::Result<()> {
        ip(&format!("link set {} down", self.link(host)))
    }

    /// What `from` says no longer reaches `to`; the other way all is well.
    pub(crate) fn deafen(&self, from: usize, to: usize) -> anyhow::Result<()> {
        let (space, to) = (self.namespace(from), self.address(to));
        ip(&format!(
            "-n {space} neigh replace {to} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"
        ))
    }

    /// What reaches this host passes through a pipe of so many kilobits a second, which holds what waits for so
    /// many milliseconds and drops the rest.
    pub(crate) fn narrow(&self, host: usize, kilobits: u32, wait_ms: u32) -> anyhow::Result<()> {
        let link = self.link(host);
        let words =
            format!("qdisc replace dev {link} root tbf rate {kilobits}kbit burst 3kb latency {wait_ms}ms");
        run("tc", &words.split_whitespace().collect::<Vec<_>>())
    }

    /// What the pipe has held up and dropped so far.
    pub(crate) fn narrowed(&self, host: usize) -> anyhow::Result<(u64, u64)> {
        let output = within_time("tc")
            .args(["-s", "qdisc", "show", "dev", &self.link(host)])
            .output();
        let text = String::from_utf8_lossy(&output.context("run tc")?.stdout).into_owned();
        let number = |name: &str| -> Option<u64> {
            let digits: String = text
                .split_once(name)?
                .1
                .trim_start()
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            digits.parse().ok()
        };
        Ok((number("overlimits").unwrap_or(0), number("dropped").unwrap_or(0)))
    }

    /// Whether one host can open a connection to a port of another.
    pub(crate) fn reaches(&self, from: usize, to: usize, port: u16) -> bool {
        let target = format!("exec 3<>/dev/tcp/{}/{port}", self.address(to));
        let space = self.namespace(from);
        run(
            "ip",
            &["netns", "exec", &space, "timeout", "0.4", "bash", "-c", &target],
        )
        .is_ok()
    }

    /// All links carry again, both ways.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        for host in 0..self.hosts {
            let (link, space) = (self.link(host), self.namespace(host));
            ip(&format!("link set {link} master {} up", self.bridge()))?;
            ip(&format!("-n {space} neigh flush dev eth0 nud permanent"))?;
            // There may be none.
            let _ = run("tc", &["qdisc", "del", "dev", &link, "root"]);
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was never made cannot be removed; the rest goes all the same.
        for host in 0..self.hosts {
            let _ = ip(&format!("link del {}", self.link(host)));
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &words)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = within_time(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}, {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
