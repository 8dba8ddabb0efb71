//! Brings every quantity in an object into canonical form, wherever the schema says there is one.

use serde_json::Value;

use crate::quantity::Quantity;
use crate::schema::{Kind, Message, Shape};

/// Rewrites the quantities in an object of this type. Lists of resources are rounded up to
/// thousandths, as Kubernetes does; what is no quantity stays for decoding to refuse.
pub(super) fn canonicalise(message: &'static Message, value: &mut Value) {
    let Value::Object(object) = value else { return };
    for (name, value) in object {
        let Some(field) = message.field(name) else { continue };
        match field.kind {
            Kind::Quantity if field.shape == Shape::Map => {
                each(field.shape, value, |amount| rewrite(amount, Quantity::round_up_milli));
            }
            Kind::Quantity => each(field.shape, value, |amount| rewrite(amount, |q| q)),
            Kind::Message(inner) => {
                let inner = inner.get();
                each(field.shape, value, |value| canonicalise(inner, value));
            }
            _ => {}
        }
    }
}

fn each(shape: Shape, value: &mut Value, mut f: impl FnMut(&mut Value)) {
    match (shape, value) {
        (Shape::One, value) => f(value),
        (Shape::List, Value::Array(list)) => list.iter_mut().for_each(f),
        (Shape::Map, Value::Object(map)) => map.values_mut().for_each(f),
        _ => {}
    }
}

fn rewrite(value: &mut Value, round: impl Fn(Quantity) -> Quantity) {
    if let Ok(quantity) = Quantity::from_json(value) {
        *value = round(quantity).to_string().into();
    }
}
