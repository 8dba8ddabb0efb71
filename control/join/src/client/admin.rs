//! What administrators ask: tokens, members, authorities, snapshots.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::TryStreamExt;
use http::Method;
use http_body_util::BodyExt;
use sampan_apiserver::pki::Identity;
use serde_json::Value;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use super::https::{Https, Proof};
use crate::wire::{CreatedToken, NewToken, RemovedNode, RotationStatus, TokenInfo};
use crate::{JoinError, Member, MemberState};

const NO_BODY: Option<&()> = None;

/// Asks a server as an administrator. Each method is one request.
pub struct AdminClient {
    https: Https,
}

impl AdminClient {
    /// `server` is `https://HOST:6443`, `ca_pem` whom to trust, `identity` an administrator's.
    pub fn new(server: &str, ca_pem: &str, identity: &Identity) -> Result<Self, JoinError> {
        Ok(Self { https: Https::new(server, Proof::AuthorityAndName(ca_pem), Some(identity))? })
    }

    /// The server and the administrator of a kubeconfig's current context. Certificates must be
    /// embedded, as they are in those that sampan writes.
    pub fn from_kubeconfig(text: &str) -> Result<Self, JoinError> {
        let bad = |what: &str| JoinError::Kubeconfig(what.to_owned());
        let config: Value = serde_saphyr::from_str(text).map_err(|_| bad("is not YAML"))?;
        let named = |list: &str, name: &Value, what: &str| {
            let entries = config.get(list).and_then(Value::as_array).into_iter().flatten();
            let mut fitting = entries.filter(|entry| entry.get("name") == Some(name));
            fitting
                .next()
                .and_then(|entry| entry.get(what))
                .cloned()
                .ok_or_else(|| bad(&format!("has no {what} {name}")))
        };
        let current = config.get("current-context").ok_or_else(|| bad("has no current-context"))?;
        let context = named("contexts", current, "context")?;
        let of = |what: &str| context.get(what).cloned().unwrap_or_default();
        let cluster = named("clusters", &of("cluster"), "cluster")?;
        let user = named("users", &of("user"), "user")?;
        let embedded = |from: &Value, field: &str| {
            let text =
                from.get(field).and_then(Value::as_str).ok_or_else(|| bad(&format!("has no {field}")))?;
            let bytes =
                STANDARD.decode(text).map_err(|_| bad(&format!("holds a {field} that is not base64")))?;
            String::from_utf8(bytes).map_err(|_| bad(&format!("holds a {field} that is not PEM")))
        };
        let server = cluster.get("server").and_then(Value::as_str).ok_or_else(|| bad("names no server"))?;
        let identity = Identity {
            certificate_pem: embedded(&user, "client-certificate-data")?,
            key_pem: embedded(&user, "client-key-data")?,
        };
        Self::new(server, &embedded(&cluster, "certificate-authority-data")?, &identity)
    }

    /// Makes a join token.
    pub async fn create_token(&self, wanted: &NewToken) -> Result<CreatedToken, JoinError> {
        self.https.json(Method::POST, "/sampan/v1/tokens", Some(wanted)).await
    }

    /// The tokens that hold.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, JoinError> {
        self.https.json(Method::GET, "/sampan/v1/tokens", NO_BODY).await
    }

    /// Makes a token worthless; its id, or the whole token.
    pub async fn revoke_token(&self, token: &str) -> Result<TokenInfo, JoinError> {
        let id = token.parse::<crate::JoinToken>().map_or_else(|_| token.to_owned(), |token| token.id);
        self.https.json(Method::DELETE, &format!("/sampan/v1/tokens/{}", segment(&id)?), NO_BODY).await
    }

    /// The members of the group of servers.
    pub async fn members(&self) -> Result<Vec<MemberState>, JoinError> {
        self.https.json(Method::GET, "/sampan/v1/members", NO_BODY).await
    }

    /// Makes a learner a voter; its name or number.
    pub async fn promote_member(&self, member: &str) -> Result<Member, JoinError> {
        let path = format!("/sampan/v1/members/{}/promote", segment(member)?);
        self.https.json(Method::POST, &path, NO_BODY).await
    }

    /// Takes a member out for good; its name or number.
    pub async fn remove_member(&self, member: &str) -> Result<Member, JoinError> {
        self.https.json(Method::DELETE, &format!("/sampan/v1/members/{}", segment(member)?), NO_BODY).await
    }

    /// Turns a node's key away for good; its name. The Node object stays.
    pub async fn remove_node(&self, node: &str) -> Result<RemovedNode, JoinError> {
        self.https.json(Method::DELETE, &format!("/sampan/v1/nodes/{}", segment(node)?), NO_BODY).await
    }

    /// Begins a change of the cluster's authorities.
    pub async fn rotate_authorities(&self) -> Result<RotationStatus, JoinError> {
        self.https.json(Method::POST, "/sampan/v1/certificates/rotate", NO_BODY).await
    }

    /// Where a change of the cluster's authorities stands.
    pub async fn authorities(&self) -> Result<RotationStatus, JoinError> {
        self.https.json(Method::GET, "/sampan/v1/certificates", NO_BODY).await
    }

    /// A snapshot of the store, as it comes.
    pub async fn snapshot(&self) -> Result<Snapshot, JoinError> {
        let response = self.https.send(Method::GET, "/sampan/v1/snapshot", Bytes::new()).await?;
        let pieces = response.into_body().into_data_stream().map_err(std::io::Error::other);
        Ok(Snapshot { reader: Box::pin(StreamReader::new(pieces)) })
    }
}

/// A snapshot that is being fetched. Reading fails where the server, or the way to it, does: what was
/// read until then is not a snapshot.
pub struct Snapshot {
    reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl AsyncRead for Snapshot {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.reader.as_mut().poll_read(cx, buf)
    }
}

/// A name as part of a path: only what a name may hold.
fn segment(name: &str) -> Result<&str, JoinError> {
    let good = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && !matches!(name, "." | "..");
    match good {
        true => Ok(name),
        false => Err(JoinError::Refused { code: 404, message: format!("{name:?} names nothing here") }),
    }
}
