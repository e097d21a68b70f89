//! Methods, content headers and frames: from the notation of transcripts to bytes, and back.

use std::fmt::Write;

use super::{
    methods::Method,
    quote::quote,
    reader::Reader,
    text::{Cursor, parse},
    value::{decode_table, encode_table, show_table},
};

/// The octet that ends a frame.
pub const FRAME_END: u8 = 0xCE;

/// Frame types.
pub mod kind {
    /// A method.
    pub const METHOD: u8 = 1;
    /// A content header.
    pub const HEADER: u8 = 2;
    /// A content body.
    pub const BODY: u8 = 3;
    /// A heartbeat.
    pub const HEARTBEAT: u8 = 8;
}

/// The named values of a line: `queue=q durable arguments={…}`, each as it stands there.
#[derive(Debug, Default, Clone)]
pub struct Arguments<'a>(Vec<(&'a str, Option<Cursor<'a>>)>);

impl<'a> Arguments<'a> {
    /// Reads the rest of a line.
    ///
    /// # Errors
    /// When it is not in the notation.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self, String> {
        let mut arguments = Vec::new();
        while !cursor.is_at_end() {
            let name = cursor.word();
            if name.is_empty() {
                return Err(format!("a name expected: {cursor:?}"));
            }
            if !cursor.take('=') {
                arguments.push((name, None));
                continue;
            }
            arguments.push((name, Some(cursor.clone())));
            if cursor.clone().take('{') {
                cursor.table()?;
            } else {
                cursor.bytes()?;
            }
        }
        Ok(Self(arguments))
    }

    /// Takes a value out; `None` when it is not given.
    pub fn remove(&mut self, name: &str) -> Option<Cursor<'a>> {
        let at = self.0.iter().position(|(given, _)| *given == name)?;
        Some(self.0.remove(at).1.unwrap_or_else(|| Cursor::new("true")))
    }

    /// Takes bytes out.
    ///
    /// # Errors
    /// When they are not in the notation.
    pub fn remove_bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.remove(name).map(|mut cursor| cursor.bytes()).transpose()
    }

    /// Takes a number out.
    ///
    /// # Errors
    /// When it is none.
    pub fn remove_number<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, String> {
        self.remove(name).map(|mut cursor| parse(cursor.word())).transpose()
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// When something is left.
    pub fn finish(self) -> Result<(), String> {
        match self.0.first() {
            Some((name, _)) => Err(format!("unknown argument {name}")),
            None => Ok(()),
        }
    }

    fn encode(&mut self, kind: &str, name: &str, out: &mut Vec<u8>) -> Result<(), String> {
        match kind {
            "octet" => out.push(self.remove_number(name)?.unwrap_or_default()),
            "short" => out.extend(self.remove_number::<u16>(name)?.unwrap_or_default().to_be_bytes()),
            "long" => out.extend(self.remove_number::<u32>(name)?.unwrap_or_default().to_be_bytes()),
            "longlong" => out.extend(self.remove_number::<u64>(name)?.unwrap_or_default().to_be_bytes()),
            "shortstr" => {
                let text = self.remove_bytes(name)?.unwrap_or_default();
                out.push(u8::try_from(text.len()).map_err(|_| format!("{name} is longer than 255 bytes"))?);
                out.extend(text);
            }
            "longstr" => {
                let text = self.remove_bytes(name)?.unwrap_or_default();
                out.extend(u32::try_from(text.len()).map_err(|_| format!("{name} is too long"))?.to_be_bytes());
                out.extend(text);
            }
            "table" => {
                let table = self.remove(name).map(|mut cursor| cursor.table()).transpose()?;
                encode_table(&table.unwrap_or_default(), out);
            }
            _ => return Err(format!("unknown type {kind}")),
        }
        Ok(())
    }
}

/// The payload of a method frame; takes the method's arguments, missing ones are zero or empty.
///
/// # Errors
/// When an argument is not of its type.
pub fn encode_method(method: &Method, arguments: &mut Arguments<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    out.extend(method.class_id.to_be_bytes());
    out.extend(method.method_id.to_be_bytes());
    let mut bits = 0;
    for (kind, name) in method.arguments() {
        if kind != "bit" {
            bits = 0;
            arguments.encode(kind, name, &mut out)?;
            continue;
        }
        if bits % 8 == 0 {
            out.push(0);
        }
        let is_set = arguments.remove_bytes(name)?.is_some_and(|value| value == b"true");
        if let Some(last) = out.last_mut() {
            *last |= u8::from(is_set) << (bits % 8);
        }
        bits += 1;
    }
    Ok(out)
}

/// The payload of a content header frame; takes the properties, and `class`, `weight`, `flags` if not the usual ones.
///
/// # Errors
/// When a property is not of its type.
pub fn encode_header(size: u64, arguments: &mut Arguments<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    out.extend(arguments.remove_number::<u16>("class")?.unwrap_or(60).to_be_bytes());
    out.extend(arguments.remove_number::<u16>("weight")?.unwrap_or(0).to_be_bytes());
    out.extend(size.to_be_bytes());
    let mut flags = 0u16;
    let mut values = Vec::new();
    for (at, (kind, name)) in PROPERTIES.into_iter().enumerate() {
        if arguments.0.iter().any(|(given, _)| *given == name) {
            flags |= 1 << (15 - at);
            arguments.encode(kind, name, &mut values)?;
        }
    }
    out.extend(arguments.remove_number("flags")?.unwrap_or(flags).to_be_bytes());
    out.extend(values);
    Ok(out)
}

/// A whole frame.
pub fn encode_frame(kind: u8, channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend(u32::try_from(payload.len()).expect("scenarios are smaller than 4 GiB").to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
}

/// A frame's payload in the notation of transcripts.
pub fn show(kind: u8, payload: &[u8]) -> String {
    let shown = match kind {
        kind::METHOD => show_method(payload),
        kind::HEADER => show_header(payload),
        kind::BODY => Some(format!("body {}", quote(payload))),
        kind::HEARTBEAT => Some("heartbeat".to_owned()),
        _ => None,
    };
    shown.unwrap_or_else(|| format!("frame {kind} {}", quote(payload)))
}

/// The method in a method frame's payload.
pub fn method_of(payload: &[u8]) -> Option<&'static Method> {
    let mut reader = Reader::new(payload);
    Method::numbered(reader.short()?, reader.short()?)
}

fn show_method(payload: &[u8]) -> Option<String> {
    let method = method_of(payload)?;
    let mut reader = Reader::new(&payload[4..]);
    let mut shown = method.name.to_owned();
    if method.name.ends_with(".close") {
        let (code, text) = (reader.short()?, reader.short_string()?);
        return Some(format!("{shown} {code} {} ({},{})", quote(text), reader.short()?, reader.short()?));
    }
    let mut bits = None;
    for (kind, name) in method.arguments() {
        if kind == "bit" {
            let (octet, at) = match bits {
                Some(bits) => bits,
                None => (reader.octet()?, 0),
            };
            bits = (at < 7).then_some((octet, at + 1));
            write!(shown, " {name}={}", octet >> at & 1 == 1).ok()?;
        } else {
            bits = None;
            write!(shown, " {name}={}", show_value(&mut reader, kind)?).ok()?;
        }
    }
    Some(if reader.is_at_end() { shown } else { format!("{shown} and {} bytes more", reader.len()) })
}

fn show_header(payload: &[u8]) -> Option<String> {
    let mut reader = Reader::new(payload);
    let (class, weight, size) = (reader.short()?, reader.short()?, reader.long_long()?);
    let flags = reader.short()?;
    let mut shown = format!("header size={size}");
    if (class, weight) != (60, 0) {
        write!(shown, " class={class} weight={weight}").ok()?;
    }
    for (at, (kind, name)) in PROPERTIES.into_iter().enumerate() {
        if flags >> (15 - at) & 1 == 1 {
            write!(shown, " {name}={}", show_value(&mut reader, kind)?).ok()?;
        }
    }
    if flags & 0b11 != 0 || !reader.is_at_end() {
        write!(shown, " flags={flags:#x} and {} bytes more", reader.len()).ok()?;
    }
    Some(shown)
}

/// Takes a value of a kind in `methods.rs`, and shows it; `None` when the payload ends too early.
fn show_value(reader: &mut Reader<'_>, kind: &str) -> Option<String> {
    Some(match kind {
        "octet" => reader.octet()?.to_string(),
        "short" => reader.short()?.to_string(),
        "long" => reader.long()?.to_string(),
        "longlong" => reader.long_long()?.to_string(),
        "shortstr" => quote(reader.short_string()?),
        "longstr" => quote(reader.long_string()?),
        "table" => show_table(&decode_table(reader)?),
        _ => return None,
    })
}

const PROPERTIES: [(&str, &str); 14] = [
    ("shortstr", "content_type"),
    ("shortstr", "content_encoding"),
    ("table", "headers"),
    ("octet", "delivery_mode"),
    ("octet", "priority"),
    ("shortstr", "correlation_id"),
    ("shortstr", "reply_to"),
    ("shortstr", "expiration"),
    ("shortstr", "message_id"),
    ("longlong", "timestamp"),
    ("shortstr", "type"),
    ("shortstr", "user_id"),
    ("shortstr", "app_id"),
    ("shortstr", "cluster_id"),
];
