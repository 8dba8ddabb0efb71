//! The names that a pod knows without asking anybody: its `/etc/hosts`.

use std::net::{IpAddr, Ipv4Addr};

/// The addresses of `name` (in lower case) from the pod itself; empty where it knows none.
pub(super) fn own_names(
    name: &str,
    hostname: &str,
    addresses: &[IpAddr],
    aliases: &[(IpAddr, Vec<String>)],
) -> Vec<IpAddr> {
    if name == "localhost" {
        return vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    }
    if name.eq_ignore_ascii_case(hostname) {
        return addresses.to_vec();
    }
    let named = |names: &Vec<String>| names.iter().any(|alias| alias.eq_ignore_ascii_case(name));
    aliases.iter().filter(|(_, names)| named(names)).map(|(address, _)| *address).collect()
}
