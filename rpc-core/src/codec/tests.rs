use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Arguments {
    n: u32,
    #[serde(default)]
    label: Option<String>,
}

#[test]
fn structs_travel_as_maps_of_names_and_positional_arrays_are_read_too() {
    let arguments = Arguments { n: 30, label: None };
    let body = Codec::MessagePack.encode(&arguments).unwrap();
    assert_eq!(body[0], 0x82, "a map of two");
    assert_eq!(Codec::MessagePack.decode::<Arguments>(&body).unwrap(), arguments);
    let positional = Codec::MessagePack.encode(&(30, None::<String>)).unwrap();
    assert_eq!(Codec::MessagePack.decode::<Arguments>(&positional).unwrap(), arguments);
}

#[test]
fn unknown_fields_are_ignored_and_missing_ones_with_a_default_are_filled() {
    #[derive(Serialize)]
    struct Newer {
        n: u32,
        added_later: bool,
    }
    let body = Codec::MessagePack.encode(&Newer { n: 1, added_later: true }).unwrap();
    assert_eq!(Codec::MessagePack.decode::<Arguments>(&body).unwrap(), Arguments { n: 1, label: None });
}

#[test]
fn truncated_and_overlong_bodies_are_errors() {
    let body = Codec::MessagePack.encode(&Arguments { n: 1, label: Some("x".into()) }).unwrap();
    for end in 0..body.len() {
        assert!(Codec::MessagePack.decode::<Arguments>(&body[..end]).is_err(), "{end}");
    }
    let mut overlong = body;
    overlong.push(0);
    let error = Codec::MessagePack.decode::<Arguments>(&overlong).unwrap_err();
    assert_eq!(error.to_string(), "application/msgpack: more bytes follow the value");
}

#[test]
fn text_carries_scalars_as_the_tutorials_write_them() {
    assert_eq!(Codec::Text.encode(&30_u32).unwrap(), b"30");
    assert_eq!(Codec::Text.decode::<u64>(b"832040").unwrap(), 832_040);
    assert_eq!(Codec::Text.decode::<String>(b"").unwrap(), "");
    assert_eq!(Codec::Text.decode::<String>(b"a b").unwrap(), "a b");
    Codec::Text.decode::<u64>(b"").unwrap_err();
    Codec::Text.encode(&Arguments { n: 1, label: None }).unwrap_err();
}

#[test]
fn nothing_travels_in_every_codec() {
    for codec in [Codec::MessagePack, Codec::Text] {
        let body = codec.encode(&()).unwrap();
        codec.decode::<()>(&body).unwrap_or_else(|error| panic!("{codec:?}: {error}"));
    }
}

#[test]
fn content_types_are_read_without_parameters_or_case() {
    assert_eq!(Codec::from_content_type("Application/JSON; charset=utf-8"), Some(Codec::Json));
    assert_eq!(Codec::from_content_type("application/x-msgpack"), Some(Codec::MessagePack));
    assert_eq!(Codec::from_content_type("text/plain"), Some(Codec::Text));
    assert_eq!(Codec::from_content_type("image/png"), None);
}

/// `Node(Node(… Leaf))`, an enum inside each.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Box<Self>),
}

/// A `struct` that contains itself without a byte between: it recursed for ever.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Chain(Option<Box<Self>>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u8),
    Many(Vec<Self>),
}

/// A body in one codec, of `levels` levels.
fn nested(codec: Codec, open: &str, inner: &str, close: &str, levels: usize) -> Vec<u8> {
    let msgpack = |text: &str| match text {
        "[" => vec![0x91],
        "{\"Node\":" => b"\x81\xa4Node".to_vec(),
        "1" => vec![1],
        "\"Leaf\"" => b"\xa4Leaf".to_vec(),
        other => panic!("{other}"),
    };
    match codec {
        Codec::MessagePack => [msgpack(open).repeat(levels), msgpack(inner)].concat(),
        _ => format!("{}{inner}{}", open.repeat(levels), close.repeat(levels)).into_bytes(),
    }
}

fn tree(codec: Codec, levels: usize) -> Vec<u8> {
    nested(codec, "{\"Node\":", "\"Leaf\"", "}", levels)
}

fn arrays(codec: Codec, levels: usize) -> Vec<u8> {
    nested(codec, "[", "1", "]", levels)
}

/// MessagePack, and JSON where it is built.
fn nesting_codecs() -> Vec<Codec> {
    if cfg!(feature = "json") { vec![Codec::MessagePack, Codec::Json] } else { vec![Codec::MessagePack] }
}

fn is_too_deep<T: DeserializeOwned>(codec: Codec, body: &[u8], max_depth: u32) -> bool {
    match codec.decode_within::<T>(body, max_depth) {
        Ok(_) => false,
        Err(error) => error.to_string().contains("nested more deeply"),
    }
}

#[test]
fn a_body_may_nest_as_deeply_as_the_limit_and_no_deeper() {
    let limit = Codec::MAX_DEPTH as usize;
    for codec in nesting_codecs() {
        assert!(codec.decode::<Tree>(&tree(codec, limit)).is_ok(), "{codec:?}");
        assert!(codec.decode::<Either>(&arrays(codec, limit)).is_ok(), "{codec:?}");
        assert!(is_too_deep::<Tree>(codec, &tree(codec, limit + 1), Codec::MAX_DEPTH), "{codec:?}");
        assert!(is_too_deep::<Tree>(codec, &tree(codec, 3), 2), "{codec:?}");
        assert!(!is_too_deep::<Tree>(codec, &tree(codec, 300), 300), "{codec:?}: more than the default");
        // The value of an untagged enum is buffered.
        codec.decode::<Either>(&arrays(codec, limit + 1)).unwrap_err();
    }
}

#[test]
fn hundreds_of_thousands_of_levels_are_an_error_wherever_they_stand() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is only decoded")]
    struct Known {
        n: u8,
    }
    #[derive(Debug, Deserialize)]
    #[serde(tag = "kind")]
    #[expect(dead_code, reason = "it is only decoded")]
    enum Tagged {
        Box { w: u8 },
    }
    for codec in nesting_codecs() {
        for deep in [tree(codec, 300_000), arrays(codec, 300_000)] {
            assert!(is_too_deep::<Tree>(codec, &deep, Codec::MAX_DEPTH) || deep[0] == arrays(codec, 1)[0]);
            assert!(codec.decode::<Either>(&deep).is_err());
            assert!(codec.decode::<Tagged>(&deep).is_err());
            // A field that the reader ignores.
            let mut ignored = if codec == Codec::Json { b"{\"x\":".to_vec() } else { b"\x82\xa1x".to_vec() };
            ignored.extend(&deep);
            ignored.extend(if codec == Codec::Json { &b",\"n\":1}"[..] } else { b"\xa1n\x01" });
            // JSON's ignores without recursing, so there it is none.
            let outcome = codec.decode::<Known>(&ignored);
            assert!(codec == Codec::Json || outcome.is_err(), "{codec:?}");
        }
    }
}

#[test]
fn a_type_that_contains_itself_without_a_byte_between_is_an_error() {
    let mut bodies = vec![(Codec::MessagePack, &[1][..]), (Codec::Text, b"1")];
    if cfg!(feature = "json") {
        bodies.push((Codec::Json, b"1"));
    }
    for (codec, body) in bodies {
        assert!(is_too_deep::<Chain>(codec, body, Codec::MAX_DEPTH), "{codec:?}");
    }
    assert_eq!(Codec::MessagePack.decode::<Chain>(&[0xc0]).unwrap(), Chain(None));
}

#[test]
fn a_value_that_would_be_read_as_another_is_not_written() {
    #[derive(Debug, Serialize)]
    struct Wrapped<T>(T);
    for codec in nesting_codecs() {
        for error in [
            codec.encode(&Some(None::<u8>)).unwrap_err(),
            codec.encode(&vec![Some(Wrapped(None::<u8>))]).unwrap_err(),
            codec.encode(&Some(())).unwrap_err(),
            codec.encode(&(1, Some(Some(Some(None::<u8>))))).unwrap_err(),
        ] {
            assert!(error.to_string().contains("would be read as `None`"), "{error}");
        }
        // An array between keeps them apart.
        for value in [Some(vec![None::<u8>]), Some(Vec::new()), None] {
            let body = codec.encode(&value).unwrap();
            assert_eq!(codec.decode::<Option<Vec<Option<u8>>>>(&body).unwrap(), value);
        }
    }
}

#[cfg(feature = "json")]
#[test]
fn json_refuses_numbers_that_it_cannot_write() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for error in [Codec::Json.encode(&value), Codec::Json.encode(&[value as f32]), Codec::Json.encode(&Some(value))]
        {
            assert!(error.unwrap_err().to_string().contains("JSON has no number"), "{value}");
        }
        Codec::MessagePack.encode(&value).unwrap();
    }
}

#[test]
fn addresses_are_read_back_wherever_serde_buffers_them() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Peer {
        Address(SocketAddr),
        Name(String),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Event {
        Login { from: IpAddr },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Host {
        id: u32,
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        address: IpAddr,
    }
    fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        for codec in nesting_codecs() {
            assert_eq!(codec.decode::<T>(&codec.encode(value).unwrap()).as_ref(), Ok(value), "{codec:?}");
        }
    }
    same(&Peer::Address("127.0.0.1:5".parse().unwrap()));
    same(&Peer::Name("h".into()));
    same(&Event::Login { from: "::1".parse().unwrap() });
    same(&Host { id: 1, inner: Inner { address: "::1".parse().unwrap() } });
    assert_eq!(Codec::MessagePack.encode(&IpAddr::from([127, 0, 0, 1])).unwrap(), b"\xa9127.0.0.1");
}

/// The bytes of ordinary requests, which older callers send and read.
#[test]
fn the_bytes_of_requests_stay() {
    #[derive(Serialize)]
    struct Request<'a> {
        n: u32,
        text: &'a str,
        list: Vec<Option<i64>>,
        tree: Tree,
    }
    let request = Request { n: 300, text: "a", list: vec![None, Some(-1)], tree: Tree::Node(Box::new(Tree::Leaf)) };
    let body = Codec::MessagePack.encode(&request).unwrap();
    let expected = b"\x84\xa1n\xcd\x01\x2c\xa4text\xa1a\xa4list\x92\xc0\xff\xa4tree\x81\xa4Node\xa4Leaf";
    assert_eq!(body, expected);
}
