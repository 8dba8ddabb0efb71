//! The API's port: TCP for clients, and UDP under the same number for servers and nodes.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use tokio::net::TcpListener;

use crate::error::CommandError;
use crate::settings::Settings;

/// How often a free port is looked for that is free for both.
const ATTEMPTS: u32 = 20;

/// Listens for clients alone.
pub(crate) async fn tcp(settings: &Settings) -> Result<TcpListener, CommandError> {
    let address = SocketAddr::new(settings.bind_address, settings.port);
    TcpListener::bind(address).await.map_err(|error| cannot(address, "TCP", &error))
}

/// Listens for clients, on a port that is free for servers and nodes as well, who come over UDP.
pub(crate) async fn tcp_and_udp(settings: &Settings) -> Result<TcpListener, CommandError> {
    let mut attempts = if settings.port == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let listener = tcp(settings).await?;
        let address = listener
            .local_addr()
            .map_err(|error| CommandError::caused("the API's port is not known", error))?;
        // Whoever serves them binds it again.
        match UdpSocket::bind(address) {
            Ok(_) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(cannot(address, "UDP", &error)),
        }
    }
}

fn cannot(address: SocketAddr, protocol: &str, error: &std::io::Error) -> CommandError {
    let mend = match error.kind() {
        ErrorKind::AddrInUse => "choose another port with --https-listen-port",
        ErrorKind::PermissionDenied => "choose a port from 1024 on with --https-listen-port",
        _ => "choose another address with --bind-address",
    };
    CommandError::new(format!("cannot listen on {address} ({protocol}): {error}; {mend}"))
}
