//! Single values: their types, and the formats of those that are text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::time;
use crate::quantity::Quantity;
use crate::schema::Kind;

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is of another type than its field.
    Type,
    /// Its format is wrong; types that decode themselves do not tell where.
    Sentence(String),
}

/// Checks a scalar and brings it into its one form.
pub(super) fn check(kind: Kind, value: &mut Value) -> Result<(), Fault> {
    match (kind, &*value) {
        (Kind::Bool, Value::Bool(_))
        | (Kind::String, Value::String(_))
        | (Kind::Double, Value::Number(_)) => Ok(()),
        (Kind::Int32, Value::Number(number)) => {
            number.as_i64().and_then(|number| i32::try_from(number).ok()).map(drop).ok_or(Fault::Type)
        }
        (Kind::Int64, Value::Number(number)) => number.as_i64().map(drop).ok_or(Fault::Type),
        (Kind::Bytes, Value::String(text)) => {
            *value = Value::String(base64(text)?);
            Ok(())
        }
        (Kind::IntOrString, _) => int_or_string(value),
        (Kind::Quantity, _) => quantity(value),
        (Kind::Time | Kind::MicroTime, Value::String(text)) => {
            *value = Value::String(time::canonical(kind, text).map_err(Fault::Sentence)?);
            Ok(())
        }
        (Kind::Time | Kind::MicroTime, other) => Err(go_value(other, "string")),
        _ => Err(Fault::Type),
    }
}

/// Line breaks in base64 are passed over, as Go does.
fn base64(text: &str) -> Result<String, Fault> {
    let text = if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "") } else { text.to_owned() };
    match STANDARD.decode(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let at = match error {
                // Padding ended the text, and more of it follows.
                base64::DecodeError::InvalidByte(at, b'=') if at % 4 == 3 => at + 1,
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    text.trim_end_matches('=').len() / 4 * 4
                }
            };
            Err(Fault::Sentence(format!("illegal base64 data at input byte {at}")))
        }
    }
}

fn int_or_string(value: &Value) -> Result<(), Fault> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(number) => {
            let fits = number.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
            if fits { Ok(()) } else { Err(go_value(value, "int32")) }
        }
        other => Err(go_value(other, "int32")),
    }
}

/// Numbers are quantities too; their text is kept.
fn quantity(value: &mut Value) -> Result<(), Fault> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    };
    Quantity::parse(&text).map_err(|error| Fault::Sentence(error.to_string()))?;
    *value = Value::String(text);
    Ok(())
}

/// The complaint of a type that decodes itself.
fn go_value(value: &Value, ty: &str) -> Fault {
    let given = if ty == "int32" { go_number(value) } else { go_kind(value).to_owned() };
    Fault::Sentence(format!("json: cannot unmarshal {given} into Go value of type {ty}"))
}

/// What Go calls a value of this type.
pub(super) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The same, where a number was wanted and another one was given: Go says which.
pub(super) fn go_number(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("number {number}"),
        other => go_kind(other).to_owned(),
    }
}
