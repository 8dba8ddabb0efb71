//! Service account tokens: ES256, signed and verified with the cluster's own key.
//!
//! Verification here is about the token alone; whether the account (and pod) it names still exists
//! is asked by the authentication filter, which can see the registry.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a token was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The key cannot be read, or signing failed.
    #[error("the service account key cannot be used")]
    Key(#[source] jsonwebtoken::errors::Error),
    /// The token is malformed, expired, of another issuer, or not signed by this cluster.
    #[error("the token is not valid")]
    Invalid(#[source] jsonwebtoken::errors::Error),
    /// The token is meant for somebody else.
    #[error("the token's audiences do not include this server's")]
    Audience,
}

/// What a token is bound to, beside its account: it ends when that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Binding {
    /// The object's name.
    pub(crate) name: String,
    /// The object's UID.
    pub(crate) uid: String,
}

/// The private part of the claims, as Kubernetes lays it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KubernetesClaims {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Binding,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pod: Option<Binding>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) secret: Option<Binding>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) node: Option<Binding>,
}

/// The claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: KubernetesClaims,
}

/// Signs and verifies tokens.
pub(crate) struct TokenAuthority {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    issuer: String,
    audiences: Vec<String>,
}

impl TokenAuthority {
    /// An authority with a private key (PKCS #8 PEM, P-256) and its public part.
    pub(crate) fn new(
        private_pem: &str,
        public_pem: &str,
        issuer: &str,
        audiences: Vec<String>,
    ) -> Result<Self, TokenError> {
        let digest = Sha256::digest(public_pem.as_bytes());
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(private_pem.as_bytes()).map_err(TokenError::Key)?,
            decoding: DecodingKey::from_ec_pem(public_pem.as_bytes()).map_err(TokenError::Key)?,
            key_id: digest.iter().take(16).map(|b| format!("{b:02x}")).collect(),
            issuer: issuer.to_owned(),
            audiences,
        })
    }

    /// Who issues: the `iss` claim.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The audiences that mean this server.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Signs claims.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.clone());
        encode(&header, claims, &self.encoding).map_err(TokenError::Key)
    }

    /// The claims of a token that is genuine, in date, and meant for one of `audiences`
    /// (which are this server's own where the list is empty).
    pub(crate) fn verify(&self, token: &str, audiences: &[String]) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_aud = false;
        validation.validate_nbf = true;
        validation.leeway = 10;
        let claims =
            decode::<Claims>(token, &self.decoding, &validation).map_err(TokenError::Invalid)?.claims;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        if claims.aud.iter().any(|a| wanted.contains(a)) { Ok(claims) } else { Err(TokenError::Audience) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(issuer: &str) -> (TokenAuthority, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let made =
            TokenAuthority::new(&key.serialize_pem(), &key.public_key_pem(), issuer, vec!["api".into()])
                .unwrap();
        (made, key)
    }

    fn claims(issuer: &str, expires: i64) -> Claims {
        Claims {
            iss: issuer.into(),
            sub: "system:serviceaccount:ns:sa".into(),
            aud: vec!["api".into()],
            exp: expires,
            iat: 1,
            nbf: 1,
            jti: "id".into(),
            kubernetes: KubernetesClaims {
                namespace: "ns".into(),
                serviceaccount: Binding { name: "sa".into(), uid: "u".into() },
                pod: None,
                secret: None,
                node: None,
            },
        }
    }

    #[test]
    fn a_token_is_taken_back_by_its_issuer_for_its_audience_only() {
        let (ours, _) = authority("us");
        let (other, _) = authority("us");
        let token = ours.sign(&claims("us", 4_102_444_800)).unwrap();
        assert_eq!(ours.verify(&token, &[]).unwrap().kubernetes.serviceaccount.name, "sa");
        assert!(matches!(ours.verify(&token, &["else".into()]), Err(TokenError::Audience)));
        assert!(matches!(other.verify(&token, &[]), Err(TokenError::Invalid(_))));
    }

    #[test]
    fn expired_and_foreign_tokens_are_refused() {
        let (ours, _) = authority("us");
        for wrong in [claims("us", 1000), claims("them", 4_102_444_800)] {
            let token = ours.sign(&wrong).unwrap();
            assert!(matches!(ours.verify(&token, &[]), Err(TokenError::Invalid(_))));
        }
    }
}
