//! The volumes of a pod: names, one source each, and what each source must say.
//!
//! Every source of the API is checked here, also those that no runtime of ours can mount; which
//! those are is told by `super::warnings`.

mod claim;
mod drivers;
mod files;
mod projected;
mod storage;

pub(crate) use projected::token_lifetime;

use std::collections::BTreeMap;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::checks::{Errors, dns_label};
use super::view::{part, text};

/// One volume, and what its source's check may want to know.
pub(crate) struct Volume<'a> {
    /// The source: `{"secretName": …}`.
    pub(crate) source: &'a Value,
    /// The pod that has it; templates have no pod yet.
    pub(crate) pod: Option<&'a Value>,
}

type Check = fn(&Volume<'_>, &FieldPath, &mut Errors);

/// A source: its field, the name in complaints about a second source, the name in complaints about
/// its content (Kubernetes spells a few of them in its own way), and its check.
struct Source(&'static str, &'static str, &'static str, Check);

/// Every source, in the order in which Kubernetes looks at them.
const SOURCES: &[Source] = &[
    Source("emptyDir", "emptyDir", "emptyDir", files::empty_dir),
    Source("hostPath", "hostPath", "hostPath", files::host_path),
    Source("gitRepo", "gitRepo", "gitRepo", files::git_repo),
    Source("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", drivers::gce_persistent_disk),
    Source("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", drivers::aws_block_store),
    Source("secret", "secret", "secret", files::secret),
    Source("nfs", "nfs", "nfs", storage::nfs),
    Source("iscsi", "iscsi", "iscsi", storage::iscsi),
    Source("glusterfs", "glusterfs", "glusterfs", drivers::glusterfs),
    Source("flocker", "flocker", "flocker", drivers::flocker),
    Source("persistentVolumeClaim", "persistentVolumeClaim", "persistentVolumeClaim", storage::claim),
    Source("rbd", "rbd", "rbd", drivers::rbd),
    Source("cinder", "cinder", "cinder", drivers::cinder),
    Source("cephfs", "cephFS", "cephfs", drivers::cephfs),
    Source("quobyte", "quobyte", "quobyte", drivers::quobyte),
    Source("downwardAPI", "downwarAPI", "downwardAPI", files::downward_api),
    Source("fc", "fc", "fc", storage::fibre_channel),
    Source("flexVolume", "flexVolume", "flexVolume", drivers::flex),
    Source("configMap", "configMap", "configMap", files::config_map),
    Source("azureFile", "azureFile", "azureFile", drivers::azure_file),
    Source("vsphereVolume", "vsphereVolume", "vsphereVolume", drivers::vsphere),
    Source("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", drivers::photon),
    Source("portworxVolume", "portworxVolume", "portworxVolume", drivers::portworx),
    Source("azureDisk", "azureDisk", "azureDisk", drivers::azure_disk),
    Source("storageos", "storageos", "storageos", drivers::storage_os),
    Source("projected", "projected", "projected", projected::projected),
    Source("scaleIO", "scaleIO", "scaleIO", drivers::scale_io),
    Source("csi", "csi", "csi", storage::csi),
    Source("ephemeral", "ephemeral", "ephemeral", claim::ephemeral),
    Source("image", "image", "image", files::image),
];

/// The names of all sources.
pub(crate) fn source_names() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|source| source.0)
}

/// Checks the volumes of a pod; answers with those that are sound, by name, for the mounts.
pub(crate) fn volumes<'a>(
    volumes: &'a [Value],
    pod: Option<&'a Value>,
    path: &FieldPath,
    out: &mut Errors,
) -> BTreeMap<&'a str, &'a Value> {
    let pod_name =
        pod.map(|pod| text(pod.get("metadata").unwrap_or(&Value::Null), "name")).unwrap_or_default();
    let made_claims: Vec<String> = volumes
        .iter()
        .filter(|volume| !pod_name.is_empty() && part(volume, "ephemeral").is_some())
        .map(|volume| format!("{pod_name}-{}", text(volume, "name")))
        .collect();
    let mut sound = BTreeMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = text(volume, "name");
        let before = out.len();
        source(volume, name, pod, &path, out);
        if name.is_empty() {
            out.push(FieldError::required(&path.child("name"), ""));
        } else {
            dns_label(name, &path.child("name"), out);
        }
        if sound.contains_key(name) {
            out.push(FieldError::duplicate(&path.child("name"), name));
        }
        if out.len() == before {
            sound.insert(name, volume);
        }
        let claim = part(volume, "persistentVolumeClaim").map(|claim| text(claim, "claimName"));
        if let Some(claim) = claim.filter(|claim| made_claims.iter().any(|made| made == claim)) {
            let path = path.child("persistentVolumeClaim").child("claimName");
            let text = "must not reference a PVC that gets created for an ephemeral volume";
            out.push(FieldError::invalid(&path, claim, text));
        }
    }
    sound
}

fn source(volume: &Value, name: &str, pod: Option<&Value>, path: &FieldPath, out: &mut Errors) {
    let mut found = false;
    for Source(field, again, inside, check) in SOURCES {
        let Some(source) = part(volume, field) else { continue };
        if found {
            let text = "may not specify more than 1 volume type";
            out.push(FieldError::forbidden(&path.child(again), text));
        } else {
            check(&Volume { source, pod }, &path.child(inside), out);
        }
        found = true;
        match *field {
            "iscsi" => storage::iscsi_initiator_length(source, name, path, out),
            "ephemeral" => made_claim_name(name, pod, path, out),
            _ => {}
        }
    }
    if !found {
        out.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// The claim that an ephemeral volume makes is named after pod and volume: is that a name?
fn made_claim_name(name: &str, pod: Option<&Value>, path: &FieldPath, out: &mut Errors) {
    let pod_name = pod.and_then(|pod| pod.get("metadata")).map(|meta| text(meta, "name")).unwrap_or_default();
    if pod_name.is_empty() || name.is_empty() {
        return;
    }
    let claim = format!("{pod_name}-{name}");
    for complaint in names::is_dns1123_subdomain(&claim) {
        let text = format!("PVC name {claim:?}: {complaint}");
        out.push(FieldError::invalid(&path.child("name"), name, text));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(list: &Value) -> Vec<String> {
        let pod = json!({"metadata": {"name": "p"}});
        let mut out = Errors::new();
        volumes(list.as_array().unwrap(), Some(&pod), &FieldPath::new("v"), &mut out);
        texts(&out)
    }

    #[test]
    fn a_volume_has_a_name_of_its_own_and_one_source() {
        for (list, expected) in [
            (json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c"}}]), vec![]),
            (json!([{"name": "a"}]), vec!["v[0]: Required value: must specify a volume type"]),
            (json!([{"emptyDir": {}}]), vec!["v[0].name: Required value"]),
            (
                json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]),
                vec![r#"v[1].name: Duplicate value: "a""#],
            ),
            (
                json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}, "cephfs": {}, "downwardAPI": {}}]),
                vec![
                    "v[0].hostPath: Forbidden: may not specify more than 1 volume type",
                    "v[0].cephFS: Forbidden: may not specify more than 1 volume type",
                    "v[0].downwarAPI: Forbidden: may not specify more than 1 volume type",
                ],
            ),
            (
                json!([{"name": "a.b", "emptyDir": {}}]),
                vec![r#"v[0].name: Invalid value: "a.b": must not contain dots"#],
            ),
        ] {
            assert_eq!(found(&list), expected, "{list}");
        }
    }

    #[test]
    fn a_claim_that_an_ephemeral_volume_makes_is_not_used_by_another_volume() {
        let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let list = json!([
            {"name": "a", "ephemeral": {"volumeClaimTemplate": template}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "p-a"}},
        ]);
        assert_eq!(
            found(&list),
            [
                r#"v[1].persistentVolumeClaim.claimName: Invalid value: "p-a": must not reference a PVC that gets created for an ephemeral volume"#
            ]
        );
    }

    #[test]
    fn every_source_is_checked_where_the_api_has_it() {
        let sources: Vec<_> = source_names().collect();
        assert_eq!(sources.len(), 30);
        for source in sources {
            let complaints = found(&json!([{"name": "a", (source): {}}]));
            let may_be_empty = ["emptyDir", "downwardAPI", "projected"].contains(&source);
            assert_eq!(complaints.is_empty(), may_be_empty, "{source}: {complaints:?}");
        }
    }
}
