//! How long an operation on many things keeps the broker's lock, and how much work each of the things takes.
//!
//! `cargo bench -p rpc-core --all-features --bench holds` prints a table: for each operation on 1 000, 10 000 and 100 000 things the longest
//! time for which the lock was held, and the time for each thing. To be seen in it: no time grows along a row. Other numbers
//! of things, and words of the names of operations, may follow `--`.

use std::time::Duration;

// The core is private to rpc-core, so the bench compiles its sources instead of widening the public interface.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the bench needs a part of it")]
mod broker;
mod frames;
mod operations;
#[allow(dead_code, reason = "the handshake is the fuzz target's")]
#[path = "../../src/broker/fuzz/frames.rs"]
mod payload;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the bench needs a part of it")]
#[path = "../../src/printable.rs"]
mod printable;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the bench needs a part of it")]
#[path = "../../src/routing/mod.rs"]
mod routing;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "the bench needs a part of it")]
#[path = "../../src/wire/mod.rs"]
mod wire;
mod world;

use self::{operations::OPERATIONS, world::Cost};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let mut sizes: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000, 100_000];
    }
    let words: Vec<&String> = arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let cells: String = sizes.iter().map(|n| format!(" n = {n}: lock, ms | each, µs |")).collect();
    println!("| operation |{cells}\n|---|{}", "---|---|".repeat(sizes.len()));
    for (name, operation) in OPERATIONS {
        if words.iter().all(|word| name.contains(word.as_str())) {
            let cells: String = sizes.iter().map(|n| cell(*n, *operation)).collect();
            println!("| {name} |{cells}");
        }
    }
}

/// The median of a few rounds: a longer time is the machine's.
fn cell(n: usize, operation: fn(usize) -> Cost) -> String {
    let mut costs = [(); ROUNDS].map(|()| operation(n));
    costs.sort_by_key(|cost| cost.hold);
    let Cost { hold, total } = costs[0];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!(" {:.2} | {:.2} |", ms(hold), ms(total) * 1e3 / n as f64)
}

const ROUNDS: usize = 3;
