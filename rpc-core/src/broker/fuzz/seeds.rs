//! The first inputs of the corpus.

use super::{METHODS, TABLE_DEPTH_MAX, frames::handshake};
use crate::wire::{FRAME_MIN_SIZE, fuzz::deep_table};

/// Histories that reach deep into the core: prefetch limits, dead letters, transactions, raw handshakes.
pub fn connection_seeds() -> Vec<Vec<u8>> {
    let declare = [12, 0, 0, 0, 0];
    let publish = [8, 0, 0, 0, 0, 1, b'x'];
    let consume = [13, 1, 0, 4];
    let raw_handshake = {
        let bytes = handshake(FRAME_MIN_SIZE);
        [&[5, 2, 0, 2, bytes.len() as u8][..], &bytes].concat()
    };
    let mut seeds = deep_seeds();
    seeds.extend([
        [&declare[..], &publish, &[15, 1, 0, 1], &consume, &publish, &[16, 1, 0, 4], &[17, 1, 0, 2]].concat(),
        [&[12, 0, 0, 0, 0b0001_0111][..], &[12, 0, 0, 2, 0], &publish, &publish, &[3, 0, 9], &consume, &publish]
            .concat(),
        [&declare[..], &[22, 1, 0, 0], &consume, &publish, &[16, 1, 0, 4], &[22, 1, 0, 3], &[22, 1, 0, 1]].concat(),
        [&declare[..], &[22, 0, 0, 4], &publish, &[18, 1, 1, 0], &[22, 1, 1, 5], &[4, 1], &publish].concat(),
        [&raw_handshake[..], &[1, 2, 1, 1, 4, 0, 50, 0, 10], &[0, 2, 3, 1, 2, 3]].concat(),
        [&declare[..], &consume, &[6, 1, 7], &publish, &[6, 1, 0], &[7, 1], &[20, 0, 0, 0]].concat(),
        [&declare[..], &[19, 0, 0, 16, 2], &[21, 0, 0, 4, 4], &[8, 0, 0, 4, 0x41, 0], &[12, 0, 0, 0, 0xA4]].concat(),
        [&[2, 0, 0, 1, 20][..], &[0, 9, 0, 0, 0, 10, 1, b'k', b'F', 0, 0, 0, 3, 1, b'k', b'V'], &[0; 8]].concat(),
        [&[12, 0, 0, 8, 0x22][..], &[13, 0, 0, 0x44, 5], &[13, 0, 1, 4], &publish, &publish, &[23, 0, 0, 3]].concat(),
    ]);
    seeds
}

/// A table as deep as the limit, and one that is deeper, in every method that has a table and in a header: on an open
/// channel, on channel 0 and before the login. Only a broker sends the first method.
fn deep_seeds() -> Vec<Vec<u8>> {
    let with_table = [
        ((10, 10), &b"\0\x09"[..], &b"\0\0\0\x05PLAIN\0\0\0\x05en_US"[..]),
        ((10, 11), b"", b"\x05PLAIN\0\0\0\0\x05en_US"),
        ((40, 10), b"\0\0\x01e\x05topic\0", b""),
        ((40, 30), b"\0\0\x01e\x01f\0\0", b""),
        ((40, 40), b"\0\0\x01e\x01f\0\0", b""),
        ((50, 10), b"\0\0\x01q\0", b""),
        ((50, 20), b"\0\0\x01q\x01e\0\0", b""),
        ((50, 50), b"\0\0\x01q\x01e\0", b""),
        ((60, 20), b"\0\0\x01q\x01t\0", b""),
    ];
    let mut seeds = Vec::new();
    for depth in [TABLE_DEPTH_MAX, TABLE_DEPTH_MAX + 1] {
        let table = deep_table(depth);
        for (ids, before, after) in with_table {
            let at = METHODS.iter().position(|known| *known == ids).unwrap_or_default();
            let arguments = [before, &table, after].concat();
            for (before, channel) in [(&[][..], 1), (&[], 0), (&[5, 0], 0)] {
                let step = [2, 0, at as u8, channel, arguments.len() as u8];
                seeds.push([before, &step[..], &arguments].concat());
            }
        }
        let header = [b"\0\x3c\0\0\0\0\0\0\0\0\0\0\x20\0", &table[..]].concat();
        let publish = [2, 0, 30, 1, 6, 0, 0, 0, 1, b'q', 0];
        seeds.push([&publish[..], &[1, 0, 2, 1, header.len() as u8], &header].concat());
    }
    seeds
}
