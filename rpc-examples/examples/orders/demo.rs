//! Starts the three roles, sends them requests, and says what came of these.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rpc_core::Connection;
use rpc_examples::{Failure, Process, ensure};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::contract::{Order, OrdersClient, Placed};

pub async fn run(url: &str) -> Result<(), Failure> {
    let stock = start("stock", url)?;
    let (first, second) = (start("orders", url)?, start("orders", url)?);
    let front = start("front", url)?;
    for process in [&stock, &first, &second, &front] {
        process.is_ready().await?;
    }
    println!("readiness:  4 processes answer /readyz with 200");

    let connection = Connection::open(url).await?;
    let stranger = OrdersClient::new(&connection).place(order("stranger")).await;
    ensure(stranger.is_err_and(|error| error.code() == "unauthenticated"), "a call without a token is refused")?;
    println!("tokens:     a call without one is refused");
    connection.close().await?;

    let placed = post(&front, "traced").await?;
    ensure(placed.status() == 200, "the order is placed")?;
    let placed: Placed = placed.json().await?;
    ensure(placed.customer == "ada", "the desk knows the customer by the token")?;
    let is_traced = |process: &Process| process.count(TRACE) > 0;
    ensure(is_traced(&front) && is_traced(&stock) && (is_traced(&first) || is_traced(&second)), "it is one trace")?;
    println!("traces:     front, orders and stock are in trace {TRACE}");

    let mut placed = Vec::new();
    for n in 0..48 {
        placed.push(post(&front, &format!("rare-{n}")).await?.status() == 200);
    }
    ensure(placed[..8].iter().all(|is_placed| *is_placed), "a busy warehouse is asked again")?;
    ensure(!placed.iter().all(|is_placed| *is_placed), "the budget of retries ends")?;
    let again = placed.iter().filter(|is_placed| **is_placed).count();
    println!("retries:    {again} of 48 orders placed at the second attempt, then the budget was spent");

    let (one, other) = (served(&first).await?, served(&second).await?);
    ensure(one + other >= 49.0 && one > 0.0 && other > 0.0, "both desks count what they have served")?;
    println!("metrics:    {one} and {other} calls of orders/place, scraped from /metrics");

    let load = load(&front, 200);
    sleep(Duration::from_millis(50)).await;
    first.terminate()?;
    let failed = load.await?;
    ensure(failed == 0, &format!("SIGTERM under load fails no request: {failed} failed"))?;
    first.exits_well().await?;
    println!("shutdown:   200 requests answered while a desk got SIGTERM");

    second.kill()?;
    let mut statuses = JoinSet::new();
    for n in 0..24 {
        let front = front.clone();
        statuses.spawn(async move { post(&front, &format!("lost-{n}")).await.map(|answer| answer.status().as_u16()) });
    }
    let statuses: Vec<_> = statuses.join_all().await.into_iter().collect::<Result<_, _>>()?;
    ensure(statuses.iter().all(|status| [503, 504].contains(status)), "nobody answers")?;
    let begun = Instant::now();
    let open = post(&front, "refused").await?;
    ensure(open.status() == 503 && open.headers().contains_key("retry-after"), "the circuit is open")?;
    println!("breaker:    24 orders without an answer, the next one refused after {:?}", begun.elapsed());
    let third = start("orders", url)?;
    third.is_ready().await?;
    let closed = Instant::now();
    while post(&front, "again").await?.status() != 200 {
        ensure(closed.elapsed() < LIMIT, "the circuit closes again")?;
        sleep(Duration::from_millis(100)).await;
    }
    println!("            and placed again {:?} after a desk came back", closed.elapsed());
    for process in [front, third, stock] {
        process.terminate()?;
        process.exits_well().await?;
    }
    Ok(())
}

fn start(role: &str, url: &str) -> Result<Process, Failure> {
    Process::start(Command::new(std::env::current_exe()?).args(["--url", url, role]))
}

fn order(id: &str) -> Order {
    let article = if id.starts_with("rare") { "rare" } else { "nut" };
    Order { id: id.to_owned(), article: article.to_owned(), pieces: 1 }
}

async fn post(front: &Process, id: &str) -> Result<reqwest::Response, Failure> {
    let request = front.http().post(front.url("/orders")).json(&order(id));
    Ok(request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")).send().await?)
}

/// Sends so many orders, eight at once; gives the number that were not placed.
fn load(front: &Process, orders: usize) -> JoinHandle<usize> {
    let front = front.clone();
    tokio::spawn(async move {
        let (mut running, mut failed) = (JoinSet::new(), 0);
        for n in 0..orders {
            while running.len() >= 8 {
                failed += usize::from(!matches!(running.join_next().await, Some(Ok(true))));
            }
            let front = front.clone();
            running.spawn(async move { post(&front, &format!("load-{n}")).await.is_ok_and(|a| a.status() == 200) });
        }
        failed + running.join_all().await.into_iter().filter(|is_placed| !is_placed).count()
    })
}

/// Calls of `orders/place` by the process's own metrics.
async fn served(desk: &Process) -> Result<f64, Failure> {
    let page = desk.http().get(desk.url("/metrics")).send().await?.text().await?;
    let counts = page.lines().filter(|line| line.starts_with(SERVED) && line.contains("orders/place"));
    Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

const SERVED: &str = "rpc_server_call_duration_seconds_count{";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const LIMIT: Duration = Duration::from_secs(20);
