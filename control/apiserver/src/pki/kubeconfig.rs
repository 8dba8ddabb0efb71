//! Kubeconfig files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Identity;

/// A kubeconfig (YAML) with everything embedded: one cluster, one user, one context.
pub fn kubeconfig(server: &str, ca_pem: &str, user: &str, identity: &Identity) -> String {
    let ca = STANDARD.encode(ca_pem);
    let certificate = STANDARD.encode(&identity.certificate_pem);
    let key = STANDARD.encode(&identity.key_pem);
    let server = serde_json::Value::from(server);
    let user = serde_json::Value::from(user);
    // JSON strings are YAML scalars.
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: sampan\n  cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n\
         users:\n\
         - name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n\
         - name: sampan\n  context:\n    cluster: sampan\n    user: {user}\n\
         current-context: sampan\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_yaml_with_everything_embedded() {
        let identity = Identity { certificate_pem: "cert".into(), key_pem: "key".into() };
        let text = kubeconfig("https://127.0.0.1:6443", "ca", "admin", &identity);
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        assert_eq!(value["clusters"][0]["cluster"]["certificate-authority-data"], "Y2E=");
        assert_eq!(value["users"][0]["user"]["client-key-data"], "a2V5");
        assert_eq!(value["contexts"][0]["context"]["user"], "admin");
    }
}
