//! From `Broker::start()` to the first answered call, in one process.

use std::time::Instant;

use clap::Args;
use rpc_core::{AckPolicy, Transport, broker::Broker};

use crate::{Flavour, Result, processes::Process, subjects::framework, throughput::median};

/// The `startup` command.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How many new processes to time; the median counts.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
}

const TARGET_MILLISECONDS: f64 = 15.0;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!("\n## Broker::start() to the first answered call, {} processes\n", arguments.rounds);
    println!("| runtime | median ms | fastest ms | slowest ms | target ≤ {TARGET_MILLISECONDS} ms |");
    println!("|---|---|---|---|---|");
    for runtime in Flavour::ALL {
        let mut milliseconds = Vec::new();
        for _ in 0..arguments.rounds {
            let mut process = Process::start(&["first-call", "--runtime", runtime.name()], None)?;
            milliseconds.push(process.line()?.parse::<f64>()? / 1_000.0);
            process.stop()?;
        }
        let fastest = milliseconds.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = milliseconds.iter().copied().fold(0.0, f64::max);
        let median = median(milliseconds);
        let verdict = if median <= TARGET_MILLISECONDS { "reached" } else { "MISSED" };
        println!("| {} | {median:.1} | {fastest:.1} | {slowest:.1} | {verdict} |", runtime.name());
    }
    Ok(())
}

/// The `first-call` command: prints microseconds.
pub(crate) fn first_call(runtime: Flavour) -> Result<()> {
    runtime.block_on(async {
        let began = Instant::now();
        let broker = Broker::start().await?;
        let pool = framework::pool(broker.uri(), Transport::default(), AckPolicy::default()).await?;
        let caller = framework::client(broker.uri(), Transport::default()).await?;
        crate::load::Caller::call(&caller).await?;
        println!("{}", began.elapsed().as_micros());
        drop((caller, pool, broker));
        Ok(())
    })
}
