//! The file format of bbolt, which etcd keeps its state and its snapshots in: pages of B+ trees,
//! one tree a bucket, in a root tree that names the buckets.
//!
//! A file is written in one go, front to back, once the lengths of everything in it are known
//! ([`Plan`]); a file that somebody else wrote is read with every offset checked ([`File`]). Numbers
//! are little-endian, as on every machine that etcd runs on. The format is bbolt's version 2,
//! <https://github.com/etcd-io/bbolt>.

mod plan;
mod read;
#[cfg(test)]
mod tests;

pub(crate) use plan::{Bucket, Item, Part, Plan};
pub(crate) use read::{Entry, File, ReadError};

/// The size of pages that are written here; what is read may have others.
const PAGE: usize = 4096;
/// A page's number, flags, count and overflow.
const PAGE_HEADER: usize = 16;
/// What stands in a page for each of its keys, of both kinds.
const ELEMENT: usize = 16;
/// A bucket's root and sequence.
const BUCKET: usize = 16;
/// The meta page's fields, its checksum included.
const META: usize = 64;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META_PAGE: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// The value of this key is a bucket.
const IS_BUCKET: u32 = 0x01;

/// What every file has first: two meta pages and the list of free pages.
const FIRST_DATA_PAGE: u64 = 3;

/// FNV-1a of 64 bits, the checksum of meta pages.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
