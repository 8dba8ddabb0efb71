//! WASI 0.3 sockets with the pod's addresses; see [`super::p2`].

use std::net::SocketAddr;

use futures::FutureExt as _;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket, HostUdpSocketWithStore, IpAddress,
    IpSocketAddress,
};
use wasmtime_wasi::p3::sockets::SocketError;
use wasmtime_wasi::sockets::{TcpSocket, UdpSocket, WasiSockets, WasiSocketsView as _};

use super::ResolveError;
use crate::guest::Guest;

/// The version that the stock linker defines.
const VERSION: &str = "0.3.0";

type Lowered<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

fn lower<T>(result: Result<T, SocketError>) -> Lowered<T> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    tcp(linker)?;
    udp(linker)?;
    names(linker)
}

fn tcp(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Arguments = (Resource<TcpSocket>, IpSocketAddress);
    let mut sockets = linker.instance(&format!("wasi:sockets/types@{VERSION}"))?;
    sockets.func_wrap_async(
        "[method]tcp-socket.bind",
        |mut store: StoreContextMut<'_, Guest>, (this, address): Arguments| {
            Box::new(async move {
                let guest = store.data_mut();
                match guest.net().bind_address(address.into()) {
                    Some(target) => {
                        lower(HostTcpSocket::bind(&mut guest.sockets(), this, target.into()).await)
                    }
                    None => Ok((Err(ErrorCode::AddressNotBindable),)),
                }
            })
        },
    )?;
    sockets.func_wrap_concurrent(
        "[method]tcp-socket.connect",
        |accessor: &Accessor<Guest>, (this, address): Arguments| {
            Box::pin(async move {
                let remote = accessor.with(|mut access| {
                    let guest = access.get();
                    let remote = guest.net().connect_address(address.into());
                    if let Some(source) = guest.net().source_address(remote) {
                        // A socket that the guest has bound keeps its address. The check of
                        // addresses never waits, so neither does the bind.
                        let socket = Resource::<TcpSocket>::new_borrow(this.rep());
                        let mut sockets = guest.sockets();
                        let _ = HostTcpSocket::bind(&mut sockets, socket, source.into()).now_or_never();
                    }
                    remote
                });
                let accessor = accessor.with_getter::<WasiSockets>(Guest::sockets);
                lower(WasiSockets::connect(&accessor, this, remote.into()).await)
            })
        },
    )
}

/// Binds a datagram socket that the guest has not bound to the pod's address.
fn claim(guest: &mut Guest, socket: &Resource<UdpSocket>, remote: SocketAddr) {
    if let Some(source) = guest.net().source_address(remote) {
        let socket = Resource::<UdpSocket>::new_borrow(socket.rep());
        let _ = HostUdpSocket::bind(&mut guest.sockets(), socket, source.into()).now_or_never();
    }
}

fn udp(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Arguments = (Resource<UdpSocket>, IpSocketAddress);
    let mut sockets = linker.instance(&format!("wasi:sockets/types@{VERSION}"))?;
    sockets.func_wrap_async(
        "[method]udp-socket.bind",
        |mut store: StoreContextMut<'_, Guest>, (this, address): Arguments| {
            Box::new(async move {
                let guest = store.data_mut();
                match guest.net().bind_address(address.into()) {
                    Some(target) => {
                        lower(HostUdpSocket::bind(&mut guest.sockets(), this, target.into()).await)
                    }
                    None => Ok((Err(ErrorCode::AddressNotBindable),)),
                }
            })
        },
    )?;
    sockets.func_wrap_async(
        "[method]udp-socket.connect",
        |mut store: StoreContextMut<'_, Guest>, (this, address): Arguments| {
            Box::new(async move {
                let guest = store.data_mut();
                let remote = guest.net().connect_address(address.into());
                claim(guest, &this, remote);
                lower(guest.sockets().connect(this, remote.into()).await)
            })
        },
    )?;
    sockets.func_wrap_concurrent(
        "[method]udp-socket.send",
        |accessor: &Accessor<Guest>,
         (this, data, address): (Resource<UdpSocket>, Vec<u8>, Option<IpSocketAddress>)| {
            Box::pin(async move {
                let remote = accessor.with(|mut access| {
                    let guest = access.get();
                    let remote = address.map(|address| guest.net().connect_address(address.into()));
                    if let Some(remote) = remote {
                        claim(guest, &this, remote);
                    }
                    remote.map(IpSocketAddress::from)
                });
                let accessor = accessor.with_getter::<WasiSockets>(Guest::sockets);
                lower(
                    <WasiSockets as HostUdpSocketWithStore<Guest>>::send(&accessor, this, data, remote).await,
                )
            })
        },
    )
}

fn names(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut names = linker.instance(&format!("wasi:sockets/ip-name-lookup@{VERSION}"))?;
    names.func_wrap_concurrent("resolve-addresses", |accessor: &Accessor<Guest>, (name,): (String,)| {
        Box::pin(async move {
            let net = accessor.with(|mut access| access.get().net().clone());
            let answer = net.resolve(&name).await;
            let addresses: Result<Vec<IpAddress>, ip_name_lookup::ErrorCode> =
                answer.map(|found| found.into_iter().map(IpAddress::from).collect()).map_err(code);
            Ok((addresses,))
        })
    })
}

fn code(error: ResolveError) -> ip_name_lookup::ErrorCode {
    match error {
        ResolveError::Invalid => ip_name_lookup::ErrorCode::InvalidArgument,
        ResolveError::Unresolvable => ip_name_lookup::ErrorCode::NameUnresolvable,
        ResolveError::Temporary => ip_name_lookup::ErrorCode::TemporaryResolverFailure,
    }
}
