//! The promise for a call during which a process or a connection dies at a given point: data, and the guide's table of it.

use self::Ending::{Answered, MayHaveRun, Unserved};

/// How far a call has got when the world is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Its client is connected; the call is made while the fault lasts.
    BeforePublish,
    /// The client has sent the request, the broker has not got it.
    Published,
    /// The request waits in the service queue; the worker is busy.
    Queued,
    /// The broker has delivered it, the worker has not got it.
    Delivered,
    /// The handler has begun.
    MidHandler,
    /// The worker has sent the reply, the broker has not got it.
    HandlerDone,
    /// The caller has its answer, the broker has not got the ack.
    Replied,
    /// Acknowledged; the broker has delivered the reply, the client has not got it.
    ReplyQueued,
}

/// The fault at that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL. Another worker is started afterwards.
    WorkerKilled,
    /// Its TCP connection closes; it may connect again.
    WorkerCut,
    /// Its TCP connection closes; it may connect again.
    ClientCut,
    /// SIGKILL, and a start: from nothing (bundled broker), from its disk (RabbitMQ).
    BrokerRestarted,
    /// `connection.blocked`: nothing is published until it is over.
    BrokerBlocked,
    /// SIGKILL. Another worker is started once the call has ended; its client has a grace.
    WorkerGone,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] = [
        Self::WorkerKilled,
        Self::WorkerCut,
        Self::ClientCut,
        Self::BrokerRestarted,
        Self::BrokerBlocked,
        Self::WorkerGone,
    ];
}

/// How a call ended, and how often its handler was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) executions: usize,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With its answer.
    Answered,
    /// `disconnected`, and `maybe_executed`.
    MayHaveRun,
    /// `no_such_service`, and whether `maybe_executed`.
    Unserved(bool),
    /// Anything else: its code, and whether it says `maybe_executed`.
    Other(&'static str, bool),
}

/// A point, and for each of [`Fault::ALL`] what is promised to an idempotent call and to one that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) point: Point,
    pub(crate) cells: [[Outcome; 2]; 6],
}

/// The same on both brokers. Requests are not persistent, so a broker that restarts has lost them.
pub(crate) const TABLE: &[Row] = &[
    row(Point::BeforePublish, [both(1), both(1), both(1), both(1), both(1), unserved(false, 0)]),
    row(Point::Published, [both(1), both(1), resent(1, 0), resent(1, 0), both(1), unserved(true, 1)]),
    row(Point::Queued, [both(1), both(1), resent(2, 1), resent(1, 0), both(1), unserved(true, 1)]),
    row(Point::Delivered, [both(1), both(1), resent(2, 1), resent(1, 0), both(1), unserved(true, 1)]),
    row(Point::MidHandler, [both(2), both(2), resent(2, 1), resent(2, 1), both(1), unserved(true, 2)]),
    row(Point::HandlerDone, [both(2), both(2), resent(2, 1), resent(2, 1), both(1), unserved(true, 2)]),
    row(Point::Replied, [both(2), both(2), both(1), both(1), both(1), both(2)]),
    row(Point::ReplyQueued, [both(1), both(1), resent(2, 1), resent(2, 1), both(1), both(1)]),
];

const fn row(point: Point, cells: [[Outcome; 2]; 6]) -> Row {
    Row { point, cells }
}

/// Answered, idempotent or not.
const fn both(executions: usize) -> [Outcome; 2] {
    [Outcome { ending: Answered, executions }, Outcome { ending: Answered, executions }]
}

/// No worker is there, idempotent or not.
const fn unserved(was_sent: bool, executions: usize) -> [Outcome; 2] {
    [Outcome { ending: Unserved(was_sent), executions }, Outcome { ending: Unserved(was_sent), executions }]
}

/// The request is sent again if that is safe; if not, the caller is told that it may have been executed.
const fn resent(idempotent: usize, once: usize) -> [Outcome; 2] {
    [Outcome { ending: Answered, executions: idempotent }, Outcome { ending: MayHaveRun, executions: once }]
}

/// The guide's table.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "| the call is stopped | worker SIGKILL | worker's connection cut | client's connection cut | broker SIGKILL, restarted | broker blocked | the last worker SIGKILL, with a grace |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let cells: Vec<_> = row.cells.iter().map(|[idempotent, once]| cell(*idempotent, *once)).collect();
        text.push_str(&format!("| {} | {} |\n", point(row.point), cells.join(" | ")));
    }
    text
}

/// The part of a text between the two comments that mark the table.
pub(crate) fn marked(chapter: &str) -> Option<std::ops::Range<usize>> {
    let begin = chapter.find(BEGIN)? + BEGIN.len();
    let end = begin + chapter[begin..].find(END)?;
    Some(begin..end)
}

fn point(point: Point) -> &'static str {
    match point {
        Point::BeforePublish => "before it is published",
        Point::Published => "published, not at the broker",
        Point::Queued => "queued",
        Point::Delivered => "delivered, not started",
        Point::MidHandler => "in the handler",
        Point::HandlerDone => "handler done, reply not at the broker",
        Point::Replied => "replied, not acked",
        Point::ReplyQueued => "reply on its way to the client",
    }
}

fn cell(idempotent: Outcome, once: Outcome) -> String {
    if idempotent == once { words(once) } else { format!("{} · {}", words(idempotent), words(once)) }
}

fn words(outcome: Outcome) -> String {
    match outcome.ending {
        Answered => format!("answer, {}×", outcome.executions),
        MayHaveRun => format!("lost, {}×", outcome.executions),
        Unserved(true) => format!("unserved, {}×", outcome.executions),
        Unserved(false) => format!("not sent, {}×", outcome.executions),
        Ending::Other(code, maybe_executed) => format!("**{code}** {maybe_executed}, {}×", outcome.executions),
    }
}

const BEGIN: &str = "<!-- kill points: written by tests/run --kill-points -->\n\n";
const END: &str = "\n<!-- end of kill points -->";
