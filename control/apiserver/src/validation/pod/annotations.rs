//! Annotations that mean something on pods.

use sampan_api::field::{FieldError, FieldPath};
use serde_json::{Map, Value};

use super::{each_container, scheduling};
use crate::validation::checks::{Errors, descending_path};
use crate::validation::view::{map, text};

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub(super) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";

/// The annotations of a pod or a template.
pub(super) fn of_pod(metadata: &Value, spec: &Value, path: &FieldPath, out: &mut Errors) {
    let annotations = map(metadata, "annotations");
    let said = |key: &str| annotations.get(key).and_then(Value::as_str);
    if let Some(value) = said(MIRROR)
        && text(spec, "nodeName").is_empty()
    {
        let text = "must set spec.nodeName if mirror pod annotation is set";
        out.push(FieldError::invalid(&path.key(MIRROR), value, text));
    }
    if let Some(value) = said(TOLERATIONS).filter(|value| !value.is_empty()) {
        match serde_json::from_str::<Vec<Value>>(value) {
            Ok(tolerations) => scheduling::tolerations(&tolerations, &path.child(TOLERATIONS), out),
            Err(error) => out.push(FieldError::invalid(path, TOLERATIONS, error.to_string())),
        }
    }
    if let Some(value) = said(DELETION_COST).filter(|value| !is_cost(value)) {
        out.push(FieldError::invalid(&path.key(DELETION_COST), value, "must be a 32bit integer"));
    }
    seccomp(annotations, path, out);
    app_armor(annotations, spec, path, out);
}

/// A cost is written as Go writes a number: without a plus sign or leading zeros.
fn is_cost(value: &str) -> bool {
    let first_digit_counts = match value.strip_prefix('-').unwrap_or(value).as_bytes() {
        [b'0'] => value == "0",
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    first_digit_counts && value.parse::<i32>().is_ok()
}

fn seccomp(annotations: &Map<String, Value>, path: &FieldPath, out: &mut Errors) {
    for (key, profile) in annotations {
        if key != SECCOMP_POD && !key.starts_with(SECCOMP_CONTAINER) {
            continue;
        }
        let profile = profile.as_str().unwrap_or_default();
        let path = path.child(key);
        match profile.strip_prefix("localhost/") {
            Some(name) => descending_path(name, &path, out),
            None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
            None => out.push(FieldError::invalid(&path, profile, "must be a valid seccomp profile")),
        }
    }
}

fn app_armor(annotations: &Map<String, Value>, spec: &Value, path: &FieldPath, out: &mut Errors) {
    for (key, profile) in annotations {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut found = false;
        each_container(spec, path, |container, _| found |= text(container, "name") == name);
        if !found {
            out.push(FieldError::invalid(&path.key(key), name, "container not found"));
        }
        let profile = profile.as_str().unwrap_or_default();
        let known =
            matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
        if !known {
            let text = format!("invalid AppArmor profile name: {}", sampan_api::field::go_quote(profile));
            out.push(FieldError::invalid(&path.key(key), profile, text));
        }
    }
}

/// Annotations that may not change once the pod is there.
pub(super) fn changes(new: &Value, old: &Value, path: &FieldPath, out: &mut Errors) {
    let (new, old) = (map(new, "annotations"), map(old, "annotations"));
    for (key, _) in old.iter().filter(|(key, value)| new.get(*key) != Some(value)) {
        if key.starts_with(APP_ARMOR) {
            let text = "may not remove or update AppArmor annotations";
            out.push(FieldError::forbidden(&path.key(key), text));
        }
        if key == MIRROR {
            let text = "may not remove or update mirror pod annotation";
            out.push(FieldError::forbidden(&path.key(key), text));
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        if key.starts_with(APP_ARMOR) {
            out.push(FieldError::forbidden(&path.key(key), "may not add AppArmor annotations"));
        }
        if key == MIRROR {
            out.push(FieldError::forbidden(&path.key(key), "may not add mirror pod annotation"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn annotations_with_a_meaning_are_checked() {
        let spec = json!({"containers": [{"name": "c"}]});
        for (key, value, expected) in [
            (DELETION_COST, "-10", ""),
            (
                DELETION_COST,
                "+1",
                r#"a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit integer"#,
            ),
            (
                DELETION_COST,
                "01",
                r#"a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "01": must be a 32bit integer"#,
            ),
            (
                DELETION_COST,
                "2147483648",
                r#"a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "2147483648": must be a 32bit integer"#,
            ),
            (
                MIRROR,
                "x",
                r#"a[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set"#,
            ),
            (SECCOMP_POD, "runtime/default", ""),
            (
                SECCOMP_POD,
                "x",
                r#"a.seccomp.security.alpha.kubernetes.io/pod: Invalid value: "x": must be a valid seccomp profile"#,
            ),
            ("container.apparmor.security.beta.kubernetes.io/c", "localhost/p", ""),
            (
                "container.apparmor.security.beta.kubernetes.io/d",
                "unconfined",
                r#"a[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: "d": container not found"#,
            ),
            (
                "container.apparmor.security.beta.kubernetes.io/c",
                "x",
                r#"a[container.apparmor.security.beta.kubernetes.io/c]: Invalid value: "x": invalid AppArmor profile name: "x""#,
            ),
            (TOLERATIONS, r#"[{"key": "a", "operator": "Exists"}]"#, ""),
        ] {
            let mut out = Errors::new();
            of_pod(&json!({"annotations": {(key): value}}), &spec, &FieldPath::new("a"), &mut out);
            assert_eq!(texts(&out).join("\n"), expected, "{key}={value}");
        }
    }

    #[test]
    fn some_annotations_are_for_life() {
        let old = json!({"annotations": {(MIRROR): "x", "other": "y"}});
        let new =
            json!({"annotations": {"other": "z", "container.apparmor.security.beta.kubernetes.io/c": ""}});
        let mut out = Errors::new();
        changes(&new, &old, &FieldPath::new("a"), &mut out);
        assert_eq!(
            texts(&out),
            [
                "a[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation",
                "a[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not add AppArmor annotations",
            ]
        );
    }
}
