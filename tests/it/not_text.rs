//! Ids and names that are no text: a foreign caller's are copied into its reply byte for byte.

use std::{net::ToSocketAddrs, sync::mpsc, time::Duration};

use rpc_core::{Connection, WorkerPool};
use rpc_tests::{
    Answers, Stage, eventually, on_both_brokers, probe,
    wire::{
        Arguments, Cursor, Method, Received, Socket, encode_frame, encode_header, encode_method, kind, quote, show,
    },
};

on_both_brokers!(a_caller_whose_names_are_no_text_is_answered);

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

async fn a_caller_whose_names_are_no_text_is_answered(stage: &Stage) {
    probe!("not-text");
    // Natively, whatever the other tests use: lapin ends its connection for such a message.
    let connection = Connection::open(&format!("{}?transport=native", stage.broker_uri())).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let caller = Caller::connect(stage);
    caller.send(1, "queue.declare", "queue=not-text.replies exclusive");
    caller.send(1, "basic.consume", "queue=not-text.replies no_ack");
    let ask = |properties: &str| {
        let request = "exchange=rpc routing_key=not-text.ask content_type=application/json";
        caller.send(1, "basic.publish", &format!(r#"{request} body="[\"x\"]" {properties}"#));
    };
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
