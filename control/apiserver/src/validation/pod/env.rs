//! Environments of containers.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::refs::{self, Use};
use crate::validation::checks::{Errors, each};
use crate::validation::view::{list, part, text};

const TOO_MANY: &str = "may not have more than one field specified at a time";

/// A container's `env` and `envFrom`.
pub(super) fn environment(container: &Value, path: &FieldPath, out: &mut Errors) {
    for (i, variable) in list(container, "env").iter().enumerate() {
        let path = path.child("env").index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            out.push(FieldError::required(&path.child("name"), ""));
        } else {
            each(&path.child("name"), name, names::is_env_var_name(name), out);
        }
        if let Some(from) = part(variable, "valueFrom") {
            value_from(from, text(variable, "value"), &path.child("valueFrom"), out);
        }
    }
    let path = path.child("envFrom");
    for (i, source) in list(container, "envFrom").iter().enumerate() {
        env_from(source, &path, &path.index(i), out);
    }
}

fn value_from(from: &Value, value: &str, path: &FieldPath, out: &mut Errors) {
    let mut sources = 0;
    let mut source = |name: &str, check: &dyn Fn(&Value, &FieldPath, &mut Errors), out: &mut Errors| {
        if let Some(reference) = part(from, name) {
            sources += 1;
            check(reference, &path.child(name), out);
        }
    };
    source("fieldRef", &|reference, path, out| refs::field(reference, Use::Env, path, out), out);
    source("resourceFieldRef", &|reference, path, out| refs::resource(reference, Use::Env, path, out), out);
    source("configMapKeyRef", &refs::key, out);
    source("secretKeyRef", &refs::key, out);
    source("fileKeyRef", &refs::file_key, out);
    if sources == 0 {
        let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        out.push(FieldError::invalid(path, "", text));
    } else if !value.is_empty() {
        out.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        out.push(FieldError::invalid(path, "", TOO_MANY));
    }
}

fn env_from(source: &Value, all: &FieldPath, path: &FieldPath, out: &mut Errors) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        each(&path.child("prefix"), prefix, names::is_env_var_name(prefix), out);
    }
    let mut sources = 0;
    for name in ["configMapRef", "secretRef"] {
        let Some(reference) = part(source, name) else { continue };
        sources += 1;
        let at = path.child(name).child("name");
        let name = text(reference, "name");
        if name.is_empty() {
            out.push(FieldError::required(&at, ""));
        } else {
            // A trailing dash is let pass, as if the name were still to be completed.
            let bare = name.strip_suffix('-').filter(|bare| !bare.is_empty()).unwrap_or(name);
            each(&at, name, names::is_dns1123_subdomain(bare), out);
        }
    }
    if sources == 0 {
        out.push(FieldError::invalid(all, "", "must specify one of: `configMapRef` or `secretRef`"));
    } else if sources > 1 {
        out.push(FieldError::invalid(all, "", TOO_MANY));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(container: &Value) -> Vec<String> {
        let mut out = Errors::new();
        environment(container, &FieldPath::new("c"), &mut out);
        texts(&out)
    }

    #[test]
    fn variables_have_a_name_and_one_source() {
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.name"});
        for (env, expected) in [
            (
                json!([{"name": "A.b-1", "value": "x"}, {"name": "1 2", "valueFrom": {"fieldRef": field}}]),
                vec![],
            ),
            (json!([{"value": "x"}]), vec!["c.env[0].name: Required value"]),
            (
                json!([{"name": "a=b"}]),
                vec![
                    r#"c.env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='"#,
                ],
            ),
            (
                json!([{"name": "a", "valueFrom": {}}]),
                vec![
                    r#"c.env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"#,
                ],
            ),
            (
                json!([{"name": "a", "value": "x", "valueFrom": {"fieldRef": field}}]),
                vec![
                    r#"c.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#,
                ],
            ),
            (
                json!([{"name": "a", "valueFrom": {"fieldRef": field, "secretKeyRef": {"name": "s", "key": "k"}}}]),
                vec![
                    r#"c.env[0].valueFrom: Invalid value: "": may not have more than one field specified at a time"#,
                ],
            ),
        ] {
            assert_eq!(found(&json!({"env": env})), expected, "{env}");
        }
    }

    #[test]
    fn whole_objects_become_variables() {
        for (from, expected) in [
            (json!([{"prefix": "p_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}]), vec![]),
            (
                json!([{}]),
                vec![r#"c.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#],
            ),
            (json!([{"configMapRef": {}}]), vec!["c.envFrom[0].configMapRef.name: Required value"]),
            (
                json!([{"configMapRef": {"name": "c"}, "secretRef": {"name": "s"}}]),
                vec![r#"c.envFrom: Invalid value: "": may not have more than one field specified at a time"#],
            ),
        ] {
            assert_eq!(found(&json!({"envFrom": from})), expected, "{from}");
        }
    }
}
