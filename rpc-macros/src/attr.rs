//! `#[service(…)]` and `#[rpc(…)]`: options and their values, every mistake noted at its token.

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

/// The options of `#[service(…)]`.
#[derive(Default)]
pub(crate) struct ServiceOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<u32>,
    pub(crate) queue: Option<LitStr>,
    pub(crate) codec: Option<Codec>,
    pub(crate) max_length: Option<u32>,
    pub(crate) max_depth: Option<u32>,
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

/// The options of `#[rpc(…)]` on a method.
#[derive(Default)]
pub(crate) struct MethodOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) aliases: Vec<LitStr>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotent: Option<Span>,
    pub(crate) hedge: Option<Span>,
    pub(crate) oneway: Option<Span>,
    pub(crate) blocking: Option<Span>,
    pub(crate) no_cancel: Option<Span>,
    pub(crate) queue: Option<LitStr>,
    pub(crate) priority: Option<u8>,
}

/// The options of `#[rpc(…)]` on a service's error, or on a variant of it.
#[derive(Default)]
pub(crate) struct ErrorOptions {
    pub(crate) code: Option<LitStr>,
    pub(crate) retryable: Option<Span>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) krate: Option<Path>,
}

/// The options of `#[rpc(…)]` on an argument.
#[derive(Default)]
pub(crate) struct ArgumentOptions {
    pub(crate) default: Option<Span>,
}

const SERVICE_KEYS: [&str; 9] =
    ["name", "version", "queue", "codec", "max_length", "max_depth", "crate", "client_impls_trait", "dyn_trait"];
/// The most levels that a body may be allowed to nest: decoding them takes most of the 2 MiB that a thread of tokio has.
const MAX_DEPTH_MAX: u64 = 10_000;
const METHOD_KEYS: [&str; 10] =
    ["name", "alias", "timeout", "idempotent", "hedge", "oneway", "blocking", "no_cancel", "queue", "priority"];

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
                "max_depth" => {
                    options.max_depth =
                        integer(&meta, "max_depth", 1, MAX_DEPTH_MAX, errors)?.and_then(|n| n.try_into().ok());
                }
                "crate" => options.krate = krate(&text(&meta)?, errors),
                "client_impls_trait" => options.client_impls_trait = Some(flag(&meta)?),
                "dyn_trait" => options.dyn_trait = Some(flag(&meta)?),
                _ => unknown_key(&meta, &key, "#[service]", &SERVICE_KEYS, errors)?,
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
                "timeout" => {
                    let zero = "a timeout of 0 ends every call before it is sent; remove it for the default of 10 s";
                    self.timeout = duration(&text(&meta)?, zero, errors);
                }
                "idempotent" => self.idempotent = Some(flag(&meta)?),
                "hedge" => self.hedge = Some(flag(&meta)?),
                "oneway" => self.oneway = Some(flag(&meta)?),
                "blocking" => self.blocking = Some(flag(&meta)?),
                "no_cancel" => self.no_cancel = Some(flag(&meta)?),
                "queue" => self.queue = wire_name(text(&meta)?, errors),
                "priority" => {
                    self.priority = integer(&meta, "priority", 0, 255, errors)?.and_then(|n| n.try_into().ok());
                }
                "default" => {
                    errors.at(
                        &meta.path,
                        "`default` belongs on an argument: `async fn method(&self, #[rpc(default)] argument: u32)`",
                    );
                    skip_value(meta.input)?;
                }
                _ => unknown_key(&meta, &key, "#[rpc]", &METHOD_KEYS, errors)?,
            }
            Ok(())
        });
    }
}

impl ErrorOptions {
    /// Reads the attributes of a type or of a variant, which may have those of `known`.
    pub(crate) fn of(attributes: &[Attribute], place: &str, known: &[&str], errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let mut seen = HashSet::new();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("rpc")) {
            match &attribute.meta {
                syn::Meta::List(list) => options.read(list.tokens.clone(), place, known, &mut seen, errors),
                other => errors.at(other, "write the options in parentheses: `#[rpc(retryable)]`"),
            }
        }
        options
    }

    fn read(
        &mut self,
        tokens: TokenStream,
        place: &str,
        known: &[&str],
        seen: &mut HashSet<String>,
        errors: &mut Errors,
    ) {
        parse_keys(tokens, errors, |meta, errors| {
            let key = key_of(&meta);
            check_repeated(&meta, &key, seen, errors);
            match key.as_str() {
                key if !known.contains(&key) => unknown_key(&meta, key, place, known, errors)?,
                "code" => self.code = wire_name(text(&meta)?, errors),
                "retryable" => self.retryable = Some(flag(&meta)?),
                "retry_after" => {
                    let zero = "a time of 0 says nothing; write `retryable` alone";
                    self.retry_after = duration(&text(&meta)?, zero, errors);
                }
                _ => self.krate = krate(&text(&meta)?, errors),
            }
            Ok(())
        });
    }
}

impl ArgumentOptions {
    /// Reads an argument's attributes.
    pub(crate) fn of(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut options = Self::default();
        let mut seen = HashSet::new();
        for attribute in attributes {
            match &attribute.meta {
                syn::Meta::List(list) if list.path.is_ident("rpc") => {
                    options.read(list.tokens.clone(), &mut seen, errors);
                }
                other if other.path().is_ident("rpc") => errors.at(other, "write `#[rpc(default)]`"),
                syn::Meta::List(list) if is_serde_default(list) => {
                    errors.at(attribute, "write `#[rpc(default)]`: it sets a missing argument to `Default::default()`")
                }
                _ => errors.at(
                    attribute,
                    "an argument takes the attribute `#[rpc(default)]` only; put others on the argument's type",
                ),
            }
        }
        options
    }

    fn read(&mut self, tokens: TokenStream, seen: &mut HashSet<String>, errors: &mut Errors) {
        parse_keys(tokens, errors, |meta, errors| {
            let key = key_of(&meta);
            check_repeated(&meta, &key, seen, errors);
            match key.as_str() {
                "default" if meta.input.peek(syn::Token![=]) => {
                    errors.at(
                        &meta.path,
                        "`default` takes no value: a missing argument becomes `Default::default()`; for another value use \
                         a type with that default, or take an `Option`",
                    );
                    skip_value(meta.input)?;
                }
                "default" => self.default = Some(flag(&meta)?),
                _ => unknown_key(&meta, &key, "#[rpc] on an argument", &["default"], errors)?,
            }
            Ok(())
        });
    }
}

fn is_serde_default(list: &syn::MetaList) -> bool {
    let is_default =
        |token: proc_macro2::TokenTree| matches!(token, proc_macro2::TokenTree::Ident(ident) if ident == "default");
    list.path.is_ident("serde") && list.tokens.clone().into_iter().any(is_default)
}

/// Parses `key = value, flag, …`. A syntax error ends the list; after any other mistake parsing continues.
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
    let guess = did_you_mean(key, known).map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
    errors.at(&meta.path, format!("{attribute} has no option `{key}`{guess} (options: {list})"));
    skip_value(meta.input)
}

/// Skips the value of an option that is not read, so that the options behind it are.
fn skip_value(input: ParseStream<'_>) -> syn::Result<()> {
    while !input.is_empty() && !input.peek(syn::Token![,]) {
        input.parse::<proc_macro2::TokenTree>()?;
    }
    Ok(())
}

fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    let key = key_of(meta);
    if !meta.input.peek(syn::Token![=]) {
        return Err(meta.error(format!("`{key}` takes a string: write `{key} = \"…\"`")));
    }
    let value = meta.value()?;
    value
        .parse()
        .map_err(|error| syn::Error::new(error.span(), format!("`{key}` takes a string: write `{key} = \"…\"`")))
}

fn flag(meta: &ParseNestedMeta<'_>) -> syn::Result<Span> {
    let key = key_of(meta);
    if meta.input.peek(syn::Token![=]) || meta.input.peek(syn::token::Paren) {
        return Err(meta.error(format!("`{key}` takes no value: write `{key}` alone, or remove it")));
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

/// Other programs name the queue of the bare profile: any short string is allowed.
fn queue_name(name: LitStr, errors: &mut Errors) -> Option<LitStr> {
    let text = name.value();
    if text.is_empty() {
        errors.at(&name, "a queue name cannot be empty; write the name of the queue, for example \"rpc_queue\"");
        return None;
    }
    if text.len() > crate::names::SHORT_STRING_BYTES_MAX {
        errors.at(&name, format!("the queue name has {} bytes; AMQP allows 255", text.len()));
        return None;
    }
    if text.starts_with("amq.") {
        errors.at(&name, "queue names that start with `amq.` are reserved for the broker; choose another name");
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
            errors.at(name, format!("there is no codec `{other}`; write \"msgpack\", \"json\" or \"text\""));
            None
        }
    }
}

fn krate(path: &LitStr, errors: &mut Errors) -> Option<Path> {
    match path.parse_with(Path::parse_mod_style) {
        Ok(path) => Some(path),
        Err(_) => {
            errors.at(path, "`crate` takes the path of rpc-core in this crate: write `crate = \"my_rpc\"`");
            None
        }
    }
}

/// `250ms`, `2s`, `5m`, `1h`; `zero` says why it cannot be 0.
fn duration(text: &LitStr, zero: &str, errors: &mut Errors) -> Option<Duration> {
    const EXPECTED: &str = "write a whole number and a unit (ms, s, m or h), for example \"250ms\" or \"2s\"";
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let milliseconds_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            errors.at(text, format!("`{value}` is not a duration; {EXPECTED}"));
            return None;
        }
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds_per_unit)) {
        Some(0) => {
            errors.at(text, zero);
            None
        }
        Some(milliseconds) => Some(Duration::from_millis(milliseconds)),
        None => {
            errors.at(text, format!("`{value}` is not a duration; {EXPECTED}"));
            None
        }
    }
}
