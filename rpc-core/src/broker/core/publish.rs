//! Publishing: content is put together, checked, routed and queued.

use std::{borrow::Cow, sync::Arc};

use super::{
    ConnectionId, Core, Fault, Now,
    access::{Access, Resource, Right},
    channel::{Incoming, Mode, Routable},
    injected::PublishFault,
    session::{ReplyAddress, text_of},
    vhost::MessageHeaders,
};
use crate::{
    routing::ExchangeKind,
    wire::{
        ContentHeader, ContentHeaderError, PropertyReader, PropertyWriter, Publish, RawFrame,
        table::{self, TableWriter, Value},
    },
};

/// The name that stands for a client's own consumer of replies.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Core {
    pub(super) fn begin_publish(&mut self, id: ConnectionId, number: u16, publish: &Publish<'_>) -> Result<(), Fault> {
        let &Publish { exchange, routing_key, mandatory, immediate } = publish;
        self.session_mut(id)?.has_published = true;
        if self.sessions.blocked_by.is_some() {
            self.sessions.block(id);
        }
        let channel = self.channel_mut(id, number)?;
        channel.assembly.begin(exchange, routing_key);
        channel.incoming = Some(Incoming { mandatory, immediate, has_header: false });
        Ok(())
    }

    pub(super) fn content_header(
        &mut self,
        id: ConnectionId,
        number: u16,
        frame: &RawFrame<'_>,
        now: Now,
    ) -> Result<(), Fault> {
        let limit = self.rules.message_max_bytes;
        let channel = self.channel_mut(id, number)?;
        let Some(incoming) = &mut channel.incoming else {
            return Err(Fault::expected_method());
        };
        if incoming.has_header {
            return Err(Fault::expected_body().at(PUBLISH));
        }
        let header = ContentHeader::read(frame.payload).map_err(|error| match error {
            ContentHeaderError::Truncated => Fault::unknown_frame(2, frame.payload),
            ContentHeaderError::Weight => Fault::expected_header("non content header frame").at(PUBLISH),
            ContentHeaderError::Class(class_id) => {
                Fault::expected_header(&format!("one for class {class_id}")).at(PUBLISH)
            }
            ContentHeaderError::Properties => Fault::syntax_error("content properties cannot be read").at(PUBLISH),
        })?;
        if header.body_size > limit {
            channel.incoming = None;
            return Err(Fault::message_too_large(header.body_size, limit).at(PUBLISH));
        }
        incoming.has_header = true;
        channel.assembly.properties(header.properties, header.body_size);
        self.publish_if_whole(id, number, now)
    }

    pub(super) fn content_body(
        &mut self,
        id: ConnectionId,
        number: u16,
        frame: &RawFrame<'_>,
        now: Now,
    ) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        match channel.incoming {
            None => return Err(Fault::expected_method()),
            Some(Incoming { has_header: false, .. }) => {
                return Err(Fault::expected_header("non content header frame").at(PUBLISH));
            }
            Some(_) => {}
        }
        channel
            .assembly
            .body(frame.payload, || frame.share())
            .map_err(|more| Fault::body_too_long(more).at(PUBLISH))?;
        self.publish_if_whole(id, number, now)
    }

    fn publish_if_whole(&mut self, id: ConnectionId, number: u16, now: Now) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        if !channel.assembly.is_whole() {
            return Ok(());
        }
        let Some(incoming) = channel.incoming.take() else { return Ok(()) };
        self.publish(id, number, incoming, now).map_err(|fault| fault.at(PUBLISH))
    }

    fn publish(&mut self, id: ConnectionId, number: u16, incoming: Incoming, now: Now) -> Result<(), Fault> {
        if incoming.immediate {
            return Err(Fault::not_implemented("immediate=true"));
        }
        let nonce = self.session_mut(id)?.nonce;
        let (vhost, sessions) = self.vhost(id)?;
        let Some(session) = sessions.get_mut(id) else { return Ok(()) };
        let Some(channel) = session.channels.get_mut(&number) else { return Ok(()) };
        let (exchange, routing_key) = channel.assembly.exchange_and_key();
        let exchange = text_of(exchange);
        let may_write = |resource| session.access.check(Right::Write, resource, &session.user, &vhost.name);
        may_write(Resource::Exchange(&exchange))?;
        match vhost.router.exchange(&exchange) {
            None => return Err(Fault::no_exchange(&exchange, &vhost.name)),
            Some(options) if options.internal => return Err(Fault::internal_exchange(&exchange, &vhost.name)),
            // Who may do everything pays nothing for a look at the key.
            Some(options) if matches!(session.access, Access::Limited(_)) && options.kind == ExchangeKind::Topic => {
                let routing_key = text_of(routing_key);
                may_write(Resource::Topic { exchange: &exchange, routing_key: &routing_key })?;
            }
            Some(_) => {}
        }
        let reader = PropertyReader::new(channel.assembly.property_bytes());
        if let Some(user) = reader.user_id().filter(|user| *user != session.user.as_bytes())
            && !session.is_impersonator
        {
            return Err(Fault::wrong_user_id(&text_of(user), &session.user));
        }
        let expiration_ms = expiration(reader)?;
        if let Some(mode) = reader.delivery_mode().filter(|mode| !matches!(mode, 1 | 2)) {
            return Err(Fault::unknown_delivery_mode(mode));
        }
        let priority = reader.priority().unwrap_or(0);
        let copies = CarbonCopies::read(reader)?;
        let reply_to = if reader.reply_to() == Some(DIRECT_REPLY_TO.as_bytes()) {
            if channel.direct_replies.is_none() {
                return Err(Fault::precondition("fast reply consumer does not exist"));
            }
            Some(reply_token(&ReplyAddress { connection: id, nonce, channel: number }))
        } else {
            None
        };
        if copies.without_bcc.is_some() || reply_to.is_some() {
            let mut writer = PropertyWriter::new(channel.assembly.property_bytes());
            if let Some(headers) = &copies.without_bcc {
                writer = writer.headers(headers);
            }
            if let Some(reply_to) = &reply_to {
                writer = writer.reply_to(reply_to);
            }
            let properties = writer.write();
            channel.assembly.replace_properties(&properties);
        }
        let is_transaction = matches!(channel.mode, Mode::Transaction(_));
        let is_confirmed = matches!(channel.mode, Mode::Confirm);
        let message = Arc::new(channel.assembly.finish(priority, expiration_ms));
        if let Some(injected) = sessions.injected.as_deref_mut()
            && let Some(fault) = injected.publish_fault(incoming.mandatory, is_confirmed)
        {
            if fault == PublishFault::Return {
                sessions.send_return(id, number, &message);
            }
            self.confirm(id, number, fault == PublishFault::Return, now);
            return Ok(());
        }
        let routing_key = text_of(message.routing_key());
        if message.exchange().is_empty()
            && let Some(token) = reply_token_of(&routing_key)
        {
            let is_delivered = parse_reply_token(token).is_some_and(|to| sessions.deliver_reply(&to, &message));
            if incoming.mandatory && !is_delivered {
                sessions.send_return(id, number, &message);
            }
            self.confirm(id, number, true, now);
            return Ok(());
        }
        let exchange = text_of(message.exchange());
        let headers = MessageHeaders(message.properties());
        let routed = if copies.keys.is_empty() {
            vhost.route(&exchange, &[&routing_key], &headers)
        } else {
            let keys: Vec<_> = std::iter::once(&*routing_key).chain(copies.keys.iter().map(|key| &**key)).collect();
            vhost.route(&exchange, &keys, &headers)
        };
        let Some(queues) = routed else {
            return Err(Fault::no_exchange(&exchange, &vhost.name));
        };
        // Nearly every message goes to one queue at once, without a list of them.
        if let [key] = *queues
            && !is_transaction
        {
            let is_taken = vhost.enqueue(key, &message, now, sessions);
            vhost.route_dead(now, sessions);
            self.confirm(id, number, is_taken, now);
            return Ok(());
        }
        let queues = queues.to_vec();
        let routable = Routable { message: Arc::clone(&message), queues, mandatory: incoming.mandatory };
        match &mut self.channel_mut(id, number)?.mode {
            Mode::Transaction(transaction) => transaction.publishes.push(routable),
            Mode::Plain | Mode::Confirm => {
                let is_taken = self.queue_up(id, number, &routable, now);
                self.confirm(id, number, is_taken, now);
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
            sessions.send_return(id, number, message);
        }
        let mut is_taken = true;
        for key in queues {
            is_taken &= vhost.enqueue(*key, message, now, sessions);
        }
        vhost.route_dead(now, sessions);
        is_taken
    }

    /// Notes a confirm, when the channel asked for them.
    fn confirm(&mut self, id: ConnectionId, number: u16, is_ack: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(channel) = session.channels.get_mut(&number) else { return };
        if !matches!(channel.mode, Mode::Confirm) {
            return;
        }
        if !channel.confirms.is_pending() {
            session.confirming.push(number);
        }
        if let Some(ended) = channel.confirms.add(is_ack) {
            self.send_confirm(id, number, ended, now);
        }
    }
}

/// What follows `amq.rabbitmq.reply-to.` in a name.
pub(super) fn reply_token_of(name: &str) -> Option<&str> {
    name.strip_prefix(DIRECT_REPLY_TO)?.strip_prefix('.')
}

/// Where direct replies go: `amq.rabbitmq.reply-to.<connection>-<nonce>.<channel>`.
fn reply_token(to: &ReplyAddress) -> String {
    format!("{DIRECT_REPLY_TO}.{:x}-{:016x}.{:x}", to.connection.0, to.nonce, to.channel)
}

pub(super) fn parse_reply_token(token: &str) -> Option<ReplyAddress> {
    let (connection, channel) = token.rsplit_once('.')?;
    let (connection, nonce) = connection.split_once('-')?;
    Some(ReplyAddress {
        connection: ConnectionId(usize::from_str_radix(connection, 16).ok()?),
        nonce: u64::from_str_radix(nonce, 16).ok()?,
        channel: u16::from_str_radix(channel, 16).ok()?,
    })
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
    fn read(reader: PropertyReader<'_>) -> Result<Self, Fault> {
        let mut copies = Self::default();
        let Some(headers) = reader.raw_headers() else {
            return Ok(copies);
        };
        // Two passes over the fields, without decoding them, and none of them does anything on most messages.
        for name in ["CC", "BCC"] {
            let Some(value) = table::find(headers, name.as_bytes()) else { continue };
            let kind = value.kind_name();
            let Some(keys) = value.as_array() else {
                return Err(Fault::unacceptable_header(name, kind));
            };
            copies.keys.extend(keys.filter_map(Value::as_text).map(text_of).map(Cow::into_owned));
        }
        if table::find(headers, b"BCC").is_some() {
            let mut kept = TableWriter::new();
            for field in table::fields(headers).filter(|field| field.key != b"BCC") {
                kept.raw(field);
            }
            copies.without_bcc = Some(kept.finish());
        }
        Ok(copies)
    }
}

const PUBLISH: (u16, u16) = (60, 40);

/// RabbitMQ's limit: ten years.
pub(super) const TTL_MAX_MS: u64 = 315_360_000_000;
