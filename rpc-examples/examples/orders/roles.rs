//! The three programs: warehouse, desk, and the web server before them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use rpc_core::{
    CallError, Client, ClientOptions, Connection, ConnectionOptions, PoolHandle, RetryPolicy, WorkerPool,
    health::Health,
    layer::{AuthLayer, CircuitBreaker, MetricsLayer, Token, TokenLayer, TraceLayer},
};
use rpc_examples::Failure;
use tokio::net::TcpListener;
use tracing::Instrument;

use crate::{
    contract::{Order, OrdersClient, OrdersServer, StockClient, StockError, StockServer},
    services::{Desk, Shelf, Tokens},
    telemetry,
};

/// Connects, also to a broker that is not there yet.
async fn connect(url: &str) -> Result<Connection, Failure> {
    let options = ConnectionOptions::default().wait_for_broker(Duration::from_secs(30));
    Ok(Connection::open_with(url, options).await?)
}

/// Serves until SIGTERM, and is probed and scraped meanwhile.
async fn serve(name: &str, health: Health, pool: PoolHandle) -> Result<(), Failure> {
    health.pool(name, &pool);
    let server = health.serve("127.0.0.1:0").await?;
    println!("listening on {}", server.local_addr());
    pool.run_until_signal(Duration::from_secs(25)).await?;
    Ok(())
}

pub async fn stock(url: &str) -> Result<(), Failure> {
    let health = Health::new();
    let _traces = telemetry::start(&health)?;
    let pool = WorkerPool::new(&connect(url).await?).layer(TraceLayer::new()).layer(MetricsLayer::new());
    let pool = pool.serve(StockServer::new(Shelf::new(1_000_000))).start().await?;
    serve("stock", health, pool).await
}

pub async fn orders(url: &str) -> Result<(), Failure> {
    let health = Health::new();
    let _traces = telemetry::start(&health)?;
    let connection = connect(url).await?;
    // The warehouse may be busy: another attempt, within the deadline and the budget of all retries.
    let client = Client::with_options(&connection, ClientOptions::default().retry(RetryPolicy::default()));
    let stock = StockClient::from_client(client.layer(TraceLayer::new()).layer(MetricsLayer::new()));
    let pool = WorkerPool::new(&connection)
        .layer(TraceLayer::new())
        .layer(MetricsLayer::new())
        .layer(AuthLayer::new(Tokens))
        .serve(OrdersServer::new(Desk::new(stock)))
        .start()
        .await?;
    serve("orders", health, pool).await
}

pub async fn front(url: &str) -> Result<(), Failure> {
    let health = Health::new();
    let _traces = telemetry::start(&health)?;
    let client = Client::new(&connect(url).await?);
    client.ready().await?;
    health.client("orders", &client);
    let breaker = CircuitBreaker::new().window(Duration::from_secs(2)).open_for(Duration::from_secs(1));
    let layered = client.layer(TraceLayer::new()).layer(MetricsLayer::new()).layer(breaker);
    let orders = OrdersClient::from_client(layered.layer(TokenLayer::new(Token::new("of ada"))));
    let app = Router::new().route("/orders", post(place)).with_state(Arc::new(orders)).merge(health.router());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stopped = async move {
        stop.recv().await;
        health.drain();
    };
    Ok(axum::serve(listener, app).with_graceful_shutdown(stopped).await?)
}

async fn place(State(orders): State<Arc<OrdersClient>>, headers: HeaderMap, Json(order): Json<Order>) -> Response {
    let span = telemetry::span_of(&headers);
    let placed = async {
        telemetry::print_trace("front");
        orders.place(order).await
    };
    match placed.instrument(span).await {
        Ok(placed) => Json(placed).into_response(),
        Err(error) => refusal(&error),
    }
}

/// A failed call as HTTP has it.
fn refusal(error: &CallError<StockError>) -> Response {
    let status = match error.code() {
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "timeout" => StatusCode::GATEWAY_TIMEOUT,
        "overloaded" | "no_such_service" | "disconnected" | "circuit_open" => StatusCode::SERVICE_UNAVAILABLE,
        _ if matches!(error, CallError::Service { .. }) => StatusCode::CONFLICT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let mut response = (status, error.to_string()).into_response();
    if let Some(pause) = error.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, pause.as_secs().max(1).into());
    }
    response
}
