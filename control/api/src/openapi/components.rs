//! `components.schemas`: the messages that a document refers to, and all that these refer to.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use crate::schema::{self, Field, Kind, ListType, Message, Shape};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const PROPS_OR_ARRAY: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const PROPS_OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const PROPS_OR_STRINGS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

/// Kinds that every group and version has.
const COMMON: &[&str] = &["DeleteOptions", "WatchEvent"];

/// Collects what is referred to, then writes its schemas.
pub(super) struct Components<'t> {
    group: String,
    version: String,
    descriptions: &'t Descriptions<'t>,
    messages: BTreeSet<&'static str>,
    pending: Vec<&'static Message>,
    specials: BTreeSet<&'static str>,
}

impl<'t> Components<'t> {
    pub(super) fn new(group: &str, version: &str, descriptions: &'t Descriptions<'t>) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            descriptions,
            messages: BTreeSet::new(),
            pending: Vec::new(),
            specials: BTreeSet::new(),
        }
    }

    /// A reference to a message, which becomes part of the document.
    pub(super) fn reference(&mut self, message: &'static Message) -> Value {
        if self.messages.insert(message.name) {
            self.pending.push(message);
        }
        json!({"$ref": pointer(message.name)})
    }

    /// The same for a message that only its name is known of.
    pub(super) fn reference_by_name(&mut self, name: &str) -> Option<Value> {
        schema::message(name).map(|message| self.reference(message))
    }

    /// All schemas, by name.
    pub(super) fn finish(mut self) -> Map<String, Value> {
        let mut schemas = Map::new();
        while let Some(message) = self.pending.pop() {
            let schema = self.message(message);
            schemas.insert(message.name.to_owned(), schema);
        }
        for name in std::mem::take(&mut self.specials) {
            schemas.insert(name.to_owned(), self.special(name));
        }
        schemas
    }

    fn message(&mut self, message: &'static Message) -> Value {
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        describe(&mut schema, &self.descriptions.message(message.name));
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in message.fields {
            let description = self.descriptions.field(message.name, field.name);
            properties.insert(field.name.to_owned(), self.field(field, &description));
            if field.required {
                required.push(Value::from(field.name));
            }
        }
        if !properties.is_empty() {
            schema.insert("properties".into(), properties.into());
        }
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if message.atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        let kinds = self.kinds(message);
        if !kinds.is_empty() {
            schema.insert("x-kubernetes-group-version-kind".into(), kinds.into());
        }
        Value::Object(schema)
    }

    /// The kinds that a message stands for in this document.
    fn kinds(&self, message: &Message) -> Vec<Value> {
        if let Some((group, version, kind)) = message.kind {
            return vec![group_version_kind(group, version, kind)];
        }
        let short = message.short_name();
        let common = schema::kind(&self.group, &self.version, short).is_some_and(|m| m.name == message.name);
        if !common || !COMMON.contains(&short) {
            return Vec::new();
        }
        let mut kinds = vec![group_version_kind(&self.group, &self.version, short)];
        if !self.group.is_empty() {
            kinds.insert(0, group_version_kind("", "v1", short));
        }
        kinds
    }

    fn field(&mut self, field: &Field, description: &str) -> Value {
        let mut schema = match field.shape {
            Shape::One => {
                let value = self.value(field.kind);
                // Beside a `$ref` nothing counts, so that it stands in an `allOf`.
                if value.contains_key("$ref") { object([("allOf", json!([value]))]) } else { value }
            }
            Shape::List => object([("type", "array".into()), ("items", self.value(field.kind).into())]),
            Shape::Map => {
                object([("type", "object".into()), ("additionalProperties", self.value(field.kind).into())])
            }
        };
        describe(&mut schema, description);
        let default = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let texts = [
            ("x-kubernetes-list-type", field.list_type.map_or("", ListType::as_str)),
            ("x-kubernetes-map-type", field.map_type.map_or("", |map_type| map_type.as_str())),
            ("x-kubernetes-patch-strategy", field.patch.strategy()),
            ("x-kubernetes-patch-merge-key", field.patch.merge_key.unwrap_or("")),
        ];
        let said = texts.into_iter().filter(|(_, text)| !text.is_empty());
        schema.extend(said.map(|(name, text)| (name.to_owned(), Value::from(text))));
        if !field.list_keys().is_empty() {
            schema.insert("x-kubernetes-list-map-keys".into(), field.list_keys().into());
        }
        schema.extend(default.map(|default| ("default".to_owned(), default)));
        Value::Object(schema)
    }

    /// The type of one value: said here, or referred to.
    fn value(&mut self, kind: Kind) -> Map<String, Value> {
        let plain = |ty: &str| object([("type", ty.into())]);
        let formatted = |ty: &str, format: &str| object([("type", ty.into()), ("format", format.into())]);
        let special = match kind {
            Kind::Bool => return plain("boolean"),
            Kind::Int32 => return formatted("integer", "int32"),
            Kind::Int64 => return formatted("integer", "int64"),
            Kind::Double => return formatted("number", "double"),
            Kind::String => return plain("string"),
            Kind::Bytes => return formatted("string", "byte"),
            Kind::Strings => {
                return object([("type", "array".into()), ("items", plain("string").into())]);
            }
            Kind::Message(message) => {
                self.reference(message.get());
                return object([("$ref", pointer(message.get().name).into())]);
            }
            Kind::Quantity => QUANTITY,
            Kind::IntOrString => INT_OR_STRING,
            Kind::Time => TIME,
            Kind::MicroTime => MICRO_TIME,
            Kind::RawExtension => RAW_EXTENSION,
            Kind::FieldsV1 => FIELDS_V1,
            Kind::Json => JSON,
            Kind::SchemaOrArray => PROPS_OR_ARRAY,
            Kind::SchemaOrBool => PROPS_OR_BOOL,
            Kind::SchemaOrStrings => PROPS_OR_STRINGS,
        };
        self.specials.insert(special);
        object([("$ref", pointer(special).into())])
    }

    fn special(&self, name: &str) -> Value {
        let mut schema = match name {
            QUANTITY => object([("oneOf", json!([{"type": "string"}, {"type": "number"}]))]),
            INT_OR_STRING => object([
                ("format", "int-or-string".into()),
                ("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
            ]),
            TIME | MICRO_TIME => object([("type", "string".into()), ("format", "date-time".into())]),
            FIELDS_V1 | RAW_EXTENSION => object([("type", "object".into())]),
            // Any JSON, or a choice that OpenAPI's structural schemas cannot say.
            _ => Map::new(),
        };
        describe(&mut schema, &self.descriptions.message(name));
        Value::Object(schema)
    }
}

fn pointer(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// `x-kubernetes-group-version-kind` of one kind.
pub(super) fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn describe(schema: &mut Map<String, Value>, description: &str) {
    if !description.is_empty() {
        schema.insert("description".into(), description.into());
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
