//! The rights that each method needs, and the users that may log in.

use amq_protocol::{
    protocol::{exchange, tx},
    types::AMQPValue,
};

use super::*;
use crate::broker::core::session::access::Right;
use Right::{Configure, Read, Write};

/// A method, and all the rights it needs: `(right, name)`, queues and exchanges alike.
type Row = (&'static str, fn() -> AMQPClass, &'static [(Right, &'static str)]);

const ROWS: &[Row] = &[
    ("queue.declare", || queue_declare("new", false, None), &[(Configure, "new")]),
    ("queue.declare of one that is there", || queue_declare("q", false, Some("dlx")), &[(Configure, "q")]),
    ("queue.declare passively", || queue_declare("q", true, Some("dlx")), &[]),
    (
        "queue.declare with dead letters",
        || queue_declare("new", false, Some("dlx")),
        &[(Configure, "new"), (Read, "new"), (Write, "dlx")],
    ),
    (
        "queue.declare with dead letters to the default exchange",
        || queue_declare("new", false, Some("")),
        &[(Configure, "new"), (Read, "new"), (Write, "amq.default")],
    ),
    (
        "queue.bind",
        || {
            let (queue, exchange, routing_key) = ("q".into(), "source".into(), "key".into());
            let bind = queue::Bind { queue, exchange, routing_key, nowait: false, arguments: FieldTable::default() };
            AMQPClass::Queue(queue::AMQPMethod::Bind(bind))
        },
        &[(Write, "q"), (Read, "source")],
    ),
    (
        "queue.unbind",
        || {
            let (queue, exchange, routing_key) = ("q".into(), "source".into(), "key".into());
            let unbind = queue::Unbind { queue, exchange, routing_key, arguments: FieldTable::default() };
            AMQPClass::Queue(queue::AMQPMethod::Unbind(unbind))
        },
        &[(Write, "q"), (Read, "source")],
    ),
    (
        "queue.purge",
        || AMQPClass::Queue(queue::AMQPMethod::Purge(queue::Purge { queue: "q".into(), nowait: false })),
        &[(Read, "q")],
    ),
    (
        "queue.delete",
        || {
            let delete = queue::Delete { queue: "q".into(), if_unused: false, if_empty: false, nowait: false };
            AMQPClass::Queue(queue::AMQPMethod::Delete(delete))
        },
        &[(Configure, "q")],
    ),
    ("exchange.declare", || exchange_declare("new", false, None), &[(Configure, "new")]),
    ("exchange.declare of one that is there", || exchange_declare("e", false, Some("ae")), &[(Configure, "e")]),
    ("exchange.declare passively", || exchange_declare("e", true, Some("ae")), &[]),
    (
        "exchange.declare with an alternate",
        || exchange_declare("new", false, Some("ae")),
        &[(Configure, "new"), (Read, "new"), (Write, "ae")],
    ),
    (
        "exchange.delete",
        || {
            let delete = exchange::Delete { exchange: "e".into(), if_unused: false, nowait: false };
            AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete))
        },
        &[(Configure, "e")],
    ),
    (
        "exchange.bind",
        || {
            let (destination, source, routing_key) = ("e".into(), "source".into(), "key".into());
            let arguments = FieldTable::default();
            let bind = exchange::Bind { destination, source, routing_key, nowait: false, arguments };
            AMQPClass::Exchange(exchange::AMQPMethod::Bind(bind))
        },
        &[(Write, "e"), (Read, "source")],
    ),
    (
        "exchange.unbind",
        || {
            let (destination, source, routing_key) = ("e".into(), "source".into(), "key".into());
            let arguments = FieldTable::default();
            let unbind = exchange::Unbind { destination, source, routing_key, nowait: false, arguments };
            AMQPClass::Exchange(exchange::AMQPMethod::Unbind(unbind))
        },
        &[(Write, "e"), (Read, "source")],
    ),
    (
        "basic.get",
        || AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get { queue: "q".into(), no_ack: true })),
        &[(Read, "q")],
    ),
    ("basic.consume", || consume("q"), &[(Read, "q")]),
    ("basic.consume of direct replies", || consume("amq.rabbitmq.reply-to"), &[]),
    ("basic.publish", || publish("e"), &[(Write, "e")]),
    ("basic.publish to the default exchange", || publish(""), &[(Write, "amq.default")]),
    ("tx.select", || AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})), &[]),
];

#[test]
fn a_method_needs_these_rights_and_no_others() {
    for (name, method, needed) in ROWS {
        assert_eq!(refusal(method(), needed), "", "{name} with all it needs");
        for missing in 0..needed.len() {
            let mut given = needed.to_vec();
            let (_, resource) = given.remove(missing);
            let text = refusal(method(), &given);
            let shown = format!("'{resource}' in vhost '/' refused for user 'ann'");
            let is_shown = text.starts_with("ACCESS_REFUSED - access to ") && text.ends_with(&shown);
            assert!(is_shown, "{name} without {:?}: {text}", needed[missing]);
        }
    }
}

/// The fault that ann gets when she has only these rights; empty if the method succeeds.
fn refusal(method: AMQPClass, rights: &[(Right, &str)]) -> String {
    let pattern = |right| {
        let names: Vec<_> = rights.iter().filter(|(given, _)| *given == right).map(|(_, name)| *name).collect();
        Pattern::new(&format!("^({})$", if names.is_empty() { "nothing".to_owned() } else { names.join("|") })).unwrap()
    };
    let permissions = Permissions::new(pattern(Configure), pattern(Write), pattern(Read));
    let mut bench = Bench::with_users([("guest", user("guest")), ("ann", limited(permissions))]);
    let guest = bench.connect();
    bench.send(guest, 1, queue_declare("q", false, Some("dlx")));
    bench.send(guest, 1, exchange_declare("e", false, Some("ae")));
    bench.send(guest, 1, exchange_declare("source", false, None));
    let ann = bench.log_in(Peer::default(), "PLAIN", "\0ann\0ann").unwrap();
    bench.open_vhost(ann);
    let is_publish = matches!(method, AMQPClass::Basic(basic::AMQPMethod::Publish(_)));
    bench.send(ann, 1, method);
    if is_publish {
        bench.frame(ann, FrameKind::Header, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    close_text(&mut bench, ann).unwrap_or_default()
}

#[test]
fn a_topic_needs_a_right_of_its_own() {
    let pattern = |pattern| Pattern::new(pattern).unwrap();
    let mut permissions = Permissions::new(pattern(".*"), pattern(".*"), pattern(".*"));
    let topic = TopicPermissions { write: pattern("^w"), read: pattern("^r") };
    permissions.limit_topic("amq.topic".to_owned(), topic);
    let mut bench = Bench::with_users([("ann", limited(permissions))]);
    for (exchange, routing_key, may_publish, may_bind) in
        [("amq.topic", "w", true, false), ("amq.topic", "r", false, true), ("amq.direct", "x", true, true)]
    {
        let ann = bench.log_in(Peer::default(), "PLAIN", "\0ann\0ann").unwrap();
        bench.open_vhost(ann);
        bench.send(ann, 1, queue_declare("q", false, None));
        let nowait = false;
        let (queue, arguments) = ("q".into(), FieldTable::default());
        let bind = queue::Bind { queue, exchange: exchange.into(), routing_key: routing_key.into(), nowait, arguments };
        bench.send(ann, 1, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)));
        let refused = format!(
            "ACCESS_REFUSED - access to topic '{routing_key}' in exchange '{exchange}' in vhost '/' refused for user 'ann'"
        );
        assert_eq!(close_text(&mut bench, ann), (!may_bind).then(|| refused.clone()));
        let open = channel_class::Open {};
        bench.send(ann, 2, AMQPClass::Channel(channel_class::AMQPMethod::Open(open)));
        let (exchange, routing_key) = (exchange.into(), routing_key.into());
        let publish = basic::Publish { exchange, routing_key, mandatory: false, immediate: false };
        bench.send(ann, 2, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)));
        bench.frame(ann, FrameKind::Header, 2, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(close_text(&mut bench, ann), (!may_publish).then_some(refused));
    }
}

#[test]
fn a_vhost_is_for_those_with_permissions_on_it() {
    let bob = User { grants: Grants::On(HashMap::new()), ..user("bob") };
    let mut bench = Bench::with_users([("bob", bob)]);
    let id = bench.log_in(Peer::default(), "PLAIN", "\0bob\0bob").unwrap();
    bench.send(id, 0, tune_ok());
    let open = connection::Open { virtual_host: "/".into() };
    bench.send(id, 0, AMQPClass::Connection(connection::AMQPMethod::Open(open)));
    let text = close_text(&mut bench, id);
    assert_eq!(text.as_deref(), Some("NOT_ALLOWED - access to vhost '/' refused for user 'bob'"));
}

#[test]
fn a_loopback_user_is_refused_from_other_machines() {
    let guest = || User { is_loopback_only: true, ..user("guest") };
    let mut bench = Bench::with_users([("guest", guest()), ("ann", user("ann"))]);
    let far = || Peer { is_loopback: false, certificate_name: None, ..Peer::default() };
    let near = || Peer { is_loopback: true, certificate_name: None, ..Peer::default() };
    assert!(bench.log_in(near(), "PLAIN", "\0guest\0guest").is_some());
    assert!(bench.log_in(far(), "PLAIN", "\0guest\0guest").is_none());
    assert!(bench.log_in(far(), "PLAIN", "\0ann\0ann").is_some());
}

#[test]
fn a_certificate_is_as_good_as_a_password() {
    let mut bench = Bench::with_users([("ann", User::default())]);
    let with = |name: &str| Peer { is_loopback: false, certificate_name: Some(name.to_owned()), ..Peer::default() };
    assert!(bench.log_in(with("ann"), "EXTERNAL", "").is_some());
    assert!(bench.log_in(with("eve"), "EXTERNAL", "ann").is_none(), "nobody knows her");
    assert!(bench.log_in(Peer::default(), "EXTERNAL", "ann").is_none(), "it is not offered without one");
    assert!(bench.log_in(with("ann"), "PLAIN", "\0ann\0").is_none(), "she has no password");
}

/// The text of the close that a client was sent.
fn close_text(bench: &mut Bench, id: ConnectionId) -> Option<String> {
    let mut buffer = bench.received.remove(&id).unwrap_or_default();
    let (batch, _) = Decoder::new(131_072).cut(&mut buffer, usize::MAX);
    batch.frames().filter(|frame| frame.kind == FrameKind::Method).find_map(|frame| {
        match read_method(frame.payload, Role::Server, DEPTH_MAX) {
            Ok(Method::Other(class)) => match *class {
                AMQPClass::Channel(channel_class::AMQPMethod::Close(close)) => Some(close.reply_text.to_string()),
                AMQPClass::Connection(connection::AMQPMethod::Close(close)) => Some(close.reply_text.to_string()),
                _ => None,
            },
            _ => None,
        }
    })
}

fn user(name: &str) -> User {
    User::with_password(name)
}

fn limited(permissions: Permissions) -> User {
    let grants = Grants::On(HashMap::from([("/".to_owned(), Arc::new(permissions))]));
    User { grants, ..user("ann") }
}

fn queue_declare(name: &str, passive: bool, dead_letter_exchange: Option<&str>) -> AMQPClass {
    let (durable, exclusive, auto_delete, nowait) = (false, false, false, false);
    let arguments = argument("x-dead-letter-exchange", dead_letter_exchange);
    let declare = queue::Declare { queue: name.into(), passive, durable, exclusive, auto_delete, nowait, arguments };
    AMQPClass::Queue(queue::AMQPMethod::Declare(declare))
}

fn exchange_declare(name: &str, passive: bool, alternate_exchange: Option<&str>) -> AMQPClass {
    let (durable, auto_delete, internal, nowait) = (false, false, false, false);
    let (exchange, kind) = (name.into(), "fanout".into());
    let arguments = argument("alternate-exchange", alternate_exchange);
    let declare = exchange::Declare { exchange, kind, passive, durable, auto_delete, internal, nowait, arguments };
    AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))
}

fn argument(name: &str, value: Option<&str>) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some(value) = value {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    arguments
}

fn consume(queue: &str) -> AMQPClass {
    let (queue, consumer_tag, no_ack) = (queue.into(), "t".into(), true);
    let (no_local, exclusive, nowait, arguments) = (false, false, false, FieldTable::default());
    let consume = basic::Consume { queue, consumer_tag, no_local, no_ack, exclusive, nowait, arguments };
    AMQPClass::Basic(basic::AMQPMethod::Consume(consume))
}

fn publish(exchange: &str) -> AMQPClass {
    let (exchange, routing_key) = (exchange.into(), "key".into());
    AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
        exchange,
        routing_key,
        mandatory: false,
        immediate: false,
    }))
}
