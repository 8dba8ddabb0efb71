//! What a user may do. One trait, so that richer authorizers can stand beside the built-in one.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::user::{MASTERS, UserInfo};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes<'a> {
    /// A verb on a resource.
    Resource {
        /// The verb: `get`, `list`, `deletecollection`.
        verb: &'a str,
        /// API group.
        group: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource, or empty.
        subresource: &'a str,
        /// Namespace, or empty for cluster scope.
        namespace: &'a str,
        /// Object's name, or empty.
        name: &'a str,
    },
    /// A verb on a path that is no resource.
    Path {
        /// The verb: `get`.
        verb: &'a str,
        /// The path: `/version`.
        path: &'a str,
    },
}

/// The answer of an authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead.
    Allow(String),
    /// No opinion; refused if nobody else allows.
    NoOpinion,
    /// Refused, and why: users are told.
    Deny(String),
}

/// Decides what users may do.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `user` may do this.
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision;

    /// The rules for a user in a namespace, as `SelfSubjectRulesReview` reports them:
    /// resource rules and non-resource rules.
    async fn rules(&self, user: &UserInfo, namespace: &str) -> (Vec<Value>, Vec<Value>);
}

/// Allows administrators and the cluster's own components everything, everyone the health and
/// version endpoints, authenticated users the reviews about themselves, and nobody anything else.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltInAuthorizer;

/// The cluster's own components.
const COMPONENTS: &[&str] = &["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"];

/// Paths that anyone may read.
pub(crate) const PUBLIC_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

/// Below this lie the routes that are this project's own.
pub(crate) const EXTENSION_ROOT: &str = "/sampan/v1";

/// Paths by which a machine joins or proves that it has joined: its proof is in the request's body.
pub(crate) const JOIN_PATHS: &[&str] =
    &["/sampan/v1/ca", "/sampan/v1/enroll", "/sampan/v1/renew", "/sampan/v1/time"];

/// What a server of the cluster asks the others for: to become a member, under its own name (the
/// route checks that).
const SERVER_PATHS: &[&str] = &["/sampan/v1/members"];

/// Paths that clients need before they know what they may do.
const DISCOVERY_PATHS: &[&str] = &["/api", "/apis", "/openapi"];

impl BuiltInAuthorizer {
    fn all_powerful(user: &UserInfo) -> Option<&'static str> {
        if user.in_group(MASTERS) {
            return Some("member of system:masters");
        }
        let component = COMPONENTS.contains(&user.name.as_str())
            || (user.name.starts_with("system:node:") && user.in_group("system:nodes"));
        component.then_some("a component of the cluster")
    }
}

/// Whether `path` is `root` or lies below it.
pub(crate) fn at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[async_trait]
impl Authorizer for BuiltInAuthorizer {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        if let Attributes::Path { path, .. } = attributes
            && at_or_below(path, EXTENSION_ROOT)
        {
            return extension(user, path);
        }
        if let Some(why) = Self::all_powerful(user) {
            return Decision::Allow(why.into());
        }
        let allowed = match attributes {
            Attributes::Path { verb: "get" | "head", path } => {
                PUBLIC_PATHS.iter().any(|root| at_or_below(path, root))
                    || (user.in_group(super::ALL_AUTHENTICATED)
                        && DISCOVERY_PATHS.iter().any(|root| at_or_below(path, root)))
            }
            Attributes::Resource { verb: "create", group, resource, subresource: "", .. } => {
                user.in_group(super::ALL_AUTHENTICATED) && about_oneself(group, resource)
            }
            _ => false,
        };
        if allowed { Decision::Allow("open to every user".into()) } else { Decision::NoOpinion }
    }

    async fn rules(&self, user: &UserInfo, _namespace: &str) -> (Vec<Value>, Vec<Value>) {
        if Self::all_powerful(user).is_some() {
            let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
            return (vec![all], vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})]);
        }
        let reviews = vec![
            json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
                "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
            json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}),
        ];
        let below = DISCOVERY_PATHS.iter().flat_map(|p| [(*p).to_owned(), format!("{p}/*")]);
        let paths: Vec<String> = PUBLIC_PATHS.iter().map(|p| (*p).to_owned()).chain(below).collect();
        (reviews, vec![json!({"verbs": ["get"], "nonResourceURLs": paths})])
    }
}

/// The routes of this project: components and nodes have no business there, administrators do.
fn extension(user: &UserInfo, path: &str) -> Decision {
    let why = if JOIN_PATHS.contains(&path) {
        "open to everyone"
    } else if user.in_group(MASTERS) {
        "member of system:masters"
    } else if user.in_group(super::SERVERS) && SERVER_PATHS.iter().any(|root| at_or_below(path, root)) {
        "a server of the cluster"
    } else {
        return Decision::NoOpinion;
    };
    Decision::Allow(why.into())
}

fn about_oneself(group: &str, resource: &str) -> bool {
    matches!(
        (group, resource),
        ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
            | ("authentication.k8s.io", "selfsubjectreviews")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(verb: &'static str) -> Attributes<'static> {
        Attributes::Resource {
            verb,
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "default",
            name: "",
        }
    }

    #[tokio::test]
    async fn only_administrators_and_components_may_touch_resources() {
        let cases = [
            (UserInfo::admin("root"), true),
            (UserInfo::component("system:kube-scheduler"), true),
            (UserInfo::node("n1"), true),
            (UserInfo::component("system:node:n1"), false),
            (UserInfo::new("jane", ["devs"]), false),
            (UserInfo::service_account("default", "default", "u"), false),
            (UserInfo::anonymous(), false),
        ];
        for (user, expected) in cases {
            let decision = BuiltInAuthorizer.authorize(&user, &pods("list")).await;
            assert_eq!(matches!(decision, Decision::Allow(_)), expected, "{}", user.name);
        }
    }

    #[tokio::test]
    async fn the_routes_of_this_project_are_for_administrators_but_those_to_join_by() {
        let nobody = UserInfo::anonymous();
        let server = UserInfo::server("s1");
        let node = UserInfo::node("n1");
        let root = UserInfo::admin("root");
        for (user, path, expected) in [
            (&nobody, "/sampan/v1/ca", true),
            (&nobody, "/sampan/v1/enroll", true),
            (&nobody, "/sampan/v1/renew", true),
            (&nobody, "/sampan/v1/time", true),
            (&nobody, "/sampan/v1/ca/x", false),
            (&nobody, "/sampan/v1/tokens", false),
            (&node, "/sampan/v1/tokens", false),
            (&node, "/sampan/v1/snapshot", false),
            (&node, "/sampan/v1/members", false),
            (&server, "/sampan/v1/members/1", true),
            (&server, "/sampan/v1/snapshot", false),
            (&root, "/sampan/v1/snapshot", true),
        ] {
            let decision = BuiltInAuthorizer.authorize(user, &Attributes::Path { verb: "post", path }).await;
            assert_eq!(matches!(decision, Decision::Allow(_)), expected, "{} {path}", user.name);
        }
    }

    #[tokio::test]
    async fn everyone_may_ask_for_health_and_the_authenticated_for_discovery() {
        let jane = UserInfo::new("jane", []);
        let nobody = UserInfo::anonymous();
        for (user, path, expected) in [
            (&nobody, "/healthz", true),
            (&nobody, "/readyz/ping", true),
            (&nobody, "/healthzz", false),
            (&nobody, "/apis", false),
            (&jane, "/apis", true),
            (&jane, "/openapi/v3/api/v1", true),
            (&jane, "/metrics", false),
        ] {
            let decision = BuiltInAuthorizer.authorize(user, &Attributes::Path { verb: "get", path }).await;
            assert_eq!(matches!(decision, Decision::Allow(_)), expected, "{} {path}", user.name);
        }
    }
}
