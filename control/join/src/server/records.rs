//! Small JSON records in the store, read and written as transactions: what is read is the newest
//! state of the whole cluster, whichever server answers.

use std::sync::Arc;

use bytes::Bytes;
use sampan_api::status::Status;
use sampan_store::{Compare, Op, OpResult, RangeRequest, Revision, Storage, StorageError, Txn};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A record with the revision of its last change; revision 0 where there is none.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: String,
    value: Option<Bytes>,
    pub(crate) revision: Revision,
}

impl Record {
    /// The record's content, if there is one.
    pub(crate) fn get<T: DeserializeOwned>(&self) -> Result<Option<T>, Status> {
        self.value.as_deref().map(|value| parse(&self.key, value)).transpose()
    }

    pub(crate) fn exists(&self) -> bool {
        self.value.is_some()
    }

    /// That the record is still as it was read.
    pub(crate) fn unchanged(&self) -> Compare {
        Compare::ModRevision { key: self.key.clone().into(), revision: self.revision }
    }
}

/// Reads and writes records.
#[derive(Clone)]
pub(crate) struct Records {
    storage: Arc<dyn Storage>,
}

impl Records {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Several records as of one moment, in the order asked for.
    pub(crate) async fn read(&self, keys: &[String]) -> Result<Vec<Record>, Status> {
        let success = keys.iter().map(|key| Op::Get { key: key.clone().into() }).collect();
        let answer = self.storage.txn(Txn { success, ..Txn::default() }).await.map_err(unavailable)?;
        let found = answer.results.into_iter().zip(keys).map(|(result, key)| {
            let kv = match result {
                OpResult::Got { kv } => kv,
                _ => None,
            };
            let revision = kv.as_ref().map_or(Revision(0), |kv| kv.mod_revision);
            Record { key: key.clone(), value: kv.map(|kv| kv.value), revision }
        });
        Ok(found.collect())
    }

    /// One record.
    pub(crate) async fn read_one(&self, key: &str) -> Result<Record, Status> {
        let found = self.read(&[key.to_owned()]).await?.pop();
        found.ok_or_else(|| Status::internal("the store did not answer what was asked"))
    }

    /// A record as this server knows it, which may be behind the others: costs nothing.
    pub(crate) async fn peek<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Status> {
        let answer = self.storage.range(RangeRequest::key(key.to_owned())).await.map_err(unavailable)?;
        answer.kvs.first().map(|kv| parse(key, &kv.value)).transpose()
    }

    /// All records below a prefix, by the rest of their keys.
    pub(crate) async fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, Status> {
        let request = RangeRequest::prefix(prefix.to_owned());
        let answer = self.storage.range(request).await.map_err(unavailable)?;
        let mut found = Vec::with_capacity(answer.kvs.len());
        for kv in answer.kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let name = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
            found.push((name, parse(&key, &kv.value)?));
        }
        Ok(found)
    }

    /// Makes changes if nothing that they rest on has changed; whether it had not.
    pub(crate) async fn change(&self, compares: Vec<Compare>, success: Vec<Op>) -> Result<bool, Status> {
        let txn = Txn { compares, success, failure: Vec::new() };
        Ok(self.storage.txn(txn).await.map_err(unavailable)?.succeeded)
    }

    /// Writes a record that must not be there; whether it was not.
    pub(crate) async fn create(&self, key: &str, value: &(impl Serialize + Sync)) -> Result<bool, Status> {
        let absent = Compare::ModRevision { key: key.to_owned().into(), revision: Revision(0) };
        self.change(vec![absent], vec![put(key, value)?]).await
    }
}

/// The step that writes a record.
pub(crate) fn put(key: &str, value: &impl Serialize) -> Result<Op, Status> {
    let value = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Op::Put { key: key.to_owned().into(), value: value.into() })
}

/// The step that deletes a record.
pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned().into(), end: None }
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(value).map_err(|error| Status::internal(format!("the record {key}: {error}")))
}

/// The store's refusal as a server answers it.
pub(crate) fn unavailable(error: StorageError) -> Status {
    match error {
        StorageError::NoSpace => Status::failure(507, "InsufficientStorage", error.to_string()),
        error => Status::unavailable(error.to_string()),
    }
}
