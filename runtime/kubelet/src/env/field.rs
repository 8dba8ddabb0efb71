//! `fieldRef`: a pod's own facts, for environment variables and downward files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use sampan_api::field::go_quote;

use crate::pod::spec;

/// Facts of the pod that its object does not (yet) hold.
#[derive(Clone, Debug)]
pub struct PodFacts {
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The node's address.
    pub host_ip: IpAddr,
}

/// What a field path stands for.
pub fn value(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, String> {
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(unsupported(path)),
        };
        return Ok(values.and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let spec = spec::spec(pod);
    Ok(match path {
        "metadata.name" => spec::name(pod).into(),
        "metadata.namespace" => spec::namespace(pod).into(),
        "metadata.uid" => spec::uid(pod).into(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" => facts.pod_ips.first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => join(&facts.pod_ips),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> String {
    format!("unsupported fieldPath: {path}")
}

/// Splits `metadata.labels['key']` into map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as lines of `key="value"`, by key.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_supported_path_has_its_value() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "ns", "uid": "u",
                "labels": { "app": "web", "x/y": "1" }, "annotations": { "note": "a \"b\"\n\tc\u{1}é" }
            },
            "spec": { "nodeName": "n1", "serviceAccountName": "sa", "containers": [] }
        }))
        .unwrap();
        let facts = PodFacts {
            pod_ips: vec!["10.42.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            host_ip: "192.0.2.1".parse().unwrap(),
        };
        for (path, want) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['x/y']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['note']", "a \"b\"\n\tc\u{1}é"),
            ("metadata.labels", "app=\"web\"\nx/y=\"1\""),
            ("metadata.annotations", "note=\"a \\\"b\\\"\\n\\tc\\x01é\""),
            ("spec.nodeName", "n1"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "192.0.2.1"),
            ("status.podIP", "10.42.0.5"),
            ("status.podIPs", "10.42.0.5,fd00::5"),
        ] {
            assert_eq!(value(&pod, &facts, path).as_deref(), Ok(want), "{path}");
        }
        assert_eq!(value(&pod, &facts, "spec.hostname"), Err("unsupported fieldPath: spec.hostname".into()));
    }
}
