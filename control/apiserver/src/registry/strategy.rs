//! The seam between the generic registry and what is particular to a kind.
//!
//! The registry (`super::store`) owns metadata, revisions, names, deletion and dry run; a
//! [`Strategy`] owns the rest of its kind: what a client may set, what is valid, what is warned
//! about, by what it is selected, how it is printed. Strategies are pure: no clock (time comes in
//! [`Context`]), no store, no I/O.
//!
//! Objects are in the shape in which they are stored. Kinds served by more than one API (the two
//! Event APIs) are converted before a strategy sees them; [`Context::requested`] tells through
//! which API the request came, for rules that differ.

use jiff::Timestamp;
use sampan_api::field::FieldError;
use sampan_api::scheme::Resource;
use serde_json::Value;

/// Which part of an object an update addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The object itself; status is not taken from the client.
    Main,
    /// `/status`: only status (and metadata that controllers use) is taken from the client.
    Status,
    /// `/finalize` of namespaces: only `spec.finalizers`.
    Finalize,
}

impl Part {
    /// The part that a subresource's name addresses, if it addresses one.
    pub fn of_subresource(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Main),
            "status" => Some(Self::Status),
            "finalize" => Some(Self::Finalize),
            _ => None,
        }
    }
}

/// What a strategy may know about the request.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The resource as it was requested (group and version of the path).
    pub requested: &'static Resource,
    /// The part of the object that is written.
    pub part: Part,
    /// The time of the request.
    pub now: Timestamp,
}

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Title, as Kubernetes has it: `Name`, `Ready`.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `boolean`.
    pub kind: &'static str,
    /// OpenAPI format: `name` for the name column, else mostly empty.
    pub format: &'static str,
    /// What the column shows.
    pub description: &'static str,
    /// 0 is always shown; more only in wide output.
    pub priority: i32,
}

/// What is particular to a kind.
///
/// The registry has checked before any method is called: the object is of this kind, known fields
/// only (or the client agreed to drop the rest), defaults applied, and the metadata valid by the
/// general rules. The metadata's name is checked by [`Strategy::validate_name`].
pub trait Strategy: Send + Sync + 'static {
    /// The resource whose stored shape this is (one strategy for each `Resource::storage`).
    fn resource(&self) -> &'static Resource;

    /// What is wrong with a name of this kind; the default is a DNS subdomain
    /// (`metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must ...`).
    /// A `generateName` prefix is checked as `{prefix}` with a trailing dash taken off.
    fn validate_name(&self, name: &str) -> Vec<String> {
        sampan_api::names::is_dns1123_subdomain(name)
    }

    /// Takes away what clients may not set on creation (status), and sets what the server sets.
    fn prepare_for_create(&self, cx: &Context, object: &mut Value);

    /// What is wrong with a new object, metadata aside.
    fn validate(&self, cx: &Context, object: &Value) -> Vec<FieldError>;

    /// What a client should know about a new object that is accepted anyway; texts of `Warning` headers.
    fn warnings(&self, _cx: &Context, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Puts back from `old` what a client may not change in this part (status on a main update,
    /// all but status on a status update), and sets what the server sets.
    fn prepare_for_update(&self, cx: &Context, object: &mut Value, old: &Value);

    /// What is wrong with a changed object, metadata aside; also checks what may not change.
    fn validate_update(&self, cx: &Context, object: &Value, old: &Value) -> Vec<FieldError>;

    /// Warnings about a changed object.
    fn warnings_on_update(&self, _cx: &Context, _object: &Value, _old: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Whether `PUT` of a name that does not exist creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `metadata.resourceVersion` is taken.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Whether `metadata.generation` is kept for this kind: 1 on creation, one more each time
    /// [`Strategy::generation_changed`] says so.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a main update changes what `metadata.generation` counts; by default `spec`.
    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        object.get("spec") != old.get("spec")
    }

    /// How long a deleted object stays with a `deletionTimestamp` before it is removed, in
    /// seconds: for pods the requested period or the pod's own, nothing where the pod never ran or
    /// has ended. `None` (and 0) removes at once, unless finalizers hold the object.
    fn grace_period(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Called when an object gets its `deletionTimestamp` (namespaces become `Terminating`).
    fn prepare_for_deletion(&self, _object: &mut Value) {}

    /// Whether an object that is being deleted may go, its metadata's finalizers and grace period
    /// aside (namespaces: once `spec.finalizers` is empty).
    fn may_be_removed(&self, _object: &Value) -> bool {
        true
    }

    /// Field labels that field selectors may name, beyond `metadata.name` and
    /// `metadata.namespace`, in the requested API's spelling.
    fn field_labels(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of one of [`Strategy::field_labels`]; by default the value at that path, empty
    /// where there is none.
    fn field_value(&self, object: &Value, label: &str) -> String {
        value_at(object, label)
    }

    /// The columns of `kubectl get`; the first is the name.
    fn columns(&self) -> &'static [Column];

    /// One cell for each column.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// The scalar at a dotted path as text; empty where there is none.
pub fn value_at(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |at, name| at.get(name));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_at_a_path_become_text_and_the_rest_is_empty() {
        let object = json!({"spec": {"nodeName": "n1", "hostNetwork": true, "n": 3, "list": []}});
        for (path, expected) in [
            ("spec.nodeName", "n1"),
            ("spec.hostNetwork", "true"),
            ("spec.n", "3"),
            ("spec.list", ""),
            ("spec.absent.deeper", ""),
        ] {
            assert_eq!(value_at(&object, path), expected, "{path}");
        }
    }
}
