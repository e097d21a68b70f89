//! The HTTP server of probes: small, and bounded on all sides.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Health,
    page::{Answer, Pages},
};
use crate::task::AbortOnDrop;

/// The server of a process's probes. Dropping it stops it.
#[derive(Debug)]
#[must_use = "dropping the server stops it, and so does `let _ = …`: keep it in a variable until the process ends"]
pub struct HealthServer {
    local_addr: SocketAddr,
    _task: AbortOnDrop,
}

impl HealthServer {
    /// Where it listens; of use when it was given port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

/// Over HTTP/1.1: for programs without a web server. Those with one have axum's router, or call [`Health::ready`].
///
/// It serves 64 connections at once, each for one request, 8 KiB of head and 10 s; further ones wait. There is no TLS and no login: give it
/// an address that the cluster alone can reach.
impl Health {
    /// Serves `/livez`, `/readyz`, `/startupz`, and `/metrics` if there [are some](Self::metrics). There is no default address.
    ///
    /// # Errors
    /// The operating system's, when it refuses the address.
    pub async fn serve(&self, address: impl ToSocketAddrs) -> io::Result<HealthServer> {
        self.listen(address, Pages::All).await
    }

    /// As [`serve`](Self::serve), without `/metrics`.
    ///
    /// # Errors
    /// As those of [`serve`](Self::serve).
    pub async fn serve_probes(&self, address: impl ToSocketAddrs) -> io::Result<HealthServer> {
        self.listen(address, Pages::Probes).await
    }

    /// Serves `/metrics` alone, at an address of its own.
    ///
    /// # Errors
    /// As those of [`serve`](Self::serve).
    pub async fn serve_metrics(&self, address: impl ToSocketAddrs) -> io::Result<HealthServer> {
        self.listen(address, Pages::Metrics).await
    }

    async fn listen(&self, address: impl ToSocketAddrs, pages: Pages) -> io::Result<HealthServer> {
        let listener = TcpListener::bind(address).await?;
        let local_addr = listener.local_addr()?;
        Ok(HealthServer { local_addr, _task: AbortOnDrop::spawn(accept(listener, self.clone(), pages)) })
    }
}

/// Serves for ever. The connections end with this task.
async fn accept(listener: TcpListener, health: Health, pages: Pages) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                connections.spawn(async move {
                    let _place = place;
                    serve_one(stream, &health, pages).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a probe's connection could not be accepted");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// One request and its answer.
async fn serve_one(stream: TcpStream, health: &Health, pages: Pages) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = health.respond(pages, request.method().as_str(), request.uri().path());
        async move { Ok::<_, Infallible>(response(answer)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .keep_alive(false)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a probe ended early"),
        Err(_) => tracing::debug!("a probe took longer than {CONNECTION_MAX:?}"),
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const CONNECTIONS_MAX: usize = 64;
/// hyper takes no less.
const HEAD_MAX_BYTES: usize = 8_192;
const HEAD_MAX: Duration = Duration::from_secs(5);
const CONNECTION_MAX: Duration = Duration::from_secs(10);
/// The pause after a failure, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that has heard enough closes.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        exchange(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn probes_are_answered_over_http() {
        let health = Health::new();
        let server = health.serve("127.0.0.1:0").await.unwrap();
        let address = server.local_addr();
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get(address, "/readyz?verbose").await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        health.check("cache", || Ok(()));
        let ready = get(address, "/readyz").await;
        assert!(ready.contains("connection: close") && ready.ends_with("\r\n\r\nready\n"), "{ready}");
        let head = exchange(address, b"HEAD /startupz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        drop(server);
        let closed = async || TcpStream::connect(address).await.is_err();
        for _ in 0..500 {
            if closed().await {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the server outlives its owner");
    }

    #[tokio::test]
    async fn metrics_can_have_an_address_of_their_own() {
        let health = Health::new();
        health.metrics(|| "up 1\n".to_owned());
        let (probes, metrics) = (health.serve_probes("127.0.0.1:0").await, health.serve_metrics("127.0.0.1:0").await);
        let (probes, metrics) = (probes.unwrap(), metrics.unwrap());
        assert!(get(probes.local_addr(), "/metrics").await.starts_with("HTTP/1.1 404 "));
        let page = get(metrics.local_addr(), "/metrics").await;
        assert!(page.contains("content-type: text/plain; version=0.0.4") && page.ends_with("up 1\n"), "{page}");
    }

    #[tokio::test]
    async fn a_request_with_too_large_a_head_is_refused() {
        let server = Health::new().serve("127.0.0.1:0").await.unwrap();
        let mut request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
        request.resize(3 * HEAD_MAX_BYTES, b'x');
        let answer = exchange(server.local_addr(), &request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert!(get(server.local_addr(), "/livez").await.starts_with("HTTP/1.1 200 OK\r\n"));
    }

    #[tokio::test]
    async fn more_connections_than_places_wait_and_silent_ones_give_theirs_back() {
        let server = Health::new().serve("127.0.0.1:0").await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(server.local_addr()).await.unwrap());
        }
        // Answered once the limit of a head has ended the silent ones.
        let answer = timeout(CONNECTION_MAX + HEAD_MAX, get(server.local_addr(), "/livez")).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
