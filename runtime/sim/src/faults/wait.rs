//! Clients of the servers, and waiting until they serve.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::server::Server;
use super::{Cluster, current};
use crate::node::BenchError;

/// How long the cluster may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) async fn wait_kubeconfig(servers: &mut [Server]) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Some(first) = servers.first_mut() else { break };
        if let Some(why) = first.ended()? {
            return Err(BenchError::Failed(why));
        }
        if first.kubeconfig().exists() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(BenchError::Failed("the first server wrote no kubeconfig".to_owned()))
}

/// Waits until a server takes a write.
pub(super) async fn wait_serving(
    clients: &[kube::Client],
    servers: &mut [Server],
    index: usize,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(client) = clients.get(index) else { return Ok(()) };
        let probe = probe(client.clone());
        let result = tokio::time::timeout(Duration::from_secs(2), probe).await;
        if matches!(result, Ok(Ok(()))) {
            return Ok(());
        }
        let Some(server) = servers.get_mut(index) else { return Ok(()) };
        if let Some(why) = server.ended()? {
            return Err(BenchError::Failed(why));
        }
        if Instant::now() > deadline {
            let words = server.last_words();
            let why = format!("{} takes no writes: {result:?}; it said last:\n{words}", server.name);
            return Err(BenchError::Failed(why));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn probe(client: kube::Client) -> Result<(), BenchError> {
    let map = serde_json::json!({"metadata": {"generateName": "probe-"}});
    let map = serde_json::from_value(map).map_err(|error| BenchError::Failed(error.to_string()))?;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

/// What the servers say of their group.
async fn members(client: &kube::Client) -> Result<Vec<serde_json::Value>, BenchError> {
    let request = http::Request::get("/sampan/v1/members").body(Vec::new());
    let request = request.map_err(|error| BenchError::Failed(error.to_string()))?;
    Ok(client.request(request).await?)
}

pub(super) async fn wait_voters(clients: &[kube::Client]) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        let Some(client) = clients.first() else { break };
        match members(client).await {
            Ok(members) => {
                let voters =
                    members.iter().filter(|member| member.get("voter") == Some(&true.into())).count();
                if voters == clients.len() {
                    return Ok(());
                }
                last = format!("{members:?}");
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(BenchError::Failed(format!("not all servers became voters: {last}")))
}

pub(super) async fn leader(cluster: &Cluster) -> Result<usize, BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        for client in &cluster.clients {
            match tokio::time::timeout(Duration::from_secs(2), members(&current(client))).await {
                Ok(Ok(members)) => {
                    let leads = members.iter().find(|member| member.get("leader") == Some(&true.into()));
                    let name = leads.and_then(|member| member.get("name")).and_then(|name| name.as_str());
                    let index = cluster.servers.iter().position(|server| Some(server.name.as_str()) == name);
                    if let Some(index) = index {
                        return Ok(index);
                    }
                    last = format!("{members:?}");
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => "no answer".clone_into(&mut last),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(BenchError::Failed(format!("nobody leads: {last}")))
}

/// Waits until the agent's node is Ready and was heard of lately.
pub(super) async fn wait_agent(cluster: &Cluster) -> Result<(), BenchError> {
    let Some(agent) = &cluster.agent else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for client in &cluster.clients {
            let nodes: Api<Node> = Api::all(current(client));
            let node = tokio::time::timeout(Duration::from_secs(2), nodes.get(agent.name)).await;
            let Ok(Ok(node)) = node else { continue };
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = std::fs::read_to_string(cluster.logs.join("agent.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let words = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
    Err(BenchError::Failed(format!("the agent behind the NAT is not Ready; it said last:\n{words}")))
}

/// A client of one server, with the administrator's rights.
pub(super) async fn client(servers: &[Server], index: usize) -> Result<kube::Client, BenchError> {
    let (Some(first), Some(server)) = (servers.first(), servers.get(index)) else {
        return Err(BenchError::Failed("no such server".to_owned()));
    };
    let mut config = Kubeconfig::read_from(first.kubeconfig())?;
    for cluster in &mut config.clusters {
        if let Some(cluster) = &mut cluster.cluster {
            cluster.server = Some(server.url());
            // The name in the certificate that stays when the address changes.
            cluster.tls_server_name = Some("kubernetes".to_owned());
        }
    }
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_millis(500));
    config.read_timeout = Some(Duration::from_secs(60));
    // Who is told to come back later asks another server meanwhile.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}
