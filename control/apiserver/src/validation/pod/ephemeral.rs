//! Ephemeral containers: debugging aids that come to a running pod.

use std::collections::BTreeSet;

use sampan_api::field::{FieldError, FieldPath};
use serde_json::Value;

use super::{Scope, containers};
use crate::validation::checks::Errors;
use crate::validation::view::{list, map, member, non_zero, text};

const NOT_HERE: &str = "cannot be set for an Ephemeral Container";

/// Fields that other containers have and these do not; resources are looked at apart.
const REFUSED: &[&str] = &[
    "ports",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// `spec.ephemeralContainers`.
pub(super) fn containers(spec: &Value, scope: &Scope<'_>, path: &FieldPath, out: &mut Errors) {
    let lasting: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|n| list(spec, n))
        .map(|c| text(c, "name"))
        .collect();
    let mut seen = lasting.clone();
    for (i, container) in list(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(i);
        containers::common(container, scope, &path, out);
        containers::image_has_no_padding(container, &path, out);
        let name = text(container, "name");
        if !seen.insert(name) {
            out.push(FieldError::duplicate(&path.child("name"), name));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !lasting.contains(target) {
            out.push(FieldError::not_found(&path.child("targetContainerName"), target));
        }
        for field in REFUSED.iter().filter(|field| non_zero(container, field).is_some()) {
            out.push(FieldError::forbidden(&path.child(field), NOT_HERE));
        }
        let resources = member(container, "resources");
        let any = ["limits", "requests"].iter().any(|name| !map(resources, name).is_empty());
        if any || !list(resources, "claims").is_empty() {
            out.push(FieldError::forbidden(&path.child("resources"), NOT_HERE));
        }
        for (j, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"].iter().filter(|field| !text(mount, field).is_empty()) {
                let path = path.child("volumeMounts").index(j).child(field);
                out.push(FieldError::forbidden(&path, NOT_HERE));
            }
        }
    }
}
