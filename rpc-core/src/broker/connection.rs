//! One connection's socket: a reader that hands batches of frames to the core, and a writer that empties the outbox.

use std::{
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    core::{ConnectionId, Flow},
    shared::{Outbox, Shared},
};
use crate::wire::{Decoder, FRAME_MIN_SIZE, PROTOCOL_HEADER, Segment, Start, read_protocol_header};

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Requests and replies are small and awaited: no delay for the sake of full packets.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (mut reading, mut writing) = stream.into_split();
    let mut buffer = BytesMut::with_capacity(READ_BUFFER_BYTES);
    let deadline = Instant::now() + shared.handshake_timeout;
    let start = match timeout_at(deadline, read_start(&mut reading, &mut buffer)).await {
        Ok(Ok(start)) => start,
        Ok(Err(_)) | Err(_) => return,
    };
    if start == Start::Unknown {
        drop(timeout(LAST_WRITE_TIMEOUT, writing.write_all(&PROTOCOL_HEADER)).await);
        return;
    }
    let Some((id, outbox)) = shared.open(start == Start::Version0_8) else {
        tracing::warn!("too many connections");
        return;
    };
    // Whatever ends this task, the core forgets the connection.
    let _registered = Registered { shared: &shared, id };
    let end = tokio::select! {
        end = read_frames(&mut reading, buffer, &shared, id, deadline) => end,
        _ = write_output(&mut writing, &outbox, &shared, id) => return,
    };
    if let Flow::ClosePaused(pause) = end {
        sleep(pause).await;
    }
    drop(timeout(LAST_WRITE_TIMEOUT, write_rest(&mut writing, &outbox)).await);
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

async fn read_start(reading: &mut OwnedReadHalf, buffer: &mut BytesMut) -> io::Result<Start> {
    loop {
        if let Some(start) = read_protocol_header(buffer) {
            return Ok(start);
        }
        if reading.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads, decodes and handles until the connection ends.
async fn read_frames(
    reading: &mut OwnedReadHalf,
    mut buffer: BytesMut,
    shared: &Shared,
    id: ConnectionId,
    handshake_deadline: Instant,
) -> Flow {
    let mut decoder = Decoder::new(FRAME_MIN_SIZE.max(HANDSHAKE_FRAME_MAX));
    let mut frames = Vec::new();
    let mut is_open = false;
    let mut silence_max = None;
    let mut closing_deadline: Option<Instant> = None;
    let mut stopping = shared.stopping();
    let mut is_stopping = false;
    loop {
        let mut bad = None;
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
            // Bounds what is handled under one lock, so that nobody waits long for it. During the handshake frame by
            // frame: tune-ok changes how the next one is read.
            if frames.len() >= if is_open { BATCH_FRAMES } else { 1 } {
                break;
            }
        }
        let is_more = bad.is_none() && !frames.is_empty();
        if !frames.is_empty() || bad.is_some() {
            let (flow, negotiated) = shared.with(|core, now| {
                let mut flow = Flow::Continue;
                for frame in frames.drain(..) {
                    flow = core.frame(id, &frame, now);
                    if flow != Flow::Continue {
                        break;
                    }
                }
                if let (Flow::Continue, Some(error)) = (flow, &bad) {
                    flow = core.bad_frame(id, error, now);
                }
                core.end_batch(id);
                (flow, core.negotiated(id))
            });
            if flow != Flow::Continue {
                return flow;
            }
            if let Some(negotiated) = negotiated {
                decoder.set_frame_max(negotiated.frame_max);
                is_open = negotiated.is_open;
                if let Some(limit) = negotiated.closing_limit {
                    closing_deadline.get_or_insert_with(|| Instant::now() + limit);
                }
                silence_max = (negotiated.is_open && negotiated.heartbeat_s > 0)
                    .then(|| Duration::from_secs(2 * u64::from(negotiated.heartbeat_s)));
            }
            if bad.is_some() {
                // What follows cannot be told apart into frames. A client that reads our close answers afterwards.
                buffer.clear();
            }
            if is_more {
                continue;
            }
        }
        buffer.reserve(READ_BUFFER_BYTES / 2);
        let deadline = match (closing_deadline, is_open, silence_max) {
            (Some(deadline), ..) => Some(deadline),
            (None, false, _) => Some(handshake_deadline),
            (None, true, silence) => silence.map(|silence| Instant::now() + silence),
        };
        let until_deadline = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = reading.read_buf(&mut buffer) => match read {
                Ok(0) => return Flow::Close,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "connection lost");
                    return Flow::Close;
                }
            },
            () = until_deadline => {
                tracing::info!("connection silent for too long");
                return Flow::Close;
            }
            () = stopping.wait(), if !is_stopping => {
                is_stopping = true;
                closing_deadline = Some(Instant::now() + STOPPING_TIMEOUT);
                shared.with(|core, now| core.shut_down_one(id, now));
            }
        }
    }
}

/// Writes whatever comes into the outbox, and heartbeats when nothing does.
async fn write_output(writing: &mut OwnedWriteHalf, outbox: &Outbox, shared: &Shared, id: ConnectionId) {
    loop {
        let segments = outbox.take();
        if !segments.is_empty() {
            let bytes: usize = segments.iter().map(Segment::len).sum();
            if let Err(error) = write_segments(writing, segments).await {
                tracing::debug!(%error, "cannot write");
                return;
            }
            let before = outbox.backlog.fetch_sub(bytes, Ordering::Relaxed);
            // The core stops delivering to those who do not read; they do now.
            if before >= RESUME_BYTES && before - bytes < RESUME_BYTES {
                shared.with(|core, now| core.resume(id, now));
            }
            continue;
        }
        let heartbeat_s = shared.with(|core, _| core.negotiated(id)).map_or(0, |negotiated| negotiated.heartbeat_s);
        if heartbeat_s == 0 {
            outbox.filled.notified().await;
            continue;
        }
        let half = Duration::from_millis(u64::from(heartbeat_s) * 500);
        if timeout(half, outbox.filled.notified()).await.is_err() && outbox.is_empty() {
            shared.with(|core, _| core.heartbeat(id));
        }
    }
}

async fn write_rest(writing: &mut OwnedWriteHalf, outbox: &Outbox) -> io::Result<()> {
    write_segments(writing, outbox.take()).await?;
    writing.shutdown().await
}

async fn write_segments(
    writing: &mut OwnedWriteHalf,
    mut segments: std::collections::VecDeque<Segment>,
) -> io::Result<()> {
    while let Some(first) = segments.front() {
        let written = if segments.len() == 1 {
            writing.write(first).await?
        } else {
            let slices: Vec<_> = segments.iter().take(SLICES_MAX).map(|segment| IoSlice::new(segment)).collect();
            writing.write_vectored(&slices).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut left = written;
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
    Ok(())
}

const READ_BUFFER_BYTES: usize = 64 * 1_024;
/// No frame of the handshake is larger; what strangers send is held in memory.
const HANDSHAKE_FRAME_MAX: u32 = 8_192;
const BATCH_FRAMES: usize = 512;
const SLICES_MAX: usize = 64;
/// Half of what stops deliveries.
const RESUME_BYTES: usize = 2 << 20;
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer to our `connection.close` when the broker stops: whoever stops it waits.
const STOPPING_TIMEOUT: Duration = Duration::from_millis(800);
