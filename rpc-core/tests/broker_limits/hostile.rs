//! Hostile clients beside a well-behaved one.
//!
//! Each scenario is a client of its own. It gets the answer that AMQP has for it, or is disconnected, within a deadline; and
//! the calls that go on all the while neither fail nor wait.

mod floods;
mod mistakes;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rpc_core::{Client, ClientOptions, Connection, WorkerPool, broker::Broker, service};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::socket::{PROTOCOL_HEADER, method};

#[service(name = "hostile-echo")]
trait Echo {
    async fn echo(&self, text: String) -> String;
}

struct Mirror;
impl Echo for Mirror {
    async fn echo(&self, text: String) -> String {
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_get_their_answers_and_hurt_no_other() {
    let builder = Broker::builder().handshake_timeout(Duration::from_secs(4)).handshakes_max(400);
    let broker = builder.queue_max_length(50_000).start().await.unwrap();
    let connection = Connection::open(broker.uri()).await.unwrap();
    let _pool = WorkerPool::new(&connection).serve(EchoServer::new(Mirror)).start().await.unwrap();
    let client = Client::with_options(&connection, ClientOptions::default().timeout(CALL_TIMEOUT));
    let echo = EchoClient::from_client(client);
    echo.echo("first".to_owned()).await.unwrap();
    let calling = tokio::spawn(async move {
        let mut latencies = Vec::new();
        loop {
            let started = Instant::now();
            echo.echo("hello".to_owned()).await.map_err(|error| error.to_string())?;
            latencies.push(started.elapsed());
            if started.elapsed() < CALL_PAUSE {
                tokio::time::sleep(CALL_PAUSE).await;
            }
            if ENDED.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok::<_, String>(latencies);
            }
        }
    });
    let left = || broker.queues().into_iter().filter(|queue| queue.exclusive).count();
    let before = left();
    let failures = run_all(broker.address()).await;
    ENDED.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut latencies = calling.await.unwrap().expect("no call fails");
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!("{} calls, p99 {p99:?}, longest {:?}", latencies.len(), latencies[latencies.len() - 1]);
    assert!(failures.is_empty(), "{} scenarios failed:\n{}", failures.len(), failures.join("\n"));
    assert!(p99 < P99_MAX, "p99 {p99:?} of {} calls", latencies.len());
    assert!(latencies.len() >= 20, "{} calls", latencies.len());
    // All that they left behind is gone, too.
    let cleaned = async {
        while left() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, cleaned).await.unwrap_or_else(|_| panic!("{} exclusive queues are left", left()));
}

/// Runs the scenarios: all mistakes at once, and a few floods at a time. Returns what went wrong.
async fn run_all(address: SocketAddr) -> Vec<String> {
    let places = Arc::new(Semaphore::new(FLOODS_AT_ONCE));
    let mut running = JoinSet::new();
    let mut count = 0;
    for mistake in mistakes::all() {
        count += 1;
        running.spawn(async move {
            let name = mistake.name;
            match timeout(LIMIT, mistake.make(address)).await {
                Ok(got) if got == mistake.expected => None,
                Ok(got) => Some(format!("{name}: {got:?} instead of {:?}", mistake.expected)),
                Err(_) => Some(format!("{name}: no answer")),
            }
        });
    }
    for (name, flood) in floods::all() {
        let places = Arc::clone(&places);
        count += 1;
        running.spawn(async move {
            let _place = places.acquire().await.unwrap();
            match timeout(LIMIT, flood(address)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{name}: {error}")),
                Err(_) => Some(format!("{name}: no end")),
            }
        });
    }
    assert!(count >= 75, "{count} scenarios");
    let mut failures = Vec::new();
    while let Some(ended) = running.join_next().await {
        failures.extend(ended.unwrap_or_else(|panic| Some(panic.to_string())));
    }
    failures
}

/// How far a hostile client behaves well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Socket,
    /// It has sent its header, and was sent `connection.start`.
    Started,
    /// It has logged in, and was sent `connection.tune`.
    LoggedIn,
    Tuned,
    Open,
    /// Channel 1 is open.
    Channel,
}

/// The answer that a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A `connection.close` with this code.
    Connection(u16),
    /// A `channel.close` with this code.
    Channel(u16),
    /// The socket is closed without a method.
    Closed,
    /// AMQP's header, and the socket is closed.
    Header,
    /// `channel.open-ok` of a channel that it opens behind all.
    Lives,
}

/// A hostile client.
struct Hostile(TcpStream);

impl Hostile {
    /// A client whose handshake takes too long, because so many others want something, tries again.
    async fn at(stage: Stage, address: SocketAddr) -> Self {
        loop {
            if let Some(hostile) = Self::try_at(stage, address).await {
                return hostile;
            }
        }
    }

    async fn try_at(stage: Stage, address: SocketAddr) -> Option<Self> {
        let mut hostile = Self(TcpStream::connect(address).await.unwrap());
        hostile.0.set_nodelay(true).unwrap();
        let start_ok = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
        let steps = [
            (Stage::Started, PROTOCOL_HEADER.to_vec(), Some([0, 10, 0, 10])),
            (Stage::LoggedIn, method(0, start_ok), Some([0, 10, 0, 30])),
            (Stage::Tuned, method(0, &[0, 10, 0, 31, 0x07, 0xFF, 0, 2, 0, 0, 0, 0]), None),
            (Stage::Open, method(0, b"\0\x0a\0\x28\x01/\0\0"), Some([0, 10, 0, 41])),
            (Stage::Channel, method(1, &[0, 20, 0, 10, 0]), Some([0, 20, 0, 11])),
        ];
        for (step, bytes, answer) in steps.into_iter().filter(|(step, ..)| *step <= stage) {
            hostile.send(&bytes).await;
            if let Some(ids) = answer
                && !hostile.until(ids).await
            {
                println!("a handshake ends before {step:?}");
                return None;
            }
        }
        Some(hostile)
    }

    /// Sends bytes, which a broker that has disconnected need not take.
    async fn send(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes).await);
    }

    /// The next frame: kind and payload.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 7];
        self.0.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes(header[3..].try_into().unwrap()) as usize;
        let mut rest = vec![0; length + 1];
        self.0.read_exact(&mut rest).await.ok()?;
        Some((header[0], rest))
    }

    /// Reads until a method comes. Returns false if the connection or a channel ends before.
    async fn until(&mut self, ids: [u8; 4]) -> bool {
        while let Some((kind, payload)) = self.frame().await {
            if kind == 1 && payload.starts_with(&ids) {
                return true;
            }
            if kind == 1 && (payload.starts_with(&CONNECTION_CLOSE) || payload.starts_with(&CHANNEL_CLOSE)) {
                return false;
            }
        }
        false
    }

    /// The answer to all that was sent.
    async fn answer(&mut self) -> Answer {
        let code = |payload: &[u8]| u16::from_be_bytes(payload[4..6].try_into().unwrap());
        while let Some((kind, payload)) = self.frame().await {
            match payload.get(..4) {
                Some(ids) if kind == 1 && ids == CONNECTION_CLOSE => return Answer::Connection(code(&payload)),
                Some(ids) if kind == 1 && ids == CHANNEL_CLOSE => return Answer::Channel(code(&payload)),
                Some(ids) if kind == 1 && ids == OPEN_OK => return Answer::Lives,
                _ => {}
            }
        }
        Answer::Closed
    }

    /// Whether the broker answers on another channel, after all that was sent.
    async fn lives(&mut self) -> Result<(), String> {
        self.send(&method(9, &[0, 20, 0, 10, 0])).await;
        match self.answer().await {
            Answer::Lives => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}

static ENDED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
const CONNECTION_CLOSE: [u8; 4] = [0, 10, 0, 50];
const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
const OPEN_OK: [u8; 4] = [0, 20, 0, 11];
const FLOODS_AT_ONCE: usize = 3;
const CALL_PAUSE: Duration = Duration::from_millis(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one scenario: longer than the pauses that the broker makes on purpose.
const LIMIT: Duration = Duration::from_secs(15);
/// A debug build, on a machine that does other things, too.
const P99_MAX: Duration = Duration::from_secs(1);
