//! Tests of the whole router. Each kind of table has tests in its own file.

use amq_protocol::types::{AMQPValue, FieldTable};

use super::{router::Removed, *};

const Q1: QueueId = QueueId(1);
const Q2: QueueId = QueueId(2);
const Q3: QueueId = QueueId(3);

/// A router with the queues `q1`, `q2` and `q3`.
fn router() -> Router {
    let mut router = Router::new();
    for (name, id) in [("q1", Q1), ("q2", Q2), ("q3", Q3)] {
        router.add_queue(name, id);
    }
    router
}

fn declare(router: &mut Router, name: &str, kind: ExchangeKind, change: impl FnOnce(&mut ExchangeOptions)) {
    let mut options = ExchangeOptions::new(kind);
    change(&mut options);
    assert_eq!(router.declare_exchange(name, options), Ok(Declared::New));
}

fn auto_delete(options: &mut ExchangeOptions) {
    options.auto_delete = true;
}

fn alternate(name: &str) -> impl FnOnce(&mut ExchangeOptions) {
    |options| options.alternate_exchange = Some(name.to_owned())
}

fn none() -> FieldTable {
    FieldTable::default()
}

fn tagged(value: &str) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("tag".into(), AMQPValue::LongString(value.into()));
    table
}

fn bind(router: &mut Router, source: &str, destination: Destination<'_>, routing_key: &str) {
    router.bind(source, destination, routing_key, &none()).unwrap();
}

fn bind_queue(router: &mut Router, source: &str, queue: QueueId, routing_key: &str) {
    bind(router, source, Destination::Queue(queue), routing_key);
}

fn bind_exchange(router: &mut Router, source: &str, destination: &str, routing_key: &str) {
    bind(router, source, Destination::Exchange(destination), routing_key);
}

fn unbind_queue(router: &mut Router, source: &str, queue: QueueId, routing_key: &str) -> Vec<String> {
    router.unbind(source, Destination::Queue(queue), routing_key, &none()).unwrap()
}

/// The queues that a message with these keys reaches, sorted.
fn route(router: &Router, exchange: &str, routing_keys: &[&str]) -> Vec<QueueId> {
    let mut routes = Routes::new();
    router.route_all(exchange, routing_keys, &(), &mut routes).unwrap();
    let mut queues = routes.queues().to_vec();
    queues.sort_unstable();
    queues
}

#[test]
fn virtual_host_starts_with_the_exchanges_of_rabbitmq() {
    let router = Router::new();
    let mut found: Vec<_> =
        router.exchanges().map(|(name, options)| (name, options.kind.name(), options.internal)).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("", "direct", false),
            ("amq.direct", "direct", false),
            ("amq.fanout", "fanout", false),
            ("amq.headers", "headers", false),
            ("amq.match", "headers", false),
            ("amq.rabbitmq.trace", "topic", true),
            ("amq.topic", "topic", false),
        ]
    );
    assert!(router.exchanges().all(|(_, options)| options.durable && !options.auto_delete));
    assert_eq!(router.exchanges().count(), 7);
    assert_eq!(router.exchange("nosuch"), None);
}

#[test]
fn default_exchange_reaches_the_queue_of_that_name() {
    let mut router = router();
    assert_eq!(route(&router, "", &["q2"]), [Q2]);
    assert_eq!(route(&router, "", &["nosuch"]), []);
    router.remove_queue(Q2);
    assert_eq!(route(&router, "", &["q2"]), []);
    router.add_queue("q2", QueueId(22));
    assert_eq!(route(&router, "", &["q2"]), [QueueId(22)]);
}

#[test]
fn name_taken_over_by_another_queue_survives_the_removal_of_the_first() {
    let mut router = router();
    router.add_queue("q1", QueueId(11));
    router.remove_queue(Q1);
    assert_eq!(route(&router, "", &["q1"]), [QueueId(11)]);
    router.add_queue("renamed", QueueId(11));
    assert_eq!(route(&router, "", &["q1"]), []);
    assert_eq!(route(&router, "", &["renamed"]), [QueueId(11)]);
}

#[test]
fn default_exchange_can_be_neither_declared_nor_bound_nor_deleted() {
    let mut router = router();
    let refused = RoutingError::DefaultExchange;
    let options = ExchangeOptions::new(ExchangeKind::Direct);
    assert_eq!(router.declare_exchange("", options), Err(refused.clone()));
    assert_eq!(router.bind("", Destination::Queue(Q1), "k", &none()), Err(refused.clone()));
    assert_eq!(router.bind("amq.direct", Destination::Exchange(""), "k", &none()), Err(refused.clone()));
    assert_eq!(router.unbind("", Destination::Queue(Q1), "q1", &none()), Err(refused.clone()));
    assert_eq!(router.unbind("amq.direct", Destination::Exchange(""), "k", &none()), Err(refused));
    assert_eq!(router.delete_exchange(""), Removed { existed: true, exchanges: vec![] });
    assert_eq!(route(&router, "", &["q1"]), [Q1]);
}

#[test]
fn declaring_again_compares_and_changes_nothing() {
    let mut router = Router::new();
    declare(&mut router, "e", ExchangeKind::Topic, auto_delete);
    let same = router.exchange("e").unwrap().clone();
    assert_eq!(router.declare_exchange("e", same), Ok(Declared::Existing));
    let error = router.declare_exchange("e", ExchangeOptions::new(ExchangeKind::Topic)).unwrap_err();
    assert_eq!(error.to_string(), "inequivalent arg 'auto_delete': received 'false' but current is 'true'");
    assert!(router.exchange("e").unwrap().auto_delete);
}

#[test]
fn direct_exchange_reaches_the_queues_of_that_key_only() {
    let mut router = router();
    bind_queue(&mut router, "amq.direct", Q1, "a");
    bind_queue(&mut router, "amq.direct", Q2, "a");
    bind_queue(&mut router, "amq.direct", Q3, "*");
    assert_eq!(route(&router, "amq.direct", &["a"]), [Q1, Q2]);
    assert_eq!(route(&router, "amq.direct", &["A"]), []);
    assert_eq!(route(&router, "amq.direct", &["*"]), [Q3]);
    assert_eq!(route(&router, "amq.direct", &[""]), []);
}

#[test]
fn fanout_exchange_ignores_the_key() {
    let mut router = router();
    bind_queue(&mut router, "amq.fanout", Q1, "a");
    bind_queue(&mut router, "amq.fanout", Q2, "");
    assert_eq!(route(&router, "amq.fanout", &["whatever"]), [Q1, Q2]);
}

#[test]
fn queue_with_many_matching_bindings_is_reached_once() {
    let mut router = router();
    for pattern in ["#", "*", "a", "#.a.#"] {
        bind_queue(&mut router, "amq.topic", Q1, pattern);
    }
    bind_exchange(&mut router, "amq.topic", "amq.fanout", "a");
    bind_queue(&mut router, "amq.fanout", Q1, "");
    assert_eq!(route(&router, "amq.topic", &["a"]), [Q1]);
}

#[test]
fn all_keys_of_a_message_route_and_each_queue_is_reached_once() {
    let mut router = router();
    bind_queue(&mut router, "amq.direct", Q1, "a");
    bind_queue(&mut router, "amq.direct", Q1, "b");
    bind_queue(&mut router, "amq.direct", Q2, "b");
    assert_eq!(route(&router, "amq.direct", &["a", "b", "a"]), [Q1, Q2]);
    assert_eq!(route(&router, "", &["q3", "q1", "q3"]), [Q1, Q3]);
}

#[test]
fn routing_appends_until_the_buffer_is_cleared() {
    let mut router = router();
    bind_queue(&mut router, "amq.direct", Q1, "a");
    bind_queue(&mut router, "amq.direct", Q2, "b");
    let mut routes = Routes::new();
    for key in ["a", "b", "a"] {
        router.route_all("amq.direct", &[key], &(), &mut routes).unwrap();
    }
    assert_eq!(routes.queues(), [Q1, Q2]);
    routes.clear();
    assert!(routes.queues().is_empty());
    router.route_all("", &["q1"], &(), &mut routes).unwrap();
    assert_eq!(routes.queues(), [Q1]);
}

#[test]
fn missing_exchange_is_an_error_and_reaches_nothing() {
    let router = router();
    let mut routes = Routes::new();
    let missing = RoutingError::NoSuchExchange("nosuch".to_owned());
    assert_eq!(router.route_all("nosuch", &["q1"], &(), &mut routes), Err(missing));
    assert!(routes.queues().is_empty());
}

#[test]
fn binding_needs_both_ends() {
    let mut router = router();
    let missing = |name: &str| Err(RoutingError::NoSuchExchange(name.to_owned()));
    assert_eq!(router.bind("s", Destination::Exchange("d"), "", &none()), missing("s"));
    assert_eq!(router.bind("amq.direct", Destination::Exchange("d"), "", &none()), missing("d"));
    let queue = QueueId(99);
    assert_eq!(
        router.bind("amq.direct", Destination::Queue(queue), "", &none()),
        Err(RoutingError::NoSuchQueue(queue))
    );
    assert_eq!(router.bindings().count(), 0);
}

#[test]
fn bad_x_match_is_refused_by_headers_exchanges_only() {
    let mut router = router();
    let mut arguments = FieldTable::default();
    arguments.insert("x-match".into(), AMQPValue::LongString("maybe".into()));
    for exchange in ["amq.direct", "amq.fanout", "amq.topic"] {
        assert_eq!(router.bind(exchange, Destination::Queue(Q1), "", &arguments), Ok(()));
    }
    let value = AMQPValue::LongString("maybe".into());
    assert_eq!(
        router.bind("amq.headers", Destination::Queue(Q1), "", &arguments),
        Err(RoutingError::InvalidXMatch(value))
    );
    assert_eq!(router.bindings().count(), 3);
}

#[test]
fn binding_twice_is_one_binding() {
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        let mut router = router();
        bind_queue(&mut router, exchange, Q1, "a");
        bind_queue(&mut router, exchange, Q1, "a");
        assert_eq!(router.bindings().count(), 1, "{exchange}");
        unbind_queue(&mut router, exchange, Q1, "a");
        assert_eq!(route(&router, exchange, &["a"]), [], "{exchange}");
        assert!(!router.is_exchange_in_use(exchange), "{exchange}");
    }
}

#[test]
fn arguments_and_key_are_part_of_a_binding_in_every_kind_of_exchange() {
    for exchange in ["amq.direct", "amq.fanout", "amq.topic"] {
        let mut router = router();
        let queue = Destination::Queue(Q1);
        for (key, arguments) in [("a", none()), ("a", tagged("1")), ("a", tagged("2")), ("b", tagged("2"))] {
            router.bind(exchange, queue, key, &arguments).unwrap();
        }
        let found: Vec<_> = router.bindings().map(|binding| (binding.2.to_owned(), binding.3.clone())).collect();
        let a = || "a".to_owned();
        assert_eq!(found, [(a(), none()), (a(), tagged("1")), (a(), tagged("2")), ("b".to_owned(), tagged("2"))]);
        router.unbind(exchange, queue, "a", &tagged("3")).unwrap();
        router.unbind(exchange, queue, "c", &none()).unwrap();
        assert_eq!(router.bindings().count(), 4);
        router.unbind(exchange, queue, "b", &tagged("2")).unwrap();
        router.unbind(exchange, queue, "a", &none()).unwrap();
        router.unbind(exchange, queue, "a", &tagged("1")).unwrap();
        assert_eq!(route(&router, exchange, &["a"]), [Q1], "{exchange}");
        router.unbind(exchange, queue, "a", &tagged("2")).unwrap();
        assert_eq!(route(&router, exchange, &["a"]), [], "{exchange}");
    }
}

#[test]
fn headers_exchange_matches_by_arguments_and_ignores_the_key() {
    let mut router = router();
    router.bind("amq.match", Destination::Queue(Q1), "k", &tagged("1")).unwrap();
    router.bind("amq.match", Destination::Queue(Q2), "k", &tagged("2")).unwrap();
    let mut routes = Routes::new();
    router.route_all("amq.match", &["other"], &tagged("1"), &mut routes).unwrap();
    assert_eq!(routes.queues(), [Q1]);
    routes.clear();
    router.route_all("amq.match", &["k"], &Some(tagged("2")), &mut routes).unwrap();
    assert_eq!(routes.queues(), [Q2]);
    routes.clear();
    router.route_all("amq.match", &["k"], &(), &mut routes).unwrap();
    assert!(routes.queues().is_empty());
}

#[test]
fn unbinding_a_missing_binding_succeeds() {
    let mut router = router();
    bind_queue(&mut router, "amq.direct", Q1, "a");
    for (source, destination, key) in [
        ("amq.direct", Destination::Queue(Q1), "b"),
        ("amq.direct", Destination::Queue(Q2), "a"),
        ("amq.direct", Destination::Queue(QueueId(99)), "a"),
        ("amq.direct", Destination::Exchange("nosuch"), "a"),
        ("amq.topic", Destination::Queue(Q1), "a"),
        ("nosuch", Destination::Queue(Q1), "a"),
    ] {
        assert_eq!(router.unbind(source, destination, key, &none()), Ok(vec![]));
    }
    assert_eq!(router.bindings().count(), 1);
}

#[test]
fn bindings_between_exchanges_match_the_same_key_at_every_step() {
    let mut router = router();
    bind_exchange(&mut router, "amq.topic", "amq.direct", "a.*");
    bind_queue(&mut router, "amq.direct", Q1, "a.b");
    bind_queue(&mut router, "amq.direct", Q2, "a.c");
    assert_eq!(route(&router, "amq.topic", &["a.b"]), [Q1]);
    assert_eq!(route(&router, "amq.topic", &["a.c"]), [Q2]);
    assert_eq!(route(&router, "amq.topic", &["a.b", "a.c"]), [Q1, Q2]);
    assert_eq!(route(&router, "amq.topic", &["b.b"]), []);
}

#[test]
fn cycles_of_exchanges_end_and_reach_each_queue_once() {
    let mut router = router();
    for (source, destination) in
        [("amq.direct", "amq.fanout"), ("amq.fanout", "amq.topic"), ("amq.topic", "amq.direct")]
    {
        bind_exchange(&mut router, source, destination, "k");
    }
    bind_exchange(&mut router, "amq.fanout", "amq.fanout", "");
    bind_queue(&mut router, "amq.direct", Q1, "k");
    bind_queue(&mut router, "amq.fanout", Q2, "");
    bind_queue(&mut router, "amq.topic", Q1, "#");
    bind_queue(&mut router, "amq.topic", Q3, "k");
    for start in ["amq.direct", "amq.fanout", "amq.topic"] {
        assert_eq!(route(&router, start, &["k"]), [Q1, Q2, Q3], "{start}");
    }
}

#[test]
fn internal_exchange_is_reached_through_others() {
    let mut router = router();
    declare(&mut router, "inside", ExchangeKind::Fanout, |options| options.internal = true);
    bind_queue(&mut router, "inside", Q1, "");
    bind_exchange(&mut router, "amq.direct", "inside", "k");
    assert!(router.exchange("inside").unwrap().internal);
    assert_eq!(route(&router, "amq.direct", &["k"]), [Q1]);
}

#[test]
fn alternate_exchange_is_asked_only_when_nothing_matched() {
    let mut router = router();
    declare(&mut router, "main", ExchangeKind::Direct, alternate("amq.fanout"));
    bind_queue(&mut router, "main", Q1, "a");
    bind_queue(&mut router, "amq.fanout", Q2, "");
    assert_eq!(route(&router, "main", &["a"]), [Q1]);
    assert_eq!(route(&router, "main", &["b"]), [Q2]);
    assert_eq!(route(&router, "main", &["b", "a"]), [Q1], "one key of the message is enough");
}

#[test]
fn queue_reached_before_still_counts_as_a_match() {
    let mut router = router();
    declare(&mut router, "main", ExchangeKind::Direct, alternate("amq.fanout"));
    bind_queue(&mut router, "main", Q1, "a");
    bind_queue(&mut router, "amq.fanout", Q2, "");
    let mut routes = Routes::new();
    router.route_all("", &["q1"], &(), &mut routes).unwrap();
    router.route_all("main", &["a"], &(), &mut routes).unwrap();
    assert_eq!(routes.queues(), [Q1]);
}

#[test]
fn alternate_exchanges_form_chains_and_cycles() {
    let mut router = router();
    declare(&mut router, "a", ExchangeKind::Direct, alternate("b"));
    declare(&mut router, "b", ExchangeKind::Direct, alternate("c"));
    declare(&mut router, "c", ExchangeKind::Direct, alternate("a"));
    assert_eq!(route(&router, "a", &["k"]), []);
    bind_queue(&mut router, "c", Q3, "k");
    assert_eq!(route(&router, "a", &["k"]), [Q3]);
    bind_queue(&mut router, "b", Q2, "k");
    assert_eq!(route(&router, "a", &["k"]), [Q2]);
    assert_eq!(route(&router, "c", &["other"]), []);
}

#[test]
fn alternate_exchange_belongs_to_every_exchange_on_the_path() {
    let mut router = router();
    declare(&mut router, "second", ExchangeKind::Direct, alternate("rest"));
    declare(&mut router, "first", ExchangeKind::Fanout, alternate("amq.topic"));
    declare(&mut router, "rest", ExchangeKind::Fanout, |_| {});
    bind_exchange(&mut router, "first", "second", "");
    bind_queue(&mut router, "rest", Q1, "");
    bind_queue(&mut router, "amq.topic", Q2, "#");
    assert_eq!(route(&router, "first", &["k"]), [Q1], "matching an exchange is a match");
}

#[test]
fn alternate_exchange_is_used_even_if_other_exchanges_matched() {
    let mut router = router();
    declare(&mut router, "first", ExchangeKind::Fanout, |_| {});
    declare(&mut router, "second", ExchangeKind::Direct, alternate("rest"));
    declare(&mut router, "rest", ExchangeKind::Fanout, |_| {});
    bind_queue(&mut router, "first", Q1, "");
    bind_exchange(&mut router, "first", "second", "");
    bind_queue(&mut router, "rest", Q2, "");
    assert_eq!(route(&router, "first", &["k"]), [Q1, Q2]);
}

#[test]
fn alternate_exchange_may_be_missing_or_come_later() {
    let mut router = router();
    declare(&mut router, "main", ExchangeKind::Fanout, alternate("later"));
    assert_eq!(route(&router, "main", &["k"]), []);
    declare(&mut router, "later", ExchangeKind::Fanout, |_| {});
    bind_queue(&mut router, "later", Q1, "");
    assert_eq!(route(&router, "main", &["k"]), [Q1]);
    router.delete_exchange("later");
    assert_eq!(route(&router, "main", &["k"]), []);
}

#[test]
fn default_exchange_as_an_alternate_leads_nowhere() {
    let mut router = router();
    declare(&mut router, "main", ExchangeKind::Direct, alternate(""));
    assert_eq!(route(&router, "main", &["q1"]), []);
}

#[test]
fn auto_delete_exchange_is_deleted_with_the_last_binding_from_it() {
    let mut router = router();
    declare(&mut router, "e", ExchangeKind::Direct, auto_delete);
    bind_queue(&mut router, "e", Q1, "a");
    bind_queue(&mut router, "e", Q2, "b");
    assert_eq!(unbind_queue(&mut router, "e", Q1, "nosuch"), [""; 0]);
    assert_eq!(unbind_queue(&mut router, "e", Q1, "a"), [""; 0]);
    assert!(router.exchange("e").is_some());
    assert_eq!(router.remove_queue(Q2), ["e"]);
    assert_eq!(router.exchange("e"), None);
}

#[test]
fn auto_delete_exchange_never_bound_from_stays() {
    let mut router = router();
    declare(&mut router, "e", ExchangeKind::Fanout, auto_delete);
    bind_exchange(&mut router, "amq.fanout", "e", "");
    assert_eq!(unbind_queue(&mut router, "e", Q1, ""), [""; 0]);
    assert_eq!(router.unbind("amq.fanout", Destination::Exchange("e"), "", &none()), Ok(vec![]));
    assert_eq!(router.remove_queue(Q1), [""; 0]);
    assert!(router.exchange("e").is_some());
}

#[test]
fn auto_delete_cascades_towards_the_sources() {
    let mut router = router();
    for name in ["a", "b", "c", "side"] {
        declare(&mut router, name, ExchangeKind::Fanout, auto_delete);
    }
    bind_exchange(&mut router, "a", "b", "");
    bind_exchange(&mut router, "b", "c", "");
    bind_exchange(&mut router, "side", "c", "");
    bind_queue(&mut router, "side", Q2, "");
    bind_queue(&mut router, "c", Q1, "");
    assert_eq!(router.remove_queue(Q1), ["c", "b", "a"]);
    assert_eq!(route(&router, "side", &[""]), [Q2]);
    assert_eq!(router.bindings().count(), 1);
}

#[test]
fn auto_delete_exchange_bound_to_itself_is_in_use() {
    let mut router = router();
    declare(&mut router, "e", ExchangeKind::Fanout, auto_delete);
    bind_exchange(&mut router, "e", "e", "");
    bind_queue(&mut router, "e", Q1, "");
    assert_eq!(router.remove_queue(Q1), [""; 0]);
    assert!(router.is_exchange_in_use("e"));
    assert_eq!(router.delete_exchange("e"), Removed { existed: true, exchanges: vec!["e".to_owned()] });
    assert_eq!(router.bindings().count(), 0);
}

#[test]
fn deleting_an_exchange_removes_its_bindings_at_both_ends() {
    let mut router = router();
    declare(&mut router, "middle", ExchangeKind::Fanout, |_| {});
    declare(&mut router, "source", ExchangeKind::Topic, auto_delete);
    bind_exchange(&mut router, "source", "middle", "#");
    bind_exchange(&mut router, "amq.topic", "middle", "a.b");
    bind_queue(&mut router, "amq.topic", Q2, "a.*");
    bind_exchange(&mut router, "middle", "amq.direct", "");
    bind_queue(&mut router, "middle", Q1, "");
    let removed = router.delete_exchange("middle");
    assert_eq!(removed, Removed { existed: true, exchanges: vec!["middle".to_owned(), "source".to_owned()] });
    assert_eq!(router.delete_exchange("middle"), Removed::default());
    let left: Vec<_> = router.bindings().map(|(source, destination, key, _)| (source, destination, key)).collect();
    assert_eq!(left, [("amq.topic", Destination::Queue(Q2), "a.*")]);
    // The next exchange gets the id of the old one, but none of its bindings.
    declare(&mut router, "new", ExchangeKind::Fanout, |_| {});
    assert!(!router.is_exchange_in_use("new"));
    assert_eq!(route(&router, "amq.topic", &["a.b"]), [Q2]);
    assert_eq!(route(&router, "new", &["a.b"]), []);
}

#[test]
fn removing_a_queue_removes_its_bindings_only() {
    let mut router = router();
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        bind_queue(&mut router, exchange, Q1, "k");
        bind_queue(&mut router, exchange, Q2, "k");
    }
    assert_eq!(router.remove_queue(Q1), [""; 0]);
    assert_eq!(router.remove_queue(Q1), [""; 0]);
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        assert_eq!(route(&router, exchange, &["k"]), [Q2], "{exchange}");
    }
    assert_eq!(router.bindings().count(), 4);
    assert_eq!(router.bind("amq.direct", Destination::Queue(Q1), "k", &none()), Err(RoutingError::NoSuchQueue(Q1)));
}

#[test]
fn names_and_keys_of_255_bytes_work() {
    let mut router = router();
    let name = "n".repeat(255);
    declare(&mut router, &name, ExchangeKind::Direct, |_| {});
    bind_queue(&mut router, &name, Q1, &name);
    assert_eq!(route(&router, &name, &[&name]), [Q1]);
    assert_eq!(route(&router, &name, &[&name[1..]]), []);
}

/// Each of these steps would take minutes if it visited all bindings.
#[test]
fn a_paused_walk_goes_on_where_it_stopped_or_begins_anew() {
    let mut router = router();
    declare(&mut router, "headers", ExchangeKind::Headers, |_| {});
    declare(&mut router, "topic", ExchangeKind::Topic, alternate("headers"));
    bind_exchange(&mut router, "amq.fanout", "topic", "");
    bind_exchange(&mut router, "amq.fanout", "headers", "");
    bind_queue(&mut router, "topic", Q1, "#.a.#");
    bind_queue(&mut router, "headers", Q2, "");
    bind_queue(&mut router, "headers", Q3, "");
    let walk = |router: &mut Router, meanwhile: &dyn Fn(&mut Router, usize)| {
        let (mut routes, mut pauses) = (Routes::new(), 0);
        loop {
            routes.allow(1);
            if router.route_all("amq.fanout", &["a.a", "b"], &(), &mut routes) == Ok(Progress::Done) {
                return (routes.queues().to_vec(), pauses);
            }
            assert!(routes.looks() <= 16, "{}", routes.looks());
            pauses += 1;
            meanwhile(router, pauses);
        }
    };
    let (queues, pauses) = walk(&mut router, &|_, _| {});
    assert_eq!(queues, [Q1, Q2, Q3]);
    assert!(pauses > 5, "{pauses}");
    for at in 1..=pauses {
        // A binding that nothing has looked at when it is removed does not count, and one that stays always does.
        let (queues, _) = walk(&mut router, &|router, pauses| {
            if pauses == at {
                unbind_queue(router, "headers", Q2, "");
                bind_queue(router, "topic", Q3, "none");
            }
        });
        assert!(queues == [Q1, Q3] || queues == [Q1, Q2, Q3], "{queues:?} after {at} pauses");
        bind_queue(&mut router, "headers", Q2, "");
        // The id of a removed exchange may be another's.
        let (queues, _) = walk(&mut router, &|router, pauses| {
            if pauses == at {
                router.delete_exchange("headers");
                declare(router, "other", ExchangeKind::Fanout, |_| {});
                bind_queue(router, "other", Q2, "");
            }
        });
        assert_eq!(queues, [Q1], "after {at} pauses");
        router.delete_exchange("other");
        declare(&mut router, "headers", ExchangeKind::Headers, |_| {});
        bind_exchange(&mut router, "amq.fanout", "headers", "");
        bind_queue(&mut router, "headers", Q2, "");
        bind_queue(&mut router, "headers", Q3, "");
    }
}

#[test]
fn hundred_thousand_bindings_are_made_routed_and_removed() {
    const BINDINGS: u64 = 100_000;
    let mut router = Router::new();
    let mut routes = Routes::new();
    let hub = QueueId(u64::MAX);
    router.add_queue("hub", hub);
    for id in 0..BINDINGS {
        let (queue, key) = (QueueId(id), format!("k.{id}"));
        router.add_queue(&key, queue);
        bind_queue(&mut router, "amq.fanout", queue, "");
        bind_queue(&mut router, "amq.direct", hub, &key);
        router.bind("amq.headers", Destination::Queue(hub), "", &tagged(&key)).unwrap();
        bind_queue(&mut router, "amq.topic", hub, &key);
    }
    router.route_all("amq.fanout", &[""], &(), &mut routes).unwrap();
    assert_eq!(routes.queues().len() as u64, BINDINGS);
    for exchange in ["amq.direct", "amq.topic", "amq.headers"] {
        routes.clear();
        router.route_all(exchange, &["k.777"], &tagged("k.777"), &mut routes).unwrap();
        assert_eq!(routes.queues(), [hub], "{exchange}");
    }
    for id in (0..BINDINGS).rev() {
        router.remove_queue(QueueId(id));
    }
    assert!(!router.is_exchange_in_use("amq.fanout"));
    router.remove_queue(hub);
    assert_eq!(router.bindings().count(), 0);
}
