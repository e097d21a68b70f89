//! The invariants of the core between two calls. Pure.
//!
//! Random histories and the fuzzer check them after every step; a broker in use does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    broker::core::{
        busy::Busy,
        interface::ConnectionId,
        session::{Session, channel::Channel},
        state::Core,
        vhost::{Vhost, queue::Queue},
    },
    routing::QueueId,
};

impl Core {
    /// Panics unless queues, channels and sessions agree about every message and every consumer.
    pub(crate) fn check(&self) {
        let sessions: Vec<_> = self.sessions.all().collect();
        self.check_memory();
        assert_eq!(sessions.len(), self.sessions.len(), "free slots of sessions");
        for (_, session) in &sessions {
            session.channels.iter().for_each(|(_, channel)| channel.check());
        }
        let timers: BTreeSet<_> = sessions
            .iter()
            .flat_map(|(id, session)| session.channels.iter().map(|(number, channel)| (channel.timer, *id, number)))
            .filter_map(|(timer, id, number)| Some((timer?, id, number)))
            .collect();
        assert!(timers.is_subset(&self.sessions.dues), "timers of channels");
        for (at, vhost) in self.vhosts.iter().enumerate() {
            let here: Vec<_> = sessions.iter().filter(|(_, session)| session.vhost == Some(at)).copied().collect();
            check_messages(vhost, &here);
            check_consumers(vhost, &here);
            check_owners(vhost, &here);
            for queue in vhost.queues.values() {
                let is_served = !queue.is_due && !queue.consumers.are_held();
                let is_waiting = queue.ready_count() > 0 && is_served && !queue.arguments.single_active_consumer;
                let has_taker = queue.consumers.iter().any(|consumer| self.sessions.has_credit(consumer));
                assert!(!(is_waiting && has_taker), "'{}' has a ready message and a consumer with credit", queue.name);
            }
        }
    }

    /// The counted memory is the memory in use: each message once, partly received messages, and the topology.
    fn check_memory(&self) {
        let channels =
            || self.sessions.all().flat_map(|(_, session)| session.channels.iter()).map(|(_, channel)| channel);
        let queues = || self.vhosts.iter().flat_map(|vhost| vhost.queues.values());
        let streams = queues().filter_map(|queue| queue.stream.as_ref()).flat_map(|stream| stream.messages());
        let ready = queues().flat_map(Queue::messages).chain(streams);
        let dead = self.vhosts.iter().flat_map(|vhost| &vhost.dead);
        let held = channels()
            .flat_map(|channel| channel.held().filter_map(|delivered| Some(&delivered.entry.as_ref()?.message)));
        let uncommitted = channels().flat_map(Channel::uncommitted);
        let messages = ready.chain(dead).chain(held).chain(uncommitted);
        let messages: BTreeMap<_, _> =
            messages.map(|message| (Arc::as_ptr(message), message.counted_bytes())).collect();
        let topology: usize = self.vhosts.iter().map(Vhost::topology_bytes).sum();
        let arriving: usize = channels().map(|channel| channel.assembly.counted_bytes()).sum();
        let set_aside: usize = self.unfinished.values().map(Busy::counted_bytes).sum();
        assert_eq!(self.memory().bytes(), messages.values().sum::<usize>() + arriving + topology + set_aside, "memory");
    }

    /// The number of ready messages, and of unacknowledged ones.
    pub(crate) fn message_counts(&self) -> (usize, usize) {
        let queues = || self.vhosts.iter().flat_map(|vhost| vhost.queues.values());
        (queues().map(Queue::ready_count).sum(), queues().map(|queue| queue.unacked).sum())
    }
}

/// Every message of a queue is either ready or held by one channel.
fn check_messages(vhost: &Vhost, sessions: &[(ConnectionId, &Session)]) {
    let mut held: BTreeMap<QueueId, Vec<u64>> = BTreeMap::new();
    for delivered in
        sessions.iter().flat_map(|(_, session)| session.channels.iter()).flat_map(|(_, channel)| channel.held())
    {
        held.entry(delivered.queue).or_default().extend(delivered.entry.as_ref().map(|entry| entry.place));
    }
    for (key, queue) in &vhost.queues {
        queue.check();
        let held = held.get(key).map_or(&[][..], Vec::as_slice);
        assert_eq!(queue.unacked, held.len(), "unacknowledged messages of '{}'", queue.name);
        // Several consumers of a stream may hold the same message.
        if queue.stream.is_some() {
            continue;
        }
        let places: BTreeSet<_> = queue.places().chain(held.iter().copied()).collect();
        let count = queue.ready_count() + queue.delayed_count() + held.len();
        assert_eq!(places.len(), count, "a message of '{}' exists twice", queue.name);
    }
}

/// Every consumer is listed once by its queue and once by its channel.
fn check_consumers(vhost: &Vhost, sessions: &[(ConnectionId, &Session)]) {
    let mut on_channels = BTreeSet::new();
    for (id, session) in sessions {
        for (number, channel) in session.channels.iter() {
            // The consumers of a queue that was deleted may still be listed.
            for consumer in channel.consumers().filter(|consumer| vhost.queues.contains_key(&consumer.queue)) {
                let slot = channel.consumer_slot(&consumer.tag);
                on_channels.insert((consumer.queue, *id, number, slot, consumer.tag.clone()));
            }
        }
    }
    let mut in_line = BTreeSet::new();
    for (key, queue) in &vhost.queues {
        for consumer in queue.consumers.iter() {
            let tag = consumer.tag.clone();
            let is_new = in_line.insert((*key, consumer.connection, consumer.channel, Some(consumer.slot), tag));
            assert!(is_new, "a consumer is listed twice by '{}'", queue.name);
        }
    }
    assert_eq!(on_channels, in_line, "consumers of channels and of queues");
}

/// Names refer to queues, and exclusive queues to their owners.
fn check_owners(vhost: &Vhost, sessions: &[(ConnectionId, &Session)]) {
    assert_eq!(vhost.names.len(), vhost.queues.len(), "names of queues");
    for (name, key) in &vhost.names {
        assert_eq!(vhost.queues.get(key).map(|queue| queue.name.as_bytes()), Some(&**name), "the queue behind a name");
    }
    let owned: BTreeSet<_> =
        sessions.iter().flat_map(|(id, session)| session.exclusive_queues.iter().map(|key| (*key, *id))).collect();
    let exclusive: BTreeSet<_> =
        vhost.queues.iter().filter_map(|(key, queue)| Some((*key, queue.exclusive_to?))).collect();
    assert_eq!(owned, exclusive, "exclusive queues and their owners");
}
