//! The walk along an object and its message.

use serde_json::{Map, Value};

use super::scalar;
use crate::codec::DecodeError;
use crate::schema::{self, Field, Kind, Message, SCHEMA_PROPS, Shape};

/// More unknown fields than this are dropped without being told apart.
const MAX_UNKNOWN: usize = 100;

/// Checks an object against its message and brings it into the form that Kubernetes would store.
///
/// Unknown fields are removed, and their paths returned. Values of the wrong type are an error in
/// the words of Go's decoder.
pub fn conform(message: &'static Message, object: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut walk = Walk { path: Vec::new(), unknown: Vec::new() };
    let Value::Object(members) = object else {
        let (given, ty) = (scalar::go_kind(object), message.go_name());
        return Err(DecodeError::Type(format!("json: cannot unmarshal {given} into Go value of type {ty}")));
    };
    walk.members(message, members)?;
    Ok(walk.unknown)
}

struct Walk {
    path: Vec<Step>,
    unknown: Vec<String>,
}

/// One step from the object to where the walk is.
enum Step {
    Field { owner: &'static str, name: &'static str },
    Key(String),
    Index(usize),
}

impl Walk {
    fn members(
        &mut self,
        message: &'static Message,
        members: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        for (name, mut value) in std::mem::take(members) {
            let Some(field) = message.field(&name) else {
                self.unknown_field(&name);
                continue;
            };
            if value.is_null() {
                continue;
            }
            self.path.push(Step::Field { owner: message.short_name(), name: field.name });
            let keep = self.field(field, &mut value)?;
            self.path.pop();
            if keep {
                members.insert(name, value);
            }
        }
        Ok(())
    }

    /// Whether the field stays.
    fn field(&mut self, field: &Field, value: &mut Value) -> Result<bool, DecodeError> {
        match field.shape {
            Shape::One => {
                self.value(field.kind, value)?;
                Ok(field.keeps_zero() && !value.is_null() || !field.kind.omits(value))
            }
            Shape::List => {
                let Value::Array(elements) = value else {
                    return Err(self.mismatch(value, &field.go_type()));
                };
                for (index, element) in elements.iter_mut().enumerate() {
                    self.path.push(Step::Index(index));
                    self.element(field.kind, element)?;
                    self.path.pop();
                }
                Ok(field.required || !elements.is_empty())
            }
            Shape::Map => {
                let Value::Object(entries) = value else {
                    return Err(self.mismatch(value, &field.go_type()));
                };
                for (key, entry) in entries.iter_mut() {
                    self.path.push(Step::Key(key.clone()));
                    self.element(field.kind, entry)?;
                    self.path.pop();
                }
                Ok(field.required || !entries.is_empty())
            }
        }
    }

    /// A list's element or a map's value: `null` stands for the zero there.
    fn element(&mut self, kind: Kind, value: &mut Value) -> Result<(), DecodeError> {
        if value.is_null() {
            *value = kind.zero();
            return Ok(());
        }
        self.value(kind, value)
    }

    fn value(&mut self, kind: Kind, value: &mut Value) -> Result<(), DecodeError> {
        match kind {
            Kind::Message(message) => self.message(message.get(), value),
            Kind::Strings => self.strings(kind, value),
            Kind::SchemaOrArray => match value {
                Value::Array(schemas) => schemas.iter_mut().try_for_each(|schema| self.schema(kind, schema)),
                schema => self.schema(kind, schema),
            },
            Kind::SchemaOrBool if value.is_boolean() => Ok(()),
            Kind::SchemaOrStrings if value.is_array() => self.strings(kind, value),
            Kind::SchemaOrBool | Kind::SchemaOrStrings => self.schema(kind, value),
            // Kept as they are, whatever they are.
            Kind::RawExtension | Kind::FieldsV1 | Kind::Json => Ok(()),
            _ => scalar::check(kind, value).map_err(|fault| match fault {
                scalar::Fault::Type => self.mismatch(value, kind.go_type()),
                scalar::Fault::Sentence(sentence) => DecodeError::Type(sentence),
            }),
        }
    }

    fn message(&mut self, message: &'static Message, value: &mut Value) -> Result<(), DecodeError> {
        match value {
            Value::Object(members) => self.members(message, members),
            other => Err(self.mismatch(other, message.go_name())),
        }
    }

    fn schema(&mut self, kind: Kind, value: &mut Value) -> Result<(), DecodeError> {
        match (value, schema::message(SCHEMA_PROPS)) {
            (Value::Object(members), Some(props)) => self.members(props, members),
            (other, _) => Err(self.mismatch(other, kind.go_type())),
        }
    }

    fn strings(&self, kind: Kind, value: &mut Value) -> Result<(), DecodeError> {
        let Value::Array(elements) = value else { return Err(self.mismatch(value, kind.go_type())) };
        for element in elements {
            match element {
                Value::String(_) => {}
                Value::Null => *element = Kind::String.zero(),
                other => return Err(self.mismatch(other, Kind::String.go_type())),
            }
        }
        Ok(())
    }

    /// Go names the innermost struct, and the fields on the way without indices and keys.
    fn mismatch(&self, value: &Value, ty: &str) -> DecodeError {
        let given =
            if ty.starts_with("int") { scalar::go_number(value) } else { scalar::go_kind(value).into() };
        let mut owner = "";
        let mut names = Vec::new();
        for step in &self.path {
            if let Step::Field { owner: of, name } = step {
                owner = of;
                names.push(*name);
            }
        }
        let path = names.join(".");
        DecodeError::Type(format!(
            "json: cannot unmarshal {given} into Go struct field {owner}.{path} of type {ty}"
        ))
    }

    fn unknown_field(&mut self, name: &str) {
        if self.unknown.len() >= MAX_UNKNOWN {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field { name, .. } => join(&mut path, name),
                Step::Key(key) => join(&mut path, key),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        join(&mut path, name);
        self.unknown.push(path);
    }
}

fn join(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(short: &str) -> &'static Message {
        schema::message(&format!("io.k8s.api.{short}")).unwrap()
    }

    fn conformed(short: &str, mut value: Value) -> Value {
        let unknown = conform(message(short), &mut value).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        value
    }

    #[test]
    fn unknown_fields_are_removed_and_named() {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "sepc": {"deep": 1},
            "metadata": {"name": "a", "lables": {}},
            "spec": {
                "containers": [{"name": "a"}, {"name": "b", "imagee": "x", "ports": [{"containerPort": 1, "prot": 2}]}],
                "volumes": [{"name": "v", "emptyDir": {"sise": 1}}],
            },
        });
        let unknown = conform(message("core.v1.Pod"), &mut pod).unwrap();
        assert_eq!(
            unknown,
            [
                "metadata.lables",
                "sepc",
                "spec.containers[1].imagee",
                "spec.containers[1].ports[0].prot",
                "spec.volumes[0].emptyDir.sise",
            ]
        );
        assert_eq!(
            pod,
            json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
                "spec": {
                    "containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 1}]}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                },
            })
        );
    }

    #[test]
    fn fields_under_map_keys_are_named_with_the_key() {
        let mut crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": {
            "properties": {"spec": {"typ": "object", "items": [{"tipe": 1}], "additionalProperties": {"x": 1}}}}}}]}});
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition";
        let unknown = conform(schema::message(name).unwrap(), &mut crd).unwrap();
        let at = "spec.versions[0].schema.openAPIV3Schema.properties.spec";
        assert_eq!(
            unknown,
            [format!("{at}.additionalProperties.x"), format!("{at}.items.tipe"), format!("{at}.typ")]
        );
    }

    #[test]
    fn nulls_and_empty_values_vanish_as_they_do_in_go() {
        let cases = [
            // Optional and empty: gone. Structs stay, even empty ones.
            (
                "core.v1.Pod",
                json!({"metadata": {"creationTimestamp": null, "labels": {}, "generation": 0, "name": ""},
                    "spec": {"containers": [], "hostNetwork": false, "nodeName": "", "securityContext": {}},
                    "status": {}}),
                json!({"metadata": {}, "spec": {"containers": [], "securityContext": {}}, "status": {}}),
            ),
            // Pointers tell zero from nothing.
            (
                "apps.v1.DeploymentSpec",
                json!({"replicas": 0, "paused": false, "minReadySeconds": 0, "revisionHistoryLimit": 0,
                    "progressDeadlineSeconds": null, "strategy": {}}),
                json!({"replicas": 0, "revisionHistoryLimit": 0, "strategy": {}}),
            ),
            // Required fields are always written.
            (
                "core.v1.ContainerStatus",
                json!({"ready": false, "restartCount": 0, "image": "", "containerID": "", "started": false}),
                json!({"ready": false, "restartCount": 0, "image": "", "started": false}),
            ),
            // Inside maps and lists, null is the zero.
            ("core.v1.ConfigMap", json!({"data": {"a": null, "b": ""}}), json!({"data": {"a": "", "b": ""}})),
            (
                "core.v1.Secret",
                json!({"data": {"a": null}, "immutable": false}),
                json!({"data": {"a": ""}, "immutable": false}),
            ),
            ("core.v1.PodSpec", json!({"containers": [null]}), json!({"containers": [{}]})),
            ("core.v1.Container", json!({"args": ["a", null], "command": []}), json!({"args": ["a", ""]})),
        ];
        for (name, given, expected) in cases {
            assert_eq!(conformed(name, given.clone()), expected, "{name} {given}");
        }
    }

    #[test]
    fn special_types_take_their_one_form() {
        let cases = [
            (
                "core.v1.ResourceRequirements",
                json!({"limits": {"cpu": 1, "memory": "64Mi", "x/y": 0.5}, "requests": {"cpu": null}}),
                json!({"limits": {"cpu": "1", "memory": "64Mi", "x/y": "0.5"}, "requests": {"cpu": "0"}}),
            ),
            ("core.v1.HTTPGetAction", json!({"port": 80}), json!({"port": 80})),
            ("core.v1.HTTPGetAction", json!({"port": "http"}), json!({"port": "http"})),
            (
                "core.v1.PodCondition",
                json!({"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-31T13:00:00.5+01:00"}),
                json!({"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-31T12:00:00Z"}),
            ),
            (
                "coordination.v1.LeaseSpec",
                json!({"renewTime": "2025-01-31T12:00:00.123456Z", "leaseTransitions": 0}),
                json!({"renewTime": "2025-01-31T12:00:00.123456Z", "leaseTransitions": 0}),
            ),
            ("core.v1.Secret", json!({"data": {"a": "aGVs\r\nbG8="}}), json!({"data": {"a": "aGVsbG8="}})),
            (
                "authentication.v1.UserInfo",
                json!({"extra": {"scopes": ["a", null]}}),
                json!({"extra": {"scopes": ["a", ""]}}),
            ),
            (
                "apps.v1.ControllerRevision",
                json!({"data": {"a": null}, "revision": 0}),
                json!({"data": {"a": null}, "revision": 0}),
            ),
        ];
        for (name, given, expected) in cases {
            assert_eq!(conformed(name, given.clone()), expected, "{name} {given}");
        }
    }

    #[test]
    fn wrong_types_are_told_in_the_words_of_go() {
        let pod = |spec: Value| json!({"spec": spec});
        let container = |more: Value| pod(json!({"containers": [more]}));
        let cases = [
            (json!("x"), "json: cannot unmarshal string into Go value of type v1.Pod"),
            (
                json!({"spec": "x"}),
                "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!({"metadata": {"labels": []}}),
                "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
            ),
            (
                pod(json!({"containers": {}})),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                pod(json!({"containers": ["x"]})),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
            ),
            (
                container(json!({"ports": "x"})),
                "json: cannot unmarshal string into Go struct field Container.spec.containers.ports of type []v1.ContainerPort",
            ),
            (
                container(json!({"ports": [{"containerPort": "80"}]})),
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                container(json!({"ports": [{"containerPort": 80.5}]})),
                "json: cannot unmarshal number 80.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                container(json!({"ports": [{"containerPort": 3_000_000_000_u64}]})),
                "json: cannot unmarshal number 3000000000 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                container(json!({"tty": "true"})),
                "json: cannot unmarshal string into Go struct field Container.spec.containers.tty of type bool",
            ),
            (
                pod(json!({"volumes": [{"name": "v", "emptyDir": 1}]})),
                "json: cannot unmarshal number into Go struct field Volume.spec.volumes.emptyDir of type v1.EmptyDirVolumeSource",
            ),
            (
                container(json!({"resources": {"limits": "all"}})),
                "json: cannot unmarshal string into Go struct field ResourceRequirements.spec.containers.resources.limits of type v1.ResourceList",
            ),
            (
                container(json!({"resources": {"limits": {"cpu": "a lot"}}})),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                container(json!({"livenessProbe": {"tcpSocket": {"port": true}}})),
                "json: cannot unmarshal bool into Go value of type int32",
            ),
            (
                json!({"metadata": {"creationTimestamp": 5}}),
                "json: cannot unmarshal number into Go value of type string",
            ),
            (
                json!({"metadata": {"creationTimestamp": "now"}}),
                "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
            ),
        ];
        for (mut given, expected) in cases {
            let shown = given.to_string();
            let error = conform(message("core.v1.Pod"), &mut given).unwrap_err();
            assert_eq!(error, DecodeError::Type(expected.to_owned()), "{shown}");
        }
    }

    #[test]
    fn bytes_must_be_base64() {
        for (text, at) in [("!!!!", 0), ("aGVsbG8", 4), ("aGV=bG8=", 4), ("aG=lbG8=", 2)] {
            let mut secret = json!({"data": {"a": text}});
            let error = conform(message("core.v1.Secret"), &mut secret).unwrap_err();
            assert_eq!(error.to_string(), format!("illegal base64 data at input byte {at}"), "{text}");
        }
    }

    #[test]
    fn what_conforms_conforms_again_unchanged() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a",
            "resources": {"limits": {"cpu": "1"}}, "env": [{"name": "x"}]}], "terminationGracePeriodSeconds": 0}});
        assert_eq!(conformed("core.v1.Pod", pod.clone()), pod);
    }
}
