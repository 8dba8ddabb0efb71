//! The node's lease: the sign of life that costs nothing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Api, ObjectMeta, PostParams};
use tokio_util::sync::CancellationToken;

/// Where nodes' leases are.
const NAMESPACE: &str = "kube-node-lease";
/// How long a lease holds.
const SECONDS: i32 = 40;
/// The pause after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Renews the lease of `node` every `period` until `shutdown`.
pub async fn run(client: kube::Client, node: Node, period: Duration, shutdown: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut held = None;
    loop {
        let pause = match renew(&leases, &node, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                period
            }
            Err(error) => {
                tracing::debug!(error = crate::objects::explain(&error), "the lease was not renewed");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Renews a lease that is known, else looks for it, else makes it.
async fn renew(leases: &Api<Lease>, node: &Node, held: Option<Lease>) -> Result<Lease, kube::Error> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let known = match held {
        Some(lease) => Some(lease),
        None => leases.get_opt(name).await?,
    };
    let Some(mut lease) = known else {
        return leases.create(&PostParams::default(), &fresh(node)).await;
    };
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(name.to_owned());
    spec.lease_duration_seconds = Some(SECONDS);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    leases.replace(name, &PostParams::default(), &lease).await
}

fn fresh(node: &Node) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    let owner = node.metadata.uid.clone().map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        ..Default::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..Default::default()
        }),
    }
}
