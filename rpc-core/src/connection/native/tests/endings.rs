//! How connections and channels end: dropped in any order, with brokers that do not play along, with their runtime.

use std::{
    any::Any,
    sync::{Arc, Weak},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

/// More than sockets hold.
fn flood(channel: &Channel) {
    let body = vec![7; 1_024 * 1_024];
    for _ in 0..64 {
        channel.publish(&publish(&body)).unwrap();
    }
}

async fn ended(mut events: Events) {
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn a_dropped_connection_ends_although_the_broker_does_not_read() {
    let (link, _peer, channel) = with_channel().await;
    let events = link.events();
    flood(&channel);
    tokio::time::pause();
    // Every other task has run by then: the socket takes no more.
    tokio::time::sleep(HOUR).await;
    assert!(link.is_connected());
    drop((link, channel));
    timeout(HOUR, ended(events)).await.expect("its task ends");
}

#[tokio::test]
async fn a_close_that_was_given_up_ends_the_connection_although_the_broker_says_nothing() {
    let (link, _peer) = connected(TUNE).await;
    let events = link.events();
    tokio::time::pause();
    assert!(timeout(Duration::from_secs(5), link.close()).await.is_err());
    drop(link);
    timeout(HOUR, ended(events)).await.expect("its task ends");
}

#[tokio::test]
async fn a_close_is_not_sent_behind_the_answer_to_the_brokers() {
    let (link, mut peer, channel) = with_channel().await;
    // The last handle is being dropped: the io task does not find the channel, and its `channel.close` is not queued yet.
    link.channels.close_ok(1, &failure::Failure::announced(404, "words"));
    drop(channel);
    let (_second, number) = tokio::join!(link.channel(), async {
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::CloseOk(_)))));
        peer.open_channel().await
    });
    assert_eq!(number, 1);
}

#[tokio::test]
async fn nothing_is_answered_behind_a_close() {
    let (link, mut peer, channel) = with_channel().await;
    let (closed, ()) = tokio::join!(channel.close(), async {
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::Close(_)))));
        peer.method(1, AMQPClass::Channel(OnChannel::Flow(channel::Flow { active: false }))).await;
        peer.method(1, AMQPClass::Channel(OnChannel::CloseOk(channel::CloseOk {}))).await;
    });
    closed.unwrap();
    let (_second, number) = tokio::join!(link.channel(), peer.open_channel());
    assert_eq!(number, 1);
}

/// RabbitMQ's queues answer `basic.cancel`, and its channels everything else: another order is no other answer.
#[tokio::test]
async fn a_cancel_may_be_answered_late_or_not_at_all() {
    let (_link, mut peer, channel) = with_channel().await;
    let cancel_ok = || AMQPClass::Basic(Basic::CancelOk(basic::CancelOk { consumer_tag: "t".into() }));
    let (cancelled, done, ()) = tokio::join!(channel.cancel("t"), channel.qos(1), async {
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Basic(Basic::Cancel(_)))));
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Basic(Basic::Qos(_)))));
        peer.method(1, AMQPClass::Basic(Basic::QosOk(basic::QosOk {}))).await;
        peer.method(1, cancel_ok()).await;
    });
    cancelled.unwrap();
    done.unwrap();
    assert!(timeout(Duration::from_millis(1), channel.cancel("t")).await.is_err());
    let (closed, ()) = tokio::join!(channel.close(), async {
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Basic(Basic::Cancel(_)))));
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::Close(_)))));
        peer.method(1, AMQPClass::Channel(OnChannel::CloseOk(channel::CloseOk {}))).await;
    });
    closed.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_connection_in_whatever_order_its_handles_go() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 0, 1, 3], [2, 3, 1, 0], [1, 2, 3, 0]] {
        let (link, mut peer, channel) = with_channel().await;
        let left: Weak<_> = Arc::downgrade(link.channels.shared());
        let (consumer, tag) = tokio::join!(channel.consume("q", "", false), peer.consume(1));
        let mut consumer = consumer.unwrap();
        let mut out = OutBuffer::default();
        delivery(&mut out, &tag, 1, b"body");
        peer.write(out).await;
        let delivery = next(&mut consumer).await.unwrap();
        let confirm = channel.publish_for_confirm(&publish(b"")).unwrap();
        let mut handles: [Option<Box<dyn Any>>; 4] = [
            Some(Box::new(link)),
            Some(Box::new(channel)),
            Some(Box::new((consumer, delivery))),
            Some(Box::new(confirm)),
        ];
        for at in order {
            handles[at] = None;
            tokio::task::yield_now().await;
        }
        let forgotten = async {
            while left.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(forgotten).await;
    }
}

#[test]
fn a_runtime_that_stops_ends_all_waits() {
    let mut runtimes = [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()];
    for runtime in &mut runtimes {
        let runtime = runtime.enable_all().build().unwrap();
        let (link, _peer, channel, mut consumer, confirm) = runtime.block_on(async {
            let (link, mut peer, channel) = with_channel().await;
            let (consumer, _) = tokio::join!(channel.consume("q", "", true), peer.consume(1));
            let confirm = channel.publish_for_confirm(&publish(b"")).unwrap();
            (link, peer, channel, consumer.unwrap(), confirm)
        });
        runtime.shutdown_background();
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        other.block_on(async {
            assert!(matches!(soon(confirm.wait()).await, Err(Error::Disconnected { .. })));
            assert!(matches!(next(&mut consumer).await, Err(Error::Disconnected { .. })));
            assert!(!link.is_connected());
            assert!(channel.publish(&publish(b"")).is_err());
            assert!(soon(link.channel()).await.is_err());
            assert!(soon(channel.close()).await.is_err());
            assert!(soon(link.close()).await.is_err());
        });
    }
}

#[cfg(feature = "broker")]
#[tokio::test]
async fn an_idle_connection_lives_for_hours_by_a_clock_that_only_pretends() {
    let broker = crate::broker::Broker::builder().start().await.unwrap();
    let uri = format!("{}?transport=native&heartbeat=10", broker.uri());
    let connection = crate::Connection::open(&uri).await.unwrap();
    let states = connection.shared.current.subscribe();
    tokio::time::pause();
    tokio::time::sleep(3 * HOUR).await;
    assert!(!states.has_changed().unwrap(), "{:?}", connection.state());
    tokio::time::resume();
    soon(connection.channel()).await.unwrap().qos(1).await.unwrap();
}

/// A caller may stop waiting at any moment: channels are given up while they open, while they wait, and while the
/// broker closes them. A frame out of place would end the connection.
#[cfg(feature = "broker")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn channels_that_are_given_up_at_any_moment_do_the_connection_no_harm() {
    let broker = crate::broker::Broker::builder().start().await.unwrap();
    let connection = crate::Connection::open(&format!("{}?transport=native", broker.uri())).await.unwrap();
    let states = connection.shared.current.subscribe();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8_u64 {
        let connection = connection.clone();
        tasks.spawn(async move {
            for round in 0..100_u64 {
                let asking = async {
                    let channel = connection.channel().await.unwrap();
                    channel.confirm_select().await.unwrap();
                    let missing = crate::connection::Channel::queue_exists(&channel, "missing").await;
                    assert!(!missing.unwrap());
                };
                // From not even begun to long over.
                let moment = Duration::from_micros((round * 8 + task) % 1_000 * 2);
                let _ = timeout(moment, asking).await;
            }
        });
    }
    while let Some(ended) = timeout(Duration::from_secs(60), tasks.join_next()).await.expect("nobody hangs") {
        ended.unwrap();
    }
    assert!(!states.has_changed().unwrap(), "{:?}", connection.state());
    let channel = soon(connection.channel()).await.unwrap();
    soon(channel.qos(1)).await.unwrap();
}

/// Each handshake succeeds, and the next step fails: such a connection counts as a failed attempt. By a clock that only pretends.
#[tokio::test]
async fn a_broker_that_opens_connections_and_no_channel_is_asked_ever_more_slowly() {
    let (listener, endpoint) = listen().await;
    let uri = format!("amqp://user:secret@{}/v?heartbeat=0&transport=native", endpoint.address());
    let attempts = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counting = Arc::clone(&attempts);
    let _broker = crate::task::AbortOnDrop::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // In a task of its own: the clock may leap over the limits of the peer's reads.
            tokio::spawn(async move {
                let mut peer = Peer::begin(Box::new(stream)).await;
                peer.shake_hands(TUNE).await;
                // `channel.open`, which is answered by the end of the connection.
                peer.next().await;
            });
        }
    });
    let connection = crate::Connection::open(&uri).await.unwrap();
    let _opening = crate::task::AbortOnDrop::spawn(async move { while connection.channel().await.is_err() {} });
    tokio::time::pause();
    tokio::time::sleep(HOUR / 6).await;
    let attempts = attempts.load(std::sync::atomic::Ordering::Relaxed);
    // Up to 30 s between two of them, at random: 15 s on average. Without growth it would be 50 ms.
    assert!((10..150).contains(&attempts), "{attempts} attempts in 10 minutes");
}
