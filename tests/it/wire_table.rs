//! The guide's table of how each Rust type looks on the wire, measured: every row is encoded, shown and read back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use chrono::{DateTime, NaiveDate, Utc};
use rpc_core::Codec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use uuid::Uuid;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u32,
    note: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Page {
    #[serde(flatten)]
    order: Order,
    last: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Metres(f64);

#[derive(Debug, Serialize, Deserialize)]
struct Point(i32, i32);

#[derive(Debug, Serialize, Deserialize)]
struct Marker;

#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Empty,
    Circle(f64),
    Line(i32, i32),
    Box { w: u8, h: u8 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Box { w: u8, h: u8 },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Text(String),
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    a: u8,
}

/// The three places where serde puts a value into a buffer of its own before it is decoded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum InUntagged<T> {
    It(T),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum InTagged<T> {
    It { value: T },
}

#[derive(Debug, Serialize, Deserialize)]
struct InFlattened<T> {
    #[serde(flatten)]
    inner: Inner<T>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Inner<T> {
    value: T,
}

/// The table, a row for each type.
fn measured() -> String {
    let mut text = String::from("| Rust | value | MessagePack | JSON | buffered |\n|---|---|---|---|---|\n");
    let uuid = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    let time = DateTime::<Utc>::from_timestamp(1_700_000_000, 500_000_000).unwrap();
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let order = |id| Order { id, note: None };
    let rows = [
        row("`bool`", "`true`", &true),
        row("`u8` … `u64`", "`30`", &30_u64),
        row("", "`u64::MAX`", &u64::MAX),
        row("`i8` … `i64`", "`-1`", &-1_i64),
        row("`u128`, `i128`", "`1`", &1_u128),
        row("", "`u128::MAX`", &u128::MAX),
        row("`f32`, `f64`", "`0.5`", &0.5_f64),
        row("", "`f64::NAN`", &f64::NAN),
        row("", "`f64::INFINITY`", &f64::INFINITY),
        row("`char`", "`'ß'`", &'ß'),
        row("`String`", "`\"Grüße\"`", &"Grüße".to_owned()),
        row("`()`", "`()`", &()),
        row("`Option<T>`", "`None`", &None::<u8>),
        row("", "`Some(3)`", &Some(3_u8)),
        row("`Option<Option<T>>`", "`Some(None)`", &Some(None::<u8>)),
        row("`Option<()>`", "`Some(())`", &Some(())),
        row("`Vec<T>`, `[T; N]`, sets", "`[1, 2]`", &BTreeSet::from([1_u8, 2])),
        row("`Vec<u8>`", "`[1, 255]`", &vec![1_u8, 255]),
        row("`serde_bytes::ByteBuf`", "`[1, 255]`", &ByteBuf::from([1, 255])),
        row("tuple", "`(1, \"a\")`", &(1_u8, "a".to_owned())),
        row("struct", "`Order { id: 7, note: None }`", &order(7)),
        row("struct with `#[serde(flatten)]`", "`Page { order, last: true }`", &Page { order: order(7), last: true }),
        row("tuple struct", "`Point(1, 2)`", &Point(1, 2)),
        row("newtype", "`Metres(0.5)`", &Metres(0.5)),
        row("unit struct", "`Marker`", &Marker),
        row("enum", "`Shape::Empty`", &Shape::Empty),
        row("", "`Shape::Circle(0.5)`", &Shape::Circle(0.5)),
        row("", "`Shape::Line(1, 2)`", &Shape::Line(1, 2)),
        row("", "`Shape::Box { w: 1, h: 2 }`", &Shape::Box { w: 1, h: 2 }),
        row("enum, `#[serde(tag = \"kind\")]`", "`Tagged::Box { w: 1, h: 2 }`", &Tagged::Box { w: 1, h: 2 }),
        row("enum, `#[serde(untagged)]`", "`Untagged::Number(3)`", &Untagged::Number(3)),
        row("", "`Untagged::Text(\"a\")`", &Untagged::Text("a".to_owned())),
        row("map", "`{\"a\": 1}`", &BTreeMap::from([("a".to_owned(), 1_u8)])),
        row("map of numbers", "`{1: 2}`", &BTreeMap::from([(1_u32, 2_u8)])),
        row("map of structs", "`{Key { a: 1 }: 2}`", &BTreeMap::from([(Key { a: 1 }, 2_u8)])),
        row("`std::time::Duration`", "1.5 s", &Duration::from_millis(1_500)),
        row("`std::time::SystemTime`", "1.5 s after 1970", &(UNIX_EPOCH + Duration::from_millis(1_500))),
        row("`std::net::IpAddr`", "127.0.0.1", &IpAddr::V4(Ipv4Addr::LOCALHOST)),
        row("`std::net::SocketAddr`", "`[::1]:80`", &SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80))),
        row("`uuid::Uuid`", "", &uuid),
        row("`chrono::DateTime<Utc>`", "", &time),
        row("`chrono::NaiveDate`", "", &day),
    ];
    for row in rows {
        text.push_str(&row);
    }
    text
}

/// One row: the value in both codecs, and whether it reads back.
fn row<T: Debug + Serialize + DeserializeOwned>(rust: &str, value_text: &str, value: &T) -> String {
    let msgpack = cell(Codec::MessagePack, value, |body| {
        let (text, rest) = diagnostic(body);
        assert!(rest.is_empty(), "{text} is followed by {rest:?}");
        text
    });
    let json = cell(Codec::Json, value, |body| String::from_utf8(body.to_vec()).unwrap());
    let buffered = buffered(value);
    format!("| {rust} | {value_text} | {msgpack} | {json} | {buffered} |\n")
}

/// Whether a value reads back where serde buffers it: inside `untagged`, `tag` and `flatten`.
fn buffered<T: Debug + Serialize + DeserializeOwned>(value: &T) -> String {
    let failing =
        [(Codec::MessagePack, "MessagePack"), (Codec::Json, "JSON")].into_iter().filter_map(|(codec, name)| {
            // A value that is refused or changed everywhere is a matter of the other columns.
            let alone = read_back::<T>(codec, value)?;
            let places = [
                read_back::<InUntagged<T>>(codec, &InUntagged::It(value)),
                read_back::<InTagged<T>>(codec, &InTagged::It { value }),
                read_back::<InFlattened<T>>(codec, &InFlattened { inner: Inner { value } }),
            ];
            let is_same = |place: &Option<String>| place.as_ref().is_some_and(|read| read.contains(&alone));
            (!places.iter().all(is_same)).then_some(name)
        });
    match &*failing.collect::<Vec<_>>() {
        [] => "yes".to_owned(),
        [only] => format!("not in {only}"),
        _ => "no".to_owned(),
    }
}

/// The value that a codec reads where `written` was written.
fn read_back<T: Debug + DeserializeOwned>(codec: Codec, written: &(impl Debug + Serialize)) -> Option<String> {
    let body = codec.encode(written).ok()?;
    codec.decode::<T>(&body).ok().map(|read| format!("{read:?}"))
}

fn cell<T: Debug + Serialize + DeserializeOwned>(codec: Codec, value: &T, show: impl Fn(&[u8]) -> String) -> String {
    let body = match codec.encode(value) {
        Ok(body) => body,
        Err(error) => return format!("refused: {}", error.to_string().replace('|', "\\|")),
    };
    let shown = show(&body);
    let note = match codec.decode::<T>(&body) {
        Ok(again) if format!("{again:?}") == format!("{value:?}") => String::new(),
        Ok(again) => format!(", which reads back as `{again:?}`"),
        Err(_) => ", which cannot be read back".to_owned(),
    };
    format!("`{shown}`{note}")
}

/// MessagePack as text: JSON's notation where JSON has one, and what follows the value.
fn diagnostic(body: &[u8]) -> (String, &[u8]) {
    let (&marker, rest) = body.split_first().unwrap();
    let bytes = |count: usize| rest.split_at(count);
    let number = |count: usize| {
        let (bytes, rest) = rest.split_at(count);
        (bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)), rest)
    };
    let shown = |(number, rest): (u64, _)| (number.to_string(), rest);
    match marker {
        0x00..=0x7f => (marker.to_string(), rest),
        0x80..=0x8f => sequence('{', usize::from(marker & 0x0f), rest),
        0x90..=0x9f => sequence('[', usize::from(marker & 0x0f), rest),
        0xa0..=0xbf => text(bytes(usize::from(marker & 0x1f))),
        0xc0 => ("nil".to_owned(), rest),
        0xc2 | 0xc3 => ((marker == 0xc3).to_string(), rest),
        0xc4 => {
            let (bin, rest) = rest[1..].split_at(usize::from(rest[0]));
            let hex = bin.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            (format!("bin {hex}"), rest)
        }
        0xca => {
            let (bits, rest) = number(4);
            (format!("float32 {:?}", f32::from_bits(u32::try_from(bits).unwrap())), rest)
        }
        0xcb => {
            let (bits, rest) = number(8);
            (format!("float64 {:?}", f64::from_bits(bits)), rest)
        }
        0xcc => shown(number(1)),
        0xcd => shown(number(2)),
        0xce => shown(number(4)),
        0xcf => shown(number(8)),
        0xd9 => text(rest[1..].split_at(usize::from(rest[0]))),
        0xe0..=0xff => (i8::from_be_bytes([marker]).to_string(), rest),
        _ => panic!("no row of the table needs the marker {marker:#04x}"),
    }
}

fn text<'a>((text, rest): (&'a [u8], &'a [u8])) -> (String, &'a [u8]) {
    (format!("{:?}", std::str::from_utf8(text).unwrap()), rest)
}

fn sequence(open: char, count: usize, mut rest: &[u8]) -> (String, &[u8]) {
    let mut items = Vec::new();
    for _ in 0..count {
        let (item, after) = diagnostic(rest);
        rest = after;
        if open == '{' {
            let (value, after) = diagnostic(rest);
            rest = after;
            items.push(format!("{item}:{value}"));
        } else {
            items.push(item);
        }
    }
    let close = if open == '{' { '}' } else { ']' };
    (format!("{open}{}{close}", items.join(",")), rest)
}

#[test]
fn the_guide_shows_how_each_type_looks_on_the_wire() {
    const BEGIN: &str = "<!-- types: measured, see tests/it/wire_table.rs -->\n\n";
    const END: &str = "\n<!-- end of types -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rpc-core/docs/wire.md");
    let mut chapter = std::fs::read_to_string(&path).unwrap();
    let begin = chapter.find(BEGIN).expect("the chapter marks the table") + BEGIN.len();
    let end = begin + chapter[begin..].find(END).expect("the chapter marks the table's end");
    let measured = measured();
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        chapter.replace_range(begin..end, &measured);
        std::fs::write(&path, &chapter).unwrap();
        return;
    }
    assert_eq!(&chapter[begin..end], measured, "UPDATE_GUIDE=1 cargo it wire_table writes the measured table");
}

/// As earlier versions wrote it.
#[test]
fn a_uuid_of_sixteen_bytes_is_still_read() {
    let uuid = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    let body = [&[0xc4, 16], &uuid.as_bytes()[..]].concat();
    assert_eq!(Codec::MessagePack.decode::<Uuid>(&body), Ok(uuid));
}
