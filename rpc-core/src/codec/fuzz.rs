//! Fuzz target of the codecs: any body is decoded or refused, and a value that was decoded is written and read again. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Codec;

/// The first byte chooses the codec, the others are the body.
pub fn bodies(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let codec = [Codec::MessagePack, Codec::Json, Codec::Text][usize::from(choice) % 3];
    read_again::<Tree>(codec, body);
    read_again::<Anything>(codec, body);
    read_again::<Tagged>(codec, body);
    read_again::<Page>(codec, body);
    read_again::<Chain>(codec, body);
}

/// Deep bodies, and one of each kind.
pub fn body_seeds() -> Vec<Vec<u8>> {
    // More than a codec accepts, and few enough to fit into an input.
    const LEVELS: usize = 140;
    let json = |open: &str, inner: &str, close: &str| {
        [b"\x01", open.repeat(LEVELS).as_bytes(), inner.as_bytes(), close.repeat(LEVELS).as_bytes()].concat()
    };
    vec![
        [b"\x00", &*b"\x81\xa4Node".repeat(LEVELS), b"\xa4Leaf"].concat(),
        [b"\x00", &*b"\x91".repeat(LEVELS), b"\xc0"].concat(),
        [b"\x00\x82\xa3new", &*b"\x91".repeat(LEVELS), b"\xc0\xa1n\x01"].concat(),
        [b"\x00\x82\xa4kind\xa3Box\xa5value", &*b"\x91".repeat(LEVELS), b"\xc0"].concat(),
        b"\x00\x83\xa1n\x01\xa4last\xc3\xa5inner\x81\xa1a\x92\x01\xa1b".to_vec(),
        b"\x00\x01".to_vec(),
        json("{\"Node\":", "\"Leaf\"", "}"),
        json("[", "null", "]"),
        [b"\x01{\"kind\":\"Box\",\"value\":", &*b"[".repeat(LEVELS), &*b"]".repeat(LEVELS), b"}"].concat(),
        b"\x01{\"n\":1,\"last\":true,\"inner\":{\"a\":[1,\"b\"]}}".to_vec(),
        b"\x02Leaf".to_vec(),
        b"\x02".to_vec(),
    ]
}

fn read_again<T: Serialize + DeserializeOwned + PartialEq>(codec: Codec, body: &[u8]) {
    let Ok(value) = codec.decode::<T>(body) else { return };
    let Ok(written) = codec.encode(&value) else { return };
    assert!(codec.decode::<T>(&written) == Ok(value), "{codec:?} does not read its own {written:?}");
}

#[derive(PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Self>),
    Both { left: Box<Self>, right: Option<Box<Self>> },
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Anything {
    Nothing(()),
    Flag(bool),
    Number(i64),
    Text(String),
    Many(Vec<Self>),
    Named(BTreeMap<String, Self>),
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Box { value: Anything },
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Page {
    n: u8,
    #[serde(flatten)]
    inner: Inner,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Inner {
    last: bool,
    inner: Anything,
}

/// Contains itself without a byte between.
#[derive(PartialEq, Serialize, Deserialize)]
struct Chain(Option<Box<Self>>);
