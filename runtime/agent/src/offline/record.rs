//! Fills the mirror from the answers of servers that pass by on their way to the kubelet.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use sampan_api::meta::ObjectMeta;
use sampan_api::scheme::Resource;
use sampan_apiserver::Body;
use serde_json::Value;

use super::ask::{Ask, Verb, Wanted};
use super::token;
use crate::mirror::Mirror;

/// A line of a watch that is longer is no event of one object.
const LINE: usize = 8 << 20;

/// What is worth keeping of the answers.
const KINDS: [&str; 6] = ["pods", "nodes", "configmaps", "secrets", "namespaces", "serviceaccounts"];

/// Whether the answer to a request tells something that the mirror keeps.
pub(super) fn concerns(ask: &Ask) -> bool {
    let lease = ask.resource.plural == "leases";
    let own = matches!(ask.subresource.as_str(), "" | "status");
    (own && ask.verb != Verb::Delete && (lease || KINDS.contains(&ask.core()))) || token::is_request(ask)
}

/// Passes an answer on and takes what it tells. `body` is the request's, where one was kept.
pub(super) async fn pass(
    mirror: &Arc<Mirror>,
    ask: &Ask,
    request: &[u8],
    answer: Response<Body>,
) -> Result<Response<Body>, axum::Error> {
    if ask.verb == Verb::Watch {
        return Ok(if answer.status() == StatusCode::OK {
            watch(mirror, ask.resource, answer)
        } else {
            answer
        });
    }
    let (parts, body) = answer.into_parts();
    let text = body.collect().await?.to_bytes();
    note(mirror, ask, request, parts.status, &text);
    Ok(Response::from_parts(parts, Body::from(text)))
}

/// Takes what a complete answer tells.
fn note(mirror: &Mirror, ask: &Ask, request: &[u8], status: StatusCode, text: &Bytes) {
    if token::is_request(ask) {
        if status.is_success()
            && let Some((asked, pod)) = token::identify(ask, request)
        {
            mirror.put_token(asked, &pod, text.clone());
        }
        return;
    }
    if status == StatusCode::NOT_FOUND && ask.verb == Verb::Get {
        mirror.remove(ask.resource, &ask.namespace, &ask.name);
    }
    if !status.is_success() {
        return;
    }
    let Ok(object) = serde_json::from_slice::<Value>(text) else { return };
    match ask.verb {
        Verb::List => list(mirror, ask, object),
        _ => mirror.put(ask.resource, object),
    }
}

fn list(mirror: &Mirror, ask: &Ask, mut list: Value) {
    let more = list.pointer("/metadata/continue").and_then(Value::as_str).is_some_and(|c| !c.is_empty());
    let Some(Value::Array(items)) = list.get_mut("items").map(Value::take) else { return };
    // A part of a list says nothing of what is not in it.
    let whole = !ask.continued && !more;
    match &ask.wanted {
        Wanted::Node(node) if whole && node == mirror.node() => mirror.replace(ask.resource, items),
        Wanted::Name(name) if whole && items.is_empty() => {
            mirror.remove(ask.resource, &ask.namespace, name);
        }
        _ => items.into_iter().for_each(|item| mirror.put(ask.resource, item)),
    }
}

/// Passes a watch on and takes its events.
fn watch(mirror: &Arc<Mirror>, resource: &'static Resource, answer: Response<Body>) -> Response<Body> {
    let mirror = Arc::clone(mirror);
    let mut lines = Lines::default();
    answer.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                lines.take(chunk, |line| event(&mirror, resource, line));
            }
        }))
    })
}

fn event(mirror: &Mirror, resource: &Resource, line: &[u8]) {
    let Ok(mut event) = serde_json::from_slice::<Value>(line) else { return };
    let object = event.get_mut("object").map(Value::take).unwrap_or_default();
    match event.get("type").and_then(Value::as_str) {
        Some("ADDED" | "MODIFIED") => mirror.put(resource, object),
        Some("DELETED") => {
            let about = ObjectMeta::of(&object);
            mirror.remove(resource, about.namespace(), about.name());
        }
        _ => {}
    }
}

/// Cuts a stream into lines.
#[derive(Default)]
struct Lines {
    rest: BytesMut,
    /// The line is too long; all up to its end is left aside.
    skipping: bool,
}

impl Lines {
    fn take(&mut self, chunk: &[u8], mut line: impl FnMut(&[u8])) {
        let mut chunk = chunk;
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = chunk.split_at(end);
            chunk = rest.get(1..).unwrap_or_default();
            if self.skipping {
                self.skipping = false;
            } else if self.rest.is_empty() {
                line(head);
            } else {
                self.rest.extend_from_slice(head);
                line(&self.rest);
            }
            self.rest.clear();
        }
        if self.skipping || self.rest.len() + chunk.len() > LINE {
            (self.rest, self.skipping) = (BytesMut::new(), true);
        } else {
            self.rest.extend_from_slice(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_are_cut() {
        let text = b"one\n\ntwo\nthree\n";
        for size in 1..text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for chunk in text.chunks(size) {
                lines.take(chunk, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
            }
            assert_eq!(seen, ["one", "", "two", "three"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_left_aside_and_the_next_one_is_read() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for _ in 0..20 {
            lines.take(&vec![b'x'; 1 << 20], |_| unreachable!());
        }
        assert!(lines.rest.is_empty());
        lines.take(b"x\nnext\n", |line| seen.push(line.to_vec()));
        assert_eq!(seen, [b"next"]);
    }
}
