//! Channels for publishing: opened with few round trips, and one for each exchange.
//!
//! The broker closes the channel of a publish to an exchange that is gone, or that the user may not write to. So the requests
//! of a channel have one exchange, and what closes the channel is true of all of them.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use super::pending::EXCHANGES;
use crate::{
    connection::{
        Channel, Connection,
        amqp::{ACCESS_REFUSED, ExchangeDeclaration, NOT_FOUND, Properties, Publish},
        within,
    },
    error::Error,
    topology,
};

/// The exchange of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
    /// `rpc`.
    Requests,
    /// The default exchange: the bare profile.
    Default,
    /// `rpc.nested`: calls that a handler makes.
    Nested,
}

impl Exchange {
    /// By their index.
    pub(super) const ALL: [Self; EXCHANGES] = [Self::Requests, Self::Default, Self::Nested];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Requests => topology::EXCHANGE,
            Self::Default => "",
            Self::Nested => topology::NESTED_EXCHANGE,
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }

    const fn declarations(self) -> &'static [ExchangeDeclaration] {
        match self {
            Self::Requests => &topology::REQUEST_EXCHANGES,
            Self::Default => &[],
            Self::Nested => &topology::SERVICE_EXCHANGES,
        }
    }
}

/// Whether the broker confirms the publishes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Confirms,
}

/// Opens a channel for publishing to an exchange, in `epoch` or in the next one that is open; returns the epoch, too.
pub(super) async fn open_for(
    connection: &Connection,
    epoch: Option<u64>,
    exchange: Exchange,
    mode: Mode,
) -> Result<(Channel, u64), Error> {
    open_with(connection, epoch, exchange.declarations(), mode).await
}

/// As [`open_for`], for any exchanges, the last of which is published to. One that exists needs no permission to be declared.
///
/// RabbitMQ 4.3 tells of an exchange only those with some right on it. A caller needs none on the exchanges behind its own one, so
/// these count as declared by the one that declared that.
pub(super) async fn open_with(
    connection: &Connection,
    epoch: Option<u64>,
    exchanges: &[ExchangeDeclaration],
    mode: Mode,
) -> Result<(Channel, u64), Error> {
    match open_once(connection, epoch, exchanges, true, mode).await {
        Err(Error::Refused { reply_code: NOT_FOUND, .. }) => open_once(connection, epoch, exchanges, false, mode).await,
        Err(Error::Refused { reply_code: ACCESS_REFUSED, .. }) if exchanges.len() > 1 => {
            open_once(connection, epoch, &exchanges[exchanges.len() - 1..], true, mode).await
        }
        opened => opened,
    }
}

/// Whether the user may publish to an exchange. It is asked with a message that no queue takes, on a channel of its own: a refusal
/// ends the channel.
///
/// # Errors
/// The broker's refusal, or the loss of the connection.
pub(super) async fn try_publish(
    connection: &Connection,
    epoch: u64,
    exchange: &str,
    declarations: &[ExchangeDeclaration],
) -> Result<(), Error> {
    let (channel, _) = open_with(connection, Some(epoch), declarations, Mode::Confirms).await?;
    let properties = Properties::default();
    let publish = Publish { exchange, routing_key: b"", mandatory: false, properties, body: b"" };
    let confirm = channel.publish_for_confirm(publish)?;
    let confirmed = within_limit("publish to an exchange", confirm.wait()).await.map(drop);
    if confirmed.is_ok() {
        return confirmed;
    }
    match channel.refusal().await {
        Some(refusal) => Err(refusal.error(format!("publish to exchange '{exchange}'"))),
        None => confirmed,
    }
}

async fn open_once(
    connection: &Connection,
    epoch: Option<u64>,
    exchanges: &[ExchangeDeclaration],
    is_passive: bool,
    mode: Mode,
) -> Result<(Channel, u64), Error> {
    let (channel, epoch) = match epoch {
        Some(epoch) => (connection.channel_of(epoch).await?, epoch),
        None => connection.channel_and_epoch().await?,
    };
    let mut steps: Vec<Step<'_>> = vec![Box::pin(channel.watch())];
    if mode == Mode::Confirms {
        steps.push(Box::pin(channel.confirm_select()));
    }
    for exchange in exchanges {
        steps.push(Box::pin(channel.declare_exchange(exchange, is_passive)));
    }
    within_limit("open a channel for requests", in_one_flight(steps)).await?;
    channel.note_use();
    Ok((channel, epoch))
}

/// One method and its answer.
pub(super) type Step<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Sends the methods together, in their order, and waits for all the answers.
///
/// # Errors
/// That of the first method that failed: it closed the channel, and the later ones failed with it.
pub(super) async fn in_one_flight(mut steps: Vec<Step<'_>>) -> Result<(), Error> {
    let mut answers: Vec<_> = steps.iter().map(|_| Poll::Pending).collect();
    poll_fn(|cx| {
        for (step, answer) in steps.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_pending()) {
            *answer = step.as_mut().poll(cx);
        }
        first_failure(&answers)
    })
    .await
}

/// Ready at the first answer that is a failure, or when all are there. Answers arrive in order, so one that is missing decides.
fn first_failure(answers: &[Poll<Result<(), Error>>]) -> Poll<Result<(), Error>> {
    answers.iter().find(|answer| !matches!(answer, Poll::Ready(Ok(())))).cloned().unwrap_or(Poll::Ready(Ok(())))
}

/// Limits the wait for the broker's answers; then it is asked again, on another channel.
pub(super) async fn within_limit<T>(
    operation: &str,
    answers: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    within(ANSWER_LIMIT, operation, answers).await
}

/// RabbitMQ answers in milliseconds, and in seconds while a cluster finds out that a node is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn failed(reason: &str) -> Poll<Result<(), Error>> {
        Poll::Ready(Err(Error::Disconnected { reason: reason.to_owned() }))
    }

    #[test]
    fn the_first_failure_counts_and_an_earlier_answer_is_waited_for() {
        let ok = || Poll::Ready(Ok(()));
        assert!(matches!(first_failure(&[ok(), ok()]), Poll::Ready(Ok(()))));
        assert!(first_failure(&[ok(), Poll::Pending, failed("third")]).is_pending());
        let answers = [ok(), failed("second"), failed("third"), Poll::Pending];
        let Poll::Ready(Err(Error::Disconnected { reason })) = first_failure(&answers) else { panic!("{answers:?}") };
        assert_eq!(reason, "second");
    }

    #[tokio::test]
    async fn all_methods_are_sent_before_the_first_answer() {
        let (first, second) = (Notify::new(), Notify::new());
        let steps: Vec<Step<'_>> = vec![
            Box::pin(async {
                first.notify_one();
                second.notified().await;
                Ok(())
            }),
            Box::pin(async {
                first.notified().await;
                second.notify_one();
                Ok(())
            }),
        ];
        within_limit("send both", in_one_flight(steps)).await.unwrap();
    }
}
