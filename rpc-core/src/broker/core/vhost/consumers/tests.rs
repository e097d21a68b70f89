//! The consumers of a queue, without a queue around them.

use proptest::prelude::*;

use super::*;

fn consumer(tag: &'static str, slot: usize, priority: i64) -> Consumer {
    Consumer {
        connection: ConnectionId(1),
        channel: 1,
        tag: Bytes::from_static(tag.as_bytes()),
        slot,
        priority,
        exclusive: false,
        offset: 0,
    }
}

/// Consumers with these tags and priorities, in slots 0, 1, 2, …
fn consumers<const N: usize>(is_single_active: bool, members: [(&'static str, i64); N]) -> Consumers {
    let mut consumers = Consumers::new(is_single_active);
    for (slot, (tag, priority)) in members.into_iter().enumerate() {
        consumers.add(consumer(tag, slot, priority));
    }
    consumers
}

/// Serves the next consumer. Returns its tag.
fn serve(consumers: &mut Consumers, has_credit: impl Fn(&Consumer) -> bool) -> Option<Bytes> {
    let at = consumers.next(has_credit)?;
    let tag = consumers[at].tag.clone();
    consumers.rotate();
    consumers.check("q");
    Some(tag)
}

fn place(slot: usize) -> Place {
    (ConnectionId(1), 1, slot)
}

#[test]
fn consumers_take_turns_within_their_priority() {
    let mut consumers = consumers(false, [("low", 0), ("a", 1), ("b", 1)]);
    let turns: Vec<_> = (0..4).filter_map(|_| serve(&mut consumers, |_| true)).collect();
    assert_eq!(turns, ["a", "b", "a", "b"]);
    assert_eq!(serve(&mut consumers, |consumer| consumer.priority == 0).unwrap(), "low");
    consumers.unblock(Regained::Everybody, |consumer| consumer.tag == "a");
    assert_eq!(serve(&mut consumers, |_| true).unwrap(), "a");
    assert_eq!(serve(&mut consumers, |consumer| consumer.tag == "b"), None, "b is blocked until it is unblocked");
}

#[test]
fn an_unblocked_consumer_moves_behind_its_equals() {
    let mut consumers = consumers(false, [("a", 0), ("b", 0), ("c", 0)]);
    assert_eq!(serve(&mut consumers, |consumer| consumer.tag == "c").unwrap(), "c");
    consumers.unblock(Regained::Everybody, |_| true);
    let order: Vec<_> = (0..3).filter_map(|_| serve(&mut consumers, |_| true)).collect();
    assert_eq!(order, ["c", "a", "b"]);
}

#[test]
fn only_those_are_unblocked_that_may_have_got_credit() {
    for (regained, expected) in [
        (Regained::Nobody, vec![]),
        (Regained::Consumer(place(1)), vec!["b"]),
        (Regained::Channel(ConnectionId(1), 1), vec!["a", "b"]),
        (Regained::Connection(ConnectionId(1)), vec!["a", "b", "c"]),
        (Regained::Everybody, vec!["a", "b", "c", "d"]),
    ] {
        let mut consumers = consumers(false, [("a", 0), ("b", 0)]);
        consumers.add(Consumer { channel: 2, ..consumer("c", 0, 0) });
        consumers.add(Consumer { connection: ConnectionId(2), ..consumer("d", 0, 0) });
        assert_eq!(serve(&mut consumers, |_| false), None);
        consumers.unblock(regained, |_| true);
        let served: Vec<_> = expected.iter().filter_map(|_| serve(&mut consumers, |_| true)).collect();
        assert_eq!(served, expected, "{regained:?}");
        assert_eq!(consumers.blocked, 4 - expected.len());
    }
}

#[test]
fn the_single_active_consumer_stays_until_it_leaves() {
    let mut consumers = consumers(true, [("a", 0), ("b", 0)]);
    for _ in 0..3 {
        assert_eq!(serve(&mut consumers, |_| true).unwrap(), "a");
    }
    assert_eq!(serve(&mut consumers, |consumer| consumer.tag == "b"), None, "b waits although a has no credit");
    consumers.remove(place(0));
    assert_eq!(serve(&mut consumers, |_| true).unwrap(), "b");
}

#[test]
fn the_consumers_of_a_channel_leave_together() {
    for is_single_active in [false, true] {
        let mut consumers = consumers(is_single_active, [("a", 0), ("b", 0), ("d", 0)]);
        consumers.add(Consumer { channel: 2, ..consumer("c", 0, 0) });
        assert_eq!(consumers.remove_of(ConnectionId(2), 1), 0, "of another connection");
        assert_eq!(consumers.remove_of(ConnectionId(1), 1), 3);
        consumers.check("q");
        assert_eq!((serve(&mut consumers, |_| true).unwrap(), consumers.len()), ("c".into(), 1));
    }
}

#[test]
fn consumers_that_come_and_go_leave_no_turns_behind() {
    let mut consumers = consumers(false, [("stays", 0)]);
    for round in 0..10_000 {
        consumers.add(consumer("goes", 1, round % 3));
        consumers.remove(place(1));
        assert!(consumers.turns_left_behind <= TURNS_LEFT_MIN + 1);
    }
    consumers.check("q");
    assert!(consumers.lines.len() <= 3);
}

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    Add {
        slot: usize,
        priority: i64,
    },
    Remove {
        slot: usize,
    },
    /// Serves the next consumer whose slot's bit is set.
    Serve {
        credit: u8,
    },
    Unblock {
        slot: Option<usize>,
        credit: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..8_usize, 0..3_i64).prop_map(|(slot, priority)| Step::Add { slot, priority }),
        (0..8_usize).prop_map(|slot| Step::Remove { slot }),
        any::<u8>().prop_map(|credit| Step::Serve { credit }),
        (prop::option::of(0..8_usize), any::<u8>()).prop_map(|(slot, credit)| Step::Unblock { slot, credit }),
    ]
}

/// A list in the order of turns, in which blocked consumers keep no place: the plain way to say the same.
#[derive(Debug, Default)]
struct Model {
    line: Vec<(i64, usize)>,
    blocked: Vec<(i64, usize)>,
}

impl Model {
    fn add(&mut self, member: (i64, usize)) {
        let at = self.line.iter().position(|other| other.0 < member.0).unwrap_or(self.line.len());
        self.line.insert(at, member);
    }

    fn serve(&mut self, has_credit: impl Fn(usize) -> bool) -> Option<usize> {
        while let Some(&first) = self.line.first() {
            self.line.remove(0);
            if has_credit(first.1) {
                self.add(first);
                return Some(first.1);
            }
            self.blocked.push(first);
        }
        None
    }
}

proptest! {
    #[test]
    fn histories_agree_with_a_plain_list(steps in prop::collection::vec(step(), 1..200)) {
        let (mut consumers, mut model) = (Consumers::new(false), Model::default());
        for step in steps {
            match step {
                Step::Add { slot, priority } => {
                    if !consumers.places.contains_key(&place(slot)) {
                        consumers.add(consumer("t", slot, priority));
                        model.add((priority, slot));
                    }
                }
                Step::Remove { slot } => {
                    consumers.remove(place(slot));
                    model.line.retain(|member| member.1 != slot);
                    model.blocked.retain(|member| member.1 != slot);
                }
                Step::Serve { credit } => {
                    let has_credit = |slot: usize| credit >> slot & 1 == 1;
                    let at = consumers.next(|consumer| has_credit(consumer.slot));
                    let served = at.map(|at| consumers[at].slot);
                    if at.is_some() {
                        consumers.rotate();
                    }
                    prop_assert_eq!(served, model.serve(has_credit));
                }
                Step::Unblock { slot, credit } => {
                    let has_credit = |other: usize| credit >> other & 1 == 1 && slot.is_none_or(|slot| slot == other);
                    let regained = slot.map_or(Regained::Everybody, |slot| Regained::Consumer(place(slot)));
                    consumers.unblock(regained, |consumer| has_credit(consumer.slot));
                    // Together, they move in the order of their places.
                    model.blocked.sort_by_key(|member| member.1);
                    let unblocked: Vec<_> = model.blocked.extract_if(.., |member| has_credit(member.1)).collect();
                    unblocked.into_iter().for_each(|member| model.add(member));
                }
            }
            consumers.check("q");
        }
    }
}
