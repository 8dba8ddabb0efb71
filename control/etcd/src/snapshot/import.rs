//! A bbolt file as a snapshot of the store.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use prost::Message;
use sampan_store::{KeyValue, LeaseId, Revision, SnapshotWriter, StorageError};
use sha2::{Digest, Sha256};

use super::{BLOCK, DIGEST, FINISHED_COMPACTION, Lease};
use crate::bolt::{Entry, File, ReadError};
use crate::proto::mvccpb;

/// How a deleted key's position ends.
const TOMBSTONE: u8 = b't';

/// Why a snapshot of etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdSnapshotError {
    /// It is no such file.
    #[error("it is not a snapshot of etcd")]
    Foreign,
    /// There is no digest at its end: it is the database of a member, which may have been running.
    #[error("it has no checksum at its end; save it with 'etcdctl snapshot save'")]
    NoChecksum,
    /// It is not as it was saved.
    #[error("it is damaged: its checksum is another")]
    Checksum,
    /// Something in it makes no sense.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It cannot be read, or the snapshot made of it not be written.
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
    /// The store takes something of it not.
    #[error(transparent)]
    Store(#[from] StorageError),
}

impl From<ReadError> for EtcdSnapshotError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Foreign => Self::Foreign,
            ReadError::Damaged(what) => Self::Damaged(what.to_owned()),
            ReadError::Io(error) => Self::Io(error),
        }
    }
}

/// A snapshot that `etcdctl snapshot save` saved, of us or of an etcd; checked, and open. Holds its
/// keys, not the values. Everything here blocks.
pub struct EtcdSnapshot<F> {
    file: File<F>,
    /// The newest change of each key that is there.
    keys: BTreeMap<Bytes, Place>,
    leases: Vec<Lease>,
    revision: u64,
    digest: [u8; DIGEST],
}

struct Place {
    entry: Entry,
    sub: u64,
}

impl<F> std::fmt::Debug for EtcdSnapshot<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdSnapshot")
            .field("keys", &self.keys.len())
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl<F: Read + Seek> EtcdSnapshot<F> {
    /// Whether a file begins as one: what is not a bbolt database is of no concern here.
    ///
    /// # Errors
    /// The file system's.
    pub fn is_one(file: &mut F) -> std::io::Result<bool> {
        file.rewind()?;
        let is = matches!(File::open(&mut *file), Ok(_) | Err(ReadError::Damaged(_)));
        file.rewind()?;
        Ok(is)
    }

    /// Checks a snapshot's digest and reads its keys.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(mut file: F) -> Result<Self, EtcdSnapshotError> {
        let digest = check_digest(&mut file)?;
        let mut file = File::open(file)?;
        let mut keys = BTreeMap::new();
        let mut newest = 0;
        for entry in file.bucket("key")? {
            let Some((revision, sub, deleted)) = read_position(&entry.key) else {
                return Err(EtcdSnapshotError::Damaged("a revision is none".to_owned()));
            };
            newest = newest.max(revision);
            // Of values only the keys within are kept: the newest change comes last.
            let kv = decode(&file.value(&entry)?)?;
            if deleted {
                keys.remove(&kv.key);
            } else {
                keys.insert(kv.key, Place { entry, sub });
            }
        }
        let mut leases = Vec::new();
        for entry in file.bucket("lease")? {
            let lease = Lease::decode(&*file.value(&entry)?);
            leases.push(lease.map_err(|_| EtcdSnapshotError::Damaged("a lease is none".to_owned()))?);
        }
        for entry in file.bucket("meta")? {
            if entry.key == FINISHED_COMPACTION.as_bytes() {
                let value = file.value(&entry)?;
                newest = newest.max(read_position(&value).map_or(0, |(revision, ..)| revision));
            }
        }
        Ok(Self { file, keys, leases, revision: newest, digest })
    }

    /// The revision that it is of.
    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// How many keys it has.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Its SHA-256 in hexadecimal digits.
    pub fn digest(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes it as a snapshot of the store.
    ///
    /// # Errors
    /// Why it cannot be used, or written.
    pub fn convert(
        mut self,
        mut sink: impl FnMut(Vec<u8>) -> std::io::Result<()>,
    ) -> Result<(), EtcdSnapshotError> {
        let mut rows = std::mem::take(&mut self.keys);
        let mut granted = self.grants(&rows);
        let mut writer = SnapshotWriter::new(self.revision());
        // Both in the order of their keys.
        loop {
            let next_is_grant = match (granted.first_key_value(), rows.first_key_value()) {
                (Some((grant, _)), Some((key, _))) => grant < key,
                (grant, _) => grant.is_some(),
            };
            let row = if next_is_grant {
                granted.pop_first().map(|(_, row)| row)
            } else {
                rows.pop_first().map(|(_, place)| self.row(&place)).transpose()?
            };
            let Some((kv, sub)) = row else { break };
            if let Some(bytes) = writer.push(&kv, sub)? {
                sink(bytes)?;
            }
        }
        Ok(sink(writer.finish()?)?)
    }

    /// The keys that stand for leases, where the file has them in etcd's way only.
    fn grants(&self, rows: &BTreeMap<Bytes, Place>) -> BTreeMap<Bytes, (KeyValue, u32)> {
        let absent = self.leases.iter().filter(|lease| !rows.contains_key(&LeaseId(lease.id).key()));
        let first_free = rows.values().map(|place| place.sub + 1).max().unwrap_or(0);
        let places = u32::try_from(first_free).unwrap_or(u32::MAX / 2)..;
        absent
            .zip(places)
            .map(|(lease, sub)| {
                let key = LeaseId(lease.id).key();
                let kv = KeyValue {
                    key: key.clone(),
                    value: lease.ttl.to_string().into(),
                    create_revision: self.revision(),
                    mod_revision: self.revision(),
                    version: 1,
                    lease: LeaseId::NONE,
                };
                (key, (kv, sub))
            })
            .collect()
    }

    fn row(&mut self, place: &Place) -> Result<(KeyValue, u32), EtcdSnapshotError> {
        let kv = decode(&self.file.value(&place.entry)?)?;
        let revision = |number: i64| {
            u64::try_from(number)
                .map(Revision)
                .map_err(|_| EtcdSnapshotError::Damaged("a revision is none".into()))
        };
        let sub = u32::try_from(place.sub);
        let sub = sub.map_err(|_| EtcdSnapshotError::Damaged("a revision is none".to_owned()))?;
        let kv = KeyValue {
            create_revision: revision(kv.create_revision)?,
            mod_revision: revision(kv.mod_revision)?,
            version: revision(kv.version)?.0,
            lease: LeaseId(kv.lease),
            key: kv.key,
            value: kv.value,
        };
        Ok((kv, sub))
    }
}

/// Reads the whole file once, leaves it at its beginning, and returns its digest.
fn check_digest(file: &mut (impl Read + Seek)) -> Result<[u8; DIGEST], EtcdSnapshotError> {
    let len = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    if len % BLOCK != DIGEST as u64 {
        return Err(match len % BLOCK {
            0 if len > 0 => EtcdSnapshotError::NoChecksum,
            _ => EtcdSnapshotError::Damaged("it is cut off".to_owned()),
        });
    }
    let mut hasher = Sha256::new();
    std::io::copy(&mut file.by_ref().take(len - DIGEST as u64), &mut hasher)?;
    let mut digest = [0; DIGEST];
    file.read_exact(&mut digest)?;
    file.rewind()?;
    if *hasher.finalize() == digest { Ok(digest) } else { Err(EtcdSnapshotError::Checksum) }
}

/// Revision and place of a change, and whether it is a deletion.
fn read_position(bytes: &[u8]) -> Option<(u64, u64, bool)> {
    let number = |from: usize| bytes.get(from..from + 8)?.try_into().ok().map(u64::from_be_bytes);
    let deleted = match bytes.get(17..) {
        Some([]) => false,
        Some([TOMBSTONE]) => true,
        _ => return None,
    };
    Some((number(0)?, number(9)?, deleted)).filter(|_| bytes.get(8) == Some(&b'_'))
}

fn decode(value: &[u8]) -> Result<mvccpb::KeyValue, EtcdSnapshotError> {
    mvccpb::KeyValue::decode(value).map_err(|_| EtcdSnapshotError::Damaged("a key is none".to_owned()))
}
