//! The task of one connection: all that is read and written.
//!
//! It reads as much as there is, hands it out, and writes everything that is queued in one go. Before it writes it lets
//! the other tasks run that are ready: what they queue goes out in the same write.

use std::{
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
    time::{Interval, MissedTickBehavior, Sleep, interval_at, sleep, timeout},
};

use super::{
    channel::Inner,
    handshake::Tuning,
    inbox::Task,
    outbox::Waits,
    shared::{Failure, Shared},
    socket::Socket,
};
use crate::{
    connection::transport::Event,
    wire::{Batch, Decoder, FrameKind, Frames, Method, RawFrame, read_method, table::DEPTH_MAX},
};

pub(super) struct Io {
    socket: Socket,
    shared: Arc<Shared>,
    decoder: Decoder,
    buffer: BytesMut,
    /// On their way to the socket.
    segments: VecDeque<Bytes>,
    /// Nothing of what was written waits for the socket: TLS holds back what it does not take.
    is_flushed: bool,
    /// What was queued was seen, and the other tasks had their turn.
    is_patient: bool,
    tick: Interval,
    pulse: Pulse,
    /// Once our close is queued: how long the broker may take to let us go.
    leaving: Option<Pin<Box<Sleep>>>,
}

/// How the connection's silence is measured, in ticks: half of a heartbeat each.
#[derive(Debug, Default)]
struct Pulse {
    is_wanted: bool,
    has_read: bool,
    has_written: bool,
    silent_ticks: u32,
}

/// How a connection ended.
enum End {
    Failed(Failure),
    /// Our close was confirmed.
    Closed,
    /// Our close is written, and nobody waits for its confirmation.
    Left,
}

impl Io {
    pub(super) fn new(socket: Socket, buffer: BytesMut, tuning: Tuning, shared: Arc<Shared>) -> Self {
        let beat = match tuning.heartbeat_s {
            0 => IDLE_TICK,
            seconds => Duration::from_secs(seconds.into()) / 2,
        };
        let mut tick = interval_at(tokio::time::Instant::now() + beat, beat);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            shared,
            decoder: Decoder::new(tuning.frame_max),
            buffer,
            segments: VecDeque::new(),
            is_flushed: true,
            is_patient: false,
            tick,
            pulse: Pulse { is_wanted: tuning.heartbeat_s > 0, ..Pulse::default() },
            leaving: None,
        }
    }

    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        match end {
            End::Failed(failure) => self.shared.end(&failure, false),
            End::Closed | End::Left => self.shared.end(&Failure::closed_by_us(), true),
        }
        // A `connection.close-ok` may wait still; a broker that does not read it is not waited for.
        drop(timeout(FAREWELL_LIMIT, poll_fn(|cx| self.poll_farewell(cx))).await);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // What came with the last answer of the handshake.
        if let Err(end) = self.take_frames() {
            return Poll::Ready(end);
        }
        loop {
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
            while self.tick.poll_tick(cx).is_ready() {
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
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        self.buffer.reserve(READ_BYTES);
        pin!(self.socket.read_buf(&mut self.buffer)).poll(cx)
    }

    /// Writes what is queued, again and again; ready when nothing will be queued any more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let written = self.poll_segments(cx)?;
            let mut outbox = self.shared.outbox();
            if outbox.is_closing() && self.leaving.is_none() {
                self.leaving = Some(Box::pin(sleep(CLOSE_LIMIT)));
            }
            if written.is_pending() {
                outbox.wait(cx.waker(), Waits::ForSocket);
                return Poll::Pending;
            }
            if outbox.is_empty() {
                if outbox.is_left() {
                    return Poll::Ready(Ok(()));
                }
                outbox.wait(cx.waker(), Waits::ForFrames);
                return Poll::Pending;
            }
            if !std::mem::replace(&mut self.is_patient, true) {
                drop(outbox);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.is_patient = false;
            outbox.take_into(&mut self.segments);
        }
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

    /// Writes what is queued when the connection has ended, and closes the socket.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.shared.outbox().take_into(&mut self.segments);
        ready!(self.poll_segments(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
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
        if !std::mem::take(&mut pulse.has_written) {
            // An error says that the connection is closing.
            drop(self.shared.write(|outbox| {
                outbox.heartbeat();
                Ok(())
            }));
        }
        Ok(())
    }

    /// Hands out the frames that are here.
    fn take_frames(&mut self) -> Result<(), End> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (batch, error) = self.decoder.cut(&mut self.buffer, usize::MAX);
        self.hand_out(&batch)?;
        match error {
            Some(error) => Err(End::Failed(Failure::lost(format!("the broker sent what is no frame: {error:?}")))),
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
                last = self.shared.channel(frame.channel);
            }
            let Some(inner) = &last else {
                self.orphaned_frame(&frame);
                continue;
            };
            if let Some(task) = take_run(inner, frame, &mut frames).map_err(End::Failed)? {
                self.perform(inner, task);
                // It may have another number now, or none.
                last = None;
            }
        }
        Ok(())
    }

    fn perform(&self, inner: &Inner, task: Task) {
        match task {
            Task::Close(failure) => {
                self.shared.tell(Event::Failed(failure.reason()));
                self.shared.close_ok(inner.id(), &failure);
                inner.end(&failure);
            }
            Task::Free => {
                self.shared.free_channel(inner.id());
                inner.fail(&Failure::closed_by_us());
            }
            // Nothing goes out behind a `channel.close` of our own.
            Task::Answer(class) => drop(inner.send(&class)),
        }
    }

    /// Of a channel that nobody holds any more: our close is under way, or about to be.
    fn orphaned_frame(&self, frame: &RawFrame<'_>) {
        use amq_protocol::protocol::channel::AMQPMethod;
        if frame.kind != FrameKind::Method {
            return;
        }
        let Ok(Method::Other(class)) = read_method(frame.payload, DEPTH_MAX) else { return };
        match *class {
            AMQPClass::Channel(AMQPMethod::Close(close)) => {
                let failure = Failure::told(close.reply_code, close.reply_text.as_str());
                self.shared.close_ok(frame.channel, &failure);
            }
            AMQPClass::Channel(AMQPMethod::CloseOk(_)) => self.shared.free_channel(frame.channel),
            _ => {}
        }
    }

    fn connection_frame(&self, frame: &RawFrame<'_>) -> Result<(), End> {
        use connection::AMQPMethod;
        if frame.kind != FrameKind::Method {
            return Ok(());
        }
        let Ok(Method::Other(class)) = read_method(frame.payload, DEPTH_MAX) else { return Ok(()) };
        let AMQPClass::Connection(method) = *class else { return Ok(()) };
        match method {
            AMQPMethod::Close(close) => {
                let failure = Failure::told(close.reply_code, close.reply_text.as_str());
                let mut outbox = self.shared.outbox();
                outbox.method(0, &AMQPClass::Connection(AMQPMethod::CloseOk(connection::CloseOk {})));
                return Err(End::Failed(failure));
            }
            AMQPMethod::CloseOk(_) => return Err(End::Closed),
            AMQPMethod::Blocked(blocked) => self.shared.tell(Event::Blocked(blocked.reason.as_str().to_owned())),
            AMQPMethod::Unblocked(_) => self.shared.tell(Event::Unblocked),
            _ => {}
        }
        Ok(())
    }
}

/// Stopped with its runtime, or by a panic: nobody is to wait for ever.
impl Drop for Io {
    fn drop(&mut self) {
        self.shared.end(&Failure::lost("the connection's task was stopped"), false);
    }
}

fn lost(reason: impl AsRef<str>) -> Poll<End> {
    Poll::Ready(End::Failed(Failure::lost(reason)))
}

/// Hands a channel its frame, and those of the same channel behind it, up to one that asks for something.
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

/// Room for what is read at once.
const READ_BYTES: usize = 64 * 1_024;
/// AMQP 0-9-1 §4.2.7: a peer that is silent for two heartbeats is gone.
const SILENT_TICKS_MAX: u32 = 4;
/// Without heartbeats.
const IDLE_TICK: Duration = Duration::from_secs(30);
/// A broker that stops reading may do so for ever, and send heartbeats all the while.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// For what is written when everything is over.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
