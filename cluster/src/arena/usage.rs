//! What servers have used so far: processor time, bytes sent to disks, memory. From /proc, so on Linux only.
//! Invariant: figures are sums over the processes named; one that is gone counts nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) written_bytes: u64,
    pub(crate) resident_bytes: u64,
    /// What of it is mapped from no file; 0 where the kernel does not say.
    pub(crate) anonymous_bytes: u64,
}

impl Usage {
    pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            let of = Self::of_one(pid).unwrap_or_default();
            sum.cpu_s += of.cpu_s;
            sum.written_bytes += of.written_bytes;
            sum.resident_bytes += of.resident_bytes;
            sum.anonymous_bytes += of.anonymous_bytes;
        }
        sum
    }

    fn of_one(pid: u32) -> Option<Self> {
        let file = |name: &str| {
            let path: PathBuf = ["/proc", &pid.to_string(), name].iter().collect();
            std::fs::read_to_string(path).ok()
        };
        let status = file("status")?;
        Some(Self {
            cpu_s: cpu_s(&file("stat")?)?,
            written_bytes: field(&file("io")?, "write_bytes:")?,
            resident_bytes: field(&status, "VmRSS:")? * 1024,
            anonymous_bytes: field(&status, "RssAnon:").unwrap_or(0) * 1024,
        })
    }

    /// What was used since then; memory is what there is now.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_s: (self.cpu_s - before.cpu_s).max(0.0),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            resident_bytes: self.resident_bytes,
            anonymous_bytes: self.anonymous_bytes,
        }
    }
}

/// The fields behind the name, which may hold anything but ends with the last bracket.
#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of a process stay far below 2^52"
)]
fn cpu_s(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let per_second = rustix::param::clock_ticks_per_second();
    Some((ticks(11)? + ticks(12)?) as f64 / per_second as f64)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        let half = stat.replace("250 50", "0 150");
        assert!((cpu_s(stat).unwrap() - 2.0 * cpu_s(&half).unwrap()).abs() < 1e-9);
        assert_eq!(field("a: 1\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(field("a: 1", "VmRSS:"), None);
        let own = Usage::of([std::process::id()]);
        assert!(own.resident_bytes > 0, "{own:?}");
        assert!(own.anonymous_bytes < own.resident_bytes, "{own:?}");
    }
}
