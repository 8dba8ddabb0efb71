//! Volumes on storage networks that any cluster may have: NFS, iSCSI, Fibre Channel, CSI, claims.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::Volume;
use crate::validation::checks::{Errors, each, in_range, required};
use crate::validation::view::{int, is_set, list, member, opt_text, part, text};

pub(super) fn claim(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "claimName", path, out);
}

pub(super) fn nfs(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    required(volume.source, "server", path, out);
    required(volume.source, "path", path, out);
    let exported = text(volume.source, "path");
    if !exported.starts_with('/') {
        out.push(FieldError::invalid(&path.child("path"), exported, "must be an absolute path"));
    }
}

pub(super) fn iscsi(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    let source = volume.source;
    required(source, "targetPortal", path, out);
    required(source, "iqn", path, out);
    let iqn = text(source, "iqn");
    if !iqn.is_empty() {
        iscsi_name(iqn, &path.child("iqn"), out);
    }
    in_range(int(source, "lun").unwrap_or_default(), 0, 255, &path.child("lun"), out);
    let authenticates = is_set(source, "chapAuthDiscovery") || is_set(source, "chapAuthSession");
    if authenticates && part(source, "secretRef").is_none() {
        out.push(FieldError::required(&path.child("secretRef"), ""));
    }
    if let Some(name) = opt_text(source, "initiatorName") {
        iscsi_name(name, &path.child("initiatorname"), out);
    }
}

fn iscsi_name(name: &str, path: &FieldPath, out: &mut Errors) {
    let well_formed = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        // Any character may stand where the format has a dot.
        Some("eui") => has_suffix_of(name, 16),
        Some("naa") => has_suffix_of(name, 32),
        _ => {
            let text = "must be valid format starting with iqn, eui, or naa";
            out.push(FieldError::invalid(path, name, text));
            return;
        }
    };
    if !well_formed {
        out.push(FieldError::invalid(path, name, "must be valid format"));
    }
}

/// `eui.` or `naa.` and so many letters and digits.
fn has_suffix_of(name: &str, length: usize) -> bool {
    let mut rest = name.chars().skip(3);
    rest.next().is_some() && {
        let rest: Vec<char> = rest.collect();
        rest.len() == length && rest.iter().all(char::is_ascii_alphanumeric)
    }
}

/// `iqn.2001-04.com.example:storage.disk2`
fn is_iqn(name: &str) -> bool {
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let Some((authority, unique)) = rest.split_once(':') else { return false };
    dated
        && !authority.is_empty()
        && authority.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        && !unique.is_empty()
        && unique.chars().all(|c| !matches!(c, ',' | ';' | '*' | '&' | '$' | '|') && !c.is_whitespace())
}

/// The names of volume and portal become one directory's name where an initiator is named.
pub(super) fn iscsi_initiator_length(source: &Value, name: &str, path: &FieldPath, out: &mut Errors) {
    if opt_text(source, "initiatorName").is_some() && name.len() + 1 + text(source, "targetPortal").len() > 64
    {
        let text = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        out.push(FieldError::invalid(&path.child("name"), name, text));
    }
}

pub(super) fn fibre_channel(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    let source = volume.source;
    let targets = list(source, "targetWWNs");
    let identifiers = list(source, "wwids");
    if targets.is_empty() && identifiers.is_empty() {
        let text = "must specify either targetWWNs or wwids, but not both";
        out.push(FieldError::required(&path.child("targetWWNs"), text));
    }
    if !targets.is_empty() && !identifiers.is_empty() {
        let text = "targetWWNs and wwids can not be specified simultaneously";
        out.push(FieldError::invalid(&path.child("targetWWNs"), member(source, "targetWWNs").clone(), text));
    }
    if !targets.is_empty() {
        match int(source, "lun") {
            None => {
                let text = "lun is required if targetWWNs is specified";
                out.push(FieldError::required(&path.child("lun"), text));
            }
            Some(lun) => in_range(lun, 0, 255, &path.child("lun"), out),
        }
    }
}

pub(super) fn csi(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    let driver = text(volume.source, "driver");
    required(volume.source, "driver", path, out);
    if driver.len() > 63 {
        out.push(FieldError::too_long(&path.child("driver"), 63));
    }
    each(&path.child("driver"), driver, names::is_dns1123_subdomain(&driver.to_lowercase()), out);
    if let Some(reference) = part(volume.source, "nodePublishSecretRef") {
        required(reference, "name", &path.child("nodePublishSecretRef"), out);
        let name = text(reference, "name");
        if !name.is_empty() {
            each(&path.child("name"), name, names::is_dns1123_subdomain(name), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(check: super::super::Check, source: &Value) -> Vec<String> {
        let mut out = Errors::new();
        check(&Volume { source, pod: None }, &FieldPath::new("s"), &mut out);
        texts(&out)
    }

    #[test]
    fn nfs_wants_a_server_and_an_absolute_path() {
        assert!(found(nfs, &json!({"server": "s", "path": "/x"})).is_empty());
        assert_eq!(
            found(nfs, &json!({"path": "x"})),
            ["s.server: Required value", r#"s.path: Invalid value: "x": must be an absolute path"#]
        );
    }

    #[test]
    fn iscsi_names_have_three_forms() {
        for (iqn, good) in [
            ("iqn.2001-04.com.example:storage.disk2", true),
            ("eui.0123456789ABCDEF", true),
            ("naa.62004567BA64678D0123456789ABCDEF", true),
            ("iqn.01-04.com.example:a", false),
            ("iqn.2001-04.com.example", false),
            ("iqn.2001-04.com.example:a b", false),
            ("eui.0123", false),
            ("naa", false),
        ] {
            let complaints = found(iscsi, &json!({"targetPortal": "p", "iqn": iqn, "lun": 1}));
            assert_eq!(complaints.is_empty(), good, "{iqn}: {complaints:?}");
        }
        assert_eq!(
            found(iscsi, &json!({"targetPortal": "p", "iqn": "x", "lun": 256, "chapAuthSession": true})),
            [
                r#"s.iqn: Invalid value: "x": must be valid format starting with iqn, eui, or naa"#,
                "s.lun: Invalid value: 256: must be between 0 and 255, inclusive",
                "s.secretRef: Required value",
            ]
        );
    }

    #[test]
    fn fibre_channel_wants_targets_with_a_lun_or_identifiers() {
        for (source, expected) in [
            (json!({"wwids": ["w"]}), vec![]),
            (json!({"targetWWNs": ["t"], "lun": 0}), vec![]),
            (
                json!({"targetWWNs": ["t"]}),
                vec!["s.lun: Required value: lun is required if targetWWNs is specified"],
            ),
            (
                json!({"targetWWNs": ["t"], "wwids": ["w"], "lun": 1}),
                vec![
                    r#"s.targetWWNs: Invalid value: ["t"]: targetWWNs and wwids can not be specified simultaneously"#,
                ],
            ),
        ] {
            assert_eq!(found(fibre_channel, &source), expected, "{source}");
        }
    }

    #[test]
    fn csi_names_its_driver() {
        assert!(found(csi, &json!({"driver": "Example.com"})).is_empty());
        assert_eq!(
            found(csi, &json!({"driver": "a", "nodePublishSecretRef": {}})),
            ["s.nodePublishSecretRef.name: Required value"]
        );
    }
}
