//! Deliveries that no broker sent: for unit tests of handlers, and between a client and servers in one process.

use super::{
    amqp::{HeaderValue, Properties, overlong},
    delivery::Delivery,
    native::message::{Message, write_properties, write_value},
};
use crate::{
    error::Error,
    wire::{NewProperties, table::TableWriter},
};

impl Delivery {
    /// A message as the native transport would receive it, from one that it would publish.
    ///
    /// # Errors
    /// A text of a property, or the name of a header, is longer than 255 bytes, or the properties exceed a frame as brokers take it by
    /// default.
    pub(crate) fn of_message(routing_key: &[u8], properties: &Properties<'_>, body: &[u8]) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        write_properties(&mut bytes, properties)?;
        if bytes.len() > PROPERTIES_MAX_BYTES {
            return Err(Error::PropertiesTooLarge { bytes: bytes.len(), limit_bytes: PROPERTIES_MAX_BYTES });
        }
        let mut message = Message::new(routing_key, &bytes, body.len());
        message.push(body);
        Ok(message.delivered(1, false).into())
    }
}

/// The fields of a delivery to make.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewDelivery {
    pub(crate) routing_key: String,
    pub(crate) redelivered: bool,
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, HeaderValue)>,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) expiration_ms: Option<u64>,
    pub(crate) message_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) app_id: Option<String>,
}

impl NewDelivery {
    /// Makes it, as the native transport would have received it.
    ///
    /// # Errors
    /// A text of a property, or the name of a header, is longer than 255 bytes.
    pub(crate) fn make(&self) -> Result<Delivery, Error> {
        let mut bytes = Vec::new();
        let mut new = NewProperties::new(&mut bytes);
        if let Some(content_type) = &self.content_type {
            new.content_type(content_type);
        }
        if !self.headers.is_empty() {
            let mut table = TableWriter::new();
            for (name, value) in &self.headers {
                write_value(&mut table, name, value)?;
            }
            new.headers(&table.finish());
        }
        if let Some(priority) = self.priority {
            new.priority(priority);
        }
        if let Some(correlation_id) = &self.correlation_id {
            new.correlation_id(correlation_id);
        }
        if let Some(reply_to) = &self.reply_to {
            new.reply_to(reply_to);
        }
        if let Some(expiration_ms) = self.expiration_ms {
            new.expiration(expiration_ms);
        }
        if let Some(message_id) = &self.message_id {
            new.message_id(message_id);
        }
        if let Some(user_id) = &self.user_id {
            new.user_id(user_id);
        }
        if let Some(app_id) = &self.app_id {
            new.app_id(app_id);
        }
        new.finish().map_err(|error| overlong(error.bytes))?;
        let message = Message::new(self.routing_key.as_bytes(), &bytes, 0);
        Ok(Delivery::from(message.delivered(1, self.redelivered)))
    }
}

/// A content header of this size fits a frame of 128 KiB, which brokers take by default.
const PROPERTIES_MAX_BYTES: usize = 128 * 1_024 - 20;
