//! The cost of routing a message: topic exchanges by number of bindings and words of the key, and the look-ups of the
//! default and direct exchanges for comparison.
//!
//! `cargo bench -p rpc-core --bench routing` prints criterion's lines, then the topic figures as one table. To be seen in
//! it: time grows along a row, with the words, and not down a column, with the bindings.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use amq_protocol::types::FieldTable;
use criterion::{BenchmarkId, Criterion, Throughput};

// The engine is private to rpc-core, so the bench compiles its sources instead of widening the public interface.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the bench needs a part of the engine")]
#[path = "../src/routing/mod.rs"]
mod routing;

use self::routing::{Destination, QueueId, Router, Routes};

const BINDINGS: [u64; 3] = [10, 1_000, 100_000];
const WORDS: std::ops::RangeInclusive<usize> = 1..=8;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let routers = BINDINGS.map(|bindings| (bindings, topic_router(bindings)));
    look_ups(&mut criterion);
    topic(&mut criterion, &routers);
    criterion.final_summary();
    print_table(&routers);
}

/// A topic exchange with every shape of pattern in equal parts, each binding with words and a queue of its own.
fn topic_router(bindings: u64) -> Router {
    let mut router = Router::new();
    for id in 0..bindings {
        let pattern = match id % 5 {
            0 => format!("service{id}.method{id}.a.b.c.d.e.f"),
            1 => format!("service{id}.*.method{id}"),
            2 => format!("service{id}.#"),
            3 => format!("*.method{id}.#"),
            _ => format!("#.event{id}"),
        };
        bind(&mut router, "amq.topic", id, &pattern);
    }
    router
}

fn bind(router: &mut Router, exchange: &str, id: u64, routing_key: &str) {
    let queue = QueueId(id);
    router.add_queue(&format!("queue{id}"), queue);
    router
        .bind(exchange, Destination::Queue(queue), routing_key, &FieldTable::default())
        .expect("a predeclared exchange can be bound to a queue just added");
}

/// Keys made of words of the first five bindings, which every router has. They match `service2.#`, from two words on
/// `*.method3.#`, and with all eight `#.event4`.
fn key(words: usize) -> String {
    ["service2", "method3", "a", "b", "c", "d", "e", "event4"][..words].join(".")
}

fn route(router: &Router, exchange: &str, key: &str, routes: &mut Routes) -> usize {
    routes.clear();
    router.route_all(exchange, &[black_box(key)], &(), routes).expect("the exchange is predeclared");
    black_box(routes.queues()).len()
}

fn topic(criterion: &mut Criterion, routers: &[(u64, Router)]) {
    let mut group = criterion.benchmark_group("topic");
    group.throughput(Throughput::Elements(1));
    let mut routes = Routes::new();
    for (bindings, router) in routers {
        for words in WORDS {
            let key = key(words);
            group.bench_function(
                BenchmarkId::new(format!("{bindings} bindings"), format!("{words} words")),
                |bencher| {
                    bencher.iter(|| route(router, "amq.topic", &key, &mut routes));
                },
            );
        }
    }
    group.finish();
}

fn look_ups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("look-up among 100000");
    group.throughput(Throughput::Elements(1));
    let mut router = Router::new();
    for id in 0..100_000 {
        bind(&mut router, "amq.direct", id, &format!("service{id}.method"));
    }
    let mut routes = Routes::new();
    for (exchange, key) in [("", "queue77"), ("amq.direct", "service77.method")] {
        let name = if exchange.is_empty() { "default" } else { exchange };
        group.bench_function(name, |bencher| bencher.iter(|| route(&router, exchange, key, &mut routes)));
    }
    group.finish();
}

/// Measures again, briefly and all cells interleaved, so that one table comes from one stretch of time.
fn print_table(routers: &[(u64, Router)]) {
    const ROUNDS: usize = 15;
    const ROUND: Duration = Duration::from_millis(4);
    let mut routes = Routes::new();
    let keys: Vec<_> = WORDS.map(key).collect();
    let mut samples = vec![vec![Vec::new(); keys.len()]; routers.len()];
    for _ in 0..ROUNDS {
        for ((_, router), row) in routers.iter().zip(&mut samples) {
            for (key, cell) in keys.iter().zip(row) {
                cell.push(nanoseconds_per_message(router, key, &mut routes, ROUND));
            }
        }
    }
    println!("\ntopic exchange, ns per message (median of {ROUNDS} interleaved rounds)\n");
    print!("{:>10} |", "bindings");
    WORDS.for_each(|words| print!("{:>9}", format!("{words} word{}", if words == 1 { "" } else { "s" })));
    println!("\n{:->11}+{:->72}", "", "");
    for ((bindings, _), row) in routers.iter().zip(&mut samples) {
        print!("{bindings:>10} |");
        for cell in row {
            cell.sort_by(f64::total_cmp);
            print!("{:>9.0}", cell[ROUNDS / 2]);
        }
        println!();
    }
}

fn nanoseconds_per_message(router: &Router, key: &str, routes: &mut Routes, at_least: Duration) -> f64 {
    const BATCH: u32 = 256;
    let (started, mut messages) = (Instant::now(), 0);
    loop {
        for _ in 0..BATCH {
            route(router, "amq.topic", key, routes);
        }
        messages += BATCH;
        let elapsed = started.elapsed();
        if elapsed >= at_least {
            return elapsed.as_secs_f64() * 1e9 / f64::from(messages);
        }
    }
}
