//! Streams between machines: QUIC with mutual TLS, TLS over TCP where UDP is blocked, identity by key.
//!
//! An [`Endpoint`] owns the UDP socket, dials ([`Endpoint::connect`]) and accepts ([`Endpoint::accept`]).
//! A [`Connection`] begins with the hello of both sides ([`PROTOCOL`], build, clock), is judged, and
//! then carries any number of [`Stream`]s, each opened for one [`Purpose`]. Who is at the other end
//! ([`PeerIdentity`]) follows from the certificate alone: never from an address or a DNS name. Whether
//! that peer is still welcome (a removed member, a name taken by another key) is for the caller to
//! say, with [`Connection::close`].

mod certificate;
mod chunk;
mod clock;
mod connection;
mod dial;
mod endpoint;
mod error;
mod floor;
pub mod frame;
mod hello;
mod identity;
mod incoming;
mod mux;
mod purpose;
mod quic;
mod stream;
mod tls;
mod verify;

pub use certificate::CertificateFault;
pub use clock::{
    BUILT, Clock, Moment, SKEW_TOLERANCE, Skew, SystemClock, Testimony, Validity, Witnesses, validity,
};
pub use connection::Connection;
pub use dial::Target;
pub use endpoint::{Endpoint, EndpointConfig};
pub use error::{RefusalCode, TransportError};
pub use floor::FloorFile;
pub use hello::{PROTOCOL, PROTOCOL_OLDEST, ProtocolRange};
pub use identity::{Credentials, Identity, KeyId, PeerIdentity, Role};
pub use purpose::{Purpose, UnknownPurpose};
pub use stream::{ReadHalf, Stream, WriteHalf};
pub use tls::{ALPN, server_tls_config, speaks_sampan};
