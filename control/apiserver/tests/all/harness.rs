//! A server over a store in memory, and short ways to ask it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_apiserver::{ApiServer, Body, Config, NodeConnector, NodeError, UserInfo};
use sampan_store::{MemoryStore, Storage};
use serde_json::{Value, json};
use tower::Service;

/// Longer than anything takes, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a node is asked, and what it answers.
#[derive(Default)]
pub(crate) struct FakeNodes {
    pub(crate) asked: Mutex<Vec<(String, String)>>,
    pub(crate) answers: Mutex<HashMap<String, (u16, String)>>,
}

#[async_trait]
impl NodeConnector for FakeNodes {
    async fn request(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, NodeError> {
        self.asked.lock().push((node.to_owned(), request.uri().to_string()));
        let answers = self.answers.lock();
        let Some((code, text)) = answers.get(node) else {
            return Err(NodeError::NotConnected(node.to_owned()));
        };
        Ok(Response::builder().status(*code).body(Body::from(text.clone())).unwrap())
    }
}

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) nodes: Arc<FakeNodes>,
    pub(crate) user: UserInfo,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.text).unwrap_or_else(|e| panic!("{e}: {:?}", self.text))
    }

    /// The object, which must have been answered with this code.
    pub(crate) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{}", String::from_utf8_lossy(&self.text));
        self.json()
    }

    /// The message of a refusal with this code and reason.
    pub(crate) fn refusal(&self, code: u16, reason: &str) -> String {
        let status = self.expect(code);
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["status"], "Failure", "{status}");
        assert_eq!(status["reason"].as_str().unwrap_or_default(), reason, "{status}");
        assert_eq!(status["code"], code, "{status}");
        status["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }
}

pub(crate) async fn cluster() -> Cluster {
    cluster_over(Arc::new(MemoryStore::new()), None).await
}

pub(crate) async fn cluster_over(storage: Arc<dyn Storage>, audit: Option<std::path::PathBuf>) -> Cluster {
    cluster_with(storage, |config| config.audit = audit).await
}

/// A cluster whose configuration is changed first.
pub(crate) async fn cluster_with(storage: Arc<dyn Storage>, change: impl FnOnce(&mut Config)) -> Cluster {
    let pki = Arc::new(Pki::in_memory(ServingNames::new([], [])).unwrap());
    let nodes = Arc::new(FakeNodes::default());
    let mut config = Config::new(Arc::clone(&storage), Arc::clone(&pki), "127.0.0.1:6443");
    config.nodes = Some(Arc::clone(&nodes) as Arc<dyn NodeConnector>);
    change(&mut config);
    let server = ApiServer::new(config).await.unwrap();
    Cluster { server, storage, pki, nodes, user: UserInfo::admin("test-admin") }
}

impl Cluster {
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(self.server.service(self.user.clone()), "default")
    }

    /// The same server for another user.
    pub(crate) fn acting_as(&self, user: UserInfo) -> Self {
        Self {
            server: self.server.clone(),
            storage: Arc::clone(&self.storage),
            pki: Arc::clone(&self.pki),
            nodes: Arc::clone(&self.nodes),
            user,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.server.service(self.user.clone()).call(request).await.unwrap()
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(body.into()).unwrap()).await;
        let (parts, body) = response.into_parts();
        Answer { code: parts.status, headers: parts.headers, text: body.collect().await.unwrap().to_bytes() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.ask(Method::GET, path, &[("accept", accept)], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let kind = format!("application/{kind}+json");
        self.ask(Method::PATCH, path, &[("content-type", &kind)], body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.ask(Method::DELETE, path, &[("content-type", "application/json")], body).await
    }

    /// A ConfigMap in `default`.
    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}});
        self.post("/api/v1/namespaces/default/configmaps", &object).await.expect(201)
    }

    /// The account that pods need.
    pub(crate) async fn service_account(&self) -> Value {
        let object = json!({"metadata": {"name": "default"}});
        self.post("/api/v1/namespaces/default/serviceaccounts", &object).await.expect(201)
    }

    /// A pod in `default`.
    pub(crate) async fn pod(&self, name: &str) -> Value {
        self.post("/api/v1/namespaces/default/pods", &pod(name)).await.expect(201)
    }

    pub(crate) async fn watch(&self, path: &str) -> Watching {
        self.watch_as(path, "application/json").await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Watching {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        Watching { body: response.into_body(), rest: Vec::new() }
    }
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "sampan/hello"}]}})
}

/// A watch under way.
pub(crate) struct Watching {
    body: Body,
    rest: Vec<u8>,
}

impl Watching {
    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let mut stream = std::pin::pin!(self.body.frame());
            let frame = tokio::time::timeout(PATIENCE, &mut stream).await.expect("an event in time");
            match frame {
                Some(frame) => self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap_or_default()),
                None => return None,
            }
        }
    }

    /// The next event as `TYPE name`.
    pub(crate) async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        brief(&event)
    }

    /// Everything up to the end.
    pub(crate) async fn all(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

pub(crate) fn brief(event: &Value) -> String {
    let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
    format!("{} {name}", event["type"].as_str().unwrap()).trim_end().to_owned()
}

/// The names of a list's items.
pub(crate) fn names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The first `n` items of a stream.
pub(crate) async fn take<S: futures::Stream + Unpin>(stream: &mut S, n: usize) -> Vec<S::Item> {
    let mut items = Vec::new();
    while items.len() < n {
        let item = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an item in time");
        items.push(item.expect("an item"));
    }
    items
}
