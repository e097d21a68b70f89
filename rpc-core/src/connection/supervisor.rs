//! Keeps a connection open: turns a link's events into states, and reopens what was lost.
//!
//! ```text
//!  Connected ◄──► Blocked
//!      │ lost
//!      ▼
//!  Reconnecting ──pause (full jitter), next node──► Connected   (a new epoch: new channels, new reply queues)
//!      └──attempts spent──► Closed
//! ```
//!
//! lapin's own recovery stays off: it restores channels silently, and calls in flight would never end. Nor does it read every frame
//! that brokers send (text in it must be UTF-8). Such a message is redelivered, and would cost each session: after two of them the
//! next one is native.

use std::{borrow::Cow, convert::Infallible, future::pending, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    amqp::Event,
    backoff::Backoff,
    credentials::{Login, Provider},
    limit::{ANSWER_LIMIT, within},
    link::Link,
    options::{ConnectionOptions, Transport},
    state::{ConnectionState, Current},
    uri::Endpoint,
};
use crate::error::Error;

/// The task behind a connection.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) endpoints: Vec<Endpoint>,
    /// The endpoint of the current epoch.
    pub(super) at: usize,
    pub(super) options: ConnectionOptions,
    pub(super) current: watch::Sender<Current>,
    /// Sessions in a row that ended with a frame that the transport could not read.
    pub(super) unreadable: u32,
}

/// The end of an epoch.
struct Lost {
    reason: String,
    is_unreadable: bool,
}

impl Lost {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_unreadable: false }
    }
}

impl Supervisor {
    /// Runs until the connection is closed for good.
    pub(super) async fn run(mut self, mut link: Arc<Link>, mut login: Login) {
        let mut backoff = self.options.backoff();
        loop {
            let Lost { reason: lost, is_unreadable } = self.follow(&link, login).await;
            self.unreadable = if is_unreadable { self.unreadable + 1 } else { 0 };
            // A broker that takes connections and nothing else must not be asked ever faster.
            if link.was_used() {
                backoff = self.options.backoff();
            }
            if !self.enter(ConnectionState::Reconnecting { reason: lost.clone() }) {
                return;
            }
            tracing::warn!(reason = lost, "connection lost");
            match self.reopen(lost, &mut backoff).await {
                Ok(opened) => {
                    link = Arc::new(opened.link);
                    login = opened.login;
                    let next = Arc::clone(&link);
                    if !self.change(|current| current.reopen(next)) {
                        return;
                    }
                }
                Err(reason) => {
                    tracing::error!(reason, "connection given up");
                    self.change(|current| drop(current.close(&reason)));
                    return;
                }
            }
        }
    }

    fn enter(&self, state: ConnectionState) -> bool {
        self.change(|current| current.enter(state))
    }

    /// Changes what the handles of the connection see; false, and no change, once the application has closed it: a close is
    /// final, and can come at any moment.
    fn change(&self, change: impl FnOnce(&mut Current)) -> bool {
        self.current.send_if_modified(|current| {
            let is_open = !current.state.is_closed();
            if is_open {
                change(current);
            }
            is_open
        })
    }

    /// Follows one epoch to its end, and returns why it ended.
    async fn follow(&self, link: &Link, login: Login) -> Lost {
        let mut renewals = pin!(self.renew(link, login));
        let mut events = link.events();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                never = &mut renewals => match never {},
                // A connection that is lost without an event must not make calls wait for ever.
                _ = look.tick() => if link.is_connected() { continue } else { None },
            };
            match event {
                Some(Event::Blocked(reason)) => {
                    tracing::warn!(reason, "connection blocked by the broker");
                    self.enter(ConnectionState::Blocked { reason });
                }
                Some(Event::Unblocked) => {
                    tracing::info!("connection unblocked");
                    self.enter(ConnectionState::Connected);
                }
                #[cfg(feature = "lapin")]
                Some(Event::Unreadable(reason)) => return Lost { reason, is_unreadable: true },
                Some(Event::Failed(reason)) if !link.is_connected() => return Lost::new(reason),
                // The users of a channel see its failure themselves.
                Some(Event::Failed(_)) => {}
                None => return Lost::new("the connection ended"),
            }
        }
    }

    /// Renews the login of a link before it expires, each time.
    async fn renew(&self, link: &Link, mut login: Login) -> Infallible {
        let Some(provider) = &self.options.credentials else { return pending().await };
        let mut backoff = self.options.backoff();
        while let Some(pause) = login.renewal() {
            sleep(pause).await;
            let mut failed = self.renew_once(link, provider, &mut login).await.err();
            while let Some(error) = failed {
                tracing::warn!(%error, "could not renew the login of the connection");
                sleep(backoff.pause()).await;
                failed = self.renew_once(link, provider, &mut login).await.err();
            }
            backoff = self.options.backoff();
        }
        pending().await
    }

    async fn renew_once(&self, link: &Link, provider: &Provider, login: &mut Login) -> Result<(), Error> {
        let credentials = provider.ask(self.options.connect_timeout).await?;
        let mut renewed = login.clone();
        match renewed.renew(credentials) {
            Some(secret) => {
                within(ANSWER_LIMIT, "update the secret", link.update_secret(&secret)).await?;
                tracing::debug!("the login of the connection is renewed");
            }
            None => tracing::debug!("the credentials are those of another user, who logs in with the next connection"),
        }
        *login = renewed;
        Ok(())
    }

    /// The endpoint of the next attempt.
    fn next_endpoint(&self) -> Endpoint {
        let mut endpoint = self.endpoints[self.at].clone();
        if self.unreadable >= UNREADABLE_MAX {
            tracing::warn!(
                "lapin could not read what the broker sent, {UNREADABLE_MAX} times: the next session is native"
            );
            endpoint.transport = Some(Transport::Native);
        }
        endpoint
    }

    /// Tries the nodes in turn, from the one after the last.
    async fn reopen(&mut self, mut reason: String, backoff: &mut Backoff) -> Result<Opened, String> {
        let mut attempt = 0;
        loop {
            if self.options.reconnect_attempts.is_some_and(|attempts| attempt >= attempts) {
                return Err(reason);
            }
            attempt += 1;
            sleep(backoff.pause()).await;
            self.at = (self.at + 1) % self.endpoints.len();
            match open_link(&self.next_endpoint(), &self.options).await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    reason = error.to_string();
                    tracing::warn!(attempt, reason, "could not reconnect");
                    self.enter(ConnectionState::Reconnecting { reason: reason.clone() });
                }
            }
        }
    }
}

/// The task can end with the runtime that opened the connection: nothing reopens it then.
impl Drop for Supervisor {
    fn drop(&mut self) {
        let reason =
            "the runtime that opened the connection has ended: open connections in one that lives as long as they do";
        self.change(|current| drop(current.close(reason)));
    }
}

/// A link, and the login that it was opened with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) login: Login,
}

/// Makes one attempt to open a connection, within the limit of the options and that of the URI; before it the provider of
/// credentials has as long.
pub(super) async fn open_link(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Opened, Error> {
    let mut endpoint = Cow::Borrowed(endpoint);
    let login = match &options.credentials {
        None => Login::default(),
        Some(provider) => {
            let (login, password) = Login::new(provider.ask(options.connect_timeout).await?);
            let endpoint = endpoint.to_mut();
            endpoint.user = login.user().to_owned();
            endpoint.password = password;
            login
        }
    };
    let endpoint = &*endpoint;
    let in_uri = endpoint.connection_timeout.filter(|limit| !limit.is_zero());
    let limit = in_uri.map_or(options.connect_timeout, |limit| limit.min(options.connect_timeout));
    let link = within(limit, &format!("connect to {}", endpoint.address()), Link::open(endpoint, options)).await?;
    tracing::info!(broker = ?endpoint, name = options.name, "connected");
    Ok(Opened { link, login })
}

/// So many sessions of lapin may end with the same message.
const UNREADABLE_MAX: u32 = 2;
/// The interval of checks whether the connection still lives, besides its events.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(feature = "broker")]
#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{broker::Broker, connection::Connection, task::AbortOnDrop};

    async fn open(broker: &Broker) -> (Endpoint, Arc<Link>) {
        let uri = format!("{}?transport=native", broker.uri());
        let endpoint = Endpoint::parse(&uri).expect("it is a good URI");
        let opened = open_link(&endpoint, &ConnectionOptions::default()).await.expect("the broker is there");
        (endpoint, Arc::new(opened.link))
    }

    #[tokio::test]
    async fn the_shorter_of_two_limits_ends_the_attempt_to_connect() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let port = silent.local_addr().expect("it is bound").port();
        for (in_uri_ms, option_ms) in [(50, 10_000), (10_000, 50)] {
            let uri = format!("amqp://127.0.0.1:{port}?transport=native&connection_timeout={in_uri_ms}");
            let endpoint = Endpoint::parse(&uri).expect("it is a good URI");
            let options = ConnectionOptions::default().connect_timeout(Duration::from_millis(option_ms));
            let refused = open_link(&endpoint, &options).await.expect_err("the peer is silent");
            assert!(matches!(refused, Error::TimedOut { limit, .. } if limit.as_millis() == 50), "{refused}");
        }
    }

    #[tokio::test]
    async fn no_change_is_seen_after_a_close() {
        let broker = Broker::builder().start().await.expect("the bundled broker starts");
        let (endpoint, link) = open(&broker).await;
        let (_, late) = open(&broker).await;
        let current = watch::Sender::new(Current::new(Arc::clone(&link)));
        let supervisor = Supervisor {
            endpoints: vec![endpoint],
            at: 0,
            options: ConnectionOptions::default(),
            current: current.clone(),
            unreadable: 0,
        };
        assert!(supervisor.enter(ConnectionState::Blocked { reason: String::new() }));
        assert!(matches!(current.borrow().state, ConnectionState::Blocked { .. }));
        current.send_modify(|current| drop(current.close("closed")));
        // As the supervisor does when it has just reopened the connection.
        assert!(!supervisor.change(|current| current.reopen(late)));
        assert!(!supervisor.enter(ConnectionState::Connected));
        assert!(matches!(&*current.borrow(), Current { link: None, state: ConnectionState::Closed { .. }, .. }));
    }

    /// The supervisor has not run yet when a caller asks: the state still says `Connected`.
    #[tokio::test]
    async fn a_channel_is_never_one_of_a_link_that_has_ended() {
        let broker = Broker::builder().start().await.expect("the bundled broker starts");
        let ((_, ended), (_, living)) = (open(&broker).await, open(&broker).await);
        ended.close().await.expect("the broker confirms");
        let current = watch::Sender::new(Current::new(ended));
        let connection = Connection::new(current.clone(), Some(AbortOnDrop::spawn(std::future::pending())), None);
        let mut channel = std::pin::pin!(connection.channel());
        tokio::select! {
            biased;
            channel = &mut channel => panic!("{channel:?}"),
            () = tokio::task::yield_now() => {}
        }
        current.send_modify(|current| current.reopen(living));
        let channel = channel.await.expect("the next epoch has one");
        channel.qos(1).await.expect("it is a channel of the living link");
    }

    #[tokio::test]
    async fn a_channel_asked_for_while_the_connection_is_lost_is_one_of_the_next_epoch() {
        let broker = Broker::builder().start().await.expect("the bundled broker starts");
        let uri = format!("{}?transport=native", broker.uri());
        let options = ConnectionOptions::default().reconnect_delay_initial(Duration::from_millis(1));
        let connection = Connection::open_with(&uri, options).await.expect("the broker is there");
        for round in 0..20 {
            let mut states = connection.states();
            assert_eq!(broker.faults().drop_connections(), 1);
            if round % 2 == 0 {
                states.wait_for(|state| *state != ConnectionState::Connected).await.expect("it is lost");
            }
            // In the odd rounds the loss may not have arrived: then the channel is lost with the link, and the next one works.
            loop {
                let channel = connection.channel().await.expect("the next epoch has one");
                match channel.qos(1).await {
                    Ok(()) => break,
                    Err(error) => assert!(round % 2 == 1, "{error}"),
                }
            }
            states.wait_for(|state| *state == ConnectionState::Connected).await.expect("it is open again");
        }
    }

    #[tokio::test]
    async fn channel_and_close_race_to_a_channel_or_an_error_that_says_closed() {
        let broker = Broker::builder().start().await.expect("the bundled broker starts");
        let uri = format!("{}?transport=native", broker.uri());
        for _ in 0..20 {
            let connection = Connection::open(&uri).await.expect("the broker is there");
            let (channel, closed) = tokio::join!(connection.channel(), connection.close());
            closed.expect("the broker confirms");
            assert!(matches!(channel, Ok(_) | Err(Error::Closed { .. })), "{channel:?}");
            let late = connection.channel().await;
            assert!(matches!(late, Err(Error::Closed { .. })), "{late:?}");
        }
    }
}
