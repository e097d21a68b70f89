//! A session: the state of one connection.

pub(crate) mod access;
pub(crate) mod channel;
pub(crate) mod channels;
pub(crate) mod confirms;
pub(crate) mod output;
pub(crate) mod password;
pub(crate) mod reply_address;
pub(crate) mod sessions;
pub(crate) mod unacked;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use amq_protocol::types::{AMQPValue, FieldTable};

use self::{
    access::{Access, Resource, Right},
    channels::Channels,
    confirms::Confirm,
};
use super::{
    fault::Fault,
    interface::{Negotiated, Peer, Traffic},
    limits::logins,
    profile::Facts,
};
use crate::{routing::QueueId, wire::OutBuffer};

/// How far a connection is between its protocol header and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    AwaitStartOk,
    /// The login is decided, but its answer has to wait.
    AwaitVerdict,
    AwaitTuneOk,
    AwaitOpen,
    Open,
    /// We sent `connection.close`: only its answer is read.
    Closing,
    /// We received `connection.close`: everything but the socket has been released.
    Closed,
}

/// Capabilities that the client announced in `connection.start-ok`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Capabilities {
    pub(crate) consumer_cancel_notify: bool,
    pub(crate) authentication_failure_close: bool,
    pub(crate) connection_blocked: bool,
}

impl Capabilities {
    pub(crate) fn read(client_properties: &FieldTable) -> Self {
        let Some(AMQPValue::FieldTable(table)) = client_properties.inner().get("capabilities") else {
            return Self::default();
        };
        let has = |name: &str| matches!(table.inner().get(name), Some(AMQPValue::Boolean(true)));
        Self {
            consumer_cancel_notify: has("consumer_cancel_notify"),
            authentication_failure_close: has("authentication_failure_close"),
            connection_blocked: has("connection.blocked"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stage: Stage,
    pub(crate) facts: &'static Facts,
    pub(crate) capabilities: Capabilities,
    pub(crate) peer: Peer,
    /// Empty until the login.
    pub(crate) user: String,
    /// The client's `connection_name`; empty without one.
    pub(crate) client_name: String,
    /// Whether its messages may carry the `user-id` of another user.
    pub(crate) is_impersonator: bool,
    /// The user's rights on the vhost; none until the connection is open.
    pub(crate) access: Access,
    /// The index of the vhost that the connection is open on.
    pub(crate) vhost: Option<usize>,
    pub(crate) frame_max: u32,
    pub(crate) channel_max: u16,
    pub(crate) heartbeat_s: u16,
    pub(crate) channels: Channels,
    /// Deleted when the connection ends.
    pub(crate) exclusive_queues: BTreeSet<QueueId>,
    /// Channels with confirms to send at the end of the batch.
    pub(crate) confirming: Vec<u16>,
    /// Whether its socket has gone.
    pub(crate) is_gone: bool,
    /// Whether its socket is to be closed without a word.
    pub(crate) is_silenced: bool,
    /// Whether time goes on with what it has left.
    pub(crate) is_behind: bool,
    /// Whether it has published: only publishers are blocked.
    pub(crate) has_published: bool,
    /// Tells this connection from a later one with the same id.
    pub(crate) nonce: u128,
    /// The reason why it ends, for the log; `None` if the socket is all that has ended.
    pub(crate) end_reason: Option<String>,
    pub(crate) out: OutBuffer,
    /// Whether it is listed among the sessions with new output.
    pub(crate) is_touched: bool,
    traffic: Arc<Traffic>,
}

impl Session {
    /// A connection at the start of its handshake.
    pub(crate) fn new(peer: Peer, traffic: Arc<Traffic>, nonce: u128, frame_max: u32, facts: &'static Facts) -> Self {
        Self {
            stage: Stage::AwaitStartOk,
            facts,
            capabilities: Capabilities::default(),
            peer,
            user: String::new(),
            client_name: String::new(),
            is_impersonator: false,
            access: Access::default(),
            vhost: None,
            frame_max,
            channel_max: 0,
            heartbeat_s: 0,
            channels: Channels::default(),
            exclusive_queues: BTreeSet::new(),
            confirming: Vec::new(),
            is_gone: false,
            is_silenced: false,
            is_behind: false,
            has_published: false,
            nonce,
            end_reason: None,
            out: OutBuffer::default(),
            is_touched: false,
            traffic,
        }
    }

    /// Refuses a right that the connection's user does not have on its vhost.
    pub(crate) fn authorize(&self, right: Right, resource: Resource<'_>, vhost: &str) -> Result<(), Fault> {
        match self.access.allows(right, &resource) {
            true => Ok(()),
            false => Err(self.refusal(right, resource, vhost)),
        }
    }

    /// Refuses a passive declaration to a user without any right, where RabbitMQ does.
    pub(crate) fn authorize_passive(&self, resource: Resource<'_>, vhost: &str) -> Result<(), Fault> {
        let rights = [Right::Configure, Right::Write, Right::Read];
        let is_refused =
            self.facts.passive_needs_right && !rights.into_iter().any(|right| self.access.allows(right, &resource));
        if is_refused { Err(self.refusal(Right::Configure, resource, vhost)) } else { Ok(()) }
    }

    #[cold]
    fn refusal(&self, right: Right, resource: Resource<'_>, vhost: &str) -> Fault {
        let right = if self.facts.names_right { right.name() } else { "" };
        Fault::access_refused(right, &resource, &self.user, vhost)
    }

    /// Adds a confirm to those that the end of the batch sends. Returns the run of confirms that it ends.
    pub(crate) fn note_confirm(&mut self, number: u16, is_ack: bool) -> Option<impl Iterator<Item = Confirm> + use<>> {
        let channel = self.channels.get_mut(number)?;
        if !channel.confirms.is_pending() {
            self.confirming.push(number);
        }
        Some(channel.confirms.add(is_ack))
    }

    pub(crate) fn negotiated(&self) -> Negotiated {
        let closing_limit = match self.stage {
            Stage::Closing if self.user.is_empty() => Some(REFUSED_PAUSE),
            // Refused already; no frame of the client will tell the owner of the socket.
            Stage::AwaitVerdict if self.user.is_empty() => Some(logins::PAUSE + REFUSED_PAUSE),
            Stage::Closing | Stage::Closed => Some(CLOSE_OK_TIMEOUT),
            _ => None,
        };
        Negotiated {
            frame_max: self.frame_max,
            heartbeat_s: self.heartbeat_s,
            is_open: matches!(self.stage, Stage::Open | Stage::Closing),
            closing_limit,
        }
    }

    /// Bytes that wait to be written to the client.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.out.bytes() + self.traffic.backlog.load(Ordering::Relaxed)
    }

    /// Whether the connection is blocked, so that its frames are left unread.
    pub(crate) fn is_held(&self) -> bool {
        self.traffic.is_held.load(Ordering::Relaxed)
    }

    pub(crate) fn set_held(&self, is_held: bool) {
        self.traffic.is_held.store(is_held, Ordering::Relaxed);
    }
}

/// How long a client whose handshake failed is kept waiting, as in RabbitMQ.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(3);
/// How long a logged-in client has to answer our `connection.close`. Unauthenticated clients get [`REFUSED_PAUSE`].
const CLOSE_OK_TIMEOUT: Duration = Duration::from_secs(10);
