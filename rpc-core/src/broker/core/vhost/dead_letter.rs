//! Dead letters: the copy of a message for a dead letter exchange, and the headers that RabbitMQ adds to it.

use std::collections::HashMap;

use crate::broker::core::{
    interface::Now,
    profile::LetterFacts,
    vhost::message::{Entry, Letter, Message},
};
use crate::wire::{
    PropertyReader, PropertyWriter,
    table::{self, Field, TableWriter, Value},
};

/// Why a message leaves a queue for a dead letter exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Death {
    const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// From where a message is dead-lettered, to where, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grave<'a> {
    pub(crate) queue: &'a str,
    pub(crate) exchange: &'a str,
    /// The key that replaces the message's own, if any.
    pub(crate) routing_key: Option<&'a str>,
    pub(crate) death: Death,
    pub(crate) facts: &'a LetterFacts,
}

/// The copy for the dead letter exchange.
pub(crate) fn dead_letter(entry: &Entry, grave: &Grave<'_>, now: Now) -> Message {
    let message = &*entry.message;
    let reader = PropertyReader::new(message.properties());
    let headers = headers(message, reader, grave, now);
    let properties = PropertyWriter::new(message.properties()).headers(&headers).without_expiration().write();
    let routing_key = grave.routing_key.map_or_else(|| message.routing_key(), str::as_bytes);
    let letter = Message::new(
        (grave.exchange.as_bytes(), routing_key),
        &message.content(&properties),
        message.priority,
        None,
        message.another_held(),
    );
    let failed = if grave.facts.counts_failures { message.failed_before.saturating_add(entry.failed_count) } else { 0 };
    letter.marked(if grave.routing_key.is_some() { Letter::WithNewKey } else { Letter::Yes }, failed)
}

/// Whether a dead letter has already been in a queue, and no client has rejected it since. Such a message is dropped.
pub(crate) fn is_cycle(message: &Message, queue: &str) -> bool {
    let Some(deaths) = PropertyReader::new(message.properties()).raw_headers().and_then(deaths) else {
        return false;
    };
    let mut was_rejected = false;
    for death in deaths {
        was_rejected |= is_text(death, b"reason", Death::Rejected.name());
        if is_text(death, b"queue", queue) {
            return !was_rejected;
        }
    }
    false
}

/// The further routing keys of a message: those in its CC header.
pub(crate) fn carbon_copies(message: &Message) -> impl Iterator<Item = &str> {
    let reader = PropertyReader::new(message.properties());
    let headers = reader.raw_headers().filter(|_| message.letter != Letter::WithNewKey);
    let keys = headers.and_then(|headers| table::find(headers, b"CC")).and_then(Value::as_array);
    keys.into_iter().flatten().filter_map(Value::as_text).filter_map(|key| std::str::from_utf8(key).ok())
}

fn headers(message: &Message, reader: PropertyReader<'_>, grave: &Grave<'_>, now: Now) -> Vec<u8> {
    let old = reader.raw_headers().unwrap_or(&[0, 0, 0, 0]);
    let mut headers = TableWriter::new();
    let mut is_entered = false;
    let is_believed = grave.facts.believes_clients || message.letter != Letter::No;
    for field in table::fields(old) {
        match field.key {
            key if !is_believed && is_of_deaths(key) => {}
            b"x-last-death-exchange" | b"x-last-death-queue" | b"x-last-death-reason" if grave.facts.has_last_death => {
            }
            b"x-death" => {
                put_deaths(&mut headers, Some(field.value), message, reader, grave, now);
                is_entered = true;
            }
            // A new routing key replaces the keys of the copies too.
            b"CC" | b"BCC" if grave.routing_key.is_some() && !grave.facts.keeps_copies => {}
            _ => drop(headers.raw(field)),
        }
    }
    if !is_entered {
        put_deaths(&mut headers, None, message, reader, grave, now);
    }
    // RabbitMQ adds no first death to a message that already has deaths, although only a client can forge such a message.
    let has_first = is_believed && table::find(old, b"x-first-death-queue").is_some();
    if !is_entered && !has_first {
        put_death(
            &mut headers,
            ["x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"],
            message,
            grave,
        );
    }
    if grave.facts.has_last_death {
        put_death(&mut headers, ["x-last-death-exchange", "x-last-death-queue", "x-last-death-reason"], message, grave);
    }
    headers.finish()
}

/// Whether only the broker writes a header.
fn is_of_deaths(header: &[u8]) -> bool {
    header == b"x-death" || header.starts_with(b"x-first-death-") || header.starts_with(b"x-last-death-")
}

fn put_death(headers: &mut TableWriter, names: [&str; 3], message: &Message, grave: &Grave<'_>) {
    let values = [message.exchange(), grave.queue.as_bytes(), grave.death.name().as_bytes()];
    for (name, value) in names.into_iter().zip(values) {
        headers.text(name, value);
    }
}

/// Writes `x-death`: this death first, with its count raised if it happened before. In RabbitMQ 3.10, the others follow
/// in the reverse of their previous order.
fn put_deaths(
    headers: &mut TableWriter,
    old: Option<Value<'_>>,
    message: &Message,
    reader: PropertyReader<'_>,
    grave: &Grave<'_>,
    now: Now,
) {
    let mut others = grouped(old);
    let is_same = |death: &OldDeath<'_>| {
        death.queue == Some(grave.queue.as_bytes()) && death.reason == Some(grave.death.name().as_bytes())
    };
    let this = match others.iter().position(is_same) {
        Some(before) => counted_up(&others.remove(before)),
        None => first_time(message, reader, grave, now, old.is_some()),
    };
    let mut others: Vec<_> = others.iter().map(OldDeath::write).collect();
    if grave.facts.reverses_deaths {
        others.reverse();
    }
    headers.tables("x-death", std::iter::once(&this[..]).chain(others.iter().map(|table| &table[..])));
}

/// An earlier death, as its table in `x-death` describes it.
struct OldDeath<'a> {
    queue: Option<&'a [u8]>,
    reason: Option<&'a [u8]>,
    value: Value<'a>,
    /// The number of equal tables: RabbitMQ before 3.6 wrote one for each death, without a count.
    entries: i64,
}

/// The deaths in `x-death`, merged by queue and reason.
fn grouped(old: Option<Value<'_>>) -> Vec<OldDeath<'_>> {
    let mut deaths = Vec::<OldDeath<'_>>::new();
    let mut places = HashMap::new();
    for value in old.and_then(Value::as_array).into_iter().flatten() {
        let Some(fields) = value.as_table() else { continue };
        let text = |key: &[u8]| fields.clone().find(|field| field.key == key).and_then(|field| field.value.as_text());
        let (queue, reason) = (text(b"queue"), text(b"reason"));
        let at = *places.entry((queue, reason)).or_insert(deaths.len());
        match deaths.get_mut(at) {
            Some(death) => death.entries += 1,
            None => deaths.push(OldDeath { queue, reason, value, entries: 1 }),
        }
    }
    deaths
}

impl OldDeath<'_> {
    /// The table, with a count.
    fn write(&self) -> Vec<u8> {
        let fields = || self.value.as_table().into_iter().flatten();
        if fields().any(|field| field.key == b"count") {
            return self.value.raw.to_vec();
        }
        let mut table = TableWriter::new();
        table.integer("count", self.entries);
        for field in fields() {
            table.raw(field);
        }
        table.finish()
    }
}

fn counted_up(before: &OldDeath<'_>) -> Vec<u8> {
    let mut fields: Vec<Field<'_>> = before.value.as_table().into_iter().flatten().collect();
    fields.sort_by_key(|field| field.key);
    let count = fields.iter().find(|field| field.key == b"count").map(|field| field.value.as_integer().unwrap_or(0));
    fields.retain(|field| field.key != b"count");
    let (lower, higher) = fields.split_at(fields.partition_point(|field| field.key < &b"count"[..]));
    let mut table = TableWriter::new();
    for field in lower {
        table.raw(*field);
    }
    table.integer("count", count.unwrap_or(before.entries).saturating_add(1));
    for field in higher {
        table.raw(*field);
    }
    table.finish()
}

/// The table of a first death. RabbitMQ writes the fields in this order, and sorts them if there were deaths before.
fn first_time(message: &Message, reader: PropertyReader<'_>, grave: &Grave<'_>, now: Now, is_sorted: bool) -> Vec<u8> {
    let keys = std::iter::once(message.routing_key()).chain(carbon_copies(message).map(str::as_bytes));
    let mut table = TableWriter::new();
    table
        .integer("count", 1)
        .text("reason", grave.death.name().as_bytes())
        .text("queue", grave.queue.as_bytes())
        .timestamp("time", now.unix_s)
        .text("exchange", message.exchange())
        .texts("routing-keys", keys);
    if let Some(expiration) = reader.expiration() {
        table.text("original-expiration", expiration);
    }
    let table = table.finish();
    if !is_sorted {
        return table;
    }
    let mut fields: Vec<_> = table::fields(&table).collect();
    fields.sort_by_key(|field| field.key);
    let mut sorted = TableWriter::new();
    for field in fields {
        sorted.raw(field);
    }
    sorted.finish()
}

fn deaths(headers: &[u8]) -> Option<impl Iterator<Item = Value<'_>>> {
    let deaths = table::find(headers, b"x-death")?.as_array()?;
    Some(deaths.filter(|death| death.as_table().is_some()))
}

fn is_text(table: Value<'_>, key: &[u8], text: &str) -> bool {
    let found = table.as_table().into_iter().flatten().find(|field| field.key == key);
    found.and_then(|field| field.value.as_text()) == Some(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::broker::core::{profile::Profile, vhost::message::tests::message};

    fn now() -> Now {
        Now { instant: Instant::now(), unix_s: 9 }
    }

    fn entry(message: &Arc<Message>) -> Entry {
        let message = Arc::clone(message);
        Entry { place: 1, message, delivery_count: 0, failed_count: 0, is_failed_letter: false, expires_at: None }
    }

    fn bury(message: &Arc<Message>, queue: &str, death: Death) -> Arc<Message> {
        let facts = &Profile::default().facts().letters;
        let grave = Grave { queue, exchange: "dlx", routing_key: None, death, facts };
        Arc::new(dead_letter(&entry(message), &grave, now()))
    }

    fn deaths_of(message: &Message) -> Vec<(String, String, i64)> {
        let headers = PropertyReader::new(message.properties()).raw_headers().unwrap();
        assert!(table::check(headers, table::DEPTH_MAX));
        let text = |death: Value<'_>, key: &[u8]| {
            let field = death.as_table().unwrap().find(|field| field.key == key).unwrap();
            String::from_utf8(field.value.as_text().unwrap().to_vec()).unwrap()
        };
        let count = |death: Value<'_>| {
            death.as_table().unwrap().find(|field| field.key == b"count").unwrap().value.as_integer().unwrap()
        };
        deaths(headers).unwrap().map(|death| (text(death, b"queue"), text(death, b"reason"), count(death))).collect()
    }

    #[test]
    fn deaths_are_counted_by_queue_and_reason_the_last_one_first() {
        let message = message(b"body", 4);
        let once = bury(&message, "a", Death::Rejected);
        assert_eq!((once.exchange(), once.body().0, once.priority), (&b"dlx"[..], &b"body"[..], 4));
        let twice = bury(&once, "b", Death::Expired);
        let again = bury(&twice, "a", Death::Rejected);
        let expected = [("a".to_owned(), "rejected".to_owned(), 2), ("b".to_owned(), "expired".to_owned(), 1)];
        assert_eq!(deaths_of(&again), expected);
        let further = bury(&bury(&again, "c", Death::Expired), "d", Death::Expired);
        let queues: Vec<_> = deaths_of(&further).into_iter().map(|(queue, ..)| queue).collect();
        assert_eq!(queues, ["d", "a", "b", "c"], "RabbitMQ turns the order of the others round each time");
        let headers = PropertyReader::new(again.properties()).headers().unwrap();
        let first: Vec<_> = headers.inner().keys().map(|key| key.as_str()).collect();
        assert_eq!(first, ["x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason"]);
    }

    #[test]
    fn a_cycle_without_a_rejection_is_one() {
        let expired = bury(&message(b"", 0), "a", Death::Expired);
        assert!(is_cycle(&expired, "a") && !is_cycle(&expired, "b"));
        let rejected = bury(&expired, "b", Death::Rejected);
        assert!(!is_cycle(&rejected, "a") && !is_cycle(&rejected, "b"));
        assert!(!is_cycle(&message(b"", 0), "a"));
    }

    #[test]
    fn a_key_of_its_own_replaces_the_copies() {
        let mut table = TableWriter::new();
        table.texts("CC", [&b"one"[..]]).text("kept", b"x");
        let table = table.finish();
        let properties = PropertyWriter::new(&[0, 0]).headers(&table).write();
        let message = message(b"", 0);
        let message = Arc::new(Message::new((b"", b"key"), &message.content(&properties), 0, None, Default::default()));
        assert_eq!(carbon_copies(&message).collect::<Vec<_>>(), ["one"]);
        assert_eq!(carbon_copies(&bury(&message, "q", Death::Expired)).count(), 1);
        let facts = &Profile::default().facts().letters;
        let grave = Grave { queue: "q", exchange: "", routing_key: Some("dead"), death: Death::Expired, facts };
        let letter = dead_letter(&entry(&message), &grave, now());
        assert_eq!((letter.routing_key(), carbon_copies(&letter).count()), (&b"dead"[..], 0));
        let headers = PropertyReader::new(letter.properties()).raw_headers().unwrap();
        assert_eq!(table::find(headers, b"kept").and_then(Value::as_text), Some(&b"x"[..]));
    }
}
