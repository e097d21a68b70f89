//! The queue class; `queue.declare` has a file of its own.

use amq_protocol::protocol::{
    AMQPClass,
    queue::{AMQPMethod, Bind, BindOk, Delete, DeleteOk, Purge, PurgeOk, Unbind, UnbindOk},
};

use crate::{
    broker::core::{
        classes::{exchange::routing_fault, queue_declare::declare},
        context::Context,
        fault::{Fault, STREAMS},
        names::drop_line_breaks,
        session::{
            access::{Resource, Right},
            reply_address::is_address,
        },
        unfinished::Deletion,
        vhost::{live_queue::LiveQueue, queue::Queue},
    },
    routing::Destination,
};

/// Handles a method of this class.
pub(crate) fn method(context: &mut Context<'_>, mut method: AMQPMethod) -> Result<(), Fault> {
    clean_names(&mut method);
    let answer = call(context, method);
    context.vhost.count_topology();
    if let Some(answer) = answer? {
        context.send(&AMQPClass::Queue(answer));
    }
    Ok(())
}

fn clean_names(method: &mut AMQPMethod) {
    match method {
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
}

/// Executes a method. Returns its answer, unless the client wants none or has been sent it.
fn call(context: &mut Context<'_>, method: AMQPMethod) -> Result<Option<AMQPMethod>, Fault> {
    let (nowait, ok) = match method {
        AMQPMethod::Declare(declare) => {
            let ok = self::declare(context, &declare)?;
            (declare.nowait, AMQPMethod::DeclareOk(ok))
        }
        AMQPMethod::Bind(bind) => {
            self::bind(context, &bind)?;
            (bind.nowait, AMQPMethod::BindOk(BindOk {}))
        }
        AMQPMethod::Unbind(unbind) => {
            self::unbind(context, &unbind)?;
            return Ok(None);
        }
        AMQPMethod::Purge(purge) => {
            let message_count = self::purge(context, &purge)?;
            (purge.nowait, AMQPMethod::PurgeOk(PurgeOk { message_count }))
        }
        AMQPMethod::Delete(delete) => {
            self::delete(context, &delete)?;
            return Ok(None);
        }
        _ => return Err(Fault::unimplemented_method()),
    };
    Ok((!nowait).then_some(ok))
}

fn bind(context: &mut Context<'_>, bind: &Bind) -> Result<(), Fault> {
    let exchange = bind.exchange.as_str();
    context.globals.memory.refuse_if_exhausted(&format_args!("bind to exchange '{exchange}'"))?;
    let name = context.queue_name(bind.queue.as_str())?;
    let routing_key = binding_key(&name, bind.queue.as_str(), bind.routing_key.as_str());
    context.note_binding(&name, exchange, routing_key);
    context.authorize_binding(Resource::Queue(&name), exchange, routing_key)?;
    let vhost = &mut *context.vhost;
    if vhost.router.exchange(exchange).is_none() {
        return Err(Fault::no_exchange(exchange, &vhost.name));
    }
    if vhost.facts.knows_volatile_queues && is_address(&name) {
        return Err(Fault::volatile_queue());
    }
    let key = vhost.accessible(&name, context.id)?.key;
    vhost
        .router
        .bind(exchange, Destination::Queue(key), routing_key, &bind.arguments)
        .map_err(|error| routing_fault(&error, &vhost.name))
}

fn unbind(context: &mut Context<'_>, unbind: &Unbind) -> Result<(), Fault> {
    let exchange = unbind.exchange.as_str();
    let name = context.queue_name(unbind.queue.as_str())?;
    let routing_key = binding_key(&name, unbind.queue.as_str(), unbind.routing_key.as_str());
    context.authorize_binding(Resource::Queue(&name), exchange, routing_key)?;
    let vhost = &mut *context.vhost;
    if let Some(key) = vhost.names.get(name.as_bytes()).copied() {
        let queue = Destination::Queue(key);
        // RabbitMQ looks for the binding first: removing a missing one succeeds even on a locked queue.
        if vhost.router.has_binding(exchange, queue, routing_key, &unbind.arguments) {
            vhost.accessible(&name, context.id)?;
        }
        vhost
            .router
            .begin_unbind(exchange, queue, routing_key, &unbind.arguments)
            .map_err(|error| routing_fault(&error, &vhost.name))?;
    }
    let answer = Some(AMQPClass::Queue(AMQPMethod::UnbindOk(UnbindOk {})));
    context.begin(Deletion { answer, consumers: None })
}

fn purge(context: &mut Context<'_>, purge: &Purge) -> Result<u32, Fault> {
    let name = context.queue_name(purge.queue.as_str())?;
    context.authorize(Right::Read, Resource::Queue(&name))?;
    let LiveQueue { queue, vhost, .. } = context.vhost.accessible(&name, context.id)?;
    if queue.stream.is_some() {
        return Err(Fault::no_stream_method("queue.purge", STREAMS, &name, vhost));
    }
    let delayed = queue.delayed_count();
    let (purged, entries) = queue.purge();
    context.sessions.garbage.extend(entries);
    Ok(count(purged + delayed))
}

fn delete(context: &mut Context<'_>, delete: &Delete) -> Result<(), Fault> {
    let name = context.queue_name(delete.queue.as_str())?;
    context.authorize(Right::Configure, Resource::Queue(&name))?;
    let found = match context.vhost.names.contains_key(name.as_bytes()) {
        true => {
            let LiveQueue { key, queue, vhost, .. } = context.vhost.accessible(&name, context.id)?;
            check_delete(queue, delete, vhost)?;
            Some(key)
        }
        false => None,
    };
    let (mut message_count, mut consumers) = (0, None);
    if let Some(key) = found
        && let Some((ready, consuming)) = context.vhost.begin_delete(key, context.sessions)
    {
        (message_count, consumers) = (count(ready), Some((key, consuming)));
    }
    let answer = (!delete.nowait).then_some(AMQPClass::Queue(AMQPMethod::DeleteOk(DeleteOk { message_count })));
    context.begin(Deletion { answer, consumers })
}

/// Refuses to delete a queue against `if-unused` or `if-empty`. RabbitMQ's streams ignore both.
fn check_delete(queue: &Queue, delete: &Delete, vhost: &str) -> Result<(), Fault> {
    if queue.stream.is_some() {
        return Ok(());
    }
    let flags = [(delete.if_unused, "if-unused"), (delete.if_empty, "if-empty")];
    if queue.arguments.is_quorum
        && let Some((_, flag)) = flags.into_iter().find(|(is_set, _)| *is_set)
    {
        return Err(Fault::quorum_delete(flag, &queue.name, vhost));
    }
    if delete.if_unused && !queue.consumers.is_empty() {
        return Err(Fault::in_use("queue", &queue.name, vhost));
    }
    if delete.if_empty && queue.ready_count() > 0 {
        return Err(Fault::not_empty(&queue.name, vhost));
    }
    Ok(())
}

/// The routing key of a binding. As in RabbitMQ it is the queue's name if the method names neither queue nor key.
fn binding_key<'a>(name: &'a str, queue: &str, routing_key: &'a str) -> &'a str {
    match (queue, routing_key) {
        ("", "") => name,
        (_, routing_key) => routing_key,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
