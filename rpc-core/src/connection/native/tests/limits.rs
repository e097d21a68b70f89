//! Bounds that a broker cannot lift: of what is queued for it, of what it sends, and of its patience.

use super::*;

const MEGABYTE: usize = 1_024 * 1_024;

/// Publishes until there is no room; returns how many megabytes were queued.
fn fill(channel: &Channel) -> usize {
    let body = vec![7; MEGABYTE];
    (0..1_000).find(|_| !channel.publish_if_room(&publish(&body)).unwrap()).expect("the queue is bounded")
}

#[tokio::test]
async fn requests_wait_while_the_broker_does_not_read() {
    let (_link, mut peer, channel) = with_channel().await;
    let mut queued = fill(&channel);
    // The io task takes what is queued once, and the socket a part of that.
    tokio::task::yield_now().await;
    loop {
        let more = fill(&channel);
        queued += more;
        if more == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if fill(&channel) == 0 {
                break;
            }
        }
    }
    assert!(queued < 40, "{queued} megabytes are queued");
    assert!(timeout(Duration::from_millis(50), channel.room()).await.is_err(), "there is none");
    let reading = async { while let Sent::Publish(_) | Sent::Header | Sent::Body(_) = peer.next().await {} };
    tokio::select! {
        () = reading => panic!("it ended"),
        () = soon(channel.room()) => {}
    }
    assert!(channel.publish_if_room(&publish(b"")).unwrap());
}

#[tokio::test]
async fn waiting_for_room_ends_with_the_connection() {
    let (link, peer, channel) = with_channel().await;
    while fill(&channel) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (waited, ()) = tokio::join!(timeout(LIMIT, channel.room()), async {
        tokio::task::yield_now().await;
        drop(peer);
    });
    waited.expect("it ends");
    assert!(!link.is_connected());
}

fn request(correlation_id: &'static str, body: &'static [u8]) -> Publish<'static> {
    let correlation_id = Some(correlation_id.as_bytes().into());
    let properties = Properties { correlation_id, reply_to: Some(b"me"), ..Properties::default() };
    Publish { properties, ..publish(body) }
}

static QUARTER: [u8; MEGABYTE / 4] = [7; MEGABYTE / 4];

#[tokio::test]
async fn requests_whose_calls_have_ended_are_not_written() {
    let (_link, mut peer, channel) = with_channel().await;
    channel.forget_unawaited(|id| id == b"live");
    // More than the sockets take: some of it is on its way to them, and the rest is queued behind that.
    for _ in 0..2 {
        for _ in 0..48 {
            channel.publish(&request("dead", &QUARTER)).unwrap();
        }
        channel.publish(&request("live", &QUARTER)).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    channel.settle(Settlement::Ack { delivery_tag: 1, multiple: false }).unwrap();
    let mut publishes = 0;
    // Also shows that no frame is missing: the peer would see a header without its method.
    let mut frames_left = 0;
    loop {
        match peer.next().await {
            Sent::Publish(1) if frames_left == 0 => {
                publishes += 1;
                frames_left = 1 + QUARTER.len().div_ceil(131_072 - 8);
            }
            Sent::Header | Sent::Body(_) if frames_left > 0 => frames_left -= 1,
            Sent::Ack { delivery_tag: 1, .. } if frames_left == 0 => break,
            other => panic!("{other:?} with {frames_left} frames of a message missing"),
        }
    }
    assert!((2..60).contains(&publishes), "{publishes} of 98 requests were written");
}

#[tokio::test]
async fn requests_whose_calls_have_ended_make_room_although_the_broker_reads_nothing() {
    let (link, peer) = {
        let (link, mut peer) = connected(connection::Tune { heartbeat: 1, ..TUNE }).await;
        let (channel, _) = tokio::join!(link.channel(), peer.open_channel());
        let channel = channel.unwrap();
        channel.forget_unawaited(|_| false);
        loop {
            while channel.publish_if_room(&request("dead", &QUARTER)).unwrap() {}
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !channel.publish_if_room(&request("dead", &QUARTER)).unwrap() {
                break;
            }
        }
        soon(channel.room()).await;
        assert!(channel.publish_if_room(&request("dead", &QUARTER)).unwrap());
        (link, peer)
    };
    assert!(link.is_connected(), "it is not the end that ended the wait");
    drop(peer);
}

/// A broker that sends heartbeats and reads nothing; returns the end of the connection.
async fn beat_without_reading(peer: &mut Peer, events: &mut Events) -> Option<Event> {
    let beating = async {
        loop {
            let mut out = OutBuffer::default();
            out.heartbeat();
            let mut segments = VecDeque::new();
            out.take_into(&mut segments);
            for segment in segments {
                drop(peer.stream.write_all(&segment).await);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = beating => None,
        event = timeout(Duration::from_secs(5), events.next()) => event.unwrap_or_default(),
    }
}

#[tokio::test]
async fn a_broker_that_reads_nothing_is_lost_unless_it_has_said_so() {
    for is_blocked in [false, true] {
        let (link, mut peer) = connected(connection::Tune { heartbeat: 1, ..TUNE }).await;
        let (channel, _) = tokio::join!(link.channel(), peer.open_channel());
        let channel = channel.unwrap();
        let mut events = link.events();
        if is_blocked {
            peer.say(OnConnection::Blocked(connection::Blocked { reason: "memory".into() })).await;
            assert!(matches!(soon(events.next()).await, Some(Event::Blocked(_))));
        }
        while fill(&channel) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match beat_without_reading(&mut peer, &mut events).await {
            Some(Event::Failed(reason)) => assert!(!is_blocked && reason.contains("read nothing for 2s"), "{reason}"),
            event => assert!(is_blocked && event.is_none() && link.is_connected(), "{event:?}"),
        }
    }
}

#[tokio::test]
async fn a_content_header_may_exceed_a_frame_by_a_megabyte() {
    let table = |bytes: usize| {
        let mut properties = Vec::new();
        let mut writer = crate::wire::table::TableWriter::new();
        writer.text("h", &vec![b'x'; bytes]);
        let mut new = crate::wire::NewProperties::new(&mut properties);
        new.headers(&writer.finish());
        new.finish().unwrap();
        properties
    };
    for (bytes, is_taken) in [(200_000, true), (MEGABYTE, true), (2 * MEGABYTE, false)] {
        let (link, mut peer, channel) = with_channel().await;
        let (consumer, _) = tokio::join!(channel.consume("q", "t", true), peer.consume(1));
        let mut consumer = consumer.unwrap();
        let delivered = Delivered { delivery_tag: 1, redelivered: false, exchange: b"", routing_key: b"q" };
        let properties = table(bytes);
        let mut out = OutBuffer::default();
        out.deliver(1, b"t", &delivered, &Content { properties: &properties, small: b"body", parts: &[] }, 131_072);
        let mut segments = VecDeque::new();
        out.take_into(&mut segments);
        for segment in segments {
            drop(peer.stream.write_all(&segment).await);
        }
        if is_taken {
            assert_eq!(next(&mut consumer).await.unwrap().unwrap().body(), b"body", "{bytes}");
            assert!(link.is_connected());
        } else {
            let told = peer.next().await;
            let Sent::Method(0, AMQPClass::Connection(OnConnection::Close(close))) = told else { panic!("{told:?}") };
            assert_eq!(close.reply_code, 501);
            assert!(next(&mut consumer).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_not_taken_for_the_default() {
    let (link, mut peer, channel) = with_channel().await;
    let (consumer, _) = tokio::join!(channel.consume("q", "t", false), peer.consume(1));
    let mut out = OutBuffer::default();
    let delivered = Delivered { delivery_tag: 1, redelivered: true, exchange: b"", routing_key: b"\xFF" };
    // content_type, correlation_id, reply_to and type.
    let properties = [&[0x86, 0x20][..], b"\x01\xFF", b"\x01\xFE", b"\x01\xFD", b"\x01\xFC"].concat();
    out.deliver(1, b"t", &delivered, &Content { properties: &properties, small: b"body", parts: &[] }, 131_072);
    peer.write(out).await;
    let delivery = next(&mut consumer.unwrap()).await.unwrap().unwrap();
    assert_eq!((delivery.content_type(), delivery.kind()), (Some("\u{FFFD}"), Some("\u{FFFD}")));
    assert_eq!((delivery.correlation_id_bytes(), delivery.reply_to()), (Some(&b"\xFE"[..]), Some(&b"\xFD"[..])));
    assert_eq!((delivery.reply_to_text(), delivery.body()), (None, &b"body"[..]));
    assert!(link.is_connected());
}

#[tokio::test]
async fn names_of_others_in_what_the_broker_says_need_not_be_utf_8() {
    let (link, mut peer, channel) = with_channel().await;
    let confirm = channel.publish_for_confirm(&publish(b"")).unwrap();
    let mut out = OutBuffer::default();
    let content = Content { properties: &[0, 0], small: b"", parts: &[] };
    out.returned(1, crate::wire::ReplyCode::NoRoute, (b"", b"t\xE9"), &content, 131_072);
    out.ack(1, 1, false);
    peer.write(out).await;
    let (_, returned) = soon(confirm.wait()).await.unwrap();
    assert_eq!(returned.unwrap().reply_text, "NO_ROUTE");
    let close = [&[0, 20, 0, 40, 1, 148, 5][..], b"no t\xE9", &[0, 60, 0, 40]].concat();
    let frame = [&[1, 0, 1, 0, 0, 0][..], &[close.len() as u8], &close, &[0xCE]].concat();
    peer.stream.write_all(&frame).await.unwrap();
    let ended = soon(channel.qos(1)).await.unwrap_err();
    assert!(matches!(&ended, Error::Refused { reply_code: 404, reply_text, .. } if reply_text == "no t?"), "{ended}");
    assert!(link.is_connected());
}

#[tokio::test]
async fn no_more_returned_messages_wait_for_confirms_than_there_are() {
    let (_link, mut peer, channel) = with_channel().await;
    let confirm = channel.publish_for_confirm(&publish(b"")).unwrap();
    let mut out = OutBuffer::default();
    let content = Content { properties: &[0, 0], small: b"", parts: &[] };
    for _ in 0..1_000 {
        out.returned(1, crate::wire::ReplyCode::NoRoute, (b"", b"q"), &content, 131_072);
    }
    out.ack(1, 1, false);
    peer.write(out).await;
    let (is_acked, returned) = soon(confirm.wait()).await.unwrap();
    assert!(is_acked && returned.is_some());
    let next = channel.publish_for_confirm(&publish(b"")).unwrap();
    let mut out = OutBuffer::default();
    out.ack(1, 2, false);
    peer.write(out).await;
    assert!(matches!(soon(next.wait()).await, Ok((true, None))), "the others were dropped");
}
