//! Looks before the leap: are the addresses of our processes free, and if not, who has them?
//! Invariant: binds and lets go again, so it never keeps a port from the process that needs it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;

use service::config::Config;

/// One message for each address that cannot be had.
pub(crate) fn taken(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    for node in &config.nodes {
        for (what, address) in [("client", &node.client), ("peer", &node.peer)] {
            if let Err(error) = TcpListener::bind(address) {
                let reason = if error.kind() == ErrorKind::AddrInUse {
                    format!("is taken by {}", holder(address))
                } else {
                    format!("cannot be had: {error}")
                };
                faults.push(format!(
                    "the {what} address {address} of {} {reason}",
                    node.name()
                ));
            }
        }
    }
    for (name, address) in config.payment.instances() {
        if let Err(error) = TcpListener::bind(address) {
            faults.push(format!("the address {address} of {name} cannot be had: {error}"));
        }
    }
    faults
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

/// A line of the message for an address that a node cannot bind.
pub(crate) fn explain(address: &str, error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::AddrInUse {
        return format!("the address {address} is taken by {}", holder(address));
    }
    let known: Result<SocketAddr, _> = address.parse();
    let hint = if known.is_err() {
        " (an address is written host:port)"
    } else {
        ""
    };
    format!("the address {address} cannot be had: {error}{hint}")
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

    #[test]
    fn names_the_process_that_has_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let error = TcpListener::bind(&address).unwrap_err();
        let text = explain(&address, &error);
        if cfg!(target_os = "linux") {
            assert!(
                text.contains(&format!("process {}", std::process::id())),
                "{text}"
            );
        }
    }
}
