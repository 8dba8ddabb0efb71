//! The token by which a client asks for the next part of a list.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use sampan_api::status::Status;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on, and as of which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContinueToken {
    /// The revision of the whole list.
    pub(crate) revision: u64,
    /// The first key of the next part, relative to the resource.
    pub(crate) from: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

impl ContinueToken {
    /// The token as clients see it.
    pub(crate) fn encode(&self) -> String {
        let rv = i64::try_from(self.revision).unwrap_or(i64::MAX);
        let wire = Wire { v: VERSION.into(), rv, start: self.from.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// Reads a token; `prefix` is what its key must begin with.
    pub(crate) fn decode(text: &str, prefix: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
        let bytes = bytes.map_err(|e| bad(&e.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if wire.v != VERSION {
            return Err(bad(&format!("server does not recognize this encoded version {:?}", wire.v)));
        }
        let Some(revision) = u64::try_from(wire.rv).ok().filter(|rv| *rv > 0) else {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        };
        if wire.start.is_empty() || !wire.start.starts_with(prefix) {
            return Err(bad("encoded start key is not of this list"));
        }
        Ok(Self { revision, from: wire.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went() {
        let token = ContinueToken { revision: 12, from: "ns/é\0".into() };
        assert_eq!(ContinueToken::decode(&token.encode(), "ns/").unwrap(), token);
    }

    #[test]
    fn tokens_that_are_broken_or_of_another_list_are_refused() {
        let token = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let cases = [
            "%%%".to_owned(),
            token("{}"),
            token(r#"{"v":"v2","rv":1,"start":"ns/a"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"ns/a"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"ns/a"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"other/a"}"#),
        ];
        for case in cases {
            let status = ContinueToken::decode(&case, "ns/").unwrap_err();
            assert_eq!(status.code, 400, "{case}");
            assert!(status.message.starts_with("continue key is not valid"), "{}", status.message);
        }
    }
}
