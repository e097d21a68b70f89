//! One connection of a scenario: what the runner has to remember of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use rpc_tests::wire::{Arguments, Method, Socket, encode_frame, encode_header, encode_method, kind};

/// A connection with the channels opened on it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) frame_max: usize,
    /// Whether the broker has said goodbye.
    pub(crate) is_closed: bool,
    /// The channels that were opened, by the scenario or for it.
    pub(crate) channels: BTreeSet<u16>,
    /// The publishes not confirmed yet, of channels in confirm mode.
    confirms: BTreeMap<u16, Confirms>,
    /// The bytes that are still to be written.
    out: Vec<u8>,
}

#[derive(Debug, Default)]
struct Confirms {
    published: u64,
    outstanding: BTreeSet<u64>,
}

impl Link {
    pub(crate) fn new(socket: Socket) -> Self {
        let (channels, confirms) = (BTreeSet::new(), BTreeMap::new());
        Self { socket, frame_max: 131_072, is_closed: false, channels, confirms, out: Vec::new() }
    }

    /// Adds bytes to the next write.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.out.extend(bytes);
    }

    /// Adds a frame to the next write.
    pub(crate) fn put_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        encode_frame(kind, channel, payload, &mut self.out);
    }

    /// Adds a method to the next write, with its content if there is a `body`.
    pub(crate) fn put_method(
        &mut self,
        channel: u16,
        method: &Method,
        mut arguments: Arguments<'_>,
    ) -> Result<(), String> {
        let payload = encode_method(method, &mut arguments)?;
        self.put_frame(kind::METHOD, channel, &payload);
        match method.name {
            "confirm.select" => {
                self.confirms.entry(channel).or_default();
            }
            "channel.open" | "channel.close" | "channel.close-ok" => {
                self.confirms.remove(&channel);
                self.channels.insert(channel);
            }
            "basic.publish" => {
                if let Some(confirms) = self.confirms.get_mut(&channel) {
                    confirms.published += 1;
                    confirms.outstanding.insert(confirms.published);
                }
                if let Some(body) = arguments.remove_bytes("body")? {
                    let header = encode_header(body.len() as u64, &mut arguments)?;
                    self.put_frame(kind::HEADER, channel, &header);
                    for part in body.chunks(self.frame_max - 8) {
                        self.put_frame(kind::BODY, channel, part);
                    }
                }
            }
            _ => {}
        }
        arguments.finish()
    }

    /// Writes what was put.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.socket.send(&out)
    }

    /// The publishes a confirm is about: how many one ack covers is the broker's choice, and a matter of timing.
    pub(crate) fn confirm(&mut self, channel: u16, delivery_tag: u64, is_multiple: bool) -> Vec<u64> {
        let Some(confirms) = self.confirms.get_mut(&channel) else { return Vec::new() };
        if !is_multiple {
            return confirms.outstanding.take(&delivery_tag).into_iter().collect();
        }
        let later = confirms.outstanding.split_off(&(delivery_tag + 1));
        std::mem::replace(&mut confirms.outstanding, later).into_iter().collect()
    }
}
