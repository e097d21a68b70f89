//! Runs one scenario on one broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use rpc_tests::wire::{self, Arguments, Cursor, FRAME_END, Method, Received, Socket, encode_header, kind};

use crate::{
    link::Link,
    names::Names,
    scenario::{Answerer, Scenario, Step},
};

/// How long to wait for what comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Nobody knows what comes: wait until it has been quiet for long.
    Record,
    /// So many answers are expected: wait for those, then see briefly that nothing else comes.
    Compare,
}

/// The broker under test.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// The broker's answers, step by step; `Err` when the scenario itself is wrong, or the broker does not even connect.
pub(crate) type Transcript = Result<Vec<Vec<String>>, String>;

/// Runs a scenario; the answers of `answerer` say how many a step has.
pub(crate) fn run(scenario: &Scenario, target: &Target, run: usize, pace: Pace, answerer: Answerer) -> Transcript {
    let mut stage = Stage::new(target.clone(), Names::new(run));
    let mut transcript = Vec::new();
    let mut is_as_expected = pace == Pace::Compare;
    for step in &scenario.steps {
        let expected = step.expected(answerer);
        let answers = stage
            .step(step, is_as_expected.then_some(expected.len()))
            .map_err(|error| format!("{}: {error}", step.commands.join(" / ")))?;
        is_as_expected &= answers == expected;
        transcript.push(answers);
    }
    stage.clean_up();
    Ok(transcript)
}

struct Stage {
    target: Target,
    names: Names,
    links: BTreeMap<char, Link>,
    sender: Sender<(char, Received)>,
    events: Receiver<(char, Received)>,
    /// Queues and exchanges to delete in the end.
    declared: BTreeSet<String>,
}

/// An answer on its way into the transcript.
struct Answer {
    link: char,
    /// Beyond all channels for the end of the connection.
    channel: u32,
    /// Of a confirm.
    delivery_tag: Option<u64>,
    text: String,
}

impl Stage {
    fn new(target: Target, names: Names) -> Self {
        let (sender, events) = mpsc::channel();
        Self { target, names, links: BTreeMap::new(), sender, events, declared: BTreeSet::new() }
    }

    fn step(&mut self, step: &Step, expected: Option<usize>) -> Result<Vec<String>, String> {
        let mut answers = Vec::new();
        let mut is_awaiting = false;
        for command in &step.commands {
            let line = self.names.fill_in(command);
            is_awaiting |= self.command(&line, &mut answers)?;
        }
        self.flush();
        self.collect(expected, is_awaiting, &mut answers);
        // Channels are served independently; nobody promises an order between them.
        answers.sort_by_key(|answer| (answer.link, answer.channel));
        for run in answers.chunk_by_mut(|one, other| {
            one.link == other.link
                && one.channel == other.channel
                && one.delivery_tag.is_some()
                && other.delivery_tag.is_some()
        }) {
            run.sort_by_key(|answer| answer.delivery_tag);
        }
        Ok(answers.iter().map(|answer| self.names.normalise(&answer.text)).collect())
    }

    /// Prepares what a command sends; whether something has to come back.
    fn command(&mut self, line: &str, answers: &mut Vec<Answer>) -> Result<bool, String> {
        let mut cursor = Cursor::new(line);
        let peer = cursor.word();
        if peer == "wait" {
            self.flush();
            let limit = Instant::now() + Duration::from_millis(wire_number(cursor.word())?);
            while let Some((link, received)) = self.next(limit.saturating_duration_since(Instant::now())) {
                self.note(link, &received, answers);
            }
            return Ok(false);
        }
        let letter = peer.chars().next().filter(char::is_ascii_uppercase).ok_or("a connection's letter expected")?;
        let is_as_it_is = peer.ends_with('!');
        let channel = match peer[1..].trim_end_matches('!') {
            "" => 0,
            digits => u16::try_from(wire_number(digits)?).map_err(|error| error.to_string())?,
        };
        let verb = cursor.word();
        let mut arguments = match verb {
            "bytes" => Arguments::default(),
            _ => Arguments::read(&mut cursor.clone())?,
        };
        match verb {
            "tcp" => {
                self.tcp(letter)?;
                arguments.finish()?;
                return Ok(false);
            }
            "connect" => {
                self.connect(letter, arguments, answers)?;
                return Ok(false);
            }
            _ => {}
        }
        if !self.links.contains_key(&letter) {
            self.connect(letter, Arguments::default(), answers)?;
        }
        let method = Method::named(verb);
        let is_opening = method.is_some_and(|method| method.name == "channel.open");
        if channel > 0 && !is_as_it_is && !is_opening {
            self.open(letter, channel, answers)?;
        }
        let link = self.links.get_mut(&letter).ok_or("not connected")?;
        match verb {
            "disconnect" => {
                link.socket.disconnect();
                return Ok(true);
            }
            "heartbeat" => {
                link.put_frame(kind::HEARTBEAT, channel, &[]);
                return Ok(false);
            }
            "send" | "bytes" => {
                let bytes = if verb == "send" {
                    arguments.remove_bytes("bytes")?.ok_or("bytes=… expected")?
                } else {
                    hexadecimal(&mut cursor)?
                };
                link.put(&bytes);
            }
            "header" => {
                let size = arguments.remove_number("size")?.unwrap_or(0);
                let payload = encode_header(size, &mut arguments)?;
                link.put_frame(kind::HEADER, channel, &payload);
            }
            "body" => {
                let payload = arguments.remove_bytes("bytes")?.unwrap_or_default();
                link.put_frame(kind::BODY, channel, &payload);
            }
            "frame" => {
                let payload = arguments.remove_bytes("payload")?.unwrap_or_default();
                let size = arguments.remove_number("size")?.unwrap_or(payload.len() as u32);
                link.put(&[arguments.remove_number("type")?.ok_or("type=… expected")?]);
                link.put(&channel.to_be_bytes());
                link.put(&size.to_be_bytes());
                link.put(&payload);
                link.put(&[arguments.remove_number("end")?.unwrap_or(FRAME_END)]);
            }
            _ => {
                let method = method.ok_or_else(|| format!("unknown command {verb}"))?;
                let is_silent = arguments.clone().remove("no_wait").is_some();
                if matches!(verb, "queue.declare" | "exchange.declare") {
                    let name = verb.split('.').next().unwrap_or_default();
                    let name = arguments.clone().remove_bytes(name)?.unwrap_or_default();
                    self.declared.extend(String::from_utf8(name).ok().filter(|name| self.names.is_own(name)));
                }
                link.put_method(channel, method, arguments)?;
                return Ok(method.is_request() && !is_silent);
            }
        }
        arguments.finish()?;
        // Bytes like these are mostly sent to be refused.
        Ok(true)
    }

    fn flush(&mut self) {
        for link in self.links.values_mut() {
            // The broker may have closed it; then its answers tell.
            let _ = link.flush();
        }
    }

    fn tcp(&mut self, letter: char) -> Result<(), String> {
        let sender = self.sender.clone();
        // The scenario may be over while something still arrives.
        let sink = move |received| drop(sender.send((letter, received)));
        let socket = Socket::connect(self.target.address, sink).map_err(|error| error.to_string())?;
        self.links.insert(letter, Link::new(socket));
        Ok(())
    }

    /// Connects as a library would. A refusal is noted in the transcript.
    fn connect(&mut self, letter: char, mut arguments: Arguments<'_>, answers: &mut Vec<Answer>) -> Result<(), String> {
        self.tcp(letter)?;
        let user = arguments.remove_bytes("user")?.unwrap_or_else(|| self.target.user.clone().into());
        let password = arguments.remove_bytes("password")?.unwrap_or_else(|| self.target.password.clone().into());
        let vhost = arguments.remove_bytes("vhost")?.unwrap_or_else(|| b"/".to_vec());
        let channel_max = arguments.remove_number("channel_max")?.unwrap_or(2047u16);
        let frame_max = arguments.remove_number("frame_max")?.unwrap_or(131_072u32);
        let heartbeat = arguments.remove_number("heartbeat")?.unwrap_or(0u16);
        let capabilities = match arguments.remove("capabilities") {
            Some(mut cursor) => wire::show_table(&cursor.table()?),
            None => CAPABILITIES.to_owned(),
        };
        arguments.finish()?;
        let response = [b"\0", &user[..], b"\0", &password[..]].concat();
        let start_ok = format!(
            "client_properties={{capabilities: {capabilities}}} mechanism=PLAIN response={} locale=en_US",
            wire::quote(&response)
        );
        let tune_ok = format!("channel_max={channel_max} frame_max={frame_max} heartbeat={heartbeat}");
        let open = format!("virtual_host={}", wire::quote(&vhost));
        self.link(letter)?.put(b"AMQP\0\0\x09\x01");
        self.link(letter)?.frame_max = frame_max as usize;
        if !self.converse(letter, 0, "", "", "connection.start", answers)?
            || !self.converse(letter, 0, "connection.start-ok", &start_ok, "connection.tune", answers)?
        {
            return Ok(());
        }
        let method = Method::named("connection.tune-ok").ok_or("no such method")?;
        self.link(letter)?.put_method(0, method, Arguments::read(&mut Cursor::new(&tune_ok))?)?;
        self.converse(letter, 0, "connection.open", &open, "connection.open-ok", answers)?;
        Ok(())
    }

    /// Opens a channel, if the scenario has not done so.
    fn open(&mut self, letter: char, channel: u16, answers: &mut Vec<Answer>) -> Result<(), String> {
        if self.link(letter)?.channels.contains(&channel) {
            return Ok(());
        }
        // The answers to earlier bytes come before this one's.
        self.converse(letter, channel, "channel.open", "", "channel.open-ok", answers)?;
        Ok(())
    }

    /// Sends a method and waits for its answer, which stays out of the transcript; whether that was what came.
    fn converse(
        &mut self,
        letter: char,
        channel: u16,
        name: &str,
        arguments: &str,
        answer: &str,
        answers: &mut Vec<Answer>,
    ) -> Result<bool, String> {
        let link = self.link(letter)?;
        if let Some(method) = Method::named(name) {
            link.put_method(channel, method, Arguments::read(&mut Cursor::new(arguments))?)?;
        }
        // The broker may have closed it; then its answers tell.
        let _ = link.flush();
        let limit = Instant::now() + ANSWER_LIMIT;
        while let Some((from, received)) = self.next(limit.saturating_duration_since(Instant::now())) {
            let is_answer = from == letter
                && matches!(&received, Received::Frame { kind: kind::METHOD, channel: of, payload }
                    if *of == channel && wire::method_of(payload).is_some_and(|method| method.name == answer));
            if is_answer {
                return Ok(true);
            }
            self.note(from, &received, answers);
            if from == letter && received == Received::Eof {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn collect(&mut self, expected: Option<usize>, is_awaiting: bool, answers: &mut Vec<Answer>) {
        let (mut patience, quiet) = match expected {
            Some(_) => (EXPECTED_LIMIT, QUIET),
            None if is_awaiting => (RECORD_LIMIT, LONG_QUIET),
            None => (LONG_QUIET, LONG_QUIET),
        };
        loop {
            let is_complete = match expected {
                Some(expected) => answers.len() >= expected,
                None => !answers.is_empty(),
            };
            if is_complete {
                patience = quiet;
            }
            match self.next(patience) {
                Some((link, received)) => self.note(link, &received, answers),
                None => return,
            }
        }
    }

    fn next(&self, patience: Duration) -> Option<(char, Received)> {
        self.events.recv_timeout(patience).ok()
    }

    /// Takes what was received into the transcript.
    fn note(&mut self, letter: char, received: &Received, answers: &mut Vec<Answer>) {
        let mut answer = |channel: u32, delivery_tag, text| {
            answers.push(Answer { link: letter, channel, delivery_tag, text });
        };
        let (frame_kind, channel, payload) = match received {
            Received::Frame { kind: kind::HEARTBEAT, .. } => return,
            Received::Frame { kind, channel, payload } => (*kind, *channel, payload),
            Received::ProtocolHeader(header) => {
                return answer(0, None, format!("{letter} protocol-header {}", wire::quote(header)));
            }
            Received::BadFrameEnd(end) => return answer(0, None, format!("{letter} bad-frame-end {end}")),
            // After a close-ok either side may close the socket first.
            Received::Eof if self.links.get(&letter).is_some_and(|link| link.is_closed) => return,
            Received::Eof => return answer(u32::MAX, None, format!("{letter} eof")),
        };
        let shown = wire::show(frame_kind, payload);
        if shown == "connection.close-ok"
            && let Some(link) = self.links.get_mut(&letter)
        {
            link.is_closed = true;
        }
        let confirm = ["basic.ack", "basic.nack"].into_iter().find(|name| shown.starts_with(*name));
        if let Some(name) = confirm
            && let Some((delivery_tag, is_multiple)) = delivery_tag(&shown)
            && let Some(link) = self.links.get_mut(&letter)
        {
            let tags = link.confirm(channel, delivery_tag, is_multiple);
            if tags.is_empty() {
                answer(channel.into(), None, format!("{letter}{channel} {shown} of nothing outstanding"));
            }
            for tag in tags {
                answer(channel.into(), Some(tag), format!("{letter}{channel} {name} delivery_tag={tag}"));
            }
            return;
        }
        answer(channel.into(), None, format!("{letter}{channel} {shown}"));
    }

    fn link(&mut self, letter: char) -> Result<&mut Link, String> {
        self.links.get_mut(&letter).ok_or_else(|| "not connected".to_owned())
    }

    /// Deletes what the scenario declared.
    fn clean_up(mut self) {
        self.links.clear();
        if self.declared.is_empty() {
            return;
        }
        let mut nothing = Vec::new();
        // A broker that no longer answers has failed the scenario already.
        for name in std::mem::take(&mut self.declared) {
            for (letter, class) in [('Y', "exchange"), ('Z', "queue")] {
                if !self.links.contains_key(&letter) {
                    let _ = self.connect(letter, Arguments::default(), &mut nothing);
                }
                let _ = self.open(letter, 1, &mut nothing);
                let (request, answer) = (format!("{class}.delete"), format!("{class}.delete-ok"));
                let argument = format!("{class}={}", wire::quote(name.as_bytes()));
                let is_deleted = self.converse(letter, 1, &request, &argument, &answer, &mut nothing);
                if is_deleted != Ok(true) {
                    self.links.remove(&letter);
                    thread::sleep(QUIET);
                }
            }
        }
    }
}

fn delivery_tag(shown: &str) -> Option<(u64, bool)> {
    let (_, rest) = shown.split_once("delivery_tag=")?;
    let (tag, rest) = rest.split_once(' ')?;
    Some((tag.parse().ok()?, rest.starts_with("multiple=true")))
}

fn hexadecimal(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while !cursor.is_at_end() {
        let word = cursor.word();
        for at in (0..word.len()).step_by(2) {
            let digits = word.get(at..at + 2).ok_or_else(|| format!("odd number of digits: {word}"))?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|error| format!("{digits}: {error}"))?);
        }
    }
    Ok(bytes)
}

fn wire_number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|error| format!("{word:?}: {error}"))
}

const CAPABILITIES: &str = "{publisher_confirms: true, exchange_exchange_bindings: true, basic.nack: true, \
     consumer_cancel_notify: true, connection.blocked: true, authentication_failure_close: true}";

/// A broker that has not answered a method by then is stuck.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait for the first answer when recording.
const RECORD_LIMIT: Duration = Duration::from_millis(1500);
/// How long expected answers may take.
const EXPECTED_LIMIT: Duration = Duration::from_secs(3);
/// How long to watch for an answer that is not expected.
const QUIET: Duration = Duration::from_millis(40);
/// The same when it is not known what to expect.
const LONG_QUIET: Duration = Duration::from_millis(300);
