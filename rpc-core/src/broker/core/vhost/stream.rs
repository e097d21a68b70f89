//! A stream: messages stay after they are read, and each consumer reads from its own offset.
//!
//! ```text
//!  push ──► segment │ segment │ segment: offset 0, 1, 2, …
//!              ▲         ▲ consumer at 17   ▲ consumer at the end
//!              └ deleted as a whole, when the stream has too many bytes or the segment is too old
//! ```
//!
//! As in RabbitMQ, only whole segments are deleted, and never the last one.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use amq_protocol::types::AMQPValue;

use crate::broker::core::{
    interface::Now,
    vhost::{
        field_values::integer_of,
        message::{Entry, Message},
    },
};

/// How much a stream keeps, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) segment_max_bytes: u64,
}

/// The messages of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    retention: Retention,
    segments: VecDeque<Segment>,
    next_offset: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Segment {
    first_offset: u64,
    entries: VecDeque<Entry>,
    /// When each entry was published.
    since: Vec<Instant>,
    bytes: u64,
}

/// Where a consumer begins to read: its `x-stream-offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    /// The last message. RabbitMQ starts at the last chunk, the messages that were published together.
    Last,
    Next,
    Offset(u64),
    /// The first message published at that time or later.
    Since(Instant),
}

impl Start {
    /// Reads an `x-stream-offset`; the default is the next message.
    pub(crate) fn read(argument: Option<&AMQPValue>, now: Now) -> Option<Self> {
        let ago = |age| now.instant.checked_sub(age).map_or(Self::First, Self::Since);
        let text = match argument {
            None => return Some(Self::Next),
            Some(AMQPValue::LongString(text)) => std::str::from_utf8(text.as_bytes()).ok()?,
            Some(AMQPValue::ShortString(text)) => text.as_str(),
            Some(AMQPValue::Timestamp(unix_s)) => {
                return Some(match now.unix_s.checked_sub(*unix_s) {
                    Some(age_s) => ago(Duration::from_secs(age_s)),
                    None => Self::Next,
                });
            }
            Some(value) => return integer_of(value).map(|offset| Self::Offset(u64::try_from(offset).unwrap_or(0))),
        };
        match text {
            "first" => Some(Self::First),
            "last" => Some(Self::Last),
            "next" => Some(Self::Next),
            interval => age(interval).map(ago),
        }
    }
}

/// A duration as written in `x-max-age` and `x-stream-offset`: `7D`, `12h`.
pub(crate) fn age(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit_s: u64 = match unit {
        "Y" => 365 * 86_400,
        "M" => 30 * 86_400,
        "D" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = is_number.then(|| count.parse().unwrap_or(u64::MAX))?;
    Some(Duration::from_secs(count.saturating_mul(unit_s)))
}

impl Stream {
    pub(crate) fn new(retention: Retention) -> Self {
        Self { retention, segments: VecDeque::new(), next_offset: 0, bytes: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.next_offset - self.segments.front().map_or(self.next_offset, |segment| segment.first_offset)
    }

    /// The offset of the next message.
    pub(crate) fn end(&self) -> u64 {
        self.next_offset
    }

    /// Appends a message. Returns the segments that are deleted for it.
    pub(crate) fn push(&mut self, message: &Arc<Message>, now: Instant) -> Vec<VecDeque<Entry>> {
        let mut deleted = Vec::new();
        let bytes = message.body_bytes() as u64;
        let is_full = |segment: &Segment| segment.bytes >= self.retention.segment_max_bytes;
        if self.segments.back().is_none_or(is_full) {
            let (entries, since) = Default::default();
            self.segments.push_back(Segment { first_offset: self.next_offset, entries, since, bytes: 0 });
            deleted = self.delete_old(now);
        }
        if let Some(segment) = self.segments.back_mut() {
            let message = Arc::clone(message);
            segment.entries.push_back(Entry {
                place: self.next_offset,
                message,
                delivery_count: 0,
                failed_count: 0,
                is_failed_letter: false,
                expires_at: None,
            });
            segment.since.push(now);
            segment.bytes += bytes;
            self.bytes += bytes;
            self.next_offset += 1;
        }
        deleted
    }

    /// The entry at an offset, or the first one after it. Its place is its offset.
    fn read(&self, offset: u64) -> Option<&Entry> {
        if offset >= self.next_offset {
            return None;
        }
        let offset = offset.max(self.segments.front()?.first_offset);
        let at = self.segments.partition_point(|segment| segment.first_offset <= offset).checked_sub(1)?;
        let segment = self.segments.get(at)?;
        segment.entries.get(usize::try_from(offset - segment.first_offset).ok()?)
    }

    /// Reads the entry at an offset, or the first one kept after it, and moves the offset past it.
    pub(crate) fn read_next(&self, offset: &mut u64) -> Option<Entry> {
        let entry = self.read(*offset)?.clone();
        *offset = entry.place + 1;
        Some(entry)
    }

    /// The offset that a consumer starts at.
    pub(crate) fn offset_of(&self, start: Start) -> u64 {
        match start {
            Start::First => 0,
            Start::Last => self.next_offset.saturating_sub(1),
            Start::Next => self.next_offset,
            // RabbitMQ starts at the end if the offset does not exist yet.
            Start::Offset(offset) => offset.min(self.next_offset),
            Start::Since(time) => {
                let kept = self.segments.iter().flat_map(|segment| (segment.first_offset..).zip(&segment.since));
                kept.skip_while(|(_, since)| **since < time)
                    .map(|(offset, _)| offset)
                    .next()
                    .unwrap_or(self.next_offset)
            }
        }
    }

    /// Takes out all entries.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = VecDeque<Entry>> {
        self.segments.into_iter().map(|segment| segment.entries)
    }

    /// Takes out the segments beyond the retention, but never the last one.
    fn delete_old(&mut self, now: Instant) -> Vec<VecDeque<Entry>> {
        let mut deleted = Vec::new();
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
        {
            let newest = oldest.since.last().copied().unwrap_or(now);
            let is_old = self.retention.max_age.is_some_and(|age| now.saturating_duration_since(newest) > age);
            let is_too_much = self.retention.max_bytes.is_some_and(|max| self.bytes > max);
            if !is_old && !is_too_much {
                break;
            }
            self.bytes -= oldest.bytes;
            deleted.extend(self.segments.pop_front().map(|segment| segment.entries));
        }
        deleted
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.segments.iter().flat_map(|segment| &segment.entries).map(|entry| &entry.message)
    }
}

/// The default of `x-stream-max-segment-size-bytes`, as in RabbitMQ.
pub(crate) const SEGMENT_MAX_BYTES: u64 = 500_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::core::vhost::message::tests::message;

    fn stream(max_bytes: Option<u64>, max_age: Option<Duration>) -> Stream {
        Stream::new(Retention { max_bytes, max_age, segment_max_bytes: 8 })
    }

    #[test]
    fn a_stream_is_read_from_any_offset() {
        let (mut stream, start) = (stream(None, None), Instant::now());
        assert_eq!((stream.offset_of(Start::Last), stream.read(0).is_none()), (0, true));
        for second in 0..5 {
            stream.push(&message(b"four", 0), start + Duration::from_secs(second));
        }
        let offsets = |mut from: u64| {
            let mut offsets = Vec::new();
            while let Some(entry) = stream.read(from) {
                offsets.push(entry.place);
                from = entry.place + 1;
            }
            offsets
        };
        let since = Start::Since(start + Duration::from_secs(3));
        let starts = [Start::First, Start::Last, Start::Next, Start::Offset(2), Start::Offset(100), since];
        let begun: Vec<_> = starts.into_iter().map(|start| offsets(stream.offset_of(start))).collect();
        assert_eq!(begun, [vec![0, 1, 2, 3, 4], vec![4], vec![], vec![2, 3, 4], vec![], vec![3, 4]]);
        assert_eq!(stream.len(), 5);
    }

    #[test]
    fn whole_segments_are_deleted_but_the_last() {
        let (mut by_size, mut by_age, start) =
            (stream(Some(16), None), stream(None, Some(Duration::ZERO)), Instant::now());
        for second in 0..7 {
            by_size.push(&message(b"four", 0), start);
            by_age.push(&message(b"four", 0), start + Duration::from_secs(second));
        }
        assert_eq!((by_size.len(), by_size.read(0).map(|entry| entry.place)), (5, Some(2)));
        assert_eq!((by_age.len(), by_age.read(0).map(|entry| entry.place)), (1, Some(6)));
    }

    #[test]
    fn ages_have_a_number_and_a_unit() {
        assert_eq!(age("7D"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(age("90s"), Some(Duration::from_secs(90)));
        for text in ["", "s", "7", "7d", "-1s", "1.5h", "7é", "7Dx"] {
            assert_eq!(age(text), None, "{text}");
        }
        assert!(age("99999999999999999999Y").is_some());
    }
}
