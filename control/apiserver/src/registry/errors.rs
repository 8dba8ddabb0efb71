//! How the store's refusals are told to clients.

use sampan_api::status::{Status, StatusDetails};
use sampan_store::StorageError;

use crate::cacher::too_large_resource_version;

/// The one mapping from the store's errors.
pub(crate) fn storage_status(error: &StorageError) -> Status {
    match error {
        StorageError::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        StorageError::Future { requested, current } => too_large_resource_version(requested.0, current.0),
        StorageError::TooLarge { .. } => Status::too_large(format!("Request entity too large: {error}")),
        StorageError::NoSpace => Status::failure(507, "InsufficientStorage", error.to_string()),
        StorageError::Unavailable { .. } => Status::unavailable(error.to_string())
            .with_details(StatusDetails { retry_after_seconds: Some(1), ..StatusDetails::default() }),
        StorageError::Invalid { .. } | StorageError::Corrupt { .. } | StorageError::Io(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "the store failed");
            Status::internal(error.to_string())
        }
    }
}
