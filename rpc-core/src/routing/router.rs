//! The router: the exchanges, queue names and bindings of one virtual host, kept consistent with each other.

use std::{
    collections::{BTreeMap, VecDeque, hash_map},
    sync::Arc,
};

use amq_protocol::types::FieldTable;

use super::{
    binding::Binding,
    collections::Map,
    error::RoutingError,
    exchange::{ExchangeKind, ExchangeOptions, Exchanges},
    headers::{Headers, MatchMode, MessageHeaders},
    id::{BindingId, BindingIds, Destination, ExchangeId, QueueId, Target},
    routes::Routes,
    size,
    steps::Progress,
    words::check_hashes,
};

/// The exchanges, queue names and bindings of one virtual host.
#[derive(Debug)]
pub(crate) struct Router {
    exchanges: Exchanges,
    queues: Map<QueueId, Queue>,
    /// The default exchange: every queue by its own name.
    queue_names: Map<Arc<str>, QueueId>,
    /// In the order of their declaration.
    bindings: BTreeMap<BindingId, Arc<Binding>>,
    binding_ids: Map<Arc<Binding>, BindingId>,
    next_binding: BindingId,
    bindings_per_exchange_max: usize,
    binding_hashes_max: usize,
    tells_numbers_apart: bool,
    /// The estimated memory of exchanges and bindings.
    bytes: usize,
    /// Counts the exchanges removed, whose ids may be another exchange's now.
    exchanges_removed: u64,
    /// The bindings of queues that were removed.
    leaving_bindings: VecDeque<BindingIds>,
    /// Exchanges that were deleted, and their bindings. Each is in the list once.
    leaving_exchanges: VecDeque<ExchangeId>,
}

/// The name and bindings of a queue.
#[derive(Debug)]
struct Queue {
    name: Arc<str>,
    incoming: BindingIds,
}

/// The result of [`Router::declare_exchange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// The exchange was created.
    New,
    /// The exchange existed, with equivalent options.
    Existing,
}

/// The result of [`Router::delete_exchange`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Whether the exchange existed.
    pub(crate) existed: bool,
    /// All deleted exchanges: first the given one, then those auto-deleted because of it.
    pub(crate) exchanges: Vec<String>,
}

impl Router {
    /// Creates a router with the exchanges of every new virtual host: the default exchange, `amq.direct`, `amq.fanout`,
    /// `amq.topic`, `amq.headers`, `amq.match` and the internal `amq.rabbitmq.trace`.
    #[must_use]
    pub(crate) fn new() -> Self {
        let mut exchanges = Exchanges::default();
        let mut bytes = 0;
        for (name, kind, internal) in PREDECLARED {
            let options = ExchangeOptions { durable: true, internal, ..ExchangeOptions::new(kind) };
            bytes += size::exchange_bytes(name, &options);
            exchanges.insert(name, options);
        }
        Self {
            exchanges,
            queues: Map::default(),
            queue_names: Map::default(),
            bindings: BTreeMap::new(),
            binding_ids: Map::default(),
            next_binding: BindingId::default(),
            bindings_per_exchange_max: usize::MAX,
            binding_hashes_max: usize::MAX,
            tells_numbers_apart: false,
            bytes,
            exchanges_removed: 0,
            leaving_bindings: VecDeque::new(),
            leaving_exchanges: VecDeque::new(),
        }
    }

    /// The memory of exchanges and bindings, in bytes, as an estimate.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets the most bindings from one exchange. By default there is no limit.
    pub(crate) fn limit_bindings(&mut self, per_exchange_max: usize) {
        self.bindings_per_exchange_max = per_exchange_max;
    }

    /// Sets the most `#` in the routing key of a binding to a topic exchange. By default there is no limit.
    pub(crate) fn limit_hashes(&mut self, per_key_max: usize) {
        self.binding_hashes_max = per_key_max;
    }

    /// Has header matches tell integers from floating-point numbers. By default they compare values.
    pub(crate) fn tell_numbers_apart(&mut self, tells_numbers_apart: bool) {
        self.tells_numbers_apart = tells_numbers_apart;
    }

    /// The number of exchanges, the predeclared ones included.
    #[must_use]
    pub(crate) fn exchange_count(&self) -> usize {
        self.exchanges.len()
    }

    /// The options of an exchange, if it exists. The default exchange is a durable direct exchange.
    #[must_use]
    pub(crate) fn exchange(&self, name: &str) -> Option<&ExchangeOptions> {
        self.exchanges.find(name).map(|id| &self.exchanges[id].options)
    }

    /// All exchanges, the default exchange included, in an arbitrary but repeatable order.
    pub(crate) fn exchanges(&self) -> impl Iterator<Item = (&str, &ExchangeOptions)> {
        self.exchanges.iter().map(|exchange| (&*exchange.name, &exchange.options))
    }

    /// Creates an exchange, or compares the options with those of the existing one: kind, durable, auto_delete, internal
    /// and alternate exchange, in this order. Arguments are not compared.
    ///
    /// # Errors
    ///
    /// [`RoutingError::Inequivalent`] for the first option that differs; [`RoutingError::DefaultExchange`] for `""`.
    pub(crate) fn declare_exchange(&mut self, name: &str, options: ExchangeOptions) -> Result<Declared, RoutingError> {
        if name.is_empty() {
            return Err(RoutingError::DefaultExchange);
        }
        if let Some(id) = self.exchanges.find(name) {
            self.exchanges[id].options.check_equivalent(&options)?;
            return Ok(Declared::Existing);
        }
        self.bytes += size::exchange_bytes(name, &options);
        self.exchanges.insert(name, options);
        Ok(Declared::New)
    }

    /// Removes an exchange with all bindings from and to it. The default exchange stays.
    pub(crate) fn delete_exchange(&mut self, name: &str) -> Removed {
        let existed = name.is_empty() || self.begin_delete_exchange(name);
        Removed { existed, exchanges: self.sweep_all() }
    }

    /// Frees the name of an exchange. [`Router::sweep`] removes its bindings. Returns false if there is no such exchange.
    pub(crate) fn begin_delete_exchange(&mut self, name: &str) -> bool {
        let Some(id) = self.exchanges.find(name).filter(|_| !name.is_empty()) else { return false };
        self.leave(id);
        true
    }

    /// Whether there are bindings *from* this exchange.
    #[must_use]
    pub(crate) fn is_exchange_in_use(&self, name: &str) -> bool {
        self.exchanges.find(name).is_some_and(|id| !self.exchanges[id].outgoing.is_empty())
    }

    /// Adds a queue, so that it can be bound, and is reachable by its name through the default exchange.
    ///
    /// A queue added twice has its later name only. A name of two queues reaches the later queue.
    pub(crate) fn add_queue(&mut self, name: &str, id: QueueId) {
        let name: Arc<str> = name.into();
        match self.queues.entry(id) {
            hash_map::Entry::Vacant(entry) => {
                entry.insert(Queue { name: name.clone(), incoming: BindingIds::new() });
            }
            hash_map::Entry::Occupied(mut entry) => {
                let old = std::mem::replace(&mut entry.get_mut().name, name.clone());
                forget_name(&mut self.queue_names, &old, id);
            }
        }
        self.queue_names.insert(name, id);
    }

    /// Removes a queue with all its bindings. Returns the exchanges auto-deleted because of it.
    #[cfg(test)]
    pub(crate) fn remove_queue(&mut self, id: QueueId) -> Vec<String> {
        self.begin_remove_queue(id);
        self.sweep_all()
    }

    /// Removes a queue. [`Router::sweep`] removes its bindings.
    pub(crate) fn begin_remove_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        forget_name(&mut self.queue_names, &queue.name, id);
        if !queue.incoming.is_empty() {
            self.leaving_bindings.push_back(queue.incoming);
        }
    }

    /// Whether a queue or an exchange has this binding.
    pub(crate) fn has_binding(
        &self,
        source: &str,
        destination: Destination<'_>,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> bool {
        self.find_binding(source, destination, routing_key, arguments).is_some()
    }

    fn find_binding(
        &self,
        source: &str,
        destination: Destination<'_>,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Option<BindingId> {
        let target = match destination {
            Destination::Queue(id) => Target::Queue(id),
            Destination::Exchange(name) => Target::Exchange(self.exchanges.find(name)?),
        };
        let binding = Binding::new(self.exchanges.find(source)?, target, routing_key, arguments);
        self.binding_ids.get(&binding).copied()
    }

    /// Binds a queue or an exchange to an exchange. An existing binding stays as it is.
    ///
    /// # Errors
    ///
    /// [`RoutingError::NoSuchExchange`] for a missing source or destination, [`RoutingError::NoSuchQueue`] for a queue never
    /// added, [`RoutingError::TooManyBindings`], [`RoutingError::InvalidXMatch`] for an unknown `x-match` of a binding from a headers exchange, and
    /// [`RoutingError::DefaultExchange`] when the default exchange is at either end.
    pub(crate) fn bind(
        &mut self,
        source: &str,
        destination: Destination<'_>,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Result<(), RoutingError> {
        if source.is_empty() || destination == Destination::Exchange("") {
            return Err(RoutingError::DefaultExchange);
        }
        let source = self.exchanges.find(source).ok_or_else(|| RoutingError::no_exchange(source))?;
        let target = match destination {
            Destination::Queue(id) if self.queues.contains_key(&id) => Target::Queue(id),
            Destination::Queue(id) => return Err(RoutingError::NoSuchQueue(id)),
            Destination::Exchange(name) => {
                Target::Exchange(self.exchanges.find(name).ok_or_else(|| RoutingError::no_exchange(name))?)
            }
        };
        if self.exchanges[source].options.kind == ExchangeKind::Headers {
            MatchMode::of(arguments)?;
        }
        if self.exchanges[source].options.kind == ExchangeKind::Topic {
            check_hashes(routing_key, self.binding_hashes_max)?;
        }
        let binding = Arc::new(Binding::new(source, target, routing_key, arguments));
        if let hash_map::Entry::Vacant(entry) = self.binding_ids.entry(binding.clone()) {
            let max = self.bindings_per_exchange_max;
            if self.exchanges[source].outgoing.len() >= max {
                return Err(RoutingError::TooManyBindings { exchange: self.exchanges[source].name.to_string(), max });
            }
            let id = self.next_binding;
            self.next_binding = id.next();
            entry.insert(id);
            self.attach(id, binding);
        }
        Ok(())
    }

    /// Removes the binding with this routing key and these arguments. Returns the exchanges auto-deleted because of it. A
    /// missing binding, queue or exchange is no error.
    ///
    /// # Errors
    ///
    /// [`RoutingError::DefaultExchange`] when the default exchange is at either end.
    #[cfg(test)]
    pub(crate) fn unbind(
        &mut self,
        source: &str,
        destination: Destination<'_>,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Result<Vec<String>, RoutingError> {
        self.begin_unbind(source, destination, routing_key, arguments)?;
        Ok(self.sweep_all())
    }

    /// As [`Router::unbind`], but [`Router::sweep`] removes the exchanges.
    pub(crate) fn begin_unbind(
        &mut self,
        source: &str,
        destination: Destination<'_>,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Result<(), RoutingError> {
        if source.is_empty() || destination == Destination::Exchange("") {
            return Err(RoutingError::DefaultExchange);
        }
        if let Some(id) = self.find_binding(source, destination, routing_key, arguments) {
            self.remove_binding(id);
        }
        Ok(())
    }

    /// All bindings in the order of their declaration, without those of the default exchange:
    /// source, destination, routing key, arguments.
    pub(crate) fn bindings(&self) -> impl Iterator<Item = (&str, Destination<'_>, &str, &FieldTable)> {
        self.bindings.values().map(|binding| {
            let destination = match binding.target {
                Target::Queue(id) => Destination::Queue(id),
                Target::Exchange(id) => Destination::Exchange(&self.exchanges[id].name),
            };
            (&*self.exchanges[binding.source].name, destination, &*binding.routing_key, &binding.arguments)
        })
    }

    /// Appends the queues that a message reaches, except those already in `routes`. `routing_keys` are its routing key and
    /// those of its CC and BCC headers. An exchange that matches none of them passes the message to its alternate exchange.
    ///
    /// When the steps that `routes` allows are used up, it returns [`Progress::Paused`]: the next call with the same
    /// arguments goes on. Bindings made or removed meanwhile may count or not.
    ///
    /// # Errors
    ///
    /// [`RoutingError::NoSuchExchange`], leaving `routes` as it was. A missing *alternate* exchange is no error.
    pub(crate) fn route_all(
        &self,
        exchange: &str,
        routing_keys: &[&str],
        headers: &dyn Headers,
        routes: &mut Routes,
    ) -> Result<Progress, RoutingError> {
        if exchange.is_empty() {
            self.route_by_queue_name(routing_keys, routes);
            return Ok(Progress::Done);
        }
        let start = self.exchanges.find(exchange).ok_or_else(|| RoutingError::no_exchange(exchange))?;
        let mut headers = MessageHeaders::new(headers, self.tells_numbers_apart);
        routes.start_at(start, self.exchanges_removed);
        while let Some(mut visit) = routes.next_visit() {
            let exchange = &self.exchanges[visit.exchange];
            if visit.changes.replace(exchange.changes).is_some_and(|before| before != exchange.changes) {
                routes.search_anew();
            }
            if exchange.table.collect(routing_keys, &mut headers, routes, &mut visit) == Progress::Paused {
                routes.pause(visit);
                return Ok(Progress::Paused);
            }
            if visit.is_matched {
                continue;
            }
            // Looked up for each message, because it may have been declared, deleted or replaced since. As in RabbitMQ, the
            // default exchange routes nothing here: its bindings exist only for messages published to it.
            let alternate = exchange.options.alternate_exchange.as_deref();
            if let Some(id) = alternate.and_then(|name| self.exchanges.find(name)) {
                routes.add(Target::Exchange(id));
            }
        }
        Ok(Progress::Done)
    }

    fn route_by_queue_name(&self, routing_keys: &[&str], routes: &mut Routes) {
        for &routing_key in routing_keys {
            if let Some(&id) = self.queue_names.get(routing_key) {
                routes.add(Target::Queue(id));
            }
        }
    }

    /// Adds a new binding to the source's table and the indexes of both ends.
    fn attach(&mut self, id: BindingId, binding: Arc<Binding>) {
        self.bytes += size::binding_bytes(&binding);
        let source = &mut self.exchanges[binding.source];
        source.table.insert(id, &binding);
        source.changes += 1;
        source.outgoing.insert(id);
        if let Some(incoming) = self.incoming(binding.target) {
            incoming.insert(id);
        }
        self.bindings.insert(id, binding);
    }

    /// Removes a binding from all tables and indexes. An auto-delete exchange leaves with its last one.
    fn remove_binding(&mut self, id: BindingId) {
        // Missing if already removed through the index of its other end, as for a binding of an exchange to itself.
        let Some(binding) = self.bindings.remove(&id) else { return };
        self.bytes -= size::binding_bytes(&binding);
        self.binding_ids.remove(&binding);
        if let Some(incoming) = self.incoming(binding.target) {
            incoming.remove(&id);
        }
        let source = &mut self.exchanges[binding.source];
        source.table.remove(id, &binding);
        source.changes += 1;
        source.outgoing.remove(&id);
        if source.options.auto_delete && source.outgoing.is_empty() {
            self.leave(binding.source);
        }
    }

    fn leave(&mut self, id: ExchangeId) {
        if self.exchanges.leave(id) {
            self.leaving_exchanges.push_back(id);
        }
    }

    /// Removes bindings of queues and exchanges that were deleted, and recursively the auto-delete exchanges that lose
    /// their last binding, in at most so many `steps`, which are subtracted. Until all are removed, a message may reach a
    /// queue that has gone. Appends the names of the exchanges to `names`.
    pub(crate) fn sweep(&mut self, steps: &mut usize, names: &mut Vec<String>) -> Progress {
        loop {
            if *steps == 0 && !self.is_swept() {
                return Progress::Paused;
            }
            *steps = steps.saturating_sub(1);
            if let Some(bindings) = self.leaving_bindings.front_mut() {
                match bindings.pop_first() {
                    Some(binding) => self.remove_binding(binding),
                    None => drop(self.leaving_bindings.pop_front()),
                }
                continue;
            }
            let Some(&id) = self.leaving_exchanges.front() else { return Progress::Done };
            let bindings =
                self.exchanges.get(id).map(|exchange| (exchange.incoming.first(), exchange.outgoing.first()));
            if let Some((Some(&binding), _) | (None, Some(&binding))) = bindings {
                self.remove_binding(binding);
                continue;
            }
            self.leaving_exchanges.pop_front();
            let Some(exchange) = self.exchanges.remove(id) else { continue };
            self.bytes -= size::exchange_bytes(&exchange.name, &exchange.options);
            self.exchanges_removed += 1;
            names.push(exchange.name.to_string());
        }
    }

    /// Whether all bindings of deleted queues and exchanges are removed.
    pub(crate) fn is_swept(&self) -> bool {
        self.leaving_bindings.is_empty() && self.leaving_exchanges.is_empty()
    }

    fn sweep_all(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        self.sweep(&mut { usize::MAX }, &mut names);
        names
    }

    /// The index of bindings to a target; `None` if the target is deleted.
    fn incoming(&mut self, target: Target) -> Option<&mut BindingIds> {
        match target {
            Target::Queue(id) => self.queues.get_mut(&id).map(|queue| &mut queue.incoming),
            Target::Exchange(id) => Some(&mut self.exchanges[id].incoming),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

/// Removes the name of a queue, unless another queue has it now.
fn forget_name(names: &mut Map<Arc<str>, QueueId>, name: &str, id: QueueId) {
    if names.get(name) == Some(&id) {
        names.remove(name);
    }
}

/// Name, kind, internal.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
    ("amq.topic", ExchangeKind::Topic, false),
];
