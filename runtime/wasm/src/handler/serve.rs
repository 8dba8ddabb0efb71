//! The network side of a handler: listening sockets, connections, the end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::ProxyPre;

use super::{Failure, Handler};
use crate::exit::Ended;
use crate::host_ports::bind;
use crate::program::Run;

/// How long a connection may be silent before a request's head is complete.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The listening sockets of a container.
pub(crate) struct Listeners(Vec<TcpListener>);

/// Listens on `addresses`. Called on the handlers' threads.
///
/// # Errors
/// When one cannot be had, with the address.
pub(crate) fn listen(addresses: &[SocketAddr]) -> io::Result<Listeners> {
    Ok(Listeners(addresses.iter().map(|address| bind(*address)).collect::<io::Result<_>>()?))
}

impl Listeners {
    /// The next connection on any of them.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|cx| {
            for listener in &self.0 {
                if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Handler {
    /// Serves until the container has to end; gives how it ended.
    pub(crate) async fn run(self: Arc<Self>, listeners: Listeners) -> Ended {
        let container = &self.container;
        let early = loop {
            tokio::select! {
                biased;
                () = container.kill.cancelled() => break Some(Ended::Killed),
                () = self.out_of_memory.cancelled() => break Some(self.oom()),
                () = container.stop.cancelled() => break None,
                accepted = listeners.accept() => match accepted {
                    Ok((stream, remote)) => self.connection(stream, remote),
                    Err(error) => {
                        // Out of descriptors, mostly: closing connections will help.
                        tracing::warn!(%error, "cannot accept connections");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        };
        drop(listeners);
        let ended = match early {
            Some(ended) => ended,
            None => self.drain().await,
        };
        self.gone.cancel();
        ended
    }

    /// Lets requests under way come to their end; connections close after them.
    async fn drain(&self) -> Ended {
        self.connections.close();
        self.queue.lock().dismiss().into_iter().for_each(std::task::Waker::wake);
        tokio::select! {
            biased;
            () = self.container.kill.cancelled() => Ended::Killed,
            () = self.out_of_memory.cancelled() => self.oom(),
            () = self.connections.wait() => Ended::Stopped,
        }
    }

    fn oom(&self) -> Ended {
        Ended::OutOfMemory(format!("memory limit exceeded: {} bytes in use", self.container.memory.peak()))
    }

    fn connection(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        if !self.container.net.permits(remote, SocketAddrUse::TcpAccept) {
            return;
        }
        let _ = stream.set_nodelay(true);
        let handler = self.clone();
        self.connections.spawn(async move { handler.speak(stream).await });
    }

    async fn speak(self: Arc<Self>, stream: TcpStream) {
        let handler = self.clone();
        let service = service_fn(move |request| {
            let handler = handler.clone();
            async move { Ok::<_, Infallible>(handler.respond(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = self.gone.cancelled() => return,
                () = self.container.stop.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn respond(self: &Arc<Self>, request: Request<Incoming>) -> Response<WasiBody> {
        let request = match self.normalise(request) {
            Ok(request) => request,
            Err(why) => return plain(StatusCode::BAD_REQUEST, why),
        };
        match self.call(request).await {
            Ok(response) => response,
            Err(Failure::Busy) => {
                let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests wait\n");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Err(Failure::TimedOut) => plain(StatusCode::GATEWAY_TIMEOUT, "the handler took too long\n"),
            Err(Failure::Failed) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed\n"),
        }
    }

    /// A request as `wasi:http` wants it: with an authority.
    fn normalise(&self, request: Request<Incoming>) -> Result<Request<WasiBody>, &'static str> {
        let (mut parts, body) = request.into_parts();
        let host = match (parts.uri.authority(), parts.headers.get(HOST)) {
            (Some(_), _) => None,
            (None, Some(host)) => Some(host.clone()),
            // HTTP/1.0 may leave it out.
            (None, None) if parts.version < Version::HTTP_11 => {
                let host = HeaderValue::from_str(self.container.net.hostname())
                    .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
                parts.headers.insert(HOST, host.clone());
                Some(host)
            }
            (None, None) => return Err("no Host header\n"),
        };
        if let (Some(host), Run::Handler(ProxyPre::P3(_))) = (host, &self.program.run) {
            let mut uri = std::mem::take(&mut parts.uri).into_parts();
            uri.scheme = Some(http::uri::Scheme::HTTP);
            uri.authority = host.to_str().ok().and_then(|host| host.parse().ok());
            let uri = uri.authority.is_some().then(|| Uri::from_parts(uri).ok()).flatten();
            parts.uri = uri.ok_or("bad Host header or path\n")?;
        }
        let body = body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync();
        Ok(Request::from_parts(parts, body))
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(wasmtime_wasi_http::Error::from);
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
