//! Request bodies to `serde_json::Value`: JSON with its duplicates noticed, and protobuf.
//!
//! Objects are JSON inside. Nothing is encoded here: answers are JSON, which every client accepts.

pub mod json;
pub mod protobuf;
mod wire;

/// A body that cannot be read. `Display` is the sentence as Kubernetes words it; answers are
/// 400 `BadRequest` with more words around it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value does not have its field's type or format.
    #[error("{0}")]
    Type(String),
    /// The bytes are not the protobuf they claim to be.
    #[error("{0}")]
    Wire(String),
    /// The protobuf is of a kind that is not known.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
}

/// How much of a body that is not understood at all is shown.
const SHOWN: usize = 30;

/// The message of the 400 that answers a body which cannot be read as `kind` in `version`
/// (without its group, as Kubernetes has it).
pub fn refusal(error: &DecodeError, kind: &str, version: &str, body: &[u8]) -> String {
    match error {
        DecodeError::Type(_) | DecodeError::UnknownKind { .. } => {
            format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}")
        }
        DecodeError::Syntax(_) => format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; \
             json parse error: {error} ({})",
            summary(body)
        ),
        DecodeError::Wire(_) => format!(
            "the object provided is unrecognized (must be of type {kind}): {error} ({})",
            summary(body)
        ),
    }
}

/// The beginning of a body: as text if it looks like JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    let shown = body.get(..SHOWN).unwrap_or(body);
    let rest = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{rest}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{rest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_was_expected_and_show_what_came() {
        let syntax = DecodeError::Syntax("unexpected end of JSON input".to_owned());
        let unrecognized = "the object provided is unrecognized (must be of type Pod): ";
        let parse = "couldn't get version/kind; json parse error: unexpected end of JSON input";
        let cases = [
            (
                DecodeError::Type("json: cannot unmarshal x".to_owned()),
                &b"{}"[..],
                "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal x".to_owned(),
            ),
            (syntax.clone(), b"", format!("{unrecognized}{parse} (<empty>)")),
            (syntax.clone(), b"{\"a\":", format!("{unrecognized}{parse} ({{\"a\":)")),
            (
                syntax,
                b"{\"a\": \"0123456789012345678901234567890",
                format!("{unrecognized}{parse} ({{\"a\": \"01234567890123456789012 ...)"),
            ),
            (
                DecodeError::Wire("unexpected EOF".to_owned()),
                b"k8s\0",
                format!("{unrecognized}unexpected EOF (6b387300)"),
            ),
        ];
        for (error, body, expected) in cases {
            assert_eq!(refusal(&error, "Pod", "v1", body), expected);
        }
    }
}
