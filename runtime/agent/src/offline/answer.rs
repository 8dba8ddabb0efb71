//! What the kubelet is told while no server can be reached. Reads come from the mirror; what the
//! node says of itself and its pods goes into the mirror and is refused as not sent, so that whoever
//! said it says it again when there is a server.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::patch::{self, strategic};
use sampan_api::schema;
use sampan_api::status::Status;
use sampan_apiserver::Body;
use serde_json::{Value, json};

use super::ask::{Ask, Verb, Wanted};
use super::token;
use crate::mirror::Mirror;

/// Why there is no server to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// There has been none since the node started: it starts from the mirror.
    SinceStart,
    /// The connection was lost. Whoever has read everything keeps it: the mirror may lag behind, and
    /// nobody should take a pod for gone because of that.
    Lost,
}

/// What becomes of a request.
pub(super) enum Answer {
    /// It is answered.
    Now(Response<Body>),
    /// It is a watch in which nothing happens until there is a server, and which then ends as expired,
    /// so that the watcher lists anew.
    ExpireLater,
    /// It waits for a server.
    Hold,
}

/// The resourceVersion of lists from the mirror: so old that a server either knows everything since,
/// or says that it does not.
const LIST_VERSION: &str = "1";

/// What becomes of a request whose body is `body`.
pub(super) fn answer(
    mirror: &Mirror,
    absence: Absence,
    ask: &Ask,
    content_type: &str,
    body: &[u8],
) -> Answer {
    if token::is_request(ask) {
        let known = token::identify(ask, body).and_then(|(asked, _)| mirror.token(&asked));
        return Answer::Now(known.map_or_else(unavailable, |answer| bytes(StatusCode::CREATED, answer)));
    }
    if ask.resource.plural == "leases" {
        return Answer::Now(lease(mirror, ask, body));
    }
    match ask.verb {
        Verb::Get if ask.subresource.is_empty() => Answer::Now(get(mirror, absence, ask)),
        Verb::List | Verb::Watch if absence == Absence::Lost => Answer::Hold,
        Verb::List => Answer::Now(list(mirror, ask)),
        Verb::Watch => Answer::ExpireLater,
        Verb::Patch => Answer::Now(patch(mirror, absence, ask, content_type, body)),
        _ => Answer::Now(unavailable()),
    }
}

/// 503: nothing can be said or done without a server.
pub(super) fn unavailable() -> Response<Body> {
    refusal(&Status::unavailable("no server can be reached; the node works from its own cache"))
}

/// A refusal as the API words it.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    bytes(code, serde_json::to_vec(status).unwrap_or_default().into())
}

fn bytes(code: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn object(object: &Value) -> Response<Body> {
    bytes(StatusCode::OK, object.to_string().into())
}

fn get(mirror: &Mirror, absence: Absence, ask: &Ask) -> Response<Body> {
    if let Some(found) = mirror.get(ask.resource, &ask.namespace, &ask.name) {
        return object(&found);
    }
    // At the start the mirror is all there is, and what is not in it was not there, unless it was
    // too large. Later it may only not have come yet, unless a server said that it does not exist.
    let at_start = absence == Absence::SinceStart
        && !mirror.was_left_out(ask.resource, &ask.namespace, &ask.name)
        && matches!(ask.core(), "pods" | "configmaps" | "secrets");
    if at_start || mirror.is_absent(ask.resource, &ask.namespace, &ask.name) {
        refusal(&Status::not_found(ask.resource, &ask.name))
    } else {
        unavailable()
    }
}

fn list(mirror: &Mirror, ask: &Ask) -> Response<Body> {
    let wanted = |object: &Value| {
        let about = ObjectMeta::of(object);
        (ask.namespace.is_empty() || about.namespace() == ask.namespace)
            && match &ask.wanted {
                Wanted::All => true,
                Wanted::Name(name) => about.name() == name,
                Wanted::Node(node) => object.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node),
                Wanted::Else => false,
            }
    };
    if ask.wanted == Wanted::Else {
        return unavailable();
    }
    if let Wanted::Name(name) = &ask.wanted
        && mirror.was_left_out(ask.resource, &ask.namespace, name)
    {
        return unavailable();
    }
    let items: Vec<Value> = mirror.list(ask.resource).into_iter().filter(wanted).collect();
    object(&json!({
        "kind": format!("{}List", ask.resource.kind),
        "apiVersion": ask.resource.api_version(),
        "metadata": {"resourceVersion": LIST_VERSION},
        "items": items,
    }))
}

fn patch(mirror: &Mirror, absence: Absence, ask: &Ask, content_type: &str, body: &[u8]) -> Response<Body> {
    let Ok(patch) = serde_json::from_slice::<Value>(body) else {
        return refusal(&Status::bad_request("the patch is not JSON"));
    };
    let whole = ask.subresource.is_empty() && ask.core() == "nodes" && absence == Absence::SinceStart;
    let status = ask.subresource == "status" && matches!(ask.core(), "pods" | "nodes");
    if !whole && !status {
        return unavailable();
    }
    // A patch that names another object than the one that is here is not for it.
    let meant = patch.pointer("/metadata/uid").and_then(Value::as_str);
    let held = mirror.get(ask.resource, &ask.namespace, &ask.name);
    let Some(held) = held.filter(|held| meant.is_none_or(|uid| uid == ObjectMeta::of(held).uid())) else {
        return unavailable();
    };
    let Some(patched) = apply(ask, content_type, held, patch) else { return unavailable() };
    let amended = mirror.amend(ask.resource, &ask.namespace, &ask.name, |object| {
        if whole {
            *object = patched;
        } else {
            set_status(object, patched);
        }
    });
    match amended {
        // The node registers so when it starts; it does so again when there is a server.
        Some(node) if whole => object(&node),
        _ => unavailable(),
    }
}

fn apply(ask: &Ask, content_type: &str, held: Value, patch: Value) -> Option<Value> {
    if content_type.starts_with("application/strategic-merge-patch+json") {
        return strategic::apply(schema::message(ask.resource.schema)?, held, patch).ok();
    }
    let mut patched = held;
    let applied = content_type.starts_with("application/merge-patch+json")
        && patch::merge_patch(&mut patched, &patch).is_ok();
    applied.then_some(patched)
}

/// Takes the status of the patched object, and nothing else.
fn set_status(object: &mut Value, mut patched: Value) {
    let status = patched.get_mut("status").map(Value::take);
    if let (Some(members), Some(status)) = (object.as_object_mut(), status) {
        members.insert("status".to_owned(), status);
    }
}

/// The node's lease, which it renews for nobody but its local readers.
fn lease(mirror: &Mirror, ask: &Ask, body: &[u8]) -> Response<Body> {
    let given = || serde_json::from_slice::<Value>(body).ok();
    match ask.verb {
        Verb::Get => mirror
            .get(ask.resource, &ask.namespace, &ask.name)
            .as_ref()
            .map_or_else(|| refusal(&Status::not_found(ask.resource, &ask.name)), object),
        Verb::Create => {
            let Some(mut new) = given() else { return unavailable() };
            // No server knows it: whoever shows it this version is told to look again.
            meta::set_resource_version(&mut new, 1);
            mirror.put(ask.resource, new.clone());
            bytes(StatusCode::CREATED, new.to_string().into())
        }
        Verb::Update => {
            let renewed = given()
                .and_then(|new| mirror.amend(ask.resource, &ask.namespace, &ask.name, |held| *held = new));
            renewed.as_ref().map_or_else(unavailable, object)
        }
        _ => unavailable(),
    }
}
