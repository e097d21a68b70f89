//! A client that costs next to nothing: frames written as bytes, answers told apart by their first octets.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::Result;

/// A connection with channel 1 open.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// A frame that came.
pub(crate) struct Frame<'a> {
    /// Class and method of a method; 0 of anything else.
    pub(crate) ids: (u16, u16),
    pub(crate) payload: &'a [u8],
}

impl Frame<'_> {
    /// The delivery tag of a delivery: behind the ids and the consumer tag.
    pub(crate) fn delivery_tag(&self) -> Option<u64> {
        let at = 5 + usize::from(*self.payload.get(4)?);
        Some(u64::from_be_bytes(*self.payload.get(at..)?.first_chunk()?))
    }

    /// The tag of a confirm.
    pub(crate) fn confirmed(&self) -> Option<u64> {
        Some(u64::from_be_bytes(*self.payload.get(4..)?.first_chunk()?))
    }
}

impl Link {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let mut link = Self { stream, buffer: vec![0; 4_096], filled: 0 };
        link.send(b"AMQP\x00\x00\x09\x01")?;
        link.wait((10, 10))?;
        let start_ok = method((10, 11)).table(&[]).text("PLAIN").long_text(b"\0guest\0guest").text("en_US");
        link.send(&start_ok.frame(0))?;
        link.wait((10, 30))?;
        link.send(&method((10, 31)).short(2_047).long(131_072).short(0).frame(0))?;
        link.send(&method((10, 40)).text("/").text("").octet(0).frame(0))?;
        link.wait((10, 41))?;
        link.ask(&method((20, 10)).text("").frame(1), (20, 11))?;
        Ok(link)
    }

    /// Reads much at a time.
    pub(crate) fn for_throughput(mut self) -> Self {
        self.buffer.resize(512 * 1_024, 0);
        self
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a method and waits for its answer.
    pub(crate) fn ask(&mut self, bytes: &[u8], answer: (u16, u16)) -> Result<()> {
        self.send(bytes)?;
        self.wait(answer)
    }

    fn wait(&mut self, ids: (u16, u16)) -> Result<()> {
        let mut is_there = false;
        while !is_there {
            self.read(|frame| is_there |= frame.ids == ids)?;
        }
        Ok(())
    }

    /// Reads what there is, at least something, and hands over the whole frames.
    pub(crate) fn read(&mut self, mut look: impl FnMut(&Frame<'_>)) -> Result<()> {
        let read = self.stream.read(&mut self.buffer[self.filled..])?;
        if read == 0 {
            return Err("the broker closed the connection".into());
        }
        self.filled += read;
        let mut at = 0;
        while let Some(&[kind, _, _, s0, s1, s2, s3]) = self.buffer[at..self.filled].first_chunk() {
            let length = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
            if self.filled - at < length + 8 {
                if self.buffer.len() < length + 8 {
                    self.buffer.resize(2 * (length + 8), 0);
                }
                break;
            }
            let payload = &self.buffer[at + 7..at + 7 + length];
            let ids = match payload.first_chunk() {
                Some(&[c0, c1, m0, m1]) if kind == 1 => (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])),
                _ => (0, 0),
            };
            if matches!(ids, (10, 50) | (20, 40)) {
                return Err(format!("the broker closed: {}", String::from_utf8_lossy(payload)).into());
            }
            look(&Frame { ids, payload });
            at += length + 8;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }

    pub(crate) fn declare(&mut self, queue: &str) -> Result<()> {
        self.ask(&method((50, 10)).short(0).text(queue).octet(0).table(&[]).frame(1), (50, 11))
    }

    pub(crate) fn delete(&mut self, queue: &str) -> Result<()> {
        self.ask(&method((50, 40)).short(0).text(queue).octet(0).frame(1), (50, 41))
    }

    pub(crate) fn declare_exchange(&mut self, exchange: &str, kind: &str) -> Result<()> {
        self.ask(&method((40, 10)).short(0).text(exchange).text(kind).octet(0).table(&[]).frame(1), (40, 11))
    }

    pub(crate) fn delete_exchange(&mut self, exchange: &str) -> Result<()> {
        self.ask(&method((40, 20)).short(0).text(exchange).octet(0).frame(1), (40, 21))
    }

    pub(crate) fn consume(&mut self, queue: &str, prefetch_count: Option<u16>) -> Result<()> {
        if let Some(prefetch_count) = prefetch_count {
            self.ask(&method((60, 10)).long(0).short(prefetch_count).octet(0).frame(1), (60, 11))?;
        }
        // Bits: no_local, no_ack, exclusive, no_wait. Deliveries may be read together with an answer, so none is asked for.
        let bits = if prefetch_count.is_some() { 0b1000 } else { 0b1010 };
        self.send(&method((60, 20)).short(0).text(queue).text(queue).octet(bits).table(&[]).frame(1))
    }

    /// Everything sent before is done when this returns.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.ask(&method((60, 10)).long(0).short(0).octet(0).frame(1), (60, 11))
    }
}

/// A method's payload, argument by argument.
pub(crate) struct Payload(Vec<u8>);

pub(crate) fn method((class_id, method_id): (u16, u16)) -> Payload {
    Payload(Vec::new()).short(class_id).short(method_id)
}

impl Payload {
    pub(crate) fn octet(mut self, octet: u8) -> Self {
        self.0.push(octet);
        self
    }

    pub(crate) fn short(mut self, short: u16) -> Self {
        self.0.extend(short.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, long: u32) -> Self {
        self.0.extend(long.to_be_bytes());
        self
    }

    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self
    }

    pub(crate) fn long_text(mut self, text: &[u8]) -> Self {
        self.0.extend((text.len() as u32).to_be_bytes());
        self.0.extend(text);
        self
    }

    /// A table's fields.
    pub(crate) fn table(self, fields: &[u8]) -> Self {
        self.long_text(fields)
    }

    pub(crate) fn frame(self, channel: u16) -> Vec<u8> {
        frame(1, channel, &self.0)
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
    bytes
}

/// A publish: method, header, body. `properties` are flags and values.
pub(crate) fn publish(exchange: &str, routing_key: &str, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = method((60, 40)).short(0).text(exchange).text(routing_key).octet(0).frame(1);
    let mut header = vec![0, 60, 0, 0];
    header.extend((body.len() as u64).to_be_bytes());
    header.extend(properties);
    bytes.extend(frame(2, 1, &header));
    // Frames of 128 KiB were agreed on, overhead included.
    for piece in body.chunks(131_072 - 8) {
        bytes.extend(frame(3, 1, piece));
    }
    bytes
}

pub(crate) fn ack(delivery_tag: u64) -> [u8; 21] {
    let mut bytes = *b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50--------\x00\xCE";
    bytes[11..19].copy_from_slice(&delivery_tag.to_be_bytes());
    bytes
}

pub(crate) const NO_PROPERTIES: &[u8] = &[0, 0];

/// A broker that says nothing for so long is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);
