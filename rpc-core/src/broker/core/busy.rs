//! The channels of a connection that wait for the rest of a method, and the frames that have arrived for them meanwhile.
//!
//! Only the channel itself waits: frames of the connection's other channels are handled. Channel 0 stands for the end of the
//! connection, which comes when no channel waits any more.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use crate::{
    broker::core::limits::memory::{Held, Memory},
    wire::Batch,
};

/// The channels of one connection that wait, in turns. `R` is the rest of a method.
#[derive(Debug)]
pub(crate) struct Busy<R> {
    channels: BTreeMap<u16, Waiting<R>>,
    /// The channel whose turn was last.
    last: u16,
    /// The frames set aside, on all channels.
    bytes: usize,
    held: Held,
}

/// A channel that waits.
#[derive(Debug)]
struct Waiting<R> {
    /// In the order in which they are done.
    rests: VecDeque<R>,
    /// The frames behind them.
    frames: VecDeque<Batch>,
    /// The last of these frames.
    filling: Vec<u8>,
}

impl<R> Default for Busy<R> {
    fn default() -> Self {
        Self { channels: BTreeMap::new(), last: 0, bytes: 0, held: Held::default() }
    }
}

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self { rests: VecDeque::new(), frames: VecDeque::new(), filling: Vec::new() }
    }
}

impl<R> Busy<R> {
    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether so many frames are set aside that no more are read.
    pub(crate) const fn is_full(&self) -> bool {
        self.bytes >= SET_ASIDE_MAX_BYTES
    }

    /// Whether the frames of a channel have to wait.
    pub(crate) fn waits(&self, number: u16) -> bool {
        self.channels.contains_key(&number)
    }

    /// Whether a method of the channel is done in part.
    pub(crate) fn has_rest(&self, number: u16) -> bool {
        self.channels.get(&number).is_some_and(|waiting| !waiting.rests.is_empty())
    }

    /// Adds the rest of a method, behind those that the channel has already.
    pub(crate) fn push(&mut self, number: u16, rest: R) {
        self.channels.entry(number).or_default().rests.push_back(rest);
    }

    /// Puts back a rest that was taken out.
    pub(crate) fn push_front(&mut self, number: u16, rest: R) {
        self.channels.entry(number).or_default().rests.push_front(rest);
    }

    /// Takes out the next rest of a channel.
    pub(crate) fn take_rest(&mut self, number: u16) -> Option<R> {
        self.channels.get_mut(&number)?.rests.pop_front()
    }

    /// Sets frames aside, behind those that the channel has already. Their bytes are counted in `memory`.
    pub(crate) fn set_aside(&mut self, number: u16, frames: &[u8], memory: &Arc<Memory>) {
        if self.bytes == 0 {
            self.held = Held::nothing_of(memory);
        }
        let waiting = self.channels.entry(number).or_default();
        waiting.filling.extend_from_slice(frames);
        // A message may keep the whole piece that its body is a part of.
        if waiting.filling.len() >= PIECE_BYTES {
            waiting.frames.push_back(Batch::from(std::mem::take(&mut waiting.filling)));
        }
        self.count(self.bytes + frames.len());
    }

    /// Takes out the first frames that were set aside.
    pub(crate) fn take_frames(&mut self, number: u16) -> Option<Batch> {
        let waiting = self.channels.get_mut(&number)?;
        let frames = match waiting.frames.pop_front() {
            None if waiting.filling.is_empty() => return None,
            None => Batch::from(std::mem::take(&mut waiting.filling)),
            Some(frames) => frames,
        };
        self.count(self.bytes - frames.len());
        Some(frames)
    }

    /// Puts back the end of the frames that were taken out.
    pub(crate) fn put_back(&mut self, number: u16, frames: Batch) {
        if !frames.is_empty() {
            self.count(self.bytes + frames.len());
            self.channels.entry(number).or_default().frames.push_front(frames);
        }
    }

    /// Drops the frames of a channel.
    pub(crate) fn forget(&mut self, number: u16) {
        while self.take_frames(number).is_some() {}
    }

    /// Drops the frames of all channels.
    pub(crate) fn forget_all(&mut self) {
        let numbers: Vec<_> = self.channels.keys().copied().collect();
        for number in numbers {
            self.forget(number);
            self.settle(number);
        }
    }

    /// The channel whose turn it is: the next one by number. The end of the connection comes last.
    pub(crate) fn next_turn(&mut self) -> Option<u16> {
        let behind = self.channels.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
        let first = || self.channels.range(1..).next().or_else(|| self.channels.first_key_value());
        let number = *behind.or_else(first)?.0;
        self.last = number;
        Some(number)
    }

    /// Whether all channels have come to their end, so that the connection may.
    pub(crate) fn may_end(&self) -> bool {
        self.channels.range(1..).next().is_none()
    }

    /// Lets a channel go on that has nothing left to wait for.
    pub(crate) fn settle(&mut self, number: u16) {
        let is_done =
            |waiting: &Waiting<R>| waiting.rests.is_empty() && waiting.frames.is_empty() && waiting.filling.is_empty();
        if self.channels.get(&number).is_some_and(is_done) {
            self.channels.remove(&number);
        }
    }

    fn count(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.held.set(bytes);
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn counted_bytes(&self) -> usize {
        self.held.bytes()
    }
}

/// Beyond it the connection is not read, until its channels have gone on.
const SET_ASIDE_MAX_BYTES: usize = 1 << 20;
/// As many as are read at once.
const PIECE_BYTES: usize = 64 * 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeats(count: usize) -> Vec<u8> {
        [8, 0, 0, 0, 0, 0, 0, 0xCE].repeat(count)
    }

    #[test]
    fn channels_take_turns_and_the_end_of_the_connection_comes_last() {
        let mut busy = Busy::default();
        for number in [0, 3, 7, u16::MAX] {
            busy.push(number, number);
        }
        let turns: Vec<_> = std::iter::from_fn(|| busy.next_turn()).take(5).collect();
        assert_eq!(turns, [3, 7, u16::MAX, 3, 7]);
        assert!(!busy.may_end());
        for number in [7, 3, u16::MAX] {
            assert_eq!(busy.take_rest(number), Some(number));
            busy.settle(number);
        }
        assert!(busy.may_end());
        assert_eq!((busy.next_turn(), busy.next_turn()), (Some(0), Some(0)));
    }

    #[test]
    fn frames_keep_their_order_and_are_counted_until_they_are_taken() {
        let memory = Arc::new(Memory::new(u64::MAX));
        let mut busy = Busy::<()>::default();
        let mut count = 0;
        while !busy.is_full() {
            busy.set_aside(1, &heartbeats(1_000), &memory);
            count += 1_000;
        }
        assert_eq!((memory.bytes(), busy.counted_bytes()), (8 * count, 8 * count));
        assert!(memory.bytes() < SET_ASIDE_MAX_BYTES + 8_000);
        let first = busy.take_frames(1).unwrap();
        let rest = first.end(16);
        busy.put_back(1, rest);
        let mut taken = first.frames().count() - 2;
        while let Some(frames) = busy.take_frames(1) {
            taken += frames.frames().count();
        }
        assert_eq!((taken, memory.bytes(), busy.is_empty()), (count, 0, false));
        busy.settle(1);
        assert!(busy.is_empty());
    }

    #[test]
    fn frames_that_are_dropped_are_not_counted_any_more() {
        let memory = Arc::new(Memory::new(u64::MAX));
        let mut busy = Busy::default();
        busy.set_aside(1, &heartbeats(1), &memory);
        busy.set_aside(2, &heartbeats(2), &memory);
        busy.push(2, ());
        busy.forget_all();
        assert_eq!((memory.bytes(), busy.waits(1), busy.has_rest(2)), (0, false, true));
        busy.set_aside(2, &heartbeats(2), &memory);
        drop(busy);
        assert_eq!(memory.bytes(), 0);
    }
}
