//! ServiceAccount: every pod runs as an account that exists, and finds its token, the cluster's CA
//! and its namespace in a volume.

use async_trait::async_trait;
use sampan_api::field::go_quote;
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::status::Status;
use serde_json::{Value, json};

use super::{Finder, Operation, Plugin, Review};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An odd number of seconds, by which a token that was made here is known.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub(super) struct ServiceAccount {
    finder: Finder,
}

impl ServiceAccount {
    pub(super) fn new(finder: Finder) -> Self {
        Self { finder }
    }
}

#[async_trait]
impl Plugin for ServiceAccount {
    async fn admit(&self, review: &Review<'_>, pod: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is_core("pods") {
            return Ok(());
        }
        let mirror = ObjectMeta::of(pod).annotation(MIRROR_ANNOTATION).is_some();
        let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        if mirror {
            let named = spec.get("serviceAccountName").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
            return if named {
                Err(review.forbid("a mirror pod may not reference service accounts"))
            } else {
                Ok(())
            };
        }
        let account = spec.get("serviceAccountName").and_then(Value::as_str).filter(|n| !n.is_empty());
        let account = account.unwrap_or("default").to_owned();
        spec.insert("serviceAccountName".into(), account.as_str().into());
        spec.insert("serviceAccount".into(), account.as_str().into());

        let namespace = review.namespace;
        let Some(found) = self.finder.core("serviceaccounts", namespace, &account).await? else {
            return Err(review.forbid(&format!(
                "error looking up service account {namespace}/{account}: serviceaccount {} not found",
                go_quote(&account)
            )));
        };
        complete(pod, &found, &format!("{VOLUME_PREFIX}{}", meta::random_suffix(5)));
        Ok(())
    }
}

/// Gives a pod what its account brings.
fn complete(pod: &mut Value, account: &Value, volume: &str) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let automount = [spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")];
    let automount = automount.into_iter().flatten().find_map(Value::as_bool).unwrap_or(true);
    if let Some(secrets) = account.get("imagePullSecrets").filter(|_| is_empty(spec.get("imagePullSecrets")))
    {
        spec.insert("imagePullSecrets".into(), secrets.clone());
    }
    if !automount {
        return;
    }
    // A volume that somebody else put there (a template made from a live pod) serves as well.
    let existing = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let existing = existing
        .filter_map(|v| v.get("name").and_then(Value::as_str))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = existing.as_deref().unwrap_or(volume);
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            mounted |= mount(container, name);
        }
    }
    if mounted && existing.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(api_access(name));
        }
    }
}

/// Mounts the volume unless something is mounted there already; whether it was mounted.
fn mount(container: &mut Value, volume: &str) -> bool {
    let Some(container) = container.as_object_mut() else { return false };
    let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
    let Some(mounts) = mounts.as_array_mut() else { return false };
    if mounts.iter().any(|m| m.get("mountPath").and_then(Value::as_str) == Some(MOUNT_PATH)) {
        return false;
    }
    mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
    true
}

fn api_access(name: &str) -> Value {
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
        },
    })
}

fn is_empty(list: Option<&Value>) -> bool {
    list.and_then(Value::as_array).is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_is_mounted_where_nothing_else_is() {
        let mut pod = json!({"spec": {"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
        ], "initContainers": [{"name": "i"}]}});
        complete(&mut pod, &json!({"imagePullSecrets": [{"name": "s"}]}), "kube-api-access-x");
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-x");
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        assert_eq!(spec["volumes"][0]["projected"]["sources"].as_array().unwrap().len(), 3);
        assert_eq!(spec["imagePullSecrets"][0]["name"], "s");
    }

    #[test]
    fn the_pod_decides_over_its_account_whether_anything_is_mounted() {
        for (pod, account, mounted) in [
            (json!(null), json!(null), true),
            (json!(null), json!(false), false),
            (json!(true), json!(false), true),
            (json!(false), json!(true), false),
        ] {
            let mut object =
                json!({"spec": {"containers": [{"name": "a"}], "automountServiceAccountToken": pod}});
            complete(&mut object, &json!({"automountServiceAccountToken": account}), "kube-api-access-x");
            assert_eq!(object["spec"]["volumes"].is_array(), mounted, "{pod} {account}");
        }
    }

    #[test]
    fn a_volume_that_is_there_already_is_used() {
        let mut pod = json!({"spec": {
            "containers": [{"name": "a"}],
            "volumes": [{"name": "kube-api-access-old"}],
        }});
        complete(&mut pod, &json!({}), "kube-api-access-new");
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], "kube-api-access-old");
    }
}
