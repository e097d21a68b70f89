//! The broker without its sockets: frames in, output out. Pure: time and randomness are arguments.
//!
//! ```text
//!  open, batch of frames ─► dispatch ─► classes: one file for each of AMQP's classes
//!                                          │ work on a Context: channel, session, vhost
//!                                          ▼
//!                       delivery: between Vhost (router, queues) and Session (channels, unacknowledged deliveries)
//!                                          ▼
//!                       output of any connection ─► take_output           tick(now): expiry, overdue deliveries
//! ```
//!
//! `state` holds one value for the whole broker. Its owner locks it for a batch of frames, and never across an await.

mod busy;
mod classes;
mod context;
mod delivery;
mod deprecations;
mod dispatch;
mod ending;
mod fault;
mod globals;
mod interface;
mod limits;
mod names;
mod probes;
mod profile;
mod random;
mod rules;
mod session;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod unfinished;
mod vhost;

pub use self::{
    deprecations::{DeprecatedFeature, Deprecation},
    probes::inspect::{BindingInfo, ConnectionInfo, ExchangeInfo, QueueInfo},
    profile::Profile,
};
pub(crate) use self::{
    interface::{ConnectionId, Flow, Negotiated, Now, Peer, Traffic},
    limits::{defaults, memory::Memory},
    probes::injected::ConfirmTiming,
    profile::Facts,
    rules::{Limits, Rules},
    session::{
        access::{Grants, Pattern, Permissions, TopicPermissions, User},
        password::PasswordHash,
    },
    state::Core,
};
