//! One connection's socket: a reader that hands batches of frames to the core, and a writer that empties the outbox.
//!
//! Both run in one task, so that a client's own replies cost no hop between tasks.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::pin,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    core::{ConnectionId, Flow, Negotiated, Peer},
    shared::{Outbox, Shared},
};
use crate::wire::{Batch, Decoder, FRAME_MIN_SIZE, FrameError, PROTOCOL_HEADER, Start, read_protocol_header};

/// What is between a connection and its socket.
#[derive(Clone)]
pub(super) enum Transport {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor),
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: Peer, transport: Transport, shared: Arc<Shared>) {
    // Requests and replies are small and awaited: no delay for the sake of full packets.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let handshake_deadline = Instant::now() + shared.handshake_timeout;
    match transport {
        Transport::Plain => {
            let (reading, writing) = stream.into_split();
            converse(reading, writing, peer, handshake_deadline, shared).await;
        }
        #[cfg(feature = "tls")]
        Transport::Tls(acceptor) => {
            // Boxed, so that connections without TLS do not carry the room for it.
            let accepting = Box::pin(timeout_at(handshake_deadline, acceptor.accept(stream)));
            let stream = match accepting.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::info!(%error, "no agreement on TLS");
                    return;
                }
                Err(_) => {
                    tracing::info!("TLS handshake not finished in time");
                    return;
                }
            };
            let peer = Peer { certificate_name: super::tls::certificate_name(&stream), ..peer };
            let (reading, writing) = tokio::io::split(stream);
            Box::pin(converse(reading, writing, peer, handshake_deadline, shared)).await;
        }
    }
}

async fn converse<R, W>(mut reading: R, mut writing: W, peer: Peer, handshake_deadline: Instant, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut input = Input { buffer: BytesMut::new(), room: READ_MIN_BYTES, unhandled: None };
    let start = match timeout_at(handshake_deadline, read_start(&mut reading, &mut input)).await {
        Ok(Ok(start)) => start,
        Ok(Err(_)) | Err(_) => return,
    };
    if start == Start::Unknown {
        drop(timeout(LAST_WRITE_TIMEOUT, writing.write_all(&PROTOCOL_HEADER)).await);
        linger(&mut reading, &mut writing, &shared).await;
        return;
    }
    let Some((id, outbox)) = shared.open(peer, start == Start::Version0_8) else {
        tracing::warn!("too many connections");
        return;
    };
    // Whatever ends this task, the core forgets the connection.
    let registered = Registered { shared: &shared, id };
    let reader = Reader { shared: &shared, id, outbox: &outbox, handshake_deadline };
    let flow = tokio::select! {
        biased;
        () = outbox.cut.notified() => return,
        flow = reader.run(&mut reading, input) => flow,
        error = write_output(&mut writing, &outbox, &shared, id) => {
            tracing::debug!(%error, "cannot write");
            return;
        }
    };
    if let Flow::ClosePaused(pause) = flow {
        sleep(pause).await;
    }
    drop(registered);
    if let Ok(Ok(())) = timeout(LAST_WRITE_TIMEOUT, write_rest(&mut writing, &outbox)).await {
        linger(&mut reading, &mut writing, &shared).await;
    }
}

struct Registered<'a> {
    shared: &'a Shared,
    id: ConnectionId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.close(self.id);
    }
}

/// What was read and not decoded yet. Idle connections hold little memory, busy ones read much at a time.
struct Input {
    buffer: BytesMut,
    room: usize,
    /// Cut off, and left for later.
    unhandled: Option<(Batch, Option<FrameError>)>,
}

impl Input {
    async fn read<R: AsyncRead + Unpin>(&mut self, reading: &mut R) -> io::Result<usize> {
        if self.buffer.capacity() - self.buffer.len() < self.room {
            self.buffer.reserve(self.room);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = reading.read_buf(&mut self.buffer).await?;
        if read == room {
            self.room = (self.room * 2).min(READ_MAX_BYTES);
        } else if read < self.room / 8 {
            self.room = (self.room / 2).max(READ_MIN_BYTES);
        }
        Ok(read)
    }
}

async fn read_start<R: AsyncRead + Unpin>(reading: &mut R, input: &mut Input) -> io::Result<Start> {
    loop {
        if let Some(start) = read_protocol_header(&mut input.buffer) {
            return Ok(start);
        }
        if input.read(reading).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

struct Reader<'a> {
    shared: &'a Shared,
    id: ConnectionId,
    outbox: &'a Outbox,
    handshake_deadline: Instant,
}

impl Reader<'_> {
    /// Reads, decodes and handles until the connection ends.
    async fn run<R: AsyncRead + Unpin>(&self, reading: &mut R, mut input: Input) -> Flow {
        let mut decoder = Decoder::new(HANDSHAKE_FRAME_MAX);
        let mut stage = Waiting::Handshake;
        let mut last_read = Instant::now();
        let mut timer = pin!(sleep_until(self.handshake_deadline));
        let mut stopping = self.shared.stopping();
        let mut stopped = pin!(stopping.wait());
        let mut is_stopping = false;
        loop {
            let before = stage;
            // Who publishes while the broker is blocked is not listened to, but may hear that the broker stops.
            let is_held = || self.outbox.traffic.is_held.load(Ordering::Relaxed) && !is_stopping;
            if !is_held() {
                match self.handle(&mut decoder, &mut input, &mut stage) {
                    Flow::Continue => {}
                    // Others want the lock, too.
                    Flow::Paused(_) if !is_held() => {
                        yield_now().await;
                        continue;
                    }
                    Flow::Paused(_) => {}
                    flow => return flow,
                }
            }
            if stage != before {
                let deadline = stage.deadline(last_read, self.handshake_deadline);
                timer.as_mut().reset(deadline.unwrap_or_else(|| Instant::now() + NEVER));
            }
            // A client that does not read its answers gets no more of them: it is not read until it does.
            let is_choked = self.outbox.traffic.backlog.load(Ordering::Relaxed) > self.shared.outbox.choke_bytes;
            let is_held = is_held();
            tokio::select! {
                biased;
                () = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    self.shared.with(|core, now| core.shut_down_one(self.id, now));
                    stage = Waiting::Close { deadline: Instant::now() + STOPPING_TIMEOUT };
                    timer.as_mut().reset(Instant::now() + STOPPING_TIMEOUT);
                }
                read = input.read(reading), if !is_choked && !is_held => match read {
                    Ok(0) => return Flow::Close,
                    Ok(_) => last_read = Instant::now(),
                    Err(error) => {
                        tracing::debug!(%error, "connection lost");
                        return Flow::Close;
                    }
                },
                () = self.outbox.drained.notified(), if is_choked || is_held => {}
                // Set anew only when it fires: timers are dear beside a read.
                () = &mut timer => {
                    // RabbitMQ: who is blocked need not be heard.
                    if is_held {
                        last_read = Instant::now();
                    }
                    match stage.deadline(last_read, self.handshake_deadline) {
                        Some(deadline) if deadline <= Instant::now() => {
                            tracing::info!("connection silent for too long");
                            return Flow::Close;
                        }
                        deadline => timer.as_mut().reset(deadline.unwrap_or_else(|| Instant::now() + NEVER)),
                    }
                }
            }
            if let Waiting::Close { deadline } = stage
                && deadline <= Instant::now()
            {
                return Flow::Close;
            }
        }
    }

    /// Hands over all whole frames, in batches under one lock each.
    fn handle(&self, decoder: &mut Decoder, input: &mut Input, stage: &mut Waiting) -> Flow {
        loop {
            // During the handshake frame by frame: tune-ok changes how the next one is read.
            let frames_max = if matches!(stage, Waiting::Handshake) { 1 } else { BATCH_FRAMES };
            let (batch, error) = input.unhandled.take().unwrap_or_else(|| decoder.cut(&mut input.buffer, frames_max));
            if batch.is_empty() && error.is_none() {
                return Flow::Continue;
            }
            let (flow, negotiated) = self.shared.with(|core, now| {
                let flow = core.batch(self.id, &batch, error.as_ref(), now);
                (flow, core.negotiated(self.id))
            });
            if let Flow::Paused(bytes) = flow {
                input.unhandled = Some((batch.end(bytes), error));
            }
            if flow != Flow::Continue {
                return flow;
            }
            if let Some(negotiated) = negotiated {
                decoder.set_frame_max(negotiated.frame_max);
                stage.follow(&negotiated);
            }
        }
    }
}

/// What a connection must do, and by when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Handshake,
    Traffic { silence_max: Option<Duration> },
    Close { deadline: Instant },
}

impl Waiting {
    fn follow(&mut self, negotiated: &Negotiated) {
        match (&*self, negotiated.closing_limit) {
            (Self::Close { .. }, _) => {}
            (_, Some(limit)) => *self = Self::Close { deadline: Instant::now() + limit },
            (Self::Handshake, None) if negotiated.is_open => {
                let heartbeat = Duration::from_secs(negotiated.heartbeat_s.into());
                *self = Self::Traffic { silence_max: (!heartbeat.is_zero()).then(|| heartbeat * 2) };
            }
            (Self::Handshake | Self::Traffic { .. }, None) => {}
        }
    }

    fn deadline(self, last_read: Instant, handshake_deadline: Instant) -> Option<Instant> {
        match self {
            Self::Handshake => Some(handshake_deadline),
            Self::Traffic { silence_max } => silence_max.map(|silence_max| last_read + silence_max),
            Self::Close { deadline } => Some(deadline),
        }
    }
}

/// Writes whatever comes into the outbox, and heartbeats when nothing does.
async fn write_output<W: AsyncWrite + Unpin>(
    writing: &mut W,
    outbox: &Outbox,
    shared: &Shared,
    id: ConnectionId,
) -> io::Error {
    let mut segments = VecDeque::new();
    let mut has_written = false;
    let mut heartbeat = pin!(sleep(HEARTBEAT_CHECK));
    loop {
        outbox.take_into(&mut segments);
        if !segments.is_empty() {
            let bytes: usize = segments.iter().map(Bytes::len).sum();
            if let Err(error) = write_segments(writing, &mut segments).await {
                return error;
            }
            has_written = true;
            let before = outbox.traffic.backlog.fetch_sub(bytes, Ordering::AcqRel);
            shared.note_written(bytes);
            if before == bytes {
                // With the one in `inspect`: either we see who waits, or they see what we wrote.
                fence(Ordering::SeqCst);
                shared.note_change();
            }
            // The core stops delivering to those who do not read; they do now.
            let resume_bytes = shared.outbox.resume_bytes;
            if before >= resume_bytes && before - bytes < resume_bytes {
                shared.with(|core, now| core.resume(id, now));
                outbox.drained.notify_one();
            }
            continue;
        }
        tokio::select! {
            biased;
            () = outbox.filled.notified() => {}
            () = &mut heartbeat => {
                let negotiated = shared.with(|core, _| {
                    let negotiated = core.negotiated(id).filter(|negotiated| negotiated.is_open)?;
                    if negotiated.heartbeat_s > 0 && !has_written {
                        core.heartbeat(id);
                    }
                    Some(negotiated)
                });
                has_written = false;
                // Ours count as written: silence is broken twice an interval, as some clients expect who wait for one only.
                let quarter = match negotiated {
                    None => HEARTBEAT_CHECK,
                    Some(Negotiated { heartbeat_s: 0, .. }) => NEVER,
                    Some(Negotiated { heartbeat_s, .. }) => Duration::from_millis(u64::from(heartbeat_s) * 250),
                };
                heartbeat.as_mut().reset(Instant::now() + quarter);
            }
        }
    }
}

async fn write_rest<W: AsyncWrite + Unpin>(writing: &mut W, outbox: &Outbox) -> io::Result<()> {
    let mut segments = VecDeque::new();
    outbox.take_into(&mut segments);
    write_segments(writing, &mut segments).await
}

async fn write_segments<W: AsyncWrite + Unpin>(writing: &mut W, segments: &mut VecDeque<Bytes>) -> io::Result<()> {
    while let Some(first) = segments.front() {
        let mut left = if segments.len() == 1 {
            writing.write(first).await?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = segments.len().min(SLICES_MAX);
            for (slice, segment) in slices.iter_mut().zip(segments.iter()) {
                *slice = IoSlice::new(segment);
            }
            writing.write_vectored(&slices[..count]).await?
        };
        if left == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while left > 0
            && let Some(first) = segments.front_mut()
        {
            let taken = left.min(first.len());
            first.advance(taken);
            left -= taken;
            if first.is_empty() {
                segments.pop_front();
            }
        }
    }
    // TLS may still hold some of it; a plain socket does not.
    writing.flush().await
}

/// Lets the client read our last words: a socket closed over unread input would take them back.
async fn linger<R, W>(reading: &mut R, writing: &mut W, shared: &Shared)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // TLS says goodbye first, and whoever does not read could keep it waiting.
    if !matches!(timeout(LINGER_TIMEOUT, writing.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut stopping = shared.stopping();
    let mut buffer = BytesMut::with_capacity(READ_MIN_BYTES);
    let until_closed = async {
        while let Ok(1..) = reading.read_buf(&mut buffer).await {
            buffer.clear();
        }
    };
    tokio::select! {
        _ = timeout(LINGER_TIMEOUT, until_closed) => {}
        () = stopping.wait() => {}
    }
}

const READ_MIN_BYTES: usize = 4 * 1_024;
const READ_MAX_BYTES: usize = 64 * 1_024;
/// No frame of the handshake is larger; what strangers send is held in memory.
const HANDSHAKE_FRAME_MAX: u32 = FRAME_MIN_SIZE;
/// Bounds what is handled under one lock, so that nobody waits long for it.
const BATCH_FRAMES: usize = 512;
const SLICES_MAX: usize = 64;
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// For the answer to our `connection.close` when the broker stops: whoever stops it waits.
const STOPPING_TIMEOUT: Duration = Duration::from_millis(800);
/// How often a connection that is not open yet looks whether it is, and what heartbeat was agreed on.
const HEARTBEAT_CHECK: Duration = Duration::from_millis(500);
/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(365 * 86_400);
