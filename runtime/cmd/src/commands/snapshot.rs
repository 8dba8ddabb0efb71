//! `sampan snapshot restore`: back to a snapshot, with the cluster stopped.

use std::process::ExitCode;

use crate::args::{SnapshotArgs, SnapshotCommand};
use crate::error::{CommandError, Doing};
use crate::{data_dir, store};

pub(super) fn run(args: SnapshotArgs) -> Result<ExitCode, CommandError> {
    let SnapshotCommand::Restore { file, data } = args.command;
    let data_dir = data_dir::existing(data.data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "threads cannot be started".to_owned())?;
    let revision = runtime.block_on(async {
        let storage = store::rebuild(&data_dir, &file).await?;
        let revision = sampan_store::Storage::revision(&storage);
        storage.close().await.doing(|| "closing the database".to_owned())?;
        Ok::<_, CommandError>(revision)
    })?;
    super::print(&format!(
        "{} now holds the state of {} (revision {revision}); what it held before was moved aside within it\n",
        data_dir.join("db").display(),
        file.display()
    ));
    Ok(ExitCode::SUCCESS)
}
