//! Which kind of source a volume has, and which kinds this node knows.

use k8s_openapi::api::core::v1::Volume;

/// The name of the source of a kind that this node does not know, if the volume is such a one.
pub fn unsupported(volume: &Volume) -> Option<String> {
    let known = volume.empty_dir.is_some()
        || volume.host_path.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some();
    if known {
        return None;
    }
    // The field that is set names the source; no list to keep of what is not there.
    let fields = serde_json::to_value(volume).ok()?;
    let name = fields.as_object()?.iter().find(|(key, value)| *key != "name" && !value.is_null());
    Some(name.map_or_else(|| "none".to_owned(), |(key, _)| key.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_sources_are_named() {
        for (source, want) in [
            (json!({ "emptyDir": {} }), None),
            (json!({ "projected": { "sources": [] } }), None),
            (json!({ "nfs": { "server": "s", "path": "/" } }), Some("nfs")),
            (json!({ "persistentVolumeClaim": { "claimName": "c" } }), Some("persistentVolumeClaim")),
        ] {
            let mut volume = source.clone();
            volume["name"] = json!("v");
            let volume: Volume = serde_json::from_value(volume).unwrap();
            assert_eq!(unsupported(&volume).as_deref(), want, "{source}");
        }
    }
}
