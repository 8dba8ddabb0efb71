//! The markers in doc comments: `+listType=map`, `+patchMergeKey=name`.

/// What the markers of one field or message say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Markers {
    pub(crate) list_type: Option<String>,
    pub(crate) list_map_keys: Vec<String>,
    pub(crate) map_type: Option<String>,
    pub(crate) struct_type: Option<String>,
    pub(crate) patch_strategy: Option<String>,
    pub(crate) patch_merge_key: Option<String>,
    /// JSON text.
    pub(crate) default: Option<String>,
}

/// Reads the markers among lines of documentation.
pub(crate) fn read(docs: &[String]) -> Markers {
    let mut markers = Markers::default();
    for line in docs {
        let Some(marker) = line.strip_prefix('+') else { continue };
        let marker = marker.strip_prefix("k8s:").unwrap_or(marker);
        let Some((name, value)) = marker.split_once('=') else { continue };
        let value = value.trim().to_owned();
        match name {
            "listType" => markers.list_type = Some(value),
            "listMapKey" if !markers.list_map_keys.contains(&value) => markers.list_map_keys.push(value),
            "mapType" => markers.map_type = Some(value),
            "structType" => markers.struct_type = Some(value),
            "patchStrategy" => markers.patch_strategy = Some(value),
            "patchMergeKey" => markers.patch_merge_key = Some(value),
            // A reference names a Go constant, whose value is not here.
            "default" if !value.starts_with("ref(") => markers.default = Some(value),
            _ => {}
        }
    }
    markers
}

/// Documentation without markers, as one paragraph.
pub(crate) fn prose(docs: &[String]) -> String {
    let lines = docs.iter().map(String::as_str).filter(|line| !line.starts_with('+') && !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_prose() {
        let docs = [
            "Ports, a list.",
            "",
            "More.",
            "+optional",
            "+patchMergeKey=containerPort",
            "+patchStrategy=merge",
            "+listType=map",
            "+k8s:listType=map",
            "+listMapKey=containerPort",
            "+k8s:listMapKey=containerPort",
            "+listMapKey=protocol",
            "+default=\"TCP\"",
        ]
        .map(str::to_owned);
        let markers = read(&docs);
        assert_eq!(markers.list_type.as_deref(), Some("map"));
        assert_eq!(markers.list_map_keys, ["containerPort", "protocol"]);
        assert_eq!(markers.patch_strategy.as_deref(), Some("merge"));
        assert_eq!(markers.patch_merge_key.as_deref(), Some("containerPort"));
        assert_eq!(markers.default.as_deref(), Some("\"TCP\""));
        assert_eq!(prose(&docs), "Ports, a list. More.");
    }

    #[test]
    fn defaults_that_name_constants_are_left_out() {
        assert_eq!(read(&["+default=ref(Shared)".to_owned()]), Markers::default());
    }
}
