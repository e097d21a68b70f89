//! Channels that get no message through to a queue: the requests that they refuse travel by another one.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rpc_core::{CallError, Connection, service};
use rpc_tests::framework_uri;

use super::{VictimClient, broker::Scripted, scenarios};

/// Its queue may be full.
#[service(name = "hostile-bounded", max_length = 8)]
trait Bounded {
    async fn ask(&self, question: String) -> String;
    #[rpc(oneway)]
    async fn tell(&self, question: String);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_a_stuck_channel_refuses_is_sent_again_on_another_one() {
    let broker = Scripted::start(&scenarios::stuck(1)).await;
    let victim = VictimClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    assert_eq!(victim.ask(String::new()).await.unwrap(), "ok");
    assert_eq!(victim.ask_again(String::new()).await.unwrap(), "ok");
    assert_eq!(nacked(&broker), 1, "the first one alone met the stuck channel");

    let broker = Scripted::start(&scenarios::stuck(1)).await;
    let victim = VictimClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    victim.tell(String::new()).await.unwrap();
    assert_eq!(nacked(&broker), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_survive_stuck_channels() {
    for stuck_channels in [1, 2] {
        let broker = Scripted::start(&scenarios::stuck(stuck_channels)).await;
        let victim = VictimClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
        let (asking, telling) = (victim.clone(), victim.clone());
        let calls = (0..200).map(|_| tokio::spawn(asking.ask(String::new()).into_future()));
        let notes = (0..200).map(|_| tokio::spawn(telling.tell(String::new()).into_future()));
        let (calls, notes): (Vec<_>, Vec<_>) = (calls.collect(), notes.collect());
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), "ok");
        }
        for note in notes {
            note.await.unwrap().unwrap();
        }
        assert_eq!(broker.counts().taken.load(Ordering::Relaxed), 400, "each was taken once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_confirmed_until_the_first_ack() {
    let broker = Scripted::start(&scenarios::stuck(0)).await;
    let victim = VictimClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    for _ in 0..100 {
        assert_eq!(victim.ask(String::new()).await.unwrap(), "ok");
    }
    assert_eq!(broker.counts().confirmed.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_every_channel_refuses_is_overloaded_at_its_deadline() {
    let broker = Scripted::start(&scenarios::stuck(usize::MAX)).await;
    let victim = VictimClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    victim.client().ready().await.unwrap();
    let opened = channels(&broker);
    let budget = Duration::from_millis(1_500);
    let begin = Instant::now();
    let (call, note) = tokio::join!(
        victim.ask_again(String::new()).timeout(budget).into_future(),
        victim.tell(String::new()).timeout(budget).into_future()
    );
    for error in [call.unwrap_err(), note.unwrap_err()] {
        // Their last attempts may be under way at the deadline.
        assert!(matches!(error, CallError::Overloaded { .. } | CallError::Timeout { .. }), "{error:?}");
    }
    assert!(begin.elapsed() >= budget, "they went on trying");
    // Of the calls and of the one-way requests: at once, and after a second.
    let opened = channels(&broker) - opened;
    assert!((2..=4).contains(&opened), "{opened} channels in 1.5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_a_bound_that_refuses_twice_is_full() {
    let broker = Scripted::start(&scenarios::stuck(1)).await;
    let bounded = BoundedClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    assert_eq!(bounded.ask(String::new()).await.unwrap(), "ok");
    let broker = Scripted::start(&scenarios::stuck(1)).await;
    let bounded = BoundedClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    bounded.tell(String::new()).await.unwrap();

    let broker = Scripted::start(&scenarios::stuck(usize::MAX)).await;
    let bounded = BoundedClient::new(&Connection::open(&framework_uri(broker.uri())).await.unwrap());
    let begin = Instant::now();
    for error in [bounded.ask(String::new()).await.unwrap_err(), bounded.tell(String::new()).await.unwrap_err()] {
        assert!(matches!(error, CallError::Overloaded { .. }), "{error:?}");
        assert!(!error.maybe_executed());
    }
    assert_eq!(nacked(&broker), 4, "each was sent twice");
    // The new channels are young: their refusals count at once.
    bounded.ask(String::new()).await.unwrap_err();
    bounded.tell(String::new()).await.unwrap_err();
    if begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(nacked(&broker), 6);
    }
}

fn nacked(broker: &Scripted) -> usize {
    broker.counts().nacked.load(Ordering::Relaxed)
}

fn channels(broker: &Scripted) -> usize {
    broker.counts().channels.load(Ordering::Relaxed)
}
