//! The socket of one connection, from the handshake to the last byte written.
//!
//! ```text
//!  socket ─► input (bytes) ─► reader ──batches of frames──► core
//!  socket ◄─ writer ◄─ outbox ◄──output of any connection───┘
//! ```
//!
//! The reader and the writer share one task, so that the replies to a client cost no switch between tasks.

mod input;
mod load;
mod reader;
mod waiting;
mod writer;

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

#[cfg(feature = "tls")]
use tokio_rustls::rustls;

use self::{input::Input, reader::Reader, writer::Writer};
use super::{
    core::{ConnectionId, Flow, Peer},
    seats::Seat,
    shared::Shared,
};
use crate::wire::{Start, read_protocol_header};

/// The layer between a connection and its socket.
#[derive(Clone)]
pub(super) enum Transport {
    Plain,
    #[cfg(feature = "tls")]
    Tls(tokio_rustls::TlsAcceptor),
}

/// Serves a connection to its end, or until it has to leave.
pub(super) async fn serve(stream: TcpStream, peer: Peer, transport: Transport, shared: Arc<Shared>, seat: Seat) {
    // Requests and replies are small, and their receivers wait for them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let handshake_deadline = Instant::now() + shared.handshake_timeout;
    let served = async {
        match transport {
            Transport::Plain => {
                let (reading, writing) = stream.into_split();
                converse(reading, writing, peer, handshake_deadline, shared, &seat).await;
            }
            #[cfg(feature = "tls")]
            Transport::Tls(acceptor) => {
                // Boxed, so that the tasks of plain connections are no larger for it.
                let accepting = Box::pin(accept_tls(stream, &acceptor, handshake_deadline));
                let Some(stream) = accepting.await else { return };
                let peer = Peer { certificate_name: super::tls::certificate_name(&stream), ..peer };
                let (reading, writing) = tokio::io::split(stream);
                Box::pin(converse(reading, writing, peer, handshake_deadline, shared, &seat)).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = seat.cut.notified() => {}
        () = served => {}
    }
}

#[cfg(feature = "tls")]
async fn accept_tls(
    stream: TcpStream,
    acceptor: &tokio_rustls::TlsAcceptor,
    deadline: Instant,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match timeout_at(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            // A certificate is a mistake of somebody's configuration; port scanners fail otherwise.
            let is_of_certificate =
                error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()).is_some_and(|error| {
                    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
                        || matches!(error, rustls::Error::AlertReceived(_))
                });
            match is_of_certificate {
                true => tracing::warn!(%error, "the TLS handshake failed"),
                false => tracing::info!(%error, "the TLS handshake failed"),
            }
            None
        }
        Err(_) => {
            tracing::info!("the client did not finish the TLS handshake in time");
            None
        }
    }
}

async fn converse<R, W>(
    mut reading: R,
    mut writing: W,
    peer: Peer,
    handshake_deadline: Instant,
    shared: Arc<Shared>,
    seat: &Seat,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut input = Input::default();
    let Ok(Ok(start)) = timeout_at(handshake_deadline, read_start(&mut reading, &mut input)).await else { return };
    if start == Start::Unknown || (start == Start::Version0_8 && !shared.facts.speaks_0_8) {
        drop(timeout(LAST_WRITE_TIMEOUT, writing.write_all(&shared.facts.protocol_header)).await);
        linger(&mut reading, &mut writing, &shared).await;
        return;
    }
    let Some((id, outbox)) = shared.open(peer, start == Start::Version0_8, &seat.cut) else {
        tracing::warn!("connection refused: the broker has connections_max of them");
        return;
    };
    // The core forgets the connection however this task ends.
    let registered = Registered { shared: &shared, id };
    let reader = Reader { shared: &shared, id, outbox: &outbox, seat, handshake_deadline };
    let writer = Writer { shared: &shared, id, outbox: &outbox };
    let flow = tokio::select! {
        biased;
        flow = reader.run(&mut reading, input) => flow,
        error = writer.run(&mut writing) => {
            shared.with(|core, _| core.note_end(id, &format!("cannot write to the client: {error}")));
            return;
        }
    };
    if let Flow::ClosePaused(pause) = flow {
        sleep(pause).await;
    }
    drop(registered);
    if let Ok(Ok(())) = timeout(LAST_WRITE_TIMEOUT, writer::write_rest(&mut writing, &outbox)).await {
        linger(&mut reading, &mut writing, &shared).await;
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

struct Registered<'a> {
    shared: &'a Shared,
    id: ConnectionId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.close(self.id);
    }
}

/// Reads until the client closes its end, so that it receives our last frames: the kernel answers unread input with a
/// reset, which discards them.
async fn linger<R, W>(reading: &mut R, writing: &mut W, shared: &Shared)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // TLS sends a `close_notify`, which a client that does not read could block.
    if !matches!(timeout(LINGER_TIMEOUT, writing.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut stopping = shared.stopping();
    let mut buffer = BytesMut::with_capacity(LINGER_READ_BYTES);
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

const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_READ_BYTES: usize = 4 * 1_024;
