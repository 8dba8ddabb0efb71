//! Backups of the store: a file format around its snapshot (hashed, perhaps sealed), files and
//! S3 objects, schedules and retention.
//!
//! [`save`] makes one from a running store, [`status`] says what one is and whether it is whole,
//! [`open`] gives the snapshot within for [`sampan_store::Storage::restore`]; [`Runner`] makes
//! them by schedule.

mod error;
mod format;
mod key_files;
mod name;
mod open;
mod place;
mod save;
mod schedule;
mod secret;
mod settings;

pub use error::BackupError;
pub use format::{Shape, Summary};
pub use key_files::KeyFiles;
pub use name::BackupName;
pub use open::{Contents, Listed, list, open, open_stream, status, status_stream};
pub use place::{Bucket, BucketSettings, Existing, Location, Place, PlainHttp};
pub use save::{Origin, SaveOptions, Seal, save, save_stream};
pub use schedule::{Clock, KeySource, Retention, Runner, Schedule, retain};
pub use secret::{Cost, Passphrase, Secret};
pub use settings::{Environment, S3Text, Settings, SettingsText};
