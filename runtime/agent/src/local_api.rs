//! The node's own pods for clients on this machine, read-only: an API server over the mirror, on a
//! loopback port, with a kubeconfig in the node's directory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_apiserver::{ApiServer, Attributes, Authorizer, Config, Contents, Decision, UserInfo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::AgentError;
use crate::mirror::{Mirror, file};
use crate::router::NodeRouter;

/// Why writes are refused.
const READ_ONLY: &str =
    "this is the node's own copy, which can only be read; changes are made at a server of the cluster";

/// Lets everybody who got in read, and nobody write.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnly;

#[async_trait]
impl Authorizer for ReadOnly {
    async fn authorize(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let known = user.in_group("system:authenticated");
        let allowed = match attributes {
            Attributes::Resource { verb: "get" | "list" | "watch", .. } => known,
            // Questions about oneself change nothing.
            Attributes::Resource { verb: "create", group, .. } => {
                known && matches!(*group, "authorization.k8s.io" | "authentication.k8s.io")
            }
            Attributes::Path { verb: "get" | "head", path } => {
                known || matches!(*path, "/healthz" | "/livez" | "/readyz" | "/version")
            }
            _ => false,
        };
        if allowed {
            return Decision::Allow("the node's copy may be read".to_owned());
        }
        if known { Decision::Deny(READ_ONLY.to_owned()) } else { Decision::NoOpinion }
    }

    async fn rules(&self, user: &UserInfo, _namespace: &str) -> (Vec<Value>, Vec<Value>) {
        if !user.in_group("system:authenticated") {
            return (Vec::new(), Vec::new());
        }
        let read = json!({"verbs": ["get", "list", "watch"], "apiGroups": ["*"], "resources": ["*"]});
        (vec![read], vec![json!({"verbs": ["get"], "nonResourceURLs": ["*"]})])
    }
}

/// The running API.
#[derive(Debug)]
pub struct LocalApi {
    /// Where it listens.
    pub address: SocketAddr,
    /// The kubeconfig with which it is read.
    pub kubeconfig: PathBuf,
    server: JoinHandle<()>,
}

impl LocalApi {
    /// Serves the mirror on a loopback port (0: any) until `shutdown`. Keys and the kubeconfig are
    /// kept in `directory`.
    ///
    /// # Errors
    /// When the port is taken, or the directory cannot be used.
    pub async fn start(
        mirror: &Mirror,
        router: NodeRouter,
        directory: &Path,
        port: u16,
        shutdown: CancellationToken,
    ) -> Result<Self, AgentError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| AgentError::LocalApi(source);
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| failed(error.into()))?;
        let address = listener.local_addr().map_err(|error| failed(error.into()))?;
        let names = ServingNames::new([], [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let pki = Pki::load_or_create(&directory.join("local-tls"), names);
        let pki = Arc::new(pki.map_err(|error| failed(error.into()))?);
        let mut config = Config::new(mirror.storage(), Arc::clone(&pki), address.to_string());
        config.authorizer = Arc::new(ReadOnly);
        config.nodes = Some(Arc::new(router));
        config.contents = Contents::Copies;
        let server = ApiServer::new(config).await.map_err(|error| failed(error.into()))?;
        let kubeconfig = directory.join("kubeconfig.yaml");
        let text = pki.admin_kubeconfig(&format!("https://{address}"));
        file::replace(&kubeconfig, text.as_bytes())
            .map_err(|source| AgentError::File { path: kubeconfig.clone(), source })?;
        let server = tokio::spawn(async move {
            if let Err(error) = server.serve(listener, shutdown).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the node's local API failed");
            }
        });
        Ok(Self { address, kubeconfig, server })
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) {
        // A panic was reported where it happened.
        drop(self.server.await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_is_allowed_and_writing_is_refused_with_the_reason() {
        let root = UserInfo::admin("root");
        let ask = |verb, subresource| Attributes::Resource {
            verb,
            group: "",
            resource: "pods",
            subresource,
            namespace: "ns",
            name: "p",
        };
        for (verb, subresource) in [("get", ""), ("list", ""), ("watch", ""), ("get", "log")] {
            let decision = ReadOnly.authorize(&root, &ask(verb, subresource)).await;
            assert!(matches!(decision, Decision::Allow(_)), "{verb} {subresource}");
        }
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            let decision = ReadOnly.authorize(&root, &ask(verb, "")).await;
            assert_eq!(decision, Decision::Deny(READ_ONLY.to_owned()), "{verb}");
        }
        let nobody = ReadOnly.authorize(&UserInfo::anonymous(), &ask("get", "")).await;
        assert_eq!(nobody, Decision::NoOpinion);
    }
}
