//! `basic.publish`: a whole message is checked, routed and queued.

use std::{borrow::Cow, sync::Arc};

use crate::{
    broker::core::{
        classes::publish_properties::Requests,
        context::{Context, Unfinished},
        deprecations::DeprecatedFeature,
        fault::Fault,
        limits::memory::Held,
        names::{shown, text_of},
        probes::injected::PublishFault,
        session::{
            Session,
            access::{Access, Resource, Right},
            channel::{Mode, Routable, Transaction},
            reply_address::{DIRECT_REPLY_TO, ReplyAddress, is_made_up, reply_token_of},
        },
        vhost::{
            MessageHeaders, Vhost,
            message::Message,
            route::{Routed, Searcher},
        },
    },
    routing::{ExchangeKind, Progress, QueueId},
    wire::{Content, PropertyReader, PropertyWriter, Publish, table},
};

/// Checks a whole message, routes it, and puts it into its queues or into the channel's transaction. If the search for
/// its queues pauses, nothing has happened, and the same message is published again.
pub(crate) fn publish(
    context: &mut Context<'_>,
    publish: &Publish<'_>,
    content: &Content<'_>,
) -> Result<Progress, Fault> {
    if publish.immediate {
        return Err(Fault::not_implemented("immediate=true"));
    }
    let session = context.session();
    let exchange = if publish.exchange.is_empty() { Cow::Borrowed("") } else { text_of(publish.exchange) };
    authorize(context.vhost, session, &exchange, publish)?;
    let reader = PropertyReader::new(content.properties);
    let requests = if reader.concerns_broker() { Requests::read(reader, session)? } else { Requests::default() };
    if !requests.copy_keys().is_empty() {
        authorize_copies(context.vhost, session, &exchange, requests.copy_keys())?;
    }
    if context.globals.deprecations.is_some() {
        note_publish(context, &exchange, publish, reader, requests.copy_keys());
    }
    let reply_to = reply_address(context, reader)?;
    let mode = &context.channel().mode;
    let (is_confirmed, is_transaction) = (matches!(mode, Mode::Confirm), matches!(mode, Mode::Transaction(_)));
    let message = Arc::new(message(context, publish, content, &requests, reply_to.as_deref()));
    let is_taken = match injected_fault(context, publish.mandatory, is_confirmed) {
        Some(PublishFault::Return) => {
            context.sessions.send_return(context.id, context.number, &message, context.now);
            true
        }
        Some(PublishFault::Nack) => false,
        None => {
            let Some(targets) = route(context, publish, &exchange, requests.copy_keys(), &message)? else {
                return Ok(Progress::Paused);
            };
            let taken = hand_in(context, targets, message, publish.mandatory, is_transaction)?;
            // Otherwise the rest of the queues follows, and then the confirm.
            let Some(is_taken) = taken else { return Ok(Progress::Done) };
            is_taken
        }
    };
    if is_confirmed {
        context.sessions.confirm(context.id, context.number, is_taken, context.now);
    }
    Ok(Progress::Done)
}

/// A message is put into its queues.
#[derive(Debug)]
pub(crate) struct Queueing {
    pub(crate) routable: Routable,
    /// How many of the queues have it.
    done: usize,
    /// Whether all of these have taken it.
    pub(crate) is_taken: bool,
}

impl Queueing {
    pub(crate) const fn new(routable: Routable) -> Self {
        Self { routable, done: 0, is_taken: true }
    }

    pub(crate) fn go_on(&mut self, context: &mut Context<'_>) -> Progress {
        let Context { id, number, now, vhost, sessions, .. } = context;
        for to in std::mem::take(&mut self.routable.replies) {
            sessions.deliver_reply(&to, &self.routable.message);
        }
        let Routable { message, queues, mandatory, .. } = &self.routable;
        // Queues may have been deleted while a transaction was open.
        if self.done == 0 && *mandatory && !queues.iter().any(|key| vhost.queues.contains_key(key)) {
            sessions.send_return(*id, *number, message, *now);
        }
        while let Some(key) = queues.get(self.done) {
            if sessions.has_worked_enough() {
                return Progress::Paused;
            }
            self.is_taken &= vhost.enqueue(*key, message, *now, sessions);
            self.done += 1;
        }
        vhost.route_dead(*now, sessions);
        Progress::Done
    }
}

/// The rest of a publish to many queues.
#[derive(Debug)]
pub(crate) struct Publishing {
    queueing: Queueing,
    is_confirmed: bool,
}

impl Unfinished for Publishing {
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault> {
        let progress = self.queueing.go_on(context);
        if progress == Progress::Done && self.is_confirmed {
            context.sessions.confirm(context.id, context.number, self.queueing.is_taken, context.now);
        }
        Ok(progress)
    }
}

/// The queues of a message.
enum Targets {
    One(QueueId),
    Several(Vec<QueueId>),
    /// The message was a direct reply, and is on its way. It goes to no queue.
    DirectReply,
}

/// Finds the queues of a message; `None` if the search has paused. A direct reply is delivered at once, because no queue
/// holds it; the keys in CC and BCC may name more of its receivers, and queues beside them.
#[inline]
fn route(
    context: &mut Context<'_>,
    publish: &Publish<'_>,
    exchange: &str,
    copy_keys: &[String],
    message: &Arc<Message>,
) -> Result<Option<Targets>, Fault> {
    // The usual case, a queue by its name, needs no more than one look-up.
    if let (b"", []) = (publish.exchange, copy_keys)
        && let Some(key) = context.vhost.names.get(publish.routing_key)
    {
        return Ok(Some(Targets::One(*key)));
    }
    let routing_key = text_of(publish.routing_key);
    if !copy_keys.is_empty() {
        let keys: Vec<_> = std::iter::once(&*routing_key).chain(copy_keys.iter().map(|key| &**key)).collect();
        return route_copies(context, publish, exchange, &keys, message);
    }
    if exchange.is_empty()
        && let Some(token) = reply_token_of(&routing_key)
    {
        let address = reply_address_of(token, context.vhost)?;
        reply(context, publish.mandatory, address.as_slice(), message)?;
        return Ok(Some(Targets::DirectReply));
    }
    search(context, exchange, &[&routing_key], message)
}

/// As [`route`], with the routing keys in CC and BCC: each may be the name of a queue or of a direct reply.
fn route_copies(
    context: &mut Context<'_>,
    publish: &Publish<'_>,
    exchange: &str,
    keys: &[&str],
    message: &Arc<Message>,
) -> Result<Option<Targets>, Fault> {
    let mut addresses = Vec::new();
    for token in keys.iter().filter(|_| exchange.is_empty()).filter_map(|key| reply_token_of(key)) {
        let address = reply_address_of(token, context.vhost)?;
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    // No queue has the name of a direct reply.
    let Some(targets) = search(context, exchange, keys, message)? else { return Ok(None) };
    if addresses.is_empty() {
        return Ok(Some(targets));
    }
    let reaches_queues = !matches!(&targets, Targets::Several(queues) if queues.is_empty());
    reply(context, publish.mandatory && !reaches_queues, &addresses, message)?;
    Ok(Some(if reaches_queues { targets } else { Targets::DirectReply }))
}

/// Finds the queues of routing keys; `None` if the search has paused.
#[inline]
fn search(
    context: &mut Context<'_>,
    exchange: &str,
    keys: &[&str],
    message: &Message,
) -> Result<Option<Targets>, Fault> {
    let Context { id, number, vhost, sessions, .. } = context;
    let headers = MessageHeaders(message.properties());
    match vhost.route(Searcher::Publisher(*id, *number), exchange, keys, &headers, &mut sessions.work) {
        Routed::NoExchange => Err(Fault::no_exchange(exchange, &vhost.name)),
        Routed::Paused => Ok(None),
        Routed::Queues([key]) => Ok(Some(Targets::One(*key))),
        Routed::Queues(several) => Ok(Some(Targets::Several(several.to_vec()))),
    }
}

/// The address that the token of a direct reply stands for; `None` for one that was never given out.
fn reply_address_of(token: &str, vhost: &Vhost) -> Result<Option<ReplyAddress>, Fault> {
    let address = ReplyAddress::parse(token);
    if address.is_none() && vhost.facts.fails_on_made_up_addresses && is_made_up(token) {
        return Err(Fault::internal_error());
    }
    Ok(address)
}

/// Delivers a message to addresses of direct replies, or has the channel's transaction do so. A mandatory one that reaches
/// none of them is returned.
fn reply(
    context: &mut Context<'_>,
    mandatory: bool,
    addresses: &[ReplyAddress],
    message: &Arc<Message>,
) -> Result<(), Fault> {
    let facts = context.vhost.facts;
    let mandatory = mandatory && (addresses.is_empty() || facts.returns_direct_replies);
    let copies_max = context.globals.rules.limits.transaction_max;
    if facts.commits_direct_replies
        && let Mode::Transaction(transaction) = &mut context.channel_mut().mode
    {
        let (message, replies) = (Arc::clone(message), addresses.to_vec());
        return hold(transaction, Routable { message, queues: Vec::new(), replies, mandatory }, copies_max);
    }
    let Context { id, number, now, sessions, .. } = context;
    let delivered = addresses.iter().filter(|to| sessions.deliver_reply(to, message)).count();
    if mandatory && delivered == 0 {
        sessions.send_return(*id, *number, message, *now);
    }
    Ok(())
}

/// Puts a message into its queues, or into the channel's transaction. Returns false if a queue refuses it, and `None` if
/// some of the queues have to wait.
#[inline]
fn hand_in(
    context: &mut Context<'_>,
    targets: Targets,
    message: Arc<Message>,
    mandatory: bool,
    is_transaction: bool,
) -> Result<Option<bool>, Fault> {
    let queues = match targets {
        Targets::DirectReply => return Ok(Some(true)),
        Targets::One(key) if !is_transaction => {
            let Context { now, vhost, sessions, .. } = context;
            let is_taken = vhost.enqueue(key, &message, *now, sessions);
            vhost.route_dead(*now, sessions);
            return Ok(Some(is_taken));
        }
        Targets::One(key) => vec![key],
        Targets::Several(queues) => queues,
    };
    let routable = Routable { message, queues, replies: Vec::new(), mandatory };
    let copies_max = context.globals.rules.limits.transaction_max;
    let (vhost, channel) = context.vhost_and_channel();
    let is_confirmed = match &mut channel.mode {
        Mode::Transaction(transaction) => {
            if vhost.facts.commit_needs_queues {
                let named =
                    routable.queues.iter().filter_map(|key| Some((*key, Arc::clone(&vhost.queues.get(key)?.name))));
                transaction.names.extend(named);
            }
            return hold(transaction, routable, copies_max).map(|()| Some(true));
        }
        Mode::Plain => false,
        Mode::Confirm => true,
    };
    let mut queueing = Queueing::new(routable);
    if queueing.go_on(context) == Progress::Done {
        return Ok(Some(queueing.is_taken));
    }
    context.leave(Publishing { queueing, is_confirmed });
    Ok(None)
}

/// Keeps a message until its transaction is committed.
fn hold(transaction: &mut Transaction, routable: Routable, copies_max: usize) -> Result<(), Fault> {
    transaction.copies += (routable.queues.len() + routable.replies.len()).max(1);
    if transaction.copies > copies_max {
        let text = format!("the limit of {copies_max} messages in a transaction is reached");
        return Err(Fault::precondition(text));
    }
    transaction.publishes.push(routable);
    Ok(())
}

/// Refuses an exchange that does not exist, or that the connection may not publish to.
#[inline]
fn authorize(vhost: &Vhost, session: &Session, exchange: &str, publish: &Publish<'_>) -> Result<(), Fault> {
    let may_write = |resource| session.authorize(Right::Write, resource, &vhost.name);
    may_write(Resource::Exchange(exchange))?;
    // The default exchange always exists, and is no topic exchange.
    if exchange.is_empty() {
        return Ok(());
    }
    match vhost.router.exchange(exchange) {
        None => Err(Fault::no_exchange(&shown(publish.exchange), &vhost.name)),
        Some(options) if options.internal => Err(Fault::internal_exchange(exchange, &vhost.name)),
        // For a user with all rights the routing key need not be decoded.
        Some(options) if matches!(session.access, Access::Limited(_)) && options.kind == ExchangeKind::Topic => {
            may_write(Resource::Topic { exchange, routing_key: &text_of(publish.routing_key) })
        }
        Some(_) => Ok(()),
    }
}

/// Refuses routing keys of copies that the connection may not publish with.
fn authorize_copies(vhost: &Vhost, session: &Session, exchange: &str, keys: &[String]) -> Result<(), Fault> {
    let is_topic = || vhost.router.exchange(exchange).is_some_and(|options| options.kind == ExchangeKind::Topic);
    if !vhost.facts.checks_topics_of_copies || !is_topic() {
        return Ok(());
    }
    let mut topics = keys.iter().map(|routing_key| Resource::Topic { exchange, routing_key });
    topics.try_for_each(|topic| session.authorize(Right::Write, topic, &vhost.name))
}

/// Notes what is deprecated in a message.
#[cold]
fn note_publish(
    context: &mut Context<'_>,
    exchange: &str,
    publish: &Publish<'_>,
    reader: PropertyReader<'_>,
    copy_keys: &[String],
) {
    let routing_key = text_of(publish.routing_key);
    if reader.raw_headers().is_some_and(|headers| table::find(headers, b"x-death").is_some()) {
        context.deprecated(DeprecatedFeature::DeathsOfClient, &routing_key);
    }
    let is_topic = context.vhost.router.exchange(exchange).is_some_and(|options| options.kind == ExchangeKind::Topic);
    for key in copy_keys.iter().filter(|_| is_topic) {
        if context.authorize(Right::Write, Resource::Topic { exchange, routing_key: key }).is_err() {
            context.deprecated(DeprecatedFeature::CopyBeyondTopicPermissions, key);
        }
    }
}

/// The address that replaces `amq.rabbitmq.reply-to` in `reply_to`; `None` if the message keeps its own.
#[inline]
fn reply_address(context: &Context<'_>, reader: PropertyReader<'_>) -> Result<Option<String>, Fault> {
    if reader.reply_to() != Some(DIRECT_REPLY_TO.as_bytes()) {
        return Ok(None);
    }
    if context.channel().direct_replies.is_none() {
        return Err(Fault::precondition("fast reply consumer does not exist"));
    }
    let (connection, channel) = context.place();
    Ok(Some(ReplyAddress { connection, nonce: context.session().nonce, channel }.name()))
}

#[inline]
fn message(
    context: &Context<'_>,
    publish: &Publish<'_>,
    content: &Content<'_>,
    requests: &Requests,
    reply_to: Option<&str>,
) -> Message {
    let names = (publish.exchange, publish.routing_key);
    let held = Held::nothing_of(&context.globals.memory);
    let headers = requests.headers_without_bcc();
    if headers.is_none() && reply_to.is_none() {
        return Message::new(names, content, requests.priority, requests.expiration_ms, held);
    }
    let mut writer = PropertyWriter::new(content.properties);
    if let Some(headers) = headers {
        writer = writer.headers(headers);
    }
    if let Some(reply_to) = reply_to {
        writer = writer.reply_to(reply_to);
    }
    let properties = writer.write();
    let content = Content { properties: &properties, ..*content };
    Message::new(names, &content, requests.priority, requests.expiration_ms, held)
}

#[inline]
fn injected_fault(context: &mut Context<'_>, is_mandatory: bool, is_confirmed: bool) -> Option<PublishFault> {
    context.sessions.injected.as_deref_mut()?.publish_fault(is_mandatory, is_confirmed)
}
