//! Deliveries that no broker sent: for unit tests of handlers.

use super::{
    amqp::{HeaderValue, overlong},
    delivery::Delivery,
    native::message::{Message, write_value},
};
use crate::{
    error::Error,
    wire::{NewProperties, table::TableWriter},
};

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
