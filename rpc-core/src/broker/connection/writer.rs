//! Empties the outbox into the socket, and sends heartbeats.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::pin,
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep},
};

use super::waiting::NEVER;
use crate::broker::{
    core::{ConnectionId, Negotiated},
    shared::{Outbox, Shared},
};

pub(super) struct Writer<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: ConnectionId,
    pub(super) outbox: &'a Outbox,
}

impl Writer<'_> {
    /// Writes until the socket fails.
    pub(super) async fn run<W: AsyncWrite + Unpin>(&self, writing: &mut W) -> io::Error {
        let mut segments = VecDeque::new();
        let mut has_written = false;
        let mut heartbeat = pin!(sleep(HEARTBEAT_CHECK));
        loop {
            self.outbox.take_into(&mut segments);
            if !segments.is_empty() {
                let bytes: usize = segments.iter().map(Bytes::len).sum();
                if let Err(error) = write_segments(writing, &mut segments).await {
                    return error;
                }
                has_written = true;
                self.note_written(bytes);
                continue;
            }
            tokio::select! {
                biased;
                () = self.outbox.filled.notified() => {}
                () = &mut heartbeat => {
                    let pause = self.heartbeat(has_written);
                    has_written = false;
                    heartbeat.as_mut().reset(Instant::now() + pause);
                }
            }
        }
    }

    fn note_written(&self, bytes: usize) {
        let before = self.outbox.traffic.backlog.fetch_sub(bytes, Ordering::AcqRel);
        self.shared.note_written(bytes);
        if before == bytes {
            // Paired with the fence in `inspect::idle`: either we see that it waits, or it sees that all is written.
            fence(Ordering::SeqCst);
            self.shared.note_change();
        }
        // The core stops delivering to a client with a large backlog.
        let resume_bytes = self.shared.outbox.resume_bytes;
        if before >= resume_bytes && before - bytes < resume_bytes {
            self.shared.with(|core, now| core.resume(self.id, now));
            self.outbox.drained.notify_one();
        }
    }

    /// Queues a heartbeat unless frames were written since the last check, and returns the time until the next one.
    ///
    /// Heartbeats count as written. So they are two checks, which is half an interval, apart: some clients give up after
    /// a single interval of silence.
    fn heartbeat(&self, has_written: bool) -> Duration {
        let negotiated = self.shared.with(|core, _| {
            let negotiated = core.negotiated(self.id).filter(|negotiated| negotiated.is_open)?;
            if negotiated.heartbeat_s > 0 && !has_written {
                core.heartbeat(self.id);
            }
            Some(negotiated)
        });
        match negotiated {
            None => HEARTBEAT_CHECK,
            Some(Negotiated { heartbeat_s: 0, .. }) => NEVER,
            Some(Negotiated { heartbeat_s, .. }) => Duration::from_millis(u64::from(heartbeat_s) * 250),
        }
    }
}

/// Writes the outbox of a connection that has ended.
pub(super) async fn write_rest<W: AsyncWrite + Unpin>(writing: &mut W, outbox: &Outbox) -> io::Result<()> {
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
    // A plain socket has sent all of it, but TLS may still buffer the end.
    writing.flush().await
}

const SLICES_MAX: usize = 64;
/// How often a connection checks whether its handshake is finished, which decides its heartbeat.
const HEARTBEAT_CHECK: Duration = Duration::from_millis(500);
