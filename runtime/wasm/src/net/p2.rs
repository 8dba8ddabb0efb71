//! WASI 0.2 sockets with the pod's addresses: single functions of the stock implementation are
//! shadowed, so that older 0.2 versions of the interfaces get them too.

use std::net::{IpAddr, SocketAddr};
use std::vec;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::{
    HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagramStream, OutgoingDatagram,
    OutgoingDatagramStream,
};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketError, TcpSocket, UdpSocket, subscribe};
use wasmtime_wasi::sockets::WasiSocketsView as _;

use super::{PodNet, ResolveError};
use crate::guest::Guest;

/// The version that the stock linker defines.
const VERSION: &str = "0.2.12";

/// What a guest's function gets: its error code, or a trap.
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

fn bind_target(net: &PodNet, wanted: IpSocketAddress) -> Result<IpSocketAddress, SocketError> {
    let target = net.bind_address(SocketAddr::from(wanted));
    Ok(target.ok_or(ErrorCode::AddressNotBindable)?.into())
}

fn tcp(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Arguments = (Resource<TcpSocket>, Resource<Network>, IpSocketAddress);
    let mut tcp = linker.instance(&format!("wasi:sockets/tcp@{VERSION}"))?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store: StoreContextMut<'_, Guest>, (this, network, address): Arguments| {
            Box::new(async move {
                let guest = store.data_mut();
                match bind_target(guest.net(), address) {
                    Ok(target) => {
                        lower(HostTcpSocket::start_bind(&mut guest.sockets(), this, network, target).await)
                    }
                    Err(error) => lower(Err(error)),
                }
            })
        },
    )?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-connect",
        |mut store: StoreContextMut<'_, Guest>, (this, network, address): Arguments| {
            Box::new(async move {
                let guest = store.data_mut();
                let remote = guest.net().connect_address(address.into());
                let source = guest.net().source_address(remote);
                let mut sockets = guest.sockets();
                if let Some(source) = source {
                    let (socket, net) =
                        (Resource::new_borrow(this.rep()), Resource::new_borrow(network.rep()));
                    // A socket that the guest has bound keeps its address.
                    if HostTcpSocket::start_bind(&mut sockets, socket, net, source.into()).await.is_ok() {
                        let _ = HostTcpSocket::finish_bind(&mut sockets, Resource::new_borrow(this.rep()));
                    }
                }
                lower(sockets.start_connect(this, network, remote.into()))
            })
        },
    )
}

fn udp(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    type Streams = (Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>);
    let mut udp = linker.instance(&format!("wasi:sockets/udp@{VERSION}"))?;
    udp.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store: StoreContextMut<'_, Guest>,
         (this, network, address): (Resource<UdpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let guest = store.data_mut();
                match bind_target(guest.net(), address) {
                    Ok(target) => {
                        lower(HostUdpSocket::start_bind(&mut guest.sockets(), this, network, target).await)
                    }
                    Err(error) => lower(Err(error)),
                }
            })
        },
    )?;
    udp.func_wrap_async(
        "[method]udp-socket.stream",
        |mut store: StoreContextMut<'_, Guest>,
         (this, address): (Resource<UdpSocket>, Option<IpSocketAddress>)| {
            Box::new(async move {
                let guest = store.data_mut();
                let remote = address.map(|address| guest.net().connect_address(address.into()).into());
                let streams: Result<Streams, SocketError> = guest.sockets().stream(this, remote).await;
                lower(streams)
            })
        },
    )?;
    udp.func_wrap(
        "[method]outgoing-datagram-stream.send",
        |mut store: StoreContextMut<'_, Guest>,
         (this, mut datagrams): (Resource<OutgoingDatagramStream>, Vec<OutgoingDatagram>)| {
            let guest = store.data_mut();
            for remote in datagrams.iter_mut().filter_map(|datagram| datagram.remote_address.as_mut()) {
                *remote = guest.net().connect_address((*remote).into()).into();
            }
            lower(HostOutgoingDatagramStream::send(&mut guest.sockets(), this, datagrams))
        },
    )
}

/// A name on its way to addresses: the resource behind `resolve-address-stream`.
pub(super) struct Resolution(State);

enum State {
    Asked(JoinHandle<Result<Vec<IpAddr>, ResolveError>>),
    Answered(Result<vec::IntoIter<IpAddr>, ErrorCode>),
}

#[async_trait::async_trait]
impl Pollable for Resolution {
    async fn ready(&mut self) {
        if let State::Asked(answer) = &mut self.0 {
            let answer = answer.await.unwrap_or(Err(ResolveError::Temporary));
            self.0 = State::Answered(answer.map(Vec::into_iter).map_err(code));
        }
    }
}

fn code(error: ResolveError) -> ErrorCode {
    match error {
        ResolveError::Invalid => ErrorCode::InvalidArgument,
        ResolveError::Unresolvable => ErrorCode::NameUnresolvable,
        ResolveError::Temporary => ErrorCode::TemporaryResolverFailure,
    }
}

fn next(resolution: &mut Resolution) -> Result<Option<IpAddress>, ErrorCode> {
    if resolution.ready().now_or_never().is_none() {
        return Err(ErrorCode::WouldBlock);
    }
    match &mut resolution.0 {
        State::Answered(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
        State::Answered(Err(code)) => Err(*code),
        State::Asked(_) => Err(ErrorCode::WouldBlock),
    }
}

fn names(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut names = linker.instance(&format!("wasi:sockets/ip-name-lookup@{VERSION}"))?;
    names.resource("resolve-address-stream", ResourceType::host::<Resolution>(), |mut store, rep| {
        store.data_mut().table().delete(Resource::<Resolution>::new_own(rep))?;
        Ok(())
    })?;
    names.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, Guest>, (network, name): (Resource<Network>, String)| {
            let guest = store.data_mut();
            guest.table().get(&network)?;
            let net = guest.net().clone();
            let answer = tokio::spawn(async move { net.resolve(&name).await });
            let stream: Resource<Resolution> = guest.table().push(Resolution(State::Asked(answer)))?;
            Ok((Ok::<_, ErrorCode>(stream),))
        },
    )?;
    names.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, Guest>, (this,): (Resource<Resolution>,)| {
            Ok((next(store.data_mut().table().get_mut(&this)?),))
        },
    )?;
    names.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, Guest>, (this,): (Resource<Resolution>,)| {
            let pollable: Resource<DynPollable> = subscribe(store.data_mut().table(), this)?;
            Ok((pollable,))
        },
    )
}
