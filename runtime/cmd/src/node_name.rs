//! The node's name: the host name, made into a DNS subdomain.

use crate::error::CommandError;

/// The name to register under: the one given, checked, or the machine's host name.
pub(crate) fn choose(given: Option<&str>) -> Result<String, CommandError> {
    if let Some(name) = given {
        let mistakes = sampan_api::names::is_dns1123_subdomain(name);
        return match mistakes.first() {
            None => Ok(name.to_owned()),
            Some(mistake) => Err(CommandError::new(format!("--node-name {name:?}: {mistake}"))),
        };
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(from_host(&host))
}

/// Lower case; what a DNS subdomain cannot hold becomes a dash.
fn from_host(host: &str) -> String {
    let lower: String = host
        .trim()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' })
        .take(253)
        .collect();
    let name: Vec<&str> =
        lower.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty()).collect();
    if name.is_empty() { "localhost".to_owned() } else { name.join(".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_becomes_a_node_name() {
        for (host, name) in [
            ("Edge-1", "edge-1"),
            ("my_host.local", "my-host.local"),
            ("-odd-.", "odd"),
            ("", "localhost"),
            ("häus", "h-us"),
        ] {
            assert_eq!(from_host(host), name, "{host}");
        }
    }

    #[test]
    fn a_bad_name_is_refused() {
        assert!(choose(Some("Not_Good")).is_err());
        assert_eq!(choose(Some("good-1")).unwrap(), "good-1");
    }
}
