//! What a list or watch asks for: a namespace, labels, fields.

use sampan_api::selector::fields::FieldSelector;
use sampan_api::selector::labels::LabelSelector;

use super::object::Object;
use crate::registry::strategy::Strategy;

/// Which objects are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only this namespace; empty is all.
    pub(crate) namespace: String,
    /// Only objects with such labels.
    pub(crate) labels: LabelSelector,
    /// Only objects with such fields, in the spelling of the stored shape.
    pub(crate) fields: FieldSelector,
}

impl Selection {
    /// Whether an object is wanted.
    pub(crate) fn matches(&self, strategy: &dyn Strategy, object: &Object) -> bool {
        (self.namespace.is_empty() || object.namespace() == self.namespace)
            && self.labels.matches_by(|name| object.label(name))
            && self.fields.matches(|label| object.field(strategy, label))
    }

    /// Whether labels or fields restrict it.
    pub(crate) fn is_filtered(&self) -> bool {
        !self.labels.is_everything() || !self.fields.is_everything()
    }

    /// What the keys of all wanted objects begin with.
    pub(crate) fn key_prefix(&self) -> String {
        if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) }
    }
}
