//! Namespaces.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::meta;
use sampan_api::names;
use serde_json::Value;

use super::checks::{Errors, each};
use super::view::{member, part, text, texts, walk};

fn finalizer(name: &str, path: &FieldPath, out: &mut Errors) {
    each(path, name, names::is_qualified_name(name), out);
    out.extend(meta::validate_finalizer_name(name, path));
}

/// What is wrong with a new namespace.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let path = FieldPath::new("spec").child("finalizers");
    for name in texts(member(object, "spec"), "finalizers") {
        finalizer(name, &path, &mut out);
    }
    out
}

/// What is wrong with a reported status: the phase says whether the namespace is being deleted.
pub fn validate_status(object: &Value) -> Vec<FieldError> {
    let phase = text(member(object, "status"), "phase");
    let deleting = part(member(object, "metadata"), "deletionTimestamp").is_some();
    let (expected, text) = if deleting {
        ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
    } else {
        ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
    };
    if phase == expected {
        return Errors::new();
    }
    vec![FieldError::invalid(&FieldPath::new("status").child("Phase"), phase, text)]
}

/// What is wrong with changed finalizers.
pub fn validate_finalize(object: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let path = FieldPath::new("spec").child("finalizers");
    for (i, name) in texts(walk(object, &["spec"]), "finalizers").enumerate() {
        finalizer(name, &path.index(i), &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts as shown;

    #[test]
    fn finalizers_are_qualified_or_well_known() {
        let with = |name: &str| json!({"spec": {"finalizers": [name]}});
        assert!(validate(&with("kubernetes")).is_empty());
        assert!(validate_finalize(&with("example.com/a")).is_empty());
        let text = "name is neither a standard finalizer name nor is it fully qualified";
        assert_eq!(shown(&validate(&with("a"))), [format!("spec.finalizers: Invalid value: \"a\": {text}")]);
        assert_eq!(
            shown(&validate_finalize(&with("a"))),
            [format!("spec.finalizers[0]: Invalid value: \"a\": {text}")]
        );
    }

    #[test]
    fn the_phase_follows_deletion() {
        for (phase, deleting, expected) in [
            ("Active", false, ""),
            ("Terminating", true, ""),
            (
                "Terminating",
                false,
                "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
            ),
            (
                "Active",
                true,
                "status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty",
            ),
        ] {
            let mut object = json!({"metadata": {}, "status": {"phase": phase}});
            if deleting {
                object["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
            }
            assert_eq!(shown(&validate_status(&object)).join("\n"), expected, "{phase} {deleting}");
        }
    }
}
