//! Requests for tokens of service accounts.

use sampan_api::field::{FieldError, FieldPath};
use serde_json::Value;

use super::checks::Errors;
use super::view::{int, list, map, member, text};
use super::volumes::token_lifetime;

/// What is wrong with the body of `serviceaccounts/NAME/token`.
pub fn validate(request: &Value) -> Vec<FieldError> {
    let mut out = Errors::new();
    let spec = member(request, "spec");
    let path = FieldPath::new("spec");
    let seconds = int(spec, "expirationSeconds").unwrap_or_default();
    token_lifetime(seconds, &path.child("expirationSeconds"), &mut out);
    let attestations = map(spec, "attestations");
    if is_webhook(member(spec, "boundObjectRef")) {
        if list(spec, "audiences").len() != 1 {
            let value = member(spec, "audiences").clone();
            let text = "must be length 1 when bound to a webhook config";
            out.push(FieldError::invalid(&path.child("audiences"), value, text));
        }
    } else if !attestations.is_empty() {
        let text = "attestations may only be specified with a webhook bound object reference";
        let value = member(spec, "attestations").clone();
        return vec![FieldError::invalid(&path.child("attestations"), value, text)];
    }
    out
}

fn is_webhook(reference: &Value) -> bool {
    matches!(text(reference, "kind"), "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration")
        && text(reference, "apiVersion") == "admissionregistration.k8s.io/v1"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn tokens_live_between_ten_minutes_and_a_century() {
        for (seconds, expected) in [
            (json!(3600), ""),
            (
                json!(599),
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            ),
            (
                json!(4_294_967_297_i64),
                "spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            ),
        ] {
            let found = texts(&validate(&json!({"spec": {"expirationSeconds": seconds}})));
            assert_eq!(found.join("\n"), expected, "{seconds}");
        }
    }

    #[test]
    fn attestations_are_for_webhooks() {
        let spec = json!({"expirationSeconds": 600, "attestations": {"a": ["b"]}});
        assert_eq!(
            texts(&validate(&json!({"spec": spec}))),
            [
                r#"spec.attestations: Invalid value: {"a":["b"]}: attestations may only be specified with a webhook bound object reference"#
            ]
        );
        let webhook = json!({"expirationSeconds": 600, "boundObjectRef":
            {"kind": "MutatingWebhookConfiguration", "apiVersion": "admissionregistration.k8s.io/v1"}});
        assert_eq!(
            texts(&validate(&json!({"spec": webhook}))),
            ["spec.audiences: Invalid value: null: must be length 1 when bound to a webhook config"]
        );
    }
}
