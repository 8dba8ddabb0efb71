//! The other direction, for tests: JSON to protobuf as Go's generated code writes it, and objects
//! with every field set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::schema::{self, Field, Kind, Message, SCHEMA_PROPS, Shape, Wire};
use crate::time;

/// A message, zeros of fields that are no pointers included.
pub(super) fn encode(message: &Message, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, wire) in message.wires() {
        match wire {
            Wire::Inline(inlined) => put_bytes(&mut bytes, *tag, &encode(inlined.get(), value)),
            Wire::Field(index) => {
                let field = &message.fields[usize::from(*index)];
                encode_field(&mut bytes, field, value.get(field.name));
            }
        }
    }
    bytes
}

/// An object in its envelope.
pub(super) fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut bytes = b"k8s\0".to_vec();
    put_bytes(&mut bytes, 1, &meta);
    put_bytes(&mut bytes, 2, raw);
    put_bytes(&mut bytes, 3, b"");
    put_bytes(&mut bytes, 4, b"");
    bytes
}

fn encode_field(bytes: &mut Vec<u8>, field: &Field, value: Option<&Value>) {
    match (field.shape, value) {
        (Shape::One, Some(value)) => encode_value(bytes, field.tag, field.kind, value),
        (Shape::One, None) if !field.pointer && is_scalar(field.kind) => {
            encode_value(bytes, field.tag, field.kind, &field.kind.zero());
        }
        (Shape::List, Some(Value::Array(elements))) => {
            for element in elements {
                encode_value(bytes, field.tag, field.kind, element);
            }
        }
        (Shape::Map, Some(Value::Object(entries))) => {
            for (key, value) in entries {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                encode_value(&mut entry, 2, field.kind, value);
                put_bytes(bytes, field.tag, &entry);
            }
        }
        (_, None) => {}
        (shape, Some(value)) => panic!("{}: {shape:?} {value}", field.name),
    }
}

fn encode_value(bytes: &mut Vec<u8>, tag: u32, kind: Kind, value: &Value) {
    let text = || value.as_str().unwrap();
    let props = || schema::message(SCHEMA_PROPS).unwrap();
    match kind {
        Kind::Bool => put_varint(bytes, tag, u64::from(value.as_bool().unwrap())),
        Kind::Int32 | Kind::Int64 => put_varint(bytes, tag, value.as_i64().unwrap().cast_unsigned()),
        Kind::Double => {
            varint(bytes, u64::from(tag) << 3 | 1);
            bytes.extend(value.as_f64().unwrap().to_le_bytes());
        }
        Kind::String => put_bytes(bytes, tag, text().as_bytes()),
        Kind::Bytes => put_bytes(bytes, tag, &STANDARD.decode(text()).unwrap()),
        Kind::Quantity => put_bytes(bytes, tag, &nested(|b| put_bytes(b, 1, text().as_bytes()))),
        Kind::IntOrString => {
            let inner = nested(|b| {
                put_varint(b, 1, u64::from(value.is_string()));
                put_varint(b, 2, value.as_i64().unwrap_or(0).cast_unsigned());
                put_bytes(b, 3, value.as_str().unwrap_or("").as_bytes());
            });
            put_bytes(bytes, tag, &inner);
        }
        Kind::Time | Kind::MicroTime => {
            let inner = nested(|b| {
                if let Some(at) = value.as_str().map(|text| time::parse(text).unwrap()) {
                    put_varint(b, 1, at.as_second().cast_unsigned());
                    put_varint(b, 2, u64::try_from(at.subsec_nanosecond()).unwrap());
                }
            });
            put_bytes(bytes, tag, &inner);
        }
        Kind::RawExtension | Kind::FieldsV1 | Kind::Json => {
            put_bytes(bytes, tag, &nested(|b| put_bytes(b, 1, value.to_string().as_bytes())));
        }
        Kind::Strings => put_bytes(bytes, tag, &nested(|b| put_strings(b, 1, value))),
        Kind::SchemaOrArray => {
            let inner = nested(|b| match value {
                Value::Array(list) => list.iter().for_each(|one| put_bytes(b, 2, &encode(props(), one))),
                one => put_bytes(b, 1, &encode(props(), one)),
            });
            put_bytes(bytes, tag, &inner);
        }
        Kind::SchemaOrBool => {
            let inner = nested(|b| match value {
                Value::Bool(allows) => put_varint(b, 1, u64::from(*allows)),
                one => put_bytes(b, 2, &encode(props(), one)),
            });
            put_bytes(bytes, tag, &inner);
        }
        Kind::SchemaOrStrings => {
            let inner = nested(|b| match value {
                Value::Array(_) => put_strings(b, 2, value),
                one => put_bytes(b, 1, &encode(props(), one)),
            });
            put_bytes(bytes, tag, &inner);
        }
        Kind::Message(message) => put_bytes(bytes, tag, &encode(message.get(), value)),
    }
}

fn is_scalar(kind: Kind) -> bool {
    matches!(kind, Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::String)
}

fn nested(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    fill(&mut bytes);
    bytes
}

fn put_strings(bytes: &mut Vec<u8>, tag: u32, value: &Value) {
    for text in value.as_array().unwrap() {
        put_bytes(bytes, tag, text.as_str().unwrap().as_bytes());
    }
}

pub(super) fn put_varint(bytes: &mut Vec<u8>, tag: u32, value: u64) {
    varint(bytes, u64::from(tag) << 3);
    varint(bytes, value);
}

pub(super) fn put_bytes(bytes: &mut Vec<u8>, tag: u32, value: &[u8]) {
    varint(bytes, u64::from(tag) << 3 | 2);
    varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

pub(super) fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// An object with every field set, to values that differ. Types inside themselves stay out.
pub(super) fn populate(message: &'static Message) -> Value {
    Populate { counter: 0, inside: Vec::new() }.message(message)
}

struct Populate {
    counter: i32,
    inside: Vec<&'static str>,
}

impl Populate {
    fn message(&mut self, message: &'static Message) -> Value {
        self.inside.push(message.name);
        let mut members = Map::new();
        for field in message.fields.iter().filter(|field| field.tag != 0) {
            if field.message().is_some_and(|message| self.inside.contains(&message.name)) {
                continue;
            }
            let value = match field.shape {
                Shape::One => self.value(field.kind),
                Shape::List => json!([self.value(field.kind), self.value(field.kind)]),
                Shape::Map => json!({"a": self.value(field.kind), "b": self.value(field.kind)}),
            };
            members.insert(field.name.to_owned(), value);
        }
        self.inside.pop();
        Value::Object(members)
    }

    fn value(&mut self, kind: Kind) -> Value {
        self.counter += 1;
        let n = self.counter;
        match kind {
            Kind::Bool => json!(true),
            Kind::Int32 => json!(-n),
            Kind::Int64 => json!(i64::from(n) << 32),
            Kind::Double => json!(f64::from(n) + 0.5),
            Kind::String => json!(format!("text {n}")),
            Kind::Bytes => json!(STANDARD.encode(format!("bytes {n}"))),
            Kind::Quantity => json!(format!("{n}m")),
            Kind::IntOrString if n % 2 == 0 => json!(n),
            Kind::IntOrString => json!(format!("{n}%")),
            Kind::Time => json!(format!("2025-01-31T12:00:{:02}Z", n % 60)),
            Kind::MicroTime => json!(format!("2025-01-31T12:00:00.{:06}Z", n)),
            Kind::RawExtension | Kind::FieldsV1 => json!({"raw": n}),
            Kind::Json => json!([n, null, {"a": "b"}]),
            Kind::Strings => json!([format!("text {n}"), ""]),
            Kind::SchemaOrArray if n % 2 == 0 => json!([{"type": "string"}, {"minimum": 0}]),
            Kind::SchemaOrArray | Kind::SchemaOrStrings => json!({"type": "string", "maxLength": 0}),
            Kind::SchemaOrBool => json!(n % 2 == 0),
            Kind::Message(message) => self.message(message.get()),
        }
    }
}
