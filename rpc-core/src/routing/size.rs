//! Estimates of the memory that exchanges, bindings and their arguments take.

use amq_protocol::types::{AMQPValue, FieldTable};

use super::{binding::Binding, exchange::ExchangeOptions};

/// The memory of a table, in bytes, as an estimate.
#[must_use]
pub(crate) fn table_bytes(table: &FieldTable) -> usize {
    table.inner().iter().map(|(key, value)| FIELD_BYTES + key.as_str().len() + value_bytes(value)).sum()
}

pub(super) fn binding_bytes(binding: &Binding) -> usize {
    // The table of the exchange has a copy of the key.
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
/// A binding itself, and its entries in five maps.
const BINDING_BYTES: usize = 300;
const EXCHANGE_BYTES: usize = 600;
