//! Publishing: a whole message is checked, routed and queued.

use std::{borrow::Cow, sync::Arc};

use super::{
    ConnectionId, Core, Fault, Now,
    access::{Access, Resource, Right},
    channel::{Mode, Routable},
    injected::PublishFault,
    memory::Held,
    message::Message,
    reply_address::{ReplyAddress, reply_token_of},
    session::{Session, text_of},
    vhost::{MessageHeaders, Vhost},
};
use crate::{
    routing::ExchangeKind,
    wire::{
        Content, PropertyReader, PropertyWriter, Publish,
        table::{self, TableWriter, Value},
    },
};

/// The name that stands for a client's own consumer of replies.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Core {
    /// Checks a whole message, routes it and queues it.
    pub(super) fn publish(
        &mut self,
        id: ConnectionId,
        number: u16,
        publish: &Publish<'_>,
        content: &Content<'_>,
        now: Now,
    ) -> Result<(), Fault> {
        let &Publish { mandatory, immediate, .. } = publish;
        if immediate {
            return Err(Fault::not_implemented("immediate=true"));
        }
        let (vhost, sessions) = self.vhost(id)?;
        let Some(session) = sessions.get(id) else { return Ok(()) };
        let Some(channel) = session.channels.get(number) else { return Ok(()) };
        let exchange = if publish.exchange.is_empty() { Cow::Borrowed("") } else { text_of(publish.exchange) };
        may_publish(vhost, session, &exchange, publish.routing_key)?;
        let reader = PropertyReader::new(content.properties);
        let wishes = if reader.concerns_broker() { Wishes::read(reader, session)? } else { Wishes::default() };
        let reply_to = if reader.reply_to() == Some(DIRECT_REPLY_TO.as_bytes()) {
            if channel.direct_replies.is_none() {
                return Err(Fault::precondition("fast reply consumer does not exist"));
            }
            Some(ReplyAddress { connection: id, nonce: session.nonce, channel: number }.name())
        } else {
            None
        };
        let Wishes { priority, expiration_ms, copies } = wishes;
        let without_bcc = copies.as_deref().and_then(|copies| copies.without_bcc.as_deref());
        let copy_keys = copies.as_deref().map(|copies| copies.keys.as_slice()).unwrap_or_default();
        let is_transaction = matches!(channel.mode, Mode::Transaction(_));
        let is_confirmed = matches!(channel.mode, Mode::Confirm);
        let names = (publish.exchange, publish.routing_key);
        let held = Held::nothing_of(&sessions.memory);
        let message = if without_bcc.is_some() || reply_to.is_some() {
            let mut writer = PropertyWriter::new(content.properties);
            if let Some(headers) = without_bcc {
                writer = writer.headers(headers);
            }
            if let Some(reply_to) = &reply_to {
                writer = writer.reply_to(reply_to);
            }
            let properties = writer.write();
            Message::new(names, &Content { properties: &properties, ..*content }, priority, expiration_ms, held)
        } else {
            Message::new(names, content, priority, expiration_ms, held)
        };
        let message = Arc::new(message);
        if let Some(injected) = sessions.injected.as_deref_mut()
            && let Some(fault) = injected.publish_fault(mandatory, is_confirmed)
        {
            if fault == PublishFault::Return {
                sessions.send_return(id, number, &message, now);
            }
            self.sessions.confirm(id, number, fault == PublishFault::Return, now);
            return Ok(());
        }
        // A queue by its name: the usual case, and the one that needs no more than a look.
        let mut only = match (publish.exchange, copy_keys) {
            (b"", []) => vhost.names.get(publish.routing_key).copied(),
            _ => None,
        };
        let mut queues = Vec::new();
        if only.is_none() {
            let routing_key = text_of(publish.routing_key);
            if exchange.is_empty()
                && let Some(token) = reply_token_of(&routing_key)
            {
                let is_delivered = ReplyAddress::parse(token).is_some_and(|to| sessions.deliver_reply(&to, &message));
                if mandatory && !is_delivered {
                    sessions.send_return(id, number, &message, now);
                }
                self.sessions.confirm(id, number, true, now);
                return Ok(());
            }
            let headers = MessageHeaders(message.properties());
            let routed = if copy_keys.is_empty() {
                vhost.route(&exchange, &[&routing_key], &headers, &mut sessions.work)
            } else {
                let keys: Vec<_> = std::iter::once(&*routing_key).chain(copy_keys.iter().map(|key| &**key)).collect();
                vhost.route(&exchange, &keys, &headers, &mut sessions.work)
            };
            match routed {
                None => return Err(Fault::no_exchange(&exchange, &vhost.name)),
                Some([key]) => only = Some(*key),
                Some(several) => queues = several.to_vec(),
            }
        }
        if let Some(key) = only {
            if !is_transaction {
                let is_taken = vhost.enqueue(key, &message, now, sessions);
                vhost.route_dead(now, sessions);
                if is_confirmed {
                    self.sessions.confirm(id, number, is_taken, now);
                }
                return Ok(());
            }
            queues.push(key);
        }
        let routable = Routable { message, queues, mandatory };
        let transaction_max = self.rules.limits.transaction_max;
        match &mut self.channel_mut(id, number)?.mode {
            Mode::Transaction(transaction) => {
                transaction.copies += routable.queues.len().max(1);
                if transaction.copies > transaction_max {
                    let text = format!("the limit of {transaction_max} messages in a transaction is reached");
                    return Err(Fault::precondition(text));
                }
                transaction.publishes.push(routable);
            }
            Mode::Plain | Mode::Confirm => {
                let is_taken = self.queue_up(id, number, &routable, now);
                self.sessions.confirm(id, number, is_taken, now);
            }
        }
        Ok(())
    }

    /// Returns a message nobody takes, or puts it into its queues; false when one of them refuses it.
    pub(super) fn queue_up(&mut self, id: ConnectionId, number: u16, routable: &Routable, now: Now) -> bool {
        let Routable { message, queues, mandatory } = routable;
        let Ok((vhost, sessions)) = self.vhost(id) else { return true };
        // Some of them may have gone while the transaction was open.
        if *mandatory && !queues.iter().any(|key| vhost.queues.contains_key(key)) {
            sessions.send_return(id, number, message, now);
        }
        let mut is_taken = true;
        for key in queues {
            is_taken &= vhost.enqueue(*key, message, now, sessions);
        }
        vhost.route_dead(now, sessions);
        is_taken
    }
}

/// What a message's properties ask of the broker.
#[derive(Debug, Default)]
struct Wishes {
    priority: u8,
    expiration_ms: Option<u64>,
    copies: Option<Box<CarbonCopies>>,
}

impl Wishes {
    fn read(reader: PropertyReader<'_>, session: &Session) -> Result<Self, Fault> {
        if let Some(user) = reader.user_id().filter(|user| *user != session.user.as_bytes())
            && !session.is_impersonator
        {
            return Err(Fault::wrong_user_id(&text_of(user), &session.user));
        }
        let expiration_ms = expiration(reader)?;
        if let Some(mode) = reader.delivery_mode().filter(|mode| !matches!(mode, 1 | 2)) {
            return Err(Fault::unknown_delivery_mode(mode));
        }
        let copies = reader.raw_headers().map(CarbonCopies::read).transpose()?.flatten();
        Ok(Self { priority: reader.priority().unwrap_or(0), expiration_ms, copies })
    }
}

/// Whether a connection may publish to an exchange, and there is one to publish to.
fn may_publish(vhost: &Vhost, session: &Session, exchange: &str, routing_key: &[u8]) -> Result<(), Fault> {
    let may_write = |resource| session.access.check(Right::Write, resource, &session.user, &vhost.name);
    may_write(Resource::Exchange(exchange))?;
    // The default exchange is always there, and no topic exchange.
    if exchange.is_empty() {
        return Ok(());
    }
    match vhost.router.exchange(exchange) {
        None => Err(Fault::no_exchange(exchange, &vhost.name)),
        Some(options) if options.internal => Err(Fault::internal_exchange(exchange, &vhost.name)),
        // Who may do everything pays nothing for a look at the key.
        Some(options) if matches!(session.access, Access::Limited(_)) && options.kind == ExchangeKind::Topic => {
            may_write(Resource::Topic { exchange, routing_key: &text_of(routing_key) })
        }
        Some(_) => Ok(()),
    }
}

fn expiration(reader: PropertyReader<'_>) -> Result<Option<u64>, Fault> {
    let Some(raw) = reader.expiration() else {
        return Ok(None);
    };
    let text = text_of(raw);
    // RabbitMQ reads as far as there are digits, and then complains about the rest.
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(sign + digits);
    if digits == 0 {
        return Err(Fault::invalid_expiration(&text, "no_integer"));
    }
    if !rest.is_empty() {
        return Err(Fault::invalid_expiration(&text, &format!("{{leftover_string,\"{rest}\"}}")));
    }
    let number = number.trim_start_matches('+');
    match number.parse::<i128>() {
        Ok(value) if value < 0 => Err(Fault::invalid_expiration(&text, &format!("{{value_negative,{value}}}"))),
        Ok(value) if value <= i128::from(TTL_MAX_MS) => Ok(u64::try_from(value).ok()),
        _ => {
            let number = number.trim_start_matches('0');
            let before = format!("invalid expiration '{text}': ");
            let why = super::fault::erlang_pair(before.len(), "value_too_large", number);
            Err(Fault::invalid_expiration(&text, &why))
        }
    }
}

/// The keys in CC and BCC.
#[derive(Debug, Default)]
struct CarbonCopies {
    keys: Vec<String>,
    /// The headers as receivers see them, when they are not as sent.
    without_bcc: Option<Vec<u8>>,
}

impl CarbonCopies {
    /// What `headers` say of copies, if they do.
    fn read(headers: &[u8]) -> Result<Option<Box<Self>>, Fault> {
        // Two passes over the fields, without decoding them, and neither finds anything in most messages.
        let found = ["CC", "BCC"].map(|name| table::find(headers, name.as_bytes()).map(|value| (name, value)));
        let [cc, bcc] = found;
        if cc.is_none() && bcc.is_none() {
            return Ok(None);
        }
        let mut copies = Self::default();
        for (name, value) in [cc, bcc].into_iter().flatten() {
            let kind = value.kind_name();
            let Some(keys) = value.as_array() else {
                return Err(Fault::unacceptable_header(name, kind));
            };
            copies.keys.extend(keys.filter_map(Value::as_text).map(text_of).map(Cow::into_owned));
        }
        if bcc.is_some() {
            let mut kept = TableWriter::new();
            for field in table::fields(headers).filter(|field| field.key != b"BCC") {
                kept.raw(field);
            }
            copies.without_bcc = Some(kept.finish());
        }
        Ok(Some(Box::new(copies)))
    }
}

/// RabbitMQ's limit: ten years.
pub(super) const TTL_MAX_MS: u64 = 315_360_000_000;
