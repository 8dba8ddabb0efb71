//! What names, keys and values may look like, each check answering with Kubernetes' own complaints
//! (the texts of apimachinery's `util/validation`; an empty answer means that the value is fine).
//!
//! Called by metadata validation, by the strategies and by the selectors. Pure functions over text.

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_NAME_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The greatest length of a DNS label (RFC 1123 and RFC 1035).
pub const DNS_LABEL_MAX: usize = 63;

/// The greatest length of a DNS subdomain.
pub const DNS_SUBDOMAIN_MAX: usize = 253;

/// The greatest length of a label's value.
pub const LABEL_VALUE_MAX: usize = 63;

/// `must be no more than 63 characters`.
pub fn max_len_error(length: usize) -> String {
    format!("must be no more than {length} characters")
}

/// `must be between 1 and 65535, inclusive`.
pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// The sentence about a pattern that did not match, with examples.
pub fn regex_error(text: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{pattern}')");
    }
    let quoted: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{pattern}')", quoted.join("or "))
}

/// A label of DNS as RFC 1123 has it: most object names that become host names.
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        complaints.push(max_len_error(DNS_LABEL_MAX));
    }
    if !matches_dns1123_label(value) {
        complaints.push(if matches_dns1123_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    complaints
}

/// A subdomain of DNS: labels joined by dots.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(max_len_error(DNS_SUBDOMAIN_MAX));
    }
    if !matches_dns1123_subdomain(value) {
        complaints.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    complaints
}

/// A subdomain whose first label is `*`.
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(max_len_error(DNS_SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(matches_dns1123_subdomain) {
        complaints.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    complaints
}

/// A label of DNS as RFC 1035 has it: it starts with a letter (services).
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_LABEL_MAX {
        complaints.push(max_len_error(DNS_LABEL_MAX));
    }
    if !(matches_dns1123_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        complaints.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    complaints
}

/// A qualified name: a label's or an annotation's key, a finalizer, a resource name; a name with an
/// optional subdomain and `/` before it.
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let pattern_error = |start: &str| {
        let text = format!("{start} {QUALIFIED_NAME_TEXT}");
        regex_error(&text, QUALIFIED_NAME, &["MyName", "my.name", "123-abc"])
    };
    let mut complaints = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((_, name)) if name.contains('/') => {
            let text = pattern_error("a valid label key");
            return vec![format!(
                "{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            complaints.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            complaints
                .extend(is_dns1123_subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            name
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        complaints.push(format!("name part {}", max_len_error(63)));
    }
    if !matches_qualified(name) {
        complaints.push(pattern_error("name part"));
    }
    complaints
}

/// The value of a label.
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > LABEL_VALUE_MAX {
        complaints.push(max_len_error(LABEL_VALUE_MAX));
    }
    if !value.is_empty() && !matches_qualified(value) {
        complaints.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({QUALIFIED_NAME})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    complaints
}

/// An identifier of the language C.
pub fn is_c_identifier(value: &str) -> Vec<String> {
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The name of an environment variable: any printable ASCII but `=` (the relaxed rule, which holds
/// since Kubernetes 1.34).
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.is_empty() {
        complaints.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        complaints.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    complaints
}

/// The name of an environment variable by the strict rule, which `envFrom` prefixes and some older
/// fields still follow.
pub fn is_strict_env_var_name(value: &str) -> Vec<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let mut complaints = Vec::new();
    if value.is_empty() || value.starts_with(|c: char| c.is_ascii_digit()) || !value.chars().all(allowed) {
        complaints.push(regex_error(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    complaints.extend(parent_directory(value));
    complaints
}

/// The name of a port: what RFC 6335 calls a service name, in lower case.
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > 15 {
        complaints.push(max_len_error(15));
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if value.is_empty() || !value.chars().all(allowed) {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.contains(|c: char| c.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// The number of a port.
pub fn is_port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// A number within bounds.
pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) { Vec::new() } else { vec![inclusive_range_error(low, high)] }
}

/// The number of a user or a group.
pub fn is_user_or_group_id(id: i64) -> Vec<String> {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A key of a ConfigMap or a Secret.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > DNS_SUBDOMAIN_MAX {
        complaints.push(max_len_error(DNS_SUBDOMAIN_MAX));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if value.is_empty() || !value.chars().all(allowed) {
        complaints.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    complaints.extend(parent_directory(value));
    complaints
}

/// The name of an HTTP header.
pub fn is_http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A percentage such as `25%`.
pub fn is_percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The reason of a condition.
pub fn is_condition_reason(value: &str) -> Vec<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ',' | ':');
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic());
    let ends = value.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if starts && ends && value.chars().all(allowed) {
        return Vec::new();
    }
    vec![regex_error(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// What stands in a URL as one segment of a path.
pub fn is_path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => is_path_segment_prefix(value),
    }
}

/// What a segment of a path may begin with.
pub fn is_path_segment_prefix(value: &str) -> Vec<String> {
    ["/", "%"]
        .into_iter()
        .filter(|part| value.contains(part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

fn matches_dns1123_label(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    value.starts_with(edge) && value.ends_with(edge) && value.chars().all(|c| edge(c) || c == '-')
}

fn matches_dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(matches_dns1123_label)
}

fn matches_qualified(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.starts_with(edge)
        && value.ends_with(edge)
        && value.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name', or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    const NAME_TEXT: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

    fn check(f: fn(&str) -> Vec<String>, good: &[&str], bad: &[(&str, &[&str])]) {
        for value in good {
            assert!(f(value).is_empty(), "{value:?}: {:?}", f(value));
        }
        for (value, complaints) in bad {
            assert_eq!(f(value), *complaints, "{value:?}");
        }
    }

    #[test]
    fn dns_labels() {
        let long = "a".repeat(64);
        check(
            is_dns1123_label,
            &["a", "0", "a-b", "1-a", &"a".repeat(63)],
            &[
                ("", &[LABEL_TEXT]),
                ("-a", &[LABEL_TEXT]),
                ("a-", &[LABEL_TEXT]),
                ("A", &[LABEL_TEXT]),
                ("a_b", &[LABEL_TEXT]),
                ("a.b", &["must not contain dots"]),
                (&long, &["must be no more than 63 characters"]),
                ("ä", &[LABEL_TEXT]),
            ],
        );
        check(is_dns1035_label, &["a", "a-1"], &[]);
        assert_eq!(is_dns1035_label("1a").len(), 1);
        assert_eq!(
            is_dns1035_label("")[0],
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        );
    }

    #[test]
    fn dns_subdomains() {
        let long = format!("{}a", "a.".repeat(127));
        check(
            is_dns1123_subdomain,
            &["a", "a.b", "0.0", "a-b.c"],
            &[
                ("", &[SUBDOMAIN_TEXT]),
                ("a..b", &[SUBDOMAIN_TEXT]),
                (".a", &[SUBDOMAIN_TEXT]),
                ("a.", &[SUBDOMAIN_TEXT]),
                ("a.B", &[SUBDOMAIN_TEXT]),
                (&long, &["must be no more than 253 characters"]),
            ],
        );
        check(is_wildcard_dns1123_subdomain, &["*.a.b"], &[]);
        for bad in ["*", "a.b", "*.*.a", "f*.a"] {
            assert_eq!(is_wildcard_dns1123_subdomain(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn qualified_names_and_label_values() {
        let long = "a".repeat(64);
        let long_key = format!("example.com/{long}");
        let prefixed = format!("prefix part {SUBDOMAIN_TEXT}");
        check(
            is_qualified_name,
            &["simple", "now-with-dashes", "1-starts-with-num", "a.b_c", "example.com/x", "a.b/C"],
            &[
                ("", &["name part must be non-empty", NAME_TEXT]),
                ("a/", &["name part must be non-empty", NAME_TEXT]),
                ("/a", &["prefix part must be non-empty"]),
                ("-a", &[NAME_TEXT]),
                ("A/b", &[&prefixed]),
                (&long_key, &["name part must be no more than 63 characters"]),
                (
                    "a/b/c",
                    &[
                        "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                    ],
                ),
            ],
        );
        check(
            is_label_value,
            &["", "a", "A.b_c-1"],
            &[
                (
                    "a b",
                    &[
                        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                    ],
                ),
                (&long, &["must be no more than 63 characters"]),
            ],
        );
    }

    #[test]
    fn identifiers_of_containers() {
        check(is_c_identifier, &["a", "_a1", "A_B"], &[]);
        for bad in ["", "1a", "a-b", "a.b"] {
            assert_eq!(is_c_identifier(bad).len(), 1, "{bad}");
        }
        check(
            is_env_var_name,
            &["A", "a.b", "1", "a b", "-", ".."],
            &[
                ("", &["environment variable name must be non-empty"]),
                (
                    "a=b",
                    &[
                        "a valid environment variable name must consist only of printable ASCII characters other than '='",
                    ],
                ),
                (
                    "ä",
                    &[
                        "a valid environment variable name must consist only of printable ASCII characters other than '='",
                    ],
                ),
            ],
        );
        check(is_strict_env_var_name, &["A", "a.b", "-"], &[("..a", &["must not start with '..'"])]);
        assert_eq!(is_strict_env_var_name("1a").len(), 1);
        check(
            is_port_name,
            &["http", "a", "80-a", "abcdefghijklmno"],
            &[
                (
                    "",
                    &[
                        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                        "must contain at least one letter (a-z)",
                    ],
                ),
                ("80", &["must contain at least one letter (a-z)"]),
                ("a--b", &["must not contain consecutive hyphens"]),
                ("-a", &["must not begin or end with a hyphen"]),
                ("abcdefghijklmnop", &["must be no more than 15 characters"]),
                ("aB", &["must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"]),
            ],
        );
    }

    #[test]
    fn keys_headers_percentages_and_numbers() {
        let long = "a".repeat(254);
        check(
            is_config_map_key,
            &["a", "A_b.c-d", ".a", "_"],
            &[
                (".", &["must not be '.'"]),
                ("..", &["must not be '..'"]),
                ("..a", &["must not start with '..'"]),
                (&long, &["must be no more than 253 characters"]),
                (
                    "a/b",
                    &[
                        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name', or 'KEY_NAME', or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                    ],
                ),
            ],
        );
        check(is_http_header_name, &["X-A"], &[]);
        assert_eq!(is_http_header_name("a_b").len(), 1);
        check(is_percent, &["1%", "093%"], &[]);
        assert_eq!(is_percent("%").len(), 1);
        assert_eq!(is_port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert!(is_port_number(65535).is_empty());
        assert!(is_user_or_group_id(2_147_483_647).is_empty());
        assert_eq!(is_user_or_group_id(-1), ["must be between 0 and 2147483647, inclusive"]);
        assert!(is_condition_reason("A,B").is_empty());
        assert_eq!(is_condition_reason("A,").len(), 1);
    }

    #[test]
    fn path_segments() {
        check(
            is_path_segment,
            &["a", "a.b", "A:b"],
            &[
                (".", &["may not be '.'"]),
                ("..", &["may not be '..'"]),
                ("a/%", &["may not contain '/'", "may not contain '%'"]),
            ],
        );
        check(is_path_segment_prefix, &["..", "a"], &[]);
    }
}
