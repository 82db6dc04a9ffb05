//! Looks before the leap: are the addresses of our processes free, and if not, who has them?
//! Invariant: binds and lets go again, so it never keeps a port from the process that needs it.

use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;

use super::plan::{Listen, Process};
use crate::context::Context;

/// One message for each address that cannot be had.
pub(crate) fn taken(context: &Context, processes: &[Process]) -> Vec<String> {
    let mut faults = Vec::new();
    // All are held until the last was tried, so that two of ours that want the same are found too.
    let mut held = Vec::new();
    for process in processes {
        for wanted in &process.listens {
            match listen(context, &process.name, wanted) {
                Ok(listener) => held.push(listener),
                Err(fault) => faults.push(fault),
            }
        }
    }
    faults
}

/// Binds one address, or says which setting of whom cannot be had and why.
pub(crate) fn listen(context: &Context, name: &str, wanted: &Listen) -> Result<TcpListener, String> {
    let address = &wanted.address;
    TcpListener::bind(address).map_err(|error| {
        let (place, key) = (context.place_of(&wanted.setting), wanted.key());
        let reason = reason(address, &error);
        format!("{place}: {key} = \"{address}\" of {name} {reason}")
    })
}

fn reason(address: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!("is taken by {}", holder(address)),
        ErrorKind::AddrNotAvailable => "is no address of this machine (on several machines, run `menagerie node --id N` on each: see `menagerie units`)".to_owned(),
        _ => format!("cannot be had: {error}"),
    }
}

fn holder(address: &str) -> String {
    let port = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next())
        .map(|found| found.port());
    port.and_then(listener_of)
        .unwrap_or_else(|| "another process".to_owned())
}

/// Linux tells which socket listens on a port, and which process holds that socket; elsewhere there is no answer.
fn listener_of(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .find_map(|table| inode_of(&table, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name();
        let pid = pid.to_string_lossy();
        // Beside the numbers there are other entries, one of them (`self`) a second name of this process.
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path()).is_ok_and(|link| link == Path::new(&wanted))
        });
        if holds && pid == std::process::id().to_string() {
            return Some("another line of the same file".to_owned());
        }
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", name.trim()));
        }
    }
    None
}

/// The inode of the socket that listens (state 0A) on the port, from the kernel's table.
fn inode_of(table: &str, port: u16) -> Option<String> {
    let wanted = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == "0A";
        listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

/// The message for an address that a process of ours cannot bind.
pub(crate) fn explain(address: &str, error: &std::io::Error) -> String {
    format!("the address {address} {}", reason(address, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_listening_socket_in_the_kernel_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                      0: 0100007F:1B59 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 111 1\n\
                      1: 0100007F:1B59 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1\n";
        assert_eq!(inode_of(table, 7001).as_deref(), Some("222"));
        assert_eq!(inode_of(table, 7002), None);
    }
}
