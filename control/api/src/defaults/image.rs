//! When an image is pulled, judged by its name.

/// The parts of an image's name that say which version is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageReference<'a> {
    /// The name without tag and digest, as it was written.
    pub name: &'a str,
    /// The tag, if one was written.
    pub tag: Option<&'a str>,
    /// The digest, if one was written.
    pub digest: Option<&'a str>,
}

impl<'a> ImageReference<'a> {
    /// Takes a name apart by the grammar of Docker's references; nothing if it is none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |at| at + 1);
        let colon = rest.get(last..)?.find(':').map(|at| at + last);
        let (name, tag) = match colon {
            Some(at) => (rest.get(..at)?, Some(rest.get(at + 1..)?)),
            None => (rest, None),
        };
        let valid = is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        valid.then_some(Self { name, tag, digest })
    }
}

/// Whether an image is pulled each time by default: it has the tag `latest`, or neither a tag nor a
/// digest. A name that cannot be read is not (validation says what is wrong with it).
pub fn always_pulled(image: &str) -> bool {
    ImageReference::parse(image).is_some_and(|reference| match reference.tag {
        Some(tag) => tag == "latest",
        None => reference.digest.is_none(),
    })
}

/// A name: an optional registry, then path components in lower case.
fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((first, path)) if is_registry_like(first) => {
            if !is_registry(first) {
                return false;
            }
            path
        }
        _ => name,
    };
    let is_id = name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    !is_id && name.len() <= 255 && path.split('/').all(is_component)
}

/// What makes the first component a registry rather than part of a path on Docker Hub.
fn is_registry_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_registry(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<std::net::Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port))
        });
    }
    let (host, port) = match text.find(':') {
        Some(at) => text.split_at_checked(at).unwrap_or((text, "")),
        None => (text, ""),
    };
    let is_label = |label: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(edge) && label.ends_with(edge) && label.chars().all(|c| edge(c) || c == '-')
    };
    host.split('.').all(is_label) && (port.is_empty() || is_port(port))
}

fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Letters and digits, with single dots, one or two underscores or any number of dashes between.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return false;
    }
    text.split(alphanumeric)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    let length = match text.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return false,
    };
    text.split_once(':').is_some_and(|(_, hex)| {
        hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_always_pulled_if_their_version_may_move() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, expected) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("library/nginx", true),
            ("sampan/hello", true),
            ("ghcr.io/a/b", true),
            ("ghcr.io/a/b:v1", false),
            ("localhost:5000/a", true),
            ("localhost:5000/a:1", false),
            ("localhost/a", true),
            ("[::1]:5000/a", true),
            ("a__b/c-d.e", true),
            (&format!("nginx@{digest}"), false),
            (&format!("nginx:1@{digest}"), false),
            (&format!("nginx:latest@{digest}"), true),
            // What is no image at all.
            ("", false),
            ("Nginx", false),
            ("a b", false),
            ("a___b", false),
            ("a..b", false),
            ("a/", false),
            ("nginx:", false),
            ("nginx:-a", false),
            ("nginx@sha256:abc", false),
            (&"a".repeat(64), false),
            (&"z".repeat(256), false),
        ] {
            assert_eq!(always_pulled(image), expected, "{image}");
        }
    }

    #[test]
    fn names_tags_and_digests_are_told_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let text = format!("r.io:5000/a/b:v1@{digest}");
        let reference = ImageReference::parse(&text).unwrap();
        assert_eq!(reference.name, "r.io:5000/a/b");
        assert_eq!(reference.tag, Some("v1"));
        assert_eq!(reference.digest, Some(digest.as_str()));
    }
}
