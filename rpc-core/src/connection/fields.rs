//! Names and tables as AMQP's methods carry them.

use amq_protocol::types::{FieldTable, ShortString};

use super::amqp::{Arguments, overlong};
use crate::error::Error;

/// A name of at most 255 bytes. `ShortString::from` panics above that.
pub(super) fn short(text: impl Into<String>) -> Result<ShortString, Error> {
    let text = text.into();
    let bytes = text.len();
    ShortString::try_new(text).map_err(|_| overlong(bytes))
}

/// The arguments of a declaration, a binding or a consumer.
pub(super) fn table(arguments: Arguments<'_>) -> Result<FieldTable, Error> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(short(*name)?, value.into());
    }
    Ok(table)
}
