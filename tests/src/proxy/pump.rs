//! One direction of one connection, frame by frame.

use std::io;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::watch,
};

use super::{Control, Direction, Method};

/// From the peer to the broker.
pub(super) async fn requests(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    control: &watch::Sender<Control>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut to = BufWriter::new(to);
    // `AMQP0091`, which is no frame.
    let mut header = [0; 8];
    from.read_exact(&mut header).await?;
    to.write_all(&header).await?;
    to.flush().await?;
    let mut frame = Vec::new();
    loop {
        pass(&mut from, &mut to, &mut frame, Direction::ToBroker, control).await?;
    }
}

/// From the broker to the peer; says `connection.blocked` and `connection.unblocked` between two frames.
pub(super) async fn deliveries(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    control: &watch::Sender<Control>,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut to = BufWriter::new(to);
    let mut blocked = control.subscribe();
    let (mut is_open, mut is_blocked) = (false, false);
    let mut frame = Vec::new();
    loop {
        if is_open {
            tokio::select! {
                biased;
                // The guard must not live across the next await.
                changed = async { blocked.wait_for(|control| control.is_blocked != is_blocked).await.map(drop) } => {
                    changed.map_err(io::Error::other)?;
                    is_blocked = !is_blocked;
                    to.write_all(if is_blocked { BLOCKED } else { UNBLOCKED }).await?;
                    to.flush().await?;
                    if is_blocked {
                        count(control, Direction::ToPeer, Some(Method::Blocked));
                    }
                    continue;
                }
                // Cancelling it loses nothing, unlike reading a whole frame.
                ready = from.fill_buf() => drop(ready?),
            }
        }
        pass(&mut from, &mut to, &mut frame, Direction::ToPeer, control).await?;
        is_open = is_open || ids(&frame) == Some(OPEN_OK);
    }
}

/// Hands one frame on, when it may pass.
async fn pass(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut BufWriter<OwnedWriteHalf>,
    frame: &mut Vec<u8>,
    direction: Direction,
    control: &watch::Sender<Control>,
) -> io::Result<()> {
    read_frame(from, frame).await?;
    let method = ids(frame).and_then(known);
    if let (Direction::ToBroker, Some(method)) = (direction, method) {
        if control.send_if_modified(|control| control.loses(method, frame)) {
            return flush_last(from, to).await;
        }
        if method == Method::Qos && control.borrow().ignores_prefetch {
            frame[PREFETCH_COUNT].fill(0);
        }
    }
    if control.borrow().holds(direction, method) {
        // The frames before it are passed on first.
        to.flush().await?;
        let mut released = control.subscribe();
        let cuts = released.borrow().cuts;
        control.send_modify(|control| control.way_mut(direction).is_holding = true);
        drop(released.wait_for(|control| control.cuts != cuts || !control.holds(direction, method)).await);
        if control.borrow().cuts != cuts {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        control.send_modify(|control| control.way_mut(direction).is_holding = false);
    }
    to.write_all(frame).await?;
    flush_last(from, to).await?;
    count(control, direction, method);
    Ok(())
}

/// Flushes after the last frame that has arrived.
async fn flush_last(from: &BufReader<OwnedReadHalf>, to: &mut BufWriter<OwnedWriteHalf>) -> io::Result<()> {
    if from.buffer().is_empty() { to.flush().await } else { Ok(()) }
}

/// type, channel, size, payload, end.
async fn read_frame(from: &mut BufReader<OwnedReadHalf>, frame: &mut Vec<u8>) -> io::Result<()> {
    frame.resize(7, 0);
    from.read_exact(frame).await?;
    let payload_bytes = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
    if payload_bytes > PAYLOAD_MAX_BYTES {
        return Err(io::Error::other("a frame larger than any broker agrees to"));
    }
    frame.resize(7 + payload_bytes + 1, 0);
    from.read_exact(&mut frame[7..]).await.map(drop)
}

/// class_id and method_id of a method frame.
fn ids(frame: &[u8]) -> Option<(u16, u16)> {
    match frame {
        [1, _, _, _, _, _, _, class_high, class_low, method_high, method_low, ..] => {
            Some((u16::from_be_bytes([*class_high, *class_low]), u16::from_be_bytes([*method_high, *method_low])))
        }
        _ => None,
    }
}

fn known(ids: (u16, u16)) -> Option<Method> {
    match ids {
        (60, 40) => Some(Method::Publish),
        (60, 80) => Some(Method::Ack),
        (60, 60) => Some(Method::Deliver),
        (10, 60) => Some(Method::Blocked),
        (20, 10) => Some(Method::OpenChannel),
        (40, 10) => Some(Method::DeclareExchange),
        (50, 10) => Some(Method::DeclareQueue),
        (50, 20) => Some(Method::Bind),
        (60, 10) => Some(Method::Qos),
        (60, 20) => Some(Method::Consume),
        (10, 70) => Some(Method::UpdateSecret),
        _ => None,
    }
}

fn count(control: &watch::Sender<Control>, direction: Direction, method: Option<Method>) {
    if let Some(method) = method {
        control.send_modify(|control| control.way_mut(direction).passed[method as usize] += 1);
    }
}

/// Of `basic.qos`, in its frame.
const PREFETCH_COUNT: std::ops::Range<usize> = 15..17;

/// `connection.open-ok`.
const OPEN_OK: (u16, u16) = (10, 41);
/// `connection.blocked` with the reason `test`, and `connection.unblocked`: whole frames on channel 0.
const BLOCKED: &[u8] = &[1, 0, 0, 0, 0, 0, 9, 0, 10, 0, 60, 4, b't', b'e', b's', b't', 0xce];
const UNBLOCKED: &[u8] = &[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 61, 0xce];

/// Both brokers agree to 128 KiB at most.
const PAYLOAD_MAX_BYTES: usize = 1 << 20;
