//! The bytes read from a socket, up to the frames cut from them.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wire::{Batch, Decoder, FrameError};

/// Input that the core has not handled yet. Its buffer grows with the traffic: an idle connection holds little memory,
/// and a busy one needs few reads.
pub(super) struct Input {
    pub(super) buffer: BytesMut,
    room: usize,
    /// The end of a batch that the core did not handle, and the error behind that batch. Without either, the core has only
    /// something to go on with.
    pub(super) unhandled: Option<(Batch, Option<FrameError>)>,
}

impl Default for Input {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), room: READ_MIN_BYTES, unhandled: None }
    }
}

impl Input {
    /// The frames to be handled next, at most `frames_max` of them if they are new; `None` if there is nothing to do.
    pub(super) fn next(&mut self, decoder: &Decoder, frames_max: usize) -> Option<(Batch, Option<FrameError>)> {
        let has_unhandled = self.has_unhandled();
        match self.unhandled.take() {
            Some(rest) if has_unhandled => Some(rest),
            rest => match decoder.cut(&mut self.buffer, frames_max) {
                (batch, None) if batch.is_empty() && rest.is_none() => None,
                cut => Some(cut),
            },
        }
    }

    /// Whether frames were cut that the core did not handle.
    pub(super) fn has_unhandled(&self) -> bool {
        self.unhandled.as_ref().is_some_and(|(batch, error)| !batch.is_empty() || error.is_some())
    }

    pub(super) async fn read<R: AsyncRead + Unpin>(&mut self, reading: &mut R) -> io::Result<usize> {
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

const READ_MIN_BYTES: usize = 4 * 1_024;
const READ_MAX_BYTES: usize = 64 * 1_024;
