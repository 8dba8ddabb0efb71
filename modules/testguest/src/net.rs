//! Sockets. Preview 1 has none: there, everything here fails.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use crate::{Outcome, process};

/// Prints the addresses of a name.
pub fn resolve(name: &str) -> Outcome {
    for address in (name, 0).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}

/// Gives back what comes, a connection after the other.
pub fn tcp_echo(address: &str, connections: usize) -> Outcome {
    let listener = TcpListener::bind(address)?;
    process::print(&format!("listening on {}", listener.local_addr()?))?;
    let mut buffer = [0; 4096];
    for _ in 0..connections {
        let (mut stream, peer) = listener.accept()?;
        process::print(&format!("connection from {}", peer.ip()))?;
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                read => stream.write_all(&buffer[..read])?,
            }
        }
    }
    Ok(())
}

/// Sends a text and prints the answer.
pub fn tcp_send(address: &str, text: &str) -> Outcome {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    process::print(&answer)
}

/// Gives back each datagram.
pub fn udp_echo(address: &str, datagrams: usize) -> Outcome {
    let socket = UdpSocket::bind(address)?;
    process::print(&format!("listening on {}", socket.local_addr()?))?;
    let mut buffer = [0; 2048];
    for _ in 0..datagrams {
        let (read, peer) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..read], peer)?;
    }
    Ok(())
}

/// Sends a datagram and prints the answer.
pub fn udp_send(address: &str, text: &str) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(text.as_bytes(), address)?;
    let mut buffer = [0; 2048];
    let (read, _) = socket.recv_from(&mut buffer)?;
    process::print(&String::from_utf8_lossy(&buffer[..read]))
}
