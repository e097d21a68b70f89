//! `#[service(…)]` and `#[rpc(…)]`: keys and values, every mistake noted at its token.

use std::{collections::HashSet, time::Duration};

use proc_macro2::{Span, TokenStream};
use syn::{
    Attribute, LitInt, LitStr, Path,
    meta::ParseNestedMeta,
    parse::{ParseStream, Parser},
};

use crate::{
    errors::Errors,
    names::{did_you_mean, wire_name_mistake},
};

/// What `#[service(…)]` says.
#[derive(Default)]
pub(crate) struct ServiceOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<u32>,
    pub(crate) queue: Option<LitStr>,
    pub(crate) codec: Option<Codec>,
    pub(crate) max_length: Option<u32>,
    pub(crate) krate: Option<Path>,
    pub(crate) client_impls_trait: Option<Span>,
    pub(crate) dyn_trait: Option<Span>,
}

/// The codecs by name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    MessagePack,
    Json,
    Text,
}

/// What `#[rpc(…)]` says.
#[derive(Default)]
pub(crate) struct MethodOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) aliases: Vec<LitStr>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotent: Option<Span>,
    pub(crate) oneway: Option<Span>,
    pub(crate) blocking: Option<Span>,
    pub(crate) no_cancel: Option<Span>,
    pub(crate) queue: Option<LitStr>,
    pub(crate) priority: Option<u8>,
}

const SERVICE_KEYS: [&str; 8] =
    ["name", "version", "queue", "codec", "max_length", "crate", "client_impls_trait", "dyn_trait"];
const METHOD_KEYS: [&str; 9] =
    ["name", "alias", "timeout", "idempotent", "oneway", "blocking", "no_cancel", "queue", "priority"];

impl ServiceOptions {
    pub(crate) fn parse(arguments: TokenStream, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let mut seen = HashSet::new();
        parse_keys(arguments, errors, |meta, errors| {
            let key = key_of(&meta);
            check_repeated(&meta, &key, &mut seen, errors);
            match key.as_str() {
                "name" => options.name = wire_name(text(&meta)?, errors),
                "version" => {
                    options.version =
                        integer(&meta, "version", 1, u32::MAX.into(), errors)?.and_then(|n| n.try_into().ok());
                }
                "queue" => options.queue = queue_name(text(&meta)?, errors),
                "codec" => options.codec = codec(&text(&meta)?, errors),
                "max_length" => {
                    options.max_length =
                        integer(&meta, "max_length", 1, u32::MAX.into(), errors)?.and_then(|n| n.try_into().ok());
                }
                "crate" => options.krate = krate(&text(&meta)?, errors),
                "client_impls_trait" => options.client_impls_trait = Some(flag(&meta)?),
                "dyn_trait" => options.dyn_trait = Some(flag(&meta)?),
                _ => unknown_key(&meta, &key, "service", &SERVICE_KEYS, errors)?,
            }
            Ok(())
        });
        options
    }
}

impl MethodOptions {
    /// Reads and removes a method's `#[rpc(…)]` attributes.
    pub(crate) fn take(attributes: &mut Vec<Attribute>, errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let mut seen = HashSet::new();
        let (own, kept): (Vec<_>, Vec<_>) =
            std::mem::take(attributes).into_iter().partition(|attribute| attribute.path().is_ident("rpc"));
        *attributes = kept;
        for attribute in own {
            match attribute.meta {
                syn::Meta::List(list) => options.read(list.tokens, &mut seen, errors),
                other => errors.at(other, "write the options in parentheses: `#[rpc(timeout = \"2s\")]`"),
            }
        }
        options
    }

    fn read(&mut self, tokens: TokenStream, seen: &mut HashSet<String>, errors: &mut Errors) {
        parse_keys(tokens, errors, |meta, errors| {
            let key = key_of(&meta);
            if key != "alias" {
                check_repeated(&meta, &key, seen, errors);
            }
            match key.as_str() {
                "name" => self.name = wire_name(text(&meta)?, errors),
                "alias" => self.aliases.extend(wire_name(text(&meta)?, errors)),
                "timeout" => self.timeout = duration(&text(&meta)?, errors),
                "idempotent" => self.idempotent = Some(flag(&meta)?),
                "oneway" => self.oneway = Some(flag(&meta)?),
                "blocking" => self.blocking = Some(flag(&meta)?),
                "no_cancel" => self.no_cancel = Some(flag(&meta)?),
                "queue" => self.queue = wire_name(text(&meta)?, errors),
                "priority" => {
                    self.priority = integer(&meta, "priority", 0, 255, errors)?.and_then(|n| n.try_into().ok());
                }
                _ => unknown_key(&meta, &key, "rpc", &METHOD_KEYS, errors)?,
            }
            Ok(())
        });
    }
}

/// Parses `key = value, flag, …`; a syntax error ends the list, everything else is noted and parsing goes on.
fn parse_keys(
    tokens: TokenStream,
    errors: &mut Errors,
    mut each: impl FnMut(ParseNestedMeta<'_>, &mut Errors) -> syn::Result<()>,
) {
    let parser = syn::meta::parser(|meta| each(meta, errors));
    if let Err(error) = parser.parse2(tokens) {
        errors.add(error);
    }
}

fn key_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map_or_else(String::new, ToString::to_string)
}

fn check_repeated(meta: &ParseNestedMeta<'_>, key: &str, seen: &mut HashSet<String>, errors: &mut Errors) {
    if !seen.insert(key.to_owned()) {
        errors.at(&meta.path, format!("`{key}` is given twice; keep one"));
    }
}

fn unknown_key(
    meta: &ParseNestedMeta<'_>,
    key: &str,
    attribute: &str,
    known: &[&str],
    errors: &mut Errors,
) -> syn::Result<()> {
    let list = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    let it =
        did_you_mean(key, known).map_or_else(|| "; it".to_owned(), |meant| format!(": did you mean `{meant}`? It"));
    errors.at(&meta.path, format!("#[{attribute}] has no `{key}`{it} knows {list}"));
    skip_value(meta.input)
}

/// Skips what belongs to a key nobody knows, so that the keys behind it are read.
fn skip_value(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(syn::Token![,]) {
        input.parse::<proc_macro2::TokenTree>()?;
    }
    Ok(())
}

fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    let key = key_of(meta);
    if !meta.input.peek(syn::Token![=]) {
        return Err(meta.error(format!("`{key}` takes a text: write `{key} = \"…\"`")));
    }
    let value = meta.value()?;
    value.parse().map_err(|error| syn::Error::new(error.span(), format!("`{key}` takes a text: write `{key} = \"…\"`")))
}

fn flag(meta: &ParseNestedMeta<'_>) -> syn::Result<Span> {
    let key = key_of(meta);
    if meta.input.peek(syn::Token![=]) || meta.input.peek(syn::token::Paren) {
        return Err(meta.error(format!("`{key}` takes no value: write `{key}` alone, or leave it out")));
    }
    Ok(syn::spanned::Spanned::span(&meta.path))
}

fn integer(
    meta: &ParseNestedMeta<'_>,
    key: &str,
    least: u64,
    most: u64,
    errors: &mut Errors,
) -> syn::Result<Option<u64>> {
    let expected = format!("`{key}` takes a whole number from {least} to {most}: write `{key} = {}`", least.max(1));
    if !meta.input.peek(syn::Token![=]) {
        return Err(meta.error(expected));
    }
    let value = meta.value()?;
    if !value.peek(LitInt) {
        errors.at_span(value.span(), expected);
        skip_value(value)?;
        return Ok(None);
    }
    let literal: LitInt = value.parse()?;
    match literal.base10_parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => {
            errors.at(literal, expected);
            Ok(None)
        }
    }
}

fn wire_name(name: LitStr, errors: &mut Errors) -> Option<LitStr> {
    match wire_name_mistake(&name.value()) {
        None => Some(name),
        Some(mistake) => {
            errors.at(&name, mistake);
            None
        }
    }
}

/// A queue of the bare profile is named by others: any short string.
fn queue_name(name: LitStr, errors: &mut Errors) -> Option<LitStr> {
    let text = name.value();
    if text.is_empty() {
        errors.at(&name, "the queue's name is empty; write the queue's name, for example \"rpc_queue\"");
        return None;
    }
    if text.len() > crate::names::SHORT_STRING_BYTES_MAX {
        errors.at(&name, format!("the queue's name has {} bytes; AMQP's limit is 255", text.len()));
        return None;
    }
    if text.starts_with("amq.") {
        errors.at(&name, "queue names starting with `amq.` are the broker's own; choose another name");
        return None;
    }
    Some(name)
}

fn codec(name: &LitStr, errors: &mut Errors) -> Option<Codec> {
    match name.value().as_str() {
        "msgpack" => Some(Codec::MessagePack),
        "json" => Some(Codec::Json),
        "text" => Some(Codec::Text),
        other => {
            errors.at(name, format!("no codec is called `{other}`; write \"msgpack\", \"json\" or \"text\""));
            None
        }
    }
}

fn krate(path: &LitStr, errors: &mut Errors) -> Option<Path> {
    match path.parse_with(Path::parse_mod_style) {
        Ok(path) => Some(path),
        Err(_) => {
            errors.at(path, "`crate` takes the path under which rpc-core is known here: write `crate = \"my_rpc\"`");
            None
        }
    }
}

/// `250ms`, `2s`, `5m`, `1h`.
fn duration(text: &LitStr, errors: &mut Errors) -> Option<Duration> {
    const EXPECTED: &str = "write a whole number and a unit, ms, s, m or h: \"250ms\", \"2s\"";
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let milliseconds_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            errors.at(text, format!("`{value}` is no duration; {EXPECTED}"));
            return None;
        }
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds_per_unit)) {
        Some(0) => {
            errors.at(
                text,
                "a timeout of nothing ends every call before it starts; leave it out for the default of 10 s",
            );
            None
        }
        Some(milliseconds) => Some(Duration::from_millis(milliseconds)),
        None => {
            errors.at(text, format!("`{value}` is no duration; {EXPECTED}"));
            None
        }
    }
}
