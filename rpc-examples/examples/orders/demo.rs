//! Starts the three roles, sends them requests, and says what came of these.

use std::{process::Command, sync::Arc, time::Duration};

use rpc_core::Connection;
use rpc_examples::{Failure, Process, ensure, eventually};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

use crate::contract::{Order, OrdersClient, Placed};

pub async fn run(url: &str) -> Result<(), Failure> {
    let (stock, front) = (start("stock", url).await?, start("front", url).await?);
    let (first, second) = (start("orders", url).await?, start("orders", url).await?);
    println!("readiness:  4 processes answer /readyz with 200");

    let stranger = OrdersClient::new(&Connection::open(url).await?).place(order("stranger")).await;
    ensure(stranger.is_err_and(|error| error.code() == "unauthenticated"), "a call without a token is refused")?;
    let placed: Placed = post(&front, "traced").await?.json().await?;
    ensure(placed.customer == "ada", "the desk knows the customer by the token")?;
    println!("tokens:     a call without one is refused, and one of ada's is hers");
    let is_traced = |process: &Process| process.count(TRACE) > 0;
    ensure(is_traced(&front) && is_traced(&stock) && (is_traced(&first) || is_traced(&second)), "it is one trace")?;
    println!("traces:     front, orders and stock are in trace {TRACE}");

    let placed = post_all(&front, "rare", 48, 1).await?;
    let again = placed.iter().filter(|status| **status == 200).count();
    ensure((8..48).contains(&again), "a busy warehouse is asked again, until the budget of retries ends")?;
    println!("retries:    {again} of 48 orders placed at the second attempt, then the budget was spent");
    let (one, other) = (served(&first).await?, served(&second).await?);
    ensure(one + other >= 49.0 && one > 0.0 && other > 0.0, "both desks count what they have served")?;
    println!("metrics:    {one} and {other} calls of orders/place, scraped from /metrics");

    let stopped = async {
        sleep(Duration::from_millis(50)).await;
        first.terminate()
    };
    let (placed, stopped) = tokio::join!(post_all(&front, "load", 200, 8), stopped);
    stopped?;
    ensure(placed?.iter().all(|status| *status == 200), "SIGTERM under load fails no request")?;
    first.exits_well().await?;
    println!("shutdown:   200 requests answered while a desk got SIGTERM");

    second.kill()?;
    let lost = post_all(&front, "lost", 24, 24).await?;
    ensure(lost.iter().all(|status| [503, 504].contains(status)), "nobody answers")?;
    let open = post(&front, "refused").await?;
    ensure(open.status() == 503 && open.headers().contains_key("retry-after"), "the circuit is open")?;
    let third = start("orders", url).await?;
    eventually("the circuit closes again", async || Ok(post(&front, "again").await?.status() == 200)).await?;
    println!("breaker:    24 orders without an answer, the next one refused at once; placed again with another desk");
    for process in [front, third, stock] {
        process.terminate()?;
        process.exits_well().await?;
    }
    Ok(())
}

/// Starts this program in a role, and waits until it is ready.
async fn start(role: &str, url: &str) -> Result<Process, Failure> {
    let process = Process::start(Command::new(std::env::current_exe()?).args(["--url", url, role]))?;
    process.is_ready().await?;
    Ok(process)
}

fn order(id: &str) -> Order {
    let article = if id.starts_with("rare") { "rare" } else { "nut" };
    Order { id: id.to_owned(), article: article.to_owned(), pieces: 1 }
}

async fn post(front: &Process, id: &str) -> Result<reqwest::Response, Failure> {
    let request = front.http().post(front.url("/orders")).json(&order(id));
    Ok(request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")).send().await?)
}

/// Sends so many orders, some of them at once; gives the statuses of the answers.
async fn post_all(front: &Process, name: &str, orders: usize, at_once: usize) -> Result<Vec<u16>, Failure> {
    let (mut senders, places) = (JoinSet::new(), Arc::new(Semaphore::new(at_once)));
    for n in 0..orders {
        let place = Arc::clone(&places).acquire_owned().await?;
        let (front, id) = (front.clone(), format!("{name}-{n}"));
        senders.spawn(async move {
            let status = post(&front, &id).await?.status().as_u16();
            drop(place);
            Ok(status)
        });
    }
    senders.join_all().await.into_iter().collect()
}

/// Calls of `orders/place` by the process's own metrics.
async fn served(desk: &Process) -> Result<f64, Failure> {
    let page = desk.http().get(desk.url("/metrics")).send().await?.text().await?;
    let counts = page.lines().filter(|line| line.starts_with(SERVED) && line.contains("orders/place"));
    Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}

const SERVED: &str = "rpc_server_call_duration_seconds_count{";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
