//! Streams between machines: QUIC with mutual TLS, TLS over TCP where UDP is blocked, identity by key.
