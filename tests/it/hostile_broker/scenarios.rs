//! The scenarios: a moment of a connection, and the broker's lines at it (`Session::play` has their notation).

/// One departure from the protocol, or from the behaviour that a client hopes for.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: String,
    /// The client's method that the script answers; `header` is the protocol header, `request` a whole request, `oneway` a whole
    /// one-way request.
    pub(super) at: &'static str,
    /// The connection that has the moment, from 1; earlier ones are closed by the first request. 0 is each of them.
    pub(super) on_connection: usize,
    pub(super) script: Vec<&'static str>,
    /// So many channels of a connection, in the order of their first publishes, get no message through: it is nacked, or lost
    /// without a sign where nothing is confirmed. So are RabbitMQ's while the record of a quorum queue names a node that has gone.
    pub(super) stuck_channels: usize,
}

impl Scenario {
    /// Whether it keeps a thread busy.
    pub(super) fn is_flood(&self) -> bool {
        self.script.iter().any(|line| line.starts_with("flood"))
    }

    /// Whether lapin cannot be protected from it: it decodes tables recursively, in a debug build on a tenth of the levels.
    pub(super) fn ends_lapin(&self) -> bool {
        self.script.iter().any(|line| line.starts_with("nested 900") || line.starts_with("nested 18000"))
    }

    pub(super) fn new(name: &str, at: &'static str, on_connection: usize, script: &[&'static str]) -> Self {
        let nth = if on_connection > 1 { ", reopened" } else { "" };
        Self { name: format!("{name} at {at}{nth}"), at, on_connection, script: script.to_vec(), stuck_channels: 0 }
    }
}

/// Nothing is wrong but the first channels.
pub(super) fn stuck(channels: usize) -> Scenario {
    Scenario { stuck_channels: channels, ..Scenario::new("stuck", "never", 1, &[]) }
}

/// All of them.
pub(super) fn all() -> Vec<Scenario> {
    let mut scenarios = vec![Scenario::new("nothing wrong", "never", 1, &[])];
    for (name, script) in ANYWHERE {
        scenarios.extend(MOMENTS.iter().map(|at| Scenario::new(name, at, 1, script)));
        scenarios.extend(REOPENED.iter().map(|at| Scenario::new(name, at, 2, script)));
    }
    for (class, moments) in [("connection", &CONNECTION_CLOSES[..]), ("channel", &CHANNEL_CLOSES)] {
        for at in moments {
            for (code, line) in closes(class) {
                scenarios.push(Scenario::new(&format!("{class}.close {code}"), at, 1, &[line]));
            }
        }
    }
    for (at, scripts) in [
        ("header", STARTS),
        ("connection.start-ok", TUNES),
        ("connection.open", OPENS),
        ("channel.open", CHANNEL_OPENS),
        ("queue.declare", DECLARES),
        ("basic.consume", CONSUMES),
        ("request", REPLIES),
        ("request", CONTENTS),
        ("request", ENDS),
        ("request", FLOODS),
        ("request", ACKS),
        ("oneway", ACKS),
    ] {
        let named = scripts.iter().enumerate();
        scenarios.extend(named.map(|(nth, script)| Scenario::new(&format!("{} ({nth})", script[0]), at, 1, script)));
    }
    scenarios
}

/// A close with that code, for each code; the line lives as long as the process.
fn closes(class: &str) -> impl Iterator<Item = (u16, &'static str)> + '_ {
    CODES.into_iter().map(move |code| {
        let line = format!(
            "{} {class}.close reply_code={code} reply_text=\"words\"",
            if class == "channel" { "same" } else { "0" }
        );
        (code, &*line.leak())
    })
}

/// The first connection of a client that makes calls comes to each of them.
const MOMENTS: [&str; 10] = [
    "header",
    "connection.start-ok",
    "connection.open",
    "channel.open",
    "exchange.declare",
    "queue.declare",
    "basic.consume",
    "confirm.select",
    "request",
    "oneway",
];
const REOPENED: [&str; 5] = ["header", "connection.start-ok", "connection.open", "channel.open", "basic.consume"];
const CONNECTION_CLOSES: [&str; 5] = ["header", "connection.start-ok", "connection.open", "queue.declare", "request"];
const CHANNEL_CLOSES: [&str; 4] = ["channel.open", "queue.declare", "request", "oneway"];
/// AMQP 0-9-1 §1.2, and codes that are none.
const CODES: [u16; 17] = [0, 200, 311, 312, 313, 320, 402, 403, 404, 405, 406, 501, 504, 505, 530, 541, 65_535];

type Script = &'static [&'static str];

/// For any moment.
const ANYWHERE: &[(&str, Script)] = &[
    ("silence", &["silence"]),
    ("frozen", &["freeze"]),
    ("closed socket", &["close"]),
    ("half an answer", &["half", "silence"]),
    ("half an answer and the end", &["half", "close"]),
    ("a byte at a time", &["drip"]),
    ("answered twice", &["answer", "answer"]),
    ("answered on another channel", &["elsewhere", "silence"]),
    ("answered late", &["wait 600", "answer"]),
    ("close without words", &["0 connection.close", "silence"]),
    ("two closes", &["0 connection.close reply_code=320", "same channel.close reply_code=404", "0 connection.close"]),
    ("close of another channel", &["7 channel.close reply_code=404", "answer"]),
    ("words that are no text", &["0 connection.close reply_code=541 reply_text=\"\\xff\\xfe\"*100"]),
    ("unknown class", &["same frame 1 \"\\0\\x63\\0\\x01\""]),
    ("unknown method", &["same frame 1 \"\\0\\x3c\\0\\xc7\""]),
    ("half a method's number", &["same frame 1 \"\\0\\x3c\""]),
    ("a method that is cut off", &["0 frame 1 \"\\0\\x0a\\0\\x1e\\0\""]),
    ("empty method", &["same frame 1 \"\""]),
    ("empty method of the connection", &["0 frame 1 \"\""]),
    ("unknown kind of frame", &["same frame 9 \"x\""]),
    ("wrong end of a frame", &["raw \"\\x01\\0\\0\\0\\0\\0\\x04\\0\\x0a\\0\\x28\\0\""]),
    ("frame of 4 GiB", &["raw \"\\x01\\0\\x01\\xff\\xff\\xff\\xff\""]),
    ("frame of 128 KiB and no more", &["raw \"\\x03\\0\\x01\\0\\x01\\xff\\xf8\"", "silence"]),
    ("HTTP", &["raw \"HTTP/1.1 400 Bad Request\\r\\n\\r\\n\"", "close"]),
    ("a protocol header", &["raw \"AMQP\\0\\0\\x09\\x01\""]),
    ("a client's method", &["0 connection.open virtual_host=/"]),
    ("a publish", &["same basic.publish routing_key=x"]),
    ("an answer to another question", &["same tx.commit-ok", "silence"]),
    ("an answer nobody waits for", &["same queue.delete-ok", "answer"]),
    ("a body alone", &["same body \"x\""]),
    ("a header alone", &["same header size=3"]),
    ("content on the connection's channel", &["0 header size=3", "0 body \"abc\"", "answer"]),
    ("blocked for ever", &["0 connection.blocked reason=memory", "silence"]),
    ("blocked and answered", &["answer", "0 connection.blocked reason=memory"]),
    ("unblocked unasked", &["0 connection.unblocked", "answer"]),
    ("heartbeats without end", &["flood 0 frame 8 \"\""]),
    ("a heartbeat on a channel", &["5 frame 8 \"xyz\"", "answer"]),
    ("a delivery for nobody", &["same basic.deliver consumer_tag=x", "same header size=0", "answer"]),
    ("flow stopped", &["same channel.flow active=false", "answer"]),
    ("started again", &["0 connection.start version_minor=9 mechanisms=PLAIN", "answer"]),
    ("tuned again", &["0 connection.tune channel_max=1 frame_max=1 heartbeat=1", "answer"]),
    ("a challenge", &["0 connection.secure challenge=x", "silence"]),
    ("zeros", &["raw \"\\0\"*100000"]),
    ("frame ends", &["raw \"\\xce\"*100000"]),
    ("opened again", &["0 connection.open-ok", "same channel.open-ok", "answer"]),
    ("connection.close-ok unasked", &["0 connection.close-ok"]),
    ("channel.close-ok unasked", &["same channel.close-ok"]),
];

const STARTS: &[Script] = &[
    &["0 connection.start version_major=1 mechanisms=PLAIN"],
    &["0 connection.start version_minor=9"],
    &["0 connection.start version_minor=9 mechanisms=EXTERNAL locales=\"\""],
    &["0 connection.start version_minor=9 mechanisms=\"\\xff PLAIN\" locales=\"\\xff\""],
    &["0 connection.start version_minor=9 mechanisms=PLAIN server_properties={\"\\xff\": 1, \"\\xff\": 2}"],
    &["0 connection.start version_minor=9 mechanisms=PLAIN server_properties={capabilities: \"none\"}"],
    &["0 connection.start version_minor=9 mechanisms=\"PLAIN \"*10000"],
    &["nested 100 start"],
    &["nested 900 start", "silence"],
    &["nested 18000 start"],
    &["raw \"AMQ\"", "silence"],
    &["raw \"AMQP\\0\\x01\\0\\0\""],
    &["5 connection.start version_minor=9 mechanisms=PLAIN", "silence"],
];

const TUNES: &[Script] = &[
    &["0 connection.tune"],
    &["0 connection.tune channel_max=1 frame_max=131072"],
    &["0 connection.tune channel_max=2 frame_max=131072"],
    &["0 connection.tune channel_max=65535 frame_max=4294967295 heartbeat=65535"],
    &["0 connection.tune channel_max=2047 frame_max=1"],
    &["0 connection.tune channel_max=2047 frame_max=8"],
    &["0 connection.tune channel_max=2047 frame_max=4095"],
    &["0 connection.tune channel_max=2047 frame_max=4096 heartbeat=1"],
    &["0 connection.open-ok"],
    &["0 connection.tune frame_max=131072", "0 connection.open-ok", "0 connection.open-ok"],
];

const OPENS: &[Script] = &[
    &["0 connection.open-ok known_hosts=\"\\xff\"*255"],
    &["0 frame 1 \"\\0\\x0a\\0\\x29\\xff\""],
    &["0 connection.open-ok", "1 channel.close reply_code=404", "1 basic.deliver consumer_tag=x"],
];

const CHANNEL_OPENS: &[Script] = &[
    &["same frame 1 \"\\0\\x14\\0\\x0b\\xff\\xff\\xff\\xff\""],
    &["same channel.open-ok channel_id=\"x\"*100000"],
    &["same channel.close-ok", "same channel.open-ok"],
    &["same channel.close reply_code=504", "same channel.open-ok"],
];

const DECLARES: &[Script] = &[
    &["same queue.declare-ok queue=another"],
    &["same queue.declare-ok queue=\"\\xff\" message_count=4294967295 consumer_count=4294967295"],
    &["same queue.bind-ok", "silence"],
    &["same frame 1 \"\\0\\x32\\0\\x0b\\xffx\""],
];

const CONSUMES: &[Script] = &[
    &["same basic.consume-ok consumer_tag=another"],
    &["same basic.consume-ok consumer_tag=\"\\xff\""],
    &["same basic.cancel consumer_tag=$tag", "answer"],
    &["answer", "same basic.cancel consumer_tag=$tag"],
    &["answer", "same basic.cancel consumer_tag=\"\\xff\""],
    &["same basic.deliver consumer_tag=$tag", "same header size=0", "answer"],
];

const DELIVER: &str = "reply basic.deliver consumer_tag=$tag delivery_tag=1 routing_key=$queue";

/// Whole messages.
const REPLIES: &[Script] = &[
    &["reply basic.deliver consumer_tag=another", "reply header size=0"],
    &[DELIVER, "reply header size=0"],
    &[DELIVER, "reply header size=0 correlation_id=\"\""],
    &[DELIVER, "reply header size=0 correlation_id=\"\\xff\\xfe\""],
    &[DELIVER, "reply header size=0 correlation_id=\"x\"*255"],
    &[DELIVER, "reply header size=0 correlation_id=0000000000000000"],
    &[DELIVER, "reply header size=0 correlation_id=$id"],
    &[DELIVER, "reply header size=0 correlation_id=$id type=rpc.error"],
    &[DELIVER, "reply header size=0 correlation_id=$id type=\"\\xff\""],
    &[DELIVER, "reply header size=0 correlation_id=$id type=rpc.call"],
    &[DELIVER, "reply header size=0 correlation_id=$id type=rpc.error headers={rpc-code: \"\\xff\"}"],
    &[DELIVER, "reply header size=0 correlation_id=$id type=rpc.error headers={rpc-code: 5, rpc-message: [1]}"],
    &[DELIVER, "reply header size=0 correlation_id=$id type=rpc.error headers={rpc-code: \"service\"}"],
    &[DELIVER, "reply header size=0 correlation_id=$id type=rpc.error headers={rpc-code: \"\\x1b[31m\\n\"}"],
    &[DELIVER, "reply header size=5 correlation_id=$id type=rpc.ok", "reply body \"\\xdd\\xff\\xff\\xff\\xff\""],
    &[DELIVER, "reply header size=5 correlation_id=$id type=rpc.ok", "reply body \"\\xdb\\xff\\xff\\xff\\xff\""],
    &[DELIVER, "reply header size=100000 correlation_id=$id type=rpc.ok", "reply body \"\\x91\"*100000"],
    &[DELIVER, "reply header size=100000 correlation_id=$id type=rpc.ok", "reply body \"\\xff\"*100000"],
    &[DELIVER, "reply header size=3 correlation_id=$id content_type=\"\\xff\" type=rpc.ok", "reply body \"abc\""],
    &[DELIVER, "reply header size=3 correlation_id=$id content_type=text/html type=rpc.ok", "reply body \"abc\""],
    &["0 connection.blocked reason=memory", "answer"],
    &["answer", "answer", "answer", "silence"],
    &["reply basic.get-ok delivery_tag=1", "reply header size=0", "reply basic.get-empty", "answer"],
];

/// Messages that are wrong, or not whole.
const CONTENTS: &[Script] = &[
    &[DELIVER, "silence"],
    &[DELIVER, DELIVER],
    &[DELIVER, "reply header size=1000 correlation_id=$id", "silence"],
    &[DELIVER, "reply header size=1000 correlation_id=$id", "reply body \"x\"", "answer"],
    &[DELIVER, "reply header size=1000 correlation_id=$id", "close"],
    &[DELIVER, "reply header size=18446744073709551615 correlation_id=$id"],
    &[DELIVER, "reply header size=600000000 correlation_id=$id", "reply body \"x\""],
    &[DELIVER, "reply header size=400000000 correlation_id=$id", "reply body \"x\"", "silence"],
    &[DELIVER, "reply header size=2 correlation_id=$id", "reply body \"xxx\""],
    &[DELIVER, "reply header size=2 correlation_id=$id", "reply header size=2 correlation_id=$id"],
    &[DELIVER, "reply body \"xxx\"", "reply header size=3 correlation_id=$id"],
    &[DELIVER, "reply header size=3 correlation_id=$id", "reply channel.flow active=false"],
    &[DELIVER, "reply header size=3 correlation_id=$id", "reply channel.close reply_code=404"],
    &[DELIVER, "reply header size=3 correlation_id=$id", "0 connection.close reply_code=320"],
    &[DELIVER, "reply header size=3 correlation_id=$id", "reply frame 8 \"\"", "reply body \"\\xa2ok\""],
    &[DELIVER, "reply header size=3 correlation_id=$id", "reply body \"\"", "reply body \"\\xa2ok\""],
    &[DELIVER, "reply header size=3 correlation_id=$id", "reply body \"\"", "silence"],
    &[DELIVER, "reply header size=0 class=10"],
    &[DELIVER, "reply header size=0 weight=9"],
    &[DELIVER, "reply header size=0 flags=1"],
    &[DELIVER, "reply header size=0 flags=65535"],
    &[DELIVER, "reply frame 2 \"\\0\\x3c\""],
    &[DELIVER, "reply frame 2 \"\\0\\x3c\\0\\0\"+\"\\0\"*8+\"\\x20\\0\\xff\\xff\\xff\\xff\""],
    &[DELIVER, "reply frame 2 \"\\0\\x3c\\0\\0\"+\"\\0\"*8+\"\\x20\\0\\0\\0\\0\\x03\\x01aQ\""],
    &[DELIVER, "nested 100 reply", "reply body \"abc\"", "answer"],
    &[DELIVER, "nested 900 reply", "reply body \"abc\"", "answer"],
    &[DELIVER, "nested 18000 reply", "reply body \"abc\"", "answer"],
    &["0 basic.deliver consumer_tag=$tag", "0 header size=0", "answer"],
    &["reply frame 1 \"\\0\\x3c\\0\\x3c\\xffx\""],
    &["reply basic.deliver consumer_tag=\"\\xff\" routing_key=\"\\xff\" exchange=\"\\xff\"", "reply header size=0"],
    &["same basic.return reply_code=312 reply_text=NO_ROUTE", "same header size=0 correlation_id=$id"],
    &["same basic.return", "same header size=0 correlation_id=\"\\xff\""],
    &["same basic.return reply_text=\"\\xff\\xff\"", "same header size=0 correlation_id=$id"],
    &["same basic.return reply_code=312", "same header size=1000 correlation_id=$id", "silence"],
    &["same basic.return reply_code=312", "same basic.return reply_code=312"],
];

/// The end of something that the call needs.
const ENDS: &[Script] = &[
    &["reply basic.cancel consumer_tag=$tag"],
    &["reply basic.cancel consumer_tag=$tag", "answer"],
    &["reply basic.cancel consumer_tag=\"\\xff\"", "answer"],
    &["reply basic.consume-ok consumer_tag=$tag", "answer"],
    &["reply basic.cancel-ok consumer_tag=$tag", "silence"],
    &["1 channel.close", "2 channel.close", "3 channel.close", "4 channel.close", "5 channel.close"],
    &["reply channel.close reply_code=404 reply_text=\"\\xff\" class_id=65535 method_id=65535"],
    &["reply channel.close reply_code=406", "reply channel.close reply_code=406", "answer"],
    &["reply channel.close-ok", "answer"],
    &["answer", "close"],
    &["0 connection.update-secret-ok", "answer"],
    &["same channel.open-ok", "same confirm.select-ok", "same exchange.declare-ok", "answer"],
];

const FLOODS: &[Script] = &[
    &["flood same basic.deliver consumer_tag=another"],
    &["flood same basic.ack delivery_tag=1"],
    &["flood 9 channel.close reply_code=404"],
    &["flood same channel.flow active=true"],
    &["flood 0 connection.blocked reason=memory"],
    &["flood 0 connection.unblocked"],
    &["flood raw \"\\x01\\0\\x09\\0\\0\\0\\x0e\\0\\x3c\\0\\x3c\\x01x\\0\\0\\0\\0\\0\\0\\0\""],
    &["flood 9 body \"x\"*1000"],
];

/// Confirms, of publishes on a channel with confirms or without.
const ACKS: &[Script] = &[
    &["same basic.ack delivery_tag=0", "silence"],
    &["same basic.ack delivery_tag=0 multiple"],
    &["same basic.ack delivery_tag=18446744073709551615"],
    &["same basic.ack delivery_tag=18446744073709551615 multiple"],
    &["same basic.nack delivery_tag=1"],
    &["same basic.nack delivery_tag=18446744073709551615 multiple requeue"],
    &["same basic.ack delivery_tag=1", "same basic.ack delivery_tag=1", "same basic.nack delivery_tag=1", "answer"],
    &["same basic.reject delivery_tag=1"],
    &["same basic.return reply_code=312", "same header size=0", "same basic.ack delivery_tag=1"],
    &["reply basic.ack delivery_tag=1", "answer"],
    &["same frame 1 \"\\0\\x3c\\0\\x50\\0\""],
];
