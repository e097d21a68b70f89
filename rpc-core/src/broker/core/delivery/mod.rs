//! Between queues and connections: messages are queued, delivered, requeued and dead-lettered, and queues deleted.
//!
//! ```text
//!  publish ──enqueue──► Queue ──deliver──► Session: unacked ──ack──► dropped
//!                         ▲                       │
//!                         └────────requeue────────┘        expired, rejected, over full ──► dead letter exchange
//! ```

mod dead_letters;
mod deletion;
mod deliver;
mod expiry;
mod requeue;
