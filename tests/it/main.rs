//! Every case runs on the bundled broker and, when `RPC_TEST_RABBITMQ_URL` says where one is, on RabbitMQ: the same
//! assertions, the broker in the test's name.
//!
//! One binary, because each further one links for seconds.

#![allow(clippy::unwrap_used, reason = "a case that cannot go on has failed")]

mod access;
mod amqplib;
mod bare;
mod blocked;
mod calls;
mod cancel;
mod concurrency;
mod connections;
mod credentials;
mod dead_letters;
mod deadlines;
mod dedupe;
mod denied;
mod depth;
mod errors;
mod foreign;
mod frozen;
mod grace;
mod hostile_broker;
mod hostile_properties;
mod kill_points;
mod late;
mod layers;
mod ledger;
mod limits;
mod metrics;
mod nacked;
mod nested;
mod not_text;
mod once;
mod oneway_errors;
mod overdue;
mod overload;
mod oversize;
mod payloads;
mod pika;
mod pings;
mod poison;
mod policies;
mod punctual;
mod queue_types;
mod quick;
mod readiness;
mod reconnect;
mod refusals;
mod retries;
mod roles;
mod service_errors;
mod sessions;
mod shutdown;
mod soak;
mod stats;
mod tls;
mod traces;
mod unanswered;
mod unroutable;
mod users;
mod wire_table;
mod workers;
