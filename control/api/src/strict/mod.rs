//! Strict decoding: an object against its message in the schema table.
//!
//! [`conform`] does to a `Value` what Go's decoder and encoder do to an object between them: types
//! are checked, unknown fields fall away (and are told), nulls and empty optional values vanish.
//! What becomes of unknown and duplicate fields (an error, a warning, nothing) is the caller's
//! choice, from [`complaints`] or [`strict_error`].

mod scalar;
mod time;
mod walk;

pub use walk::conform;

/// The complaints of strict decoding, one sentence each: for `Warning` headers.
///
/// `duplicates` come from [`crate::codec::json::decode`], `unknown` from [`conform`].
pub fn complaints(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let mut sentences: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    // What is unknown is not looked into.
    let known = duplicates.iter().filter(|path| !unknown.iter().any(|unknown| is_under(path, unknown)));
    sentences.extend(known.map(|path| format!("duplicate field {path:?}")));
    sentences
}

/// The message of strict decoding: `strict decoding error: unknown field "spec.x"`.
pub fn strict_error(duplicates: &[String], unknown: &[String]) -> String {
    format!("strict decoding error: {}", complaints(duplicates, unknown).join(", "))
}

/// Whether a path is another or leads through it.
fn is_under(path: &str, other: &str) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_unknown_and_duplicate_fields() {
        let unknown = ["spec.containers[0].imagee".to_owned(), "sepc".to_owned()];
        let duplicates = ["metadata.name".to_owned(), "sepc.a".to_owned(), "sepc".to_owned()];
        assert_eq!(
            strict_error(&duplicates, &unknown),
            "strict decoding error: unknown field \"spec.containers[0].imagee\", unknown field \"sepc\", \
             duplicate field \"metadata.name\""
        );
        assert_eq!(complaints(&duplicates, &[]).len(), 3);
        assert!(complaints(&[], &[]).is_empty());
    }
}
