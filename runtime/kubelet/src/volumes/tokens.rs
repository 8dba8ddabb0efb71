//! Tokens of service accounts, bound to the pod that holds them: asked for when first needed,
//! renewed when most of their time is over, forgotten with their pod.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

use crate::pod::spec;

/// A token lives this long unless the pod says otherwise.
const DEFAULT_SECONDS: i64 = 3600;
/// The pause after a token that could not be renewed.
const RETRY: Duration = Duration::from_secs(30);
/// A token is renewed after a day at the latest.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A token and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The token.
    pub text: String,
    /// When to ask for another one.
    pub renew_at: Timestamp,
    /// When it is worthless.
    pub expires_at: Timestamp,
}

/// When to renew a token: after four fifths of its life, or after a day.
pub fn renew_at(issued: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(issued);
    let due = SignedDuration::from_secs(life.as_secs() / 5 * 4).min(MAX_AGE);
    issued.checked_add(due).unwrap_or(expires)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    volume: String,
    path: String,
}

/// The tokens of the node's pods.
pub struct Tokens {
    client: kube::Client,
    held: Mutex<HashMap<String, HashMap<Key, Token>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("pods", &self.held.lock().len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// No tokens yet.
    pub fn new(client: kube::Client) -> Self {
        Self { client, held: Mutex::default() }
    }

    /// The token that a volume of a pod shows; the error is for the user.
    pub async fn get(
        &self,
        pod: &Pod,
        volume: &str,
        source: &ServiceAccountTokenProjection,
    ) -> Result<Token, String> {
        let key = Key { volume: volume.into(), path: source.path.clone() };
        let now = Timestamp::now();
        let held = self.held.lock().get(spec::uid(pod)).and_then(|tokens| tokens.get(&key)).cloned();
        if let Some(token) = held.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.clone());
        }
        match self.request(pod, source, now).await {
            Ok(token) => {
                let mut all = self.held.lock();
                all.entry(spec::uid(pod).to_owned()).or_default().insert(key, token.clone());
                Ok(token)
            }
            // Better one that still works than none.
            Err(why) => match held.filter(|token| now < token.expires_at) {
                Some(token) => {
                    tracing::warn!(pod = spec::name(pod), why, "a service account's token was not renewed");
                    let retry = now.checked_add(RETRY).unwrap_or(now);
                    Ok(Token { renew_at: retry, ..token })
                }
                None => Err(why),
            },
        }
    }

    /// Forgets a pod's tokens.
    pub fn forget(&self, uid: &str) {
        self.held.lock().remove(uid);
    }

    async fn request(
        &self,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<Token, String> {
        let account = spec::spec(pod)
            .and_then(|spec| spec.service_account_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".into());
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: source
                    .audience
                    .clone()
                    .into_iter()
                    .filter(|audience| !audience.is_empty())
                    .collect(),
                expiration_seconds: Some(source.expiration_seconds.unwrap_or(DEFAULT_SECONDS)),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..Default::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), spec::namespace(pod));
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("failed to fetch token: {}", crate::objects::explain(&error)))?;
        let status =
            answer.status.ok_or_else(|| "failed to fetch token: the answer holds none".to_owned())?;
        let expires_at = status.expiration_timestamp.0;
        // An answer from a cache may be old: the next is not asked for in a hurry.
        let soonest = now.checked_add(RETRY).unwrap_or(now);
        Ok(Token { text: status.token, renew_at: renew_at(now, expires_at).max(soonest), expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_when_four_fifths_of_their_life_are_over() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(renew_at(at(0), at(3600)), at(2880));
        assert_eq!(renew_at(at(0), at(600)), at(480));
        assert_eq!(renew_at(at(0), at(31_536_000)), at(86_400), "after a day at the latest");
    }
}
