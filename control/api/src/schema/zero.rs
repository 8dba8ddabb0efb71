//! Zero values: what Go's types hold when nothing was said, and what its encoder leaves out.

use serde_json::{Map, Value};

use super::types::{Field, Kind};

impl Kind {
    /// What `null` stands for in a list or a map.
    pub fn zero(self) -> Value {
        match self {
            Self::Bool => Value::Bool(false),
            Self::Int32 | Self::Int64 | Self::Double | Self::IntOrString => Value::from(0),
            Self::String | Self::Bytes => Value::String(String::new()),
            Self::Quantity => Value::String("0".to_owned()),
            Self::Strings => Value::Array(Vec::new()),
            Self::Message(_) => Value::Object(Map::new()),
            Self::Time
            | Self::MicroTime
            | Self::RawExtension
            | Self::FieldsV1
            | Self::Json
            | Self::SchemaOrArray
            | Self::SchemaOrBool
            | Self::SchemaOrStrings => Value::Null,
        }
    }

    /// Whether Go leaves such a value out of an optional field that is no pointer. Structs are never
    /// left out, and quantities and the like are structs.
    pub fn omits(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::Bool, Value::Bool(value)) => !value,
            (Self::Int32 | Self::Int64 | Self::Double, Value::Number(value)) => value.as_f64() == Some(0.0),
            (Self::String | Self::Bytes, Value::String(value)) => value.is_empty(),
            (Self::Strings, Value::Array(value)) => value.is_empty(),
            _ => false,
        }
    }
}

impl Field {
    /// Whether the field's zero is written: because it always is, or because a pointer tells it from
    /// nothing.
    pub fn keeps_zero(&self) -> bool {
        self.required || self.pointer
    }
}
