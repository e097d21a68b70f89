//! Publishing: content is put together, checked, routed and queued; and the tx class, which does that later.

use std::sync::Arc;

use amq_protocol::{
    protocol::{AMQPClass, tx},
    types::{AMQPValue, FieldTable},
};
use bytes::Bytes;

use super::{
    ConnectionId, Core, Fault, Now,
    channel::{Incoming, Mode, Routable},
    message::{Body, Message},
    queue_arguments::type_name,
    session::name_of,
    vhost::MessageHeaders,
};
use crate::wire::{ContentHeader, PropertyReader, PropertyWriter, Publish};

/// The name that stands for a client's own consumer of replies.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl Core {
    pub(super) fn begin_publish(&mut self, id: ConnectionId, number: u16, publish: Publish) -> Result<(), Fault> {
        let incoming = Incoming { publish, properties: None, body_left: 0, body: Body::Empty };
        self.channel_mut(id, number)?.incoming = Some(incoming);
        Ok(())
    }

    pub(super) fn content_header(
        &mut self,
        id: ConnectionId,
        number: u16,
        payload: &Bytes,
        now: Now,
    ) -> Result<(), Fault> {
        let limit = self.rules.message_max_bytes;
        let channel = self.channel_mut(id, number)?;
        let Some(incoming) = channel.incoming.as_mut() else {
            return Err(Fault::unexpected_frame("expected method frame, got non method frame instead"));
        };
        if incoming.properties.is_some() {
            let text = "expected content body, got non content body frame instead";
            return Err(Fault::unexpected_frame(text).at(PUBLISH));
        }
        if payload.len() < HEADER_MIN_BYTES {
            return Err(Fault::unknown_frame(crate::wire::FrameKind::Header.octet(), payload));
        }
        let Some(header) = ContentHeader::read(payload) else {
            return Err(Fault::syntax_error("a content header that cannot be read").at(PUBLISH));
        };
        if header.class_id != BASIC {
            let text =
                format!("expected content header for class {BASIC}, got one for class {} instead", header.class_id);
            return Err(Fault::unexpected_frame(text).at(PUBLISH));
        }
        if header.weight != 0 {
            let text = "expected content header for class 60, got non content header frame instead";
            return Err(Fault::unexpected_frame(text).at(PUBLISH));
        }
        if header.body_size > limit {
            channel.incoming = None;
            return Err(Fault::message_too_large(header.body_size, limit).at(PUBLISH));
        }
        incoming.body_left = header.body_size;
        incoming.properties = Some(header.properties);
        self.publish_if_whole(id, number, now)
    }

    pub(super) fn content_body(
        &mut self,
        id: ConnectionId,
        number: u16,
        payload: &Bytes,
        now: Now,
    ) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        let Some(incoming) = channel.incoming.as_mut() else {
            return Err(Fault::unexpected_frame("expected method frame, got non method frame instead"));
        };
        if incoming.properties.is_none() {
            let text = "expected content header for class 60, got non content header frame instead";
            return Err(Fault::unexpected_frame(text).at(PUBLISH));
        }
        let bytes = payload.len() as u64;
        if bytes > incoming.body_left {
            let text = format!("a body of {} bytes more than the content header announced", bytes - incoming.body_left);
            return Err(Fault::frame_error(text).at(PUBLISH));
        }
        incoming.body_left -= bytes;
        if bytes > 0 {
            incoming.body.push(payload.clone());
        }
        self.publish_if_whole(id, number, now)
    }

    fn publish_if_whole(&mut self, id: ConnectionId, number: u16, now: Now) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        if channel.incoming.as_ref().is_none_or(|incoming| incoming.body_left != 0) {
            return Ok(());
        }
        let Some(Incoming { publish, properties: Some(properties), body, .. }) = channel.incoming.take() else {
            return Ok(());
        };
        self.publish(id, number, &publish, properties, body, now).map_err(|fault| fault.at(PUBLISH))
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        number: u16,
        publish: &Publish,
        mut properties: Bytes,
        body: Body,
        now: Now,
    ) -> Result<(), Fault> {
        if publish.immediate {
            return Err(Fault::not_implemented("immediate=true"));
        }
        let exchange = name_of(&publish.exchange);
        let (vhost, sessions) = self.vhost(id)?;
        match vhost.router.exchange(exchange) {
            None => return Err(Fault::no_exchange(exchange, &vhost.name)),
            Some(options) if options.internal => return Err(Fault::internal_exchange(exchange, &vhost.name)),
            Some(_) => {}
        }
        let reader = PropertyReader::new(&properties);
        if let Some(user) = reader.user_id() {
            let own = sessions.get(id).map_or("", |session| session.user.as_str());
            if user != own.as_bytes() {
                let user = String::from_utf8_lossy(user);
                return Err(Fault::precondition(format!(
                    "user_id property set to '{user}' but authenticated user was '{own}'"
                )));
            }
        }
        let expiration_ms = expiration(reader)?;
        if let Some(mode) = reader.delivery_mode().filter(|mode| !(1..=2).contains(mode)) {
            return Err(Fault::precondition(format!("invalid message: {{delivery_mode_unknown,{mode}}}")));
        }
        let priority = reader.priority().unwrap_or(0);
        let more_keys = more_routing_keys(reader)?;
        if let Some(headers) = &more_keys.without_bcc {
            properties = PropertyWriter::new(&properties).headers(headers.clone()).write();
        }
        if PropertyReader::new(&properties).reply_to() == Some(DIRECT_REPLY_TO.as_bytes()) {
            let has_consumer = sessions.channel_mut(id, number).is_some_and(|channel| channel.direct_replies.is_some());
            if !has_consumer {
                return Err(Fault::precondition("fast reply consumer does not exist"));
            }
            let nonce = sessions.get(id).map_or(0, |session| session.nonce);
            let token = reply_token(id, nonce, number);
            properties = PropertyWriter::new(&properties).reply_to(&token).write();
        }
        let message = Arc::new(Message {
            exchange: publish.exchange.clone(),
            routing_key: publish.routing_key.clone(),
            properties,
            body,
            priority,
            expiration_ms,
        });
        let routing_key = name_of(&publish.routing_key);
        if exchange.is_empty()
            && let Some(token) = routing_key.strip_prefix(DIRECT_REPLY_TO).and_then(|rest| rest.strip_prefix('.'))
        {
            let is_delivered = parse_reply_token(token)
                .is_some_and(|(to, nonce, channel)| sessions.deliver_reply(to, nonce, channel, &message));
            if publish.mandatory && !is_delivered {
                sessions.send_return(id, number, &message);
            }
            self.confirm(id, number, true);
            return Ok(());
        }
        let headers = MessageHeaders(&message.properties);
        let routed = if more_keys.keys.is_empty() {
            vhost.route(exchange, &[routing_key], &headers)
        } else {
            let mut keys = vec![routing_key];
            keys.extend(more_keys.keys.iter().map(String::as_str));
            vhost.route(exchange, &keys, &headers)
        };
        let Some(queues) = routed else {
            return Err(Fault::no_exchange(exchange, &vhost.name));
        };
        // Nearly every message goes to one queue, without a list of them.
        if let [key] = *queues
            && !sessions.channel_mut(id, number).is_some_and(|channel| matches!(channel.mode, Mode::Transaction(_)))
        {
            let is_taken = vhost.enqueue(key, &message, now, sessions);
            vhost.route_dead(now, sessions);
            self.confirm(id, number, is_taken);
            return Ok(());
        }
        let routable = Routable { message, queues: queues.to_vec(), mandatory: publish.mandatory };
        match self.channel_mut(id, number)?.mode {
            Mode::Transaction(ref mut transaction) => transaction.publishes.push(routable),
            Mode::Plain | Mode::Confirm => {
                self.queue_up(id, number, &routable, now);
            }
        }
        Ok(())
    }

    /// Puts a message into its queues, and tells the publisher; false when a queue refused it.
    fn queue_up(&mut self, id: ConnectionId, number: u16, routable: &Routable, now: Now) -> bool {
        let Routable { message, queues, mandatory } = routable;
        let name = self.sessions.vhost_of(id);
        let Some(vhost) = self.vhosts.get_mut(&name) else { return true };
        // Queues may have gone between publish and commit.
        if *mandatory && !queues.iter().any(|key| vhost.queues.contains_key(key)) {
            self.sessions.send_return(id, number, message);
        }
        let mut is_taken = true;
        for key in queues {
            is_taken &= vhost.enqueue(*key, message, now, &mut self.sessions);
        }
        vhost.route_dead(now, &mut self.sessions);
        self.confirm(id, number, is_taken);
        is_taken
    }

    /// Notes a confirm, when the channel asked for them.
    fn confirm(&mut self, id: ConnectionId, number: u16, is_ack: bool) {
        let Some(channel) = self.sessions.channel_mut(id, number) else { return };
        if !matches!(channel.mode, Mode::Confirm) {
            return;
        }
        if let Some(ended) = channel.confirms.add(is_ack) {
            self.send_confirm(id, number, ended);
        }
    }

    pub(super) fn tx_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &tx::AMQPMethod,
        now: Now,
    ) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        let ok = match method {
            tx::AMQPMethod::Select(_) => {
                match channel.mode {
                    Mode::Confirm => return Err(Fault::precondition("cannot switch from confirm to tx mode")),
                    Mode::Plain => channel.mode = Mode::Transaction(Default::default()),
                    Mode::Transaction(_) => {}
                }
                tx::AMQPMethod::SelectOk(tx::SelectOk {})
            }
            tx::AMQPMethod::Commit(_) => {
                let Mode::Transaction(transaction) = &mut channel.mode else {
                    return Err(Fault::precondition("channel is not transactional"));
                };
                let transaction = std::mem::take(transaction);
                let mut is_taken = true;
                for routable in &transaction.publishes {
                    is_taken &= self.queue_up(id, number, routable, now);
                }
                self.apply(id, number, transaction.settlements.into_iter(), now);
                if !is_taken {
                    return Err(Fault::precondition("partial tx completion"));
                }
                tx::AMQPMethod::CommitOk(tx::CommitOk {})
            }
            tx::AMQPMethod::Rollback(_) => {
                let Mode::Transaction(transaction) = &mut channel.mode else {
                    return Err(Fault::precondition("channel is not transactional"));
                };
                let transaction = std::mem::take(transaction);
                channel.restore(transaction.settlements);
                tx::AMQPMethod::RollbackOk(tx::RollbackOk {})
            }
            _ => return Err(Fault::unimplemented()),
        };
        self.sessions.send(id, number, &AMQPClass::Tx(ok));
        Ok(())
    }
}

/// Where direct replies go: `amq.rabbitmq.reply-to.<connection>-<nonce>.<channel>`.
fn reply_token(id: ConnectionId, nonce: u64, number: u16) -> String {
    format!("{DIRECT_REPLY_TO}.{:x}-{nonce:016x}.{number:x}", id.0)
}

pub(super) fn parse_reply_token(token: &str) -> Option<(ConnectionId, u64, u16)> {
    let (connection, number) = token.rsplit_once('.')?;
    let (id, nonce) = connection.split_once('-')?;
    Some((
        ConnectionId(usize::from_str_radix(id, 16).ok()?),
        u64::from_str_radix(nonce, 16).ok()?,
        u16::from_str_radix(number, 16).ok()?,
    ))
}

fn expiration(reader: PropertyReader<'_>) -> Result<Option<u64>, Fault> {
    let Some(raw) = reader.expiration() else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(raw);
    let refuse = |why: &str| Err(Fault::precondition(format!("invalid expiration '{text}': {why}")));
    let unsigned = text.trim_start_matches(['+', '-']);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = unsigned.split_at(digits);
    if digits.is_empty() || text.len() - unsigned.len() > 1 {
        return refuse("no_integer");
    }
    if !rest.is_empty() {
        return refuse(&format!("{{leftover_string,{rest:?}}}"));
    }
    // A time nobody will live to see is as good as a longer one.
    let value = digits.parse().unwrap_or(u64::MAX).min(EXPIRATION_MAX_MS);
    if text.starts_with('-') && value > 0 {
        return refuse(&format!("{{value_negative,-{digits}}}"));
    }
    Ok(Some(value))
}

/// CC and BCC.
#[derive(Default)]
struct MoreKeys {
    keys: Vec<String>,
    /// The headers as receivers see them, when they are not as sent.
    without_bcc: Option<Option<FieldTable>>,
}

fn more_routing_keys(reader: PropertyReader<'_>) -> Result<MoreKeys, Fault> {
    let mut more = MoreKeys::default();
    if !reader.may_have_copies() {
        return Ok(more);
    }
    let Some(headers) = reader.headers() else {
        return Ok(more);
    };
    for name in ["CC", "BCC"] {
        match headers.inner().get(name) {
            None => {}
            Some(AMQPValue::FieldArray(keys)) => {
                for key in keys.as_slice() {
                    if let AMQPValue::LongString(key) = key {
                        more.keys.push(String::from_utf8_lossy(key.as_bytes()).into_owned());
                    }
                }
            }
            Some(other) => {
                let kind = type_name(other);
                return Err(Fault::precondition(format!(
                    "invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}"
                )));
            }
        }
    }
    if headers.contains_key("BCC") {
        let mut kept = FieldTable::default();
        for (key, value) in headers.inner().iter().filter(|(key, _)| key.as_str() != "BCC") {
            kept.insert(key.clone(), value.clone());
        }
        more.without_bcc = Some(Some(kept));
    }
    Ok(more)
}

/// Class, weight, body size and flags.
const HEADER_MIN_BYTES: usize = 14;
const BASIC: u16 = 60;
const PUBLISH: (u16, u16) = (60, 40);

/// A thousand years.
const EXPIRATION_MAX_MS: u64 = 1_000 * 365 * 24 * 60 * 60 * 1_000;
