//! What the user of a client may learn of the connection beneath it.

/// How things stand between a client and the API's servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiLink {
    /// Grows whenever the API can be reached anew after it could not be.
    pub generation: u64,
    /// The generation up to which answers may have come from a cache: what a client believes the
    /// servers to hold because of an answer from before that generation began may be wrong.
    pub cached_before: u64,
}
