//! Projected volumes: several sources of files in one directory.

use std::collections::BTreeSet;

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::Volume;
use super::files::{downward_file, key_to_path};
use crate::validation::checks::{Errors, dns_label, file_mode, non_reserved_path, one_of, required};
use crate::validation::selectors::label_selector;
use crate::validation::view::{int, list, member, opt_text, part, text};

const KINDS: &[&str] =
    &["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
const KEY_TYPES: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
const TEN_MINUTES: i64 = 600;
const LONGEST_TOKEN: i64 = 1 << 32;

/// The files that the sources make; two sources may not make the same.
struct Files<'a>(BTreeSet<&'a str>);

impl<'a> Files<'a> {
    fn add(&mut self, file: &'a str, shown: &str, path: &FieldPath, out: &mut Errors) {
        if !file.is_empty() && !self.0.insert(file) {
            out.push(FieldError::invalid(path, shown, "conflicting duplicate paths"));
        }
    }
}

pub(super) fn projected(volume: &Volume<'_>, path: &FieldPath, out: &mut Errors) {
    file_mode(volume.source, "defaultMode", path, out);
    let mut files = Files(BTreeSet::new());
    for (i, source) in list(volume.source, "sources").iter().enumerate() {
        let at = path.child("sources").index(i);
        for kind in ["secret", "configMap"] {
            if let Some(part) = part(source, kind) {
                object_files(part, &at.child(kind), path, &mut files, out);
            }
        }
        if let Some(part) = part(source, "downwardAPI") {
            for file in list(part, "items") {
                downward_file(file, &at.child("downwardAPI"), out);
                let name = text(file, "path");
                files.add(name, name, path, out);
            }
        }
        if let Some(part) = part(source, "serviceAccountToken") {
            token(part, &at.child("serviceAccountToken"), path, out);
        }
        if let Some(part) = part(source, "clusterTrustBundle") {
            trust_bundle(part, &at.child("clusterTrustBundle"), out);
            let name = text(part, "path");
            files.add(name, name, path, out);
        }
        if let Some(part) = part(source, "podCertificate") {
            certificate(part, &at.child("podCertificate"), out);
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let name = text(part, field);
                files.add(name, name, path, out);
            }
        }
        if KINDS.iter().filter(|kind| part(source, kind).is_some()).count() > 1 {
            let text = "may not specify more than 1 volume type per source";
            out.push(FieldError::forbidden(&at, text));
        }
    }
}

fn object_files<'a>(
    source: &'a Value,
    at: &FieldPath,
    volume: &FieldPath,
    files: &mut Files<'a>,
    out: &mut Errors,
) {
    required(source, "name", at, out);
    for (i, item) in list(source, "items").iter().enumerate() {
        key_to_path(item, &at.child("items").index(i), out);
        files.add(text(item, "path"), text(source, "name"), volume, out);
    }
}

fn token(source: &Value, at: &FieldPath, volume: &FieldPath, out: &mut Errors) {
    let seconds = int(source, "expirationSeconds").unwrap_or_default();
    token_lifetime(seconds, &at.child("expirationSeconds"), out);
    // Complaints about the path name the volume: so does Kubernetes.
    required(source, "path", volume, out);
    non_reserved_path(text(source, "path"), &volume.child("path"), out);
}

/// How long a service account's token may live.
pub(crate) fn token_lifetime(seconds: i64, path: &FieldPath, out: &mut Errors) {
    if seconds < TEN_MINUTES {
        out.push(FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > LONGEST_TOKEN {
        out.push(FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
}

fn trust_bundle(source: &Value, at: &FieldPath, out: &mut Errors) {
    match (opt_text(source, "name"), opt_text(source, "signerName")) {
        (Some(_), Some(_)) => {
            let text = "only one of name and signerName may be used";
            out.push(FieldError::invalid(at, source.clone(), text));
        }
        (Some(name), None) => {
            if name.is_empty() {
                out.push(FieldError::required(&at.child("name"), "must be a valid object name"));
            }
            for complaint in trust_bundle_name(name) {
                let text = format!("not a valid clustertrustbundlename: {complaint}");
                out.push(FieldError::invalid(&at.child("name"), name, text));
            }
            if let Some(selector) = part(source, "labelSelector") {
                let text = "labelSelector must be unset if name is specified";
                out.push(FieldError::invalid(&at.child("labelSelector"), selector.clone(), text));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                out.push(FieldError::required(&at.child("signerName"), "must be a valid signer name"));
            }
            signer_name(signer, &at.child("signerName"), out);
            label_selector(member(source, "labelSelector"), &at.child("labelSelector"), out);
        }
        (None, None) => out.push(FieldError::required(at, "either name or signerName must be specified")),
    }
    required(source, "path", at, out);
    non_reserved_path(text(source, "path"), &at.child("path"), out);
}

/// A bundle's name is a subdomain, after its signer's name with colons for slashes.
fn trust_bundle_name(name: &str) -> Vec<String> {
    names::is_dns1123_subdomain(name.rsplit_once(':').map_or(name, |(_, own)| own))
}

fn certificate(source: &Value, at: &FieldPath, out: &mut Errors) {
    signer_name(text(source, "signerName"), &at.child("signerName"), out);
    one_of(text(source, "keyType"), KEY_TYPES, &at.child("keyType"), out);
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        non_reserved_path(text(source, field), &at.child(field), out);
    }
}

/// The name of a signer: a domain of two labels or more, a slash, a name.
pub(crate) fn signer_name(name: &str, path: &FieldPath, out: &mut Errors) {
    if name.is_empty() {
        out.push(FieldError::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        out.push(FieldError::invalid(path, name, text));
        return;
    };
    if domain.len() > names::DNS_SUBDOMAIN_MAX {
        out.push(FieldError::too_long(path, names::DNS_SUBDOMAIN_MAX));
    }
    let bad = domain.split('.').find(|label| !names::is_dns1123_label(label).is_empty());
    if let Some(label) = bad {
        let mut complaints = Errors::new();
        dns_label(label, path, &mut complaints);
        for complaint in complaints {
            let text = format!("validating label {label:?}: {}", complaint.detail);
            out.push(FieldError::invalid(path, domain, text));
        }
    }
    if !domain.contains('.') {
        let text = "should be a domain with at least two segments separated by dots";
        out.push(FieldError::invalid(path, domain, text));
    }
    for label in rest.split('.') {
        for complaint in names::is_dns1123_subdomain(label) {
            out.push(FieldError::invalid(path, rest, format!("validating label {label:?}: {complaint}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn found(source: &Value) -> Vec<String> {
        let mut out = Errors::new();
        projected(&Volume { source, pod: None }, &FieldPath::new("p"), &mut out);
        texts(&out)
    }

    #[test]
    fn the_volume_that_every_pod_gets_is_sound() {
        let source = json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]});
        assert!(found(&source).is_empty(), "{:?}", found(&source));
    }

    #[test]
    fn sources_are_checked_one_by_one_and_against_each_other() {
        for (source, expected) in [
            (
                json!({"sources": [{"secret": {}, "configMap": {"name": "c"}}]}),
                vec![
                    "p.sources[0].secret.name: Required value",
                    "p.sources[0]: Forbidden: may not specify more than 1 volume type per source",
                ],
            ),
            (
                json!({"sources": [
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "f"}]}},
                    {"configMap": {"name": "c", "items": [{"key": "k", "path": "f"}]}}]}),
                vec![r#"p: Invalid value: "c": conflicting duplicate paths"#],
            ),
            (
                json!({"sources": [{"serviceAccountToken": {"expirationSeconds": 599}}]}),
                vec![
                    "p.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
                    "p.path: Required value",
                ],
            ),
            (
                json!({"sources": [{"serviceAccountToken": {"expirationSeconds": 4_294_967_297_i64, "path": "/t"}}]}),
                vec![
                    "p.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
                    r#"p.path: Invalid value: "/t": must be a relative path"#,
                ],
            ),
            (
                json!({"sources": [{"clusterTrustBundle": {"path": "a"}}]}),
                vec![
                    "p.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
                ],
            ),
            (json!({"sources": [{"clusterTrustBundle": {"name": "x:y:z", "path": "a"}}]}), vec![]),
        ] {
            assert_eq!(found(&source), expected, "{source}");
        }
    }

    #[test]
    fn signers_are_named_by_domain_and_path() {
        for (name, expected) in [
            ("example.com/a", vec![]),
            ("", vec!["<nil>: Required value"]),
            (
                "a",
                vec![
                    r#"<nil>: Invalid value: "a": must be a fully qualified domain and path of the form 'example.com/signer-name'"#,
                ],
            ),
            (
                "example/a",
                vec![
                    r#"<nil>: Invalid value: "example": should be a domain with at least two segments separated by dots"#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            signer_name(name, &FieldPath::root(), &mut out);
            assert_eq!(texts(&out), expected, "{name}");
        }
    }
}
