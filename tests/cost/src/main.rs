//! The cost gate: instructions and allocations a call, at 64 calls in flight, held against `tests/cost/table.md`.
//!
//! Client, worker and bundled broker are a process each, this program again with another command. One of them runs
//! under callgrind at a time. Its cost of a call is the difference between two runs, of N and of 3 N calls: start-up
//! and shutdown fall out. The least of three such differences counts, because chance only ever adds.
//!
//! The client's figure holds the program's own loop: some 20 instructions, and the argument that a caller makes.

#[path = "../../benches/shared/callgrind.rs"]
mod callgrind;
mod load;
#[path = "../../benches/shared/processes.rs"]
#[allow(dead_code, reason = "CPU times are the benchmarks'")]
mod processes;
mod table;

use std::{path::PathBuf, process::Command};

use callgrind::Counts;
use load::Around;
use processes::Process;
use table::{Figures, Row, Table};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// N: a multiple of the calls in flight, so that no train of calls is shorter than another.
const CALLS: u64 = 50 * load::IN_FLIGHT;
const ROUNDS: usize = 3;
/// Times that the rounds of a red row are made.
const ATTEMPTS: usize = 3;
const ROLES: [&str; 18] = [
    "client",
    "worker",
    "broker",
    "layered-client",
    "layered-worker",
    "traced-client",
    "traced-worker",
    "spanned-client",
    "spanned-worker",
    "metered-client",
    "metered-worker",
    "auth-client",
    "auth-worker",
    "breaker-client",
    "timed-client",
    "timed-worker",
    "retrying-client",
    "remembering-worker",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["broker"] => load::broker(),
        ["worker", uri] => load::worker(uri, Around::Nothing),
        ["layered-worker", uri] => load::worker(uri, Around::EmptyLayer),
        ["traced-worker", uri] => load::worker(uri, Around::TraceLayer),
        ["spanned-worker", uri] => load::worker(uri, Around::Spans),
        ["auth-worker", uri] => load::worker(uri, Around::Tokens),
        ["metered-worker", uri] => load::worker(uri, Around::MetricsLayer),
        ["timed-worker", uri] => load::worker(uri, Around::Percentiles),
        ["remembering-worker", uri] => load::worker(uri, Around::Memory),
        ["client", uri, calls] => load::client(uri, calls.parse()?, Around::Nothing),
        ["layered-client", uri, calls] => load::client(uri, calls.parse()?, Around::EmptyLayer),
        ["traced-client", uri, calls] => load::client(uri, calls.parse()?, Around::TraceLayer),
        ["spanned-client", uri, calls] => load::client(uri, calls.parse()?, Around::Spans),
        ["auth-client", uri, calls] => load::client(uri, calls.parse()?, Around::Tokens),
        ["breaker-client", uri, calls] => load::client(uri, calls.parse()?, Around::Breaker),
        ["metered-client", uri, calls] => load::client(uri, calls.parse()?, Around::MetricsLayer),
        ["timed-client", uri, calls] => load::client(uri, calls.parse()?, Around::Percentiles),
        ["retrying-client", uri, calls] => load::client(uri, calls.parse()?, Around::Retries),
        ["measure"] => {
            print!("{}", Table { toolchain: toolchain()?, rows: measure_all()? }.render());
            Ok(())
        }
        [] => check(),
        _ => Err("usage: cargo cost [measure]".into()),
    }
}

/// Measures, compares with the table, and fails when a row costs more than it may.
fn check() -> Result<()> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("table.md");
    let table = Table::parse(&std::fs::read_to_string(&file)?)?;
    let toolchain = toolchain()?;
    let decides = toolchain == table.toolchain;
    println!("| end | instructions | of the table | allocations | of the table | verdict |\n|---|---|---|---|---|---|");
    let mut is_red = false;
    for role in ROLES {
        // On a busy machine fewer frames arrive at once, and each costs more: a red row is measured again.
        let mut row = least_of_rounds(role)?;
        for _ in 1..ATTEMPTS {
            if !decides || !table.judge(&row)?.is_red {
                break;
            }
            row = row.least_of(&least_of_rounds(role)?);
        }
        let verdict = table.judge(&row)?;
        println!("{verdict}");
        is_red |= verdict.is_red;
    }
    if !decides {
        println!("\nnothing decided: the table is of {}, this is {toolchain}", table.toolchain);
    } else if is_red {
        return Err(
            "a call costs more than tests/cost/table.md allows: make it cheaper, or raise the row there and say why"
                .into(),
        );
    }
    Ok(())
}

fn measure_all() -> Result<Vec<Row>> {
    ROLES.into_iter().map(least_of_rounds).collect()
}

fn least_of_rounds(role: &str) -> Result<Row> {
    let mut least: Option<Row> = None;
    for _ in 0..ROUNDS {
        let fewer = run(role, CALLS)?;
        let more = run(role, 3 * CALLS)?;
        let Counts { instructions, allocations } = Counts::per_call(fewer, more, 2 * CALLS);
        eprintln!("{role}: {instructions:.0} instructions, {allocations:.2} allocations a call");
        let row = Row::new(role, Figures { instructions, allocations });
        least = Some(match least {
            Some(least) => least.least_of(&row),
            None => row,
        });
    }
    least.ok_or_else(|| "no rounds".into())
}

/// Makes so many calls while one role runs under callgrind.
fn run(measured: &str, calls: u64) -> Result<Counts> {
    let profile = std::env::temp_dir().join(format!("rpc-cost-{measured}.{}.callgrind", std::process::id()));
    let start = |arguments: &[&str]| Process::start(arguments, (arguments[0] == measured).then_some(profile.as_path()));
    let mut broker = start(&["broker"])?;
    let uri = broker.line()?;
    let role = |plain| match measured {
        // It takes no calls without a token.
        "auth-worker" if plain == "client" => "auth-client",
        // The measured role stands in for the plain one.
        measured if measured.ends_with(plain) => measured,
        _ => plain,
    };
    let mut worker = start(&[role("worker"), &uri])?;
    worker.line()?;
    // `stop` waits until it has made its calls.
    start(&[role("client"), &uri, &calls.to_string()])?.stop()?;
    worker.stop()?;
    broker.stop()?;
    let counts = Counts::read(&profile);
    if std::env::var_os("KEEP_CALLGRIND").is_none() {
        std::fs::remove_file(&profile)?;
    }
    counts
}

/// Everything that decides how many instructions the same source needs.
fn toolchain() -> Result<String> {
    let first_line = |program: &str, argument: &str| -> Result<String> {
        let output = Command::new(program).arg(argument).output().map_err(|error| format!("{program}: {error}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    let words =
        [first_line("rustc", "--version")?, first_line("ldd", "--version")?, first_line("valgrind", "--version")?];
    Ok(format!("{}, {}", words.join(", "), std::env::consts::ARCH))
}
