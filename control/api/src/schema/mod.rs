//! The schema table: what every message of the API looks like.
//!
//! One generated table (`generated/schema.txt`, written by `sampan-api-gen`) gives names, types,
//! protobuf tags and merge rules. Decoding, strict checking, patches and OpenAPI walk it; nothing
//! here is written by kind. The table is parsed once, on first use, and never changes.

mod load;
mod types;
mod zero;

use std::sync::OnceLock;

pub use types::{Field, Kind, ListType, MapType, Message, MessageRef, Patch, Shape, Wire};

use load::Table;

/// The table's text. Names are slices of it, so that nothing is copied.
const SOURCE: &str = include_str!("../../generated/schema.txt");

/// What JSON schemas in custom resource definitions are made of; some types are this or something else.
pub(crate) const SCHEMA_PROPS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// Kinds that belong to every group.
const COMMON_KINDS: &[(&str, &str)] = &[
    ("CreateOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.CreateOptions"),
    ("DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
    ("GetOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.GetOptions"),
    ("ListOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.ListOptions"),
    ("PatchOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.PatchOptions"),
    ("UpdateOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.UpdateOptions"),
    ("WatchEvent", "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"),
];

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    // The text is part of the program and the tests load it: a table that cannot be read never
    // leaves the workshop.
    TABLE.get_or_init(|| load::load(SOURCE).unwrap_or_default())
}

/// The message with this full name (`io.k8s.api.core.v1.Pod`).
pub fn message(name: &str) -> Option<&'static Message> {
    table().by_name(name)
}

/// The message of a kind: `("apps", "v1", "Deployment")`; the core group is empty.
///
/// Options travel under the group and version of what they are about, so that these are found under
/// any: `("apps", "v1", "DeleteOptions")`.
pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    table().by_kind(group, version, kind).or_else(|| {
        let name = COMMON_KINDS.iter().find(|(common, _)| *common == kind).map(|(_, name)| *name)?;
        message(name)
    })
}

/// The table's text: two processes with the same text have the same table.
pub fn source() -> &'static str {
    SOURCE
}

/// All messages, by name.
pub fn messages() -> &'static [Message] {
    &table().messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_table_loads() {
        let table = load::load(SOURCE).unwrap();
        assert!(table.messages.len() > 500, "{}", table.messages.len());
        assert!(table.messages.is_sorted_by_key(|message| message.name));
    }

    #[test]
    fn messages_are_found_by_name_and_by_kind() {
        let pod = message("io.k8s.api.core.v1.Pod").unwrap();
        assert_eq!(pod.kind, Some(("", "v1", "Pod")));
        assert_eq!((pod.short_name(), pod.go_name()), ("Pod", "v1.Pod"));
        assert_eq!(kind("", "v1", "Pod").unwrap().name, pod.name);
        assert_eq!(kind("autoscaling", "v1", "Scale").unwrap().name, "io.k8s.api.autoscaling.v1.Scale");
        assert_eq!(kind("apps", "v1", "DeleteOptions").unwrap().short_name(), "DeleteOptions");
        assert!(kind("apps", "v2", "Deployment").is_none());
        assert!(message("Pod").is_none());
    }

    #[test]
    fn fields_know_their_types_and_merge_rules() {
        let field = |message_name: &str, field: &str| *message(message_name).unwrap().field(field).unwrap();
        let ports = field("io.k8s.api.core.v1.Container", "ports");
        assert!(ports.is_list() && ports.patch.merge && !ports.is_atomic());
        assert_eq!(ports.patch.merge_key, Some("containerPort"));
        assert_eq!(ports.list_keys(), ["containerPort", "protocol"]);
        assert_eq!(ports.message().unwrap().short_name(), "ContainerPort");
        assert_eq!(ports.element().shape, Shape::One);
        assert_eq!(ports.go_type(), "[]v1.ContainerPort");
        let volumes = field("io.k8s.api.core.v1.PodSpec", "volumes");
        assert_eq!((volumes.patch.strategy(), volumes.patch.merge_key), ("merge,retainKeys", Some("name")));
        let finalizers = field("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers");
        assert_eq!((finalizers.list_type, finalizers.patch.strategy()), (Some(ListType::Set), "merge"));
        assert!(field("io.k8s.api.core.v1.PodSpec", "nodeSelector").is_atomic());
        assert!(field("io.k8s.api.core.v1.Container", "args").is_atomic());
        assert!(!field("io.k8s.api.core.v1.Pod", "spec").is_atomic());
        assert!(field("io.k8s.api.apps.v1.DeploymentSpec", "selector").is_atomic());
        assert!(field("io.k8s.api.apps.v1.DeploymentSpec", "replicas").keeps_zero());
        assert!(!field("io.k8s.api.apps.v1.DeploymentStatus", "replicas").keeps_zero());
    }

    #[test]
    fn fields_of_inlined_messages_are_the_messages_own() {
        let volume = message("io.k8s.api.core.v1.Volume").unwrap();
        let empty_dir = volume.field("emptyDir").unwrap();
        assert!(empty_dir.inline);
        assert_eq!(empty_dir.message().unwrap().short_name(), "EmptyDirVolumeSource");
        let Some(Wire::Inline(source)) = volume.wire(2) else { panic!("the source is not inlined") };
        assert_eq!(source.get().short_name(), "VolumeSource");
        // Twice inlined: a probe's handler, an ephemeral container's common part.
        assert!(message("io.k8s.api.core.v1.Probe").unwrap().field("httpGet").is_some());
        assert!(message("io.k8s.api.core.v1.EphemeralContainer").unwrap().field("image").is_some());
    }

    #[test]
    fn every_merge_key_is_a_field_of_its_elements() {
        for message in messages() {
            for field in message.fields {
                let keys = field.patch.merge_key.iter().chain(field.list_keys());
                for key in keys {
                    let element = field.message().unwrap();
                    assert!(element.field(key).is_some(), "{}.{}: {key}", message.name, field.name);
                }
            }
        }
    }
}
