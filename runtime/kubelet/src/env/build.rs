//! The environment, command and arguments of one container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, EnvVarSource, Pod};

use super::expand::expand;
use super::field::{self, PodFacts};
use super::refs::Refs;
use super::resource;
use crate::pod::resources::Amounts;
use crate::pod::spec;

/// What the environment is built from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its facts.
    pub facts: &'a PodFacts,
    /// What it refers to.
    pub refs: &'a Refs,
    /// Variables that lead to services.
    pub services: &'a [(String, String)],
    /// What the node gives.
    pub allocatable: &'a Amounts,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// The environment, each name once.
    pub env: Vec<(String, String)>,
    /// `command`, expanded.
    pub command: Vec<String>,
    /// `args`, expanded.
    pub args: Vec<String>,
    /// What was left out, each a message for an `InvalidEnvironmentVariableNames` event.
    pub skipped: Vec<String>,
}

/// Builds a container's environment and arguments. The error is the message of
/// `CreateContainerConfigError`.
pub fn build(container: &Container, inputs: Inputs<'_>) -> Result<Built, String> {
    let mut env = Environment::default();
    let mut skipped = Vec::new();
    for (name, value) in inputs.services {
        env.set(name, value.clone());
    }
    for source in container.env_from.iter().flatten() {
        from_source(source, inputs, &mut env, &mut skipped)?;
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = variable_value(variable, container, inputs, &env)? {
            env.set(&variable.name, value);
        }
    }
    let expanded = |list: &Option<Vec<String>>| {
        list.iter().flatten().map(|text| expand(text, |name| env.get(name))).collect::<Vec<_>>()
    };
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    Ok(Built { env: env.into_list(), command, args, skipped })
}

/// Names and values, in the order in which names first came.
#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.index.get(name).and_then(|at| self.list.get_mut(*at)) {
            Some(entry) => entry.1 = value,
            None => {
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).and_then(|at| self.list.get(*at)).map(|(_, value)| value.clone())
    }

    fn into_list(self) -> Vec<(String, String)> {
        self.list
    }
}

fn from_source(
    source: &EnvFromSource,
    inputs: Inputs<'_>,
    env: &mut Environment,
    skipped: &mut Vec<String>,
) -> Result<(), String> {
    let (kind, name, values) = if let Some(reference) = &source.config_map_ref {
        let optional = reference.optional == Some(true);
        let values = match inputs.refs.config_map(&reference.name) {
            Ok(map) => map.data.clone().unwrap_or_default(),
            Err(_) if optional => return Ok(()),
            Err(why) => return Err(why),
        };
        ("configMap", &reference.name, values)
    } else if let Some(reference) = &source.secret_ref {
        let optional = reference.optional == Some(true);
        let values = match inputs.refs.secret(&reference.name) {
            Ok(secret) => secret
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
                .collect(),
            Err(_) if optional => return Ok(()),
            Err(why) => return Err(why),
        };
        ("secret", &reference.name, values)
    } else {
        return Ok(());
    };
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut invalid = Vec::new();
    for (key, value) in values {
        let variable = format!("{prefix}{key}");
        if is_valid_name(&variable) {
            env.set(&variable, value);
        } else {
            invalid.push(variable);
        }
    }
    if !invalid.is_empty() {
        skipped.push(format!(
            "Keys [{}] from the EnvFrom {kind} {}/{name} were skipped since they are considered invalid \
             environment variable names.",
            invalid.join(", "),
            spec::namespace(inputs.pod)
        ));
    }
    Ok(())
}

/// A name may hold any printable ASCII character but the equals sign.
fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

/// A variable's value; `None`: an optional reference leads nowhere, so there is no variable.
fn variable_value(
    variable: &EnvVar,
    container: &Container,
    inputs: Inputs<'_>,
    env: &Environment,
) -> Result<Option<String>, String> {
    if let Some(value) = variable.value.as_ref().filter(|value| !value.is_empty()) {
        return Ok(Some(expand(value, |name| env.get(name))));
    }
    match &variable.value_from {
        Some(source) => from_value_source(&variable.name, source, container, inputs),
        None => Ok(Some(String::new())),
    }
}

fn from_value_source(
    variable: &str,
    source: &EnvVarSource,
    container: &Container,
    inputs: Inputs<'_>,
) -> Result<Option<String>, String> {
    if let Some(reference) = &source.field_ref {
        return field::value(inputs.pod, inputs.facts, &reference.field_path).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        let of = selector.container_name.as_deref().filter(|name| !name.is_empty());
        let subject = match of {
            None => container,
            Some(name) => spec::container(inputs.pod, name)
                .map(|(_, c)| c)
                .ok_or_else(|| format!("container {name} not found"))?,
        };
        return resource::value(selector, subject, inputs.allocatable).map(Some);
    }
    let namespace = spec::namespace(inputs.pod);
    if let Some(reference) = &source.config_map_key_ref {
        let found = inputs
            .refs
            .config_map(&reference.name)
            .map(|map| map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned());
        let missing =
            format!("couldn't find key {} in ConfigMap {namespace}/{}", reference.key, reference.name);
        return required(found, reference.optional, missing);
    }
    if let Some(reference) = &source.secret_key_ref {
        let found = inputs.refs.secret(&reference.name).map(|secret| {
            let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
            value.map(|value| String::from_utf8_lossy(&value.0).into_owned())
        });
        let missing = format!("couldn't find key {} in Secret {namespace}/{}", reference.key, reference.name);
        return required(found, reference.optional, missing);
    }
    let field = if source.file_key_ref.is_some() { "valueFrom.fileKeyRef" } else { "valueFrom" };
    Err(format!("environment variable {variable}: {field} is not supported by this node"))
}

fn required(
    found: Result<Option<String>, String>,
    optional: Option<bool>,
    missing: String,
) -> Result<Option<String>, String> {
    match found {
        Ok(Some(value)) => Ok(Some(value)),
        _ if optional == Some(true) => Ok(None),
        Ok(None) => Err(missing),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::{Value, json};

    fn run(container: Value) -> Result<Built, String> {
        let container: Container = serde_json::from_value(container).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns" }, "spec": { "containers": [] }
        }))
        .unwrap();
        let facts = PodFacts { pod_ips: vec![], host_ip: "192.0.2.1".parse().unwrap() };
        let map = serde_json::from_value(json!({ "data": { "color": "red", "size": "5" } })).unwrap();
        let secret = serde_json::from_value(json!({ "data": { "password": "aHVudGVyMg==" } })).unwrap();
        let refs = Refs {
            config_maps: BTreeMap::from([("cfg".into(), Some(Arc::new(map))), ("gone".into(), None)]),
            secrets: BTreeMap::from([("sec".into(), Some(Arc::new(secret)))]),
        };
        let services = [("KUBERNETES_SERVICE_HOST".to_owned(), "10.43.0.1".to_owned())];
        let inputs = Inputs {
            pod: &pod,
            facts: &facts,
            refs: &refs,
            services: &services,
            allocatable: &Amounts::new(),
        };
        build(&container, inputs)
    }

    fn env(container: Value) -> Vec<String> {
        run(container).unwrap().env.iter().map(|(name, value)| format!("{name}={value}")).skip(1).collect()
    }

    #[test]
    fn later_values_see_earlier_ones() {
        let built = run(json!({
            "name": "a",
            "command": ["run", "$(B)"], "args": ["$(KUBERNETES_SERVICE_HOST)", "$$(B)", "$(NOPE)"],
            "env": [
                { "name": "A", "value": "1" }, { "name": "B", "value": "$(A)2 $(C)" },
                { "name": "C", "value": "3" }, { "name": "A", "value": "again" }, { "name": "E" }
            ]
        }))
        .unwrap();
        assert_eq!(built.command, ["run", "12 $(C)"]);
        assert_eq!(built.args, ["10.43.0.1", "$(B)", "$(NOPE)"]);
        let env: Vec<String> = built.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["KUBERNETES_SERVICE_HOST=10.43.0.1", "A=again", "B=12 $(C)", "C=3", "E="]);
    }

    #[test]
    fn whole_maps_come_first_and_own_variables_override_them() {
        let container = json!({
            "name": "a",
            "envFrom": [
                { "prefix": "CFG_", "configMapRef": { "name": "cfg" } }, { "secretRef": { "name": "sec" } },
                { "configMapRef": { "name": "gone", "optional": true } }
            ],
            "env": [{ "name": "CFG_color", "value": "not $(CFG_color)" }]
        });
        assert_eq!(env(container), ["CFG_color=not red", "CFG_size=5", "password=hunter2"]);
    }

    #[test]
    fn keys_that_make_no_name_are_left_out_and_told() {
        let built = run(json!({
            "name": "a", "envFrom": [{ "prefix": "A=", "configMapRef": { "name": "cfg" } }]
        }))
        .unwrap();
        assert_eq!(
            built.skipped,
            [
                "Keys [A=color, A=size] from the EnvFrom configMap ns/cfg were skipped since they are considered \
             invalid environment variable names."
            ]
        );
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let one = |source: Value| json!({ "name": "a", "env": [{ "name": "X", "valueFrom": source }] });
        for (source, want) in [
            (json!({ "configMapKeyRef": { "name": "nope", "key": "k" } }), "configmap \"nope\" not found"),
            (
                json!({ "configMapKeyRef": { "name": "cfg", "key": "k" } }),
                "couldn't find key k in ConfigMap ns/cfg",
            ),
            (json!({ "secretKeyRef": { "name": "nope", "key": "k" } }), "secret \"nope\" not found"),
            (
                json!({ "secretKeyRef": { "name": "sec", "key": "k" } }),
                "couldn't find key k in Secret ns/sec",
            ),
        ] {
            assert_eq!(run(one(source.clone())).unwrap_err(), want);
            let mut optional = source;
            for reference in optional.as_object_mut().unwrap().values_mut() {
                reference["optional"] = json!(true);
            }
            assert!(env(one(optional)).is_empty(), "an optional reference that leads nowhere sets nothing");
        }
        let whole = json!({ "name": "a", "envFrom": [{ "secretRef": { "name": "nope" } }] });
        assert_eq!(run(whole).unwrap_err(), "secret \"nope\" not found");
    }

    #[test]
    fn a_source_that_is_not_supported_is_named_even_if_it_is_optional() {
        for optional in [false, true] {
            let file = json!({ "volumeName": "v", "path": "a.env", "key": "K", "optional": optional });
            let container = json!({ "name": "a", "env": [
                { "name": "A", "value": "1" }, { "name": "X", "valueFrom": { "fileKeyRef": file } }
            ] });
            let want = "environment variable X: valueFrom.fileKeyRef is not supported by this node";
            assert_eq!(run(container).unwrap_err(), want);
        }
    }

    #[test]
    fn values_come_from_fields_maps_and_secrets() {
        let container = json!({ "name": "a", "env": [
            { "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
            { "name": "C", "valueFrom": { "configMapKeyRef": { "name": "cfg", "key": "color" } } },
            { "name": "S", "valueFrom": { "secretKeyRef": { "name": "sec", "key": "password" } } },
            { "name": "R", "valueFrom": { "resourceFieldRef": { "resource": "requests.cpu" } } }
        ] });
        assert_eq!(env(container), ["N=ns", "C=red", "S=hunter2", "R=0"]);
    }
}
