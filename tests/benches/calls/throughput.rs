//! Calls a second, latency and CPU time of every subject, round by round.

use clap::Args;

use crate::{Flavour, Result, Role, broker::Target, load::Figures, subjects::Subject};

/// The `throughput` command.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Measure on this broker too (RabbitMQ, say).
    #[arg(long, env = "AMQP_URL")]
    pub(crate) url: Option<String>,
    /// Measure on `--url` alone.
    #[arg(long, requires = "url")]
    pub(crate) url_only: bool,
    /// Three short rounds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often to measure each; the median counts. 5 unless told, 3 when quick.
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// How long to measure each. 1 000 unless told, 300 when quick.
    #[arg(long)]
    pub(crate) milliseconds: Option<u64>,
    /// Calls in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1_024])]
    pub(crate) in_flight: Vec<usize>,
    /// The subjects to compare.
    #[arg(long, value_delimiter = ',', default_value = "framework,over-lapin,usual,best,best-unordered")]
    pub(crate) subjects: Vec<Subject>,
    /// The runtimes to compare on.
    #[arg(long, value_delimiter = ',', default_value = "current,multi")]
    pub(crate) runtimes: Vec<Flavour>,
}

/// Ratios the framework must reach at [`TARGET_IN_FLIGHT`].
const TARGETS: [(Subject, f64); 2] = [(Subject::Usual, 1.1), (Subject::Best, 0.92)];
const TARGET_IN_FLIGHT: usize = 64;

/// Measures everything and prints a Markdown table for each broker and runtime.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut targets = Vec::new();
    if !arguments.url_only {
        targets.push(Target::bundled()?);
    }
    targets.extend(arguments.url.as_deref().map(Target::remote));
    for target in targets {
        for &runtime in &arguments.runtimes {
            println!("\n## {}, {} runtime\n", target.name, runtime.name());
            println!("| in flight | subject | calls/s | p50 µs | p99 µs | CPU µs a call: client | worker | broker |");
            println!("|---|---|---|---|---|---|---|---|");
            let mut verdicts = Vec::new();
            for &in_flight in &arguments.in_flight {
                let rows = compare(arguments, &target, runtime, in_flight)?;
                for row in &rows {
                    println!("{}", row.markdown(in_flight));
                }
                verdicts.extend(ratios(&rows, in_flight));
            }
            println!("\n{}", verdicts.join("\n"));
        }
        target.stop()?;
    }
    Ok(())
}

/// One subject's rounds.
struct Row {
    subject: Subject,
    rounds: Vec<Figures>,
}

/// Runs the rounds, the subjects in turn within each.
fn compare(arguments: &Arguments, target: &Target, runtime: Flavour, in_flight: usize) -> Result<Vec<Row>> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 5 });
    let milliseconds = arguments.milliseconds.unwrap_or(if arguments.quick { 300 } else { 1_000 });
    let mut rows: Vec<Row> = arguments.subjects.iter().map(|&subject| Row { subject, rounds: Vec::new() }).collect();
    for _ in 0..rounds {
        for row in &mut rows {
            let role = Role { subject: row.subject, url: target.url.clone(), runtime };
            row.rounds.push(measure(&role, target, in_flight, milliseconds)?);
        }
    }
    Ok(rows)
}

/// One worker process, one client process, one window.
fn measure(role: &Role, target: &Target, in_flight: usize, milliseconds: u64) -> Result<Figures> {
    let mut worker = role.start("worker", &[], None)?;
    worker.line()?;
    let (in_flight, milliseconds) = (in_flight.to_string(), milliseconds.to_string());
    let worker_id = worker.id().to_string();
    let mut more = vec!["--in-flight", &in_flight, "--milliseconds", &milliseconds, "--worker", &worker_id];
    let broker_id = target.process_id().map(|id| id.to_string());
    if let Some(broker_id) = &broker_id {
        more.extend(["--broker", broker_id]);
    }
    let mut client = role.start("client", &more, None)?;
    let figures = Figures::from_line(&client.line()?)?;
    client.stop()?;
    worker.stop()?;
    Ok(figures)
}

impl Row {
    /// The median of one figure.
    fn median(&self, figure: usize) -> f64 {
        median(self.rounds.iter().map(|round| round.0[figure]).collect())
    }

    fn markdown(&self, in_flight: usize) -> String {
        let [calls, p50, p99, client, worker, broker] = std::array::from_fn(|figure| self.median(figure));
        let broker = if broker > 0.0 { format!("{broker:.1}") } else { "–".to_owned() };
        let name = self.subject.name();
        format!("| {in_flight} | {name} | {calls:.0} | {p50:.0} | {p99:.0} | {client:.1} | {worker:.1} | {broker} |")
    }
}

/// The framework against the others: the median of the rounds' ratios, so that what disturbs one round disturbs both
/// sides of its ratio.
fn ratios(rows: &[Row], in_flight: usize) -> Vec<String> {
    let Some(framework) = rows.iter().find(|row| row.subject == Subject::Framework) else {
        return Vec::new();
    };
    let others = rows.iter().filter(|row| row.subject != Subject::Framework);
    others
        .map(|other| {
            let ratio_of = |figure: usize| {
                let rounds = framework.rounds.iter().zip(&other.rounds);
                median(rounds.map(|(ours, theirs)| ours.0[figure] / theirs.0[figure]).collect())
            };
            let (calls, p50) = (ratio_of(0), ratio_of(1));
            let name = other.subject.name();
            let target = TARGETS
                .iter()
                .find(|(subject, _)| *subject == other.subject && in_flight == TARGET_IN_FLIGHT)
                .map(|(_, target)| {
                    let verdict = if calls >= *target { "reached" } else { "MISSED" };
                    format!(" (target ≥ {target}: {verdict})")
                });
            let target = target.unwrap_or_default();
            format!("- {in_flight} in flight: {calls:.2} × {name}{target}, p50 {p50:.2} ×")
        })
        .collect()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
