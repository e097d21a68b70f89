//! Ids and names that are no text: a foreign caller's are copied into its reply byte for byte.

use std::{net::ToSocketAddrs, sync::mpsc, time::Duration};

use rpc_core::{Connection, Dispatch, PoolHandle, WorkerPool};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    wire::{
        Arguments, Cursor, Method, Received, Socket, encode_frame, encode_header, encode_method, kind, quote, show,
    },
};

on_both_brokers!(a_caller_whose_names_are_no_text_is_answered, over_lapin_such_a_caller_is_answered_after_a_reconnect,);

/// A foreign caller that sends any bytes; the AMQP clients that the other tests speak through send text alone.
struct Caller {
    socket: Socket,
    received: mpsc::Receiver<Received>,
}

impl Caller {
    /// Opens a connection and channel 1, in one flight.
    fn connect(stage: &Stage) -> Self {
        let uri = stage.uri_as("guest", "");
        let authority = uri.trim_start_matches("amqp://").split(['?', '/']).next().unwrap_or_default();
        let address = authority.rsplit('@').next().unwrap_or_default();
        let address = address.to_socket_addrs().expect("an address").next().expect("an address");
        let (sender, received) = mpsc::channel();
        let sink = move |received| {
            // The test may have ended.
            let _ = sender.send(received);
        };
        let caller = Self { socket: Socket::connect(address, sink).expect("the broker is there"), received };
        caller.socket.send(b"AMQP\0\0\x09\x01").expect("it is open");
        let start_ok = format!("mechanism=PLAIN response={} locale=en_US", quote(b"\0guest\0guest"));
        caller.send(0, "connection.start-ok", &start_ok);
        caller.send(0, "connection.tune-ok", "channel_max=2047 frame_max=131072");
        caller.send(0, "connection.open", "virtual_host=\"/\"");
        caller.send(1, "channel.open", "");
        caller
    }

    /// Sends a method, and a body of one frame if there is one.
    fn send(&self, channel: u16, name: &str, arguments: &str) {
        let mut arguments = Arguments::read(&mut Cursor::new(arguments)).expect("the notation of the transcripts");
        let method = Method::named(name).expect("a method of AMQP");
        let mut out = Vec::new();
        encode_frame(kind::METHOD, channel, &encode_method(method, &mut arguments).expect("its arguments"), &mut out);
        if let Some(body) = arguments.remove_bytes("body").expect("bytes") {
            let header = encode_header(body.len() as u64, &mut arguments).expect("properties");
            encode_frame(kind::HEADER, channel, &header, &mut out);
            encode_frame(kind::BODY, channel, &body, &mut out);
        }
        arguments.finish().expect("nothing else");
        self.socket.send(&out).expect("it is open");
    }

    fn take_replies(&self, queue: &str) {
        self.send(1, "queue.declare", &format!("queue={queue} exclusive"));
        self.send(1, "basic.consume", &format!("queue={queue} no_ack"));
    }

    fn ask(&self, routing_key: &str, properties: &str) {
        let request = format!("exchange=rpc routing_key={routing_key} content_type=application/json");
        self.send(1, "basic.publish", &format!(r#"{request} body="[\"x\"]" {properties}"#));
    }

    /// The next content header, as it stands in transcripts.
    fn header(&self) -> String {
        let mut seen = Vec::new();
        loop {
            let received = self.received.recv_timeout(Duration::from_secs(10));
            match received.unwrap_or_else(|_| panic!("no reply, but {seen:?}")) {
                Received::Frame { kind: kind::HEADER, payload, .. } => return show(kind::HEADER, &payload),
                Received::Frame { kind, payload, .. } => seen.push(show(kind, &payload)),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A pool that echoes over a transport, whatever the other tests use.
async fn pool(stage: &Stage, transport: &str, service: impl Dispatch) -> PoolHandle {
    let connection = Connection::open(&format!("{}?transport={transport}", stage.broker_uri())).await.unwrap();
    WorkerPool::new(&connection).serve(service).start().await.unwrap()
}

async fn a_caller_whose_names_are_no_text_is_answered(stage: &Stage) {
    probe!("not-text");
    let pool = pool(stage, "native", ProbeServer::new(Answers::echo())).await;
    let caller = Caller::connect(stage);
    caller.take_replies("not-text.replies");
    let ask = |properties: &str| caller.ask("not-text.ask", properties);
    // No queue has such a name: the reply comes back, and harms nothing.
    ask(r#"reply_to="\xff" correlation_id="\xff""#);
    for (at, more) in ["", r#"message_id="\xfd""#, r#"app_id="\xfc" headers={"\xfb": "\xfa"}"#].into_iter().enumerate()
    {
        let id = format!(r#"correlation_id="\xfe\0\x8{at}""#);
        ask(&format!("reply_to=not-text.replies {id} {more}"));
        let reply = caller.header();
        assert!(reply.contains(&id), "{reply}");
    }
    eventually(Duration::from_secs(5), "the first reply is returned", async || pool.stats().callers_gone == 1).await;
    assert_eq!((pool.stats().received, pool.stats().answered), (4, 4), "none comes again");
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

/// lapin reads no such message, and its connection ends; it would do so for ever.
async fn over_lapin_such_a_caller_is_answered_after_a_reconnect(stage: &Stage) {
    probe!("not-text-lapin");
    let pool = pool(stage, "lapin", ProbeServer::new(Answers::echo())).await;
    let caller = Caller::connect(stage);
    caller.take_replies("not-text.lapin.replies");
    for id in [r#"correlation_id="\xfe""#, "correlation_id=text", r#"correlation_id="\xfd""#] {
        caller.ask("not-text-lapin.ask", &format!("reply_to=not-text.lapin.replies {id}"));
        let reply = caller.header();
        assert!(reply.contains(&id.replace("=text", "=\"text\"")), "{reply}");
    }
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}
