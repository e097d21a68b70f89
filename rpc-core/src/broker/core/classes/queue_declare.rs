//! `queue.declare`.

use std::sync::Arc;

use amq_protocol::{
    protocol::queue::{Declare, DeclareOk},
    types::AMQPValue,
};

use crate::broker::core::{
    context::Context,
    deprecations::DeprecatedFeature,
    fault::Fault,
    interface::{ConnectionId, Now},
    names::{short, text_of},
    profile::QueueFacts,
    session::{
        access::{Resource, Right},
        reply_address::{DIRECT_REPLY_TO, ReplyAddress, is_made_up, reply_token_of},
        sessions::Sessions,
    },
    vhost::{
        Vhost,
        arguments::{self, QueueArguments},
        field_values::integer_of,
        live_queue::LiveQueue,
        queue::Queue,
    },
};

/// Handles `queue.declare`: a queue is found or created.
pub(crate) fn declare(context: &mut Context<'_>, declare: &Declare) -> Result<DeclareOk, Fault> {
    if let Some(consumer_count) = direct_reply_consumers(declare.queue.as_str(), context.sessions)? {
        return match consumer_count {
            0 => Err(Fault::no_queue(declare.queue.as_str(), &context.vhost.name)),
            _ => Ok(DeclareOk { queue: declare.queue.clone(), message_count: 0, consumer_count }),
        };
    }
    let name = name(context, declare)?;
    match declare.passive {
        true => context.session().authorize_passive(Resource::Queue(&name), &context.vhost.name)?,
        false => context.authorize(Right::Configure, Resource::Queue(&name))?,
    }
    if !declare.passive && context.warns_of().is_some() {
        note_declaration(context, &name, declare);
    }
    let facts = &context.vhost.facts.queues;
    let ok = match context.vhost.find(&name) {
        Some(LiveQueue { queue, vhost, .. }) => {
            check_existing(queue, vhost, context.id, declare, facts)?;
            queue.last_used = context.now.instant;
            declare_ok(queue)
        }
        None if declare.passive => return Err(Fault::no_queue(&name, &context.vhost.name)),
        None => create(context, &name, declare)?,
    };
    context.channel_mut().last_queue = Some(name);
    Ok(ok)
}

/// Notes what is deprecated in a declaration, whether it is refused or not.
#[cold]
fn note_declaration(context: &mut Context<'_>, name: &str, declare: &Declare) {
    let argument = |name: &str| declare.arguments.inner().get(name);
    let is_quorum =
        matches!(argument("x-queue-type"), Some(AMQPValue::LongString(kind)) if kind.as_bytes() == b"quorum");
    let version = argument("x-queue-version").and_then(integer_of);
    for (is_used, feature) in [
        (!declare.durable && !declare.exclusive, DeprecatedFeature::TransientQueue),
        (argument("x-queue-mode").is_some(), DeprecatedFeature::QueueMode),
        (version == Some(1), DeprecatedFeature::QueueVersion1),
        (is_quorum && argument("x-max-priority").is_some(), DeprecatedFeature::MaxPriorityOfQuorumQueue),
        (!is_quorum && argument("x-consumer-timeout").is_some(), DeprecatedFeature::ConsumerTimeoutOfClassicQueue),
    ] {
        if is_used {
            context.deprecated(feature, name);
        }
    }
}

fn declare_ok(queue: &Queue) -> DeclareOk {
    let (message_count, consumer_count) = match &queue.stream {
        None => (queue.ready_count() as u64, queue.consumers.len()),
        // RabbitMQ does not count the consumers of a stream.
        Some(stream) => (stream.len(), 0),
    };
    DeclareOk {
        queue: short(&queue.name),
        message_count: u32::try_from(message_count).unwrap_or(u32::MAX),
        consumer_count: u32::try_from(consumer_count).unwrap_or(u32::MAX),
    }
}

/// The number of consumers of a name of direct replies: always one for the common name, as in RabbitMQ, and one for an
/// address while its channel consumes. `None` for any other name.
fn direct_reply_consumers(name: &str, sessions: &Sessions) -> Result<Option<u32>, Fault> {
    if name == DIRECT_REPLY_TO {
        return Ok(Some(1));
    }
    let Some(token) = reply_token_of(name) else { return Ok(None) };
    match ReplyAddress::parse(token) {
        Some(to) => Ok(Some(sessions.has_reply_consumer(&to).into())),
        // RabbitMQ fails over what it takes for an address.
        None if is_made_up(token) || sessions.facts.knows_volatile_queues => Err(Fault::internal_error()),
        None => Ok(Some(0)),
    }
}

/// The queue's name, generated if the client leaves that to the broker.
fn name(context: &mut Context<'_>, declare: &Declare) -> Result<String, Fault> {
    let name = declare.queue.as_str();
    if !declare.passive && name.starts_with("amq.") {
        return Err(Fault::reserved_name("queue", name));
    }
    if declare.passive || !name.is_empty() {
        return Ok(name.to_owned());
    }
    if let Some(module) = arguments::type_with_name(&declare.arguments) {
        return Err(Fault::precondition(format!("Cannot declare a server-named queue for type {module}")));
    }
    Ok(context.globals.random.name("amq.gen-"))
}

/// Refuses a declaration that differs from the queue it names.
fn check_existing(
    queue: &Queue,
    vhost: &str,
    id: ConnectionId,
    declare: &Declare,
    facts: &QueueFacts,
) -> Result<(), Fault> {
    let name = &*queue.name;
    if queue.is_locked_for(id) {
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
    arguments::check_equivalent(&declare.arguments, &queue.table, name, vhost, facts)
}

/// Creates a queue within memory, limits and rights.
fn create(context: &mut Context<'_>, name: &str, declare: &Declare) -> Result<DeclareOk, Fault> {
    context.globals.memory.refuse_if_exhausted(&format_args!("declare queue '{name}'"))?;
    let queues_max = context.vhost.limits.queues_max;
    if context.vhost.queues.len() >= queues_max {
        return Err(Fault::limit_reached("queue", name, &context.vhost.name, queues_max));
    }
    if let Some(AMQPValue::LongString(exchange)) = declare.arguments.inner().get("x-dead-letter-exchange") {
        context.authorize(Right::Read, Resource::Queue(name))?;
        context.authorize(Right::Write, Resource::Exchange(&text_of(exchange.as_bytes())))?;
    }
    let queue = new_queue(name, context.id, declare, context.vhost, context.now)?;
    let ok = declare_ok(&queue);
    let key = context.vhost.add_queue(queue);
    if declare.exclusive {
        context.session_mut().exclusive_queues.insert(key);
    }
    Ok(ok)
}

fn new_queue(name: &str, id: ConnectionId, declare: &Declare, vhost: &Vhost, now: Now) -> Result<Queue, Fault> {
    let mut arguments = QueueArguments::read(&declare.arguments, name, &vhost.name, &vhost.facts.queues)?;
    if let Some(max_length) = vhost.limits.queue_max_length {
        arguments.limit_length(max_length, declare.arguments.contains_key("x-overflow"));
    }
    if arguments.is_quorum || arguments.stream.is_some() {
        let properties = [
            (declare.exclusive, "exclusive-owner"),
            (declare.auto_delete, "auto-delete"),
            (!declare.durable, "non-durable"),
        ];
        if let Some((_, property)) = properties.into_iter().find(|(is_requested, _)| *is_requested) {
            return Err(Fault::invalid_property(property, name, &vhost.name));
        }
    }
    let mut queue = Queue::new(Arc::from(name), declare.arguments.clone(), arguments, now.instant);
    queue.durable = declare.durable && !declare.exclusive;
    queue.auto_delete = declare.auto_delete;
    queue.exclusive_to = declare.exclusive.then_some(id);
    Ok(queue)
}
