//! Refusals: gRPC codes and texts as etcd has them, since clients compare both.

use sampan_store::{Refusal, StorageError};
use tonic::{Code, Status};

use crate::context::Context;
use crate::view::ViewError;

pub(crate) fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub(crate) fn key_not_found() -> Status {
    Status::invalid_argument("etcdserver: key not found")
}

pub(crate) fn value_provided() -> Status {
    Status::invalid_argument("etcdserver: value is provided")
}

pub(crate) fn lease_provided() -> Status {
    Status::invalid_argument("etcdserver: lease is provided")
}

pub(crate) fn too_many_ops() -> Status {
    Status::invalid_argument("etcdserver: too many operations in txn request")
}

pub(crate) fn duplicate_key() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

pub(crate) fn invalid_sort() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

pub(crate) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub(crate) fn compacted() -> Status {
    Status::out_of_range(COMPACTED)
}

pub(crate) fn future() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
}

pub(crate) fn no_space() -> Status {
    Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
}

pub(crate) fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

pub(crate) fn lease_exists() -> Status {
    Status::failed_precondition("etcdserver: lease already exists")
}

pub(crate) fn lease_ttl_too_large() -> Status {
    Status::out_of_range("etcdserver: too large lease TTL")
}

pub(crate) fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

pub(crate) fn not_leader() -> Status {
    Status::failed_precondition("etcdserver: not leader")
}

pub(crate) fn bad_transferee() -> Status {
    Status::failed_precondition("etcdserver: bad leader transferee")
}

pub(crate) fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub(crate) fn auth_not_enabled() -> Status {
    Status::failed_precondition("etcdserver: authentication is not enabled")
}

/// For keys under `/sampan/`.
pub(crate) fn hidden() -> Status {
    Status::permission_denied("etcdserver: permission denied: keys under /sampan/ are the cluster's own")
}

/// For what etcd has and this store has another way for.
pub(crate) fn unsupported(what: &str, instead: &str) -> Status {
    Status::unimplemented(format!("{what} is not supported by this store: {instead}"))
}

/// What a refusal by the state is in etcd's words.
pub(crate) fn refused(why: &Refusal) -> Status {
    match why {
        Refusal::LeaseNotFound { .. } => lease_not_found(),
        Refusal::KeyNotFound { .. } => key_not_found(),
        Refusal::Compacted { .. } => compacted(),
        Refusal::Future { .. } => future(),
    }
}

impl Context {
    /// What a refusal by the store is in etcd's words.
    pub(crate) fn refusal(&self, error: &StorageError) -> Status {
        match error {
            StorageError::Compacted { .. } => compacted(),
            StorageError::Future { .. } => future(),
            StorageError::NoSpace => no_space(),
            StorageError::TooLarge { .. } => too_large(),
            StorageError::Invalid { why } => Status::invalid_argument(format!("etcdserver: {why}")),
            StorageError::Corrupt { what } => Status::data_loss(format!("etcdserver: corrupt: {what}")),
            StorageError::Unavailable { .. } if self.view.leadership().leader.is_none() => no_leader(),
            StorageError::Unavailable { why } => {
                Status::unavailable(format!("etcdserver: request timed out: {why}"))
            }
            StorageError::Io(error) => Status::internal(format!("etcdserver: {error}")),
        }
    }

    /// What a refusal by the cluster is in etcd's words.
    pub(crate) fn view_refusal(&self, error: &ViewError) -> Status {
        match error {
            ViewError::NotLeader => not_leader(),
            ViewError::UnknownMember => bad_transferee(),
            ViewError::Failed { why } => Status::new(Code::Unavailable, format!("etcdserver: {why}")),
        }
    }
}
