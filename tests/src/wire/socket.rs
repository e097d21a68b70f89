//! A TCP connection that writes any bytes and cuts what comes back into frames.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// Something that came from the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A protocol header: the broker does not speak what was asked for.
    ProtocolHeader([u8; 8]),
    /// A frame.
    Frame {
        /// Its type.
        kind: u8,
        /// Its channel.
        channel: u16,
        /// The bytes of its payload.
        payload: Vec<u8>,
    },
    /// A frame without the end octet; the stream is not read further.
    BadFrameEnd(u8),
    /// The broker closed the connection.
    Eof,
}

/// The writing half; closes the connection when dropped.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Connects, and hands everything that arrives to `sink`, on a thread that ends with the connection.
    ///
    /// # Errors
    /// When the broker is not there.
    pub fn connect(address: SocketAddr, sink: impl FnMut(Received) + Send + 'static) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let reading = stream.try_clone()?;
        thread::Builder::new().name("raw reader".to_owned()).spawn(move || read(reading, sink))?;
        Ok(Self { stream })
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the connection is closed, or the broker has not read for 10 s.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.stream).write_all(bytes)
    }

    /// Closes the connection without a word.
    pub fn disconnect(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.disconnect();
    }
}

fn read(stream: TcpStream, mut sink: impl FnMut(Received)) {
    let mut reader = io::BufReader::new(stream);
    // A reset is an end like any other here: whether it is one depends on what the kernel has buffered.
    while let Ok(received) = receive(&mut reader) {
        let is_last = matches!(received, Received::BadFrameEnd(_));
        sink(received);
        if is_last {
            break;
        }
    }
    sink(Received::Eof);
}

fn receive(reader: &mut impl Read) -> io::Result<Received> {
    let mut start = [0; 7];
    reader.read_exact(&mut start)?;
    if start.starts_with(b"AMQP") {
        let mut last = [0];
        reader.read_exact(&mut last)?;
        let mut header = [0; 8];
        header[..7].copy_from_slice(&start);
        header[7] = last[0];
        return Ok(Received::ProtocolHeader(header));
    }
    let [kind, channel @ .., _, _, _, _] = start;
    let [_, _, _, length @ ..] = start;
    let mut payload = vec![0; u32::from_be_bytes(length) as usize];
    reader.read_exact(&mut payload)?;
    let mut end = [0];
    reader.read_exact(&mut end)?;
    if end[0] != super::FRAME_END {
        return Ok(Received::BadFrameEnd(end[0]));
    }
    Ok(Received::Frame { kind, channel: u16::from_be_bytes(channel), payload })
}

const TIMEOUT: Duration = Duration::from_secs(10);
