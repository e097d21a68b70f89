//! Matching by headers: the bindings of one headers exchange.
//!
//! It has no index: a message is compared with every binding of the exchange, as in RabbitMQ. It does not decode: a message
//! provides its table only when a headers exchange is on the path, and then once.
//!
//! ```text
//!  binding arguments           message headers
//!   x-match: all | any
//!   format:  "pdf"      ────►   format: "pdf"      equal, whatever the width
//!   report:  (void)     ────►   report: 7          present
//!   x-…                         (only all-with-x and any-with-x look at these)
//! ```

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use amq_protocol::types::{AMQPValue, FieldTable};

use super::{
    binding::Binding,
    error::RoutingError,
    id::BindingId,
    routes::{Routes, Visit},
    steps::Progress,
};

/// The headers of a message, decoded only if an exchange needs them.
pub(crate) trait Headers {
    /// The table; `None` is an empty one.
    fn table(&self) -> Option<Cow<'_, FieldTable>>;
}

/// A message without headers.
impl Headers for () {
    fn table(&self) -> Option<Cow<'_, FieldTable>> {
        None
    }
}

impl Headers for FieldTable {
    fn table(&self) -> Option<Cow<'_, FieldTable>> {
        Some(Cow::Borrowed(self))
    }
}

impl Headers for Option<FieldTable> {
    fn table(&self) -> Option<Cow<'_, FieldTable>> {
        self.as_ref().map(Cow::Borrowed)
    }
}

/// The headers of the message being routed, fetched at most once.
pub(super) struct MessageHeaders<'h> {
    source: &'h dyn Headers,
    table: Option<Cow<'h, FieldTable>>,
    tells_numbers_apart: bool,
}

impl<'h> MessageHeaders<'h> {
    /// With `tells_numbers_apart`, an integer never equals a floating-point number.
    pub(super) fn new(source: &'h dyn Headers, tells_numbers_apart: bool) -> Self {
        Self { source, table: None, tells_numbers_apart }
    }

    fn table(&mut self) -> &FieldTable {
        self.table.get_or_insert_with(|| self.source.table().unwrap_or_default())
    }
}

/// The meaning of `x-match` among the arguments of a binding. The default is `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MatchMode {
    quantifier: Quantifier,
    /// Whether arguments that start with `x-` count, except `x-match` itself.
    with_x: bool,
    /// Whether an integer never equals a floating-point number. The router says so, not the binding.
    tells_numbers_apart: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    All,
    Any,
}

impl MatchMode {
    pub(super) fn of(arguments: &FieldTable) -> Result<Self, RoutingError> {
        let Some(value) = arguments.inner().get(X_MATCH) else {
            return Ok(Self { quantifier: Quantifier::All, with_x: false, tells_numbers_apart: false });
        };
        let word = match value {
            AMQPValue::LongString(word) => word.as_bytes(),
            _ => return Err(RoutingError::InvalidXMatch(value.clone())),
        };
        let (quantifier, with_x) = match word {
            b"all" => (Quantifier::All, false),
            b"any" => (Quantifier::Any, false),
            b"all-with-x" => (Quantifier::All, true),
            b"any-with-x" => (Quantifier::Any, true),
            _ => return Err(RoutingError::InvalidXMatch(value.clone())),
        };
        Ok(Self { quantifier, with_x, tells_numbers_apart: false })
    }

    fn is_match(self, arguments: &FieldTable, headers: &FieldTable) -> bool {
        let mut criteria = arguments.into_iter().filter(|(name, _)| self.counts(name.as_str()));
        let is_met = |name: &str, wanted| {
            let found = headers.inner().get(name);
            found.is_some_and(|found| is_met_by(wanted, found, self.tells_numbers_apart))
        };
        match self.quantifier {
            Quantifier::All => criteria.all(|(name, wanted)| is_met(name.as_str(), wanted)),
            Quantifier::Any => criteria.any(|(name, wanted)| is_met(name.as_str(), wanted)),
        }
    }

    fn counts(self, name: &str) -> bool {
        if self.with_x { name != X_MATCH } else { !name.starts_with("x-") }
    }
}

const X_MATCH: &str = "x-match";

/// Whether a header matches an argument of a binding.
///
/// RabbitMQ ignores the types, and compares values as Erlang's `==` does: numbers and timestamps by value, and both
/// kinds of strings by their bytes. Types count only inside tables and arrays. RabbitMQ 4 compares as `=:=` does, which tells
/// integers from floating-point numbers.
fn is_met_by(wanted: &AMQPValue, found: &AMQPValue, tells_numbers_apart: bool) -> bool {
    if *wanted == AMQPValue::Void {
        return true;
    }
    if let (Some(wanted), Some(found)) = (Number::of(wanted), Number::of(found)) {
        let is_of_a_kind = std::mem::discriminant(&wanted) == std::mem::discriminant(&found);
        return (is_of_a_kind || !tells_numbers_apart) && wanted.is_equal(found);
    }
    if let (Some(wanted), Some(found)) = (bytes(wanted), bytes(found)) {
        return wanted == found;
    }
    wanted == found
}

#[derive(Clone, Copy)]
enum Number {
    /// Wide enough for timestamps.
    Integer(i128),
    Float(f64),
}

impl Number {
    fn of(value: &AMQPValue) -> Option<Self> {
        Some(match *value {
            AMQPValue::ShortShortInt(v) => Self::Integer(v.into()),
            AMQPValue::ShortShortUInt(v) => Self::Integer(v.into()),
            AMQPValue::ShortInt(v) => Self::Integer(v.into()),
            AMQPValue::ShortUInt(v) => Self::Integer(v.into()),
            AMQPValue::LongInt(v) => Self::Integer(v.into()),
            AMQPValue::LongUInt(v) => Self::Integer(v.into()),
            AMQPValue::LongLongInt(v) => Self::Integer(v.into()),
            AMQPValue::Timestamp(v) => Self::Integer(v.into()),
            AMQPValue::Float(v) => Self::Float(v.into()),
            AMQPValue::Double(v) => Self::Float(v),
            _ => return None,
        })
    }

    fn is_equal(self, other: Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b,
            // Exact: a whole number of this size converts without loss, and the fraction of infinity is not zero.
            (Self::Integer(a), Self::Float(b)) | (Self::Float(b), Self::Integer(a)) => {
                b.fract() == 0.0 && b as i128 == a
            }
        }
    }
}

fn bytes(value: &AMQPValue) -> Option<&[u8]> {
    match value {
        AMQPValue::LongString(v) => Some(v.as_bytes()),
        AMQPValue::ShortString(v) => Some(v.as_str().as_bytes()),
        AMQPValue::ByteArray(v) => Some(v.as_slice()),
        _ => None,
    }
}

/// The bindings of a headers exchange, oldest first.
#[derive(Debug, Default)]
pub(super) struct HeadersTable {
    bindings: BTreeMap<BindingId, (MatchMode, Arc<Binding>)>,
}

impl HeadersTable {
    pub(super) fn insert(&mut self, id: BindingId, binding: &Arc<Binding>) {
        // The router refuses bindings with an invalid mode earlier.
        if let Ok(mode) = MatchMode::of(&binding.arguments) {
            self.bindings.insert(id, (mode, binding.clone()));
        }
    }

    pub(super) fn remove(&mut self, id: BindingId) {
        self.bindings.remove(&id);
    }

    /// Adds the targets of the bindings that match, from the one at which a paused visit stopped.
    pub(super) fn collect(&self, headers: &mut MessageHeaders<'_>, routes: &mut Routes, visit: &mut Visit) -> Progress {
        if self.bindings.is_empty() {
            return Progress::Done;
        }
        let tells_numbers_apart = headers.tells_numbers_apart;
        let headers = headers.table();
        for (id, (mode, binding)) in self.bindings.range(visit.binding..) {
            if !routes.take_step() {
                visit.binding = *id;
                return Progress::Paused;
            }
            if (MatchMode { tells_numbers_apart, ..*mode }).is_match(&binding.arguments, headers) {
                visit.is_matched = true;
                routes.add(binding.target);
            }
        }
        Progress::Done
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use amq_protocol::types::DecimalValue;

    use super::*;
    use crate::routing::{Destination, QueueId, Router};

    fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert(name.into(), value);
        }
        table
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn is_match(arguments: &FieldTable, headers: &FieldTable) -> bool {
        MatchMode::of(arguments).unwrap().is_match(arguments, headers)
    }

    #[test]
    fn modes_match_as_rabbitmq_does() {
        let int = AMQPValue::LongInt;
        let (none, a, b) = (table([]), table([("a", int(1))]), table([("b", int(2))]));
        let ab = table([("a", int(1)), ("b", int(2))]);
        let a_x = table([("a", int(1)), ("x-n", int(3))]);
        let x = table([("x-n", int(3))]);
        let bound = |mode: &str, entries: &FieldTable| {
            let mut arguments = entries.clone();
            arguments.insert("x-match".into(), text(mode));
            arguments
        };
        /// The expected result for a message with these headers.
        type Message<'a> = (&'a FieldTable, bool);
        let cases: [(&str, &FieldTable, &[Message<'_>]); 12] = [
            ("all", &none, &[(&none, true), (&a, true)]),
            ("all", &ab, &[(&none, false), (&a, false), (&b, false), (&ab, true)]),
            ("all", &a_x, &[(&none, false), (&a, true), (&a_x, true), (&x, false)]),
            ("all", &x, &[(&none, true), (&a, true)]),
            ("any", &none, &[(&none, false), (&a, false)]),
            ("any", &ab, &[(&none, false), (&a, true), (&b, true), (&ab, true), (&x, false)]),
            ("any", &a_x, &[(&x, false), (&a, true)]),
            ("any", &x, &[(&x, false), (&none, false)]),
            ("all-with-x", &none, &[(&none, true), (&x, true)]),
            ("all-with-x", &a_x, &[(&a, false), (&x, false), (&a_x, true)]),
            ("any-with-x", &none, &[(&none, false), (&x, false)]),
            ("any-with-x", &a_x, &[(&none, false), (&b, false), (&a, true), (&x, true)]),
        ];
        for (mode, arguments, messages) in cases {
            for (headers, expected) in messages {
                let arguments = bound(mode, arguments);
                assert_eq!(is_match(&arguments, headers), *expected, "{arguments:?} {headers:?}");
                if mode == "all" {
                    let mut arguments = arguments.inner().clone();
                    arguments.remove("x-match");
                    assert_eq!(is_match(&arguments.into(), headers), *expected, "all is the default");
                }
            }
        }
    }

    #[test]
    fn mode_itself_is_never_a_criterion() {
        let arguments = table([("x-match", text("all-with-x"))]);
        assert!(is_match(&arguments, &table([("x-match", text("any"))])));
        let arguments = table([("x-match", text("any-with-x"))]);
        assert!(!is_match(&arguments, &table([("x-match", text("any-with-x"))])));
    }

    #[test]
    fn values_meet_criteria_as_erlang_compares_them() {
        use AMQPValue as V;
        let nested = |value| V::FieldTable(table([("n", value)]));
        let array = |value| V::FieldArray(vec![value].into());
        let largest = i64::MAX as f64; // rounded up to 2^63
        let cases = [
            (V::Void, V::Void, true),
            (V::Void, V::Boolean(false), true),
            (V::Boolean(false), V::Void, false),
            (V::Boolean(true), V::Boolean(true), true),
            (V::Boolean(true), V::LongInt(1), false),
            (V::LongInt(1), text("1"), false),
            (text("1"), V::LongInt(1), false),
            (V::LongInt(-1), V::LongLongInt(-1), true),
            (V::ShortShortUInt(255), V::ShortInt(255), true),
            (V::LongUInt(u32::MAX), V::LongInt(-1), false),
            (V::LongInt(1), V::Timestamp(1), true),
            (V::LongLongInt(-1), V::Timestamp(u64::MAX), false),
            (V::LongInt(1), V::Double(1.0), true),
            (V::Float(2.0), V::ShortInt(2), true),
            (V::LongInt(1), V::Double(1.5), false),
            (V::LongLongInt(i64::MAX), V::Double(largest), false),
            (V::LongLongInt(i64::MIN), V::Double(-largest), true),
            (V::LongLongInt(i64::MAX), V::Double(f64::INFINITY), false),
            (V::LongInt(0), V::Double(f64::NAN), false),
            (V::Float(0.5), V::Double(0.5), true),
            (V::Float(0.1), V::Double(0.1), false),
            (text("a"), text("a"), true),
            (text("a"), text("A"), false),
            (text("a"), V::ByteArray(b"a"[..].into()), true),
            (V::DecimalValue(DecimalValue { scale: 1, value: 10 }), V::LongInt(1), false),
            (nested(V::LongInt(1)), nested(V::LongInt(1)), true),
            (nested(V::LongInt(1)), nested(V::LongInt(2)), false),
            (nested(V::LongInt(1)), nested(V::ShortInt(1)), false),
            (array(text("a")), array(text("a")), true),
            (array(V::Float(1.0)), array(V::LongInt(1)), false),
        ];
        for (wanted, found, expected) in cases {
            let of_a_kind = [&wanted, &found].map(|value| matches!(value, V::Float(_) | V::Double(_)));
            let is_apart = of_a_kind[0] != of_a_kind[1] && Number::of(&wanted).is_some();
            assert_eq!(is_met_by(&wanted, &found, false), expected, "{wanted:?} {found:?}");
            assert_eq!(is_met_by(&wanted, &found, true), expected && !is_apart, "{wanted:?} {found:?}");
        }
    }

    #[test]
    fn bad_mode_is_refused_with_its_value_named() {
        let cases = [
            (text("maybe"), "Invalid x-match field value <<\"maybe\">>; expected all, any, all-with-x, or any-with-x"),
            (text(""), "Invalid x-match field value <<>>; expected all, any, all-with-x, or any-with-x"),
            (text("All"), "Invalid x-match field value <<\"All\">>; expected all, any, all-with-x, or any-with-x"),
            (
                text("a\"\\"),
                "Invalid x-match field value <<\"a\\\"\\\\\">>; expected all, any, all-with-x, or any-with-x",
            ),
            (text("\u{1}\u{2}"), "Invalid x-match field value <<1,2>>; expected all, any, all-with-x, or any-with-x"),
            (AMQPValue::LongInt(7), "Invalid x-match field type signedint (value 7); expected longstr"),
            (AMQPValue::Boolean(true), "Invalid x-match field type bool (value true); expected longstr"),
            (AMQPValue::Void, "Invalid x-match field type void (value undefined); expected longstr"),
        ];
        for (value, expected) in cases {
            let error = MatchMode::of(&table([("x-match", value.clone())])).unwrap_err();
            assert_eq!(error, RoutingError::InvalidXMatch(value));
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn headers_are_decoded_once_and_only_for_a_headers_exchange() {
        struct Counted(Cell<usize>);
        impl Headers for Counted {
            fn table(&self) -> Option<Cow<'_, FieldTable>> {
                self.0.set(self.0.get() + 1);
                None
            }
        }
        let mut router = Router::new();
        let queue = QueueId(1);
        router.add_queue("q", queue);
        let none = FieldTable::default();
        router.bind("amq.headers", Destination::Queue(queue), "", &none).unwrap();
        router.bind("amq.headers", Destination::Exchange("amq.match"), "", &none).unwrap();
        router.bind("amq.match", Destination::Queue(queue), "", &none).unwrap();
        router.bind("amq.match", Destination::Queue(queue), "other", &none).unwrap();
        router.bind("amq.fanout", Destination::Queue(queue), "", &none).unwrap();
        for (exchange, expected) in [("amq.headers", 1), ("amq.fanout", 0), ("", 0)] {
            let headers = Counted(Cell::new(0));
            router.route_all(exchange, &["q"], &headers, &mut Routes::new()).unwrap();
            assert_eq!(headers.0.get(), expected, "{exchange}");
        }
    }
}
