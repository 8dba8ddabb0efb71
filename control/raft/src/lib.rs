//! The store by consensus: openraft on the write-ahead log and the state machine, membership, snapshots, reads.
