//! Behaviour of the transport over loopback: both kinds of connection, everything that may be refused,
//! clocks, moves, restarts.

mod clocks;
mod connecting;
mod refusals;
mod streams;
mod support;
