//! The mistakes of a pool's options, told before anything is declared.

use super::{Served, WorkerPool};
use crate::{
    error::Error,
    forward::Forwarding,
    worker::{dedupe, policy::QueueKind},
};

impl WorkerPool {
    /// The prefetch count, unless the options have a mistake.
    pub(super) fn check(&self) -> Result<u16, Error> {
        let refuse = |message: String| Err(Error::Configuration(message));
        if self.services.is_empty() {
            return refuse("the pool serves nothing: add a service with `.serve(FibonacciServer::new(…))`".to_owned());
        }
        if self.concurrency == 0 {
            return refuse("concurrency 0 runs no handler: use at least 1".to_owned());
        }
        if self.queue_kind == QueueKind::Quorum && self.max_priority.is_some() {
            return refuse("quorum queues have no x-max-priority: use classic ones, or leave it out".to_owned());
        }
        if self.queue_kind == QueueKind::Classic && self.delivery_limit.is_some() {
            return refuse(
                "classic queues count no deliveries: use `.queue_kind(QueueKind::Quorum)`, or leave delivery_limit out"
                    .to_owned(),
            );
        }
        let services: Vec<_> = self.services.iter().map(Served::descriptor).collect();
        if let Some(misfit) = dedupe::misfit(&services, self.dedupe.is_some(), &self.dedupe_exempt) {
            return refuse(misfit);
        }
        if let Some(name) = Forwarding::unfit(&self.forwarded_headers) {
            return refuse(format!(
                "the header '{name}' cannot be forwarded: its name is the framework's or the broker's"
            ));
        }
        if self.sends_user_id && self.connection.user().is_none() {
            let reason = "the connection's URIs name several users, or the broker takes one from a certificate";
            return refuse(format!("send_user_id has no user to send: {reason}"));
        }
        let mut names: Vec<_> = services.iter().map(|service| service.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("service '{}' is served twice by one pool", twice[0]));
        }
        match self.prefetch_count {
            Some(0) => refuse("prefetch 0 means no bound at all: use at least 1".to_owned()),
            Some(prefetch_count) => Ok(prefetch_count),
            None => Ok(u16::try_from(self.concurrency).unwrap_or(u16::MAX)),
        }
    }
}
