//! Requests for service accounts' tokens: what makes two of them the same. Pure.

use serde_json::Value;

use super::ask::{Ask, Verb};

/// Whether a request asks for a token.
pub(super) fn is_request(ask: &Ask) -> bool {
    ask.verb == Verb::Create && ask.core() == "serviceaccounts" && ask.subresource == "token"
}

/// What a request asks for, as text, and the UID of the pod that the token is bound to (empty if to
/// none). `None` where the body is no such request.
pub(super) fn identify(ask: &Ask, body: &[u8]) -> Option<(String, String)> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let spec = request.get("spec")?;
    let bound = |field: &str| {
        let value = spec.get("boundObjectRef").and_then(|bound| bound.get(field));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let pod = if bound("kind") == "Pod" { bound("uid") } else { "" };
    // Members are in the order of their names: the same request is the same text.
    Some((format!("{}/{} {spec}", ask.namespace, ask.name), pod.to_owned()))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn the_same_request_is_the_same_text() {
        let uri = "/api/v1/namespaces/ns/serviceaccounts/robot/token".parse().unwrap();
        let ask = Ask::parse(&Method::POST, &uri).unwrap();
        assert!(is_request(&ask));
        let of = |body: &str| identify(&ask, body.as_bytes());
        let first = of(r#"{"spec":{"audiences":["a"],"boundObjectRef":{"kind":"Pod","uid":"u"}}}"#).unwrap();
        let again = of(
            r#"{"kind":"TokenRequest","spec":{"boundObjectRef":{"uid":"u","kind":"Pod"},"audiences":["a"]}}"#,
        );
        assert_eq!(Some(&first), again.as_ref());
        assert_eq!(first.1, "u");
        assert!(first.0.starts_with("ns/robot "));
        assert_ne!(first, of(r#"{"spec":{"audiences":["b"]}}"#).unwrap());
        assert_eq!(of("no JSON"), None);
    }
}
