//! Outgoing requests of `wasi:http` guests: HTTP/1.1, in the clear or by TLS, from the pod's
//! own address, by the pod's own names.

mod body;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use self::body::Timed;
use crate::net::{PodNet, ResolveError};

/// What a guest waits at most where it sets no timeout of its own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Errors after the response head, for whoever drives the connection.
type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Driver), Error>;

/// The hooks of one guest.
pub(crate) struct Outgoing {
    net: Arc<PodNet>,
}

impl Outgoing {
    /// Requests of a guest in this pod.
    #[must_use]
    pub(crate) fn new(net: Arc<PodNet>) -> Self {
        Self { net }
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let net = self.net.clone();
        Box::new(send(net, request, options.unwrap_or_default()))
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn send(net: Arc<PodNet>, mut request: Request<WasiBody>, options: RequestOptions) -> Sent {
    let connect_timeout = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let stream = tokio::time::timeout(connect_timeout, connect(&net, request.uri()))
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A server wants the path alone; the Host header is there already.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = Uri::try_from(path).map_err(|_| Error::HttpRequestUriInvalid)?;

    let mut connection = Box::pin(connection);
    let mut connected = true;
    let mut response = Box::pin(tokio::time::timeout(
        options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT),
        sender.send_request(request),
    ));
    let response = std::future::poll_fn(|cx| {
        if let Poll::Ready(response) = response.as_mut().poll(cx) {
            return Poll::Ready(response.map_err(|_| Error::ConnectionReadTimeout)?.map_err(Error::from));
        }
        if connected && let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            connected = false;
            ended?;
            // The response may have arrived with the connection's end.
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(response.map_err(|_| Error::ConnectionReadTimeout)?.map_err(Error::from));
            }
        }
        Poll::Pending
    })
    .await?;
    let pause = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let response = response.map(|body| Timed::new(body, pause).boxed_unsync());
    let driver = async move {
        // The sender keeps the connection open as long as it is driven.
        let _sender = sender;
        if connected {
            connection.await?;
        }
        Ok(())
    };
    Ok((response, Box::new(driver)))
}

async fn connect(net: &PodNet, uri: &Uri) -> Result<Box<dyn Io>, Error> {
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let tls = uri.scheme() == Some(&Scheme::HTTPS);
    if !tls && uri.scheme() != Some(&Scheme::HTTP) {
        return Err(Error::HttpProtocolError);
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = dial(net, authority.host(), port).await?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let stream = TlsConnector::from(tls_config()?).connect(name, stream).await.map_err(Error::Tls)?;
    Ok(Box::new(stream))
}

/// Tries the addresses of `host` in order.
async fn dial(net: &PodNet, host: &str, port: u16) -> Result<TcpStream, Error> {
    let addresses = net.resolve(host).await.map_err(|error| match error {
        ResolveError::Invalid => Error::HttpRequestUriInvalid,
        ResolveError::Unresolvable => Error::DnsError { rcode: Some("NXDOMAIN".to_owned()), info_code: None },
        ResolveError::Temporary => Error::DnsTimeout,
    })?;
    let mut failed = Error::DestinationNotFound;
    for address in addresses {
        let remote = net.connect_address(SocketAddr::new(address, port));
        if !net.permits(remote, SocketAddrUse::TcpConnect) {
            failed = Error::DestinationIpProhibited;
            continue;
        }
        match connect_from(net.source_address(remote), remote).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                failed = Error::ConnectionRefused
            }
            Err(error) => failed = Error::Connect(error),
        }
    }
    Err(failed)
}

async fn connect_from(source: Option<SocketAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(source)?;
    }
    let stream = socket.connect(remote).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Trusts what the machine trusts; read once, at the first request that needs it.
fn tls_config() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(errors = ?found.errors, "no trusted certificates on this machine: https requests of guests fail");
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::InternalError(Some(error.to_string())))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use sampan_cri::{PodRef, SandboxConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::net::HostNetwork;

    fn net() -> Arc<PodNet> {
        let config = SandboxConfig {
            pod: PodRef { namespace: "default".into(), name: "web".into(), uid: "1".into() },
            attempt: 0,
            hostname: "web".into(),
            addresses: vec!["127.42.9.7".parse().unwrap()],
            host_network: false,
            log_directory: "/tmp".into(),
            host_aliases: vec![("127.42.9.8".parse().unwrap(), vec!["upstream".into()])],
        };
        Arc::new(PodNet::new(&config, Arc::new(HostNetwork::default())))
    }

    fn request(uri: &str) -> Request<WasiBody> {
        let body = Empty::<Bytes>::new().map_err(Error::from).boxed_unsync();
        Request::get(uri).header("host", "upstream").body(body).unwrap()
    }

    #[tokio::test]
    async fn requests_leave_from_the_pods_address_by_its_own_names() {
        let upstream = TcpListener::bind("127.42.9.8:0").await.unwrap();
        let port = upstream.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut stream, peer) = upstream.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            (peer.ip().to_string(), String::from_utf8(head[..length].to_vec()).unwrap())
        });
        let uri = format!("http://upstream:{port}/path?query");
        let (response, driver) = send(net(), request(&uri), RequestOptions::default()).await.unwrap();
        assert_eq!(response.status(), 201);
        let driving = tokio::spawn(Box::into_pin(driver));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
        let (peer, head) = serve.await.unwrap();
        assert_eq!(peer, "127.42.9.7");
        assert!(head.starts_with("GET /path?query HTTP/1.1\r\nhost: upstream\r\n"), "{head}");
        driving.abort();
    }

    #[tokio::test]
    async fn what_cannot_be_reached_says_why() {
        let free = TcpListener::bind("127.42.9.8:0").await.unwrap().local_addr().unwrap().port();
        let error =
            async |uri: &str| send(net(), request(uri), RequestOptions::default()).await.err().unwrap();
        assert!(matches!(error(&format!("http://upstream:{free}/")).await, Error::ConnectionRefused));
        assert!(matches!(error("http://127.0.0.53/").await, Error::DestinationIpProhibited));
        assert!(matches!(error("http://no-such-name.invalid/").await, Error::DnsError { .. }));
        assert!(matches!(error("ftp://upstream/").await, Error::HttpProtocolError));
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let silent = TcpListener::bind("127.42.9.8:0").await.unwrap();
        let uri = format!("http://{}/", silent.local_addr().unwrap());
        let options = RequestOptions {
            first_byte_timeout: Some(Duration::from_millis(50)),
            ..RequestOptions::default()
        };
        let error = send(net(), request(&uri), options).await.err().unwrap();
        assert!(matches!(error, Error::ConnectionReadTimeout), "{error}");
    }
}
