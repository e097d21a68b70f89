//! The router against a naive model, over random histories.
//!
//! The model keeps flat lists, and computes every route anew. It has no trie and no index, and shares no code with the engine.
//! It has few names, so that exchanges are deleted and declared again, cycles close and bindings coincide.

use std::collections::{BTreeMap, BTreeSet};

use amq_protocol::types::{AMQPValue, FieldTable};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    naive::{is_topic_match, words},
    *,
};

/// An operation on a router.
#[derive(Clone, Debug)]
enum Step {
    Declare {
        name: &'static str,
        kind: ExchangeKind,
        auto_delete: bool,
        alternate: Option<&'static str>,
    },
    DeleteExchange(&'static str),
    AddQueue(u64),
    RemoveQueue(u64),
    Bind(Edge),
    Unbind(Edge),
    /// Removes one of the existing bindings.
    UnbindExisting(prop::sample::Index),
    Route {
        exchange: &'static str,
        keys: Vec<String>,
        headers: Arguments,
    },
}

/// One binding of the model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    source: &'static str,
    destination: End,
    key: String,
    arguments: Arguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Queue(u64),
    Exchange(&'static str),
}

/// Names and numbers; a missing number is a void, and `x-match` is a string.
type Arguments = BTreeMap<&'static str, Option<u8>>;

const EXCHANGES: [&str; 5] = ["amq.topic", "one", "two", "three", "four"];
const QUEUES: std::ops::Range<u64> = 0..4;
const MODES: [&str; 5] = ["all", "any", "all-with-x", "any-with-x", "maybe"];

fn table(arguments: &Arguments) -> FieldTable {
    let mut table = FieldTable::default();
    for (&name, &value) in arguments {
        let value = match (name, value) {
            ("x-match", value) => AMQPValue::LongString(MODES[usize::from(value.unwrap_or(0)) % MODES.len()].into()),
            (_, Some(value)) => AMQPValue::ShortShortUInt(value),
            (_, None) => AMQPValue::Void,
        };
        table.insert(name.into(), value);
    }
    table
}

fn queue_name(id: u64) -> String {
    format!("q{id}")
}

#[derive(Debug)]
struct Declaration {
    kind: ExchangeKind,
    auto_delete: bool,
    alternate: Option<&'static str>,
}

/// The naive model.
#[derive(Debug, Default)]
struct Model {
    exchanges: BTreeMap<&'static str, Declaration>,
    queues: BTreeSet<u64>,
    edges: Vec<Edge>,
}

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        let topic = Declaration { kind: ExchangeKind::Topic, auto_delete: false, alternate: None };
        model.exchanges.insert("amq.topic", topic);
        model
    }

    fn exists(&self, end: End) -> bool {
        match end {
            End::Queue(id) => self.queues.contains(&id),
            End::Exchange(name) => self.exchanges.contains_key(name),
        }
    }

    fn bind(&mut self, edge: &Edge) -> bool {
        if !self.exists(End::Exchange(edge.source)) || !self.exists(edge.destination) {
            return false;
        }
        let is_headers = self.exchanges[edge.source].kind == ExchangeKind::Headers;
        if is_headers && mode(&edge.arguments) == "maybe" {
            return false;
        }
        if !self.edges.contains(edge) {
            self.edges.push(edge.clone());
        }
        true
    }

    /// Removes the edges for which `is_going` holds, and the exchanges that are auto-deleted because of it. Returns those.
    fn drop_edges(&mut self, is_going: impl Fn(&Edge) -> bool) -> BTreeSet<String> {
        let (going, staying): (Vec<_>, Vec<_>) = self.edges.drain(..).partition(|edge| is_going(edge));
        self.edges = staying;
        let mut gone = BTreeSet::new();
        for edge in going {
            let is_last = !self.edges.iter().any(|other| other.source == edge.source);
            if is_last && self.exchanges.get(edge.source).is_some_and(|exchange| exchange.auto_delete) {
                gone.extend(self.delete(edge.source));
            }
        }
        gone
    }

    fn delete(&mut self, name: &'static str) -> BTreeSet<String> {
        if self.exchanges.remove(name).is_none() {
            return BTreeSet::new();
        }
        let mut gone = self.drop_edges(|edge| edge.source == name || edge.destination == End::Exchange(name));
        gone.insert(name.to_owned());
        gone
    }

    fn matching(&self, exchange: &str, keys: &[String], headers: &Arguments) -> Vec<End> {
        let kind = self.exchanges[exchange].kind;
        let is_match = |edge: &&Edge| match kind {
            ExchangeKind::Direct => keys.contains(&edge.key),
            ExchangeKind::Fanout => true,
            ExchangeKind::Topic => keys.iter().any(|key| is_topic_match(&words(&edge.key), &words(key))),
            ExchangeKind::Headers => is_headers_match(&edge.arguments, headers),
        };
        self.edges.iter().filter(|edge| edge.source == exchange).filter(is_match).map(|edge| edge.destination).collect()
    }

    fn route(&self, start: &'static str, keys: &[String], headers: &Arguments) -> Option<BTreeSet<u64>> {
        if start.is_empty() {
            return Some(self.named(keys));
        }
        if !self.exchanges.contains_key(start) {
            return None;
        }
        let (mut queues, mut seen, mut waiting) = (BTreeSet::new(), BTreeSet::new(), vec![start]);
        while let Some(name) = waiting.pop() {
            if !self.exchanges.contains_key(name) || !seen.insert(name) {
                continue;
            }
            let ends = self.matching(name, keys, headers);
            if ends.is_empty() {
                waiting.extend(self.exchanges[name].alternate);
            }
            for end in ends {
                match end {
                    End::Queue(id) => {
                        queues.insert(id);
                    }
                    End::Exchange(name) => waiting.push(name),
                }
            }
        }
        Some(queues)
    }

    fn named(&self, keys: &[String]) -> BTreeSet<u64> {
        self.queues.iter().copied().filter(|&id| keys.contains(&queue_name(id))).collect()
    }
}

fn mode(arguments: &Arguments) -> &'static str {
    arguments.get("x-match").map_or("all", |mode| MODES[usize::from(mode.unwrap_or(0)) % MODES.len()])
}

fn is_headers_match(arguments: &Arguments, headers: &Arguments) -> bool {
    let mode = mode(arguments);
    let mut met = Vec::new();
    for (name, wanted) in arguments {
        if *name == "x-match" || (name.starts_with("x-") && !mode.ends_with("-with-x")) {
            continue;
        }
        met.push(match (headers.get(name), wanted) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(found), Some(_)) => found == wanted,
        });
    }
    if mode.starts_with("all") { !met.contains(&false) } else { met.contains(&true) }
}

fn joined(words: &'static [&'static str], longest: usize) -> impl Strategy<Value = String> {
    vec(select(words), 0..=longest).prop_map(|words| words.join("."))
}

fn exchange() -> impl Strategy<Value = &'static str> {
    select(&EXCHANGES[..])
}

fn arguments() -> impl Strategy<Value = Arguments> {
    let names = select(&["a", "b", "x-c"][..]);
    let entries = prop::collection::btree_map(names, prop::option::weighted(0.8, 0..2_u8), 0..3);
    (entries, prop::option::weighted(0.6, 0..5_u8)).prop_map(|(mut entries, mode)| {
        entries.extend(mode.map(|mode| ("x-match", Some(mode))));
        entries
    })
}

fn edge() -> impl Strategy<Value = Edge> {
    let destination = prop_oneof![QUEUES.prop_map(End::Queue), exchange().prop_map(End::Exchange)];
    let key = joined(&["a", "b", "", "*", "#"], 4);
    let arguments = prop_oneof![2 => Just(Arguments::new()), 3 => arguments()];
    (exchange(), destination, key, arguments).prop_map(|(source, destination, key, arguments)| Edge {
        source,
        destination,
        key,
        arguments,
    })
}

fn declare(names: &'static [&'static str]) -> impl Strategy<Value = Step> {
    let kind = select(&[ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers][..]);
    let alternate = prop::option::weighted(0.7, prop_oneof![9 => exchange(), 1 => Just("")]);
    (select(names), kind, prop::bool::weighted(0.3), alternate)
        .prop_map(|(name, kind, auto_delete, alternate)| Step::Declare { name, kind, auto_delete, alternate })
}

/// Begins with most exchanges and all queues, so that most messages are routed.
fn history() -> impl Strategy<Value = Vec<Step>> {
    (vec(declare(&EXCHANGES[1..]), 8), vec(step(), 1..100)).prop_map(|(declarations, steps)| {
        let queues = QUEUES.map(Step::AddQueue);
        declarations.into_iter().chain(queues).chain(steps).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop_oneof![4 => joined(&["a", "b", "", "c"], 5), 1 => QUEUES.prop_map(queue_name)];
    let start = prop_oneof![8 => exchange(), 1 => Just("")];
    let route = (start, vec(keys, 1..3), arguments()).prop_map(|(exchange, keys, headers)| Step::Route {
        exchange,
        keys,
        headers,
    });
    prop_oneof![
        3 => declare(&EXCHANGES[1..]),
        1 => select(&EXCHANGES[1..]).prop_map(Step::DeleteExchange),
        3 => QUEUES.prop_map(Step::AddQueue),
        1 => QUEUES.prop_map(Step::RemoveQueue),
        10 => edge().prop_map(Step::Bind),
        1 => edge().prop_map(Step::Unbind),
        3 => any::<prop::sample::Index>().prop_map(Step::UnbindExisting),
        10 => route,
    ]
}

fn destination(end: End) -> Destination<'static> {
    match end {
        End::Queue(id) => Destination::Queue(QueueId(id)),
        End::Exchange(name) => Destination::Exchange(name),
    }
}

fn set(names: Vec<String>) -> BTreeSet<String> {
    let count = names.len();
    let set: BTreeSet<_> = names.into_iter().collect();
    assert_eq!(set.len(), count, "an exchange was deleted twice");
    set
}

fn apply(router: &mut Router, model: &mut Model, routes: &mut Routes, step: Step) {
    match step {
        Step::Declare { name, kind, auto_delete, alternate } => {
            let alternate_exchange = alternate.map(str::to_owned);
            let options = ExchangeOptions { auto_delete, alternate_exchange, ..ExchangeOptions::new(kind) };
            let declared = router.declare_exchange(name, options);
            if let Some(existing) = model.exchanges.get(name) {
                let is_same =
                    (existing.kind, existing.auto_delete, existing.alternate) == (kind, auto_delete, alternate);
                assert_eq!(declared.is_ok(), is_same);
            } else {
                assert_eq!(declared, Ok(Declared::New));
                model.exchanges.insert(name, Declaration { kind, auto_delete, alternate });
            }
        }
        Step::DeleteExchange(name) => {
            let removed = router.delete_exchange(name);
            assert_eq!(removed.existed, model.exchanges.contains_key(name));
            assert_eq!(set(removed.exchanges), model.delete(name));
        }
        Step::AddQueue(id) => {
            router.add_queue(&queue_name(id), QueueId(id));
            model.queues.insert(id);
        }
        Step::RemoveQueue(id) => {
            let gone = set(router.remove_queue(QueueId(id)));
            model.queues.remove(&id);
            assert_eq!(gone, model.drop_edges(|edge| edge.destination == End::Queue(id)));
        }
        Step::Bind(edge) => {
            let bound = router.bind(edge.source, destination(edge.destination), &edge.key, &table(&edge.arguments));
            assert_eq!(bound.is_ok(), model.bind(&edge), "{bound:?}");
        }
        Step::Unbind(edge) => unbind(router, model, &edge),
        Step::UnbindExisting(index) => {
            if !model.edges.is_empty() {
                let edge = index.get(&model.edges).clone();
                unbind(router, model, &edge);
            }
        }
        Step::Route { exchange, keys, headers } => {
            let table = table(&headers);
            let slices: Vec<_> = keys.iter().map(String::as_str).collect();
            routes.clear();
            let routed = route(router, exchange, &slices, &table, routes, 1);
            check_routed(&routed, routes, model.route(exchange, &keys, &headers));
            routes.clear();
            let routed = slices.iter().try_for_each(|key| route(router, exchange, &[key], &table, routes, 3));
            let mut each = Some(BTreeSet::new());
            for key in &keys {
                let one = model.route(exchange, std::slice::from_ref(key), &headers);
                each = each.zip(one).map(|(all, one)| &all | &one);
            }
            check_routed(&routed, routes, each);
        }
    }
    check_state(router, model);
}

fn unbind(router: &mut Router, model: &mut Model, edge: &Edge) {
    let gone = router.unbind(edge.source, destination(edge.destination), &edge.key, &table(&edge.arguments));
    assert_eq!(set(gone.unwrap()), model.drop_edges(|other| other == edge));
}

/// Routes a message, so many steps at a time.
fn route(
    router: &Router,
    exchange: &str,
    keys: &[&str],
    headers: &FieldTable,
    routes: &mut Routes,
    steps_max: usize,
) -> Result<(), RoutingError> {
    loop {
        routes.allow(steps_max);
        if router.route_all(exchange, keys, headers, routes)? == Progress::Done {
            return Ok(());
        }
    }
}

fn check_routed(routed: &Result<(), RoutingError>, routes: &Routes, expected: Option<BTreeSet<u64>>) {
    assert_eq!(routed.is_ok(), expected.is_some());
    let found: BTreeSet<_> = routes.queues().iter().map(|queue| queue.0).collect();
    assert_eq!(found.len(), routes.queues().len(), "a queue was reached twice: {:?}", routes.queues());
    assert_eq!(found, expected.unwrap_or_default());
}

fn check_state(router: &Router, model: &Model) {
    let names: BTreeSet<_> = router.exchanges().map(|(name, _)| name).filter(|name| EXCHANGES.contains(name)).collect();
    assert_eq!(names, model.exchanges.keys().copied().collect());
    for name in names {
        assert_eq!(router.is_exchange_in_use(name), model.edges.iter().any(|edge| edge.source == name));
    }
    // Both in the order of their declaration.
    assert_eq!(router.bindings().count(), model.edges.len());
    for ((source, to, key, arguments), edge) in router.bindings().zip(&model.edges) {
        assert_eq!((source, to, key), (edge.source, destination(edge.destination), edge.key.as_str()));
        assert_eq!(*arguments, table(&edge.arguments));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn router_agrees_with_the_naive_model_over_any_history(steps in history()) {
        let (mut router, mut model, mut routes) = (Router::new(), Model::new(), Routes::new());
        for step in steps {
            apply(&mut router, &mut model, &mut routes, step);
        }
        // After everything is removed, the router is empty.
        for id in QUEUES {
            router.remove_queue(QueueId(id));
        }
        for name in EXCHANGES {
            router.delete_exchange(name);
        }
        assert_eq!(router.bindings().count(), 0);
        assert_eq!(router.exchanges().count(), 6);
    }

    #[test]
    fn topic_patterns_agree_with_the_naive_matcher(
        patterns in vec(joined(&["a", "b", "", "*", "#"], 6), 1..40),
        keys in vec(joined(&["a", "b", "", "c"], 8), 1..8),
    ) {
        let mut router = Router::new();
        for (id, pattern) in (0..).zip(&patterns) {
            router.add_queue(&queue_name(id), QueueId(id));
            router.bind("amq.topic", Destination::Queue(QueueId(id)), pattern, &FieldTable::default()).unwrap();
        }
        let mut routes = Routes::new();
        for key in &keys {
            let expected = (0..).zip(&patterns).filter(|(_, pattern)| is_topic_match(&words(pattern), &words(key)));
            routes.clear();
            router.route_all("amq.topic", &[key], &(), &mut routes).unwrap();
            check_routed(&Ok(()), &routes, Some(expected.map(|(id, _)| id).collect()));
        }
    }
}
