//! The transport against a broker that does as each test says.

#![allow(clippy::unwrap_used)]

mod endings;
mod limits;
#[cfg(feature = "tls")]
mod over_tls;

use std::{collections::VecDeque, time::Duration};

use amq_protocol::{
    protocol::{
        AMQPClass,
        basic::{self, AMQPMethod as Basic},
        channel::{self, AMQPMethod as OnChannel},
        connection::{self, AMQPMethod as OnConnection},
    },
    types::{AMQPValue, FieldTable, ShortUInt},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::*;
use crate::{
    connection::amqp::{Properties, Publish, Settlement},
    wire::{
        Content, Decoder, Delivery as Delivered, FrameKind, Method, OutBuffer, PROTOCOL_HEADER, Role, read_method,
        table::DEPTH_MAX,
    },
};

const LIMIT: Duration = Duration::from_secs(10);

/// A broker's end of one connection.
struct Peer {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A frame that a client sent.
#[derive(Debug)]
enum Sent {
    Method(u16, AMQPClass),
    Publish(u16),
    Ack {
        delivery_tag: u64,
        multiple: bool,
    },
    /// Content, by its length.
    Header,
    Body(usize),
    Heartbeat,
    End,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        Self::begin(Box::new(stream)).await
    }

    async fn begin(mut stream: Box<dyn Stream>) -> Self {
        let mut header = [0; 8];
        timeout(LIMIT, stream.read_exact(&mut header)).await.unwrap().unwrap();
        assert_eq!(header, PROTOCOL_HEADER);
        Self { stream, buffer: BytesMut::new() }
    }

    /// Performs the handshake.
    async fn open(listener: &TcpListener, tune: connection::Tune) -> Self {
        let mut peer = Self::accept(listener).await;
        peer.shake_hands(tune).await;
        peer
    }

    async fn shake_hands(&mut self, tune: connection::Tune) {
        self.start().await;
        self.say(OnConnection::Tune(tune)).await;
        assert!(matches!(self.next().await, Sent::Method(0, AMQPClass::Connection(OnConnection::TuneOk(_)))));
        assert!(matches!(self.next().await, Sent::Method(0, AMQPClass::Connection(OnConnection::Open(_)))));
        self.say(OnConnection::OpenOk(connection::OpenOk {})).await;
    }

    /// Up to the client's credentials.
    async fn start(&mut self) -> connection::StartOk {
        self.say(start()).await;
        match self.next().await {
            Sent::Method(0, AMQPClass::Connection(OnConnection::StartOk(start_ok))) => start_ok,
            other => panic!("{other:?}"),
        }
    }

    async fn say(&mut self, method: OnConnection) {
        self.method(0, AMQPClass::Connection(method)).await;
    }

    async fn method(&mut self, channel: u16, class: AMQPClass) {
        let mut out = OutBuffer::default();
        out.method(channel, &class);
        self.write(out).await;
    }

    async fn write(&mut self, mut out: OutBuffer) {
        let mut segments = VecDeque::new();
        out.take_into(&mut segments);
        for segment in segments {
            self.stream.write_all(&segment).await.unwrap();
        }
    }

    async fn next(&mut self) -> Sent {
        loop {
            let (batch, error) = Decoder::new(131_072).cut(&mut self.buffer, 1);
            assert_eq!(error, None);
            if let Some(frame) = batch.frames().next() {
                return match frame.kind {
                    FrameKind::Heartbeat => Sent::Heartbeat,
                    FrameKind::Header => Sent::Header,
                    FrameKind::Body => Sent::Body(frame.payload.len()),
                    FrameKind::Method => match read_method(frame.payload, Role::Client, DEPTH_MAX).unwrap() {
                        Method::Publish(_) => Sent::Publish(frame.channel),
                        Method::Ack(ack) => Sent::Ack { delivery_tag: ack.delivery_tag, multiple: ack.multiple },
                        Method::Other(class) => Sent::Method(frame.channel, *class),
                    },
                };
            }
            match timeout(LIMIT, self.stream.read_buf(&mut self.buffer)).await.expect("the client sends something") {
                Ok(0) | Err(_) => return Sent::End,
                Ok(_) => {}
            }
        }
    }

    /// Answers `channel.open`; returns the channel's number.
    async fn open_channel(&mut self) -> u16 {
        match self.next().await {
            Sent::Method(number, AMQPClass::Channel(OnChannel::Open(_))) => {
                self.method(number, AMQPClass::Channel(OnChannel::OpenOk(channel::OpenOk {}))).await;
                number
            }
            other => panic!("{other:?}"),
        }
    }

    /// Answers `basic.consume`; returns its tag.
    async fn consume(&mut self, number: u16) -> String {
        match self.next().await {
            Sent::Method(_, AMQPClass::Basic(Basic::Consume(consume))) => {
                let consumer_tag = consume.consumer_tag.clone();
                let consume_ok = Basic::ConsumeOk(basic::ConsumeOk { consumer_tag });
                self.method(number, AMQPClass::Basic(consume_ok)).await;
                consume.consumer_tag.as_str().to_owned()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn start() -> OnConnection {
    OnConnection::Start(connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: FieldTable::default(),
        mechanisms: "ANONYMOUS PLAIN AMQPLAIN EXTERNAL".into(),
        locales: "en_US".into(),
    })
}

const TUNE: connection::Tune = connection::Tune { channel_max: 2_047, frame_max: 131_072, heartbeat: 0 };

async fn listen() -> (TcpListener, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("amqp://user:secret@{}/v", listener.local_addr().unwrap());
    (listener, Endpoint::parse(&uri).unwrap())
}

async fn connected(tune: connection::Tune) -> (Link, Peer) {
    let (listener, mut endpoint) = listen().await;
    if tune.heartbeat == 0 {
        // Otherwise ours counts.
        endpoint.heartbeat_s = Some(0);
    }
    let options = ConnectionOptions::default();
    let (link, peer) = tokio::join!(Link::open(&endpoint, &options), Peer::open(&listener, tune));
    (link.unwrap(), peer)
}

async fn with_channel() -> (Link, Peer, Channel) {
    let (link, mut peer) = connected(TUNE).await;
    let (channel, number) = tokio::join!(link.channel(), peer.open_channel());
    assert_eq!(number, 1);
    (link, peer, channel.unwrap())
}

fn publish(body: &[u8]) -> Publish<'_> {
    Publish { exchange: "", routing_key: b"q", mandatory: false, properties: Properties::default(), body }
}

fn delivery(out: &mut OutBuffer, consumer_tag: &str, delivery_tag: u64, body: &[u8]) {
    let delivered = Delivered { delivery_tag, redelivered: false, exchange: b"", routing_key: b"q" };
    let content = Content { properties: &[0, 0], small: body, parts: &[] };
    out.deliver(1, consumer_tag.as_bytes(), &delivered, &content, 131_072);
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("it is over soon")
}

async fn next(consumer: &mut Consumer) -> Result<Option<crate::connection::Delivery>, Error> {
    soon(std::future::poll_fn(|cx| consumer.poll_next(cx))).await
}

fn close_channel(reply_code: ShortUInt) -> AMQPClass {
    let close = channel::Close { reply_code, reply_text: "words".into(), class_id: 0, method_id: 0 };
    AMQPClass::Channel(OnChannel::Close(close))
}

#[tokio::test]
async fn a_refused_handshake_says_why() {
    for reply_code in [403, 530, 541] {
        let (listener, endpoint) = listen().await;
        let options = ConnectionOptions::default();
        let refusing = async {
            let mut peer = Peer::accept(&listener).await;
            let start_ok = peer.start().await;
            assert_eq!((start_ok.mechanism.as_str(), start_ok.response.as_bytes()), ("PLAIN", &b"\0user\0secret"[..]));
            let name = start_ok.client_properties.inner().get("connection_name").cloned();
            assert!(matches!(name, Some(AMQPValue::LongString(_))));
            let close = connection::Close { reply_code, reply_text: "words".into(), class_id: 0, method_id: 0 };
            peer.say(OnConnection::Close(close)).await;
        };
        let (link, ()) = tokio::join!(Link::open(&endpoint, &options), refusing);
        match (reply_code, link.unwrap_err()) {
            (403, Error::AuthenticationRefused { user, reply_text }) => {
                assert_eq!((&*user, &*reply_text), ("user", "words"))
            }
            (530, Error::VhostRefused { vhost, .. }) => assert_eq!(vhost, "v"),
            (541, Error::Refused { reply_code: 541, .. }) => {}
            (_, error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_uri_may_choose_the_mechanism() {
    for (mechanism, response) in [
        ("plain", Some(("PLAIN", &b"\0user\0secret"[..]))),
        ("external", Some(("EXTERNAL", b""))),
        ("anonymous", Some(("ANONYMOUS", b""))),
        ("amqplain", Some(("AMQPLAIN", b"\x05LOGINS\0\0\0\x04user\x08PASSWORDS\0\0\0\x06secret"))),
        ("rabbit-cr-demo", None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = Endpoint::parse(&format!("amqp://user:secret@{address}/v?auth_mechanism={mechanism}")).unwrap();
        let options = ConnectionOptions::default();
        let answering = async {
            let mut peer = Peer::accept(&listener).await;
            let Some((name, response)) = response else { return peer.say(start()).await };
            let start_ok = peer.start().await;
            assert_eq!((start_ok.mechanism.as_str(), start_ok.response.as_bytes()), (name, response));
        };
        let (link, ()) = tokio::join!(Link::open(&endpoint, &options), answering);
        let is_refused = matches!(link, Err(Error::InvalidUri { .. }));
        assert_eq!(is_refused, response.is_none(), "not sent in another way than was asked for");
    }
}

#[tokio::test]
async fn a_peer_that_is_no_broker_of_0_9_1_is_unreachable() {
    for (bytes, words) in [
        (&b"AMQP\x00\x01\x00\x00"[..], "another version"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no AMQP frame"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x01\xCE", "no method"),
        (b"", "closed the socket"),
    ] {
        let (listener, endpoint) = listen().await;
        let options = ConnectionOptions::default();
        let answering = async {
            let mut peer = Peer::accept(&listener).await;
            peer.stream.write_all(bytes).await.unwrap();
        };
        let (link, ()) = tokio::join!(Link::open(&endpoint, &options), answering);
        let error = link.unwrap_err();
        assert!(matches!(&error, Error::Unreachable { reason, .. } if reason.contains(words)), "{error:?}");
    }
}

#[tokio::test]
async fn bodies_are_cut_to_what_was_agreed_on() {
    let (link, mut peer) = connected(connection::Tune { frame_max: 4_096, ..TUNE }).await;
    let (channel, _) = tokio::join!(link.channel(), peer.open_channel());
    let channel = channel.unwrap();
    channel.publish(&publish(&[7; 10_000])).unwrap();
    channel.settle(Settlement::Ack { delivery_tag: 3, multiple: true }).unwrap();
    assert!(matches!(peer.next().await, Sent::Publish(1)));
    assert!(matches!(peer.next().await, Sent::Header));
    for bytes in [4_088, 4_088, 1_824] {
        assert!(matches!(peer.next().await, Sent::Body(length) if length == bytes));
    }
    assert!(matches!(peer.next().await, Sent::Ack { delivery_tag: 3, multiple: true }), "behind it, not before");
}

#[tokio::test]
async fn a_silent_broker_gets_heartbeats_before_it_counts_as_lost() {
    let (link, mut peer) = connected(connection::Tune { heartbeat: 1, ..TUNE }).await;
    let (channel, _) = tokio::join!(link.channel(), peer.open_channel());
    assert!(matches!(peer.next().await, Sent::Heartbeat));
    let mut events = link.events();
    let event = soon(events.next()).await;
    assert!(matches!(&event, Some(Event::Failed(reason)) if reason.contains("silent for 2s")), "{event:?}");
    assert!(!link.is_connected());
    let error = channel.unwrap().publish(&publish(b"late")).unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broker_that_sends_heartbeats_is_not_lost() {
    let (link, mut peer) = connected(connection::Tune { heartbeat: 1, ..TUNE }).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut out = OutBuffer::default();
        out.heartbeat();
        peer.write(out).await;
    }
    assert!(link.is_connected());
}

#[tokio::test]
async fn a_closed_channel_sends_nothing_more_and_its_number_is_used_again() {
    let (link, mut peer, channel) = with_channel().await;
    let qos = channel.qos(1);
    let (error, ()) = tokio::join!(qos, async {
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Basic(Basic::Qos(_)))));
        peer.method(1, close_channel(406)).await;
    });
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::Refused { reply_code: 406, reply_text, .. } if reply_text == "words"), "{error:?}");
    for outcome in [channel.publish(&publish(b"late")), channel.settle(Settlement::Requeue { delivery_tag: 1 })] {
        // They were not refused themselves: on another channel they may do.
        assert!(matches!(&outcome, Err(Error::Disconnected { reason }) if reason == "406 words"), "{outcome:?}");
    }
    assert!(matches!(channel.qos(1).await, Err(Error::Disconnected { .. })));
    assert!(matches!(channel.close().await, Err(Error::Disconnected { .. })));
    assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::CloseOk(_)))));
    let (second, number) = tokio::join!(link.channel(), peer.open_channel());
    assert_eq!(number, 1);
    drop(channel);
    second.unwrap().publish(&publish(b"")).unwrap();
    assert!(matches!(peer.next().await, Sent::Publish(1)), "the old handle closes nothing");
}

#[tokio::test]
async fn the_last_handle_closes_the_channel_whose_number_waits_for_close_ok() {
    let (link, mut peer, channel) = with_channel().await;
    let clone = channel.clone();
    drop(channel);
    clone.publish(&publish(b"")).unwrap();
    drop(clone);
    assert!(matches!(peer.next().await, Sent::Publish(1)));
    assert!(matches!(peer.next().await, Sent::Header));
    assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::Close(_)))));
    let (second, number) = tokio::join!(link.channel(), peer.open_channel());
    assert_eq!(number, 2);
    peer.method(1, AMQPClass::Channel(OnChannel::CloseOk(channel::CloseOk {}))).await;
    // Answered behind it.
    let second = second.unwrap();
    let (done, ()) = tokio::join!(second.qos(1), async {
        peer.next().await;
        peer.method(2, AMQPClass::Basic(Basic::QosOk(basic::QosOk {}))).await;
    });
    done.unwrap();
    let (_third, number) = tokio::join!(link.channel(), peer.open_channel());
    assert_eq!(number, 1);
}

#[tokio::test]
async fn no_more_channels_are_opened_than_the_broker_allows() {
    let (link, mut peer) = connected(connection::Tune { channel_max: 2, ..TUNE }).await;
    let (first, _) = tokio::join!(link.channel(), peer.open_channel());
    let (second, _) = tokio::join!(link.channel(), peer.open_channel());
    let error = soon(link.channel()).await.unwrap_err();
    assert!(matches!(&error, Error::NoChannelLeft { channel_max: 2 }), "{error:?}");
    drop((first, second));
}

#[tokio::test]
async fn a_close_that_crosses_the_brokers_is_answered() {
    let (link, mut peer, channel) = with_channel().await;
    let (closed, ()) = tokio::join!(channel.close(), async {
        assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::Close(_)))));
        peer.method(1, close_channel(404)).await;
    });
    assert!(
        matches!(closed, Err(Error::Refused { reply_code: 404, .. })),
        "the broker closed the channel while ours was closing, and no error says so"
    );
    assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Channel(OnChannel::CloseOk(_)))));
    let (_second, number) = tokio::join!(link.channel(), peer.open_channel());
    assert_eq!(number, 2, "the broker has not confirmed our close yet");
}

#[tokio::test]
async fn a_closed_connection_says_why_and_is_answered() {
    for (reply_code, is_refused) in [(320, false), (504, true)] {
        let (link, mut peer, channel) = with_channel().await;
        let mut events = link.events();
        let (outcome, ()) = tokio::join!(channel.confirm_select(), async {
            assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Confirm(_))));
            let close = connection::Close { reply_code, reply_text: "words".into(), class_id: 0, method_id: 0 };
            peer.say(OnConnection::Close(close)).await;
        });
        match outcome.unwrap_err() {
            Error::Refused { reply_code: found, .. } if is_refused => assert_eq!(found, reply_code),
            Error::Disconnected { reason } if !is_refused => assert_eq!(reason, "320 words"),
            error => panic!("{error:?}"),
        }
        assert!(matches!(peer.next().await, Sent::Method(0, AMQPClass::Connection(OnConnection::CloseOk(_)))));
        assert!(matches!(peer.next().await, Sent::End));
        let event = soon(events.next()).await;
        assert!(matches!(event, Some(Event::Failed(reason)) if reason == format!("{reply_code} words")));
        assert!(matches!(link.channel().await, Err(Error::Disconnected { .. })), "another connection may do");
        assert!(matches!(channel.publish(&publish(b"")), Err(Error::Disconnected { .. })));
    }
}

#[tokio::test]
async fn blocked_and_unblocked_are_events() {
    let (link, mut peer) = connected(TUNE).await;
    let mut events = link.events();
    peer.say(OnConnection::Blocked(connection::Blocked { reason: "low on memory".into() })).await;
    peer.say(OnConnection::Unblocked(connection::Unblocked {})).await;
    let event = soon(events.next()).await;
    assert!(matches!(event, Some(Event::Blocked(reason)) if reason == "low on memory"));
    let event = soon(events.next()).await;
    assert!(matches!(event, Some(Event::Unblocked)));
}

#[tokio::test]
async fn closing_waits_for_the_broker_and_dropping_does_not() {
    let (link, mut peer) = connected(TUNE).await;
    let (closed, ()) = tokio::join!(link.close(), async {
        assert!(matches!(peer.next().await, Sent::Method(0, AMQPClass::Connection(OnConnection::Close(_)))));
        peer.say(OnConnection::CloseOk(connection::CloseOk {})).await;
    });
    closed.unwrap();
    assert!(matches!(peer.next().await, Sent::End));
    assert!(link.close().await.is_err(), "it is closed");

    let (link, mut peer, channel) = with_channel().await;
    channel.publish(&publish(b"")).unwrap();
    drop(link);
    assert!(matches!(channel.publish(&publish(b"")), Err(Error::Disconnected { .. })));
    assert!(matches!(peer.next().await, Sent::Publish(1)));
    assert!(matches!(peer.next().await, Sent::Header));
    assert!(matches!(peer.next().await, Sent::Method(0, AMQPClass::Connection(OnConnection::Close(_)))));
    assert!(matches!(peer.next().await, Sent::End));
}

#[tokio::test]
async fn a_lost_socket_ends_everything_that_waits() {
    let (link, mut peer, channel) = with_channel().await;
    let (consumer, _) = tokio::join!(channel.consume("q", "", true), peer.consume(1));
    let mut consumer = consumer.unwrap();
    let confirm = channel.publish_for_confirm(&publish(b"")).unwrap();
    drop(peer);
    assert!(matches!(soon(confirm.wait()).await, Err(Error::Disconnected { .. })));
    assert!(matches!(next(&mut consumer).await, Err(Error::Disconnected { .. })));
    assert!(!link.is_connected());
}

#[tokio::test]
async fn deliveries_go_to_their_consumer_until_it_is_cancelled() {
    let (_link, mut peer, channel) = with_channel().await;
    let (first, first_tag) = tokio::join!(channel.consume("q", "", false), peer.consume(1));
    let (second, second_tag) = tokio::join!(channel.consume("q", "named", false), peer.consume(1));
    assert_eq!((&*first_tag, &*second_tag), ("rpc.1", "named"));
    let (mut first, mut second) = (first.unwrap(), second.unwrap());
    let mut out = OutBuffer::default();
    let large = vec![7; 300_000];
    delivery(&mut out, "named", 1, b"small");
    delivery(&mut out, "rpc.1", 2, &large);
    delivery(&mut out, "nobody", 3, b"lost");
    delivery(&mut out, "named", 4, b"");
    let cancel = Basic::Cancel(basic::Cancel { consumer_tag: "named".into(), nowait: true });
    out.method(1, &AMQPClass::Basic(cancel));
    peer.write(out).await;
    assert_eq!(next(&mut first).await.unwrap().unwrap().body(), large);
    let delivery = next(&mut second).await.unwrap().unwrap();
    assert_eq!((delivery.delivery_tag(), delivery.routing_key(), delivery.body()), (1, "q", &b"small"[..]));
    assert_eq!(second.next_ready().unwrap().delivery_tag(), 4);
    assert!(next(&mut second).await.unwrap().is_none());
    assert!(first.next_ready().is_none());
}

#[tokio::test]
async fn properties_that_cannot_be_read_are_none() {
    let (link, mut peer, channel) = with_channel().await;
    let (consumer, _) = tokio::join!(channel.consume("q", "t", false), peer.consume(1));
    let mut out = OutBuffer::default();
    let delivered = Delivered { delivery_tag: 1, redelivered: true, exchange: b"", routing_key: b"q" };
    // A content_type is announced.
    let content = Content { properties: &[0x80, 0], small: b"body", parts: &[] };
    out.deliver(1, b"t", &delivered, &content, 131_072);
    delivery(&mut out, "t", 2, b"next");
    peer.write(out).await;
    let mut consumer = consumer.unwrap();
    let delivery = next(&mut consumer).await.unwrap().unwrap();
    assert_eq!((delivery.content_type(), delivery.body()), (None, &b"body"[..]));
    assert_eq!(next(&mut consumer).await.unwrap().unwrap().body(), b"next");
    assert!(link.is_connected(), "a bad delivery ends the connection, although its publisher is to blame");
}

#[tokio::test]
async fn confirms_find_their_publishes_and_bring_what_was_returned() {
    let (_link, mut peer, channel) = with_channel().await;
    let confirms: Vec<_> = (0..5).map(|_| channel.publish_for_confirm(&publish(b"")).unwrap()).collect();
    let mut out = OutBuffer::default();
    out.ack(1, 4, false);
    let mut properties = Vec::new();
    crate::wire::NewProperties::new(&mut properties).correlation_id("17").finish().unwrap();
    let content = Content { properties: &properties, small: b"body", parts: &[] };
    out.returned(1, crate::wire::ReplyCode::NoRoute, (b"", b"q"), &content, 131_072);
    out.ack(1, 2, true);
    out.nack(1, 3, false);
    out.ack(1, 9, false);
    out.ack(1, 5, true);
    peer.write(out).await;
    let mut outcomes = Vec::new();
    for confirm in confirms {
        let (is_ack, returned) = soon(confirm.wait()).await.unwrap();
        outcomes.push((is_ack, returned.and_then(|returned| returned.correlation_id)));
    }
    let returned = Some("17".to_owned());
    assert_eq!(outcomes, [(true, returned), (true, None), (false, None), (true, None), (true, None)]);
}

#[tokio::test]
async fn returned_messages_are_handed_over_as_they_arrive() {
    let (_link, mut peer, channel) = with_channel().await;
    let mut returns = channel.returned();
    let mut out = OutBuffer::default();
    let content = Content { properties: &[0, 0], small: b"", parts: &[] };
    out.returned(1, crate::wire::ReplyCode::NoRoute, (b"", b"q"), &content, 131_072);
    peer.write(out).await;
    assert_eq!(soon(returns.recv()).await.unwrap().reply_text, "NO_ROUTE");
    drop(peer);
    assert!(soon(returns.recv()).await.is_none(), "they end with the channel");
}

#[tokio::test]
async fn nonsense_ends_the_connection_with_words() {
    let deliver = [&[0, 60, 0, 60, 1, b't'][..], &[0; 11]].concat();
    let header = |bytes: u8| [&[0, 60, 0, 0][..], &[0; 7], &[bytes], &[0, 0]].concat();
    let frame = |kind: u8, payload: &[u8]| {
        [&[kind, 0, 1][..], &(payload.len() as u32).to_be_bytes(), payload, &[0xCE]].concat()
    };
    let huge = [&[0, 60, 0, 0][..], &[0xFF; 8], &[0, 0]].concat();
    for (bytes, words) in [
        ([frame(1, &deliver), frame(1, &deliver)].concat(), "a method inside a message"),
        (frame(2, &header(1)), "a content header without a method"),
        (frame(3, b"body"), "a body without a content header"),
        ([frame(1, &deliver), frame(3, b"body")].concat(), "a body without a content header"),
        (
            [frame(1, &deliver), frame(2, &header(1)), frame(2, &header(1))].concat(),
            "a content header without a method",
        ),
        ([frame(1, &deliver), frame(2, &header(3)), frame(3, b"body")].concat(), "a longer body than announced"),
        ([frame(1, &deliver), frame(2, &huge)].concat(), "the limit is 536870912"),
        ([frame(1, &deliver), frame(2, &[0, 60])].concat(), "no content header"),
        (frame(1, &[0, 60, 0, 60, 9]), "no method"),
        (frame(1, &[0, 99, 0, 1]), "no method"),
        (frame(1, &[0, 60, 0, 40, 0, 0, 0, 0, 0]), "no method"),
        (frame(9, b""), "no frame"),
        (b"\x01\x00\x01\x00\x00\x00\x00\x00".to_vec(), "no frame"),
        (b"\x03\x00\x01\xFF\xFF\xFF\xFF".to_vec(), "no frame"),
    ] {
        let (link, mut peer, channel) = with_channel().await;
        let mut events = link.events();
        peer.stream.write_all(&bytes).await.unwrap();
        let event = soon(events.next()).await;
        assert!(matches!(&event, Some(Event::Failed(reason)) if reason.contains(words)), "{words}: {event:?}");
        assert!(channel.publish(&publish(b"")).is_err());
    }
}

#[tokio::test]
async fn frames_of_channels_nobody_holds_are_ignored() {
    let (link, mut peer) = connected(TUNE).await;
    let mut out = OutBuffer::default();
    delivery(&mut out, "t", 1, b"body");
    out.method(7, &close_channel(404));
    out.method(9, &AMQPClass::Channel(OnChannel::CloseOk(channel::CloseOk {})));
    peer.write(out).await;
    assert!(matches!(peer.next().await, Sent::Method(7, AMQPClass::Channel(OnChannel::CloseOk(_)))));
    assert!(link.is_connected());
}

#[tokio::test]
async fn names_that_do_not_fit_are_refused_before_anything_is_sent() {
    let (_link, mut peer, channel) = with_channel().await;
    let long = "x".repeat(256);
    let refused = channel.publish(&Publish { routing_key: long.as_bytes(), ..publish(b"") });
    assert!(matches!(refused, Err(Error::NameTooLong { .. })));
    let properties = Properties { reply_to: Some(long.as_bytes()), ..Properties::default() };
    assert!(matches!(channel.publish(&Publish { properties, ..publish(b"") }), Err(Error::NameTooLong { .. })));
    assert!(matches!(soon(channel.queue_counts(&long)).await, Err(Error::NameTooLong { .. })));
    assert!(matches!(soon(channel.consume("q", &long, true)).await, Err(Error::NameTooLong { .. })));
    channel.publish(&publish(b"")).unwrap();
    assert!(matches!(peer.next().await, Sent::Publish(1)));
    assert!(matches!(peer.next().await, Sent::Header));
    channel.settle(Settlement::Requeue { delivery_tag: 1 }).unwrap();
    assert!(matches!(peer.next().await, Sent::Method(1, AMQPClass::Basic(Basic::Nack(_)))));
}

#[tokio::test]
async fn properties_that_no_frame_holds_are_refused_before_anything_is_sent() {
    let (link, mut peer) = connected(connection::Tune { frame_max: 4_096, ..TUNE }).await;
    let (channel, _) = tokio::join!(link.channel(), peer.open_channel());
    let channel = channel.unwrap();
    // Flags (2), the table's length (4), name (2), kind and length (5); a frame (8) with a content header (12).
    let fits = 4_096 - 13 - 20;
    for (text_bytes, is_sent) in [(fits + 1, false), (fits, true)] {
        let headers = vec![("h".into(), "x".repeat(text_bytes).into())];
        let properties = Properties { headers, ..Properties::default() };
        match channel.publish(&Publish { properties, ..publish(b"") }) {
            Err(Error::PropertiesTooLarge { limit_bytes, .. }) if !is_sent => assert_eq!(limit_bytes, 4_076),
            outcome => assert!(is_sent && outcome.is_ok(), "{outcome:?}"),
        }
    }
    assert!(matches!(peer.next().await, Sent::Publish(1)));
    assert!(matches!(peer.next().await, Sent::Header));
    channel.settle(Settlement::Ack { delivery_tag: 1, multiple: false }).unwrap();
    assert!(matches!(peer.next().await, Sent::Ack { .. }));
}

/// Frames of any kind and content, on any channel: a broken broker may end the connection, never the program.
#[test]
fn no_frame_panics() {
    use proptest::prelude::*;
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just([&[0, 60, 0, 60, 1, b't'][..], &[0; 11]].concat()),
        Just([&[0, 60, 0, 0][..], &[0; 7], &[2], &[0, 0]].concat()),
        Just(vec![0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 1]),
        Just(vec![0, 60, 0, 50, 1, 56, 0, 0, 0]),
    ];
    let frames = proptest::collection::vec((1_u8..4, payload), 0..12);
    proptest!(|(frames in frames)| {
        let mut bytes = BytesMut::new();
        for (kind, payload) in &frames {
            bytes.extend_from_slice(&[*kind, 0, 1]);
            bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(&[0xCE]);
        }
        let (batch, _) = Decoder::new(4_096).cut(&mut bytes, usize::MAX);
        let mut state = inbox::State::default();
        let (_, _deliveries) = state.add_consumer("t");
        let _confirm = state.await_confirm();
        for frame in batch.frames() {
            if state.take(&frame).is_err() {
                break;
            }
        }
    });
}
