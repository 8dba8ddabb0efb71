//! What the command line says of snapshots, as the crate that makes them takes it.

use std::path::PathBuf;

use sampan_backup::{Origin, PlainHttp, S3Text, Secret, SettingsText};

use crate::args::{S3Args, SnapshotTargetArgs};

/// A server's scheduled snapshots.
pub(crate) fn of_server(args: &SnapshotTargetArgs) -> SettingsText {
    SettingsText {
        schedule: args.snapshot_schedule.clone(),
        retention: args.snapshot_retention.clone(),
        dir: args.snapshot_dir.clone(),
        passphrase_file: args.snapshot_passphrase_file.clone(),
        s3: s3(&args.s3),
    }
}

/// One snapshot that a command is about.
pub(crate) fn of_command(s3_args: &S3Args, passphrase_file: Option<PathBuf>) -> SettingsText {
    SettingsText { passphrase_file, s3: s3(s3_args), ..SettingsText::default() }
}

fn s3(args: &S3Args) -> S3Text {
    S3Text {
        endpoint: args.snapshot_s3_endpoint.clone(),
        bucket: args.snapshot_s3_bucket.clone(),
        region: args.snapshot_s3_region.clone(),
        folder: args.snapshot_s3_folder.clone(),
        access_key: args.snapshot_s3_access_key.clone().map(Secret::new),
        secret_key: args.snapshot_s3_secret_key.clone().map(Secret::new),
        secret_key_file: args.snapshot_s3_secret_key_file.clone(),
        ca: args.snapshot_s3_ca.clone(),
        plain_http: if args.snapshot_s3_insecure { PlainHttp::Allow } else { PlainHttp::Refuse },
    }
}

/// Who makes a snapshot.
pub(crate) fn origin(cluster: String, node: &str) -> Origin {
    Origin { cluster, node: node.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
