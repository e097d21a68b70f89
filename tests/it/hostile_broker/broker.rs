//! A broker that keeps to the protocol up to one moment, and plays a script there.
//!
//! ```text
//!  client ──method──► Session ──┬── any other moment ──► the proper answer
//!                               └── the scenario's ────► its lines, one after another (see `play`)
//! ```
//!
//! A request is answered with "ok", a one-way request with its confirm.

use std::{
    collections::HashMap,
    future::pending,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rpc_tests::wire::{
    Arguments, Cursor, FRAME_END, Method, encode_frame, encode_header, encode_method, kind, method_of, show,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use super::scenarios::Scenario;

/// A running broker for one scenario; stopped when dropped.
pub(super) struct Scripted {
    uri: String,
    has_departed: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

/// Counts of the work of the clients.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) channels: AtomicUsize,
    pub(super) confirmed: AtomicUsize,
    pub(super) nacked: AtomicUsize,
    /// Requests that reached their queue.
    pub(super) taken: AtomicUsize,
    /// The mechanisms that the clients chose.
    pub(super) mechanisms: Mutex<Vec<String>>,
}

impl Scripted {
    pub(super) async fn start(scenario: &Scenario) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let has_departed = Arc::<AtomicBool>::default();
        let connections = Arc::<AtomicUsize>::default();
        let counts = Arc::<Counts>::default();
        let shared = (Arc::clone(&has_departed), Arc::clone(&counts));
        let task = accept(listener, scenario.clone(), shared, Arc::clone(&connections));
        Self { uri: format!("amqp://{address}"), has_departed, connections, counts, task: tokio::spawn(task) }
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// How many connections it has accepted.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether the client has come to the moment of the script.
    pub(super) fn has_departed(&self) -> bool {
        self.has_departed.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    scenario: Scenario,
    (has_departed, counts): (Arc<AtomicBool>, Arc<Counts>),
    connections: Arc<AtomicUsize>,
) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        let shared = (Arc::clone(&has_departed), Arc::clone(&counts));
        let session = Session::new(stream, scenario.clone(), number, shared);
        // An error says that the client has closed its end.
        sessions.spawn(async move { drop(session.run().await) });
    }
}

/// One connection.
struct Session {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
    scenario: Scenario,
    /// Of the connection, from 1.
    number: usize,
    has_departed: Arc<AtomicBool>,
    counts: Arc<Counts>,
    is_silent: bool,
    /// Channel and tag of the consumer of replies, and its queue.
    replies: (u16, String, String),
    /// Publishes of the channels in confirm mode.
    confirms: HashMap<u16, u64>,
    /// Channels that have published, and whether they are stuck.
    published: HashMap<u16, bool>,
    stuck: usize,
    /// The publish that is under way.
    content: Option<Content>,
    correlation_id: String,
}

/// The content of a publish.
struct Content {
    correlation_id: String,
    is_call: bool,
    missing_bytes: u64,
}

/// The client's side of a moment.
struct Moment<'a> {
    name: &'a str,
    channel: u16,
    /// Its method, in the notation of transcripts.
    shown: &'a str,
}

/// A script goes on, or was the end of the connection.
enum Next {
    GoOn,
    End,
}

impl Session {
    fn new(
        stream: TcpStream,
        scenario: Scenario,
        number: usize,
        (has_departed, counts): (Arc<AtomicBool>, Arc<Counts>),
    ) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        let (input, output) = stream.into_split();
        let (input, is_silent, replies, confirms) = (BufReader::new(input), false, Default::default(), HashMap::new());
        let (published, stuck, content, correlation_id) = (HashMap::new(), 0, None, String::new());
        Self {
            input,
            output,
            scenario,
            number,
            has_departed,
            counts,
            is_silent,
            replies,
            confirms,
            published,
            stuck,
            content,
            correlation_id,
        }
    }

    async fn run(mut self) -> io::Result<()> {
        let mut header = [0; 8];
        self.input.read_exact(&mut header).await?;
        if let Next::End = self.at(Moment { name: "header", channel: 0, shown: "" }).await? {
            return Ok(());
        }
        loop {
            let (kind, channel, payload) = self.frame().await?;
            let moment = self.note(kind, channel, &payload);
            let Some(name) = moment else { continue };
            let shown = show(kind, &payload);
            if let Next::End = self.at(Moment { name, channel, shown: &shown }).await? {
                return Ok(());
            }
        }
    }

    async fn frame(&mut self) -> io::Result<(u8, u16, Vec<u8>)> {
        let mut start = [0; 7];
        self.input.read_exact(&mut start).await?;
        let [kind, c0, c1, length @ ..] = start;
        let mut payload = vec![0; u32::from_be_bytes(length) as usize + 1];
        self.input.read_exact(&mut payload).await?;
        assert_eq!(payload.pop(), Some(FRAME_END), "the client sends frames");
        Ok((kind, u16::from_be_bytes([c0, c1]), payload))
    }

    /// Takes a frame in; returns the moment that it makes.
    fn note(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Option<&'static str> {
        let shown = show(kind, payload);
        match kind {
            kind::METHOD => {
                let name = method_of(payload)?.name;
                match name {
                    "basic.publish" => return None,
                    "basic.consume" if value(&shown, "queue").starts_with("rpc.reply.") => {
                        self.replies = (channel, tag(&shown), value(&shown, "queue"));
                    }
                    "channel.open" => {
                        self.counts.channels.fetch_add(1, Ordering::Relaxed);
                        self.published.remove(&channel);
                        self.confirms.remove(&channel);
                    }
                    "confirm.select" => drop(self.confirms.insert(channel, 0)),
                    "connection.start-ok" => {
                        let mut mechanisms =
                            self.counts.mechanisms.lock().expect("nothing panics while it holds the lock");
                        mechanisms.push(value(&shown, "mechanism"));
                    }
                    _ => {}
                }
                return Some(name);
            }
            kind::HEADER => {
                let size = shown.split_once("size=").map_or("0", |(_, rest)| rest);
                let size = size.split(' ').next().and_then(|size| size.parse().ok()).unwrap_or_default();
                let (correlation_id, is_call) = (value(&shown, "correlation_id"), shown.contains(" reply_to="));
                self.content = Some(Content { correlation_id, is_call, missing_bytes: size });
            }
            kind::BODY => {
                let content = self.content.as_mut()?;
                content.missing_bytes = content.missing_bytes.saturating_sub(payload.len() as u64);
            }
            _ => return None,
        }
        let Content { correlation_id, is_call, .. } = self.content.take_if(|content| content.missing_bytes == 0)?;
        if let Some(published) = self.confirms.get_mut(&channel) {
            *published += 1;
            self.counts.confirmed.fetch_add(1, Ordering::Relaxed);
        }
        if !is_call {
            return Some("oneway");
        }
        self.correlation_id = correlation_id;
        Some("request")
    }

    /// Whether a channel gets no message through; its first publish decides.
    fn is_stuck(&mut self, channel: u16) -> bool {
        let (stuck, limit) = (&mut self.stuck, self.scenario.stuck_channels);
        *self.published.entry(channel).or_insert_with(|| {
            *stuck += 1;
            *stuck <= limit
        })
    }

    async fn refuse(&mut self, channel: u16) -> io::Result<Next> {
        if let Some(published) = self.confirms.get(&channel) {
            self.counts.nacked.fetch_add(1, Ordering::Relaxed);
            let nack = format!("basic.nack delivery_tag={published}");
            self.output.write_all(&frame(channel, &nack).expect("it is in the notation")).await?;
        }
        Ok(Next::GoOn)
    }

    async fn at(&mut self, moment: Moment<'_>) -> io::Result<Next> {
        if self.is_silent {
            return Ok(Next::GoOn);
        }
        if matches!(moment.name, "request" | "oneway") {
            if self.is_stuck(moment.channel) {
                return self.refuse(moment.channel).await;
            }
            self.counts.taken.fetch_add(1, Ordering::Relaxed);
        }
        let is_the_moment = self.scenario.at == moment.name;
        let is_any = self.scenario.on_connection == 0;
        let is_the_one = is_the_moment && (is_any || self.number == self.scenario.on_connection);
        if is_the_one && (!self.has_departed.swap(true, Ordering::Relaxed) || is_any) {
            for line in self.scenario.script.clone() {
                if let Next::End = self.play(line, &moment).await? {
                    return Ok(Next::End);
                }
            }
            return Ok(Next::GoOn);
        }
        if self.number < self.scenario.on_connection && moment.name == "request" {
            return Ok(Next::End);
        }
        let answer = self.answer(&moment, 0);
        self.output.write_all(&answer).await?;
        Ok(if moment.name == "connection.close" { Next::End } else { Next::GoOn })
    }

    /// Plays a line:
    ///
    /// ```text
    ///  answer              the proper answer; `half` of it, `drip`: a byte at a time, `elsewhere`: on the next channel
    ///  silence             nothing is answered any more; `freeze`: nor read; `close`: the socket is closed
    ///  wait 500            milliseconds
    ///  raw "bytes"         as they are
    ///  nested 900 reply    a content header on that channel, `nested 900 start`: a `connection.start`, with tables in tables
    ///  flood LINE          that line again and again, for a second
    ///  CHANNEL METHOD …    a method in the notation of transcripts; the channel is a number, `same` as the client's, or `reply`
    ///  CHANNEL header size=3 …    CHANNEL body "bytes"    CHANNEL frame 9 "bytes"
    /// ```
    ///
    /// `$id` is the correlation_id of the last request, `$tag` and `$queue` are those of the client's consumer.
    async fn play(&mut self, line: &str, moment: &Moment<'_>) -> io::Result<Next> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "close" => return Ok(Next::End),
            "freeze" => pending().await,
            "silence" => self.is_silent = true,
            "wait" => sleep(Duration::from_millis(rest.parse().expect("a number"))).await,
            "drip" => {
                for byte in self.answer(moment, 0) {
                    self.output.write_all(&[byte]).await?;
                    sleep(Duration::from_millis(10)).await;
                }
            }
            "flood" => {
                let bytes = self.bytes(rest, moment).repeat(64);
                let end = Instant::now() + Duration::from_secs(1);
                while Instant::now() < end {
                    self.output.write_all(&bytes).await?;
                }
            }
            _ => {
                let bytes = self.bytes(line, moment);
                self.output.write_all(&bytes).await?;
            }
        }
        Ok(Next::GoOn)
    }

    /// The bytes of a line that only writes.
    fn bytes(&self, line: &str, moment: &Moment<'_>) -> Vec<u8> {
        let (_, tag, queue) = &self.replies;
        let line = line.replace("$id", &self.correlation_id).replace("$tag", tag).replace("$queue", queue);
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "answer" => self.answer(moment, 0),
            "half" => {
                let mut answer = self.answer(moment, 0);
                answer.truncate(answer.len() / 2);
                answer
            }
            "elsewhere" => self.answer(moment, 1),
            "raw" => Cursor::new(rest).bytes().expect("it is in the notation"),
            "nested" => self.nested(rest),
            _ => {
                let channel = match word {
                    "same" => moment.channel,
                    "reply" => self.replies.0,
                    number => number.parse().unwrap_or_else(|_| panic!("a channel: {line}")),
                };
                frame(channel, rest).unwrap_or_else(|error| panic!("{line}: {error}"))
            }
        }
    }

    fn nested(&self, arguments: &str) -> Vec<u8> {
        let (depth, kind) = arguments.split_once(' ').expect("depth and kind");
        let depth: u32 = depth.parse().expect("a number");
        // From outside: each level is a length, and a field of three bytes with the next one.
        let mut table: Vec<u8> =
            (1..=depth).rev().flat_map(|level| [&(7 * level).to_be_bytes()[..], b"\x01aF"].concat()).collect();
        table.extend([0; 4]);
        let mut out = Vec::new();
        match kind {
            "start" => {
                let payload = [&b"\0\x0a\0\x0a\0\x09"[..], &table, b"\0\0\0\x05PLAIN\0\0\0\x05en_US"].concat();
                encode_frame(kind::METHOD, 0, &payload, &mut out);
            }
            _ => {
                let size = 3_u64.to_be_bytes();
                let payload = [&b"\0\x3c\0\0"[..], &size, b"\x20\0", &table].concat();
                encode_frame(kind::HEADER, self.replies.0, &payload, &mut out);
            }
        }
        out
    }

    /// The frames of a broker that does as it should, on a channel that is so many too high.
    fn answer(&self, &Moment { name, channel, shown }: &Moment<'_>, too_high: u16) -> Vec<u8> {
        let answer = match name {
            "header" => "connection.start version_minor=9 mechanisms=\"PLAIN AMQPLAIN\" locales=en_US".to_owned(),
            "connection.start-ok" => "connection.tune channel_max=2047 frame_max=131072 heartbeat=60".to_owned(),
            "queue.declare" => format!("queue.declare-ok queue=\"{}\"", value(shown, "queue")),
            "basic.consume" => format!("basic.consume-ok consumer_tag=\"{}\"", tag(shown)),
            "basic.cancel" => format!("basic.cancel-ok consumer_tag=\"{}\"", value(shown, "consumer_tag")),
            "oneway" => {
                let published = self.confirms.get(&channel).copied().unwrap_or_default();
                format!("basic.ack delivery_tag={published}")
            }
            "request" => {
                let confirm =
                    self.confirms.get(&channel).map(|published| format!("basic.ack delivery_tag={published}"));
                let confirm = confirm.and_then(|ack| frame(channel + too_high, &ack).ok()).unwrap_or_default();
                return [confirm, self.reply(too_high)].concat();
            }
            name if Method::named(name).is_some_and(Method::is_request) => format!("{name}-ok"),
            _ => return Vec::new(),
        };
        frame(channel + too_high, &answer).unwrap_or_else(|error| panic!("{answer}: {error}"))
    }

    fn reply(&self, too_high: u16) -> Vec<u8> {
        let (channel, tag, queue) = &self.replies;
        let id = &self.correlation_id;
        [
            format!("basic.deliver consumer_tag=\"{tag}\" delivery_tag=1 routing_key=\"{queue}\""),
            format!("header size=3 type=rpc.ok correlation_id=\"{id}\""),
            "body \"\\xa2ok\"".to_owned(),
        ]
        .iter()
        .flat_map(|line| frame(channel + too_high, line).expect("it is in the notation"))
        .collect()
    }
}

/// A frame in the notation of transcripts.
fn frame(channel: u16, line: &str) -> Result<Vec<u8>, String> {
    let mut cursor = Cursor::new(line);
    let (kind, payload) = match cursor.word() {
        "header" => {
            let mut arguments = Arguments::read(&mut cursor)?;
            let size = arguments.remove_number("size")?.unwrap_or_default();
            (kind::HEADER, encode_header(size, &mut arguments)?)
        }
        "body" => (kind::BODY, cursor.bytes()?),
        "frame" => {
            let kind = cursor.word().parse().map_err(|error| format!("a kind of frame: {error}"))?;
            (kind, cursor.bytes()?)
        }
        name => {
            let method = Method::named(name).ok_or_else(|| format!("no method: {name}"))?;
            let mut arguments = Arguments::read(&mut cursor)?;
            let payload = encode_method(method, &mut arguments)?;
            arguments.finish()?;
            (kind::METHOD, payload)
        }
    };
    let mut out = Vec::new();
    encode_frame(kind, channel, &payload, &mut out);
    Ok(out)
}

/// A quoted value of a method or header as it is shown.
fn value(shown: &str, name: &str) -> String {
    let begun = shown.split_once(&format!(" {name}=\"")).map_or("", |(_, rest)| rest);
    begun.split('"').next().unwrap_or_default().to_owned()
}

/// The tag of a consumer; lapin leaves the choice to the broker.
fn tag(shown: &str) -> String {
    let tag = value(shown, "consumer_tag");
    if tag.is_empty() { "given".to_owned() } else { tag }
}
