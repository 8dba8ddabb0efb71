//! What a request of the kubelet is about, as far as the mirror cares. Pure.

use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use sampan_api::scheme::{self, Resource};
use sampan_api::selector::fields::FieldSelector;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

/// Which objects a list or watch wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of the kind (and of the namespace, where one is named).
    All,
    /// The one of this name.
    Name(String),
    /// Pods that are bound to this node.
    Node(String),
    /// A choice that the mirror cannot make.
    Else,
}

/// A request for a resource.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) verb: Verb,
    pub(crate) resource: &'static Resource,
    /// Empty for cluster-scoped ones, and for lists over all namespaces.
    pub(crate) namespace: String,
    /// Empty for lists, watches and creations.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) wanted: Wanted,
    /// Whether a list is the rest of one that came in pieces.
    pub(crate) continued: bool,
}

impl Ask {
    /// What a request asks for; `None` where it is not about a known resource.
    pub(crate) fn parse(method: &Method, uri: &Uri) -> Option<Self> {
        let segments: Vec<String> = uri
            .path()
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // A namespace itself, or a subresource of one.
            ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        let query = Query::parse(uri.query().unwrap_or_default());
        let verb = match *method {
            Method::GET if query.watch => Verb::Watch,
            Method::GET if name.is_empty() => Verb::List,
            Method::GET => Verb::Get,
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            _ => return None,
        };
        Some(Self {
            verb,
            resource: scheme::by_gvr(group, version, plural)?,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            wanted: query.wanted,
            continued: query.continued,
        })
    }

    /// The plural of a resource of the core group; empty for others.
    pub(crate) fn core(&self) -> &'static str {
        if self.resource.group.is_empty() { self.resource.plural } else { "" }
    }
}

struct Query {
    watch: bool,
    wanted: Wanted,
    continued: bool,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self { watch: false, wanted: Wanted::All, continued: false };
        for (name, value) in form_urlencoded(text) {
            match name.as_str() {
                "watch" => query.watch = matches!(value.as_str(), "true" | "1"),
                "continue" => query.continued = !value.is_empty(),
                "labelSelector" if !value.is_empty() => query.wanted = Wanted::Else,
                "fieldSelector" if !value.is_empty() && query.wanted == Wanted::All => {
                    query.wanted = chosen(&value);
                }
                _ => {}
            }
        }
        query
    }
}

fn chosen(selector: &str) -> Wanted {
    let Ok(selector) = FieldSelector::parse(selector) else { return Wanted::Else };
    if selector.requirements().len() > 1 {
        return Wanted::Else;
    }
    match (selector.exact("metadata.name"), selector.exact("spec.nodeName")) {
        (Some(name), None) => Wanted::Name(name.to_owned()),
        (None, Some(node)) => Wanted::Node(node.to_owned()),
        _ => Wanted::Else,
    }
}

/// The pairs of a query.
fn form_urlencoded(text: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> Option<(Verb, &'static str, String, String, String, Wanted)> {
        let ask = Ask::parse(&method, &uri.parse().unwrap())?;
        Some((ask.verb, ask.resource.plural, ask.namespace, ask.name, ask.subresource, ask.wanted))
    }

    #[test]
    fn the_kubelets_requests_are_understood() {
        let owned = |texts: [&str; 3]| texts.map(str::to_owned);
        let cases = [
            (
                Method::GET,
                "/api/v1/pods?&fieldSelector=spec.nodeName%3Dn1&limit=500",
                (Verb::List, "pods", ["", "", ""], Wanted::Node("n1".into())),
            ),
            (
                Method::GET,
                "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1&resourceVersion=1",
                (Verb::Watch, "pods", ["", "", ""], Wanted::Node("n1".into())),
            ),
            (
                Method::GET,
                "/api/v1/namespaces/ns/configmaps?fieldSelector=metadata.name%3Da",
                (Verb::List, "configmaps", ["ns", "", ""], Wanted::Name("a".into())),
            ),
            (Method::GET, "/api/v1/nodes/n1", (Verb::Get, "nodes", ["", "n1", ""], Wanted::All)),
            (
                Method::PATCH,
                "/api/v1/namespaces/ns/pods/p/status?",
                (Verb::Patch, "pods", ["ns", "p", "status"], Wanted::All),
            ),
            (
                Method::POST,
                "/api/v1/namespaces/ns/serviceaccounts/default/token",
                (Verb::Create, "serviceaccounts", ["ns", "default", "token"], Wanted::All),
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
                (Verb::Update, "leases", ["kube-node-lease", "n1", ""], Wanted::All),
            ),
            (Method::GET, "/api/v1/namespaces/ns", (Verb::Get, "namespaces", ["", "ns", ""], Wanted::All)),
            (
                Method::GET,
                "/api/v1/pods?labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dn1",
                (Verb::List, "pods", ["", "", ""], Wanted::Else),
            ),
        ];
        for (method, uri, (verb, plural, place, wanted)) in cases {
            let [namespace, name, subresource] = owned(place);
            assert_eq!(
                parse(method, uri),
                Some((verb, plural, namespace, name, subresource, wanted)),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_is_no_resource_is_left_alone() {
        for uri in ["/version", "/api", "/api/v1", "/apis/none/v1/things", "/api/v1/pods/a/b/c"] {
            assert_eq!(parse(Method::GET, uri), None, "{uri}");
        }
    }
}
