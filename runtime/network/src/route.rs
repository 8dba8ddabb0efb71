//! The one route that makes a pod range local (`ip route add local RANGE dev lo`), by rtnetlink.
//!
//! The route carries a protocol number of its own, so that a later run knows it for ours.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::conflict::{self, KnownRoute};

/// Marks our routes (`ip route` prints the number; nobody else uses it).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(142);
/// The kernel's table of local addresses.
const TABLE_LOCAL: u32 = 255;

/// Makes `range` local, unless it is in use by somebody else. The error is for people.
pub async fn add_local(range: Ipv4Net) -> Result<(), String> {
    with_handle(async |handle| {
        let routes = list(&handle).await?;
        if let Some(other) = conflict::find(&routes, &range) {
            return Err(format!("the machine has a route to {} already", other.destination));
        }
        let message = local_route(&handle, range).await?;
        handle.route().add(message).replace().execute().await.map_err(|error| explain(&error))
    })
    .await
}

/// Takes the route back. Succeeds if it is not there.
pub async fn remove_local(range: Ipv4Net) -> Result<(), String> {
    with_handle(async |handle| {
        let ours = list(&handle).await?.into_iter().any(|route| route.ours && route.destination == range);
        if !ours {
            return Ok(());
        }
        let message = local_route(&handle, range).await?;
        handle.route().del(message).execute().await.map_err(|error| explain(&error))
    })
    .await
}

async fn with_handle<T>(work: impl AsyncFnOnce(Handle) -> Result<T, String>) -> Result<T, String> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| format!("rtnetlink is not usable: {error}"))?;
    let connection = tokio::spawn(connection);
    let result = work(handle).await;
    connection.abort();
    result
}

async fn local_route(handle: &Handle, range: Ipv4Net) -> Result<RouteMessage, String> {
    let loopback = handle
        .link()
        .get()
        .match_name("lo")
        .execute()
        .try_next()
        .await
        .map_err(|error| explain(&error))?
        .ok_or_else(|| "there is no loopback interface".to_owned())?;
    Ok(RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .output_interface(loopback.header.index)
        .table_id(TABLE_LOCAL)
        .protocol(PROTOCOL)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .build())
}

async fn list(handle: &Handle) -> Result<Vec<KnownRoute>, String> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = AddressFamily::Inet;
    let routes: Vec<RouteMessage> =
        handle.route().get(filter).execute().try_collect().await.map_err(|error| explain(&error))?;
    Ok(routes.iter().filter_map(known).collect())
}

fn known(message: &RouteMessage) -> Option<KnownRoute> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Some(KnownRoute {
        destination: Ipv4Net::new(address, message.header.destination_prefix_length).ok()?,
        local: message.header.kind == RouteType::Local,
        ours: message.header.protocol == PROTOCOL,
    })
}

fn explain(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    }
}
