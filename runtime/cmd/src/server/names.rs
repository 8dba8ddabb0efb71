//! Under which names and addresses this server is reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sampan_apiserver::pki::ServingNames;

use crate::settings::Settings;

/// The address that clients on this machine use.
pub(crate) fn reached(settings: &Settings) -> IpAddr {
    if settings.bind_address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { settings.bind_address }
}

/// The address that others use.
pub(crate) fn advertised(settings: &Settings) -> IpAddr {
    if let Some(address) = settings.advertise_address {
        return address;
    }
    if settings.bind_address.is_unspecified() { settings.node.address() } else { settings.bind_address }
}

/// The API's URL for clients on this machine.
pub(crate) fn url(settings: &Settings, port: u16) -> String {
    format!("https://{}", SocketAddr::new(reached(settings), port))
}

/// Where other machines reach this server, best first: `host:port` each.
pub(crate) fn for_machines(settings: &Settings, port: u16) -> Vec<String> {
    vec![SocketAddr::new(advertised(settings), port).to_string()]
}

/// What the API's certificate is good for.
pub(crate) fn serving(settings: &Settings) -> ServingNames {
    let mut names = vec![settings.node.name.clone()];
    let mut addresses = vec![advertised(settings), reached(settings), settings.node.address()];
    // The first address of the service range is the API's own service.
    addresses.extend(settings.service_cidr.hosts().next().map(IpAddr::V4));
    for given in &settings.tls_san {
        match given.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(given.clone()),
        }
    }
    ServingNames::new(names, addresses)
}
