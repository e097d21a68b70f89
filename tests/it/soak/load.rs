//! The calls, and what is kept of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rpc_core::{CallError, Client, service};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::{
    consumers::{self, Consumers},
    random::Random,
};

#[service(name = "soak")]
pub(super) trait Soak {
    #[rpc(idempotent)]
    async fn double(&self, n: u64) -> u64;
    async fn once(&self, text: String) -> String;
    async fn slow(&self, milliseconds: u64) -> u64;
    async fn fail(&self, n: u64) -> Result<(), Refusal>;
    #[rpc(oneway)]
    async fn note(&self, id: u64);
}

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{0} is refused")]
pub(super) struct Refusal(u64);

/// The implementation.
pub(super) struct Worker(pub(super) Arc<Ledger>);

impl Soak for Worker {
    async fn double(&self, n: u64) -> u64 {
        n * 2
    }
    async fn once(&self, text: String) -> String {
        text
    }
    async fn slow(&self, milliseconds: u64) -> u64 {
        sleep(Duration::from_millis(milliseconds)).await;
        milliseconds
    }
    async fn fail(&self, n: u64) -> Result<(), Refusal> {
        Err(Refusal(n))
    }
    async fn note(&self, id: u64) {
        self.0.execute(id);
    }
}

/// Which one-way requests were confirmed, and which executed. All of its memory is taken at the beginning.
pub(super) struct Ledger {
    notes: Vec<AtomicU8>,
    next: AtomicU64,
    executions: AtomicU64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        // Written to, so that it is resident from the start.
        let notes = (0..NOTES_MAX).map(|_| AtomicU8::new(UNTOUCHED)).collect();
        Self { notes, next: AtomicU64::new(0), executions: AtomicU64::new(0) }
    }

    fn execute(&self, id: u64) {
        self.executions.fetch_add(1, Relaxed);
        self.notes[id as usize].fetch_or(EXECUTED, Relaxed);
    }

    fn touched(&self) -> impl Iterator<Item = u8> {
        let next = (self.next.load(Relaxed) as usize).min(NOTES_MAX);
        self.notes[..next].iter().map(|note| note.load(Relaxed))
    }

    pub(super) fn confirmed(&self) -> usize {
        self.touched().filter(|note| note & CONFIRMED != 0).count()
    }

    /// Confirmed and never executed.
    pub(super) fn lost(&self) -> usize {
        self.touched().filter(|note| note & (CONFIRMED | EXECUTED | EXCUSED) == CONFIRMED).count()
    }

    /// The broker has lost everything: what was begun before may have been there.
    pub(super) fn excuse(&self) {
        let next = (self.next.load(Relaxed) as usize).min(NOTES_MAX);
        for note in &self.notes[..next] {
            if note.load(Relaxed) & EXECUTED == 0 {
                note.fetch_or(EXCUSED, Relaxed);
            }
        }
    }

    /// Confirmed, never executed, and lost with the broker.
    pub(super) fn excused(&self) -> usize {
        self.touched().filter(|note| note & (CONFIRMED | EXECUTED | EXCUSED) == CONFIRMED | EXCUSED).count()
    }

    pub(super) fn executions(&self) -> u64 {
        self.executions.load(Relaxed)
    }
}

/// How the calls ended, by kind and code.
pub(super) struct Tally {
    consumers: Arc<Consumers>,
    endings: Mutex<BTreeMap<(&'static str, String), u64>>,
    hung: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// Endings that faults have caused.
    explained: Mutex<BTreeSet<&'static str>>,
}

impl Tally {
    pub(super) fn new(consumers: Arc<Consumers>) -> Self {
        let (endings, hung, wrong, explained) = Default::default();
        Self { consumers, endings, hung, wrong, explained }
    }

    fn count(&self, kind: &'static str, ending: &str) {
        *self.endings.lock().unwrap().entry((kind, ending.to_owned())).or_default() += 1;
    }

    fn complain(&self, complaint: String) {
        let mut wrong = self.wrong.lock().unwrap();
        // A few tell as much as all.
        if wrong.len() < 20 {
            wrong.push(complaint);
        }
    }

    /// A fault will make calls end so.
    pub(super) fn explain(&self, ending: &'static str) {
        self.explained.lock().unwrap().insert(ending);
    }

    fn is_explained(&self, ending: &str) -> bool {
        // Connections are lost and blocked all the time.
        matches!(ending, "ok" | "service" | "timeout" | "disconnected")
            || self.explained.lock().unwrap().contains(ending)
    }

    pub(super) fn hung(&self) -> u64 {
        self.hung.load(Relaxed)
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        let total: u64 = endings.values().sum();
        write!(f, "{total} calls")?;
        let mut last = "";
        for ((kind, ending), count) in &*endings {
            if *kind != last {
                write!(f, "\n  {kind:<10}")?;
                last = kind;
            }
            write!(f, "  {ending} {count}")?;
        }
        Ok(())
    }
}

/// Makes one call after the other.
pub(super) async fn call_until(
    end: Instant,
    client: Client,
    ledger: Arc<Ledger>,
    tally: Arc<Tally>,
    mut random: Random,
) {
    let soak = SoakClient::from_client(client);
    while Instant::now() < end {
        let limit = Duration::from_millis(random.between(300, DEADLINE_MAX.as_millis() as u64));
        let n = random.between(0, 1_000_000);
        match random.between(0, 100) {
            0..40 => {
                let answer = ended(&tally, "idempotent", limit, soak.double(n).timeout(limit).into_future()).await;
                expect(&tally, answer, &(n * 2));
            }
            40..60 => {
                let text = format!("{n:>width$}", width = n as usize % 3_000);
                let call = soak.once(text.clone()).timeout(limit);
                let answer = ended(&tally, "not", limit, call.into_future()).await;
                expect(&tally, answer, &text);
            }
            60..70 => {
                let milliseconds = n % 200;
                let call = soak.slow(milliseconds).timeout(limit);
                let answer = ended(&tally, "slow", limit, call.into_future()).await;
                expect(&tally, answer, &milliseconds);
            }
            70..80 => match ended(&tally, "failing", limit, soak.fail(n).timeout(limit).into_future()).await {
                Some(Err(CallError::Service { error, .. })) if error == Refusal(n) => {}
                Some(Err(CallError::Service { .. }) | Ok(())) => tally.complain(format!("fail({n}) did not fail so")),
                Some(Err(_)) | None => {}
            },
            80..90 => {
                let patience = Duration::from_millis(random.between(0, 30));
                let gone = timeout(patience, soak.slow(60).timeout(limit).into_future()).await.is_err();
                tally.count("cancelled", if gone { "dropped" } else { "ended" });
            }
            _ => {
                let id = ledger.next.fetch_add(1, Relaxed);
                if (id as usize) < NOTES_MAX
                    && let Some(Ok(())) =
                        ended(&tally, "one-way", limit, soak.note(id).timeout(limit).into_future()).await
                {
                    ledger.notes[id as usize].fetch_or(CONFIRMED, Relaxed);
                }
            }
        }
        // The rate is the callers'; what matters is the faults.
        sleep(Duration::from_millis(random.between(1, 10))).await;
    }
}

/// Waits for a call; `None` when it outlived its deadline.
async fn ended<T, E: std::error::Error>(
    tally: &Tally,
    kind: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, CallError<E>>>,
) -> Option<Result<T, CallError<E>>> {
    match timeout(limit + GRACE, call).await {
        Ok(outcome) => {
            let ending = outcome.as_ref().map_or_else(CallError::code, |_| "ok");
            tally.count(kind, ending);
            let is_verdict = outcome.as_ref().is_err_and(consumers::is_verdict);
            if is_verdict && tally.consumers.has_counted() {
                tally.complain(format!("{kind}: the broker counts a consumer: {:?}", outcome.as_ref().err()));
            }
            if !is_verdict && !tally.is_explained(ending) {
                tally.complain(format!("{kind}: {ending}: {:?}", outcome.as_ref().err().map(ToString::to_string)));
            }
            Some(outcome)
        }
        Err(_) => {
            tally.count(kind, "HUNG");
            tally.hung.fetch_add(1, Relaxed);
            None
        }
    }
}

fn expect<T: PartialEq + fmt::Debug>(tally: &Tally, answer: Option<Result<T, CallError>>, right: &T) {
    if let Some(Ok(answer)) = answer
        && answer != *right
    {
        tally.complain(format!("{answer:?} instead of {right:?}"));
    }
}

pub(super) const DEADLINE_MAX: Duration = Duration::from_secs(5);
/// For a machine that is busy with other things.
const GRACE: Duration = Duration::from_secs(2);

/// Two hours of them.
const NOTES_MAX: usize = 4_000_000;
const UNTOUCHED: u8 = 4;
const EXECUTED: u8 = 1;
const CONFIRMED: u8 = 2;
const EXCUSED: u8 = 8;
