//! Checks that many kinds share: names, labels, annotations, ranges, paths, addresses.
//!
//! Each check appends what it finds to the list that it is given, as all of validation does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::{meta, names};
use serde_json::{Map, Value};

use super::view;

/// What a value below zero is told.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// What a value that may not change is told.
pub(crate) const IMMUTABLE: &str = "field is immutable";

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Complaints so far.
pub(crate) type Errors = Vec<FieldError>;

/// One `Invalid` for each complaint about a text.
pub(crate) fn each(path: &FieldPath, value: &str, complaints: Vec<String>, out: &mut Errors) {
    out.extend(FieldError::each_invalid(path, value, complaints));
}

/// A DNS label.
pub(crate) fn dns_label(value: &str, path: &FieldPath, out: &mut Errors) {
    each(path, value, names::is_dns1123_label(value), out);
}

/// A DNS subdomain.
pub(crate) fn subdomain(value: &str, path: &FieldPath, out: &mut Errors) {
    each(path, value, names::is_dns1123_subdomain(value), out);
}

/// A DNS subdomain whose labels may have underscores (search paths of resolvers).
pub(crate) fn subdomain_with_underscore(value: &str, path: &FieldPath, out: &mut Errors) {
    const TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
    const PATTERN: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    if value.len() > names::DNS_SUBDOMAIN_MAX {
        out.push(FieldError::invalid(path, value, names::max_len_error(names::DNS_SUBDOMAIN_MAX)));
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or(label);
        rest.starts_with(edge)
            && rest.ends_with(edge)
            && rest.chars().all(|c| edge(c) || matches!(c, '-' | '_'))
    };
    if !value.split('.').all(label) {
        out.push(FieldError::invalid(path, value, names::regex_error(TEXT, PATTERN, &["example.com"])));
    }
}

/// A qualified name: a label's key, a gate, a condition's type.
pub(crate) fn qualified_name(value: &str, path: &FieldPath, out: &mut Errors) {
    each(path, value, names::is_qualified_name(value), out);
}

/// A map of labels, as selectors and templates carry it.
pub(crate) fn labels(found: &Map<String, Value>, path: &FieldPath, out: &mut Errors) {
    out.extend(meta::validate_labels(found, path));
}

/// A map of annotations, as templates carry it.
pub(crate) fn annotations(found: &Map<String, Value>, path: &FieldPath, out: &mut Errors) {
    out.extend(meta::validate_annotations(found, path));
}

/// A number that is not negative.
pub(crate) fn not_negative(value: i64, path: &FieldPath, out: &mut Errors) {
    if value < 0 {
        out.push(FieldError::invalid(path, value, NOT_NEGATIVE));
    }
}

/// A required text.
pub(crate) fn required(at: &Value, name: &str, path: &FieldPath, out: &mut Errors) {
    if view::text(at, name).is_empty() {
        out.push(FieldError::required(&path.child(name), ""));
    }
}

/// A number between two bounds.
pub(crate) fn in_range(value: i64, low: i64, high: i64, path: &FieldPath, out: &mut Errors) {
    if value < low || value > high {
        out.push(FieldError::invalid(path, value, names::inclusive_range_error(low, high)));
    }
}

/// A file mode, where there is one.
pub(crate) fn file_mode(at: &Value, name: &str, path: &FieldPath, out: &mut Errors) {
    if let Some(mode) = view::int(at, name).filter(|mode| !(0..=0o777).contains(mode)) {
        out.push(FieldError::invalid(&path.child(name), mode, FILE_MODE));
    }
}

/// An enumerated text, where there is one.
pub(crate) fn one_of(value: &str, known: &[&str], path: &FieldPath, out: &mut Errors) {
    if !known.contains(&value) {
        out.push(FieldError::not_supported(path, value, known));
    }
}

/// An enumerated text that must be there.
pub(crate) fn required_one_of(value: &str, known: &[&str], path: &FieldPath, out: &mut Errors) {
    if value.is_empty() {
        out.push(FieldError::required(path, ""));
    } else {
        one_of(value, known, path, out);
    }
}

/// A value that may not change.
pub(crate) fn immutable(new: &Value, old: &Value, path: &FieldPath, out: &mut Errors) {
    if !view::same(new, old) {
        out.push(FieldError::invalid(path, new.clone(), IMMUTABLE));
    }
}

/// A port given by number or by name.
pub(crate) fn port_number_or_name(port: &Value, path: &FieldPath, out: &mut Errors) {
    match port {
        Value::String(name) => each(path, name, names::is_port_name(name), out),
        number => {
            let number = number.as_i64().unwrap_or_default();
            for text in names::is_port_number(number) {
                out.push(FieldError::invalid(path, number, text));
            }
        }
    }
}

/// A path without a `..` element.
pub(crate) fn no_backsteps(value: &str, path: &FieldPath, out: &mut Errors) {
    if value.split('/').any(|element| element == "..") {
        out.push(FieldError::invalid(path, value, "must not contain '..'"));
    }
}

/// A path that stays below where it starts.
pub(crate) fn descending_path(value: &str, path: &FieldPath, out: &mut Errors) {
    if value.starts_with('/') {
        out.push(FieldError::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(value, path, out);
}

/// A descending path that does not begin with two dots either (the kubelet's own files do).
pub(crate) fn non_reserved_path(value: &str, path: &FieldPath, out: &mut Errors) {
    descending_path(value, path, out);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        out.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

/// An IP address of either family. Leading zeros in IPv4 are taken, as they always were.
pub(crate) fn parse_ip(value: &str) -> Option<IpAddr> {
    if value.contains(':') {
        return value.parse::<Ipv6Addr>().ok().map(|address| match address.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(address),
        });
    }
    let mut octets = [0_u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part =
            parts.next().filter(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))?;
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// An IP address.
pub(crate) fn ip(value: &str, path: &FieldPath, out: &mut Errors) {
    if parse_ip(value).is_none() {
        let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        out.push(FieldError::invalid(path, value, text));
    }
}

/// The address of a range in CIDR notation.
pub(crate) fn parse_cidr(value: &str) -> Option<IpAddr> {
    let (address, bits) = value.split_once('/')?;
    let address = parse_ip(address)?;
    let bits = Some(bits).filter(|bits| bits.bytes().all(|b| b.is_ascii_digit()))?.parse::<u8>().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(address)
}

/// A range of addresses.
pub(crate) fn cidr(value: &str, path: &FieldPath, out: &mut Errors) {
    if parse_cidr(value).is_none() {
        let text = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        out.push(FieldError::invalid(path, value, text));
    }
}

/// Whether there is at least one address of each family.
pub(crate) fn is_dual_stack(addresses: &[IpAddr]) -> bool {
    addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    #[test]
    fn paths_stay_below_where_they_start() {
        let path = FieldPath::new("path");
        for (value, expected) in [
            ("a/b", vec![]),
            ("..a/b", vec![r#"path: Invalid value: "..a/b": must not start with '..'"#]),
            ("../b", vec![r#"path: Invalid value: "../b": must not contain '..'"#]),
            ("a/..", vec![r#"path: Invalid value: "a/..": must not contain '..'"#]),
            (
                "/a/../b",
                vec![
                    r#"path: Invalid value: "/a/../b": must be a relative path"#,
                    r#"path: Invalid value: "/a/../b": must not contain '..'"#,
                ],
            ),
        ] {
            let mut out = Errors::new();
            non_reserved_path(value, &path, &mut out);
            assert_eq!(texts(&out), expected, "{value}");
        }
    }

    #[test]
    fn addresses_and_ranges_are_recognised() {
        for (value, good) in [
            ("10.0.0.1", true),
            ("010.0.0.001", true),
            ("::1", true),
            ("::ffff:1.2.3.4", true),
            ("10.0.0", false),
            ("10.0.0.256", false),
            ("10.0.0.1.2", false),
            ("+1.0.0.1", false),
            ("", false),
            ("a", false),
        ] {
            assert_eq!(parse_ip(value).is_some(), good, "{value}");
        }
        for (value, good) in [
            ("10.0.0.0/24", true),
            ("2001:db8::/64", true),
            ("10.0.0.0", false),
            ("10.0.0.0/33", false),
            ("10.0.0.0/+1", false),
            ("/8", false),
        ] {
            assert_eq!(parse_cidr(value).is_some(), good, "{value}");
        }
    }

    #[test]
    fn modes_and_ports_have_bounds() {
        let path = FieldPath::root();
        let mut out = Errors::new();
        file_mode(&json!({"mode": 0o1000}), "mode", &path, &mut out);
        file_mode(&json!({"mode": 0o644}), "mode", &path, &mut out);
        port_number_or_name(&json!(0), &path, &mut out);
        port_number_or_name(&json!("http"), &path, &mut out);
        port_number_or_name(&json!("80"), &path, &mut out);
        assert_eq!(
            texts(&out),
            [
                "mode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "<nil>: Invalid value: 0: must be between 1 and 65535, inclusive",
                "<nil>: Invalid value: \"80\": must contain at least one letter (a-z)",
            ]
        );
    }
}
