//! HTTPS to a server, one request a connection. How the server proves itself is the caller's choice.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sampan_api::status::Status;
use sampan_apiserver::pki::Identity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::JoinError;

const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(60);
/// The largest answer that is read whole.
const MAX_ANSWER: usize = 16 << 20;
const PORT: u16 = 6443;

/// How a server proves that it is one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof<'a> {
    /// Not at all: what it says is checked otherwise.
    None,
    /// Its certificate is signed by one of these authorities (PEM), which sign nothing but servers.
    /// Names and dates do not matter: the machine's clock may be wrong, and the address any.
    Authority(&'a str),
    /// The same, and the certificate carries the name that is asked for and is in date.
    AuthorityAndName(&'a str),
}

/// A server's address with the way to speak to it.
pub(crate) struct Https {
    url: String,
    host: String,
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Https {
    /// `url` is `https://HOST[:PORT]`; `identity` is shown to the server where it is given.
    pub(crate) fn new(url: &str, proof: Proof<'_>, identity: Option<&Identity>) -> Result<Self, JoinError> {
        let bad = || JoinError::Address(url.to_owned());
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        if uri.scheme_str() != Some("https") || path != "/" {
            return Err(bad());
        }
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.port() {
            None if authority.as_str() != authority.host() => return Err(bad()),
            None => PORT,
            Some(port) => port.as_u16(),
        };
        let tls = Arc::new(tls(proof, identity)?);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, port, tls })
    }

    /// A request with a JSON body, or none; the answer, which is JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, JoinError> {
        let body = match body {
            None => Bytes::new(),
            Some(body) => serde_json::to_vec(body).map_err(|error| self.answered(error.to_string()))?.into(),
        };
        let response = self.send(method, path, body).await?;
        let bytes = self.read(response).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.answered(error.to_string()))
    }

    /// A request; the answer, if it is a good one, with its body still to be read.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, JoinError> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, format!("{host}:{}", self.port))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreachable(error))?;
        let mut sender = timeout(CONNECT, self.connect())
            .await
            .map_err(|_| self.unreachable(format!("no connection within {} s", CONNECT.as_secs())))??;
        let response = timeout(ANSWER, sender.send_request(request))
            .await
            .map_err(|_| self.unreachable(format!("no answer within {} s", ANSWER.as_secs())))?
            .map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status().as_u16();
        let bytes = self.read(response).await?;
        let message = match serde_json::from_slice::<Status>(&bytes) {
            Ok(status) if !status.message.is_empty() => status.message,
            _ => return Err(self.answered(format!("HTTP status {code}"))),
        };
        Err(JoinError::Refused { code, message })
    }

    async fn connect(&self) -> Result<hyper::client::conn::http1::SendRequest<Full<Bytes>>, JoinError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| self.unreachable(error))?;
        // What cannot be told to a server as a name (an underscore) need not be.
        let name = ServerName::try_from(self.host.clone())
            .or_else(|_| ServerName::try_from("kubernetes".to_owned()))
            .map_err(|_| JoinError::Address(self.url.clone()))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let stream = stream.map_err(|error| self.not_proven(error))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, JoinError> {
        let body = timeout(ANSWER, Limited::new(response.into_body(), MAX_ANSWER).collect()).await;
        match body {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(source)) => Err(JoinError::Unreachable { server: self.url.clone(), source }),
            Err(_) => Err(self.unreachable("the answer did not come in time".to_owned())),
        }
    }

    /// TLS failed: because of the certificate, or of the network.
    fn not_proven(&self, error: std::io::Error) -> JoinError {
        let about_certificate = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>())
            .is_some_and(|inner| matches!(inner, Error::InvalidCertificate(_)));
        match about_certificate {
            true => JoinError::NotProven { server: self.url.clone(), source: error.into() },
            false => self.unreachable(error),
        }
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> JoinError {
        JoinError::Unreachable { server: self.url.clone(), source: source.into() }
    }

    pub(crate) fn answered(&self, what: String) -> JoinError {
        JoinError::Answer { server: self.url.clone(), what }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

fn tls(proof: Proof<'_>, identity: Option<&Identity>) -> Result<ClientConfig, JoinError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match proof {
        Proof::AuthorityAndName(pem) => builder.with_root_certificates(roots(pem)?),
        Proof::Authority(pem) => {
            let verifier = Pinned { roots: Some(roots(pem)?), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        Proof::None => {
            let verifier = Pinned { roots: None, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let bad = |what: &str| JoinError::Kubeconfig(format!("holds a {what} that does not parse"));
            let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| bad("client certificate"))?;
            let key =
                PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|_| bad("client key"))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(pem: &str) -> Result<RootCertStore, JoinError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|error| {
            JoinError::Kubeconfig(format!("holds an authority that does not parse: {error}"))
        })?;
        roots.add(root)?;
    }
    Ok(roots)
}

/// Takes servers whose certificate one of the authorities signed, or any at all.
#[derive(Debug)]
struct Pinned {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                within(end_entity, now)?,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The time that is nearest to `now` at which a certificate is in date.
fn within(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<UnixTime, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let second = |timestamp: i64| u64::try_from(timestamp).unwrap_or_default();
    let (from, to) =
        (second(parsed.validity().not_before.timestamp()), second(parsed.validity().not_after.timestamp()));
    let time = now.as_secs().clamp(from, to.max(from));
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_does_not_make_a_certificate_bad() {
        use sampan_apiserver::pki::{Pki, ServingNames};
        let pki = Pki::in_memory(ServingNames::new([], [])).unwrap();
        let der = CertificateDer::from_pem_slice(pki.admin().certificate_pem.as_bytes()).unwrap();
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let now = UnixTime::now();
        assert_eq!(within(&der, now).unwrap(), now);
        // A clock that starts in 1970, and one a century ahead.
        assert_eq!(within(&der, at(0)).unwrap(), at(946_684_800));
        let end = pki.life().as_secs().unsigned_abs() + now.as_secs();
        let late = within(&der, at(now.as_secs() + 100 * 365 * 86_400)).unwrap();
        assert!(late.as_secs().abs_diff(end) < 60);
    }

    #[test]
    fn servers_are_https_with_a_host_and_perhaps_a_port() {
        let parse = |url: &str| {
            Https::new(url, Proof::None, None)
                .map(|https| (https.host, https.port))
                .map_err(|e| e.to_string())
        };
        assert_eq!(parse("https://10.0.0.1"), Ok(("10.0.0.1".into(), 6443)));
        assert_eq!(parse("https://[2001:db8::1]:7443/"), Ok(("2001:db8::1".into(), 7443)));
        assert_eq!(parse("https://server.example:443"), Ok(("server.example".into(), 443)));
        for bad in
            ["", "10.0.0.1", "http://10.0.0.1", "https://", "https://h/path", "https://u@h", "https://h:x"]
        {
            assert_eq!(
                parse(bad),
                Err(format!("{bad:?} is not the address of a server; it is https://HOST:6443"))
            );
        }
    }
}
