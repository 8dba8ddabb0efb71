//! How a pod's guests resolve names.

use sampan_api::field::{FieldError, FieldPath};
use serde_json::Value;

use crate::validation::checks::{Errors, ip, subdomain, subdomain_with_underscore};
use crate::validation::view::{list, member, part, text, texts};

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_LENGTH_MAX: usize = 2048;

/// `spec.dnsConfig`, which one policy requires.
pub(super) fn config(spec: &Value, path: &FieldPath, out: &mut Errors) {
    let config = part(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => {
                let text = "must provide `dnsConfig` when `dnsPolicy` is None";
                out.push(FieldError::required(path, text));
            }
            Some(config) if list(config, "nameservers").is_empty() => {
                let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                out.push(FieldError::required(&path.child("nameservers"), text));
                return;
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let at = path.child("nameservers");
    if list(config, "nameservers").len() > NAMESERVERS_MAX {
        let text = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        out.push(FieldError::invalid(&at, member(config, "nameservers").clone(), text));
    }
    for (i, server) in texts(config, "nameservers").enumerate() {
        ip(server, &at.index(i), out);
    }
    searches(config, &path.child("searches"), out);
    for (i, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            out.push(FieldError::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn searches(config: &Value, path: &FieldPath, out: &mut Errors) {
    let searches: Vec<&str> = texts(config, "searches").collect();
    let mut refuse = |text: String| {
        out.push(FieldError::invalid(path, member(config, "searches").clone(), text));
    };
    if searches.len() > SEARCHES_MAX {
        refuse(format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    if searches.join(" ").len() > SEARCHES_LENGTH_MAX {
        refuse(format!(
            "must not have more than {SEARCHES_LENGTH_MAX} characters (including spaces) in the search list"
        ));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        subdomain_with_underscore(search.strip_suffix('.').unwrap_or(search), &path.index(i), out);
    }
}

/// `spec.hostAliases`.
pub(super) fn host_aliases(aliases: &[Value], path: &FieldPath, out: &mut Errors) {
    for (i, alias) in aliases.iter().enumerate() {
        let path = path.index(i);
        ip(text(alias, "ip"), &path.child("ip"), out);
        for (j, name) in texts(alias, "hostnames").enumerate() {
            subdomain(name, &path.child("hostnames").index(j), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn resolvers() {
        for (spec, expected) in [
            (json!({"dnsPolicy": "ClusterFirst"}), vec![]),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "::1"],
                    "searches": [".", "a.b.", "_tcp.x"], "options": [{"name": "ndots", "value": "2"}]}}),
                vec![],
            ),
            (
                json!({"dnsPolicy": "None"}),
                vec!["d: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {}}),
                vec![
                    "d.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
                ],
            ),
            (
                json!({"dnsConfig": {"nameservers": ["a", "1.1.1.1", "1.1.1.2", "1.1.1.3"], "options": [{}]}}),
                vec![
                    r#"d.nameservers: Invalid value: ["a","1.1.1.1","1.1.1.2","1.1.1.3"]: must not have more than 3 nameservers"#,
                    r#"d.nameservers[0]: Invalid value: "a": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
                    "d.options[0]: Required value: must not be empty",
                ],
            ),
        ] {
            let mut out = Errors::new();
            config(&spec, &FieldPath::new("d"), &mut out);
            assert_eq!(texts(&out), expected, "{spec}");
        }
    }

    #[test]
    fn aliases() {
        let mut out = Errors::new();
        host_aliases(&[json!({"ip": "x", "hostnames": ["ok", "A"]})], &FieldPath::new("h"), &mut out);
        let found = texts(&out);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(r#"h[0].ip: Invalid value: "x": must be a valid IP address"#));
        assert!(
            found[1].starts_with(r#"h[0].hostnames[1]: Invalid value: "A": a lowercase RFC 1123 subdomain"#)
        );
    }
}
