//! What processes use of the machine, as the kernel counts it.

fn of(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

pub(crate) fn resident_mib(pid: u32) -> u64 {
    let status = of(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib / 1024
}

/// Hundredths of a second that it has computed.
pub(crate) fn computed(pid: u32) -> u64 {
    let stat = of(pid, "stat");
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}
