//! The load: calls kept in flight, and what becomes of them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use hdrhistogram::Histogram;
use rpc_core::{AckPolicy, Transport};
use tokio::task::JoinSet;

use crate::{
    Result, Role, processes,
    subjects::{self, Subject},
};

/// The `client` command.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    role: Role,
    /// Calls kept in flight.
    #[arg(long)]
    in_flight: usize,
    /// How long to measure, after a third of that to warm up.
    #[arg(long)]
    milliseconds: Option<u64>,
    /// Make so many calls instead, and measure nothing.
    #[arg(long)]
    calls: Option<u64>,
    /// The process id of the worker, whose CPU time is accounted.
    #[arg(long)]
    worker: Option<u32>,
    /// The process id of the broker, whose CPU time is accounted.
    #[arg(long)]
    broker: Option<u32>,
}

/// One client of one subject.
pub(crate) trait Caller: Clone + Send + 'static {
    /// Makes a call and checks its answer.
    fn call(&self) -> impl Future<Output = Result<()>> + Send;
}

/// Runs the client and prints what it measured.
pub(crate) fn client(arguments: &Arguments) -> Result<()> {
    let Arguments { role, in_flight, .. } = arguments;
    role.runtime.block_on(async {
        let load = Load::new(arguments);
        match role.subject {
            Subject::Framework | Subject::OverLapin | Subject::AfterConfirmedReply | Subject::BeforeHandler => {
                let client = subjects::framework::client(&role.url, transport(role.subject)).await?;
                drive(client, *in_flight, &load).await?;
            }
            Subject::Usual => drive(subjects::usual::client(&role.url).await?, *in_flight, &load).await?,
            Subject::Best | Subject::BestUnordered => {
                drive(subjects::best::client(&role.url).await?, *in_flight, &load).await?;
            }
            Subject::Bare => subjects::bare::client(&role.url, *in_flight, &load).await?,
        }
        Ok(())
    })
}

/// Runs the worker until stdin ends.
pub(crate) fn worker(role: &Role) -> Result<()> {
    let framework = |ack_policy| subjects::framework::worker(&role.url, transport(role.subject), ack_policy);
    role.runtime.block_on(async {
        match role.subject {
            Subject::Framework | Subject::OverLapin => framework(AckPolicy::AfterReply).await,
            Subject::AfterConfirmedReply => framework(AckPolicy::AfterConfirmedReply).await,
            Subject::BeforeHandler => framework(AckPolicy::BeforeHandler).await,
            Subject::Usual => subjects::usual::worker(&role.url).await,
            Subject::Best => subjects::best::worker(&role.url, subjects::best::AckOrder::AfterReply).await,
            Subject::BestUnordered => subjects::best::worker(&role.url, subjects::best::AckOrder::Any).await,
            Subject::Bare => subjects::bare::worker(&role.url).await,
        }
    })
}

fn transport(subject: Subject) -> Transport {
    if subject == Subject::OverLapin { Transport::Lapin } else { Transport::default() }
}

/// Says that the worker is ready, and waits for the end of the measurement.
pub(crate) async fn until_stopped() -> Result<()> {
    println!("ready");
    processes::stdin_closed().await
}

/// A load's progress, shared by everyone who makes calls.
pub(crate) struct Load {
    calls_left: AtomicU64,
    is_over: AtomicBool,
    is_measured: AtomicBool,
    window: Option<Duration>,
    processes: [Option<u32>; 3],
}

impl Load {
    fn new(arguments: &Arguments) -> Arc<Self> {
        Arc::new(Self {
            calls_left: AtomicU64::new(arguments.calls.unwrap_or(u64::MAX)),
            is_over: AtomicBool::new(false),
            is_measured: AtomicBool::new(false),
            window: arguments.milliseconds.map(Duration::from_millis),
            processes: [Some(std::process::id()), arguments.worker, arguments.broker],
        })
    }

    /// Whether to make another call.
    pub(crate) fn next(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
            && self.calls_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Notes a call of the measured window.
    pub(crate) fn note(&self, latencies: &mut Histogram<u64>, began: Instant) {
        if self.is_measured.load(Ordering::Relaxed) {
            let nanoseconds = began.elapsed().as_nanos();
            latencies.saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        }
    }

    /// Warms up, measures the window, ends the load.
    async fn window(&self) -> Result<Window> {
        let Some(window) = self.window else {
            return std::future::pending().await;
        };
        tokio::time::sleep(window / 3).await;
        let cpu_before = self.cpu_times()?;
        let began = Instant::now();
        self.is_measured.store(true, Ordering::Relaxed);
        tokio::time::sleep(window).await;
        self.is_measured.store(false, Ordering::Relaxed);
        let elapsed = began.elapsed();
        let cpu_after = self.cpu_times()?;
        self.is_over.store(true, Ordering::Relaxed);
        let mut cpu = [Duration::ZERO; 3];
        for (cpu, (after, before)) in cpu.iter_mut().zip(cpu_after.iter().zip(cpu_before)) {
            *cpu = *after - before;
        }
        Ok(Window { elapsed, cpu })
    }

    fn cpu_times(&self) -> Result<[Duration; 3]> {
        let mut times = [Duration::ZERO; 3];
        for (time, process) in times.iter_mut().zip(self.processes) {
            *time = process.map_or(Ok(Duration::ZERO), processes::cpu_time)?;
        }
        Ok(times)
    }

    /// Runs the window beside the calls, and prints what both saw.
    pub(crate) async fn measure(&self, calls: impl Future<Output = Result<Histogram<u64>>>) -> Result<()> {
        tokio::pin!(calls);
        let window = tokio::select! {
            window = self.window() => window?,
            // So many calls, nothing measured.
            latencies = &mut calls => return latencies.map(drop),
        };
        let latencies = calls.await?;
        println!("{}", window.figures(&latencies).line());
        Ok(())
    }
}

/// A histogram of nanoseconds, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    // 1 ns to 60 s are valid bounds.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

struct Window {
    elapsed: Duration,
    cpu: [Duration; 3],
}

impl Window {
    fn figures(&self, latencies: &Histogram<u64>) -> Figures {
        let calls = latencies.len().max(1) as f64;
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1_000.0;
        let per_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / calls;
        Figures([
            calls / self.elapsed.as_secs_f64(),
            microseconds(latencies.value_at_quantile(0.5)),
            microseconds(latencies.value_at_quantile(0.99)),
            per_call(self.cpu[0]),
            per_call(self.cpu[1]),
            per_call(self.cpu[2]),
        ])
    }
}

/// Calls a second, p50 and p99 in µs, and the CPU time a call of client, worker and broker in µs.
#[derive(Clone, Copy)]
pub(crate) struct Figures(pub(crate) [f64; 6]);

impl Figures {
    fn line(self) -> String {
        self.0.map(|figure| figure.to_string()).join(" ")
    }

    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let figures = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        Ok(Self(figures.try_into().map_err(|_| format!("not six figures: '{line}'"))?))
    }
}

/// One task for each call in flight.
async fn drive(caller: impl Caller, in_flight: usize, load: &Arc<Load>) -> Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (caller, load) = (caller.clone(), Arc::clone(load));
        tasks.spawn(async move {
            let mut latencies = histogram();
            while load.next() {
                let began = Instant::now();
                caller.call().await?;
                load.note(&mut latencies, began);
            }
            Ok(latencies)
        });
    }
    load.measure(async {
        let mut latencies = histogram();
        while let Some(task) = tasks.join_next().await {
            let more: Result<Histogram<u64>> = task?;
            latencies += more?;
        }
        Ok(latencies)
    })
    .await
}
