//! Instructions of the broker per echo call, by callgrind: what more calls cost than fewer.

use std::fs;

use crate::{Result, brokers::Target, callgrind::Counts, loads};

const TARGET: f64 = 5_000.0;
const IN_FLIGHT: u64 = 64;
const FEW: u64 = 2_000;
const MANY: u64 = 22_000;

/// The `instructions` command.
pub(crate) fn run() -> Result<()> {
    let few = instructions(FEW)?;
    let many = instructions(MANY)?;
    let each = (many - few) / (MANY - FEW) as f64;
    let verdict = if each <= TARGET { "reached" } else { "MISSED" };
    println!("\n| broker, {IN_FLIGHT} in flight | instructions a call | target ≤ {TARGET} |");
    println!("|---|---|---|\n| echo call: request, delivery, answer, ack | {each:.0} | {verdict} |");
    Ok(())
}

fn instructions(calls: u64) -> Result<f64> {
    let file = std::env::temp_dir().join(format!("rpc-broker-{calls}.{}.callgrind", std::process::id()));
    let target = Target::bundled(Some(&file))?;
    loads::calls(target.address, calls, IN_FLIGHT)?;
    target.stop()?;
    let total = Counts::read(&file)?.instructions;
    if std::env::var_os("KEEP_CALLGRIND").is_none() {
        fs::remove_file(&file)?;
    }
    Ok(total)
}
