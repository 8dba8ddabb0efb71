//! Backups of the store: files, passphrases, schedules, retention, S3.
