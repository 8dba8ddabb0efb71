//! The task that makes backups by schedule, on the server that leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_store::Storage;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{Progress, Step};
use super::{Retention, Schedule, retain};
use crate::error::chain;
use crate::open::cluster_of;
use crate::save::{Origin, SaveOptions, Seal, save_named};
use crate::{BackupError, BackupName, Existing, KeyFiles, Listed, Place, list};

/// Reads the cluster's private files; short, so it may block.
pub type KeySource = Arc<dyn Fn() -> std::io::Result<KeyFiles> + Send + Sync>;

/// Tells the wall clock's time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Makes backups by schedule and deletes the oldest ones.
///
/// Only while it leads: every server runs one. At each place it is only the backups of its own
/// cluster, with names as a schedule gives them, that are counted and deleted.
#[derive(Clone)]
pub struct Runner {
    /// What is backed up.
    pub storage: Arc<dyn Storage>,
    /// Where backups go; each place has its own pace where one fails.
    pub places: Vec<Place>,
    /// When.
    pub schedule: Schedule,
    /// How many stay.
    pub retention: Retention,
    /// Who makes them.
    pub origin: Origin,
    /// Whether they are sealed.
    pub seal: Option<Seal>,
    /// Where the cluster's private files come from, each time, for sealed backups to carry.
    pub private: Option<KeySource>,
    /// Whether this server leads.
    pub leads: watch::Receiver<bool>,
    /// What time it is; [`Timestamp::now`] outside tests.
    pub clock: Clock,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("places", &self.places).field("schedule", &self.schedule).finish()
    }
}

impl Runner {
    /// Runs until it is cancelled, which ends a backup under way without leaving anything of it.
    pub async fn run(self, cancel: CancellationToken) {
        let places = self.places.iter().map(|place| Pace::new(&self, place).run());
        cancel.run_until_cancelled(futures::future::join_all(places)).await;
    }
}

/// One place's backups.
struct Pace<'a> {
    runner: &'a Runner,
    place: &'a Place,
    leads: watch::Receiver<bool>,
    progress: Progress,
    /// Where the monotonic clock is read from.
    origin: Instant,
    /// The clusters of the backups here, as their headers told; `None` where they do not.
    clusters: HashMap<String, Option<String>>,
}

impl<'a> Pace<'a> {
    fn new(runner: &'a Runner, place: &'a Place) -> Self {
        let (leads, progress) = (runner.leads.clone(), Progress::default());
        Self { runner, place, leads, progress, origin: Instant::now(), clusters: HashMap::new() }
    }

    async fn run(mut self) {
        loop {
            if self.leads.wait_for(|leads| *leads).await.is_err() {
                // Nobody is left who could say that this server leads again.
                return;
            }
            let step = self.progress.step(&self.runner.schedule, self.now(), self.origin.elapsed());
            match step {
                Step::Look => self.look().await,
                Step::Run => self.back_up().await,
                Step::Wait(time) => self.wait(time).await,
            }
        }
    }

    fn now(&self) -> Timestamp {
        (self.runner.clock)()
    }

    async fn wait(&mut self, time: Duration) {
        let lost = async {
            let _ = self.leads.wait_for(|leads| !leads).await;
        };
        if tokio::time::timeout(time, lost).await.is_ok() {
            // Who led meanwhile made backups, too.
            self.progress = Progress::default();
        }
    }

    async fn look(&mut self) {
        match self.ours().await {
            Ok(ours) => {
                let newest = ours.iter().map(|backup| backup.time).max();
                self.progress.looked(newest, self.now());
            }
            Err(error) => self.fail("the backups could not be listed", &error),
        }
    }

    async fn back_up(&mut self) {
        let begun = self.now();
        match self.save(begun).await {
            Ok(()) => {
                self.progress.succeed(begun, self.origin.elapsed());
                if let Err(error) = self.prune().await {
                    tracing::warn!(place = %self.place, error = chain(&error), "old backups could not be deleted");
                }
            }
            Err(error) => self.fail("the backup failed", &error),
        }
    }

    fn fail(&mut self, what: &str, error: &BackupError) {
        tracing::warn!(place = %self.place, error = chain(error), "{what}; it is tried again");
        self.progress.fail(self.origin.elapsed());
    }

    async fn save(&mut self, begun: Timestamp) -> Result<(), BackupError> {
        let Runner { storage, origin, seal, private, .. } = self.runner;
        self.place.prepare().await?;
        let read = |source: &KeySource| {
            source().map_err(|error| BackupError::io("reading", &"the cluster's keys", error))
        };
        // Never without a seal.
        let private = private.as_ref().filter(|_| seal.is_some()).map(read).transpose()?;
        let options = SaveOptions {
            origin: origin.clone(),
            created: begun,
            seal: seal.clone(),
            private,
            // The same second and revision: the same backup.
            existing: Existing::Replace,
        };
        let name = |revision| BackupName::new(&origin.node, begun, revision).to_string();
        let (location, summary) = save_named(&**storage, self.place, name, &options).await?;
        let (revision, keys, bytes) = (summary.revision.0, summary.keys, summary.size);
        tracing::info!(%location, revision, keys, bytes, "backed up");
        Ok(())
    }

    async fn prune(&mut self) -> Result<(), BackupError> {
        let ours = self.ours().await?;
        for gone in retain(&ours, self.runner.retention) {
            self.place.at(&gone.name).delete().await?;
            tracing::info!(location = %self.place.at(&gone.name), "an old backup was deleted");
        }
        Ok(())
    }

    /// The backups here that are of this cluster.
    async fn ours(&mut self) -> Result<Vec<Listed>, BackupError> {
        let listed = list(self.place).await?;
        self.clusters.retain(|name, _| listed.iter().any(|backup| backup.name == *name));
        let mut ours = Vec::new();
        for backup in listed {
            let cluster = match self.clusters.get(&backup.name) {
                Some(known) => known.clone(),
                None => self.look_at(&backup.name).await?,
            };
            if cluster.as_ref() == Some(&self.runner.origin.cluster) {
                ours.push(backup);
            }
        }
        Ok(ours)
    }

    async fn look_at(&mut self, name: &str) -> Result<Option<String>, BackupError> {
        let location = self.place.at(name);
        let cluster = match cluster_of(&location).await {
            Ok(cluster) => cluster,
            // It went meanwhile.
            Err(BackupError::Missing { .. }) => return Ok(None),
            Err(error @ (BackupError::Unsound { .. } | BackupError::Newer { .. })) => {
                tracing::warn!(%location, error = chain(&error), "not counted as a backup");
                None
            }
            Err(error) => return Err(error),
        };
        self.clusters.insert(name.to_owned(), cluster.clone());
        Ok(cluster)
    }
}
