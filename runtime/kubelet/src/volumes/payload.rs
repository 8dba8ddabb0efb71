//! What the files of a volume hold: ConfigMaps, Secrets and the pod's own fields as paths,
//! bytes and modes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use crate::env::field::{self, PodFacts};
use crate::env::resource;
use crate::pod::resources::Amounts;
use crate::pod::spec;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Its mode.
    pub mode: u32,
}

/// Files by path, relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// The mode of files where none is given.
pub const DEFAULT_MODE: i32 = 0o644;

fn file(data: Vec<u8>, mode: i32) -> File {
    File { data, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777 }
}

/// A ConfigMap's files.
pub fn config_map(
    map: &ConfigMap,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    pick(text.chain(binary).collect(), items, default_mode, optional, "config")
}

/// A Secret's files.
pub fn secret(
    secret: &Secret,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
) -> Result<Payload, String> {
    let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    pick(data.collect(), items, default_mode, optional, "secret")
}

fn pick(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: i32,
    optional: bool,
    what: &str,
) -> Result<Payload, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, file(value, default_mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get_mut(&item.key) {
            Some(value) => {
                payload
                    .insert(normalise(&item.path)?, file(value.clone(), item.mode.unwrap_or(default_mode)));
            }
            None if optional => {}
            None => return Err(format!("references non-existent {what} key: {}", item.key)),
        }
    }
    Ok(payload)
}

/// The files of the pod's own fields.
pub fn downward(
    pod: &Pod,
    facts: &PodFacts,
    allocatable: &Amounts,
    items: &[DownwardAPIVolumeFile],
    default_mode: i32,
) -> Result<Payload, String> {
    let mut payload = Payload::new();
    for item in items {
        let value = if let Some(reference) = &item.field_ref {
            field::value(pod, facts, &reference.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let (_, container) =
                spec::container(pod, name).ok_or_else(|| format!("container {name} not found"))?;
            resource::value(selector, container, allocatable)?
        } else {
            continue;
        };
        payload.insert(normalise(&item.path)?, file(value.into_bytes(), item.mode.unwrap_or(default_mode)));
    }
    Ok(payload)
}

/// A service account's token.
pub fn token(path: &str, token: &str, default_mode: i32) -> Result<Payload, String> {
    Ok(Payload::from([(normalise(path)?, file(token.as_bytes().to_vec(), default_mode))]))
}

/// A path that stays in the volume.
fn normalise(path: &str) -> Result<String, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") || path.starts_with('/') {
        return Err(format!("invalid path: {path}"));
    }
    if parts.first().is_some_and(|first| first.starts_with("..")) {
        return Err(format!("invalid path: must not start with '..': {path}"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn show(payload: &Payload) -> Vec<String> {
        payload
            .iter()
            .map(|(path, file)| format!("{path} {:o} {}", file.mode, String::from_utf8_lossy(&file.data)))
            .collect()
    }

    fn items(value: Value) -> Vec<KeyToPath> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn all_keys_are_files_unless_items_pick_some() {
        let map: ConfigMap =
            serde_json::from_value(json!({ "data": { "a": "1", "b": "2" }, "binaryData": { "c": "AAE=" } }))
                .unwrap();
        assert_eq!(
            show(&config_map(&map, None, 0o644, false).unwrap()),
            ["a 644 1", "b 644 2", "c 644 \u{0}\u{1}"]
        );
        let some =
            items(json!([{ "key": "a", "path": "dir/x", "mode": 0o400 }, { "key": "b", "path": "./y" }]));
        assert_eq!(show(&config_map(&map, Some(&some), 0o640, false).unwrap()), ["dir/x 400 1", "y 640 2"]);
    }

    #[test]
    fn a_missing_key_is_an_error_unless_it_is_optional() {
        let some = items(json!([{ "key": "nope", "path": "x" }]));
        let (map, sec) = (ConfigMap::default(), Secret::default());
        let error = config_map(&map, Some(&some), 0o644, false).unwrap_err();
        assert_eq!(error, "references non-existent config key: nope");
        let error = secret(&sec, Some(&some), 0o644, false).unwrap_err();
        assert_eq!(error, "references non-existent secret key: nope");
        assert!(config_map(&map, Some(&some), 0o644, true).unwrap().is_empty());
    }

    #[test]
    fn no_path_leads_out_of_the_volume() {
        for path in ["../x", "a/../../x", "/etc/passwd", "", "..data", "."] {
            let some = items(json!([{ "key": "a", "path": path }]));
            let map = serde_json::from_value(json!({ "data": { "a": "1" } })).unwrap();
            assert!(config_map(&map, Some(&some), 0o644, false).is_err(), "{path:?}");
        }
    }

    #[test]
    fn downward_files_hold_the_pods_own_fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "resources": { "limits": { "memory": "1Mi" } } }] }
        }))
        .unwrap();
        let files: Vec<DownwardAPIVolumeFile> = serde_json::from_value(json!([
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "mem", "mode": 0o600,
              "resourceFieldRef": { "containerName": "c", "resource": "limits.memory", "divisor": "1Ki" } }
        ]))
        .unwrap();
        let facts = PodFacts { pod_ips: vec![], host_ip: "192.0.2.1".parse().unwrap() };
        let payload = downward(&pod, &facts, &Amounts::new(), &files, 0o644).unwrap();
        assert_eq!(show(&payload), ["labels 644 a=\"b\"", "mem 600 1024"]);
    }
}
