//! A core, its clients, and the longest time for which the lock around it would have been held.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use crate::{
    broker::core::{ConnectionId, Core, Flow, Limits, Now, Peer, Profile, Rules, Traffic, User},
    frames::handshake,
    wire::Decoder,
};

pub(crate) struct World {
    core: Core,
    pub(crate) now: Now,
    /// Since [`World::measure`] began.
    holds: Vec<Duration>,
}

/// The cost of one operation.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// The longest time for which the lock was held.
    pub(crate) hold: Duration,
    /// The time for which it was held in all.
    pub(crate) total: Duration,
}

impl World {
    pub(crate) fn new() -> Self {
        let rules = Rules {
            facts: Profile::default().facts(),
            warn_as: None,
            users: [("guest".to_owned(), User::with_password("guest"))].into(),
            vhosts: vec!["/".to_owned()],
            channel_max: u16::MAX,
            frame_max: 131_072,
            heartbeat_s: 0,
            message_max_bytes: 128 << 20,
            connections_max: usize::MAX,
            limits: Limits { outbox_max_bytes: usize::MAX / 4, ..Limits::default() },
        };
        let now = Now { instant: Instant::now(), unix_s: 1_700_000_000 };
        Self { core: Core::new(rules, [1; 32]), now, holds: Vec::new() }
    }

    /// Runs `work` as one that holds the lock.
    fn lock<T>(&mut self, work: impl FnOnce(&mut Core, Now) -> T) -> T {
        let began = Instant::now();
        let result = work(&mut self.core, self.now);
        self.core.watch_memory();
        let mut written = VecDeque::new();
        self.core.take_output(|_, out| out.take_into(&mut written));
        let garbage = self.core.take_garbage();
        self.holds.push(began.elapsed());
        drop(garbage);
        result
    }

    /// A client past its handshake, with channel 1 open.
    pub(crate) fn connect(&mut self) -> ConnectionId {
        let traffic = Arc::new(Traffic::default());
        let id = self.lock(|core, _| core.open(Peer::default(), traffic, false)).expect("there is no limit");
        self.send(id, &handshake());
        id
    }

    /// Handles the bytes as the reader of a socket does.
    pub(crate) fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        let decoder = Decoder::new(131_072);
        let mut buffer = BytesMut::from(bytes);
        loop {
            let (mut batch, error) = decoder.cut(&mut buffer, 512);
            assert!(error.is_none());
            if batch.is_empty() {
                return;
            }
            while let Flow::Paused(left) | Flow::Unfinished(left) =
                self.lock(|core, now| core.batch(id, &batch, None, now))
            {
                batch = batch.end(left);
            }
            self.wait(Duration::ZERO);
        }
    }

    /// Ends a connection as a failed socket does.
    pub(crate) fn lose(&mut self, id: ConnectionId) {
        self.lock(|core, now| core.close(id, now));
        self.wait(Duration::ZERO);
    }

    /// Lets time pass, and handles all that is due.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.now.instant += time;
        while self.core.next_timer().is_some_and(|next| next <= self.now.instant) {
            self.lock(|core, now| core.tick(now));
        }
    }

    /// The cost of all that `work` does.
    pub(crate) fn measure(&mut self, work: impl FnOnce(&mut Self)) -> Cost {
        self.holds.clear();
        work(self);
        Cost { hold: self.holds.iter().max().copied().unwrap_or_default(), total: self.holds.iter().sum() }
    }

    pub(crate) fn ready(&self, queue: &str) -> usize {
        self.core.queues("/").iter().filter(|info| info.name == queue).map(|info| info.ready).sum()
    }
}
