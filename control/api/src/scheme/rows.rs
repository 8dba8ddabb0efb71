//! The rows of the scheme: every resource that is served, as Kubernetes 1.35 serves it.
//!
//! A row states only what differs from its group's template; a new resource is a new row here.

use super::{Resource, Subresource, Verb};

/// What can be asked of an ordinary stored resource.
const ALL: &[Verb] = &Verb::ALL;

/// What can be asked of a resource whose collection cannot be deleted at once.
const NO_COLLECTION: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// What can be asked of a review.
const CREATE: &[Verb] = &[Verb::Create];

const STATUS_VERBS: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// Kubernetes' order of groups in discovery, which is also the order of preference.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Where a group stands in discovery; groups not known here come last.
pub(super) fn group_rank(group: &str) -> usize {
    GROUP_ORDER.iter().position(|g| *g == group).unwrap_or(GROUP_ORDER.len())
}

/// A namespaced, stored resource of the core group.
const CORE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    namespaced: true,
    short_names: &[],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    schema: "",
    storage: None,
};

/// A cluster-wide review, answered at once and never stored.
const AUTHENTICATION: Resource =
    Resource { group: "authentication.k8s.io", namespaced: false, verbs: CREATE, ..CORE };

/// A cluster-wide review, answered at once and never stored.
const AUTHORIZATION: Resource = Resource { group: "authorization.k8s.io", ..AUTHENTICATION };

const fn subresource(name: &'static str, kind: &'static str, verbs: &'static [Verb]) -> Subresource {
    Subresource { name, kind, group_version: None, verbs }
}

/// Every resource that is served.
pub fn resources() -> &'static [Resource] {
    ROWS
}

static ROWS: &[Resource] = &[
    Resource {
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        verbs: CREATE,
        schema: "io.k8s.api.core.v1.Binding",
        ..CORE
    },
    Resource {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        schema: "io.k8s.api.core.v1.ConfigMap",
        storage: Some(("core", "configmaps")),
        ..CORE
    },
    Resource {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        schema: "io.k8s.api.core.v1.Event",
        storage: Some(("core", "events")),
        ..CORE
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        namespaced: false,
        short_names: &["ns"],
        verbs: NO_COLLECTION,
        subresources: &[
            subresource("finalize", "Namespace", &[Verb::Update]),
            subresource("status", "Namespace", STATUS_VERBS),
        ],
        schema: "io.k8s.api.core.v1.Namespace",
        storage: Some(("core", "namespaces")),
        ..CORE
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        namespaced: false,
        short_names: &["no"],
        subresources: &[subresource("status", "Node", STATUS_VERBS)],
        schema: "io.k8s.api.core.v1.Node",
        storage: Some(("core", "nodes")),
        ..CORE
    },
    Resource {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            subresource("binding", "Binding", CREATE),
            subresource("log", "Pod", &[Verb::Get]),
            subresource("status", "Pod", STATUS_VERBS),
        ],
        schema: "io.k8s.api.core.v1.Pod",
        storage: Some(("core", "pods")),
        ..CORE
    },
    Resource {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        schema: "io.k8s.api.core.v1.Secret",
        storage: Some(("core", "secrets")),
        ..CORE
    },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        subresources: &[Subresource {
            name: "token",
            kind: "TokenRequest",
            group_version: Some(("authentication.k8s.io", "v1")),
            verbs: CREATE,
        }],
        schema: "io.k8s.api.core.v1.ServiceAccount",
        storage: Some(("core", "serviceaccounts")),
        ..CORE
    },
    Resource {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        schema: "io.k8s.api.events.v1.Event",
        storage: Some(("core", "events")),
        ..CORE
    },
    Resource {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        schema: "io.k8s.api.coordination.v1.Lease",
        storage: Some(("coordination.k8s.io", "leases")),
        ..CORE
    },
    Resource {
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        schema: "io.k8s.api.authentication.v1.SelfSubjectReview",
        ..AUTHENTICATION
    },
    Resource {
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        schema: "io.k8s.api.authentication.v1.TokenReview",
        ..AUTHENTICATION
    },
    Resource {
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        namespaced: true,
        schema: "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        ..AUTHORIZATION
    },
    Resource {
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        schema: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        ..AUTHORIZATION
    },
    Resource {
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        schema: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        ..AUTHORIZATION
    },
    Resource {
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        schema: "io.k8s.api.authorization.v1.SubjectAccessReview",
        ..AUTHORIZATION
    },
];
