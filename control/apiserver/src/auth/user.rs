//! An authenticated identity.

use std::collections::BTreeMap;

/// The group whose members may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of everyone who is authenticated.
pub(crate) const ALL_AUTHENTICATED: &str = "system:authenticated";
/// The group of the cluster's servers, by their machine certificates.
pub const SERVERS: &str = "sampan:servers";
/// Where [`UserInfo::extra`] tells the key that a machine of the cluster proved: SHA-256 of the public
/// key (`SubjectPublicKeyInfo`), hex.
pub const KEY_EXTRA: &str = "sampan.io/key-id";
/// Groups of users who are known by their keys: the machines of the cluster.
pub(crate) const MACHINES: [&str; 2] = [SERVERS, "system:nodes"];
const ANONYMOUS: &str = "system:anonymous";
const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// Unique name: `kubernetes-admin`, `system:serviceaccount:default:default`.
    pub name: String,
    /// Tells apart users that had the same name at different times; often empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An authenticated user with these groups (and the group of all authenticated).
    pub fn new<'a>(name: impl Into<String>, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        if !groups.iter().any(|g| g == ALL_AUTHENTICATED) {
            groups.push(ALL_AUTHENTICATED.to_owned());
        }
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A part of the cluster itself, such as `system:kube-scheduler`.
    pub fn component(name: impl Into<String>) -> Self {
        Self::new(name, [])
    }

    /// An administrator, who may do everything.
    pub fn admin(name: impl Into<String>) -> Self {
        Self::new(name, [MASTERS])
    }

    /// The node agent of a node.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), ["system:nodes"])
    }

    /// A server of the cluster, as its machine certificate names it.
    pub fn server(name: &str) -> Self {
        Self::new(format!("sampan:server:{name}"), [SERVERS])
    }

    /// Nobody in particular: may ask for health and version.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![ALL_UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// A service account, as its token proves it.
    pub(crate) fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let group = format!("system:serviceaccounts:{namespace}");
        let mut user = Self::new(
            format!("system:serviceaccount:{namespace}:{name}"),
            ["system:serviceaccounts", &group],
        );
        uid.clone_into(&mut user.uid);
        user
    }

    /// Whether the user belongs to a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
