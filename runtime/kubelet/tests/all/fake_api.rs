//! An API server in memory: enough of it for a node agent, and a record of what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Key = (String, String, String);

#[derive(Clone)]
struct Change {
    resource: String,
    version: u64,
    kind: &'static str,
    object: Value,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    version: u64,
    history: Vec<Change>,
    /// Method and path of each write that changed something.
    writes: Vec<String>,
    tokens: u32,
}

pub struct FakeApi {
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

struct Target {
    resource: String,
    namespace: String,
    name: String,
    sub: String,
}

impl Target {
    fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3..] };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => ((*namespace).to_owned(), rest),
            rest => (String::new(), rest),
        };
        let at = |index: usize| rest.get(index).map(|part| (*part).to_owned()).unwrap_or_default();
        Self { resource: at(0), namespace, name: at(1), sub: at(2) }
    }

    fn key(&self) -> Key {
        (self.resource.clone(), self.namespace.clone(), self.name.clone())
    }
}

fn kind(resource: &str) -> (&'static str, &'static str) {
    match resource {
        "pods" => ("v1", "Pod"),
        "nodes" => ("v1", "Node"),
        "configmaps" => ("v1", "ConfigMap"),
        "secrets" => ("v1", "Secret"),
        "serviceaccounts" => ("v1", "ServiceAccount"),
        "events" => ("v1", "Event"),
        "leases" => ("coordination.k8s.io/v1", "Lease"),
        other => panic!("the fake API has no {other}"),
    }
}

impl FakeApi {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: broadcast::channel(65536).0 })
    }

    pub fn client(self: &Arc<Self>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(api.serve(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().objects.get(&key).cloned()
    }

    pub fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Writes whose method and path hold both texts.
    pub fn writes(&self, method: &str, path: &str) -> usize {
        self.state.lock().writes.iter().filter(|w| w.starts_with(method) && w.contains(path)).count()
    }

    pub fn create(&self, resource: &str, namespace: &str, object: Value) -> Value {
        let (api_version, kind) = kind(resource);
        let mut object = object;
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        let meta = object["metadata"].as_object_mut().unwrap();
        if !meta.contains_key("name") {
            let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or("x-").to_owned();
            meta.insert("name".into(), json!(format!("{prefix}{}", uuid())));
        }
        if !namespace.is_empty() {
            meta.insert("namespace".into(), json!(namespace));
        }
        meta.insert("uid".into(), json!(uuid()));
        meta.insert("creationTimestamp".into(), json!(jiff::Timestamp::now().to_string()));
        let name = meta["name"].as_str().unwrap().to_owned();
        let key = (resource.to_owned(), namespace.to_owned(), name);
        self.put(key, object, "ADDED")
    }

    fn put(&self, key: Key, mut object: Value, kind: &'static str) -> Value {
        let mut state = self.state.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let change = Change { resource: key.0.clone(), version: state.version, kind, object: object.clone() };
        if kind == "DELETED" {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key, object.clone());
        }
        state.history.push(change.clone());
        self.changes.send(change).ok();
        object
    }

    /// Applies a change to an object as a user would.
    pub fn edit(&self, resource: &str, namespace: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(resource, namespace, name).unwrap();
        edit(&mut object);
        self.put((resource.to_owned(), namespace.to_owned(), name.to_owned()), object, "MODIFIED");
    }

    /// Deletes a pod with a grace period; none removes it at once.
    pub fn delete_pod(&self, namespace: &str, name: &str, grace: i64) {
        let key = ("pods".to_owned(), namespace.to_owned(), name.to_owned());
        let mut pod = self.get("pods", namespace, name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.put(key, pod, if grace == 0 { "DELETED" } else { "MODIFIED" });
    }

    async fn serve(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let target = Target::parse(parts.uri.path());
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        match (&parts.method, target.name.is_empty()) {
            (&Method::GET, true) if query.get("watch").is_some_and(|watch| watch == "true") => {
                self.watch(&target, &query)
            }
            (&Method::GET, true) => self.list_answer(&target, &query),
            (&Method::GET, false) => match self.get(&target.resource, &target.namespace, &target.name) {
                Some(object) => answer(200, &object),
                None => not_found(&target),
            },
            (&Method::POST, _) if target.sub == "token" => self.token(&body),
            (&Method::POST, true) => {
                self.note(&parts.method, parts.uri.path());
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                if self.get(&target.resource, &target.namespace, name).is_some() {
                    return status(409, "AlreadyExists", "it exists");
                }
                answer(201, &self.create(&target.resource, &target.namespace, body))
            }
            (&Method::PUT, false) => {
                self.note(&parts.method, parts.uri.path());
                answer(200, &self.put(target.key(), body, "MODIFIED"))
            }
            (&Method::PATCH, false) => self.patch(&target, parts.uri.path(), &body),
            (&Method::DELETE, false) => self.delete(&target, parts.uri.path(), &body),
            other => panic!("the fake API does not know {other:?} {}", parts.uri),
        }
    }

    fn note(&self, method: &Method, path: &str) {
        self.state.lock().writes.push(format!("{method} {path}"));
    }

    fn token(&self, body: &Value) -> Response<Body> {
        let mut state = self.state.lock();
        state.tokens += 1;
        let seconds = body["spec"]["expirationSeconds"].as_i64().unwrap();
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let mut request = body.clone();
        request["status"] =
            json!({ "token": format!("token-{}", state.tokens), "expirationTimestamp": expires.to_string() });
        answer(201, &request)
    }

    fn list_answer(&self, target: &Target, query: &BTreeMap<String, String>) -> Response<Body> {
        let items: Vec<Value> = self
            .list(&target.resource)
            .into_iter()
            .filter(|object| selected(object, target, query))
            .collect();
        let (api_version, kind) = kind(&target.resource);
        let version = self.state.lock().version;
        answer(
            200,
            &json!({
                "apiVersion": api_version, "kind": format!("{kind}List"),
                "metadata": { "resourceVersion": version.to_string() }, "items": items
            }),
        )
    }

    fn watch(&self, target: &Target, query: &BTreeMap<String, String>) -> Response<Body> {
        let from: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let state = self.state.lock();
        let live = tokio_stream::wrappers::BroadcastStream::new(self.changes.subscribe());
        let past: Vec<Change> =
            state.history.iter().filter(|change| change.version > from).cloned().collect();
        drop(state);
        let (target, query) =
            (Target { name: String::new(), sub: String::new(), ..clone(target) }, query.clone());
        let stream = futures::stream::iter(past)
            .chain(live.filter_map(|change| async { change.ok() }))
            .filter_map(move |change| {
                let wanted = change.resource == target.resource && selected(&change.object, &target, &query);
                let line = wanted.then(|| {
                    let mut line = json!({ "type": change.kind, "object": change.object }).to_string();
                    line.push('\n');
                    Ok::<_, std::io::Error>(bytes::Bytes::from(line))
                });
                async move { line }
            });
        let body = Body::from_stream(stream);
        Response::builder().status(200).header("content-type", "application/json").body(body).unwrap()
    }

    fn patch(&self, target: &Target, path: &str, body: &Value) -> Response<Body> {
        let Some(object) = self.get(&target.resource, &target.namespace, &target.name) else {
            return not_found(target);
        };
        if let Some(uid) = body["metadata"]["uid"].as_str()
            && object["metadata"]["uid"] != uid
        {
            return status(409, "Conflict", "Precondition failed: UID in precondition does not match");
        }
        let mut patched = object.clone();
        merge(&mut patched, body);
        if patched == object {
            return answer(200, &object);
        }
        self.note(&Method::PATCH, path);
        answer(200, &self.put(target.key(), patched, "MODIFIED"))
    }

    fn delete(&self, target: &Target, path: &str, body: &Value) -> Response<Body> {
        let Some(object) = self.get(&target.resource, &target.namespace, &target.name) else {
            return not_found(target);
        };
        if let Some(uid) = body["preconditions"]["uid"].as_str()
            && object["metadata"]["uid"] != uid
        {
            return status(409, "Conflict", "Precondition failed: UID in precondition does not match");
        }
        assert_eq!(body["gracePeriodSeconds"], 0, "a node deletes what is done only");
        self.note(&Method::DELETE, path);
        answer(200, &self.put(target.key(), object, "DELETED"))
    }
}

fn clone(target: &Target) -> Target {
    Target {
        resource: target.resource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        sub: target.sub.clone(),
    }
}

/// A merge patch; conditions are merged by type, as the strategic one does.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let object = target.as_object_mut().unwrap();
    for (key, value) in patch {
        match value {
            Value::Null => {
                object.remove(key);
            }
            Value::Array(list) if key == "conditions" => {
                let held = object.entry(key.clone()).or_insert_with(|| json!([])).as_array_mut().unwrap();
                for condition in list {
                    match held.iter_mut().find(|held| held["type"] == condition["type"]) {
                        Some(held) => merge(held, condition),
                        None => held.push(condition.clone()),
                    }
                }
            }
            Value::Array(list) => {
                let list = list.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
                object.insert(key.clone(), Value::Array(list));
            }
            value => merge(object.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

fn selected(object: &Value, target: &Target, query: &BTreeMap<String, String>) -> bool {
    if !target.namespace.is_empty() && object["metadata"]["namespace"] != target.namespace.as_str() {
        return false;
    }
    let selector = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
    selector.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (path, want) = part.split_once('=').unwrap();
        let pointer = format!("/{}", path.replace('.', "/"));
        object.pointer(&pointer).and_then(Value::as_str) == Some(want)
    })
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header("content-type", "application/json")
        .body(Body::from(body.to_string().into_bytes()))
        .unwrap()
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    answer(
        code,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": reason, "message": message, "code": code
        }),
    )
}

fn not_found(target: &Target) -> Response<Body> {
    status(404, "NotFound", &format!("{} \"{}\" not found", target.resource, target.name))
}

fn uuid() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
