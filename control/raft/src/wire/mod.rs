//! What members say to each other: postcard messages of our own, with a version.
//!
//! Every stream begins with an [`Open`] of the member that opened it and an [`Admit`] of the one
//! that answers; then come [`Message`]s, in the order that the stream's [`Kind`] says. Formats are
//! pinned by tests: a variant is only ever added at the end, and a field that must change becomes
//! a new variant that is sent only where the stream's version allows it.
//!
//! Nothing here does I/O. Conversions to and from openraft's types are in [`convert`].

pub(crate) mod convert;
mod error;
mod message;
#[cfg(test)]
mod pinned;

pub use error::{MembershipError, Refusal, WireError};
pub use message::{
    Admin, Admit, Answer, Append, Appended, Ask, Entry, Kind, LogPosition, MembershipRecord, Message, Open,
    SnapshotBegin, Standing, Transfer, Transferred, Vote, VoteAnswer, VoteRequest,
};

/// The newest version of the messages that this build speaks. It is that of its level: who knows
/// the commands of a level knows its messages.
pub const WIRE_NEWEST: u16 = 3;
/// The oldest version of the messages that this build speaks.
pub const WIRE_OLDEST: u16 = 1;

/// The most bytes that one encoded message may have. Appends are cut at a few MiB by the log's
/// reader; one entry is below [`sampan_store::MAX_TXN_BYTES`] and a little.
pub const MAX_MESSAGE: usize = 16 << 20;

/// The newest version that both this build and a peer whose connection agreed on transport
/// protocol `protocol` speak; `None` where there is none. Wire versions follow the protocol's
/// number: whoever speaks protocol `n` speaks wire version `n`.
pub fn version_for_protocol(protocol: u32) -> Option<u16> {
    let newest = u16::try_from(protocol).unwrap_or(u16::MAX).min(WIRE_NEWEST);
    (newest >= WIRE_OLDEST).then_some(newest)
}

/// The bytes of a message (or an opening), as they stand on the wire.
///
/// # Errors
/// [`WireError::Malformed`] where the message cannot be encoded or is larger than [`MAX_MESSAGE`].
pub fn encode<T: serde::Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_allocvec(message).map_err(|error| malformed(&error))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(WireError::Malformed {
            what: format!("a message of {} bytes is too large", bytes.len()),
        });
    }
    Ok(bytes)
}

/// The message that `bytes` hold, all of them.
///
/// # Errors
/// [`WireError::Malformed`] where they hold none, or something is left over.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|error| malformed(&error))?;
    if !rest.is_empty() {
        return Err(WireError::Malformed { what: format!("{} bytes are left over", rest.len()) });
    }
    Ok(message)
}

fn malformed(error: &postcard::Error) -> WireError {
    WireError::Malformed { what: format!("a message cannot be read or written: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_newest_common_one() {
        assert_eq!(version_for_protocol(0), None);
        assert_eq!(version_for_protocol(1), Some(1));
        assert_eq!(version_for_protocol(2), Some(2));
        assert_eq!(version_for_protocol(3), Some(3));
        assert_eq!(version_for_protocol(u32::MAX), Some(WIRE_NEWEST));
    }

    #[test]
    fn messages_commands_and_connections_have_one_number() {
        assert_eq!(WIRE_NEWEST, sampan_store::Level::NEWEST.number());
        assert_eq!(u32::from(WIRE_NEWEST), sampan_transport::PROTOCOL);
        assert_eq!(WIRE_OLDEST, sampan_store::Level::OLDEST.number());
        assert_eq!(u32::from(WIRE_OLDEST), sampan_transport::PROTOCOL_OLDEST);
    }

    #[test]
    fn bytes_that_are_left_over_are_refused() {
        let mut bytes = encode(&Admit::Accepted { version: 1 }).unwrap();
        assert!(decode::<Admit>(&bytes).is_ok());
        bytes.push(0);
        let error = decode::<Admit>(&bytes).unwrap_err();
        assert!(error.to_string().contains("left over"), "{error}");
        assert!(decode::<Admit>(&bytes[..1]).is_err());
    }
}
