//! A client made from a kubeconfig.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use http::Request;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A client over TLS as a kubeconfig says.
pub fn client_of(kubeconfig: &Path) -> kube::Client {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    let decode =
        |value: &Value| base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    let cluster = &config["clusters"][0]["cluster"];
    let user = &config["users"][0]["user"];
    let address = cluster["server"].as_str().unwrap().strip_prefix("https://").unwrap().to_owned();
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&decode(&cluster["certificate-authority-data"])) {
        roots.add(root.unwrap()).unwrap();
    }
    let chain = decode(&user["client-certificate-data"]);
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&decode(&user["client-key-data"])).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let connector = TlsConnector::from(Arc::new(tls));
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let socket = TcpStream::connect(&address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let stream = connector.connect(name, socket).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            request.headers_mut().insert(http::header::HOST, address.parse()?);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(sender.send_request(request).await?)
        }
    });
    kube::Client::new(service, "default")
}
