//! Frames as a client writes them.

/// `start-ok`, `tune-ok`, `open`, and two channels.
pub(super) fn handshake(frame_max: u32) -> Vec<u8> {
    // Announces `consumer_cancel_notify`, so that the broker sends `basic.cancel`.
    let notify = b"\0\0\0\x2b\x0ccapabilitiesF\0\0\0\x19\x16consumer_cancel_notifyt\x01";
    let start_ok = method((10, 11)).table(notify).text("PLAIN").long_text(b"\0guest\0guest").text("en_US");
    let tune_ok = method((10, 31)).short(7).long(frame_max).short(60);
    let open = method((10, 40)).text("/").text("").octet(0);
    let channels = [1, 2].map(|channel| method((20, 10)).text("").frame(channel));
    [start_ok.frame(0), tune_ok.frame(0), open.frame(0), channels.concat()].concat()
}

/// A method's payload, argument by argument.
pub(super) struct Payload(pub(super) Vec<u8>);

pub(super) fn method((class_id, method_id): (u16, u16)) -> Payload {
    Payload(Vec::new()).short(class_id).short(method_id)
}

impl Payload {
    pub(super) fn octet(mut self, octet: u8) -> Self {
        self.0.push(octet);
        self
    }

    pub(super) fn short(mut self, short: u16) -> Self {
        self.0.extend(short.to_be_bytes());
        self
    }

    pub(super) fn long(mut self, long: u32) -> Self {
        self.0.extend(long.to_be_bytes());
        self
    }

    pub(super) fn longlong(mut self, longlong: u64) -> Self {
        self.0.extend(longlong.to_be_bytes());
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self
    }

    pub(super) fn long_text(self, text: &[u8]) -> Self {
        self.long(text.len() as u32).table(text)
    }

    /// Appends a table that is encoded with its length.
    pub(super) fn table(mut self, table: &[u8]) -> Self {
        self.0.extend(table);
        self
    }

    /// The whole frame.
    pub(super) fn frame(self, channel: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 1, channel, &self.0);
        bytes
    }
}

pub(super) fn put_frame(bytes: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    bytes.push(kind);
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xCE);
}
