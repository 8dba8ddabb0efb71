//! Protobuf bodies: Kubernetes' envelope, and any message of the schema table as JSON.
//!
//! Kubernetes writes every field that is not a pointer, also when it is empty, so that a zero on the
//! wire means something only for pointers and for fields that JSON always has. Tags that the table
//! does not know (a newer client's) are passed over, as Kubernetes passes over them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::DecodeError;
use super::wire::{Reader, Wire};
use crate::schema::{self, Field, Kind, Message, SCHEMA_PROPS, Shape};
use crate::time;

/// What every body begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Messages inside messages, this deep.
const MAX_DEPTH: usize = 128;

/// The media type that the envelope may name.
const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// An object out of its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// The object as JSON, `apiVersion` and `kind` included.
    pub value: Value,
}

/// Reads a body: the envelope tells the kind, the schema table tells the rest.
pub fn decode(body: &[u8]) -> Result<Object, DecodeError> {
    decode_at(body, 0)
}

/// Reads one message without an envelope.
pub fn decode_message(message: &Message, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut members = Map::new();
    read_message(message, bytes, &mut members, 0)?;
    Ok(Value::Object(members))
}

fn decode_at(body: &[u8], depth: usize) -> Result<Object, DecodeError> {
    let body = body.strip_prefix(&MAGIC).ok_or_else(|| {
        wire("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    })?;
    let envelope = Envelope::read(body)?;
    let Envelope { api_version, kind, raw } = envelope;
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
    let Some(message) = schema::kind(group, version, &kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut members = Map::new();
    read_message(message, raw, &mut members, depth)?;
    members.insert("apiVersion".to_owned(), Value::String(api_version.clone()));
    members.insert("kind".to_owned(), Value::String(kind.clone()));
    Ok(Object { api_version, kind, value: Value::Object(members) })
}

/// `runtime.Unknown`: what an object travels in.
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
}

impl<'b> Envelope<'b> {
    fn read(body: &'b [u8]) -> Result<Self, DecodeError> {
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut reader = Reader(body);
        while let Some((tag, value)) = reader.next()? {
            match (tag, value) {
                (1, Wire::Bytes(meta)) => {
                    let mut reader = Reader(meta);
                    while let Some((tag, value)) = reader.next()? {
                        match tag {
                            1 => envelope.api_version = text(value, "APIVersion")?,
                            2 => envelope.kind = text(value, "Kind")?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                (3, value) => refuse_unless(&text(value, "ContentEncoding")?, "", "content encoding")?,
                (4, value) => refuse_unless(&text(value, "ContentType")?, MEDIA_TYPE, "content type")?,
                (1 | 2, other) => return Err(wrong_type(other, "Unknown")),
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn refuse_unless(value: &str, allowed: &str, what: &str) -> Result<(), DecodeError> {
    if value.is_empty() || value == allowed {
        return Ok(());
    }
    Err(DecodeError::Wire(format!("unsupported {what} {value:?} in a protobuf envelope")))
}

fn read_message(
    message: &Message,
    bytes: &[u8],
    members: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let depth = deeper(depth)?;
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        match message.wire(tag) {
            Some(schema::Wire::Field(index)) => {
                if let Some(field) = message.fields.get(usize::from(index)) {
                    read_field(field, value, members, depth)?;
                }
            }
            Some(schema::Wire::Inline(inlined)) => {
                let inlined = inlined.get();
                read_message(inlined, length_delimited(value, inlined.short_name())?, members, depth)?;
            }
            None => {}
        }
    }
    Ok(())
}

fn deeper(depth: usize) -> Result<usize, DecodeError> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(wire("proto: messages are nested too deep")) }
}

fn read_field(
    field: &Field,
    value: Wire<'_>,
    members: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    match field.shape {
        Shape::One => {
            let value = read_value(field, value, depth)?;
            if value.is_null() || (field.kind.omits(&value) && !field.keeps_zero()) {
                // The last one on the wire counts, also when it is a zero.
                members.remove(field.name);
                return Ok(());
            }
            merge(members.entry(field.name).or_insert(Value::Null), value);
        }
        Shape::List => {
            let entry = members.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = entry else { return Err(wire("proto: a list is no list")) };
            match (value, is_varint(field.kind)) {
                (Wire::Bytes(packed), true) => {
                    let mut reader = Reader(packed);
                    while !reader.0.is_empty() {
                        list.push(read_value(field, Wire::Varint(reader.varint()?), depth)?);
                    }
                }
                _ => list.push(read_value(field, value, depth)?),
            }
        }
        Shape::Map => {
            let (key, value) = read_entry(field, value, depth)?;
            let entry = members.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = entry else { return Err(wire("proto: a map is no map")) };
            map.insert(key, value);
        }
    }
    Ok(())
}

/// A message that occurs twice is one message with the fields of both.
fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(more)) => into.extend(more),
        (into, value) => *into = value,
    }
}

fn read_entry(field: &Field, entry: Wire<'_>, depth: usize) -> Result<(String, Value), DecodeError> {
    let mut reader = Reader(length_delimited(entry, field.name)?);
    let mut key = String::new();
    let mut read = None;
    while let Some((tag, value)) = reader.next()? {
        match tag {
            1 => key = text(value, field.name)?,
            2 => read = Some(read_value(field, value, depth)?),
            _ => {}
        }
    }
    Ok((key, read.unwrap_or_else(|| field.kind.zero())))
}

fn read_value(field: &Field, value: Wire<'_>, depth: usize) -> Result<Value, DecodeError> {
    let bytes = || length_delimited(value, field.name);
    let number = || match value {
        Wire::Varint(number) => Ok(number),
        other => Err(wrong_type(other, field.name)),
    };
    Ok(match field.kind {
        Kind::Bool => Value::Bool(number()? != 0),
        // Negative numbers are sign-extended to 64 bits on the wire.
        Kind::Int32 => Value::from(number()?.cast_signed() as i32),
        Kind::Int64 => Value::from(number()?.cast_signed()),
        Kind::Double => match value {
            Wire::Fixed64(bits) => double(f64::from_bits(bits))?,
            other => return Err(wrong_type(other, field.name)),
        },
        Kind::String => Value::String(text(value, field.name)?),
        Kind::Bytes => Value::String(STANDARD.encode(bytes()?)),
        Kind::Quantity => {
            let text = single_text(bytes()?, field.name)?;
            Value::String(if text.is_empty() { "0".to_owned() } else { text })
        }
        Kind::IntOrString => int_or_string(bytes()?, field.name)?,
        Kind::Time => timestamp(bytes()?)?.map_or(Value::Null, |at| time::format_seconds(at).into()),
        Kind::MicroTime => timestamp(bytes()?)?.map_or(Value::Null, |at| time::format_micros(at).into()),
        Kind::RawExtension | Kind::FieldsV1 | Kind::Json => raw(bytes()?, field.name, depth)?,
        Kind::Strings => Value::Array(strings(bytes()?, 1, field.name)?),
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            schema_or(field, bytes()?, depth)?
        }
        Kind::Message(message) => {
            let mut members = Map::new();
            read_message(message.get(), bytes()?, &mut members, depth)?;
            Value::Object(members)
        }
    })
}

/// A whole number stays one in JSON, as in Go's.
fn double(value: f64) -> Result<Value, DecodeError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Ok(Value::from(value as i64));
    }
    Number::from_f64(value)
        .map(Value::Number)
        .ok_or_else(|| DecodeError::Wire(format!("json: unsupported value: {value}")))
}

fn int_or_string(bytes: &[u8], name: &str) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut string) = (false, 0i32, String::new());
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        match (tag, value) {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed() as i32,
            (3, value) => string = text(value, name)?,
            (1 | 2, other) => return Err(wrong_type(other, name)),
            _ => {}
        }
    }
    Ok(if is_text { Value::String(string) } else { Value::from(number) })
}

/// Seconds and nanoseconds; nothing at all is no time.
fn timestamp(bytes: &[u8]) -> Result<Option<Timestamp>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        match (tag, value) {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = value.cast_signed() as i32,
            (1 | 2, other) => return Err(wrong_type(other, "Time")),
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, nanos)
        .map_err(|_| wire("Time.MarshalJSON: year outside of range [0,9999]"))?;
    Ok(Some(at))
}

/// JSON inside protobuf, or an object in an envelope of its own.
fn raw(bytes: &[u8], name: &str, depth: usize) -> Result<Value, DecodeError> {
    let mut content: &[u8] = &[];
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        if tag == 1 {
            content = length_delimited(value, name)?;
        }
    }
    if content.is_empty() {
        return Ok(Value::Null);
    }
    if content.starts_with(&MAGIC) {
        return decode_at(content, deeper(depth)?).map(|object| object.value);
    }
    super::json::decode(content).map(|decoded| decoded.value)
}

/// `JSONSchemaPropsOrArray`, `…OrBool` and `…OrStringArray`: a schema or the alternative.
fn schema_or(field: &Field, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let depth = deeper(depth)?;
    let Some(props) = schema::message(SCHEMA_PROPS) else { return Ok(Value::Null) };
    let schema_tag = if field.kind == Kind::SchemaOrBool { 2 } else { 1 };
    let mut alternative = match field.kind {
        Kind::SchemaOrBool => Value::Bool(false),
        _ => Value::Array(Vec::new()),
    };
    let mut schema = None;
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        if tag == schema_tag {
            let mut members = Map::new();
            read_message(props, length_delimited(value, field.name)?, &mut members, depth)?;
            schema = Some(Value::Object(members));
            continue;
        }
        match (field.kind, tag, value, &mut alternative) {
            (Kind::SchemaOrBool, 1, Wire::Varint(allows), alternative) => {
                *alternative = Value::Bool(allows != 0);
            }
            (Kind::SchemaOrArray, 2, Wire::Bytes(bytes), Value::Array(list)) => {
                let mut members = Map::new();
                read_message(props, bytes, &mut members, depth)?;
                list.push(Value::Object(members));
            }
            (Kind::SchemaOrStrings, 2, value, Value::Array(list)) => {
                list.push(Value::String(text(value, field.name)?));
            }
            (_, 1 | 2, other, _) => return Err(wrong_type(other, field.name)),
            _ => {}
        }
    }
    Ok(schema.unwrap_or(alternative))
}

fn strings(bytes: &[u8], tag: u32, name: &str) -> Result<Vec<Value>, DecodeError> {
    let mut list = Vec::new();
    let mut reader = Reader(bytes);
    while let Some((at, value)) = reader.next()? {
        if at == tag {
            list.push(Value::String(text(value, name)?));
        }
    }
    Ok(list)
}

fn single_text(bytes: &[u8], name: &str) -> Result<String, DecodeError> {
    let mut read = String::new();
    let mut reader = Reader(bytes);
    while let Some((tag, value)) = reader.next()? {
        if tag == 1 {
            read = text(value, name)?;
        }
    }
    Ok(read)
}

fn text(value: Wire<'_>, name: &str) -> Result<String, DecodeError> {
    let bytes = length_delimited(value, name)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|_| DecodeError::Wire(format!("proto: invalid UTF-8 in field {name}")))?;
    Ok(text.to_owned())
}

fn length_delimited<'b>(value: Wire<'b>, name: &str) -> Result<&'b [u8], DecodeError> {
    match value {
        Wire::Bytes(bytes) => Ok(bytes),
        other => Err(wrong_type(other, name)),
    }
}

fn wrong_type(value: Wire<'_>, name: &str) -> DecodeError {
    DecodeError::Wire(format!("proto: wrong wireType = {} for field {name}", value.type_number()))
}

fn wire(what: &str) -> DecodeError {
    DecodeError::Wire(what.to_owned())
}

fn is_varint(kind: Kind) -> bool {
    matches!(kind, Kind::Bool | Kind::Int32 | Kind::Int64)
}

#[cfg(test)]
mod tests;
