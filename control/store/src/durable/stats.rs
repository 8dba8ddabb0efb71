//! What a durable store says of itself, for metrics.

/// Figures of a durable store at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many keys exist, volatile ones included.
    pub keys: u64,
    /// The newest revision.
    pub revision: u64,
    /// The oldest revision that can be read.
    pub compacted: u64,
    /// Superseded records that are kept as history, or wait to be swept.
    pub history: u64,
    /// Bytes of records in memory that are not in the tables yet.
    pub overlay_bytes: u64,
    /// Bytes of records of volatile keyspaces.
    pub volatile_bytes: u64,
    /// The revision at which the group last gave up the volatile keyspaces; 0 where it did not
    /// since this store was opened.
    pub volatile_lost: u64,
    /// Bytes of log that a restart would read.
    pub log_bytes: u64,
    /// The tables' file.
    pub tables_bytes: u64,
    /// Bytes written to the log since the store was opened.
    pub log_written: u64,
    /// Bytes written to the tables since the store was opened.
    pub tables_written: u64,
    /// How often log and tables were made durable since the store was opened.
    pub fsyncs: u64,
    /// Checkpoints since the store was opened.
    pub checkpoints: u64,
    /// Whether writes are refused because the device is full.
    pub out_of_space: bool,
    /// Open watches.
    pub watchers: u64,
}
