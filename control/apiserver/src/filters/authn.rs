//! Authentication: who makes a request.
//!
//! In process the identity is given with the service and cannot be claimed by anyone else. Over the
//! network it is a client certificate (common name and organizations), or a service account's
//! token; without either, health and version are open to all, and nothing else is.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sampan_api::meta::ObjectMeta;
use sampan_api::status::Status;
use serde_json::Value;

use crate::auth::{Binding, Claims, JOIN_PATHS, PUBLIC_PATHS, UserInfo, at_or_below, refusal};
use crate::core::Core;
use crate::endpoints::request_info::RequestInfo;

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// From this process, as this user.
    Local(Arc<UserInfo>),
    /// From the network, perhaps with a certificate that our authority signed.
    Network(Option<Arc<UserInfo>>),
}

impl Caller {
    /// Whom a request claims to come from, for the audit log of those that are refused.
    pub(super) fn claimed(&self) -> UserInfo {
        match self {
            Self::Local(user) | Self::Network(Some(user)) => (**user).clone(),
            Self::Network(None) => UserInfo::default(),
        }
    }
}

/// Who makes the request, or 401.
pub(super) async fn authenticate(
    core: &Core,
    caller: Caller,
    headers: &HeaderMap,
    info: &RequestInfo,
) -> Result<UserInfo, Status> {
    match caller {
        Caller::Local(user) => return Ok((*user).clone()),
        Caller::Network(Some(user)) => {
            let refused = core.revocations.as_deref().and_then(|known| refusal(known, &user));
            return match refused {
                None => Ok((*user).clone()),
                Some(why) => Err(Status::failure(401, "Unauthorized", why)),
            };
        }
        Caller::Network(None) => {}
    }
    let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if let Some((scheme, token)) = given.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        return match token_user(core, token.trim(), &[]).await {
            Ok((user, _)) => Ok(user),
            Err(why) => {
                tracing::debug!(why, "a token was refused");
                Err(Status::unauthorized())
            }
        };
    }
    let open = !info.is_resource
        && (PUBLIC_PATHS.iter().any(|root| at_or_below(&info.path, root))
            || (core.extension.is_some() && JOIN_PATHS.contains(&info.path.as_str())));
    if open && given.is_empty() { Ok(UserInfo::anonymous()) } else { Err(Status::unauthorized()) }
}

/// The user behind a service account's token, and the audiences for which it holds: the token must
/// be genuine, and the account and what it is bound to must still be the same.
pub(crate) async fn token_user(
    core: &Core,
    token: &str,
    audiences: &[String],
) -> Result<(UserInfo, Vec<String>), String> {
    let claims = core.tokens.verify(token, audiences).map_err(|e| e.to_string())?;
    let kubernetes = &claims.kubernetes;
    let namespace = kubernetes.namespace.as_str();
    exists(core, "serviceaccounts", namespace, &kubernetes.serviceaccount).await?;
    for (plural, namespace, bound) in [
        ("pods", namespace, &kubernetes.pod),
        ("secrets", namespace, &kubernetes.secret),
        ("nodes", "", &kubernetes.node),
    ] {
        // A pod's token names its node for information; it ends with the pod.
        if let Some(bound) = bound.as_ref().filter(|_| plural != "nodes" || kubernetes.pod.is_none()) {
            exists(core, plural, namespace, bound).await?;
        }
    }
    let wanted = if audiences.is_empty() { core.tokens.audiences() } else { audiences };
    let held = claims.aud.iter().filter(|a| wanted.contains(a)).cloned().collect();
    Ok((user(&claims), held))
}

async fn exists(core: &Core, plural: &str, namespace: &str, bound: &Binding) -> Result<(), String> {
    let found = core.finder.core(plural, namespace, &bound.name).await.map_err(|s| s.message)?;
    match found {
        Some(object) if ObjectMeta::of(&object).uid() == bound.uid && !is_gone(&object) => Ok(()),
        Some(_) => {
            Err(format!("the {plural} {:?} that the token is bound to is another one by now", bound.name))
        }
        None => Err(format!("the {plural} {:?} that the token is bound to does not exist", bound.name)),
    }
}

/// Whether an object has been deleted a minute ago and more, and only something holds it.
fn is_gone(object: &Value) -> bool {
    let deleted = ObjectMeta::of(object).deletion_timestamp().and_then(sampan_api::time::parse);
    deleted.is_some_and(|at| jiff::Timestamp::now().duration_since(at).as_secs() > 60)
}

fn user(claims: &Claims) -> UserInfo {
    let kubernetes = &claims.kubernetes;
    let account = &kubernetes.serviceaccount;
    let mut user = UserInfo::service_account(&kubernetes.namespace, &account.name, &account.uid);
    let mut extra = |key: &str, value: String| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    extra("credential-id", format!("JTI={}", claims.jti));
    for (kind, bound) in [("pod", &kubernetes.pod), ("node", &kubernetes.node)] {
        if let Some(bound) = bound {
            extra(&format!("{kind}-name"), bound.name.clone());
            extra(&format!("{kind}-uid"), bound.uid.clone());
        }
    }
    user
}
