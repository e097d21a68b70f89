//! `grace`: a call ends before its deadline when nobody has served its service for that long.
//!
//! ```text
//!  Watching::run ──enter──► Board (who waits, what was seen) ◄──note── look task ──passive declare, silent ping──► broker
//!    ├─ not sent yet: waits for a look ──none──► no_such_service, not executed
//!    └─ sent: waits for its reply ───────none──► no_such_service, maybe executed
//! ```
//!
//! It stands behind the layers and retries of a client, in front of its sending: each attempt is watched by itself, and a client without
//! the option has nothing of it. The board is pure data. The look task of a service lives while its calls wait, and has a channel of its own,
//! because the broker closes the channel of a look at a queue that is not there.

mod board;
mod desk;
mod eye;
mod pace;
mod terms;
mod watching;

pub(super) use self::{desk::Desks, terms::Graces, watching::Watching};
