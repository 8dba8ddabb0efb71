//! The watch cache: the current state of every stored resource, and its recent history.
//!
//! One store watch over the whole registry feeds one [`Cacher`] per resource (`feed`), so that one
//! revision tells how far all of them are: a read that must be current waits until that revision
//! has reached the store's. Lists and watches are served from here; each object is kept once, as
//! the bytes that go to clients, with the few values that selectors ask for beside it.

mod feed;
mod object;
mod selection;
mod state;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sampan_api::status::{Status, StatusCause, StatusDetails};
use sampan_store::{Storage, StorageError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::registry::errors::storage_status;
use crate::registry::strategy::Strategy;

pub(crate) use object::{Object, TypeMeta};
pub(crate) use selection::Selection;
pub(crate) use state::{Cacher, Listing, Page};
pub(crate) use watcher::{Delivery, Start, Subscription};

/// Where every object lies in the store.
pub(crate) const ROOT: &str = "/registry/";

/// How long a read waits for a revision before it gives up.
const FRESHNESS_DEADLINE: Duration = Duration::from_secs(3);

/// The caches of all resources, fed by one watch.
pub(crate) struct Caches {
    storage: Arc<dyn Storage>,
    by_place: HashMap<(&'static str, &'static str), Arc<Cacher>>,
    /// All events up to this revision have been applied and handed out.
    progress: watch::Sender<u64>,
}

impl Caches {
    /// Loads the current state and follows it until `shutdown`.
    pub(crate) async fn start(
        storage: Arc<dyn Storage>,
        strategies: &[Arc<dyn Strategy>],
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, StorageError> {
        let (progress, _) = watch::channel(0);
        let by_place = strategies
            .iter()
            .filter_map(|s| {
                Some((s.resource().storage?, Arc::new(Cacher::new(Arc::clone(s), progress.subscribe()))))
            })
            .collect();
        let caches = Arc::new(Self { storage, by_place, progress });
        let feed = feed::Feed::open(Arc::clone(&caches)).await?;
        tokio::spawn(feed.run(shutdown));
        Ok(caches)
    }

    /// The cache of a resource, by its place in the store.
    pub(crate) fn cacher<'a>(&'a self, place: (&'a str, &'a str)) -> Option<&'a Arc<Cacher>> {
        let by_place: &HashMap<(&'a str, &'a str), Arc<Cacher>> = &self.by_place;
        by_place.get(&place)
    }

    /// How far the caches are.
    pub(crate) fn progress(&self) -> u64 {
        *self.progress.borrow()
    }

    /// Waits until every write acknowledged before this call, by whichever server, is in the caches.
    pub(crate) async fn wait_current(&self) -> Result<(), Status> {
        let current = self.storage.current_revision().await.map_err(|error| storage_status(&error))?;
        self.wait_for(current.0).await
    }

    /// Waits until the caches have reached a revision; refuses one that does not come.
    pub(crate) async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        if self.progress() >= revision {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        let reached =
            tokio::time::timeout(FRESHNESS_DEADLINE, progress.wait_for(|now| *now >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(too_large_resource_version(revision, self.progress())),
        }
    }
}

/// 504: the revision asked for has not been reached.
pub(crate) fn too_large_resource_version(requested: u64, current: u64) -> Status {
    let message = format!("Too large resource version: {requested}, current: {current}");
    Status::timeout(format!("Timeout: {message}")).with_details(StatusDetails {
        causes: vec![StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }],
        retry_after_seconds: Some(1),
        ..StatusDetails::default()
    })
}
