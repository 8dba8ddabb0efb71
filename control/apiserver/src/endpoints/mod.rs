//! Endpoints: what the API answers to each verb. A file a verb or subresource.
//!
//! [`dispatch`] gets a request that has passed the filters, finds the resource and calls the verb.
//! Endpoints decode and encode; what objects may be and how they are kept is the registry's.

mod bind;
mod continue_token;
mod create;
mod decode;
mod delete;
mod get;
mod list;
mod log;
pub(crate) mod negotiate;
mod options;
mod patch;
pub(crate) mod query;
pub(crate) mod request_info;
pub(crate) mod respond;
mod reviews;
mod table;
mod token;
mod update;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Response};
use jiff::Timestamp;
use sampan_api::scheme::{self, Resource, Verb};
use sampan_api::status::Status;

use crate::auth::UserInfo;
use crate::body::Body;
use crate::core::Core;
use crate::registry::strategy::{Context, Part};
use crate::registry::{Registry, Warnings, Write};
use negotiate::{Include, Output};
use query::Query;
use request_info::RequestInfo;

pub use log::{NodeConnector, NodeError};

/// A request that may be served.
pub(crate) struct Call {
    pub(crate) core: Arc<Core>,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) user: UserInfo,
    pub(crate) body: Bytes,
    pub(crate) warnings: Warnings,
    pub(crate) now: Timestamp,
}

impl Call {
    fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The body's media type, with parameters.
    fn content_type(&self) -> &str {
        self.header(CONTENT_TYPE)
    }

    /// The form in which the client wants the answer.
    fn output(&self) -> Result<Output, Status> {
        // A header may come in several lines.
        let lines: Vec<&str> = self.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        negotiate::negotiate(&lines.join(","))
    }

    /// What of each object goes into a table.
    fn include(&self) -> Result<Include, Status> {
        match self.query.get("includeObject") {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::None),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }

    /// How objects of a resource are answered.
    fn renderer<'a>(&'a self, target: Target<'a>) -> Result<respond::Renderer<'a>, Status> {
        Ok(respond::Renderer {
            registry: target.registry,
            requested: target.resource,
            output: self.output()?,
            include: self.include()?,
            now: self.now,
        })
    }

    /// A write to a part of an object.
    fn write(&self, target: Target<'_>, part: Part, dry_run: bool) -> Write<'_> {
        Write {
            cx: Context { requested: target.resource, part, now: self.now },
            subresource: &self.info.subresource,
            namespace: self.namespace(target.resource),
            dry_run,
            admission: &self.core.admission,
            warnings: &self.warnings,
        }
    }

    /// The namespace of the objects meant: none for cluster-scoped kinds.
    fn namespace(&self, resource: &Resource) -> &str {
        if resource.namespaced { &self.info.namespace } else { "" }
    }
}

/// A stored resource, as it is requested and where it is kept.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The resource as the path names it.
    pub(crate) resource: &'static Resource,
    /// Where its objects are.
    pub(crate) registry: &'a Registry,
}

/// Serves a request for a resource.
pub(crate) async fn dispatch(call: Arc<Call>) -> Result<Response<Body>, Status> {
    let info = &call.info;
    let resource =
        scheme::by_gvr(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_resource)?;
    // A cluster-scoped kind has no place in a namespace.
    let misplaced = !resource.namespaced && !info.namespace.is_empty() && resource.plural != "namespaces";
    if misplaced || !info.rest.is_empty() {
        return Err(Status::no_such_resource());
    }
    let verb = Verb::parse(&info.verb).ok_or_else(Status::method_not_allowed)?;
    let collective = matches!(verb, Verb::List | Verb::Watch);
    if resource.namespaced && info.namespace.is_empty() && !collective && !reviewable(resource) {
        return Err(Status::method_not_allowed());
    }
    if verb == Verb::Create && info.subresource.is_empty() && !info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    if info.subresource.is_empty() {
        if !resource.serves(verb) {
            return Err(Status::method_not_allowed());
        }
    } else {
        let subresource = resource.subresource(&info.subresource).ok_or_else(Status::no_such_resource)?;
        if !subresource.verbs.contains(&verb) {
            return Err(Status::method_not_allowed());
        }
    }
    let core = Arc::clone(&call.core);
    let Some(registry) = core.registries.of(resource) else {
        return reviews::serve(&call, resource).await;
    };
    let target = Target { resource, registry };
    match (verb, info.subresource.as_str()) {
        (Verb::Get, "log") => log::get(&call).await,
        (Verb::Create, "binding") => bind::create(&call, target).await,
        (Verb::Create, "token") => token::create(&call, target).await,
        (Verb::Get, _) => get::get(&call, target).await,
        (Verb::List, _) => list::list(&call, target).await,
        (Verb::Watch, _) => watch::watch(&call, target).await,
        (Verb::Create, _) => create::create(&call, target).await,
        (Verb::Update, subresource) => update::update(&call, target, part(subresource)?).await,
        (Verb::Patch, subresource) => patch::patch(&call, target, part(subresource)?).await,
        (Verb::Delete, _) => delete::delete(&call, target).await,
        (Verb::DeleteCollection, _) => delete::delete_collection(&call, target).await,
    }
}

/// Whether a namespaced kind is not stored (it says in its body what it is about).
fn reviewable(resource: &Resource) -> bool {
    resource.storage.is_none() && resource.group == "authorization.k8s.io" && !resource.namespaced
}

fn part(subresource: &str) -> Result<Part, Status> {
    Part::of_subresource(subresource).ok_or_else(Status::no_such_resource)
}
