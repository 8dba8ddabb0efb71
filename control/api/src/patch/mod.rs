//! Patches: JSON patch (RFC 6902), merge patch (RFC 7396) and strategic merge patch, applied to
//! objects as JSON.
//!
//! Called by the API server's PATCH endpoint. Decoding the body and checking the patched object are
//! the caller's; nothing here knows about kinds beyond what the schema table says.

pub mod strategic;

use serde_json::Value;

use crate::status::Status;

/// How many operations one JSON patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// Why a patch was not applied. The object is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch makes sense but does not go with this object (422).
    #[error("{0}")]
    Unprocessable(String),
    /// The patch is too long (413).
    #[error("{0}")]
    TooLarge(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(text) => Self::bad_request(text),
            PatchError::Unprocessable(text) => Self::unprocessable(text),
            PatchError::TooLarge(text) => Self::too_large(text),
        }
    }
}

/// Applies the operations of a JSON patch, all or none.
pub fn json_patch(object: &mut Value, operations: &Value) -> Result<(), PatchError> {
    if let Some(list) = operations.as_array()
        && list.len() > MAX_OPERATIONS
    {
        let count = list.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let patch: json_patch::Patch = serde_json::from_value(operations.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    json_patch::patch(object, &patch).map_err(|error| PatchError::Unprocessable(error.to_string()))
}

/// Applies a merge patch: members replace members, `null` removes them, lists are replaced whole.
pub fn merge_patch(object: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("error decoding patch: a merge patch is a JSON object".to_owned()));
    }
    json_patch::merge(object, patch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches_apply_all_operations_or_none() {
        let mut object = json!({"a": {"b": [1, 2]}, "c": "x"});
        let before = object.clone();
        json_patch(
            &mut object,
            &json!([
                {"op": "test", "path": "/c", "value": "x"},
                {"op": "add", "path": "/a/b/-", "value": 3},
                {"op": "replace", "path": "/a/b/0", "value": 0},
                {"op": "remove", "path": "/c"},
                {"op": "copy", "from": "/a/b", "path": "/d"},
                {"op": "move", "from": "/a/b", "path": "/e~1f"},
            ]),
        )
        .unwrap();
        assert_eq!(object, json!({"a": {}, "d": [0, 2, 3], "e/f": [0, 2, 3]}));
        let mut object = before.clone();
        let failing = json!([{"op": "remove", "path": "/c"}, {"op": "test", "path": "/a/b/0", "value": 7}]);
        assert!(matches!(json_patch(&mut object, &failing), Err(PatchError::Unprocessable(_))));
        assert_eq!(object, before);
    }

    #[test]
    fn bad_json_patches_are_told_apart_by_status() {
        let mut object = json!({});
        let mut code = |patch: Value| Status::from(json_patch(&mut object, &patch).unwrap_err()).code;
        assert_eq!(code(json!({"op": "add"})), 400);
        assert_eq!(code(json!([{"op": "grow", "path": "/a"}])), 400);
        assert_eq!(code(json!([{"op": "remove", "path": "/a"}])), 422);
        assert_eq!(code(json!([{"op": "add", "path": "/a/b", "value": 1}])), 422);
        let many = vec![json!({"op": "add", "path": "/a", "value": 1}); MAX_OPERATIONS + 1];
        assert_eq!(code(Value::Array(many)), 413);
    }

    #[test]
    fn merge_patches_replace_lists_and_remove_nulls() {
        let mut object = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
        merge_patch(&mut object, &json!({"a": {"b": null, "c": [3]}, "e": {"f": null, "g": 1}})).unwrap();
        assert_eq!(object, json!({"a": {"c": [3]}, "d": "x", "e": {"g": 1}}));
        assert!(matches!(merge_patch(&mut object, &json!([1])), Err(PatchError::Malformed(_))));
    }
}
