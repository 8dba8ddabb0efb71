//! The address by which other machines reach this node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// The address that the kernel would use towards the outside. Nothing is sent. A machine
/// without a way out is reached by its loopback address only.
pub fn primary() -> IpAddr {
    // Addresses that exist nowhere (RFC 5737): the kernel's choice of source is all that matters.
    let outside = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(outside)?;
        Ok(socket.local_addr()?.ip())
    };
    match probe() {
        Ok(address) if !address.is_unspecified() => address,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_node_has_an_address_of_its_own() {
        let address = super::primary();
        assert!(!address.is_unspecified());
        assert!(std::net::UdpSocket::bind((address, 0)).is_ok(), "{address} is not ours");
    }
}
