//! The table: every row on every broker, in turns.

use clap::Args;

use crate::{
    Result,
    brokers::Target,
    link::{Link, NO_PROPERTIES, publish},
    loads::{self, Done, QUEUE, Topics},
    relay::Relay,
};

/// The `table` command.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The broker to compare with (RabbitMQ, say), on this machine.
    #[arg(long, env = "AMQP_URL")]
    url: Option<String>,
    /// Three rounds, a tenth of the messages, no memory rows beyond the first.
    #[arg(long)]
    quick: bool,
    /// How often to measure each row; medians count. 5 unless told, 3 when quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// The figures of one round of one broker.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
}

type Load<'a> = Box<dyn Fn(&Target) -> Result<Done> + 'a>;

/// Runs everything and prints Markdown.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut targets = vec![Target::bundled(None)?];
    if let Some(url) = &arguments.url {
        targets.push(Target::at(url)?);
    }
    let idle = targets.iter().map(Target::memory).collect::<Result<Vec<_>>>()?;
    println!("\n| load | bundled, a second | other | ratio | broker CPU µs a message: bundled | other | target |");
    println!("|---|---|---|---|---|---|---|");
    let size = |messages: u64| if arguments.quick { messages / 10 } else { messages };
    for (name, messages, load) in loads(&size) {
        if is_wanted(arguments, &name) {
            row(arguments, &targets, &name, messages, &load)?;
        }
    }
    if is_wanted(arguments, "topic") {
        topics(arguments, &targets, size(100_000))?;
    }
    if is_wanted(arguments, "relay") {
        against_relay(arguments, &targets[0], size(20_000))?;
    }
    println!("\n| memory and start | bundled | other | target |");
    println!("|---|---|---|---|");
    memory_row("idle RSS, MB", &idle, 1e6, Some(10.0));
    if is_wanted(arguments, "idle connections") {
        idle_connections(&targets, if arguments.quick { 200 } else { 1_000 })?;
    }
    if is_wanted(arguments, "queued") {
        queued(&targets, size(1_000_000))?;
    }
    starts(arguments)?;
    targets.into_iter().try_for_each(Target::stop)
}

fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
}

/// The rows that need nothing but a broker, with their messages.
fn loads(size: &impl Fn(u64) -> u64) -> Vec<(String, u64, Load<'static>)> {
    let mut rows: Vec<(String, u64, Load<'static>)> = Vec::new();
    for (body_bytes, messages) in [(16, 200_000), (1_024, 100_000), (65_536, 5_000)] {
        let messages = size(messages);
        let load = move |target: &Target| loads::publish_only(target.address, messages, body_bytes);
        rows.push((format!("publish only, {body_bytes} B"), messages, Box::new(load)));
    }
    let messages = size(200_000);
    let load = move |target: &Target| {
        Link::connect(target.address)?.declare(QUEUE)?;
        let done = loads::confirmed(target.address, messages, &[publish("", QUEUE, NO_PROPERTIES, &[b'x'; 16])])?;
        Link::connect(target.address)?.delete(QUEUE)?;
        Ok(done)
    };
    rows.push(("publish and confirm, 16 B".to_owned(), messages, Box::new(load)));
    for (prefetch_count, messages) in [(1, 10_000), (100, 100_000), (1_000, 100_000)] {
        let messages = size(messages);
        let load = move |target: &Target| loads::consume(target.address, messages, prefetch_count);
        rows.push((format!("consume and ack, prefetch {prefetch_count}"), messages, Box::new(load)));
    }
    for (in_flight, messages) in [(1, 10_000), (64, 100_000), (1_024, 100_000)] {
        let messages = size(messages);
        let load = move |target: &Target| loads::calls(target.address, messages, in_flight);
        rows.push((format!("rpc, {in_flight} in flight"), messages, Box::new(load)));
    }
    for queues in [1, 10, 100] {
        let deliveries = size(200_000);
        let load = move |target: &Target| loads::fan_out(target.address, deliveries, queues);
        rows.push((format!("fan-out to {queues} queues, deliveries"), deliveries, Box::new(load)));
    }
    for (body_bytes, messages) in [(16, 200_000), (1_024, 100_000), (65_536, 10_000)] {
        let messages = size(messages);
        let load = move |target: &Target| loads::through(target.address, messages, body_bytes);
        rows.push((format!("through a queue, {body_bytes} B"), messages, Box::new(load)));
    }
    rows
}

fn row(arguments: &Arguments, targets: &[Target], name: &str, messages: u64, load: &Load<'_>) -> Result<()> {
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 5 });
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); targets.len()];
    for _ in 0..rounds {
        for (target, figures) in targets.iter().zip(&mut figures) {
            let before = target.cpu_time()?;
            let done = load(target).map_err(|error| format!("{name}, {messages} messages: {error}"))?;
            let cpu = target.cpu_time()?.saturating_sub(before);
            let mut latencies: Vec<f64> = done.latencies.iter().map(|latency| latency.as_secs_f64() * 1e6).collect();
            figures.push(Figures {
                per_second: done.messages as f64 / done.took.as_secs_f64(),
                cpu_us: cpu.as_secs_f64() * 1e6 / done.messages as f64,
                p50_us: if latencies.is_empty() { f64::NAN } else { median(&mut latencies) },
            });
        }
    }
    let of = |broker: usize, figure: fn(&Figures) -> f64| {
        figures.get(broker).map(|rounds| median(&mut rounds.iter().map(figure).collect::<Vec<_>>()))
    };
    // The median of the rounds' ratios: what disturbs one round disturbs both sides of its ratio.
    let ratio = |figure: fn(&Figures) -> f64| {
        let (ours, theirs) = (figures.first()?, figures.get(1)?);
        Some(median(&mut ours.iter().zip(theirs).map(|(a, b)| figure(a) / figure(b)).collect::<Vec<_>>()))
    };
    let (speed, cpu, p50) = (ratio(|f| f.per_second), ratio(|f| f.cpu_us), ratio(|f| f.p50_us));
    let target = match name {
        "rpc, 1 in flight" => verdict(p50, "p50 ≤ 0.4 ×", |p50| p50 <= 0.4),
        "rpc, 64 in flight" => {
            let cpu = verdict(cpu, "CPU ≤ 0.067 ×", |cpu| cpu <= 1.0 / 15.0);
            format!("{}; {cpu}", verdict(speed, "≥ 8 ×", |speed| speed >= 8.0))
        }
        _ => nothing(),
    };
    println!(
        "| {name} | {} | {} | {} | {} | {} | {target} |",
        show(of(0, |f| f.per_second), 0),
        show(of(1, |f| f.per_second), 0),
        show(speed, 2),
        show(of(0, |f| f.cpu_us), 2),
        show(of(1, |f| f.cpu_us), 2),
    );
    if let Some(ours) = of(0, |f| f.p50_us).filter(|p50| p50.is_finite()) {
        println!("| – p50, µs | {ours:.1} | {} | {} | | | |", show(of(1, |f| f.p50_us), 1), show(p50, 2));
    }
    Ok(())
}

fn topics(arguments: &Arguments, targets: &[Target], messages: u64) -> Result<()> {
    let bindings = 10_000;
    let set_up = targets.iter().map(|target| Topics::set_up(target.address, bindings)).collect::<Result<Vec<_>>>()?;
    let load: Load<'_> = Box::new(|target| loads::confirmed(target.address, messages, &set_up[0].frames));
    row(arguments, targets, "topic, 10 000 bindings, confirmed", messages, &load)?;
    drop(load);
    set_up.into_iter().try_for_each(Topics::tear_down)
}

/// 64 KiB bodies, the broker beside two bare hops.
fn against_relay(arguments: &Arguments, target: &Target, messages: u64) -> Result<()> {
    let relay = Relay::start()?;
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 5 });
    let (mut ours, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let of = |done: &Done| done.messages as f64 / done.took.as_secs_f64();
        let (broker, relay) =
            (of(&loads::through(target.address, messages, 65_536)?), of(&loads::relayed(&relay, messages, 65_536)?));
        ours.push(broker);
        bare.push(relay);
        ratios.push(broker / relay);
    }
    let ratio = median(&mut ratios);
    let target = verdict(Some(ratio), "≥ 0.8 × a bare relay", |ratio| ratio >= 0.8);
    let (ours, bare) = (median(&mut ours), median(&mut bare));
    println!("| 65536 B, beside a bare relay | {ours:.0} | {bare:.0} | {ratio:.2} | | | {target} |");
    relay.stop()
}

fn idle_connections(targets: &[Target], count: usize) -> Result<()> {
    let mut each = Vec::new();
    // One that has not worked: memory it had once would serve the connections.
    let fresh = Target::bundled(None)?;
    for target in std::iter::once(&fresh).chain(targets.iter().skip(1)) {
        let before = target.memory()?;
        let mut links = Vec::with_capacity(count);
        for _ in 0..count {
            links.push(Link::connect(target.address)?);
        }
        each.push((target.memory()? - before) / count as f64);
    }
    memory_row(&format!("RSS of each of {count} idle connections with a channel, KB"), &each, 1e3, None);
    fresh.stop()
}

fn queued(targets: &[Target], messages: u64) -> Result<()> {
    let mut each = Vec::new();
    for target in targets {
        let mut link = Link::connect(target.address)?;
        link.declare(QUEUE)?;
        let before = target.memory()?;
        let batch = publish("", QUEUE, NO_PROPERTIES, &[b'x'; 16]).repeat(500);
        for _ in 0..messages / 500 {
            link.send(&batch)?;
        }
        link.sync()?;
        each.push((target.memory()? - before) / messages as f64);
        link.delete(QUEUE)?;
    }
    memory_row(&format!("RSS of each of {messages} queued messages of 16 B, bytes"), &each, 1.0, None);
    Ok(())
}

fn starts(arguments: &Arguments) -> Result<()> {
    let mut milliseconds = Vec::new();
    for _ in 0..if arguments.quick { 5 } else { 25 } {
        let target = Target::bundled(None)?;
        milliseconds.extend(target.start.map(|start| start.as_secs_f64() * 1e3));
        target.stop()?;
    }
    memory_row("process start to open port, ms", &[median(&mut milliseconds)], 1.0, Some(10.0));
    Ok(())
}

fn memory_row(name: &str, values: &[f64], unit: f64, limit: Option<f64>) {
    let value = |broker: usize| values.get(broker).map(|value| value / unit);
    let target = limit.map_or_else(nothing, |limit| verdict(value(0), &format!("≤ {limit}"), |value| value <= limit));
    println!("| {name} | {} | {} | {target} |", show(value(0), 1), show(value(1), 1));
}

fn verdict(value: Option<f64>, target: &str, is_reached: impl Fn(f64) -> bool) -> String {
    match value {
        Some(value) if is_reached(value) => format!("{target}: reached ({value:.3})"),
        Some(value) => format!("{target}: MISSED ({value:.3})"),
        None => format!("{target}: nothing to compare with"),
    }
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(nothing, |value| format!("{value:.digits$}"))
}

fn nothing() -> String {
    "–".to_owned()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
