//! The API's clients, for everything that is not the API server: shared informers, work
//! queues with back-off, and the event recorder.
//!
//! Controllers, scheduler and kubelet talk to the API through [`kube::Client`], in process
//! or over the network; nothing here knows which.

pub mod events;
pub mod informer;
pub mod link;
pub mod workqueue;

pub use events::{EventType, Recorder};
pub use informer::{Change, Informer, ObjectKey, Reader};
pub use link::ApiLink;
pub use workqueue::WorkQueue;
