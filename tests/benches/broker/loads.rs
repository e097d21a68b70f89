//! The loads: each runs against one broker once, and returns how long so many messages took.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    link::{Link, NO_PROPERTIES, ack, publish},
};

/// The work of one load.
pub(crate) struct Done {
    pub(crate) messages: u64,
    pub(crate) took: Duration,
    /// Of every call, when there was one in flight.
    pub(crate) latencies: Vec<Duration>,
}

impl Done {
    fn since(began: Instant, messages: u64) -> Self {
        Self { messages, took: began.elapsed(), latencies: Vec::new() }
    }
}

/// Into a queue nobody consumes.
pub(crate) fn publish_only(address: SocketAddr, messages: u64, body_bytes: usize) -> Result<Done> {
    let mut link = Link::connect(address)?;
    link.declare(QUEUE)?;
    let batch = publish("", QUEUE, NO_PROPERTIES, &vec![b'x'; body_bytes]).repeat(BATCH as usize);
    let began = Instant::now();
    for _ in 0..messages / BATCH {
        link.send(&batch)?;
    }
    link.sync()?;
    let done = Done::since(began, messages / BATCH * BATCH);
    link.delete(QUEUE)?;
    Ok(done)
}

/// As much at once as [`WINDOW`], by `frames` that go round.
pub(crate) fn confirmed(address: SocketAddr, messages: u64, frames: &[Vec<u8>]) -> Result<Done> {
    let mut link = Link::connect(address)?.for_throughput();
    link.ask(&crate::link::method((85, 10)).octet(0).frame(1), (85, 11))?;
    let (mut sent, mut confirmed, mut singles) = (0, 0, 0);
    let mut bytes = Vec::new();
    let began = Instant::now();
    // RabbitMQ confirms several at once, or one by one in any order.
    while confirmed + singles < messages {
        bytes.clear();
        while sent < messages && sent < confirmed + singles + WINDOW {
            bytes.extend_from_slice(&frames[sent as usize % frames.len()]);
            sent += 1;
        }
        if !bytes.is_empty() {
            link.send(&bytes)?;
        }
        link.read(|frame| {
            if frame.ids == (60, 80) {
                match (frame.payload.last(), frame.confirmed()) {
                    (Some(1), Some(tag)) if tag > confirmed => (confirmed, singles) = (tag, 0),
                    _ => singles += 1,
                }
            }
        })?;
    }
    Ok(Done::since(began, messages))
}

/// Consumes a full queue, and acknowledges each delivery by itself.
pub(crate) fn consume(address: SocketAddr, messages: u64, prefetch_count: u16) -> Result<Done> {
    let mut link = Link::connect(address)?.for_throughput();
    link.declare(QUEUE)?;
    let one = publish("", QUEUE, NO_PROPERTIES, &[b'x'; 16]);
    for _ in 0..messages / BATCH {
        link.send(&one.repeat(BATCH as usize))?;
    }
    link.send(&one.repeat((messages % BATCH) as usize))?;
    link.sync()?;
    let began = Instant::now();
    link.consume(QUEUE, Some(prefetch_count))?;
    let mut got = 0;
    let mut acks = Vec::new();
    while got < messages {
        acks.clear();
        link.read(|frame| {
            if let (DELIVER, Some(tag)) = (frame.ids, frame.delivery_tag()) {
                acks.extend_from_slice(&ack(tag));
                got += 1;
            }
        })?;
        link.send(&acks)?;
    }
    link.sync()?;
    let done = Done::since(began, messages);
    link.delete(QUEUE)?;
    Ok(done)
}

/// Requests to a queue, answers to another one; so many at any time on their way.
pub(crate) fn calls(address: SocketAddr, messages: u64, in_flight: u64) -> Result<Done> {
    let mut server = Link::connect(address)?.for_throughput();
    let mut client = Link::connect(address)?.for_throughput();
    server.declare(QUEUE)?;
    client.declare(REPLIES)?;
    client.consume(REPLIES, None)?;
    client.sync()?;
    server.consume(QUEUE, Some(2_048))?;
    let is_over = AtomicBool::new(false);
    // Correlation id and reply_to; the answer has the correlation id alone.
    let request = publish("", QUEUE, b"\x06\x00\x0812345678\x07replies", &[b'x'; 32]);
    let answer = publish("", REPLIES, b"\x04\x00\x0812345678", &[b'x'; 32]);
    let mut latencies = Vec::new();
    let took = thread::scope(|scope| -> Result<Duration> {
        let serving = scope.spawn(|| -> Result<()> {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                answers.clear();
                server.read(|frame| {
                    if let (DELIVER, Some(tag)) = (frame.ids, frame.delivery_tag()) {
                        answers.extend_from_slice(&answer);
                        answers.extend_from_slice(&ack(tag));
                    }
                })?;
                server.send(&answers)?;
            }
            Ok(())
        });
        let began = Instant::now();
        let (mut sent, mut answered) = (in_flight, 0);
        client.send(&request.repeat(in_flight as usize))?;
        let mut requests = Vec::new();
        let mut last = began;
        while answered < messages {
            let before = answered;
            client.read(|frame| answered += u64::from(frame.ids == DELIVER))?;
            if in_flight == 1 && answered > before {
                latencies.push(last.elapsed());
                last = Instant::now();
            }
            requests.clear();
            while sent < messages && sent < answered + in_flight {
                requests.extend_from_slice(&request);
                sent += 1;
            }
            client.send(&requests)?;
        }
        let took = began.elapsed();
        is_over.store(true, Ordering::Relaxed);
        // One more wakes the server, so that it sees that it is over.
        client.send(&request)?;
        serving.join().map_err(|_| "the server panicked")??;
        Ok(took)
    })?;
    client.delete(QUEUE)?;
    client.delete(REPLIES)?;
    Ok(Done { messages, took, latencies })
}

/// Every message to so many queues, all consumed. Counts deliveries.
pub(crate) fn fan_out(address: SocketAddr, deliveries: u64, queues: u64) -> Result<Done> {
    let mut consumer = Link::connect(address)?.for_throughput();
    consumer.declare_exchange(EXCHANGE, "fanout")?;
    let name = |queue: u64| format!("{QUEUE}-{queue}");
    for queue in 0..queues {
        consumer.declare(&name(queue))?;
        consumer.ask(&bind(&name(queue), ""), (50, 21))?;
        consumer.consume(&name(queue), None)?;
    }
    consumer.sync()?;
    let frame = publish(EXCHANGE, "", NO_PROPERTIES, &[b'x'; 16]);
    let (mut publisher, messages) = (Link::connect(address)?, deliveries / queues);
    let took = stream(messages, (WINDOW / queues).max(4), queues, &frame, &mut publisher, |got| {
        consumer.read(|frame| *got += u64::from(frame.ids == DELIVER))
    })?;
    for queue in 0..queues {
        consumer.delete(&name(queue))?;
    }
    consumer.delete_exchange(EXCHANGE)?;
    Ok(Done { messages: messages * queues, took, latencies: Vec::new() })
}

/// From a publisher through a queue to a consumer that need not acknowledge.
pub(crate) fn through(address: SocketAddr, messages: u64, body_bytes: usize) -> Result<Done> {
    let mut consumer = Link::connect(address)?.for_throughput();
    consumer.declare(QUEUE)?;
    consumer.consume(QUEUE, None)?;
    consumer.sync()?;
    let frame = publish("", QUEUE, NO_PROPERTIES, &vec![b'x'; body_bytes]);
    let mut publisher = Link::connect(address)?;
    let took = stream(messages, window_of(body_bytes), 1, &frame, &mut publisher, |got| {
        consumer.read(|frame| *got += u64::from(frame.ids == DELIVER))
    })?;
    consumer.delete(QUEUE)?;
    Ok(Done { messages, took, latencies: Vec::new() })
}

/// The same bytes through no broker.
pub(crate) fn relayed(relay: &crate::relay::Relay, messages: u64, body_bytes: usize) -> Result<Done> {
    use std::io::{Read, Write};
    let (mut from, mut to) = relay.pair()?;
    let frame = publish("", QUEUE, NO_PROPERTIES, &vec![b'x'; body_bytes]);
    let mut buffer = vec![0; 512 * 1_024];
    let mut bytes = 0;
    let length = frame.len() as u64;
    let took = stream_by(
        messages,
        window_of(body_bytes),
        1,
        &frame,
        |bytes| Ok(from.write_all(bytes)?),
        |got| {
            bytes += to.read(&mut buffer)? as u64;
            *got = bytes / length;
            Ok(())
        },
    )?;
    Ok(Done { messages, took, latencies: Vec::new() })
}

fn stream(
    messages: u64,
    window: u64,
    copies: u64,
    frame: &[u8],
    publisher: &mut Link,
    read: impl FnMut(&mut u64) -> Result<()> + Send,
) -> Result<Duration> {
    stream_by(messages, window, copies, frame, |bytes| publisher.send(bytes), read)
}

/// Writes on this thread, at most `window` messages ahead of what the other one reads.
fn stream_by(
    messages: u64,
    window: u64,
    copies: u64,
    frame: &[u8],
    mut write: impl FnMut(&[u8]) -> Result<()>,
    mut read: impl FnMut(&mut u64) -> Result<()> + Send,
) -> Result<Duration> {
    let got = AtomicU64::new(0);
    let writer = thread::current();
    // Half a window at a time, but no more than is worth one write.
    let batch = (window / 2).clamp(1, (1_048_576 / frame.len() as u64).max(1)).min(messages);
    let bytes = frame.repeat(batch as usize);
    let began = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let reading = scope.spawn(|| -> Result<()> {
            let mut count = 0;
            while count < messages / batch * batch * copies {
                read(&mut count)?;
                got.store(count, Ordering::Release);
                writer.unpark();
            }
            Ok(())
        });
        let mut sent = 0;
        while sent + batch <= messages {
            while sent + batch > got.load(Ordering::Acquire) / copies + window {
                if reading.is_finished() {
                    break;
                }
                thread::park_timeout(Duration::from_millis(100));
            }
            write(&bytes)?;
            sent += batch;
        }
        reading.join().map_err(|_| "the reader panicked")?
    })?;
    Ok(began.elapsed())
}

/// A topic exchange with so many bindings, in 100 queues.
pub(crate) struct Topics {
    link: Link,
    pub(crate) frames: Vec<Vec<u8>>,
}

impl Topics {
    pub(crate) fn set_up(address: SocketAddr, bindings: usize) -> Result<Self> {
        let mut link = Link::connect(address)?;
        link.declare_exchange(EXCHANGE, "topic")?;
        for queue in 0..100 {
            // Full at once: what is measured is the way there.
            let fields = b"\x0cx-max-lengthI\0\0\0\x01";
            let declare = crate::link::method((50, 10)).short(0).text(&format!("{QUEUE}-{queue}")).octet(0);
            link.ask(&declare.table(fields).frame(1), (50, 11))?;
        }
        for binding in 0..bindings {
            let pattern = match binding % 3 {
                0 => format!("tenant.{binding}.created"),
                1 => format!("tenant.{binding}.*"),
                _ => format!("#.{binding}.created"),
            };
            link.ask(&bind(&format!("{QUEUE}-{}", binding % 100), &pattern), (50, 21))?;
        }
        let keys = (0..1_000).map(|key| format!("tenant.{}.created", key * bindings / 1_000));
        let frames = keys.map(|key| publish(EXCHANGE, &key, NO_PROPERTIES, &[b'x'; 16])).collect();
        Ok(Self { link, frames })
    }

    pub(crate) fn tear_down(mut self) -> Result<()> {
        for queue in 0..100 {
            self.link.delete(&format!("{QUEUE}-{queue}"))?;
        }
        self.link.delete_exchange(EXCHANGE)
    }
}

fn bind(queue: &str, routing_key: &str) -> Vec<u8> {
    crate::link::method((50, 20)).short(0).text(queue).text(EXCHANGE).text(routing_key).octet(0).table(&[]).frame(1)
}

/// Bytes on their way are bounded, too.
fn window_of(body_bytes: usize) -> u64 {
    (2_097_152 / body_bytes as u64).clamp(8, WINDOW)
}

pub(crate) const QUEUE: &str = "rpc-bench";
const REPLIES: &str = "replies";
const EXCHANGE: &str = "rpc-bench-exchange";
const DELIVER: (u16, u16) = (60, 60);
/// Publishes in one write.
const BATCH: u64 = 500;
/// Messages on their way.
const WINDOW: u64 = 2_000;
