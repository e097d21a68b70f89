use super::*;
use crate::broker::core::{
    session::unacked::HOLES_MIN,
    vhost::message::{Entry, tests::message},
};

pub(crate) fn delivered(slot: Option<usize>) -> Delivered {
    let entry = Entry {
        place: 1,
        message: message(b"", 0),
        delivery_count: 0,
        failed_count: 0,
        is_failed_letter: false,
        expires_at: None,
    };
    Delivered { queue: QueueId(1), entry: Some(entry), slot, delivery_tag: 0 }
}

fn settle(channel: &mut Channel, delivery_tag: u64, multiple: bool) -> Option<usize> {
    let taken: Vec<_> = match multiple {
        true => {
            let through = channel.last_through(delivery_tag)?;
            channel.take_some(0, through, usize::MAX).0.into_deliveries().collect()
        }
        false => vec![channel.take_one(delivery_tag)?],
    };
    taken.iter().for_each(|delivered| channel.release(delivered));
    Some(taken.len())
}

#[test]
fn tags_are_settled_once() {
    let mut channel = Channel::default();
    assert_eq!(channel.tag_settled(), 1);
    let tags: Vec<_> = (0..3).map(|_| channel.tag_unacked(delivered(None))).collect();
    assert_eq!(tags, [2, 3, 4]);
    assert_eq!(settle(&mut channel, 1, false), None, "acknowledged automatically");
    assert_eq!(settle(&mut channel, 3, false), Some(1));
    assert_eq!(settle(&mut channel, 3, false), None);
    assert_eq!(settle(&mut channel, 5, true), None, "above the last");
    assert_eq!(settle(&mut channel, 4, true), Some(2));
    assert_eq!(settle(&mut channel, 0, true), Some(0), "all of no deliveries");
    assert_eq!(settle(&mut channel, 0, false), None);
    assert_eq!(channel.tag_unacked(delivered(None)), 5);
}

#[test]
fn one_unacknowledged_delivery_keeps_no_memory_of_later_ones() {
    let mut channel = Channel::default();
    let stuck = channel.tag_unacked(delivered(None));
    for _ in 0..10_000 {
        channel.tag_settled();
        let tag = channel.tag_unacked(delivered(None));
        assert_eq!(settle(&mut channel, tag, false), Some(1));
    }
    assert!(channel.unacked.deliveries.len() <= 2 * HOLES_MIN + 2);
    assert_eq!(settle(&mut channel, stuck, false), Some(1));
    assert!(channel.unacked.deliveries.is_empty());
    assert_eq!(channel.unacked.holes, 0);
}

#[test]
fn a_rolled_back_settlement_can_be_settled_again() {
    let mut channel = Channel::default();
    for _ in 0..3 {
        channel.tag_unacked(delivered(None));
    }
    channel.mode = Mode::Transaction(Transaction::default());
    assert!(channel.hold_back(1, Settle::Ack));
    assert_eq!((channel.last_through(1), channel.last_through(2)), (None, Some(2)));
    assert_eq!(channel.hold_back_some(0, 2, Settle::Reject, 1), Some(2));
    assert_eq!(channel.hold_back_some(2, 2, Settle::Reject, 1), None);
    assert!(!channel.hold_back(1, Settle::Ack), "the transaction holds it already");
    let Mode::Transaction(transaction) = std::mem::take(&mut channel.mode) else { panic!() };
    assert_eq!(transaction.settlements.len(), 2);
    transaction.settlements.into_iter().for_each(|(delivered, _)| channel.restore(delivered));
    channel.end_transaction();
    assert_eq!(settle(&mut channel, 0, true), Some(3));
    assert_eq!(channel.tag_unacked(delivered(None)), 4);
}

#[test]
fn windows_are_each_consumers_own_or_shared_by_the_channel() {
    let mut channel = Channel { global_prefetch_count: 3, ..Channel::default() };
    for _ in 0..2 {
        channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueId(1), false, 2));
    }
    channel.tag_unacked(delivered(Some(0)));
    channel.tag_unacked(delivered(Some(0)));
    assert!(!channel.has_credit(0) && channel.has_credit(1));
    channel.tag_unacked(delivered(Some(1)));
    assert!(!channel.has_credit(1), "the channel's window is full");
    channel.tag_unacked(delivered(None));
    settle(&mut channel, 1, false);
    assert!(channel.has_credit(0) && channel.has_credit(1));
}

#[test]
fn a_slot_is_reused_when_its_last_delivery_is_settled() {
    let mut channel = Channel::default();
    let consumer = || ChannelConsumer::new(Bytes::new(), QueueId(1), false, 1);
    let first = channel.add_consumer(consumer());
    let tag = channel.tag_unacked(delivered(Some(first)));
    channel.remove_consumer(first);
    let second = channel.add_consumer(consumer());
    assert_ne!(first, second);
    settle(&mut channel, tag, false);
    assert!(channel.has_credit(second));
    assert_eq!(channel.add_consumer(consumer()), first);
    channel.remove_consumer(second);
    assert_eq!(channel.add_consumer(consumer()), second);
}

#[test]
fn a_full_window_of_the_channel_stops_consumers_with_automatic_acknowledgement() {
    let mut channel = Channel { global_prefetch_count: 1, ..Channel::default() };
    channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueId(1), false, 0));
    channel.add_consumer(ChannelConsumer::new(Bytes::new(), QueueId(1), true, 0));
    assert!(channel.has_credit(1));
    channel.tag_unacked(delivered(Some(0)));
    assert!(!channel.has_credit(1));
}
