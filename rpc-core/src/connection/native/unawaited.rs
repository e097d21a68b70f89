//! Takes the requests that no call awaits any more out of frames that wait to be written. Pure.
//!
//! Whole messages alone: the frames of a message whose first one has left already stay. The channels with publisher confirms are
//! left out, because the broker numbers what arrives there.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;

use crate::wire::{ContentHeader, FrameKind, OutBuffer, PropertyReader, table::DEPTH_MAX};

/// Says whether a call still awaits the reply with a correlation_id.
#[derive(Clone)]
pub(super) struct Awaited(Arc<IsAwaited>);

type IsAwaited = dyn Fn(&[u8]) -> bool + Send + Sync;

impl Awaited {
    pub(super) fn new(is_awaited: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_awaited))
    }

    pub(super) fn has(&self, correlation_id: &[u8]) -> bool {
        (self.0)(correlation_id)
    }
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaited").finish_non_exhaustive()
    }
}

/// The frames without the requests for which `is_awaited`, asked by channel and correlation_id, is false; and how many messages
/// were taken out.
pub(super) fn remove(queued: &VecDeque<Bytes>, is_awaited: impl Fn(u16, &[u8]) -> bool) -> (OutBuffer, usize) {
    let mut kept = OutBuffer::default();
    let mut removed = 0;
    // A publish whose header is next, and the bytes of a body that is taken out.
    let mut publish: Option<&[u8]> = None;
    let mut body_left = 0;
    for segment in queued {
        let mut rest = &segment[..];
        while let Some((frame, behind)) = cut(rest) {
            rest = behind;
            if body_left > 0 && frame.kind == FrameKind::Body.octet() {
                body_left = u64::saturating_sub(body_left, frame.payload.len() as u64);
                continue;
            }
            match publish.take() {
                None if frame.is_publish() => publish = Some(frame.whole),
                None => kept.raw(frame.whole),
                Some(method) => match frame.request().filter(|(id, _)| !is_awaited(frame.channel, id)) {
                    Some((_, body_bytes)) => {
                        body_left = body_bytes;
                        removed += 1;
                    }
                    None => {
                        kept.raw(method);
                        kept.raw(frame.whole);
                    }
                },
            }
        }
        // Segments hold whole frames.
        kept.raw(rest);
    }
    kept.raw(publish.unwrap_or_default());
    (kept, removed)
}

struct Frame<'a> {
    kind: u8,
    channel: u16,
    payload: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Frame<'a> {
    fn is_publish(&self) -> bool {
        self.kind == FrameKind::Method.octet() && self.payload.starts_with(&PUBLISH)
    }

    /// The correlation_id of a request, and the length of its body; `None` for any other message.
    fn request(&self) -> Option<(&'a [u8], u64)> {
        let header = ContentHeader::read(self.payload, DEPTH_MAX).ok()?;
        let properties = PropertyReader::new(header.properties);
        properties.reply_to()?;
        Some((properties.correlation_id()?, header.body_size))
    }
}

/// The first frame, and what follows it.
fn cut(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (&[kind, c0, c1, s0, s1, s2, s3], rest) = bytes.split_first_chunk()?;
    let payload = rest.get(..u32::from_be_bytes([s0, s1, s2, s3]) as usize)?;
    // With its end octet.
    let (whole, behind) = bytes.split_at_checked(7 + payload.len() + 1)?;
    Some((Frame { kind, channel: u16::from_be_bytes([c0, c1]), payload, whole }, behind))
}

/// Class and method of `basic.publish`.
const PUBLISH: [u8; 4] = [0, 60, 0, 40];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Content, NewProperties, Publish};

    const FRAME_MAX: u32 = 4_096;

    fn publish(out: &mut OutBuffer, channel: u16, id: &str, reply_to: Option<&str>, body: &[u8]) {
        let mut properties = Vec::new();
        let mut new = NewProperties::new(&mut properties);
        new.correlation_id(id);
        if let Some(reply_to) = reply_to {
            new.reply_to(reply_to);
        }
        new.finish().unwrap();
        let publish = Publish { exchange: b"rpc", routing_key: b"key", mandatory: true, immediate: false };
        out.publish(channel, publish, &Content { properties: &properties, small: body, parts: &[] }, FRAME_MAX);
    }

    fn segments(mut out: OutBuffer) -> VecDeque<Bytes> {
        let mut segments = VecDeque::new();
        out.take_into(&mut segments);
        segments
    }

    fn flat(segments: &VecDeque<Bytes>) -> Vec<u8> {
        segments.iter().flatten().copied().collect()
    }

    #[test]
    fn only_requests_that_no_call_awaits_are_taken_out_with_all_their_frames() {
        let long = vec![7; 200_000];
        let (mut all, mut expected) = (OutBuffer::default(), OutBuffer::default());
        for (channel, id, reply_to, body, is_kept) in [
            (1, "dead", Some("me"), &b"body"[..], false),
            (1, "live", Some("me"), b"body", true),
            // One in many frames and segments, one without a body, one that looks like a frame.
            (1, "dead", Some("me"), &long, false),
            (1, "dead", Some("me"), b"", false),
            (1, "live", Some("me"), &long, true),
            (1, "dead", Some("me"), b"\x01\0\x01\0\0\0\x04\0\x3c\0\x28\xce", false),
            // On a channel with confirms, and one that is no request.
            (2, "dead", Some("me"), b"body", true),
            (1, "dead", None, b"body", true),
        ] {
            publish(&mut all, channel, id, reply_to, body);
            if is_kept {
                publish(&mut expected, channel, id, reply_to, body);
            }
            for out in [&mut all, &mut expected] {
                out.ack(1, 5, false);
                out.heartbeat();
            }
        }
        let all = segments(all);
        assert!(all.len() > 3, "messages lie on several segments");
        let (kept, removed) = remove(&all, |channel, id| channel != 1 || id == b"live");
        assert_eq!(removed, 4);
        assert!(flat(&segments(kept)) == flat(&segments(expected)));
        let (kept, removed) = remove(&all, |_, _| true);
        assert_eq!((removed, flat(&segments(kept))), (0, flat(&all)));
    }

    #[test]
    fn a_message_whose_first_frames_have_left_stays() {
        let mut out = OutBuffer::default();
        publish(&mut out, 1, "dead", Some("me"), &[7; 10_000]);
        let whole = flat(&segments(out));
        let method_bytes = cut(&whole).unwrap().0.whole.len();
        let header_bytes = cut(&whole[method_bytes..]).unwrap().0.whole.len();
        for gone in [method_bytes, method_bytes + header_bytes, method_bytes + header_bytes + FRAME_MAX as usize] {
            let left = VecDeque::from([Bytes::copy_from_slice(&whole[gone..])]);
            let (kept, removed) = remove(&left, |_, _| false);
            assert_eq!((removed, flat(&segments(kept))), (0, flat(&left)));
        }
    }
}
