//! Fuzz targets of the wire format: frames and field tables. Pure.

use amq_protocol::{protocol::basic, types::parsing::parse_field_table};
use bytes::{Bytes, BytesMut};

use super::{
    ContentHeader, Decoder, FrameError, FrameKind, Method, OutBuffer, PropertyReader, PropertyWriter, Role,
    decoded_table,
    frame::{FRAME_END, FRAME_OVERHEAD},
    read_method, read_protocol_header,
    table::{self, DEPTH_MAX, TableWriter},
};

/// The first byte is the size of the pieces in which the rest arrives. The decoder must find the same frames for every size.
/// They must add up to the input, and every payload must be readable or refused.
pub fn frames(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let (whole, whole_error) = cut(bytes, bytes.len().max(1));
    let (pieces, pieces_error) = cut(bytes, usize::from(step).max(1));
    assert_eq!(whole, pieces, "frames depend on how they arrive");
    assert_eq!(whole_error, pieces_error, "the error depends on how it arrives");
    let mut again = Vec::new();
    for frame in &whole {
        again.push(frame.kind.octet());
        again.extend(frame.channel.to_be_bytes());
        again.extend((frame.payload.len() as u32).to_be_bytes());
        again.extend(&frame.payload);
        again.push(FRAME_END);
        look_into(frame);
    }
    assert!(bytes.starts_with(&again), "frames are not what came");
    let mut buffer = BytesMut::from(bytes);
    if read_protocol_header(&mut buffer).is_none() {
        assert!(bytes.len() < 8, "eight bytes are a header or none");
    }
}

#[derive(Debug, PartialEq)]
struct Frame {
    kind: FrameKind,
    channel: u16,
    payload: Bytes,
}

/// The frames in bytes that arrive `step` at a time, up to the first error.
fn cut(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<FrameError>) {
    let decoder = Decoder::new(FRAME_MAX);
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(step) {
        buffer.extend_from_slice(piece);
        let (batch, error) = decoder.cut(&mut buffer, usize::MAX);
        frames.extend(batch.frames().map(|frame| Frame {
            kind: frame.kind,
            channel: frame.channel,
            payload: frame.share(),
        }));
        if error.is_some() {
            return (frames, error);
        }
        assert!(buffer.capacity() <= bytes.len() + FRAME_MAX as usize + FRAME_OVERHEAD, "room for no frame");
    }
    (frames, None)
}

fn look_into(frame: &Frame) {
    match frame.kind {
        FrameKind::Method => {
            // Encoding a decoded method gives the same bytes, except for reserved bits.
            for sender in [Role::Client, Role::Server] {
                if let Ok(Method::Other(class)) = read_method(&frame.payload, sender, DEPTH_MAX) {
                    let mut out = OutBuffer::default();
                    out.method(frame.channel, &class);
                }
            }
        }
        FrameKind::Header => {
            if let Ok(header) = ContentHeader::read(&frame.payload, DEPTH_MAX) {
                properties(header.properties);
            }
        }
        FrameKind::Body | FrameKind::Heartbeat => {}
    }
}

/// The first byte says whether the rest is a table or properties. Accepted bytes can be walked, written again and decoded
/// by `amq-protocol`; refused bytes cause no panic.
pub fn tables(data: &[u8]) {
    match data.split_first() {
        Some((0, bytes)) => one_table(bytes),
        Some((_, bytes)) => {
            let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
            header.extend_from_slice(bytes);
            if let Ok(header) = ContentHeader::read(&header, DEPTH_MAX) {
                properties(header.properties);
            }
        }
        None => {}
    }
}

fn one_table(bytes: &[u8]) {
    let is_good = table::check(bytes, DEPTH_MAX);
    let mut writer = TableWriter::new();
    for field in table::fields(bytes) {
        writer.raw(field);
        assert!(!field.value.kind_name().is_empty());
        walk(field.value, if is_good { usize::MAX } else { 8 });
        assert!(table::find(bytes, field.key).is_some(), "a field is not found by its key");
    }
    if !is_good {
        return;
    }
    assert_eq!(writer.finish(), bytes, "a table written again");
    let decoded = decoded_table::decode(bytes, DEPTH_MAX);
    assert!(decoded.is_some(), "a table that was found good is not decoded");
    // Keys with one of the characters that stand for bytes which are not UTF-8 are escaped; all of them begin so.
    if bytes.windows(2).any(|pair| pair == [0xF4, 0x8F]) {
        return;
    }
    // The library refuses keys that are not UTF-8.
    if let Ok((rest, parsed)) = parse_field_table(bytes) {
        assert!(rest.is_empty());
        // A NaN differs from itself.
        assert_eq!(format!("{decoded:?}"), format!("{:?}", Some(parsed)), "the library reads another table");
    }
}

fn walk(value: table::Value<'_>, depth: usize) {
    assert!(value.as_text().is_none_or(|text| text.len() + 4 == value.raw.len()), "a text is not all of its value");
    let _ = value.as_integer();
    if depth == 0 {
        return;
    }
    for inner in value.as_array().into_iter().flatten() {
        walk(inner, depth - 1);
    }
    for inner in value.as_table().into_iter().flatten() {
        walk(inner.value, depth - 1);
    }
}

/// Accepted properties.
fn properties(bytes: &[u8]) {
    let reader = PropertyReader::new(bytes);
    let _ = (reader.delivery_mode(), reader.priority(), reader.user_id());
    let again = PropertyWriter::new(bytes).write();
    // One flag stands for no property, so it is not written again.
    assert_eq!((again[0], again[1], &again[2..]), (bytes[0], bytes[1] & !2, &bytes[2..]), "properties written again");
    if let Some(headers) = reader.raw_headers() {
        one_table(headers);
        assert!(table::check(headers, DEPTH_MAX) && reader.headers().is_some(), "headers are no table");
    }
    let headers = TableWriter::new().finish();
    let changed = PropertyWriter::new(bytes).headers(&headers).reply_to("there").without_expiration().write();
    let changed = PropertyReader::new(&changed);
    assert_eq!((changed.raw_headers(), changed.reply_to()), (Some(&headers[..]), Some(&b"there"[..])));
    assert_eq!((changed.expiration(), changed.priority()), (None, reader.priority()));
    // The broker forwards text that is not UTF-8, which `amq-protocol` cannot decode.
    let _ = basic::parse_properties(bytes);
}

/// Frames of every kind, whole and malformed.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let frame = |kind: u8, payload: &[u8], end: u8| {
        let mut bytes = vec![kind, 0, 1];
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes.push(end);
        bytes
    };
    let publish = frame(1, b"\0\x3c\0\x28\0\0\x08exchange\x03key\0", FRAME_END);
    let header = frame(2, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..], &table_seeds()[3][1..]].concat(), FRAME_END);
    let declare = frame(1, b"\0\x32\0\x0a\0\0\x01q\x02\0\0\0\x0a\x05x-ttlI\0\0\0", FRAME_END);
    let whole = [&[1][..], &publish, &header, &frame(3, b"ab", FRAME_END), &frame(8, b"", FRAME_END)].concat();
    // Deeper than a table may be, in methods of a client, of a server, and in a header.
    let deep = deep_table(DEPTH_MAX + 20);
    let deep_start = frame(1, &[b"\0\x0a\0\x0a\0\x09", &deep[..], &[0; 8]].concat(), FRAME_END);
    let deep_declare = frame(1, &[b"\0\x32\0\x0a\0\0\x01q\0", &deep[..]].concat(), FRAME_END);
    let deep_header = frame(2, &[b"\0\x3c\0\0\0\0\0\0\0\0\0\x02\x20\0", &deep[..]].concat(), FRAME_END);
    vec![
        [&[9][..], &deep_start, &deep_header].concat(),
        [&[9][..], &deep_declare].concat(),
        whole,
        [&[7][..], &declare].concat(),
        [&[3][..], &frame(1, b"\0\x0a\0\x1f\0\x10\0\x02\0\0\0\x3c", FRAME_END)].concat(),
        [&[255][..], &frame(8, b"", FRAME_END), &frame(3, b"ab", 0)].concat(),
        [&[2][..], &frame(4, b"", FRAME_END)].concat(),
        b"\x01AMQP\0\0\x09\x01".to_vec(),
        b"\x09\x01\0\x01\xff\xff\xff\xff".to_vec(),
    ]
}

/// Tables and arrays in one another, by turns.
pub(crate) fn deep_table(depth: usize) -> Vec<u8> {
    let mut value = vec![b'V'];
    for level in 0..depth {
        let key: &[u8] = if level % 2 == 0 { b"\x01k" } else { b"" };
        let kind = if level % 2 == 0 { b'F' } else { b'A' };
        value = [&[kind][..], &((key.len() + value.len()) as u32).to_be_bytes(), key, &value].concat();
    }
    let length = (value.len() + 2) as u32;
    [&length.to_be_bytes()[..], b"\x01k", &value].concat()
}

/// A table of every type, tables in tables, and properties with and without them.
pub fn table_seeds() -> Vec<Vec<u8>> {
    let mut every = vec![0, 0, 0, 0];
    for (kind, raw) in [
        (b't', &[1][..]),
        (b'b', &[0xFF]),
        (b'B', &[1]),
        (b's', &[0, 1]),
        (b'U', &[0, 1]),
        (b'u', &[0, 1]),
        (b'I', &[0, 0, 0, 1]),
        (b'i', &[0, 0, 0, 1]),
        (b'l', &[0; 8]),
        (b'L', &[0; 8]),
        (b'f', &[0; 4]),
        (b'd', &[0; 8]),
        (b'D', &[2, 0, 0, 0, 5]),
        (b'S', b"\0\0\0\x01x"),
        (b'A', b"\0\0\0\x04t\x01b\x02"),
        (b'T', &[0; 8]),
        (b'F', b"\0\0\0\x04\x01kt\0"),
        (b'x', b"\0\0\0\x01\xFF"),
        (b'V', &[]),
    ] {
        every.extend([1, kind, kind]);
        every.extend(raw);
    }
    let length = (every.len() - 4) as u32;
    every[..4].copy_from_slice(&length.to_be_bytes());
    let mut nested = vec![0; 4];
    for _ in 0..4 {
        nested = [&((nested.len() + 3) as u32).to_be_bytes()[..], b"\x01kF", &nested].concat();
    }
    let deep = [DEPTH_MAX, DEPTH_MAX + 1].map(deep_table);
    let mut properties = vec![0xFF, 0xFC];
    properties.extend(b"\x01t\x01e");
    properties.extend(&nested);
    properties.extend(b"\x02\x09\x01c\x01r\x03100\x01m\0\0\0\0\0\0\0\x01\x01t\x05guest\x01a\0");
    vec![
        [&[0][..], &every].concat(),
        [&[0][..], &nested].concat(),
        vec![1, 0, 0],
        [&[1][..], &properties].concat(),
        [&[1, 0x20, 0][..], &every].concat(),
        b"\0\0\0\0\x0d\x03\xe9t\xe9F\0\0\0\x04\x02\xff\xfeV".to_vec(),
        [&[0][..], &deep[0]].concat(),
        [&[1, 0x20, 0][..], &deep[1]].concat(),
    ]
}

const FRAME_MAX: u32 = 4_096;
