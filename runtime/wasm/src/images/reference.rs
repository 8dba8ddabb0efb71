//! Image references as Docker and Kubernetes read them: `nginx` is
//! `docker.io/library/nginx:latest`. Pure; the texts of errors are those that Kubernetes'
//! users know.

use std::fmt;
use std::str::FromStr;

/// The registry that is meant where none is named.
const DEFAULT_DOMAIN: &str = "docker.io";
/// An old name of it.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Where images without a path of their own are.
const OFFICIAL: &str = "library/";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// A reference in full: domain, path, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It follows no rule.
    #[error("invalid reference format")]
    Format,
    /// Upper case in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Too long.
    #[error("repository name must not be more than {MAX_PATH} characters")]
    TooLong,
    /// What could be an image's identity cannot be its name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Hexadecimal(String),
    /// An unknown algorithm.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// A digest of the wrong length.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// A digest with wrong characters.
    #[error("invalid checksum digest format")]
    DigestFormat,
}

impl Reference {
    /// Domain and path: `docker.io/library/nginx`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if the reference has one or means one: without a digest it is `latest`.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, Some(_)) => None,
            (None, None) => Some("latest"),
        }
    }

    /// The digest, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

/// In full: `docker.io/library/nginx:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::Hexadecimal(text.to_owned()));
        }
        let (domain, rest) = split_domain(text);
        let official = domain == DEFAULT_DOMAIN && !rest.contains('/');
        let rest = if official { format!("{OFFICIAL}{rest}") } else { rest.to_owned() };
        let remote = rest.split(':').next().unwrap_or_default();
        if remote.to_lowercase() != remote {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }

        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest.as_str(), None),
        };
        let (path, tag) = match named.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (named, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_component) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        if path.len() > MAX_PATH {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// The registry and what follows. A first part is a registry if it looks like a host: it has a
/// dot or a port, has upper case, or is `localhost`.
fn split_domain(text: &str) -> (&str, &str) {
    let Some((first, rest)) = text.split_once('/') else { return (DEFAULT_DOMAIN, text) };
    let host = first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first;
    match first {
        LEGACY_DOMAIN => (DEFAULT_DOMAIN, rest),
        _ if host => (first, rest),
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// A host name or an address in brackets, and a port.
fn is_domain(domain: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let address = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
        return address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

/// A part of the path: lower-case letters and digits, with separators between them: a dot,
/// one or two underscores, any number of dashes.
fn is_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut words = 0;
    let mut rest = component.as_bytes();
    loop {
        let length = rest.iter().take_while(|byte| word(**byte)).count();
        if length == 0 {
            return false;
        }
        words += 1;
        rest = rest.get(length..).unwrap_or_default();
        if rest.is_empty() {
            return words > 0;
        }
        let length = rest.iter().take_while(|byte| !word(**byte)).count();
        let (separator, after) = rest.split_at(length);
        let dashes = separator.iter().all(|byte| *byte == b'-');
        if !(dashes || matches!(separator, b"." | b"_" | b"__")) {
            return false;
        }
        rest = after;
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = tag.bytes().next().is_some_and(word);
    first && tag.len() <= MAX_TAG && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let (algorithm, hex) = digest.split_once(':').ok_or(ReferenceError::Format)?;
    let part = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let plausible = hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !algorithm.split(['-', '_', '+', '.']).all(part) || !plausible {
        return Err(ReferenceError::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::DigestAlgorithm),
    };
    if hex.len() != length {
        return Err(ReferenceError::DigestLength);
    }
    if hex.bytes().all(is_lower_hex) { Ok(()) } else { Err(ReferenceError::DigestFormat) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_completed_as_docker_does() {
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("sampan/hello", "docker.io/sampan/hello:latest"),
            ("docker.io/sampan/hello:latest", "docker.io/sampan/hello:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest"),
            ("Registry/a", "Registry/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("a__b/c-d.e---f", "docker.io/a__b/c-d.e---f:latest"),
            ("a:_T.a-g", "docker.io/library/a:_T.a-g"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn a_digest_stands_without_a_tag_or_beside_it() {
        let bare: Reference = format!("a@sha256:{HEX}").parse().unwrap();
        assert_eq!(bare.to_string(), format!("docker.io/library/a@sha256:{HEX}"));
        assert_eq!((bare.tag(), bare.digest()), (None, Some(format!("sha256:{HEX}").as_str())));
        let both: Reference = format!("x.io/a:v1@sha256:{HEX}").parse().unwrap();
        assert_eq!((both.tag(), both.repository()), (Some("v1"), "x.io/a".to_owned()));
        let long: Reference = format!("a@sha512:{HEX}{HEX}").parse().unwrap();
        assert_eq!(long.digest(), Some(format!("sha512:{HEX}{HEX}").as_str()));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_known_words() {
        let long = "a".repeat(256);
        let digest = |digest: &str| format!("a@{digest}");
        for (text, error) in [
            ("", ReferenceError::Format),
            (" ", ReferenceError::Format),
            ("FOO", ReferenceError::Uppercase("library/FOO".into())),
            ("sampan/Hello:v1", ReferenceError::Uppercase("sampan/Hello".into())),
            ("a:", ReferenceError::Format),
            ("a:b:c", ReferenceError::Format),
            ("a:.b", ReferenceError::Format),
            ("a//b", ReferenceError::Format),
            ("/a", ReferenceError::Format),
            ("a/", ReferenceError::Format),
            ("a___b", ReferenceError::Format),
            ("a..b", ReferenceError::Format),
            ("-a", ReferenceError::Format),
            ("a-", ReferenceError::Format),
            ("x.io:port/a", ReferenceError::Format),
            ("-x.io/a", ReferenceError::Format),
            ("a b", ReferenceError::Format),
            ("a@b", ReferenceError::Format),
            ("https://x.io/a", ReferenceError::Format),
            (HEX, ReferenceError::Hexadecimal(HEX.into())),
            (&long, ReferenceError::TooLong),
            (&format!("a:{}", "t".repeat(129)), ReferenceError::Format),
            (&digest("sha256:abc"), ReferenceError::Format),
            (&digest(&format!("sha256:{}", HEX.get(..40).unwrap())), ReferenceError::DigestLength),
            (&digest(&format!("md5:{}", HEX.get(..32).unwrap())), ReferenceError::DigestAlgorithm),
            (&digest(&format!("sha256:{}", HEX.to_uppercase())), ReferenceError::DigestFormat),
        ] {
            assert_eq!(text.parse::<Reference>(), Err(error), "{text:?}");
        }
    }
}
