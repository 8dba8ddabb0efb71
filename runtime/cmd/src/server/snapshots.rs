//! Scheduled snapshots of the database, made by whichever server leads.

use std::sync::Arc;

use sampan_backup::{KeySource, Runner};
use tokio::sync::watch;

use super::ground::Ground;
use super::{PATIENCE, storage};
use crate::cluster_keys;
use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::settings::Settings;
use crate::snapshot_text;

/// Starts the schedule, if there is one.
pub(super) fn start(
    components: &mut Components,
    settings: &Settings,
    ground: &Ground,
    leads: watch::Receiver<bool>,
) -> Result<(), CommandError> {
    let text = snapshot_text::of_server(&settings.snapshots);
    let directory = settings.node.data_dir.join("snapshots");
    let wanted = text
        .read(&directory, &|name| std::env::var(name).ok())
        .doing(|| "snapshots cannot be kept".to_owned())?;
    let Some(schedule) = wanted.schedule else { return Ok(()) };
    let origin = snapshot_text::origin(ground.store.cluster_id().to_string(), &settings.node.name);
    let data_dir = settings.node.data_dir.clone();
    let read: KeySource = Arc::new(move || cluster_keys::read(&data_dir));
    let private = (!settings.snapshots.snapshot_without_keys).then_some(read);
    let runner = Runner {
        storage: storage(ground),
        places: wanted.places,
        schedule,
        retention: wanted.retention,
        origin,
        seal: wanted.seal,
        private,
        leads,
        clock: Arc::new(jiff::Timestamp::now),
    };
    components.start("scheduled snapshots", PATIENCE, |shutdown| runner.run(shutdown));
    Ok(())
}
