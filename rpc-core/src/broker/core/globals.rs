//! The broker-wide state besides vhosts and sessions.

use std::sync::Arc;

use crate::broker::core::{
    deprecations::Deprecations,
    limits::{alarm::Alarm, logins::FailedLogins, memory::Memory},
    random::Random,
    rules::Rules,
};

/// The broker-wide state besides vhosts and sessions.
#[derive(Debug)]
pub(crate) struct Globals {
    pub(crate) rules: Rules,
    pub(crate) memory: Arc<Memory>,
    pub(crate) alarm: Alarm,
    pub(crate) random: Random,
    pub(crate) failed_logins: FailedLogins,
    /// `None` unless the broker watches for deprecated features.
    pub(crate) deprecations: Option<Box<Deprecations>>,
}

impl Globals {
    /// The largest message that a client may publish.
    pub(crate) fn message_max_bytes(&self) -> u64 {
        self.rules.message_max_bytes.min(self.memory.message_max_bytes())
    }
}
