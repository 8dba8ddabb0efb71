//! The side of whoever asks: a machine that joins or renews its certificates, and administrators.

mod admin;
mod enroll;
mod https;
mod layout;
mod renewer;
mod trust;

pub use admin::{AdminClient, Snapshot};
pub use enroll::{Enrollment, enroll, join_members, measure_skew, renew, update_addresses};
pub use layout::{Joined, joined, prepare_server};
pub use renewer::{RenewFrom, Renewal, Renewer};

pub(crate) use trust::certificate_subject;
