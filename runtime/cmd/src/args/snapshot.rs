//! `sampan snapshot`, and where a server keeps scheduled ones.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::DataDirArgs;

/// Where and when snapshots are kept. Names follow k3s' `--etcd-snapshot-…` and `--etcd-s3-…`.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct SnapshotTargetArgs {
    /// When to save a snapshot: cron's five fields, UTC, or @hourly, @daily, @weekly [default: never]
    #[arg(long, value_name = "CRON")]
    pub(crate) snapshot_schedule: Option<String>,
    /// How many scheduled snapshots to keep
    /// [default: 5]
    #[arg(long, value_name = "COUNT")]
    pub(crate) snapshot_retention: Option<String>,
    /// Where scheduled snapshots go [default: snapshots in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) snapshot_dir: Option<PathBuf>,
    /// Seal snapshots with the passphrase in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot_passphrase_file: Option<PathBuf>,
    /// Leave the cluster's keys out of sealed snapshots, which carry them otherwise
    #[arg(long, requires = "snapshot_passphrase_file")]
    pub(crate) snapshot_without_keys: bool,
    #[command(flatten)]
    pub(crate) s3: S3Args,
}

/// An S3-compatible bucket.
#[derive(Args, Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct S3Args {
    /// Keep snapshots in this S3-compatible bucket
    #[arg(long, value_name = "BUCKET")]
    pub(crate) snapshot_s3_bucket: Option<String>,
    /// URL of the S3-compatible service [default: AWS']
    #[arg(long, value_name = "URL")]
    pub(crate) snapshot_s3_endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1]
    #[arg(long, value_name = "REGION")]
    pub(crate) snapshot_s3_region: Option<String>,
    /// Folder within the bucket
    #[arg(long, value_name = "FOLDER")]
    pub(crate) snapshot_s3_folder: Option<String>,
    /// Access key [default: the variable AWS_ACCESS_KEY_ID]
    #[arg(long, value_name = "KEY")]
    pub(crate) snapshot_s3_access_key: Option<String>,
    /// Secret key [default: the variable AWS_SECRET_ACCESS_KEY]
    #[arg(long, value_name = "KEY", conflicts_with = "snapshot_s3_secret_key_file")]
    pub(crate) snapshot_s3_secret_key: Option<String>,
    /// A file that holds the secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot_s3_secret_key_file: Option<PathBuf>,
    /// Authority that signs the service's certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot_s3_ca: Option<PathBuf>,
    /// Allow a service without TLS
    #[arg(long)]
    pub(crate) snapshot_s3_insecure: bool,
}

/// `sampan snapshot`.
#[derive(Args, Debug, Clone)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Save the state of the running cluster, as of one revision.
    Save {
        /// The file to write, or s3://BUCKET/NAME.
        destination: String,
        /// Replace the file if there is one
        #[arg(long)]
        force: bool,
        /// Seal it with the passphrase in this file; it carries the cluster's keys then: its
        /// authorities, and what secrets are sealed with
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Leave the cluster's keys out of a sealed one
        #[arg(long, requires = "passphrase_file")]
        without_keys: bool,
        #[command(flatten)]
        s3: S3Args,
        #[command(flatten)]
        data: DataDirArgs,
    },
    /// Tell a snapshot's revision, keys, size and hash, after checking it.
    Status {
        /// The snapshot: a file, or s3://BUCKET/NAME.
        source: String,
        /// The passphrase of a sealed one
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        s3: S3Args,
    },
    /// Put a snapshot's state in the place of the database, which is moved aside, as a new cluster of this server
    /// alone; the server must be stopped. The keys that a sealed one carries go into an empty directory by themselves.
    Restore {
        /// The snapshot: a file, or s3://BUCKET/NAME.
        source: String,
        /// The passphrase of a sealed one
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// What becomes of keys here that are others than the snapshot's [default: nothing is restored]
        #[arg(long, value_enum, value_name = "WHAT")]
        on_other_keys: Option<OnOtherKeys>,
        #[command(flatten)]
        s3: S3Args,
        #[command(flatten)]
        data: DataDirArgs,
    },
}

/// What becomes of a machine's keys where a snapshot carries others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOtherKeys {
    /// They stay, and the snapshot's are left aside.
    Keep,
    /// They are moved aside with their database, and the snapshot's take their place.
    Replace,
}
