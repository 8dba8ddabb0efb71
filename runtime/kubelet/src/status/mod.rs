//! The one writer of pods' statuses.
//!
//! Pod workers hand in what a status should be ([`StatusManager::set`]); a task per pod, alive
//! only while there is something to write, patches what differs from what the API holds. While
//! a write is under way, newer wishes replace older ones. Nothing is written when nothing
//! differs. When a pod is done ([`StatusManager::finish`]), its object is deleted after its last
//! status.

pub mod diff;
mod manager;

pub use manager::StatusManager;
