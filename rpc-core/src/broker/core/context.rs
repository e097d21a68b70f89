//! The context of a frame: everything that a method of an open channel works on, resolved once.

use std::{collections::BTreeMap, fmt::Debug};

use amq_protocol::protocol::AMQPClass;

use crate::{
    broker::core::{
        busy::Busy,
        deprecations::DeprecatedFeature,
        fault::Fault,
        globals::Globals,
        interface::{ConnectionId, Now},
        profile::Facts,
        session::{
            Session,
            access::{Resource, Right},
            channel::Channel,
            reply_address::{DIRECT_REPLY_TO, is_address},
            sessions::Sessions,
        },
        vhost::{Vhost, consumers::Regained},
    },
    routing::{ExchangeKind, Progress, QueueId, hashes},
};

/// A method that takes longer than other connections may wait for the lock. It is done in pieces.
pub(crate) trait Unfinished: Debug + Send {
    /// Does the next piece. With a fault the method has ended.
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Progress, Fault>;
}

/// The connections with channels that wait for the rest of a method.
pub(crate) type AllUnfinished = BTreeMap<ConnectionId, Busy<Box<dyn Unfinished>>>;

/// An open channel of an open connection, and the state around it.
///
/// It exists only while the connection and the channel do: `dispatch` has found both, and `channel.close` removes the
/// channel only after the last use of the context.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) number: u16,
    pub(crate) now: Now,
    pub(crate) vhost: &'a mut Vhost,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) globals: &'a mut Globals,
    pub(crate) unfinished: &'a mut AllUnfinished,
}

impl Context<'_> {
    /// Connection and channel, as consumers name them.
    pub(crate) const fn place(&self) -> (ConnectionId, u16) {
        (self.id, self.number)
    }

    pub(crate) fn session(&self) -> &Session {
        // A context exists only while its connection does.
        self.sessions.get(self.id).expect("the connection of a context")
    }

    pub(crate) fn session_mut(&mut self) -> &mut Session {
        // A context exists only while its connection does.
        self.sessions.get_mut(self.id).expect("the connection of a context")
    }

    pub(crate) fn channel(&self) -> &Channel {
        // A context exists only while its channel does.
        self.session().channels.get(self.number).expect("the channel of a context")
    }

    pub(crate) fn channel_mut(&mut self) -> &mut Channel {
        self.vhost_and_channel().1
    }

    /// The vhost and the channel, for methods that change both.
    pub(crate) fn vhost_and_channel(&mut self) -> (&mut Vhost, &mut Channel) {
        // A context exists only while its channel does.
        let channel = self.sessions.channel_mut(self.id, self.number).expect("the channel of a context");
        (self.vhost, channel)
    }

    /// Does the work of a method, or a part of it: the rest follows before the channel's next frame.
    pub(crate) fn begin(&mut self, mut work: impl Unfinished + 'static) -> Result<(), Fault> {
        if work.go_on(self)? == Progress::Paused {
            self.leave(work);
        }
        Ok(())
    }

    /// Leaves the rest of a method, and ends the batch: the channel's next frame has to wait.
    pub(crate) fn leave(&mut self, work: impl Unfinished + 'static) {
        self.unfinished.entry(self.id).or_default().push(self.number, Box::new(work));
        self.sessions.work = self.sessions.work.max(self.sessions.work_max);
    }

    /// The version whose differences are noted, if the broker watches for any.
    pub(crate) fn warns_of(&self) -> Option<&'static Facts> {
        Some(self.globals.deprecations.as_deref()?.facts)
    }

    /// Notes the use of a deprecated feature.
    #[cold]
    pub(crate) fn deprecated(&mut self, feature: DeprecatedFeature, queue: &str) {
        if let (Some(deprecations), Some(session)) = (&mut self.globals.deprecations, self.sessions.get(self.id)) {
            deprecations.note(feature, &session.client_name, &session.user, queue);
        }
    }

    /// Notes what is deprecated in a binding.
    pub(crate) fn note_binding(&mut self, destination: &str, source: &str, routing_key: &str) {
        let Some(facts) = self.warns_of() else { return };
        if destination == DIRECT_REPLY_TO || is_address(destination) {
            self.deprecated(DeprecatedFeature::BindingToDirectReplies, destination);
        }
        let is_topic = self.vhost.router.exchange(source).is_some_and(|options| options.kind == ExchangeKind::Topic);
        if is_topic && hashes(routing_key) > facts.binding_hashes_max {
            self.deprecated(DeprecatedFeature::ManyHashes, routing_key);
        }
    }

    /// Sends a method on the channel.
    pub(crate) fn send(&mut self, class: &AMQPClass) {
        self.sessions.send(self.id, self.number, class);
    }

    /// Delivers ready messages of several queues, and routes dead letters.
    pub(crate) fn deliver_all(&mut self, keys: Vec<QueueId>, regained: Regained) {
        self.vhost.deliver_all(keys, regained, self.now, self.sessions);
    }

    /// The consumers of the channel, when they may have got credit.
    pub(crate) const fn regained(&self) -> Regained {
        Regained::Channel(self.id, self.number)
    }

    /// The queue that a method names. An empty name stands for the last queue declared on the channel.
    pub(crate) fn queue_name(&self, name: &str) -> Result<String, Fault> {
        match name {
            "" => self.channel().last_queue.clone().ok_or_else(Fault::no_previous_queue),
            name => Ok(name.to_owned()),
        }
    }

    /// Refuses a right that the connection's user does not have.
    pub(crate) fn authorize(&self, right: Right, resource: Resource<'_>) -> Result<(), Fault> {
        self.session().authorize(right, resource, &self.vhost.name)
    }

    /// Refuses a binding, or its removal, in RabbitMQ's order: it writes to the destination and reads from the source,
    /// and the default exchange may be neither.
    pub(crate) fn authorize_binding(
        &self,
        destination: Resource<'_>,
        source: &str,
        routing_key: &str,
    ) -> Result<(), Fault> {
        self.authorize(Right::Write, destination)?;
        if source.is_empty() || destination == Resource::Exchange("") {
            return Err(Fault::default_exchange());
        }
        self.authorize(Right::Read, Resource::Exchange(source))?;
        if self.vhost.router.exchange(source).is_some_and(|options| options.kind == ExchangeKind::Topic) {
            self.authorize(Right::Read, Resource::Topic { exchange: source, routing_key })?;
        }
        Ok(())
    }
}
