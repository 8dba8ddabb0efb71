//! What a request is about, read from its method and path as Kubernetes reads them.

use http::Method;
use sampan_api::selector::fields::FieldSelector;

use super::query::Query;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// Whether it is about an API resource; else only `path` and `verb` mean something.
    pub(crate) is_resource: bool,
    /// The path.
    pub(crate) path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the
    /// method in lower case where it is no resource.
    pub(crate) verb: String,
    /// API group, empty for the core.
    pub(crate) group: String,
    /// API version.
    pub(crate) version: String,
    /// Namespace, or empty.
    pub(crate) namespace: String,
    /// Plural name of the resource.
    pub(crate) resource: String,
    /// Subresource, or empty.
    pub(crate) subresource: String,
    /// Object's name, or empty.
    pub(crate) name: String,
    /// Whatever follows the subresource.
    pub(crate) rest: Vec<String>,
}

/// Subresources of namespaces, which would else look like resources in one.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads a request.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let segments: Vec<String> = path.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_lowercase(), ..Self::default() };
        let parts = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        // The old way to ask for a watch.
        let parts = match parts {
            ["watch", rest @ ..] if !rest.is_empty() => {
                info.verb = "watch".to_owned();
                rest
            }
            parts => parts,
        };
        info.locate(parts);
        info.refine(query);
        info
    }

    fn locate(&mut self, parts: &[&str]) {
        let parts = match parts {
            ["namespaces", namespace, below @ ..] => {
                (*namespace).clone_into(&mut self.namespace);
                match below {
                    [] => parts,
                    [first, ..] if NAMESPACE_SUBRESOURCES.contains(first) => parts,
                    _ => below,
                }
            }
            _ => parts,
        };
        let mut parts = parts.iter().map(|p| (*p).to_owned());
        self.resource = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default();
        self.subresource = parts.next().unwrap_or_default();
        self.rest = parts.collect();
    }

    fn refine(&mut self, query: &Query) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        // Whoever may see one object may list and watch that one.
        if self.name.is_empty()
            && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
            && let Some(Ok(selector)) = query.get("fieldSelector").map(FieldSelector::parse)
            && let Some(name) = selector.exact("metadata.name")
        {
            name.clone_into(&mut self.name);
        }
    }

    /// Whether the request may take as long as it likes.
    pub(crate) fn is_long_running(&self, query: &Query) -> bool {
        self.is_resource && (self.verb == "watch" || (self.subresource == "log" && query.flag("follow")))
    }

    /// `pods/log`: the resource as rules and metrics name it.
    pub(crate) fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// verb, group, version, namespace, resource, subresource, name
    type Expected = [&'static str; 7];

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let cases: &[(Method, &str, Expected)] = &[
            (Method::GET, "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
            (Method::GET, "/api/v1/namespaces/other", ["get", "", "v1", "other", "namespaces", "", "other"]),
            (
                Method::PUT,
                "/api/v1/namespaces/other/finalize",
                ["update", "", "v1", "other", "namespaces", "finalize", "other"],
            ),
            (Method::GET, "/api/v1/namespaces/other/pods", ["list", "", "v1", "other", "pods", "", ""]),
            (
                Method::GET,
                "/api/v1/namespaces/other/pods?watch=true",
                ["watch", "", "v1", "other", "pods", "", ""],
            ),
            (
                Method::GET,
                "/api/v1/namespaces/other/pods?watch=false",
                ["list", "", "v1", "other", "pods", "", ""],
            ),
            (
                Method::GET,
                "/api/v1/watch/namespaces/other/pods",
                ["watch", "", "v1", "other", "pods", "", ""],
            ),
            (Method::GET, "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
            (Method::HEAD, "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
            (Method::GET, "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "other", "pods", "", "foo"]),
            (
                Method::GET,
                "/api/v1/namespaces/other/pods/foo/log",
                ["get", "", "v1", "other", "pods", "log", "foo"],
            ),
            (
                Method::POST,
                "/api/v1/namespaces/other/pods/foo/binding",
                ["create", "", "v1", "other", "pods", "binding", "foo"],
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/other/pods",
                ["deletecollection", "", "v1", "other", "pods", "", ""],
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/other/pods/foo",
                ["delete", "", "v1", "other", "pods", "", "foo"],
            ),
            (Method::PATCH, "/api/v1/nodes/n/status", ["patch", "", "v1", "", "nodes", "status", "n"]),
            (
                Method::GET,
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                ["get", "coordination.k8s.io", "v1", "a", "leases", "", "b"],
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/events?fieldSelector=metadata.name%3Dfoo",
                ["list", "", "v1", "a", "events", "", "foo"],
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/events?fieldSelector=metadata.name!%3Dfoo",
                ["list", "", "v1", "a", "events", "", ""],
            ),
            (Method::GET, "/api/v1/nodes/a%2Fb", ["get", "", "v1", "", "nodes", "", "a/b"]),
        ];
        for (method, uri, expected) in cases {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let info = RequestInfo::parse(method, path, &Query::parse(query));
            let got = [
                &info.verb,
                &info.group,
                &info.version,
                &info.namespace,
                &info.resource,
                &info.subresource,
                &info.name,
            ];
            assert_eq!(got.map(String::as_str), *expected, "{method} {uri}");
            assert!(info.is_resource, "{uri}");
        }
    }

    #[test]
    fn discovery_and_other_paths_are_no_resources() {
        for path in
            ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3/api/v1"]
        {
            let info = RequestInfo::parse(&Method::GET, path, &Query::default());
            assert!(!info.is_resource, "{path}");
            assert_eq!(info.verb, "get");
        }
    }
}
