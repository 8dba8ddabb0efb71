//! Credentials for registries, from a pod's `imagePullSecrets`.

use base64::Engine;
use k8s_openapi::api::core::v1::{Pod, Secret};
use sampan_cri::PullCredentials;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::env::Wanted;
use crate::pod::spec;

/// The credentials of a pod that fit an image, in the order of its secrets. Secrets that are
/// not there are left out, as Kubernetes does.
pub async fn of_pod(context: &Context, pod: &Pod, image: &str) -> Vec<PullCredentials> {
    let names = spec::spec(pod).and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
    if names.is_empty() {
        return Vec::new();
    }
    let wanted = Wanted {
        secrets: names.iter().map(|reference| reference.name.clone()).collect(),
        ..Default::default()
    };
    let Ok(refs) = context.objects.fetch(spec::namespace(pod), &wanted).await else { return Vec::new() };
    names
        .iter()
        .filter_map(|reference| refs.secret(&reference.name).ok())
        .flat_map(|secret| from_secret(secret, image))
        .collect()
}

/// The credentials of one secret that fit an image, the most specific first.
fn from_secret(secret: &Secret, image: &str) -> Vec<PullCredentials> {
    let data =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    let auths: Option<Map<String, Value>> = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
            .and_then(|text| serde_json::from_slice::<Value>(text).ok())
            .and_then(|config| config.get("auths").and_then(Value::as_object).cloned()),
        Some("kubernetes.io/dockercfg") => {
            data(".dockercfg").and_then(|text| serde_json::from_slice(text).ok())
        }
        _ => None,
    };
    let mut fitting: Vec<(usize, PullCredentials)> = auths
        .into_iter()
        .flatten()
        .filter_map(|(registry, entry)| Some((fit(&registry, image)?, credentials(&entry)?)))
        .collect();
    fitting.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    fitting.into_iter().map(|(_, credentials)| credentials).collect()
}

fn credentials(entry: &Value) -> Option<PullCredentials> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some((username, password)) = text("username").zip(text("password")) {
        return Some(PullCredentials { username: username.into(), password: password.into() });
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(PullCredentials { username: username.into(), password: password.into() })
}

/// How well a registry of a configuration fits an image: the length of what matches.
fn fit(registry: &str, image: &str) -> Option<usize> {
    let registry = registry.trim_start_matches("https://").trim_start_matches("http://");
    let registry = registry.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let first = image.split('/').next().unwrap_or_default();
    let named = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = if named { image.to_owned() } else { format!("docker.io/{image}") };
    let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
    let (image_host, image_path) = full.split_once('/')?;
    let path_fits = path.is_empty()
        || image_path
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']));
    (host_fits(host, image_host) && path_fits).then_some(registry.len())
}

/// Hosts match by labels; `*` stands for one label.
fn host_fits(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len() && pattern.iter().zip(&host).all(|(want, have)| *want == "*" || want == have)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn registries_match_by_host_and_path() {
        for (registry, image, fits) in [
            ("https://index.docker.io/v1/", "sampan/hello", true),
            ("docker.io", "hello:1", true),
            ("ghcr.io", "ghcr.io/a/b:1", true),
            ("ghcr.io/a", "ghcr.io/a/b:1", true),
            ("ghcr.io/a", "ghcr.io/ab/b:1", false),
            ("*.example.com", "r.example.com/x", true),
            ("*.example.com", "example.com/x", false),
            ("host:5000", "host:5000/x", true),
            ("host", "host:5000/x", false),
        ] {
            assert_eq!(fit(registry, image).is_some(), fits, "{registry} {image}");
        }
    }

    #[test]
    fn the_most_specific_credentials_come_first() {
        let config = json!({ "auths": {
            "ghcr.io": { "auth": "YTpi" }, "ghcr.io/team": { "username": "c", "password": "d" },
            "quay.io": { "auth": "eDp5" }
        } });
        let secret: Secret = serde_json::from_value(json!({
            "type": "kubernetes.io/dockerconfigjson",
            "data": { ".dockerconfigjson": base64::engine::general_purpose::STANDARD.encode(config.to_string()) }
        }))
        .unwrap();
        let found: Vec<String> = from_secret(&secret, "ghcr.io/team/x")
            .into_iter()
            .map(|c| format!("{}:{}", c.username, c.password))
            .collect();
        assert_eq!(found, ["c:d", "a:b"]);
    }
}
