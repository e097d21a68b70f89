//! One queue, without a broker around it.

use proptest::prelude::*;

use super::*;
use crate::broker::core::vhost::message::tests::message;

fn queue(arguments: QueueArguments) -> Queue {
    Queue::new("q".into(), FieldTable::default(), arguments, Instant::now())
}

fn push(queue: &mut Queue, priority: u8) -> u64 {
    let entry = queue.admit(&message(b"four", priority), Instant::now());
    let place = entry.place;
    queue.insert(entry);
    place
}

#[test]
fn a_queue_without_a_consumer_is_named_when_it_is_large_and_each_time_it_doubles() {
    let mut queue = queue(QueueArguments::default()).warn_from(10_000);
    let mut named = Vec::new();
    for count in 1..=1_000_u64 {
        let entry = queue.admit(&message(b"", 0), Instant::now());
        queue.insert(entry);
        named.extend(queue.growth_to_warn_of().map(|_| count));
    }
    assert_eq!(named.len(), 5, "{named:?}");
    assert!(named.windows(2).all(|two| two[1] == 2 * two[0]), "{named:?}");
}

#[test]
fn requeued_entries_return_to_their_places_in_any_order() {
    let mut queue = queue(QueueArguments::default());
    for _ in 0..5 {
        push(&mut queue, 0);
    }
    let mut taken: Vec<_> = (0..3).filter_map(|_| queue.pop()).collect();
    taken.swap(0, 1);
    for entry in taken {
        queue.requeue(vec![entry], RequeueReason::Requested, Instant::now());
    }
    let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|entry| (entry.place, entry.is_redelivered())).collect();
    assert_eq!(order, [(1, true), (2, true), (3, true), (4, false), (5, false)]);
    assert_eq!((queue.ready_count(), queue.ready_bytes), (0, 0));
}

proptest! {
    #[test]
    fn entries_requeued_together_are_ordered_as_if_requeued_one_by_one(
        priorities in prop::collection::vec(0_u8..3, 1..60),
        max_priority in prop::option::of(2_u8..3),
        keys in prop::collection::vec(any::<u8>(), 60),
        gone in 0_usize..60,
    ) {
        let mut together = queue(QueueArguments { max_priority, ..Default::default() });
        let mut each = queue(QueueArguments { max_priority, ..Default::default() });
        for priority in &priorities {
            push(&mut together, *priority);
            push(&mut each, *priority);
        }
        // Any of them are out, in any order.
        let mut out: Vec<_> = std::iter::from_fn(|| together.pop()).collect();
        let kept = out.split_off(gone.min(out.len()));
        std::iter::from_fn(|| each.pop()).for_each(drop);
        for entry in kept {
            if keys[entry.place as usize % keys.len()].is_multiple_of(2) {
                together.insert(entry.clone());
                each.insert(entry);
            } else {
                out.push(entry);
            }
        }
        out.sort_by_key(|entry| keys[entry.place as usize % keys.len()]);
        for entry in &out {
            each.requeue(vec![entry.clone()], RequeueReason::Requested, Instant::now());
        }
        together.requeue(out, RequeueReason::Requested, Instant::now());
        together.check();
        let rest = |queue: &mut Queue| -> Vec<_> {
            let bytes = queue.ready_bytes;
            let order = std::iter::from_fn(|| queue.pop()).map(|entry| (entry.place, entry.delivery_count));
            order.chain([(bytes, 0)]).collect()
        };
        prop_assert_eq!(rest(&mut together), rest(&mut each));
    }
}

#[test]
fn many_requeued_entries_are_inserted_in_one_pass() {
    const MANY: usize = 60_000;
    let come_back = |behind: usize| {
        let mut queue = queue(QueueArguments::default());
        let message = message(b"", 0);
        for _ in 0..MANY + behind {
            let entry = queue.admit(&message, Instant::now());
            queue.insert(entry);
        }
        let out: Vec<_> = std::iter::from_fn(|| queue.pop()).take(MANY).collect();
        let started = Instant::now();
        queue.requeue(out, RequeueReason::Requested, Instant::now());
        let took = started.elapsed();
        queue.check();
        assert_eq!(queue.ready_count(), MANY + behind);
        took
    };
    let (alone, in_front) = (come_back(0), come_back(MANY));
    // One by one it takes many seconds.
    assert!(in_front < alone * 10 + Duration::from_secs(1), "{in_front:?} instead of {alone:?}");
}

#[test]
fn a_quorum_queue_requeues_at_its_end_or_at_its_head() {
    let come_back = |has_delivery_limit, requeue| {
        let mut queue = queue(QueueArguments { is_quorum: true, has_delivery_limit, ..Default::default() });
        for priority in 0..4 {
            push(&mut queue, priority);
        }
        let mut taken: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        assert_eq!(taken.iter().map(|entry| entry.place).collect::<Vec<_>>(), [1, 2], "priorities mean nothing");
        taken.reverse();
        queue.requeue(taken, requeue, Instant::now());
        queue.check();
        std::iter::from_fn(|| queue.pop()).map(|entry| entry.message.priority).collect::<Vec<_>>()
    };
    assert_eq!(come_back(false, RequeueReason::Requested), [2, 3, 1, 0]);
    assert_eq!(come_back(true, RequeueReason::Requested), [1, 0, 2, 3]);
    assert_eq!(come_back(false, RequeueReason::ChannelClosed), [1, 0, 2, 3]);
}

#[test]
fn higher_priorities_come_first_and_above_the_maximum_is_the_maximum() {
    let mut queue = queue(QueueArguments { max_priority: Some(5), ..Default::default() });
    let places: Vec<_> = [0, 9, 5, 1].into_iter().map(|priority| push(&mut queue, priority)).collect();
    let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|entry| entry.place).collect();
    assert_eq!(order, [places[1], places[2], places[3], places[0]]);
}

#[test]
fn limits_count_ready_messages() {
    let mut queue = queue(QueueArguments { max_length_bytes: Some(8), ..Default::default() });
    push(&mut queue, 0);
    push(&mut queue, 0);
    assert!(queue.is_full(1) && !queue.is_over_full());
    push(&mut queue, 0);
    assert!(queue.is_over_full());
    queue.pop();
    assert!(!queue.is_over_full());
}
