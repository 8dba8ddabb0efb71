//! One cached object: the bytes that clients get, and what selectors ask for.

use bytes::Bytes;
use serde_json::Value;

use crate::registry::strategy::Strategy;

/// An object as of one revision, immutable and shared.
///
/// The bytes are the object's JSON behind `{"metadata":{"resourceVersion":"N",`. What stands before
/// them (kind, version, revision) is written when the object is served, so that the same bytes
/// serve every form of an answer: alone, in a list, in a watch event, as the last state of a
/// deleted object.
#[derive(Debug)]
pub(crate) struct Object {
    key: Box<str>,
    revision: u64,
    tail: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the strategy's field labels, in their order.
    fields: Box<[Box<str>]>,
}

impl Object {
    /// From the bytes in the store.
    pub(crate) fn from_stored(
        strategy: &dyn Strategy,
        key: &str,
        stored: &[u8],
        revision: u64,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self::from_value(strategy, key, serde_json::from_slice(stored)?, revision))
    }

    /// From a tree.
    pub(crate) fn from_value(strategy: &dyn Strategy, key: &str, mut value: Value, revision: u64) -> Self {
        let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
        let text = |v: &Value| v.as_str().unwrap_or_default().into();
        let labels = labels.into_iter().flatten().map(|(k, v)| (k.as_str().into(), text(v))).collect();
        let fields = strategy.field_labels().iter().map(|l| strategy.field_value(&value, l).into()).collect();
        Self { key: key.into(), revision, tail: tail(&mut value), labels, fields }
    }

    /// Where the object lies among those of its kind: `namespace/name`, or the name alone.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The revision of its last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// Its namespace; empty where it has none.
    pub(crate) fn namespace(&self) -> &str {
        self.key.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// A label's value.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    }

    /// The value of a field label.
    pub(crate) fn field(&self, strategy: &dyn Strategy, label: &str) -> Option<&str> {
        match label {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            other => {
                let at = strategy.field_labels().iter().position(|l| *l == other)?;
                self.fields.get(at).map(|value| &**value)
            }
        }
    }

    /// Roughly how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        self.tail.len() + 256
    }

    /// Appends the JSON as of `revision`, with its type where one is given.
    pub(crate) fn write(&self, out: &mut Vec<u8>, of: Option<TypeMeta<'_>>, revision: u64) {
        out.reserve(self.tail.len() + 128);
        out.push(b'{');
        if let Some(TypeMeta { api_version, kind }) = of {
            out.extend_from_slice(b"\"kind\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"apiVersion\":\"");
            out.extend_from_slice(api_version.as_bytes());
            out.extend_from_slice(b"\",");
        }
        out.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
        out.extend_from_slice(revision.to_string().as_bytes());
        out.extend_from_slice(b"\"");
        if self.tail.first() != Some(&b'}') {
            out.push(b',');
        }
        out.extend_from_slice(&self.tail);
    }

    /// The object as a tree, as of `revision`.
    pub(crate) fn to_value(&self, of: Option<TypeMeta<'_>>, revision: u64) -> Value {
        let mut text = Vec::new();
        self.write(&mut text, of, revision);
        // The text was made from a tree by us.
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

/// The type of an object, as its JSON names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeMeta<'a> {
    /// `v1`, `apps/v1`.
    pub(crate) api_version: &'a str,
    /// `Pod`.
    pub(crate) kind: &'a str,
}

/// The JSON after `{"metadata":{"resourceVersion":"N",`: the rest of the metadata first, then the
/// other members without the type.
fn tail(value: &mut Value) -> Bytes {
    let mut out = Vec::new();
    let Value::Object(members) = value else { return Bytes::from_static(b"}}") };
    members.remove("apiVersion");
    members.remove("kind");
    let mut metadata = members.remove("metadata").unwrap_or_default();
    if let Value::Object(metadata) = &mut metadata {
        metadata.remove("resourceVersion");
    }
    // Each of the two begins with a brace that is not wanted; writing to memory cannot fail.
    let metadata = serde_json::to_vec(&metadata).unwrap_or_default();
    out.extend_from_slice(metadata.get(1..).unwrap_or(b"}"));
    if members.is_empty() {
        out.push(b'}');
    } else {
        out.push(b',');
        let rest = serde_json::to_vec(&members).unwrap_or_default();
        out.extend_from_slice(rest.get(1..).unwrap_or(b"}"));
    }
    out.shrink_to_fit();
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(mut value: Value) -> Value {
        let object = Object {
            key: "ns/a".into(),
            revision: 3,
            tail: tail(&mut value),
            labels: [].into(),
            fields: [].into(),
        };
        object.to_value(Some(TypeMeta { api_version: "v1", kind: "Pod" }), 7)
    }

    #[test]
    fn an_object_is_served_with_its_type_and_the_revision_asked_for() {
        let cases = [
            (
                json!({"apiVersion": "x", "kind": "y", "metadata": {"name": "a", "resourceVersion": "1"}, "spec": {"b": 1}}),
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"b": 1}}),
            ),
            (
                json!({"data": {"k": "v"}, "metadata": {"name": "a"}}),
                json!({"apiVersion": "v1", "kind": "Pod", "data": {"k": "v"}, "metadata": {"name": "a", "resourceVersion": "7"}}),
            ),
            (
                json!({"metadata": {}}),
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "7"}}),
            ),
        ];
        for (stored, served) in cases {
            assert_eq!(written(stored), served);
        }
    }
}
