//! Warnings that name what they are about: a one-way request that is lost, a handler that keeps its thread busy.

#![cfg(all(feature = "broker", feature = "macros"))]

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use rpc_core::{Connection, WorkerPool, broker::Broker, service};
use tracing::{
    Event, Level, Metadata, Subscriber,
    span::{Attributes, Id, Record},
    subscriber::set_default,
};

/// Warnings and errors, a line each.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            write!(line, "{field}={value:?};").expect("a string takes any text");
        });
        self.0.lock().expect("no holder of the lock panics").push(line);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[service(name = "stock", queue = "stock-notes")]
trait Bare {
    #[rpc(oneway)]
    async fn remark(&self, n: u32);
}

#[service(name = "stock")]
trait Stock {
    #[rpc(oneway)]
    async fn note(&self, n: u32);
    async fn tear(&self);
}

struct Desk;

impl Stock for Desk {
    async fn note(&self, _n: u32) {
        panic!("a torn page");
    }
    async fn tear(&self) {
        panic!("torn\nin two");
    }
}

impl Bare for Desk {
    async fn remark(&self, _n: u32) {
        panic!("a torn page");
    }
}

/// One thread, which is the one that the subscriber listens to.
#[tokio::test]
async fn a_lost_oneway_request_is_named_in_the_log() {
    let lines = Lines::default();
    let _guard = set_default(lines.clone());
    // The worker may not publish to the default exchange, through which dead letters go.
    let builder = Broker::builder().user("mute", "mute").permissions("mute", "/", ".*", "^(rpc|stock)", ".*");
    let broker = builder.start().await.unwrap();
    let worker = Connection::open(&format!("{}?transport=native", broker.uri_for("mute", "/").unwrap())).await.unwrap();
    let connection = Connection::open(&format!("{}?transport=native", broker.uri())).await.unwrap();
    let pool = WorkerPool::new(&worker).serve(StockServer::new(Desk)).start().await.unwrap();
    let bare = WorkerPool::new(&worker).serve(BareServer::new(Desk)).start().await.unwrap();
    StockClient::new(&connection).note(1).idempotency_key("page\n7").await.unwrap();
    BareClient::new(&connection).remark(1).idempotency_key("page 8").await.unwrap();
    let lost = || pool.stats().dead_letters_lost + bare.stats().dead_letters_lost;
    let are_lost = async {
        while lost() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), are_lost).await.expect("both are given up");
    let lines = lines.0.lock().unwrap();
    for (method, message_id) in [("note", "page\\n7"), ("remark", "page 8")] {
        let names = format!("service=\"stock\";method={method};message_id={message_id};redelivered=false;");
        for event in ["a one-way request failed", "a request is lost"] {
            let is_named = lines.iter().any(|line| line.contains(&names) && line.contains(event));
            assert!(is_named, "{event}: {names} is missing in {lines:#?}");
        }
    }
}

#[tokio::test]
async fn a_request_whose_handler_panics_is_named_in_the_log() {
    let lines = Lines::default();
    let _guard = set_default(lines.clone());
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(&format!("{}?transport=native", broker.uri())).await.unwrap();
    let _pool = WorkerPool::new(&connection).serve(StockServer::new(Desk)).start().await.unwrap();
    let client = StockClient::new(&connection);
    assert_eq!(client.tear().idempotency_key("page 9").await.unwrap_err().code(), "internal");
    let lines = lines.0.lock().unwrap();
    let expected = "service=\"stock\";method=tear;message_id=page 9;redelivered=false;code=\"internal\";";
    let line = lines.iter().find(|line| line.contains(expected)).unwrap_or_else(|| panic!("{lines:#?}"));
    assert!(line.contains("torn\\nin two") && line.contains("a request failed"), "{line}");
}

#[service(name = "stock-taking")]
trait Taking {
    #[rpc(timeout = "30s")]
    async fn count(&self) -> u32;
}

impl Taking for Desk {
    async fn count(&self) -> u32 {
        // Half of the default heartbeat, and not a blocking method.
        std::thread::sleep(Duration::from_millis(5_100));
        7
    }
}

#[tokio::test]
async fn a_handler_that_keeps_its_thread_busy_is_named_in_the_log() {
    let lines = Lines::default();
    let _guard = set_default(lines.clone());
    let broker = Broker::start().await.unwrap();
    let uri = format!("{}?transport=native&heartbeat=1", broker.uri());
    let connection = Connection::open(&uri).await.unwrap();
    let _pool = WorkerPool::new(&connection).serve(TakingServer::new(Desk)).start().await.unwrap();
    let client = TakingClient::new(&connection);
    // The connection may be lost by it: that is what the warnings are for.
    let _ = client.count().timeout(Duration::from_secs(6)).await;
    let lines = lines.0.lock().unwrap();
    let has = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(has(&["kept its thread busy", "service=\"stock-taking\";method=\"count\";"]), "{lines:#?}");
    assert!(has(&["was not run in time for a heartbeat"]), "{lines:#?}");
}
