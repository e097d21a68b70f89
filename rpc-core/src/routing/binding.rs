//! Bindings: their two ends, and the equality of two of them.
//!
//! It does no matching: the table of the source exchange does.
//!
//! ```text
//!  identity = source + destination + routing_key + arguments
//! ```
//!
//! Arguments are compared by type and by the bits of floating point values: a NaN bound can be unbound.

use std::{
    hash::{Hash, Hasher},
    mem,
};

use amq_protocol::types::{AMQPValue, FieldTable};

use super::id::{ExchangeId, Target};

/// One binding. It is also the key of the map that holds it.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) source: ExchangeId,
    pub(super) target: Target,
    pub(super) routing_key: Box<str>,
    pub(super) arguments: FieldTable,
}

impl Binding {
    pub(super) fn new(source: ExchangeId, target: Target, routing_key: &str, arguments: &FieldTable) -> Self {
        Self { source, target, routing_key: routing_key.into(), arguments: arguments.clone() }
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
            && self.target == other.target
            && self.routing_key == other.routing_key
            && is_same_table(&self.arguments, &other.arguments)
    }
}

impl Eq for Binding {}

impl Hash for Binding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.target.hash(state);
        self.routing_key.hash(state);
        hash_table(&self.arguments, state);
    }
}

fn is_same_table(one: &FieldTable, other: &FieldTable) -> bool {
    let (one, other) = (one.inner(), other.inner());
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.0 == b.0 && is_same(a.1, b.1))
}

fn is_same(one: &AMQPValue, other: &AMQPValue) -> bool {
    match (one, other) {
        (AMQPValue::Float(a), AMQPValue::Float(b)) => a.to_bits() == b.to_bits(),
        (AMQPValue::Double(a), AMQPValue::Double(b)) => a.to_bits() == b.to_bits(),
        (AMQPValue::FieldTable(a), AMQPValue::FieldTable(b)) => is_same_table(a, b),
        (AMQPValue::FieldArray(a), AMQPValue::FieldArray(b)) => {
            let (a, b) = (a.as_slice(), b.as_slice());
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (a, b) => a == b,
    }
}

fn hash_table<H: Hasher>(table: &FieldTable, state: &mut H) {
    state.write_usize(table.inner().len());
    for (key, value) in table {
        key.hash(state);
        hash_value(value, state);
    }
}

fn hash_value<H: Hasher>(value: &AMQPValue, state: &mut H) {
    mem::discriminant(value).hash(state);
    match value {
        AMQPValue::Boolean(v) => v.hash(state),
        AMQPValue::ShortShortInt(v) => v.hash(state),
        AMQPValue::ShortShortUInt(v) => v.hash(state),
        AMQPValue::ShortInt(v) => v.hash(state),
        AMQPValue::ShortUInt(v) => v.hash(state),
        AMQPValue::LongInt(v) => v.hash(state),
        AMQPValue::LongUInt(v) => v.hash(state),
        AMQPValue::LongLongInt(v) => v.hash(state),
        AMQPValue::Float(v) => v.to_bits().hash(state),
        AMQPValue::Double(v) => v.to_bits().hash(state),
        AMQPValue::DecimalValue(v) => v.hash(state),
        AMQPValue::ShortString(v) => v.hash(state),
        AMQPValue::LongString(v) => v.hash(state),
        AMQPValue::FieldArray(v) => {
            state.write_usize(v.as_slice().len());
            v.as_slice().iter().for_each(|value| hash_value(value, state));
        }
        AMQPValue::Timestamp(v) => v.hash(state),
        AMQPValue::FieldTable(v) => hash_table(v, state),
        AMQPValue::ByteArray(v) => v.hash(state),
        AMQPValue::Void => {}
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::routing::{collections::Map, id::QueueId};

    fn binding(value: AMQPValue) -> Binding {
        let mut arguments = FieldTable::default();
        arguments.insert("k".into(), value);
        Binding::new(ExchangeId::default(), Target::Queue(QueueId(1)), "key", &arguments)
    }

    fn array(value: AMQPValue) -> AMQPValue {
        AMQPValue::FieldArray(vec![value].into())
    }

    fn table(value: AMQPValue) -> AMQPValue {
        let mut table = FieldTable::default();
        table.insert("inner".into(), value);
        AMQPValue::FieldTable(table)
    }

    #[test]
    fn equal_arguments_make_the_same_binding() {
        let values = [
            AMQPValue::Double(f64::NAN),
            AMQPValue::Float(f32::NAN),
            array(AMQPValue::Double(f64::NAN)),
            table(array(AMQPValue::Float(f32::NAN))),
            AMQPValue::LongString("v".into()),
            AMQPValue::Void,
        ];
        let hasher = Map::<(), ()>::default();
        for value in values {
            let (one, other) = (binding(value.clone()), binding(value.clone()));
            assert!(one == other, "{value:?}");
            assert_eq!(hasher.hasher().hash_one(&one), hasher.hasher().hash_one(&other), "{value:?}");
        }
    }

    #[test]
    fn arguments_that_differ_in_type_or_value_make_another_binding() {
        let different = [
            (AMQPValue::LongInt(1), AMQPValue::LongLongInt(1)),
            (AMQPValue::LongString("1".into()), AMQPValue::LongInt(1)),
            (AMQPValue::Double(1.0), AMQPValue::Double(2.0)),
            (array(AMQPValue::LongInt(1)), array(AMQPValue::LongInt(2))),
            (table(AMQPValue::LongInt(1)), table(AMQPValue::LongInt(2))),
            (array(AMQPValue::Void), AMQPValue::FieldArray(Vec::new().into())),
        ];
        for (one, other) in different {
            assert!(binding(one.clone()) != binding(other.clone()), "{one:?} {other:?}");
        }
    }
}
