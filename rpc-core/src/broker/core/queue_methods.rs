//! The queue class.

use std::sync::Arc;

use amq_protocol::{
    protocol::{
        AMQPClass,
        queue::{AMQPMethod, Bind, BindOk, Declare, DeclareOk, Delete, DeleteOk, Purge, PurgeOk, Unbind, UnbindOk},
    },
    types::AMQPValue,
};

use super::{
    ConnectionId, Core, Fault, Now,
    access::{Resource, Right},
    exchange::routing_fault,
    publish::DIRECT_REPLY_TO,
    queue::Queue,
    queue_arguments::{self, QueueArguments},
    reply_address::{ReplyAddress, reply_token_of},
    session::{drop_line_breaks, short, text_of},
    vhost::{QueueKey, Vhost},
};
use crate::routing::Destination;

impl Core {
    pub(super) fn queue_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        mut method: AMQPMethod,
        now: Now,
    ) -> Result<(), Fault> {
        match &mut method {
            AMQPMethod::Declare(declare) => drop_line_breaks(&mut declare.queue),
            AMQPMethod::Bind(bind) => {
                drop_line_breaks(&mut bind.queue);
                drop_line_breaks(&mut bind.exchange);
            }
            AMQPMethod::Unbind(unbind) => {
                drop_line_breaks(&mut unbind.queue);
                drop_line_breaks(&mut unbind.exchange);
            }
            AMQPMethod::Delete(delete) => drop_line_breaks(&mut delete.queue),
            _ => {}
        }
        let (nowait, ok) = match method {
            AMQPMethod::Declare(declare) => {
                let ok = self.declare_queue(id, number, &declare, now)?;
                (declare.nowait, AMQPMethod::DeclareOk(ok))
            }
            AMQPMethod::Bind(bind) => {
                self.bind_queue(id, number, &bind)?;
                (bind.nowait, AMQPMethod::BindOk(BindOk {}))
            }
            AMQPMethod::Unbind(unbind) => {
                self.unbind_queue(id, number, &unbind)?;
                (false, AMQPMethod::UnbindOk(UnbindOk {}))
            }
            AMQPMethod::Purge(purge) => {
                let message_count = self.purge_queue(id, number, &purge)?;
                (purge.nowait, AMQPMethod::PurgeOk(PurgeOk { message_count }))
            }
            AMQPMethod::Delete(delete) => {
                return self.delete_queue(id, number, &delete);
            }
            _ => return Err(Fault::unimplemented_method()),
        };
        if !nowait {
            self.sessions.send(id, number, &AMQPClass::Queue(ok));
        }
        Ok(())
    }

    fn declare_queue(
        &mut self,
        id: ConnectionId,
        number: u16,
        declare: &Declare,
        now: Now,
    ) -> Result<DeclareOk, Fault> {
        let mut name = declare.queue.as_str().to_owned();
        if let Some(consumer_count) = self.direct_reply_queue(&name) {
            return match consumer_count {
                0 => Err(Fault::no_queue(&name, &self.vhost(id)?.0.name)),
                _ => Ok(DeclareOk { queue: declare.queue.clone(), message_count: 0, consumer_count }),
            };
        }
        if !declare.passive && name.starts_with("amq.") {
            return Err(Fault::reserved_name("queue", &name));
        }
        if name.is_empty() && !declare.passive {
            if let Some(module) = queue_arguments::type_with_name(&declare.arguments) {
                return Err(Fault::precondition(format!("Cannot declare a server-named queue for type {module}")));
            }
            name = self.generated_name("amq.gen-");
        }
        if !declare.passive {
            self.authorize(id, Right::Configure, Resource::Queue(&name))?;
        }
        let has_memory = self.need_memory(&format_args!("declare queue '{name}'"));
        let (vhost, sessions) = self.vhost(id)?;
        let existing = vhost.names.get(name.as_bytes()).copied();
        let key = match existing {
            Some(key) => {
                check_existing(vhost, key, id, declare)?;
                key
            }
            None if declare.passive => return Err(Fault::no_queue(&name, &vhost.name)),
            None => {
                has_memory?;
                if vhost.queues.len() >= vhost.limits.queues_max {
                    return Err(Fault::limit_reached("queue", &name, &vhost.name, vhost.limits.queues_max));
                }
                if let Some(AMQPValue::LongString(exchange)) = declare.arguments.inner().get("x-dead-letter-exchange")
                    && let Some(session) = sessions.get(id)
                {
                    let exchange = text_of(exchange.as_bytes());
                    session.authorize(Right::Read, Resource::Queue(&name), &vhost.name)?;
                    session.authorize(Right::Write, Resource::Exchange(&exchange), &vhost.name)?;
                }
                let key = vhost.add_queue(new_queue(&name, id, declare, vhost, now)?);
                if declare.exclusive
                    && let Some(session) = sessions.get_mut(id)
                {
                    session.exclusive_queues.insert(key);
                }
                key
            }
        };
        let Some(queue) = vhost.queues.get_mut(&key) else {
            return Err(Fault::no_queue(&name, &vhost.name));
        };
        queue.last_used = now.instant;
        let (message_count, consumer_count) = match &queue.stream {
            None => (count(queue.ready_count()), count(queue.consumers().len())),
            // RabbitMQ does not count the consumers of a stream.
            Some(stream) => (u32::try_from(stream.len()).unwrap_or(u32::MAX), 0),
        };
        let ok = DeclareOk { queue: short(&name), message_count, consumer_count };
        self.channel_mut(id, number)?.last_queue = Some(name);
        Ok(ok)
    }

    /// How many consumers the direct replies have under this name: always one under the common name, as in RabbitMQ, and
    /// one under a token as long as its owner listens. `None` for all other names.
    fn direct_reply_queue(&self, name: &str) -> Option<u32> {
        if name == DIRECT_REPLY_TO {
            return Some(1);
        }
        let token = reply_token_of(name)?;
        Some(ReplyAddress::parse(token).is_some_and(|to| self.sessions.has_reply_consumer(&to)).into())
    }

    fn bind_queue(&mut self, id: ConnectionId, number: u16, bind: &Bind) -> Result<(), Fault> {
        self.need_memory(&format_args!("bind to exchange '{}'", bind.exchange))?;
        let name = self.queue_name(id, number, bind.queue.as_str())?;
        let routing_key = binding_key(&name, bind.queue.as_str(), bind.routing_key.as_str());
        self.authorize_binding(id, Resource::Queue(&name), bind.exchange.as_str(), routing_key)?;
        let (vhost, _) = self.vhost(id)?;
        if vhost.router.exchange(bind.exchange.as_str()).is_none() {
            return Err(Fault::no_exchange(bind.exchange.as_str(), &vhost.name));
        }
        let key = accessible(vhost, &name, id)?;
        vhost
            .router
            .bind(bind.exchange.as_str(), Destination::Queue(key), routing_key, &bind.arguments)
            .map_err(|error| routing_fault(&error, &vhost.name))
    }

    fn unbind_queue(&mut self, id: ConnectionId, number: u16, unbind: &Unbind) -> Result<(), Fault> {
        let name = self.queue_name(id, number, unbind.queue.as_str())?;
        let routing_key = binding_key(&name, unbind.queue.as_str(), unbind.routing_key.as_str());
        self.authorize_binding(id, Resource::Queue(&name), unbind.exchange.as_str(), routing_key)?;
        let (vhost, _) = self.vhost(id)?;
        let Some(key) = vhost.names.get(name.as_bytes()).copied() else {
            return Ok(());
        };
        // RabbitMQ looks for the binding first: what is not there may be unbound from a locked queue, too.
        if let Err(locked) = accessible(vhost, &name, id) {
            let is_bound = vhost.router.bindings().any(|(source, to, ..)| {
                source == unbind.exchange.as_str() && matches!(to, Destination::Queue(to) if to == key)
            });
            return if is_bound { Err(locked) } else { Ok(()) };
        }
        vhost
            .router
            .unbind(unbind.exchange.as_str(), Destination::Queue(key), routing_key, &unbind.arguments)
            .map(drop)
            .map_err(|error| routing_fault(&error, &vhost.name))
    }

    fn purge_queue(&mut self, id: ConnectionId, number: u16, purge: &Purge) -> Result<u32, Fault> {
        let name = self.queue_name(id, number, purge.queue.as_str())?;
        self.authorize(id, Right::Read, Resource::Queue(&name))?;
        let (vhost, sessions) = self.vhost(id)?;
        let key = accessible(vhost, &name, id)?;
        let Some(queue) = vhost.queues.get_mut(&key) else { return Ok(0) };
        if queue.stream.is_some() {
            return Err(Fault::no_stream_method("queue.purge", &name, &vhost.name));
        }
        let (purged, entries) = queue.purge();
        sessions.garbage.extend(entries);
        Ok(count(purged))
    }

    fn delete_queue(&mut self, id: ConnectionId, number: u16, delete: &Delete) -> Result<(), Fault> {
        let name = self.queue_name(id, number, delete.queue.as_str())?;
        self.authorize(id, Right::Configure, Resource::Queue(&name))?;
        let (vhost, sessions) = self.vhost(id)?;
        let key = match vhost.names.contains_key(name.as_bytes()) {
            true => Some(accessible(vhost, &name, id)?),
            false => None,
        };
        let queue = key.and_then(|key| vhost.queues.get(&key));
        if let Some(queue) = queue.filter(|queue| queue.stream.is_none()) {
            let flags = [(delete.if_unused, "if-unused"), (delete.if_empty, "if-empty")];
            if queue.arguments.is_quorum
                && let Some((_, flag)) = flags.into_iter().find(|(is_set, _)| *is_set)
            {
                return Err(Fault::quorum_delete(flag, &name, &vhost.name));
            }
            if delete.if_unused && !queue.consumers().is_empty() {
                return Err(Fault::in_use("queue", &name, &vhost.name));
            }
            if delete.if_empty && queue.ready_count() > 0 {
                return Err(Fault::not_empty(&name, &vhost.name));
            }
        }
        // Before its consumers hear of it: a client waits for the reply, and may not expect a cancel first.
        if !delete.nowait {
            let message_count = count(queue.map_or(0, Queue::ready_count));
            sessions.send(id, number, &AMQPClass::Queue(AMQPMethod::DeleteOk(DeleteOk { message_count })));
        }
        if let Some(key) = key {
            vhost.delete_queue(key, sessions);
        }
        Ok(())
    }

    /// The queue a method names; an empty name stands for the channel's last declared one.
    pub(super) fn queue_name(&mut self, id: ConnectionId, number: u16, name: &str) -> Result<String, Fault> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        self.channel_mut(id, number)?.last_queue.clone().ok_or_else(Fault::no_previous_queue)
    }
}

/// RabbitMQ: with neither a queue nor a key named, the queue's name is the key.
fn binding_key<'a>(name: &'a str, queue: &str, routing_key: &'a str) -> &'a str {
    match (queue, routing_key) {
        ("", "") => name,
        (_, routing_key) => routing_key,
    }
}

/// A queue that exists and is not another connection's.
pub(super) fn accessible(vhost: &Vhost, name: &str, id: ConnectionId) -> Result<QueueKey, Fault> {
    let Some(key) = vhost.names.get(name.as_bytes()) else {
        return Err(Fault::no_queue(name, &vhost.name));
    };
    match vhost.queues.get(key).and_then(|queue| queue.exclusive_to) {
        Some(owner) if owner != id => Err(Fault::locked(name, &vhost.name)),
        _ => Ok(*key),
    }
}

fn check_existing(vhost: &Vhost, key: QueueKey, id: ConnectionId, declare: &Declare) -> Result<(), Fault> {
    let Some(queue) = vhost.queues.get(&key) else { return Ok(()) };
    let (name, vhost) = (&*queue.name, &*vhost.name);
    if queue.exclusive_to.is_some_and(|owner| owner != id) {
        return Err(Fault::locked(name, vhost));
    }
    if declare.passive {
        return Ok(());
    }
    if queue.exclusive_to.is_some() != declare.exclusive {
        return Err(Fault::locked(name, vhost));
    }
    let differs = |field, received: bool, current: bool| {
        let (received, current) = (format!("'{received}'"), format!("'{current}'"));
        Err(Fault::inequivalent("queue", name, vhost, field, &received, &current))
    };
    // RabbitMQ makes an exclusive queue transient whatever the declaration says, and does not compare.
    if queue.exclusive_to.is_none() && queue.durable != declare.durable {
        return differs("durable", declare.durable, queue.durable);
    }
    if queue.auto_delete != declare.auto_delete {
        return differs("auto_delete", declare.auto_delete, queue.auto_delete);
    }
    queue_arguments::check_equivalent(&declare.arguments, &queue.table, name, vhost)
}

fn new_queue(name: &str, id: ConnectionId, declare: &Declare, vhost: &Vhost, now: Now) -> Result<Queue, Fault> {
    let mut arguments = QueueArguments::read(&declare.arguments, name, &vhost.name)?;
    if let Some(max_length) = vhost.limits.queue_max_length {
        arguments.limit_length(max_length, declare.arguments.contains_key("x-overflow"));
    }
    if arguments.is_quorum || arguments.stream.is_some() {
        let properties = [
            (declare.exclusive, "exclusive-owner"),
            (declare.auto_delete, "auto-delete"),
            (!declare.durable, "non-durable"),
        ];
        if let Some((_, property)) = properties.into_iter().find(|(is_asked_for, _)| *is_asked_for) {
            return Err(Fault::invalid_property(property, name, &vhost.name));
        }
    }
    let mut queue = Queue::new(Arc::from(name), declare.arguments.clone(), arguments, now.instant);
    queue.durable = declare.durable && !declare.exclusive;
    queue.auto_delete = declare.auto_delete;
    queue.exclusive_to = declare.exclusive.then_some(id);
    Ok(queue)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
