//! The subjects compared: the same echo of 32 bytes, four ways.

pub(crate) mod bare;
pub(crate) mod best;
pub(crate) mod framework;
pub(crate) mod usual;

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use clap::ValueEnum;
use futures_core::Stream;
use lapin::{message::Delivery, options::QueueDeleteOptions};

use crate::Result;

/// One way to make calls.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// rpc-core.
    Framework,
    /// rpc-core over lapin.
    OverLapin,
    /// rpc-core, whose workers acknowledge when the reply is confirmed.
    AfterConfirmedReply,
    /// rpc-core, whose workers acknowledge before the handler runs.
    BeforeHandler,
    /// lapin as most programs use it.
    Usual,
    /// lapin as fast as we could make it, acks after replies.
    Best,
    /// The same, when an ack may overtake its reply.
    BestUnordered,
    /// lapin with nothing above it: no calls, no waiters, no tasks, only the framework's messages.
    Bare,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Framework => "framework",
            Self::OverLapin => "over-lapin",
            Self::AfterConfirmedReply => "after-confirmed-reply",
            Self::BeforeHandler => "before-handler",
            Self::Usual => "usual",
            Self::Best => "best",
            Self::BestUnordered => "best-unordered",
            Self::Bare => "bare",
        }
    }
}

/// The argument and result of every echo. Plain numbers: a `String` would add the user's allocations to the
/// framework's.
type Id = (u64, u64, u64);

const ID: Id = (0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);

/// The request's body: `{"id": ID}` in MessagePack.
const BODY: &[u8; 32] =
    b"\x81\xa2id\x93\xcf\x01\x01\x01\x01\x01\x01\x01\x01\xcf\x02\x02\x02\x02\x02\x02\x02\x02\xcf\x03\x03\x03\x03\x03\x03\x03\x03";

/// The reply's body: `ID` in MessagePack.
const REPLY: &[u8; 28] =
    b"\x93\xcf\x01\x01\x01\x01\x01\x01\x01\x01\xcf\x02\x02\x02\x02\x02\x02\x02\x02\xcf\x03\x03\x03\x03\x03\x03\x03\x03";

/// Unacknowledged deliveries a worker may hold.
const PREFETCH: u16 = 256;

/// Deletes the service queue, the only durable thing that is left behind.
pub(crate) async fn delete_queue(url: &str) -> Result<()> {
    let connection = connect(url).await?;
    let channel = connection.create_channel().await?;
    channel.queue_delete(format!("rpc.{}", framework::SERVICE).into(), QueueDeleteOptions::default()).await?;
    Ok(connection.close(200, "done".into()).await?)
}

async fn connect(url: &str) -> Result<lapin::Connection> {
    Ok(lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await?)
}

/// The next delivery.
async fn next(consumer: &mut lapin::Consumer) -> Result<Delivery> {
    let delivery = std::future::poll_fn(|cx| Pin::new(&mut *consumer).poll_next(cx)).await;
    Ok(delivery.ok_or("the consumer was cancelled")??)
}

/// A delivery that has arrived already.
fn next_ready(consumer: &mut lapin::Consumer) -> Result<Option<Delivery>> {
    match Pin::new(consumer).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => Ok(None),
        Poll::Ready(None) => Err("the consumer was cancelled".into()),
        Poll::Ready(Some(delivery)) => Ok(Some(delivery?)),
    }
}

/// Starts what lapin queues at the first poll, and waits for nothing.
fn start<T>(future: impl Future<Output = lapin::Result<T>>) -> Result<()> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(error)) => Err(error.into()),
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
    }
}
