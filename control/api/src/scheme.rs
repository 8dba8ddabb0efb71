//! The scheme: one row per resource that the API serves.

use std::fmt;

/// What can be asked of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Make one.
    Create,
    /// Delete one.
    Delete,
    /// Delete many.
    DeleteCollection,
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Change part of one.
    Patch,
    /// Replace one.
    Update,
    /// Follow changes.
    Watch,
}

impl Verb {
    /// The verb as discovery and RBAC spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A resource's subresource: `pods/log`, `pods/binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Its name: `log`.
    pub name: &'static str,
    /// The kind that it takes and gives.
    pub kind: &'static str,
    /// That kind's group and version, where they differ from the resource's (`policy`, `v1`).
    pub group_version: Option<(&'static str, &'static str)>,
    /// What can be asked of it.
    pub verbs: &'static [Verb],
}

/// One kind of object that the API serves, in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural name: the path segment.
    pub plural: &'static str,
    /// Singular name.
    pub singular: &'static str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Short names for command lines.
    pub short_names: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// What can be asked of it. Review kinds can only be created and are not stored.
    pub verbs: &'static [Verb],
    /// Its subresources.
    pub subresources: &'static [Subresource],
    /// The full name of its type in the schema table: `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Where objects are stored: the group and plural under `/registry` (several versions of one
    /// kind, as the two Event APIs, share a place).
    pub storage: Option<(&'static str, &'static str)>,
}

impl Resource {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`: the name in messages.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether the verb is served.
    pub fn serves(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}
