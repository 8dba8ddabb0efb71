//! The scheme: one row per resource that the API serves, and the ways to find a row.
//!
//! Discovery, routing, OpenAPI and storage keys are all derived from these rows (`rows.rs`); a new
//! resource is a new row. Nothing here knows how objects are stored or checked.

mod rows;

use std::fmt;
use std::sync::LazyLock;

pub use rows::resources;

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

    /// The verb spelled so, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text)
    }

    /// Every verb, in the order in which discovery lists them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];
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
    /// Where objects are stored: the group segment (`core` for the core group) and the plural under
    /// `/registry` (several versions of one kind, as the two Event APIs, share a place).
    pub storage: Option<(&'static str, &'static str)>,
}

impl Resource {
    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
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

/// One version of one API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupVersion {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
}

impl GroupVersion {
    /// Its resources, by plural name.
    pub fn resources(self) -> Vec<&'static Resource> {
        let mut found: Vec<_> =
            resources().iter().filter(|r| r.group == self.group && r.version == self.version).collect();
        found.sort_by_key(|r| r.plural);
        found
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(self.version)
        } else {
            write!(f, "{}/{}", self.group, self.version)
        }
    }
}

/// The resource at a path: `by_gvr("", "v1", "pods")`.
pub fn by_gvr(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.plural == plural && r.version == version && r.group == group)
}

/// The resource of a kind: `by_gvk("coordination.k8s.io", "v1", "Lease")`.
pub fn by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    resources().iter().find(|r| r.kind == kind && r.version == version && r.group == group)
}

/// The resource of an object's `apiVersion` and `kind`.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = split_api_version(api_version);
    by_gvk(group, version, kind)
}

/// `apps/v1` as `("apps", "v1")`, `v1` as `("", "v1")`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Every group and version served, the core group first and then in the order in which Kubernetes'
/// discovery prefers them; within a group the preferred version comes first.
pub fn group_versions() -> &'static [GroupVersion] {
    static SERVED: LazyLock<Vec<GroupVersion>> = LazyLock::new(|| {
        let mut all: Vec<GroupVersion> = Vec::new();
        for row in resources() {
            let gv = GroupVersion { group: row.group, version: row.version };
            if !all.contains(&gv) {
                all.push(gv);
            }
        }
        all.sort_by_key(|gv| (rows::group_rank(gv.group), gv.group, version_rank(gv.version)));
        all
    });
    &SERVED
}

/// The version of a group that discovery prefers.
pub fn preferred_version(group: &str) -> Option<&'static str> {
    group_versions().iter().find(|gv| gv.group == group).map(|gv| gv.version)
}

/// Where a version stands among those of its group: stable ones first, then beta, then alpha, the
/// higher number first in each.
fn version_rank(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>) {
    let text = version.strip_prefix('v').unwrap_or(version);
    let (major, stage, minor) = if let Some((major, minor)) = text.split_once("beta") {
        (major, 1, minor)
    } else if let Some((major, minor)) = text.split_once("alpha") {
        (major, 2, minor)
    } else {
        (text, 0, "")
    };
    let number = |digits: &str| std::cmp::Reverse(digits.parse().unwrap_or(0));
    (stage, number(major), number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_path_and_by_kind() {
        assert_eq!(by_gvr("", "v1", "pods").unwrap().kind, "Pod");
        assert_eq!(by_gvk("events.k8s.io", "v1", "Event").unwrap().storage, Some(("core", "events")));
        assert_eq!(by_api_version("coordination.k8s.io/v1", "Lease").unwrap().plural, "leases");
        assert!(by_gvr("apps", "v1", "pods").is_none());
    }

    #[test]
    fn the_core_group_comes_first_and_the_rest_in_discovery_order() {
        let names: Vec<String> = group_versions().iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "v1",
                "events.k8s.io/v1",
                "authentication.k8s.io/v1",
                "authorization.k8s.io/v1",
                "coordination.k8s.io/v1"
            ]
        );
    }

    #[test]
    fn stable_versions_come_before_beta_and_alpha_ones() {
        let mut versions = ["v1alpha1", "v1", "v2beta1", "v2", "v2beta2"];
        versions.sort_by_key(|v| version_rank(v));
        assert_eq!(versions, ["v2", "v1", "v2beta2", "v2beta1", "v1alpha1"]);
    }

    #[test]
    fn no_two_rows_share_a_path_or_a_kind() {
        let rows = resources();
        for (i, a) in rows.iter().enumerate() {
            for b in &rows[i + 1..] {
                assert_ne!((a.group, a.version, a.plural), (b.group, b.version, b.plural));
                assert_ne!((a.group, a.version, a.kind), (b.group, b.version, b.kind));
            }
        }
    }

    #[test]
    fn every_kind_that_is_served_has_a_schema() {
        for row in resources() {
            let message = crate::schema::message(row.schema).unwrap();
            assert_eq!(message.kind, Some((row.group, row.version, row.kind)), "{row}");
            for sub in row.subresources {
                let (group, version) = sub.group_version.unwrap_or((row.group, row.version));
                assert!(crate::schema::kind(group, version, sub.kind).is_some(), "{row}/{}", sub.name);
            }
        }
    }

    #[test]
    fn verbs_are_read_as_they_are_written() {
        for verb in Verb::ALL {
            assert_eq!(Verb::parse(verb.as_str()), Some(verb));
        }
        assert_eq!(Verb::parse("GET"), None);
    }

    #[test]
    fn every_row_is_named_consistently() {
        for row in resources() {
            assert_eq!(row.singular, row.kind.to_lowercase(), "{row}");
            assert!(row.schema.ends_with(&format!(".{}.{}", row.version, row.kind)), "{row}");
            assert_eq!(row.storage.is_some(), row.serves(Verb::Get), "{row}");
            let verbs: Vec<_> = row.verbs.iter().map(|v| v.as_str()).collect();
            assert!(verbs.is_sorted(), "{row}");
            let names: Vec<_> = row.subresources.iter().map(|s| s.name).collect();
            assert!(names.is_sorted(), "{row}");
        }
    }
}
