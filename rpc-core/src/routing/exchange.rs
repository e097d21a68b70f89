//! Exchanges: their kinds, their options, and the table by which each matches.
//!
//! An exchange has its own bindings only. The router walks from exchange to exchange.
//!
//! ```text
//!  exchange ─┬─ options   kind, durable, auto_delete, internal, alternate exchange
//!            ├─ table     direct: key → targets     fanout: targets
//!            │            topic:  trie → targets    headers: list of criteria
//!            └─ outgoing, incoming   the bindings at either end
//! ```

use std::{
    ops::{Index, IndexMut},
    sync::Arc,
};

use amq_protocol::types::FieldTable;

use super::{
    binding::Binding,
    collections::Map,
    error::RoutingError,
    headers::{HeadersTable, MessageHeaders},
    id::{BindingId, BindingIds, ExchangeId},
    routes::{Routes, Visit},
    steps::Progress,
    targets::TargetSet,
    topic::Trie,
};

/// How an exchange matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExchangeKind {
    /// The routing key equals the binding's.
    Direct,
    /// Always.
    Fanout,
    /// The routing key matches the binding's pattern: `*` is one word, `#` any number, words are separated by dots.
    Topic,
    /// The headers match the binding's arguments.
    Headers,
}

impl ExchangeKind {
    /// The kind with this name in `exchange.declare`.
    #[must_use]
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Direct, Self::Fanout, Self::Topic, Self::Headers].into_iter().find(|kind| kind.name() == name)
    }

    /// Its name in `exchange.declare`.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// The arguments of `exchange.declare`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct ExchangeOptions {
    /// How it matches.
    pub(crate) kind: ExchangeKind,
    /// Whether it survives a restart. The engine stores and compares this; the broker acts on it.
    pub(crate) durable: bool,
    /// Whether it is deleted with the last binding from it.
    pub(crate) auto_delete: bool,
    /// Whether clients may not publish to it. The engine stores and compares this; the broker refuses publishes.
    pub(crate) internal: bool,
    /// The exchange that receives a message when no binding of this one matches. It need not exist.
    pub(crate) alternate_exchange: Option<String>,
    /// All arguments as declared. The engine stores them, but does not compare them.
    pub(crate) arguments: FieldTable,
}

impl ExchangeOptions {
    /// Options with every flag off, no alternate exchange and no arguments.
    #[must_use]
    pub(crate) fn new(kind: ExchangeKind) -> Self {
        Self {
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate_exchange: None,
            arguments: FieldTable::default(),
        }
    }

    /// Checks that a declaration with `received` is equivalent to `self`; the error is the first difference.
    pub(super) fn check_equivalent(&self, received: &Self) -> Result<(), RoutingError> {
        let differ = |field, received, current| Err(RoutingError::Inequivalent { field, received, current });
        if received.kind != self.kind {
            return differ("type", quoted(received.kind.name()), quoted(self.kind.name()));
        }
        let flags = [
            ("durable", received.durable, self.durable),
            ("auto_delete", received.auto_delete, self.auto_delete),
            ("internal", received.internal, self.internal),
        ];
        for (field, received, current) in flags {
            if received != current {
                return differ(field, quoted(received), quoted(current));
            }
        }
        let described = match (&received.alternate_exchange, &self.alternate_exchange) {
            (received, current) if received == current => return Ok(()),
            (Some(received), Some(current)) => (quoted(received), quoted(current)),
            (received, current) => (typed(received.as_deref()), typed(current.as_deref())),
        };
        differ("alternate-exchange", described.0, described.1)
    }
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("'{value}'")
}

/// An argument that only one side has.
fn typed(value: Option<&str>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("the value '{value}' of type 'longstr'"))
}

/// One exchange with its bindings.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) name: Arc<str>,
    pub(super) options: ExchangeOptions,
    pub(super) table: Table,
    /// Counts the changes of the table.
    pub(super) changes: u64,
    /// Bindings from it.
    pub(super) outgoing: BindingIds,
    /// Bindings to it.
    pub(super) incoming: BindingIds,
    /// Whether it is deleted, and only its bindings are still to be removed: its name is free.
    pub(super) is_leaving: bool,
}

/// The bindings of an exchange, in the form in which its kind matches.
#[derive(Debug)]
pub(super) enum Table {
    Direct(Map<Box<str>, TargetSet>),
    Fanout(TargetSet),
    Topic(Trie),
    Headers(HeadersTable),
}

impl Table {
    fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(Map::default()),
            ExchangeKind::Fanout => Self::Fanout(TargetSet::default()),
            ExchangeKind::Topic => Self::Topic(Trie::default()),
            ExchangeKind::Headers => Self::Headers(HeadersTable::default()),
        }
    }

    pub(super) fn insert(&mut self, id: BindingId, binding: &Arc<Binding>) {
        match self {
            Self::Direct(keys) => keys.entry(binding.routing_key.clone()).or_default().insert(binding.target),
            Self::Fanout(targets) => targets.insert(binding.target),
            Self::Topic(trie) => trie.insert(&binding.routing_key, binding.target),
            Self::Headers(table) => table.insert(id, binding),
        }
    }

    pub(super) fn remove(&mut self, id: BindingId, binding: &Binding) {
        match self {
            Self::Direct(keys) => {
                if let Some(targets) = keys.get_mut(&binding.routing_key) {
                    targets.remove(binding.target);
                    if targets.is_empty() {
                        keys.remove(&binding.routing_key);
                    }
                }
            }
            Self::Fanout(targets) => targets.remove(binding.target),
            Self::Topic(trie) => trie.remove(&binding.routing_key, binding.target),
            Self::Headers(table) => table.remove(id),
        }
    }

    /// Adds the targets of the bindings that match. The visit notes whether any binding matched, even if all its targets
    /// were present already.
    pub(super) fn collect(
        &self,
        routing_keys: &[&str],
        headers: &mut MessageHeaders<'_>,
        routes: &mut Routes,
        visit: &mut Visit,
    ) -> Progress {
        match self {
            Self::Direct(keys) => {
                for &routing_key in routing_keys {
                    if let Some(targets) = keys.get(routing_key) {
                        visit.is_matched = true;
                        routes.add_all(targets);
                    }
                }
            }
            Self::Fanout(targets) => {
                visit.is_matched = !targets.is_empty();
                routes.add_all(targets);
            }
            Self::Topic(trie) => {
                while let Some(&routing_key) = routing_keys.get(visit.key) {
                    if routes.add_matching(trie, routing_key, visit) == Progress::Paused {
                        return Progress::Paused;
                    }
                    visit.key += 1;
                }
            }
            Self::Headers(table) => return table.collect(headers, routes, visit),
        }
        Progress::Done
    }
}

/// All exchanges, by name and by id.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    slots: Vec<Option<Exchange>>,
    free: Vec<ExchangeId>,
    names: Map<Arc<str>, ExchangeId>,
}

impl Exchanges {
    pub(super) fn find(&self, name: &str) -> Option<ExchangeId> {
        self.names.get(name).copied()
    }

    pub(super) fn get(&self, id: ExchangeId) -> Option<&Exchange> {
        self.slots.get(id.0)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Exchange> {
        self.slots.iter().flatten().filter(|exchange| !exchange.is_leaving)
    }

    /// Frees the name of an exchange that is deleted. Returns false if that has happened before.
    pub(super) fn leave(&mut self, id: ExchangeId) -> bool {
        let Some(exchange) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { return false };
        let is_first = !std::mem::replace(&mut exchange.is_leaving, true);
        if is_first {
            self.names.remove(&exchange.name);
        }
        is_first
    }

    /// Adds an exchange whose name is free.
    pub(super) fn insert(&mut self, name: &str, options: ExchangeOptions) {
        let name: Arc<str> = name.into();
        let exchange = Exchange {
            name: name.clone(),
            table: Table::new(options.kind),
            changes: 0,
            options,
            outgoing: BindingIds::new(),
            incoming: BindingIds::new(),
            is_leaving: false,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.slots.push(None);
                ExchangeId(self.slots.len() - 1)
            }
        };
        self.slots[id.0] = Some(exchange);
        self.names.insert(name, id);
    }

    /// Removes an exchange that has left, and has no bindings any more.
    pub(super) fn remove(&mut self, id: ExchangeId) -> Option<Exchange> {
        let exchange = self.slots.get_mut(id.0)?.take()?;
        self.free.push(id);
        Some(exchange)
    }
}

/// Ids in bindings belong to existing exchanges, because the router removes the bindings of an exchange before it.
impl Index<ExchangeId> for Exchanges {
    type Output = Exchange;

    fn index(&self, id: ExchangeId) -> &Exchange {
        // The router removes an exchange's bindings before the exchange.
        self.slots[id.0].as_ref().expect("a binding's exchanges outlive it")
    }
}

impl IndexMut<ExchangeId> for Exchanges {
    fn index_mut(&mut self, id: ExchangeId) -> &mut Exchange {
        // The router removes an exchange's bindings before the exchange.
        self.slots[id.0].as_mut().expect("a binding's exchanges outlive it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_their_names_only() {
        for kind in [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers] {
            assert_eq!(ExchangeKind::from_name(kind.name()), Some(kind));
        }
        for name in ["", "Direct", "x-delayed-message", "nosuch"] {
            assert_eq!(ExchangeKind::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn first_option_that_differs_is_named_in_the_words_of_rabbitmq() {
        let with = |change: fn(&mut ExchangeOptions)| {
            let mut options = ExchangeOptions::new(ExchangeKind::Direct);
            change(&mut options);
            options
        };
        let plain = with(|_| {});
        let a = with(|options| options.alternate_exchange = Some("a".to_owned()));
        let cases = [
            (
                plain.clone(),
                with(|options| (options.kind, options.durable) = (ExchangeKind::Fanout, true)),
                ("type", "'fanout'", "'direct'"),
            ),
            (
                plain.clone(),
                with(|options| (options.durable, options.internal) = (true, true)),
                ("durable", "'true'", "'false'"),
            ),
            (plain.clone(), with(|options| options.auto_delete = true), ("auto_delete", "'true'", "'false'")),
            (with(|options| options.internal = true), plain.clone(), ("internal", "'false'", "'true'")),
            (
                a.clone(),
                with(|options| options.alternate_exchange = Some("b".to_owned())),
                ("alternate-exchange", "'b'", "'a'"),
            ),
            (a.clone(), plain.clone(), ("alternate-exchange", "none", "the value 'a' of type 'longstr'")),
            (plain, a, ("alternate-exchange", "the value 'a' of type 'longstr'", "none")),
        ];
        for (current, received, (field, received_text, current_text)) in cases {
            let expected = RoutingError::Inequivalent {
                field,
                received: received_text.to_owned(),
                current: current_text.to_owned(),
            };
            assert_eq!(current.check_equivalent(&received), Err(expected));
            assert_eq!(current.check_equivalent(&current), Ok(()));
        }
    }

    #[test]
    fn arguments_are_not_compared() {
        let plain = ExchangeOptions::new(ExchangeKind::Topic);
        let mut other = plain.clone();
        other.arguments.insert("x-nosuch".into(), amq_protocol::types::AMQPValue::Boolean(true));
        assert_eq!(plain.check_equivalent(&other), Ok(()));
    }
}
