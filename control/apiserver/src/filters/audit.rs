//! Audit: who did what, and how it ended; one JSON object a line, without bodies (Kubernetes'
//! `Metadata` level). Written by a thread of its own, so that a slow disk does not slow requests;
//! a log that cannot keep up drops entries and says how many.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use http::StatusCode;
use http::request::Parts;
use jiff::Timestamp;
use sampan_api::status::Status;
use sampan_api::time;
use serde_json::{Value, json};

use crate::auth::UserInfo;
use crate::endpoints::request_info::RequestInfo;

/// So many entries may wait to be written.
const QUEUE: usize = 4096;

/// The audit log.
pub(crate) struct AuditLog {
    queue: SyncSender<Value>,
    dropped: AtomicU64,
}

impl AuditLog {
    /// Appends to a file, which only its owner may read.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let (queue, entries) = sync_channel(QUEUE);
        std::thread::Builder::new().name("audit".into()).spawn(move || write_all(file, &entries))?;
        Ok(Self { queue, dropped: AtomicU64::new(0) })
    }

    pub(super) fn write(&self, entry: Value) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(entry) {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "the audit log cannot keep up; entries are lost");
            }
        }
    }
}

fn write_all(file: std::fs::File, entries: &Receiver<Value>) {
    let mut out = std::io::BufWriter::new(file);
    while let Ok(first) = entries.recv() {
        let mut waiting = std::iter::once(first).chain(entries.try_iter());
        let written = waiting.try_for_each(|entry| writeln!(out, "{entry}"));
        if let Err(error) = written.and_then(|()| out.flush()) {
            tracing::error!(error = &error as &dyn std::error::Error, "the audit log cannot be written");
        }
    }
}

/// An entry that waits for the answer.
pub(super) struct Entry(Value);

impl Entry {
    /// The entry of a request. That of a stream is written when the stream begins.
    pub(super) fn new(
        (id, long_running): (&str, bool),
        received: Timestamp,
        user: &UserInfo,
        info: &RequestInfo,
        parts: &Parts,
    ) -> Self {
        let mut entry = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": id,
            "stage": if long_running { "ResponseStarted" } else { "ResponseComplete" },
            "requestURI": parts.uri.path_and_query().map_or(info.path.as_str(), |p| p.as_str()),
            "verb": info.verb,
            "user": {"username": user.name, "uid": user.uid, "groups": user.groups},
            "userAgent": parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()),
            "requestReceivedTimestamp": time::format_micros(received),
        });
        if let Some(members) = entry.as_object_mut()
            && info.is_resource
        {
            let about = json!({
                "resource": info.resource, "namespace": info.namespace, "name": info.name,
                "apiGroup": info.group, "apiVersion": info.version, "subresource": info.subresource,
            });
            members.insert("objectRef".into(), about);
        }
        Self(entry)
    }

    /// The request was refused before anything was asked of it: nobody is known to have made it.
    pub(super) fn refuse(mut self, status: &Status) -> Value {
        if let Some(members) = self.0.as_object_mut() {
            let answered = json!({"code": status.code, "reason": status.reason, "message": status.message});
            members.insert("responseStatus".into(), answered);
            members.insert("stageTimestamp".into(), time::format_micros(Timestamp::now()).into());
        }
        self.0
    }

    pub(super) fn finish(mut self, impersonated: Option<&str>, code: StatusCode) -> Value {
        if let Some(members) = self.0.as_object_mut() {
            members.insert("responseStatus".into(), json!({"code": code.as_u16()}));
            members.insert("stageTimestamp".into(), time::format_micros(Timestamp::now()).into());
            if let Some(name) = impersonated {
                members.insert("impersonatedUser".into(), json!({"username": name}));
            }
        }
        self.0
    }
}
