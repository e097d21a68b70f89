//! The properties of a published message that the broker acts on.

use std::borrow::Cow;

use crate::{
    broker::core::{
        fault::{Fault, erlang_pair},
        names::{shown, text_of},
        session::Session,
        vhost::arguments::TTL_MAX_MS,
    },
    wire::{
        PropertyReader,
        table::{self, TableWriter, Value},
    },
};

/// The properties of a published message that the broker acts on.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) priority: u8,
    pub(crate) expiration_ms: Option<u64>,
    copies: Option<Box<CarbonCopies>>,
}

impl Requests {
    /// Reads and checks the properties.
    pub(crate) fn read(reader: PropertyReader<'_>, session: &Session) -> Result<Self, Fault> {
        if let Some(user) = reader.user_id().filter(|user| *user != session.user.as_bytes())
            && !session.is_impersonator
        {
            return Err(Fault::wrong_user_id(&shown(user), &session.user));
        }
        let expiration_ms = expiration(reader)?;
        if let Some(mode) = reader.delivery_mode().filter(|mode| !matches!(mode, 1 | 2))
            && session.facts.checks_delivery_mode
        {
            return Err(Fault::unknown_delivery_mode(mode));
        }
        let copies = reader.raw_headers().map(CarbonCopies::read).transpose()?.flatten();
        Ok(Self { priority: reader.priority().unwrap_or(0), expiration_ms, copies })
    }

    /// The routing keys in CC and BCC.
    pub(crate) fn copy_keys(&self) -> &[String] {
        self.copies.as_deref().map(|copies| copies.keys.as_slice()).unwrap_or_default()
    }

    /// The headers as consumers see them, if they differ from the published ones.
    pub(crate) fn headers_without_bcc(&self) -> Option<&[u8]> {
        self.copies.as_deref()?.without_bcc.as_deref()
    }
}

fn expiration(reader: PropertyReader<'_>) -> Result<Option<u64>, Fault> {
    // Nearly every expiration is read here, at a fraction of the cost.
    if let Some(milliseconds) = reader.plain_expiration_ms() {
        return Ok(Some(milliseconds));
    }
    let Some(raw) = reader.expiration() else {
        return Ok(None);
    };
    let text = shown(raw);
    // RabbitMQ reads the leading digits, and its fault names the rest.
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(sign + digits);
    if digits == 0 {
        return Err(Fault::invalid_expiration(&text, "no_integer"));
    }
    let refuse = |why: &str, value: &str| {
        let before = format!("invalid expiration '{text}': ");
        Err(Fault::invalid_expiration(&text, &erlang_pair(before.len(), why, value)))
    };
    if !rest.is_empty() {
        return refuse("leftover_string", &format!("\"{rest}\""));
    }
    let (sign, digits) = number.split_at(sign);
    let digits = digits.trim_start_matches('0');
    match digits.parse::<u64>() {
        // Erlang knows no -0.
        _ if digits.is_empty() => Ok(Some(0)),
        _ if sign == "-" => refuse("value_negative", &format!("-{digits}")),
        Ok(value) if value <= TTL_MAX_MS => Ok(Some(value)),
        _ => refuse("value_too_large", digits),
    }
}

/// The routing keys in the headers CC and BCC.
#[derive(Debug, Default)]
struct CarbonCopies {
    keys: Vec<String>,
    /// The headers without BCC, if they had one.
    without_bcc: Option<Vec<u8>>,
}

impl CarbonCopies {
    /// Reads CC and BCC; `None` if the headers contain neither.
    fn read(headers: &[u8]) -> Result<Option<Box<Self>>, Fault> {
        // Most messages have neither, so a pass over the undecoded fields is cheaper than decoding them.
        if !table::fields(headers).any(|field| matches!(field.key, b"CC" | b"BCC")) {
            return Ok(None);
        }
        let found = ["CC", "BCC"].map(|name| table::find(headers, name.as_bytes()).map(|value| (name, value)));
        let [cc, bcc] = found;
        let mut copies = Self::default();
        for (name, value) in [cc, bcc].into_iter().flatten() {
            let kind = value.kind_name();
            let Some(keys) = value.as_array() else {
                return Err(Fault::unacceptable_header(name, kind));
            };
            copies.keys.extend(keys.filter_map(Value::as_text).map(text_of).map(Cow::into_owned));
        }
        if bcc.is_some() {
            let mut kept = TableWriter::new();
            for field in table::fields(headers).filter(|field| field.key != b"BCC") {
                kept.raw(field);
            }
            copies.without_bcc = Some(kept.finish());
        }
        Ok(Some(Box::new(copies)))
    }
}
