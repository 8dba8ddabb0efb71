//! HTTP/1.1 on a stream: one request each, upgrades included.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sampan_apiserver::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt;

/// So long may the head of a request take.
const HEADERS: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends a request; the answer's body may stream, and ends when the stream does.
pub(crate) async fn send<S, B>(stream: S, mut request: Request<B>) -> Result<Response<Body>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body, or with the stream.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "a request's stream broke");
        }
    });
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("sampan"));
    let response = sender.send_request(request).await?;
    Ok(response.map(Body::new))
}

/// Serves the one request of a stream.
pub(crate) async fn serve<S, T>(stream: S, service: T)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    T::Future: Send,
{
    let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADERS).keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = connection.with_upgrades().await {
        tracing::trace!(%error, "a request's stream broke");
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_on_its_stream_and_the_stream_ends() {
        let (near, far) = tokio::io::duplex(1024);
        let echo = tower::service_fn(|request: Request<Body>| async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Body::from([path.as_bytes(), &body].concat())))
        });
        let server = tokio::spawn(serve(far, echo));
        let request = Request::post("/a?b").body(Body::from("-text")).unwrap();
        let answer = send(near, request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "/a-text");
        tokio::time::timeout(Duration::from_secs(10), server).await.expect("the stream ends").unwrap();
    }

    #[tokio::test]
    async fn a_stream_can_be_upgraded() {
        let (near, far) = tokio::io::duplex(1024);
        let shout = tower::service_fn(|mut request: Request<Body>| async move {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                let mut stream = TokioIo::new(upgraded);
                let mut text = [0; 3];
                stream.read_exact(&mut text).await.unwrap();
                stream.write_all(&text.to_ascii_uppercase()).await.unwrap();
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(http::header::UPGRADE, HeaderValue::from_static("shout"));
            response.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
            Ok::<_, Infallible>(response)
        });
        tokio::spawn(serve(far, shout));
        let request = Request::get("/exec")
            .header("connection", "upgrade")
            .header("upgrade", "shout")
            .body(Body::empty());
        let response = send(near, request.unwrap()).await.unwrap();
        assert_eq!(response.status(), http::StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"abc").await.unwrap();
        let mut text = [0; 3];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"ABC");
    }
}
