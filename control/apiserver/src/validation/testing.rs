//! What the tests of validation share.

use sampan_api::field::FieldError;

/// Errors as messages print them: path, title, value and detail.
pub(crate) fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
