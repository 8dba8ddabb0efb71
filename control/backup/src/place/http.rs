//! HTTP for the object store's client: hyper, with rustls on ring.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For a connection, TLS included.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For a request, up to the answer's header: a part of a backup over a slow line takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
const IDLE: Duration = Duration::from_secs(20);

/// Makes clients for the object store.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) tls: Arc<ClientConfig>,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(Dialer { tls: TlsConnector::from(Arc::clone(&self.tls)) });
        Ok(HttpClient::new(Service { client }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client<Dialer, HttpRequestBody>,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.client.request(request)).await;
        let answer = answer.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?;
        let answer = answer.map_err(|error| HttpError::new(kind(&error), error))?;
        Ok(answer.map(|body| {
            let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
            HttpResponseBody::new(body)
        }))
    }
}

/// What the failure of a request means for whether it is tried again.
fn kind(error: &ClientError) -> HttpErrorKind {
    // A certificate that is refused now will be refused again.
    if io_kinds(error).any(|kind| kind == io::ErrorKind::InvalidData) {
        return HttpErrorKind::Unknown;
    }
    if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request }
}

fn io_kinds(error: &ClientError) -> impl Iterator<Item = io::ErrorKind> {
    std::iter::successors(Error::source(error), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<io::Error>().map(io::Error::kind))
}

/// Opens connections, with TLS for `https`.
#[derive(Clone)]
struct Dialer {
    tls: TlsConnector,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            tokio::time::timeout(CONNECT_WITHIN, dial(tls, uri)).await.map_err(late)?.map(TokioIo::new)
        })
    }
}

async fn dial(tls: TlsConnector, uri: Uri) -> io::Result<Stream> {
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    if !secure {
        return Ok(Stream(Box::new(tcp)));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Stream(Box::new(tls.connect(name, tcp).await?)))
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection, encrypted or not.
struct Stream(Box<dyn Wire>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
