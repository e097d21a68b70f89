//! What exchanges, bindings and their arguments take, more or less.

use amq_protocol::types::{AMQPValue, FieldTable};

use super::{binding::Binding, exchange::ExchangeOptions};

/// What a table takes in memory, in bytes, more or less.
#[must_use]
pub(crate) fn table_bytes(table: &FieldTable) -> usize {
    table.inner().iter().map(|(key, value)| FIELD_BYTES + key.as_str().len() + value_bytes(value)).sum()
}

pub(super) fn binding_bytes(binding: &Binding) -> usize {
    // A table of the exchange has the key once more.
    BINDING_BYTES + 2 * binding.routing_key.len() + table_bytes(&binding.arguments)
}

pub(super) fn exchange_bytes(name: &str, options: &ExchangeOptions) -> usize {
    let alternate_exchange = options.alternate_exchange.as_ref().map_or(0, String::len);
    EXCHANGE_BYTES + name.len() + alternate_exchange + table_bytes(&options.arguments)
}

fn value_bytes(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().len(),
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().map(|value| size_of::<AMQPValue>() + value_bytes(value)).sum()
        }
        AMQPValue::FieldTable(table) => table_bytes(table),
        _ => 0,
    }
}

const FIELD_BYTES: usize = 32 + size_of::<AMQPValue>();
/// Itself and its places in five maps.
const BINDING_BYTES: usize = 300;
const EXCHANGE_BYTES: usize = 600;
