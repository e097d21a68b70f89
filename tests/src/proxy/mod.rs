//! A TCP proxy that understands frames: stops the world between two AMQP methods, on either side of either end.
//!
//! ```text
//!  peer ──► hold from the next basic.publish, basic.ack │ stall ──► broker
//!  peer ◄── hold from the next basic.deliver            │ stall ◄── broker
//!           cut: both sockets close, what is held is lost          refuse: new connections are closed at once
//!           lose: a method of the peer's is dropped                ignore_prefetch: the broker knows of no prefetch count
//! ```
//!
//! It holds one frame in each direction of a connection and reads no further, so what it buffers is bounded. It counts
//! the methods that pass, so that a test knows when one has.

mod pump;

use std::time::Duration;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::within;

/// A proxy in front of a broker; dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    uri: String,
    control: watch::Sender<Control>,
    listener: JoinHandle<()>,
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client or the worker.
    ToBroker,
    /// To the client or the worker.
    ToPeer,
}

/// The methods a test waits for or stops at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `basic.publish`.
    Publish,
    /// `basic.ack`.
    Ack,
    /// `basic.deliver`.
    Deliver,
    /// `connection.blocked`.
    Blocked,
    /// `channel.open`.
    OpenChannel,
    /// `exchange.declare`.
    DeclareExchange,
    /// `queue.declare`.
    DeclareQueue,
    /// `queue.bind`.
    Bind,
    /// `basic.qos`.
    Qos,
    /// `basic.consume`.
    Consume,
    /// `connection.update-secret`.
    UpdateSecret,
}

/// How many there are.
const METHODS: usize = Method::UpdateSecret as usize + 1;

impl Proxy {
    /// A proxy in front of the broker at `uri`, on a free port.
    ///
    /// # Panics
    /// When the operating system gives no port.
    pub async fn start(uri: &str) -> Self {
        let (before, rest) = uri.rsplit_once('@').unwrap_or_else(|| uri.split_at("amqp://".len()));
        // The vhost and the parameters.
        let (authority, more) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("it is bound");
        let before = if before.ends_with("//") { before.to_owned() } else { format!("{before}@") };
        let (control, _) = watch::channel(Control::default());
        let listener = tokio::spawn(accept(listener, authority.to_owned(), control.clone()));
        Self { uri: format!("{before}{own}{more}"), control, listener }
    }

    /// The URI that clients connect to instead of the broker's.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Holds the next `method` in that direction, and everything behind it, until [`release`](Self::release).
    pub fn hold(&self, direction: Direction, method: Method) {
        self.control.send_modify(|control| control.way_mut(direction).hold = Hold::From(method));
    }

    /// Holds everything in that direction until [`release`](Self::release).
    pub fn stall(&self, direction: Direction) {
        self.control.send_modify(|control| control.way_mut(direction).hold = Hold::Everything);
    }

    /// Loses the next `times` of `method` from a peer that have `words` in them: to the peer the broker does not answer.
    pub fn lose(&self, method: Method, words: &str, times: usize) {
        self.control.send_modify(|control| control.losing.push(Losing { method, words: words.into(), times }));
    }

    /// Loses no method any more.
    pub fn lose_nothing(&self) {
        self.control.send_modify(|control| control.losing.clear());
    }

    /// Waits until all is lost that was to be.
    ///
    /// # Panics
    /// When it is not within 30 s.
    pub async fn has_lost_all(&self) {
        let mut control = self.control.subscribe();
        let lost = control.wait_for(|control| control.losing.is_empty());
        drop(within(WAIT_LIMIT, "the methods are lost", lost).await.expect("the sender is ours"));
    }

    /// Takes the prefetch count out of every `basic.qos`: a broker that ignores it.
    pub fn ignore_prefetch(&self) {
        self.control.send_modify(|control| control.ignores_prefetch = true);
    }

    /// Lets everything pass again.
    pub fn release(&self) {
        self.control.send_modify(|control| control.ways.iter_mut().for_each(|way| way.hold = Hold::Nothing));
    }

    /// Closes every connection, on both sides; what is held is lost. Nothing is held afterwards.
    pub fn cut(&self) {
        self.control.send_modify(|control| {
            control.cuts += 1;
            for way in &mut control.ways {
                way.hold = Hold::Nothing;
                way.is_holding = false;
            }
        });
    }

    /// Closes new connections at once, until [`accept`](Self::accept).
    pub fn refuse(&self) {
        self.control.send_modify(|control| control.is_refusing = true);
    }

    /// Accepts connections again.
    pub fn accept(&self) {
        self.control.send_modify(|control| control.is_refusing = false);
    }

    /// Does what a broker short of memory does: says `connection.blocked`, and reads no further than the next
    /// `basic.publish`.
    pub fn block(&self) {
        self.control.send_modify(|control| control.is_blocked = true);
    }

    /// Says `connection.unblocked` and reads on.
    pub fn unblock(&self) {
        self.control.send_modify(|control| control.is_blocked = false);
    }

    /// Waits until a frame is held in that direction.
    ///
    /// # Panics
    /// When none is within 30 s.
    pub async fn is_holding(&self, direction: Direction) {
        let mut control = self.control.subscribe();
        let held = control.wait_for(|control| control.way(direction).is_holding);
        drop(within(WAIT_LIMIT, &format!("a frame {direction:?} is held"), held).await.expect("the sender is ours"));
    }

    /// Waits until that many `method` have passed in that direction since the proxy was started.
    ///
    /// # Panics
    /// When they have not within 30 s.
    pub async fn has_passed(&self, direction: Direction, method: Method, count: usize) {
        let mut control = self.control.subscribe();
        let passed = control.wait_for(|control| control.way(direction).passed[method as usize] >= count);
        let what = format!("{count} of {method:?} pass {direction:?}");
        drop(within(WAIT_LIMIT, &what, passed).await.expect("the sender is ours"));
    }

    /// How many of these methods have passed.
    pub fn passed(&self, direction: Direction, method: Method) -> usize {
        self.control.borrow().way(direction).passed[method as usize]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its connections are tasks of this one.
        self.listener.abort();
    }
}

/// The orders of the test, and the events that the proxy has seen.
#[derive(Debug, Default)]
struct Control {
    is_refusing: bool,
    is_blocked: bool,
    ignores_prefetch: bool,
    losing: Vec<Losing>,
    /// Connections older than the last cut end.
    cuts: u64,
    ways: [Way; 2],
}

#[derive(Debug, Default)]
struct Way {
    hold: Hold,
    is_holding: bool,
    /// By `Method`.
    passed: [usize; METHODS],
}

/// A method that is lost so many times.
#[derive(Debug)]
struct Losing {
    method: Method,
    words: Vec<u8>,
    times: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    Nothing,
    From(Method),
    Everything,
}

impl Control {
    fn way(&self, direction: Direction) -> &Way {
        &self.ways[direction as usize]
    }

    fn way_mut(&mut self, direction: Direction) -> &mut Way {
        &mut self.ways[direction as usize]
    }

    /// Whether a frame from a peer is lost.
    fn loses(&mut self, method: Method, frame: &[u8]) -> bool {
        let has = |words: &[u8]| words.is_empty() || frame.windows(words.len()).any(|window| window == words);
        let Some(at) = self.losing.iter().position(|losing| losing.method == method && has(&losing.words)) else {
            return false;
        };
        self.losing[at].times -= 1;
        if self.losing[at].times == 0 {
            self.losing.remove(at);
        }
        true
    }

    /// Whether a frame must wait; `method` is `None` for those nobody asks about.
    fn holds(&self, direction: Direction, method: Option<Method>) -> bool {
        let is_blocked = self.is_blocked && direction == Direction::ToBroker && method == Some(Method::Publish);
        is_blocked
            || match self.way(direction).hold {
                Hold::Nothing => false,
                Hold::From(from) => method == Some(from),
                Hold::Everything => true,
            }
    }
}

/// Owns the connections: they end with it.
async fn accept(listener: TcpListener, upstream: String, control: watch::Sender<Control>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((peer, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if !control.borrow().is_refusing {
            connections.spawn(connect(peer, upstream.clone(), control.clone()));
        }
    }
}

/// One connection, until either end closes it or it is cut.
async fn connect(peer: TcpStream, upstream: String, control: watch::Sender<Control>) {
    let mut cuts = control.subscribe();
    let before = cuts.borrow().cuts;
    // A broker that is away closes the connection, as the broker itself would.
    let Ok(broker) = TcpStream::connect(upstream).await else { return };
    // Small frames, and the other end waits for each.
    drop((peer.set_nodelay(true), broker.set_nodelay(true)));
    let (from_peer, to_peer) = peer.into_split();
    let (from_broker, to_broker) = broker.into_split();
    // The end of one direction ends both, and is no failure of the proxy.
    tokio::select! {
        _ = pump::requests(from_peer, to_broker, &control) => {}
        _ = pump::deliveries(from_broker, to_peer, &control) => {}
        _ = cuts.wait_for(|control| control.cuts != before) => {}
    }
}

const WAIT_LIMIT: Duration = Duration::from_secs(30);
