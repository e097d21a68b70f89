//! Decides what happens to a delivery; `execute.rs` does it.
//!
//! Pure: the functions read the request and the facts they are given, send nothing, wait for nothing. Only a refusal's text is allocated.
//!
//! ```text
//!  delivery ──on_arrival──► Forbid, Refuse, Expire, Abandon, Requeue
//!                     ├───► Inline
//!                     └───► Task ──waits for a slot──► at_turn ──► Requeue, Shed, Expire, Cancelled, Deduplicate, Run
//! ```

use std::time::Duration;

use super::{
    dedupe::Dedupe,
    dispatch::{self, Found, Response},
    pace::Pace,
    poison::{self, Abandoned},
    policy::RedeliveryRules,
};
use crate::{context::Context, service::ServiceDescriptor, slots::TooLate};

/// The facts that a lane knows of a delivery when it arrives.
pub(super) struct Arrival<'a> {
    pub(super) service: &'static ServiceDescriptor,
    pub(super) redelivery: RedeliveryRules,
    /// The pool does not serve its user.
    pub(super) is_forbidden: bool,
    pub(super) context: &'a Context,
    /// A cancel of this call arrived before the request.
    pub(super) is_given_up: bool,
    /// Its caller's deadline has passed already.
    pub(super) is_expired: bool,
    /// How often the broker has closed the lane's channel while the request was here.
    pub(super) losses: u32,
    /// The answers the lane remembers, if it does.
    pub(super) dedupe: Option<&'a Dedupe>,
    /// The paces of the methods, if handlers may run in the consume loop.
    pub(super) inline_paces: Option<&'a [Pace]>,
}

/// The decision on a delivery.
#[derive(Debug)]
pub(super) enum Plan {
    /// The pool does not serve its user: it learns nothing else.
    Forbid,
    /// The service cannot execute it: send this answer.
    Refuse(Response),
    /// Its caller has given up: settle it unanswered.
    Expire,
    /// An earlier worker had the request, and it is not to be executed again.
    Abandon(Abandoned, Found),
    /// Requeue it: the pool is shutting down.
    Requeue,
    /// Begin its handler in the consume loop.
    Inline(Found),
    /// Give it a task, which waits for a slot and then asks `at_turn`.
    Task(Found),
}

/// Decides on a delivery that has arrived. `is_draining`, whether the pool is shutting down, is asked only where it matters:
/// a request that gets a task is asked about at its turn.
pub(super) fn on_arrival(arrival: &Arrival<'_>, is_draining: impl FnOnce() -> bool) -> Plan {
    if arrival.is_forbidden {
        return Plan::Forbid;
    }
    let delivery = arrival.context.delivery();
    let found = match dispatch::find(arrival.service, delivery) {
        Ok(found) => found,
        Err(response) => return Plan::Refuse(response),
    };
    let method = &arrival.service.methods[found.method];
    if arrival.is_given_up && !method.no_cancel {
        return Plan::Expire;
    }
    if delivery.redelivered()
        && !arrival.dedupe.is_some_and(|dedupe| dedupe.remembers(found.method, arrival.context))
        && let Some(abandoned) = poison::abandons(arrival.redelivery, method, delivery, arrival.losses)
    {
        return Plan::Abandon(abandoned, found);
    }
    match arrival.inline_paces {
        Some(paces) if paces[found.method].is_quick() => {}
        Some(_) | None => return Plan::Task(found),
    }
    if is_draining() {
        Plan::Requeue
    } else if arrival.is_expired {
        Plan::Expire
    } else {
        Plan::Inline(found)
    }
}

/// The facts that a task knows when its request's turn has come.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The pool is shutting down.
    pub(super) is_draining: bool,
    /// The caller's deadline has passed.
    pub(super) is_expired: bool,
    /// The answers the lane remembers, if it does.
    pub(super) dedupe: Option<&'a Dedupe>,
}

/// The decision on a request whose turn has come.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    /// Requeue it: the pool is shutting down.
    Requeue,
    /// Refuse it as overloaded: its caller would give up before a slot is free.
    Shed { estimate: Duration },
    /// Settle it unanswered: its caller's deadline has passed.
    Expire,
    /// Settle it unanswered: a cancel has claimed it, and is counted already.
    Cancelled,
    /// Answer it from memory, or run its handler and remember the answer.
    Deduplicate(&'a Dedupe),
    /// Run its handler.
    Run,
}

/// Decides on a request that has a slot, or was denied one. `claim` returns whether no cancel has claimed the request before.
pub(super) fn at_turn<'a>(denied: Option<TooLate>, facts: Facts<'a>, claim: impl FnOnce() -> bool) -> Turn<'a> {
    match (denied, facts.dedupe) {
        (Some(TooLate { estimate }), _) => Turn::Shed { estimate },
        _ if facts.is_draining => Turn::Requeue,
        _ if facts.is_expired => Turn::Expire,
        _ if !claim() => Turn::Cancelled,
        (None, Some(dedupe)) => Turn::Deduplicate(dedupe),
        (None, None) => Turn::Run,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::{
        codec::Codec,
        connection::NewDelivery,
        envelope::{self, Code},
        service::MethodDescriptor,
        worker::RedeliveryPolicy,
    };

    static SERVICE: ServiceDescriptor = ServiceDescriptor {
        name: "s",
        version: 2,
        queue: None,
        codec: Codec::MessagePack,
        max_length: None,
        max_depth: Codec::MAX_DEPTH,
        methods: &[
            MethodDescriptor::new("plain", "s.plain"),
            MethodDescriptor { idempotent: true, ..MethodDescriptor::new("again", "s.again") },
            MethodDescriptor { no_cancel: true, ..MethodDescriptor::new("always", "s.always") },
        ],
    };

    /// A delivery and the facts known of it.
    #[derive(Clone)]
    struct Case {
        delivery: NewDelivery,
        redelivery: RedeliveryRules,
        is_forbidden: bool,
        is_given_up: bool,
        is_expired: bool,
        losses: u32,
        is_draining: bool,
        is_remembered: bool,
        /// Whether handlers may run in the consume loop, and whether all methods are quick.
        inline: Option<bool>,
    }

    fn case(routing_key: &str) -> Case {
        Case {
            delivery: NewDelivery { routing_key: routing_key.to_owned(), ..NewDelivery::default() },
            redelivery: RedeliveryRules { policy: RedeliveryPolicy::Execute, delivery_limit: None },
            is_forbidden: false,
            is_given_up: false,
            is_expired: false,
            losses: 0,
            is_draining: false,
            is_remembered: false,
            inline: Some(true),
        }
    }

    impl Case {
        fn header(mut self, name: &str, value: i64) -> Self {
            self.delivery.headers.push((name.to_owned(), value.into()));
            self
        }

        fn redelivered(mut self, policy: RedeliveryPolicy) -> Self {
            self.delivery.redelivered = true;
            self.redelivery.policy = policy;
            self
        }

        fn is(self, expected: &str) {
            let context = Context::new(self.delivery.make().unwrap(), Instant::now(), None);
            let dedupe = self.is_remembered.then(|| {
                let dedupe = Dedupe::for_test(&SERVICE);
                dedupe.learn(0, &context);
                dedupe
            });
            let paces: Vec<_> = SERVICE.methods.iter().map(|_| Pace::of(self.inline == Some(true))).collect();
            let arrival = Arrival {
                service: &SERVICE,
                redelivery: self.redelivery,
                is_forbidden: self.is_forbidden,
                context: &context,
                is_given_up: self.is_given_up,
                is_expired: self.is_expired,
                losses: self.losses,
                dedupe: dedupe.as_ref(),
                inline_paces: self.inline.map(|_| &*paces),
            };
            let plan = match on_arrival(&arrival, || self.is_draining) {
                Plan::Forbid => "forbid".to_owned(),
                Plan::Refuse(response) => format!("refuse: {}", response.error_code().unwrap()),
                Plan::Expire => "expire".to_owned(),
                Plan::Abandon(abandoned, _) => format!("abandon: {abandoned:?}"),
                Plan::Requeue => "requeue".to_owned(),
                Plan::Inline(found) => format!("inline {}", found.method),
                Plan::Task(found) => format!("task {}", found.method),
            };
            assert_eq!(plan, expected);
        }
    }

    #[test]
    fn a_request_that_the_service_cannot_read_is_refused_before_anything_else() {
        case("s.unknown").is(&format!("refuse: {}", Code::NoSuchMethod.name()));
        case("s.plain").header(envelope::WIRE_VERSION_HEADER, 2).is(&format!("refuse: {}", Code::BadVersion.name()));
        case("s.plain").header(envelope::SERVICE_VERSION_HEADER, 3).is(&format!("refuse: {}", Code::BadVersion.name()));
        case("s.plain").header(envelope::SERVICE_VERSION_HEADER, 2).is("inline 0");
        let mut image = case("s.plain");
        image.delivery.content_type = Some("image/png".to_owned());
        image.is_given_up = true;
        image.is(&format!("refuse: {}", Code::BadRequest.name()));
    }

    #[test]
    fn a_request_of_a_user_who_is_not_served_is_forbidden_whatever_it_is() {
        let forbidden = |case: Case| Case { is_forbidden: true, ..case };
        forbidden(case("s.plain")).is("forbid");
        forbidden(case("s.unknown")).is("forbid");
        forbidden(case("s.plain").redelivered(RedeliveryPolicy::DeadLetter)).is("forbid");
        forbidden(Case { is_given_up: true, is_draining: true, ..case("s.plain") }).is("forbid");
    }

    #[test]
    fn a_request_whose_call_was_cancelled_expires_unless_its_method_forbids_that() {
        let given_up = |routing_key| Case { is_given_up: true, ..case(routing_key) };
        given_up("s.plain").is("expire");
        given_up("s.plain").redelivered(RedeliveryPolicy::DeadLetter).is("expire");
        given_up("s.always").is("inline 2");
    }

    #[test]
    fn a_redelivered_request_is_abandoned_when_the_policy_says_so_and_its_method_is_not_idempotent() {
        let by_policy = |is_dead_lettered| format!("abandon: {:?}", Abandoned::Policy { is_dead_lettered });
        case("s.plain").redelivered(RedeliveryPolicy::Execute).is("inline 0");
        case("s.plain").redelivered(RedeliveryPolicy::ReplyMaybeExecuted).is(&by_policy(false));
        case("s.plain").redelivered(RedeliveryPolicy::DeadLetter).is(&by_policy(true));
        case("s.again").redelivered(RedeliveryPolicy::DeadLetter).is("inline 1");
        let mut delivered_once = case("s.plain");
        delivered_once.redelivery.policy = RedeliveryPolicy::DeadLetter;
        delivered_once.is("inline 0");
    }

    #[test]
    fn a_request_at_the_delivery_limit_is_abandoned_even_if_idempotent() {
        let counted = |deliveries| {
            let mut case =
                case("s.again").redelivered(RedeliveryPolicy::Execute).header("x-delivery-count", deliveries);
            case.redelivery.delivery_limit = Some(3);
            case
        };
        counted(2).is("inline 1");
        counted(3).is(&format!("abandon: {:?}", Abandoned::DeliveryLimit { deliveries: 3 }));
        let mut classic = counted(3);
        classic.redelivery.delivery_limit = None;
        classic.is("inline 1");
    }

    #[test]
    fn a_request_that_has_cost_the_channel_twice_is_abandoned_even_if_idempotent() {
        let lost = |losses| Case { losses, ..case("s.again").redelivered(RedeliveryPolicy::Execute) };
        lost(1).is("inline 1");
        lost(2).is(&format!("abandon: {:?}", Abandoned::ChannelLost));
    }

    #[test]
    fn a_duplicate_of_an_answered_request_is_never_abandoned() {
        let mut duplicate = case("s.plain").redelivered(RedeliveryPolicy::DeadLetter);
        duplicate.delivery.message_id = Some("m".to_owned());
        duplicate.inline = None;
        Case { is_remembered: true, ..duplicate.clone() }.is("task 0");
        duplicate.is(&format!("abandon: {:?}", Abandoned::Policy { is_dead_lettered: true }));
    }

    #[test]
    fn a_quick_method_runs_in_the_loop_and_any_other_in_a_task() {
        case("s.plain").is("inline 0");
        Case { inline: Some(false), ..case("s.plain") }.is("task 0");
        Case { inline: None, ..case("s.plain") }.is("task 0");
    }

    #[test]
    fn a_quick_method_is_not_begun_late_or_at_a_shutdown_and_a_task_is_asked_at_its_turn() {
        let case = |inline, is_draining, is_expired| Case { inline, is_draining, is_expired, ..case("s.plain") };
        case(Some(true), true, true).is("requeue");
        case(Some(true), false, true).is("expire");
        case(Some(false), true, true).is("task 0");
    }

    #[test]
    fn a_turn_is_decided_by_the_slot_then_the_shutdown_then_the_caller() {
        let dedupe = Dedupe::for_test(&SERVICE);
        let turn = |denied, is_draining, is_expired, is_claimed: bool, has_dedupe: bool| {
            let facts = Facts { is_draining, is_expired, dedupe: has_dedupe.then_some(&dedupe) };
            match at_turn(denied, facts, || !is_claimed) {
                Turn::Requeue => "requeue",
                Turn::Shed { .. } => "shed",
                Turn::Expire => "expire",
                Turn::Cancelled => "cancelled",
                Turn::Deduplicate(_) => "deduplicate",
                Turn::Run => "run",
            }
        };
        let estimate = Duration::from_secs(1);
        for others in 0..16 {
            let [a, b, c, d] = [1, 2, 4, 8].map(|bit| others & bit != 0);
            assert_eq!(turn(Some(TooLate { estimate }), a, b, c, d), "shed");
            assert_eq!(turn(None, true, b, c, d), "requeue");
            assert_eq!(turn(None, false, true, c, d), "expire");
            assert_eq!(turn(None, false, false, true, d), "cancelled");
        }
        assert_eq!(turn(None, false, false, false, true), "deduplicate");
        assert_eq!(turn(None, false, false, false, false), "run");
    }

    #[test]
    fn a_request_that_is_not_begun_is_not_claimed() {
        let facts = Facts { is_draining: true, is_expired: true, dedupe: None };
        at_turn(None, facts, || panic!("a claim would hide the request from its cancel"));
    }
}
