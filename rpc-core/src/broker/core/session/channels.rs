//! The channels of a connection, by number.

use std::collections::BTreeMap;

use crate::broker::core::session::channel::Channel;

/// The channels of a connection.
///
/// Every frame looks its channel up. Clients count from 1, so channels with low numbers are in a list; the list has a
/// bounded length, because a client may also choose high numbers.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    low: Vec<Option<Box<Channel>>>,
    high: BTreeMap<u16, Box<Channel>>,
    count: usize,
}

impl Channels {
    #[inline]
    pub(crate) fn get(&self, number: u16) -> Option<&Channel> {
        match self.low.get(usize::from(number)) {
            Some(channel) => channel.as_deref(),
            None => self.high.get(&number).map(|channel| &**channel),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut Channel> {
        match self.low.get_mut(usize::from(number)) {
            Some(channel) => channel.as_deref_mut(),
            None => self.high.get_mut(&number).map(|channel| &mut **channel),
        }
    }

    pub(crate) fn insert(&mut self, number: u16, channel: Channel) {
        let at = usize::from(number);
        let before = if at < LOW_MAX {
            if self.low.len() <= at {
                self.low.resize_with(at + 1, || None);
            }
            self.low[at].replace(Box::new(channel))
        } else {
            self.high.insert(number, Box::new(channel))
        };
        self.count += usize::from(before.is_none());
    }

    pub(crate) fn remove(&mut self, number: u16) -> Option<Channel> {
        let channel = match self.low.get_mut(usize::from(number)) {
            Some(channel) => channel.take(),
            None => self.high.remove(&number),
        }?;
        self.count -= 1;
        Some(*channel)
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Takes out the channel with the lowest number.
    pub(crate) fn pop_first(&mut self) -> Option<(u16, Channel)> {
        let low = (0..).zip(&mut self.low).find_map(|(number, channel)| Some((number, channel.take()?)));
        let (number, channel) = low.or_else(|| {
            // So that it is not searched again.
            self.low = Vec::new();
            self.high.pop_first()
        })?;
        self.count -= 1;
        Some((number, *channel))
    }

    /// In the order of their numbers.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Channel)> {
        let low = self.low.iter().zip(0..).filter_map(|(channel, number)| Some((number, channel.as_deref()?)));
        low.chain(self.high.iter().map(|(number, channel)| (*number, &**channel)))
    }

    /// In the order of their numbers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Channel)> {
        let low = self.low.iter_mut().zip(0..).filter_map(|(channel, number)| Some((number, channel.as_deref_mut()?)));
        low.chain(self.high.iter_mut().map(|(number, channel)| (*number, &mut **channel)))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.iter_mut().map(|(_, channel)| channel)
    }
}

/// Numbers below this one are indices of the list.
const LOW_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_by_any_number_and_counted_once() {
        let mut channels = Channels::default();
        let numbers = [1, 255, 256, 7, u16::MAX];
        for number in numbers.into_iter().chain([7, 256]) {
            let mut channel = Channel::default();
            channel.prefetch_count = number;
            channels.insert(number, channel);
        }
        assert_eq!(channels.len(), numbers.len());
        assert!(numbers.into_iter().all(|number| channels.get(number).unwrap().prefetch_count == number));
        assert!(channels.get(2).is_none() && channels.get(300).is_none());
        assert_eq!(channels.iter().map(|(number, _)| number).collect::<Vec<_>>(), [1, 7, 255, 256, u16::MAX]);
        assert_eq!(channels.values_mut().count(), numbers.len());
        assert_eq!(channels.remove(256).unwrap().prefetch_count, 256);
        assert!(channels.remove(256).is_none() && channels.get_mut(256).is_none());
        assert!(channels.remove(7).is_some() && channels.remove(7).is_none());
        assert_eq!(channels.len(), 3);
        let popped: Vec<_> = std::iter::from_fn(|| channels.pop_first()).map(|(number, _)| number).collect();
        assert_eq!(popped, [1, 255, u16::MAX]);
        assert_eq!(channels.len(), 0);
        channels.insert(3, Channel::default());
        assert_eq!((channels.len(), channels.pop_first().unwrap().0), (1, 3));
    }
}
