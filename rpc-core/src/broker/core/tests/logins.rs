//! Answers to logins that have to wait after many failures.

use std::time::Duration;

use amq_protocol::{
    protocol::{AMQPClass, connection},
    types::{AMQPValue, FieldTable},
};

use crate::broker::core::{
    interface::{ConnectionId, Flow, Peer},
    session::access::User,
    tests::{Bench, tune_ok},
};

fn bench() -> Bench {
    Bench::with_users([("ann", User::with_password("a")), ("bob", User::with_password("b"))])
}

/// A client at an address that sends its login, and the answers it has got.
fn log_in(bench: &mut Bench, origin: &str, user: &str, password: &str) -> (ConnectionId, Vec<String>) {
    let peer = Peer { origin: origin.to_owned(), ..Peer::default() };
    let id = bench.core.open(peer, std::sync::Arc::default(), false).unwrap();
    bench.collect();
    bench.received(id);
    let mut capabilities = FieldTable::default();
    capabilities.insert("authentication_failure_close".into(), AMQPValue::Boolean(true));
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let start_ok = connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response: format!("\0{user}\0{password}").into_bytes().into(),
        locale: "en_US".into(),
    };
    bench.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)));
    (id, bench.received(id))
}

fn after(bench: &mut Bench, pause: Duration) {
    bench.now.instant += pause;
    bench.core.tick(bench.now);
    bench.collect();
}

const REFUSED: [&str; 1] = ["connection.close 403"];
const TUNE: [&str; 1] = ["(10, 30)"];
const NOTHING: [&str; 0] = [];

#[test]
fn the_sixth_wrong_password_of_a_minute_is_answered_after_a_second() {
    let mut bench = bench();
    for _ in 0..5 {
        assert_eq!(log_in(&mut bench, "1.2.3.4", "ann", "x").1, REFUSED);
    }
    let (id, answers) = log_in(&mut bench, "1.2.3.4", "ann", "x");
    assert_eq!(answers, NOTHING);
    let closing_limit = bench.core.negotiated(id).unwrap().closing_limit;
    assert_eq!(closing_limit, Some(Duration::from_secs(4)), "the second, and the pause of every refused client");
    let due = bench.core.next_timer().unwrap();
    assert_eq!(due - bench.now.instant, Duration::from_secs(1), "the timer wakes the broker");
    after(&mut bench, Duration::from_millis(999));
    assert_eq!(bench.received(id), NOTHING);
    after(&mut bench, Duration::from_millis(1));
    assert_eq!(bench.received(id), REFUSED);
}

#[test]
fn good_logins_of_others_are_answered_at_once() {
    let mut bench = bench();
    for _ in 0..20 {
        log_in(&mut bench, "1.2.3.4", "ann", "x");
    }
    assert_eq!(log_in(&mut bench, "1.2.3.4", "bob", "b").1, TUNE, "another user");
    assert_eq!(log_in(&mut bench, "4.3.2.1", "ann", "a").1, TUNE, "the same user from elsewhere");
    let (id, answers) = log_in(&mut bench, "1.2.3.4", "ann", "a");
    assert_eq!(answers, NOTHING, "or a guess were known to be right before its answer");
    assert_eq!(bench.core.negotiated(id).unwrap().closing_limit, None);
    after(&mut bench, Duration::from_secs(1));
    assert_eq!(bench.received(id), TUNE);
    bench.open_vhost(id);
    bench.declare(id, "q", false);
    assert_eq!(bench.received(id), ["(50, 11)"]);
}

#[test]
fn a_client_that_does_not_wait_for_its_answer_is_disconnected() {
    let mut bench = bench();
    for _ in 0..6 {
        log_in(&mut bench, "1.2.3.4", "ann", "x");
    }
    let (hasty, _) = log_in(&mut bench, "1.2.3.4", "ann", "a");
    assert!(matches!(bench.send(hasty, 0, tune_ok()), Flow::ClosePaused(_)));
    let (gone, _) = log_in(&mut bench, "1.2.3.4", "ann", "a");
    bench.close(gone);
    // A later connection with the same id gets no answer that was meant for the one that has gone.
    let id = bench.core.open(Peer::default(), std::sync::Arc::default(), false).unwrap();
    bench.collect();
    bench.received(id);
    after(&mut bench, Duration::from_secs(1));
    assert_eq!((bench.received(id), bench.received(gone)), (Vec::new(), Vec::new()));
    assert_eq!(bench.core.next_timer(), None, "nothing is left behind");
}
