//! The three programs: warehouse, desk, and the web server before them.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use rpc_core::{
    CallError, Client, ClientOptions, Connection, RetryPolicy, WorkerPool,
    health::Health,
    layer::{AuthLayer, CircuitBreaker, MetricsLayer, Token, TokenLayer, TraceLayer},
};
use rpc_examples::{Failure, telemetry::print_trace};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Mutex,
};
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    contract::{Order, OrdersClient, OrdersServer, StockClient, StockServer},
    services::{Desk, Shelf, Tokens},
};

/// Serves until SIGTERM, and is probed and scraped meanwhile.
async fn serve(pool: WorkerPool, health: Health) -> Result<(), Failure> {
    let pool = pool.start().await?;
    health.pool("pool", &pool);
    let server = health.serve("127.0.0.1:0").await?;
    println!("listening on {}", server.local_addr());
    pool.run_until_signal(Duration::from_secs(25)).await?;
    Ok(())
}

pub async fn stock(connection: &Connection, health: Health) -> Result<(), Failure> {
    let pool = WorkerPool::new(connection).layer(TraceLayer::new()).layer(MetricsLayer::new());
    serve(pool.serve(StockServer::new(Shelf { pieces: 1_000_000, ..Shelf::default() })), health).await
}

pub async fn orders(connection: &Connection, health: Health) -> Result<(), Failure> {
    // The warehouse may be busy: another attempt, within the deadline and the budget of all retries.
    let client = Client::with_options(connection, ClientOptions::default().retry(RetryPolicy::default()));
    let stock = StockClient::from_client(client).layer(TraceLayer::new()).layer(MetricsLayer::new());
    let pool = WorkerPool::new(connection).layer(TraceLayer::new()).layer(MetricsLayer::new());
    serve(pool.layer(AuthLayer::new(Tokens)).serve(OrdersServer::new(Desk { stock, store: Mutex::default() })), health)
        .await
}

pub async fn front(connection: &Connection, health: Health) -> Result<(), Failure> {
    let client = Client::new(connection);
    client.ready().await?;
    health.client("orders", &client);
    let breaker = CircuitBreaker::new().window(Duration::from_secs(2)).open_for(Duration::from_secs(1));
    let orders = OrdersClient::from_client(client).layer(TraceLayer::new()).layer(MetricsLayer::new());
    let orders = orders.layer(breaker).layer(TokenLayer::new(Token::new("of ada")));
    let app = Router::new().route("/orders", post(place)).with_state(orders).merge(health.router());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let mut stop = signal(SignalKind::terminate())?;
    let stopped = async move {
        stop.recv().await;
        health.drain();
    };
    Ok(axum::serve(listener, app).with_graceful_shutdown(stopped).await?)
}

async fn place(State(orders): State<OrdersClient>, headers: HeaderMap, Json(order): Json<Order>) -> Response {
    let span = tracing::info_span!("http");
    // Without a trace around it the span begins one.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&HeaderExtractor(&headers)));
    span.in_scope(|| print_trace("front"));
    let error = match orders.place(order).into_future().instrument(span).await {
        Ok(placed) => return Json(placed).into_response(),
        Err(error) => error,
    };
    let status = match &error {
        CallError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        error if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        CallError::Service { .. } => StatusCode::CONFLICT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let pause = error.retry_after().map(|pause| [(RETRY_AFTER, pause.as_secs().max(1).to_string())]);
    (status, pause, error.to_string()).into_response()
}
