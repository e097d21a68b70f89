//! Streams with many consumers: no step looks at more of them than it serves.

use super::*;

const MANY: usize = 3_000;

/// A stream `s` with many consumers on channel 1 of the client.
fn bench(prefetch_count: u16) -> (Bench, ConnectionId, ConnectionId) {
    let mut bench = Bench::new();
    let (publisher, reader) = (bench.connect(), bench.connect());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let declare = queue::Declare { queue: "s".into(), durable: true, arguments, ..Default::default() };
    bench.send(publisher, 1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    for at in 0..MANY {
        bench.consume_as(reader, "s", &at.to_string(), prefetch_count);
    }
    bench.received(reader);
    (bench, publisher, reader)
}

/// Does what is due, and returns the pieces, of which none is large.
fn finish(bench: &mut Bench) -> usize {
    let mut pieces = 0;
    while bench.core.next_timer().is_some_and(|due| due <= bench.now.instant) {
        bench.core.tick(bench.now);
        assert!(bench.core.sessions.work <= 3 * crate::broker::core::rules::WORK_MAX, "{}", bench.core.sessions.work);
        bench.collect();
        bench.core.check();
        pieces += 1;
    }
    pieces
}

fn bodies(bench: &mut Bench, id: ConnectionId) -> usize {
    bench.received(id).iter().filter(|line| *line == "x").count()
}

#[test]
fn a_message_of_a_stream_goes_to_many_consumers_in_pieces() {
    let (mut bench, publisher, reader) = bench(10);
    bench.publish(publisher, "s", "x");
    let pieces = finish(&mut bench);
    assert_eq!(bodies(&mut bench, reader), MANY);
    assert!(pieces >= 1, "the publish was all at once");
}

#[test]
fn an_acknowledgement_looks_at_no_other_consumer_of_the_stream() {
    for prefetch_count in [1, 2] {
        let (mut bench, publisher, reader) = bench(prefetch_count);
        for _ in 0..2 {
            bench.publish(publisher, "s", "x");
            finish(&mut bench);
        }
        assert_eq!(bodies(&mut bench, reader), MANY * usize::from(prefetch_count));
        bench.ack(reader, 7, false);
        assert!(bench.core.sessions.work <= 2, "{}", bench.core.sessions.work);
        assert_eq!(bodies(&mut bench, reader), usize::from(prefetch_count == 1), "it had room for one");
        bench.core.check();
    }
}

#[test]
fn consumers_that_come_and_go_leave_nothing_behind() {
    let (mut bench, publisher, reader) = bench(1);
    for _ in 0..3 * MANY {
        let cancel = basic::Cancel { consumer_tag: "0".into(), nowait: true };
        bench.send(reader, 1, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
        bench.consume_as(reader, "s", "0", 1);
    }
    bench.core.check();
    bench.publish(publisher, "s", "x");
    finish(&mut bench);
    assert_eq!(bodies(&mut bench, reader), MANY);
}
