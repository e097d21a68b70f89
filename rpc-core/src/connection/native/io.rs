//! The I/O task of one connection.
//!
//! It reads everything that has arrived, hands it out, and writes everything that is queued in one go. Before it writes it
//! yields once to the other ready tasks, so that the frames they queue leave in the same write.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use amq_protocol::protocol::{AMQPClass, connection};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep, timeout},
};

use super::{
    channel::Inner, channels::Channels, failure::Failure, handshake::Tuning, inbox::Task, outbox::Waits,
    socket::Socket, unawaited,
};
use crate::{
    connection::amqp::{Event, FRAME_ERROR},
    wire::{Batch, Decoder, FrameKind, Frames, Method, RawFrame, Role, read_method, table::DEPTH_MAX},
};

pub(super) struct Io {
    socket: Socket,
    channels: Arc<Channels>,
    decoder: Decoder,
    buffer: BytesMut,
    /// On their way to the socket.
    segments: VecDeque<Bytes>,
    /// Whether the socket has taken everything that was written: TLS buffers the rest.
    is_flushed: bool,
    /// Whether we have already yielded once since finding data to write.
    has_yielded: bool,
    tick: Interval,
    pulse: Pulse,
    /// Set while the socket takes less than is queued: since then, or since the last look for requests that no call awaits.
    backlog_since: Option<Instant>,
    /// The broker has said that it does not read from connections that publish.
    is_blocked: Cell<bool>,
    /// Set once our close is queued: the time limit for the broker's answer.
    leaving: Option<Pin<Box<Sleep>>>,
}

/// Measures the silence of the connection in ticks, each half of a heartbeat.
#[derive(Debug, Default)]
struct Pulse {
    is_wanted: bool,
    has_read: bool,
    has_written: bool,
    silent_ticks: u32,
    /// Without progress of what is to be written.
    stalled_ticks: u32,
}

/// How a connection ended.
enum End {
    Failed(Failure),
    /// Our close was confirmed.
    Closed,
    /// Our close is written, and its confirmation is not awaited.
    Left,
}

impl Io {
    pub(super) fn new(socket: Socket, buffer: BytesMut, tuning: Tuning, channels: Arc<Channels>) -> Self {
        let beat = match tuning.heartbeat_s {
            0 => IDLE_TICK,
            seconds => Duration::from_secs(seconds.into()) / 2,
        };
        let mut tick = interval_at(Instant::now() + beat, beat);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            channels,
            decoder: Decoder::new(tuning.frame_max).with_larger_headers(HEADER_EXCESS_MAX_BYTES),
            buffer,
            segments: VecDeque::new(),
            is_flushed: true,
            has_yielded: false,
            tick,
            pulse: Pulse { is_wanted: tuning.heartbeat_s > 0, ..Pulse::default() },
            backlog_since: None,
            is_blocked: Cell::new(false),
            leaving: None,
        }
    }

    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        match end {
            End::Failed(failure) => self.channels.end(&failure, false),
            End::Closed | End::Left => self.channels.end(&Failure::closed_by_us(), true),
        }
        // A `connection.close-ok` may still be queued. The limit is for a broker that does not read it.
        drop(timeout(FAREWELL_LIMIT, poll_fn(|cx| self.poll_farewell(cx))).await);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // The frames that arrived with the last answer of the handshake.
        if let Err(end) = self.take_frames() {
            return Poll::Ready(end);
        }
        for _ in 0..READS_MAX {
            let mut has_read = false;
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => return lost("the broker closed the socket"),
                Poll::Ready(Ok(_)) => {
                    has_read = true;
                    self.pulse.has_read = true;
                    if let Err(end) = self.take_frames() {
                        return Poll::Ready(end);
                    }
                }
                Poll::Ready(Err(error)) => return lost(format!("reading: {error}")),
                Poll::Pending => {}
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::Left),
                Poll::Ready(Err(error)) => return lost(format!("writing: {error}")),
                Poll::Pending => {}
            }
            while let Poll::Ready(due) = self.tick.poll_tick(cx) {
                self.warn_if_late(due);
                if let Err(end) = self.beat() {
                    return Poll::Ready(end);
                }
            }
            if let Some(leaving) = &mut self.leaving
                && leaving.as_mut().poll(cx).is_ready()
            {
                return lost("the broker did not take our close in time");
            }
            if !has_read {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.buffer.reserve(READ_BYTES);
        pin!(self.socket.read_buf(&mut self.buffer)).poll(cx)
    }

    /// Writes until the queue is empty; ready once nothing more can be queued.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.backlog_since.is_some_and(|since| since.elapsed() >= SWEEP_AFTER) {
            self.sweep();
        }
        loop {
            let written = self.poll_segments(cx)?;
            let mut outbox = self.channels.shared().outbox();
            if outbox.is_closing() && self.leaving.is_none() {
                self.leaving = Some(Box::pin(sleep(CLOSE_LIMIT)));
            }
            if written.is_pending() {
                self.backlog_since.get_or_insert_with(Instant::now);
                outbox.wait(cx.waker(), Waits::ForSocket);
                return Poll::Pending;
            }
            if outbox.is_empty() {
                self.backlog_since = None;
                if outbox.is_left() {
                    return Poll::Ready(Ok(()));
                }
                outbox.wait(cx.waker(), Waits::ForFrames);
                return Poll::Pending;
            }
            if !std::mem::replace(&mut self.has_yielded, true) {
                drop(outbox);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.has_yielded = false;
            outbox.take_into(&mut self.segments);
            if outbox.take_awaited() {
                drop(outbox);
                self.channels.shared().make_room();
            }
        }
    }

    /// Takes out the requests that no call awaits any more, so that a broker that reads again gets those that matter.
    fn sweep(&mut self) {
        self.backlog_since = Some(Instant::now());
        let awaited = self.channels.awaited();
        let is_awaited = |channel: u16, id: &[u8]| match awaited.iter().find(|(number, _)| *number == channel) {
            Some((_, awaited)) => awaited.has(id),
            None => true,
        };
        // A part of the first segment may have been written.
        let behind = self.segments.split_off(self.segments.len().min(1));
        let (mut kept, on_their_way) = unawaited::remove(&behind, is_awaited);
        kept.take_into(&mut self.segments);
        // Not locked meanwhile: the calls have a lock of their own.
        let shared = self.channels.shared();
        let mut queued = VecDeque::new();
        shared.outbox().take_into(&mut queued);
        let (kept, waiting) = unawaited::remove(&queued, is_awaited);
        let is_room_awaited = {
            let mut outbox = shared.outbox();
            outbox.put_back(kept);
            !outbox.is_full() && outbox.take_awaited()
        };
        if is_room_awaited {
            shared.make_room();
        }
        tracing::debug!(requests = on_their_way + waiting, "requests whose calls have ended are not sent");
    }

    fn poll_segments(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while let Some(segment) = self.segments.front_mut() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, segment))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.pulse.has_written = true;
            self.is_flushed = false;
            segment.advance(written);
            if segment.is_empty() {
                self.segments.pop_front();
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the frames that are still queued when the connection has ended, and closes the socket.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.channels.shared().outbox().take_into(&mut self.segments);
        ready!(self.poll_segments(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Warns when the task was not run for a whole tick: the broker waits for four.
    fn warn_if_late(&self, due: Instant) {
        let late = due.elapsed();
        if self.pulse.is_wanted && late >= self.tick.period() {
            tracing::warn!(
                ?late,
                "the task of a connection was not run in time for a heartbeat: something blocks its thread, or the process was stopped"
            );
        }
    }

    fn beat(&mut self) -> Result<(), End> {
        let pulse = &mut self.pulse;
        if !pulse.is_wanted {
            return Ok(());
        }
        pulse.silent_ticks = if std::mem::take(&mut pulse.has_read) { 0 } else { pulse.silent_ticks + 1 };
        if pulse.silent_ticks >= SILENT_TICKS_MAX {
            let silence = self.tick.period() * pulse.silent_ticks;
            return Err(End::Failed(Failure::lost(format!("the broker has been silent for {silence:?}"))));
        }
        let has_written = std::mem::take(&mut pulse.has_written);
        let is_stalled = !has_written && (!self.segments.is_empty() || !self.is_flushed) && !self.is_blocked.get();
        pulse.stalled_ticks = if is_stalled { pulse.stalled_ticks + 1 } else { 0 };
        if pulse.stalled_ticks >= SILENT_TICKS_MAX {
            let time = self.tick.period() * pulse.stalled_ticks;
            return Err(End::Failed(Failure::lost(format!("the broker has read nothing for {time:?}"))));
        }
        if !has_written {
            // An error says that the connection is closing.
            drop(self.channels.shared().write(|outbox| {
                outbox.heartbeat();
                Ok(())
            }));
        }
        Ok(())
    }

    /// Hands out the frames that have arrived.
    fn take_frames(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (batch, error) = self.decoder.cut(&mut self.buffer, usize::MAX);
        self.hand_out(&batch)?;
        match error {
            Some(error) => {
                let close = connection::AMQPMethod::Close(connection::Close {
                    reply_code: FRAME_ERROR,
                    reply_text: "FRAME_ERROR".into(),
                    class_id: 0,
                    method_id: 0,
                });
                // The last that it is told.
                self.channels.shared().outbox().method(0, &AMQPClass::Connection(close));
                Err(End::Failed(Failure::lost(format!("the broker sent what is no frame: {error:?}"))))
            }
            None => Ok(()),
        }
    }

    fn hand_out(&self, batch: &Batch) -> Result<(), End> {
        let mut frames = batch.frames();
        let mut last: Option<Arc<Inner>> = None;
        while let Some(frame) = frames.next() {
            if frame.channel == 0 {
                self.connection_frame(&frame)?;
                continue;
            }
            if last.as_ref().is_none_or(|inner| inner.id() != frame.channel) {
                last = self.channels.find(frame.channel);
            }
            let Some(inner) = &last else {
                self.orphaned_frame(&frame);
                continue;
            };
            if let Some(task) = take_run(inner, frame, &mut frames).map_err(End::Failed)? {
                self.perform(inner, task);
                // The task may have freed its number.
                last = None;
            }
        }
        Ok(())
    }

    fn perform(&self, inner: &Inner, task: Task) {
        match task {
            Task::Close(failure) => {
                self.channels.shared().report(Event::Failed(failure.reason()));
                self.channels.close_ok(inner.id(), &failure);
                inner.end(&failure);
            }
            Task::Free => {
                self.channels.free(inner.id());
                inner.fail(&Failure::closed_by_us());
            }
            // An error says that our own `channel.close` is queued, after which nothing may be sent.
            Task::Answer(class) => drop(inner.send(&class)),
        }
    }

    /// Takes a frame of a channel whose handles are dropped: our close is under way, or about to be.
    fn orphaned_frame(&self, frame: &RawFrame<'_>) {
        use amq_protocol::protocol::channel::AMQPMethod;
        if frame.kind != FrameKind::Method {
            return;
        }
        let Ok(Method::Other(class)) = read_method(frame.payload, Role::Server, DEPTH_MAX) else { return };
        match *class {
            AMQPClass::Channel(AMQPMethod::Close(close)) => {
                let failure = Failure::announced(close.reply_code, close.reply_text.as_str());
                self.channels.close_ok(frame.channel, &failure);
            }
            AMQPClass::Channel(AMQPMethod::CloseOk(_)) => self.channels.free(frame.channel),
            _ => {}
        }
    }

    fn connection_frame(&self, frame: &RawFrame<'_>) -> Result<(), End> {
        use connection::AMQPMethod;
        if frame.kind != FrameKind::Method {
            return Ok(());
        }
        let Ok(Method::Other(class)) = read_method(frame.payload, Role::Server, DEPTH_MAX) else { return Ok(()) };
        let AMQPClass::Connection(method) = *class else { return Ok(()) };
        match method {
            AMQPMethod::Close(close) => {
                let failure = Failure::announced(close.reply_code, close.reply_text.as_str());
                let mut outbox = self.channels.shared().outbox();
                outbox.method(0, &AMQPClass::Connection(AMQPMethod::CloseOk(connection::CloseOk {})));
                return Err(End::Failed(failure));
            }
            AMQPMethod::CloseOk(_) => return Err(End::Closed),
            AMQPMethod::Blocked(blocked) => {
                self.is_blocked.set(true);
                self.channels.shared().report(Event::Blocked(blocked.reason.as_str().to_owned()))
            }
            AMQPMethod::Unblocked(_) => {
                self.is_blocked.set(false);
                self.channels.shared().report(Event::Unblocked);
            }
            AMQPMethod::UpdateSecretOk(_) => self.channels.shared().secret_updated(),
            _ => {}
        }
        Ok(())
    }
}

/// The task can be stopped with its runtime, or by a panic. Its waiters must not wait for ever.
impl Drop for Io {
    fn drop(&mut self) {
        self.channels.end(&Failure::lost("the connection's task was stopped"), false);
    }
}

fn lost(reason: impl AsRef<str>) -> Poll<End> {
    Poll::Ready(End::Failed(Failure::lost(reason)))
}

/// Hands a channel its frame, and the frames of the same channel that follow, up to one that asks for work.
fn take_run<'a>(inner: &Inner, first: RawFrame<'a>, frames: &mut Frames<'a>) -> Result<Option<Task>, Failure> {
    let mut state = inner.state();
    let mut frame = first;
    loop {
        if let Some(task) = state.take(&frame)? {
            return Ok(Some(task));
        }
        let mut ahead = frames.clone();
        match ahead.next() {
            Some(next) if next.channel == frame.channel => {
                *frames = ahead;
                frame = next;
            }
            _ => return Ok(None),
        }
    }
}

/// The room for one read.
const READ_BYTES: usize = 64 * 1_024;
/// Reads before the other tasks of the thread have their turn: a broker that sends without a pause must not make calls late.
const READS_MAX: usize = 8;
/// The age of a backlog at which requests are looked for whose calls have ended; a look takes some 5 ms at 16 MiB.
const SWEEP_AFTER: Duration = Duration::from_millis(250);
/// RabbitMQ never splits the content header of a message, and adds to it (`x-death`): one may exceed frame_max by this.
const HEADER_EXCESS_MAX_BYTES: u32 = 1_024 * 1_024;
/// AMQP 0-9-1 §4.2.7: a peer that is silent for two heartbeats counts as lost.
const SILENT_TICKS_MAX: u32 = 4;
/// The tick without heartbeats.
const IDLE_TICK: Duration = Duration::from_secs(30);
/// A broker that has stopped reading may never read again, and still send heartbeats.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// The time limit of the last write.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
