//! From the trait as written to the model, or to every mistake in it at once.
//!
//! A mistake in one method does not affect the others: everything that can be generated is generated, so that one mistake
//! causes one error.
//!
//! ```text
//!  trait ──► method ──► arguments ─┐
//!                  └──► output  ───┴──► types: does it own its data, can it be named?
//! ```

mod arguments;
mod method;
mod output;
mod types;

use std::collections::HashMap;

use quote::{ToTokens, quote};
use syn::{FnArg, Ident, ItemTrait, LitStr, ReturnType, TraitItem, TraitItemFn, parse_quote, spanned::Spanned};

use crate::{
    attr::{Codec, MethodOptions, ServiceOptions},
    errors::Errors,
    model::{Method, Output, Service},
    names::{generated, snake_case, text_of, wire_name_mistake},
};

/// Checks a trait and its options.
pub(crate) fn check(mut item: ItemTrait, options: ServiceOptions, errors: &mut Errors) -> Service {
    check_trait(&item, errors);
    let bare = options.queue.as_ref().map(LitStr::value);
    let name = service_name(&item.ident, options.name.as_ref(), errors);
    let methods = check_methods(&mut item, &name, bare.as_deref(), errors);
    check_wire_names(&methods, errors);
    let client_impls_trait = options.client_impls_trait.is_some() && check_client_can_be_the_trait(&methods, errors);
    rewrite(&mut item);
    let default_codec = if bare.is_some() { Codec::Text } else { Codec::MessagePack };
    Service {
        krate: options.krate.unwrap_or_else(|| parse_quote!(::rpc_core)),
        name,
        version: options.version.unwrap_or(1),
        queue: bare,
        codec: options.codec.unwrap_or(default_codec),
        max_length: options.max_length,
        max_depth: options.max_depth,
        client: generated(&format!("{}Client", text_of(&item.ident)), &item.ident),
        server: generated(&format!("{}Server", text_of(&item.ident)), &item.ident),
        client_impls_trait,
        dyn_trait: options.dyn_trait.map(|_| generated(&format!("Dyn{}", text_of(&item.ident)), &item.ident)),
        methods,
        item,
    }
}

fn check_trait(item: &ItemTrait, errors: &mut Errors) {
    if !item.generics.params.is_empty() {
        errors.at(
            &item.generics,
            "a service cannot be generic, because it has a single name on the wire; use concrete types",
        );
    }
    if let Some(clause) = &item.generics.where_clause {
        errors.at(clause, "a service cannot have a where clause; put the bounds on the type that implements it");
    }
    if let Some(token) = &item.unsafety {
        errors.at(
            token,
            "a service cannot be unsafe, because a caller in another process cannot uphold its contract; remove `unsafe`",
        );
    }
    if item.items.is_empty() {
        errors.at(&item.ident, "a service needs at least one method: add `async fn method(&self, …) -> …;`");
    }
}

fn service_name(ident: &Ident, name: Option<&LitStr>, errors: &mut Errors) -> String {
    if let Some(name) = name {
        if let Some(mistake) = reserved(&name.value()) {
            errors.at(name, mistake);
        }
        return name.value();
    }
    let name = snake_case(&text_of(ident));
    if let Some(mistake) = reserved(&name) {
        errors.at(ident, format!("{mistake} with `#[service(name = \"…\")]`"));
    }
    if let Some(mistake) = wire_name_mistake(&name) {
        errors.at(ident, format!("{mistake}; set the service's name with `#[service(name = \"…\")]`"));
    }
    name
}

/// The mistake of a name whose queue `rpc.<name>` would be called like a queue or an exchange of the framework, so that
/// permissions could not tell them apart.
fn reserved(name: &str) -> Option<String> {
    let is_reserved = ["reply", "control", "cancel", "other", "dead", "nested"].contains(&name);
    is_reserved.then(|| format!("`rpc.{name}` belongs to the framework: choose another name for the service"))
}

/// The methods that can be called. Their `#[rpc(…)]` attributes are removed from the trait.
fn check_methods(item: &mut ItemTrait, service: &str, bare: Option<&str>, errors: &mut Errors) -> Vec<Method> {
    let mut methods = Vec::new();
    let mut count = 0;
    for trait_item in &mut item.items {
        let TraitItem::Fn(function) = trait_item else {
            errors.at(&*trait_item, "a service consists of methods: move this item to another trait");
            continue;
        };
        count += 1;
        if bare.is_some() && count == 2 {
            errors.at(
                &function.sig.ident,
                "a service with a `queue` has one method, because its requests carry no method name: move this method \
                 to another trait, or remove `queue`",
            );
        }
        let options = MethodOptions::take(&mut function.attrs, errors);
        methods.extend(method::check(function, &options, service, bare, errors));
    }
    methods
}

/// Every name on the wire stands for one method.
fn check_wire_names(methods: &[Method], errors: &mut Errors) {
    let mut names: HashMap<&str, &Method> = HashMap::new();
    for method in methods {
        for name in std::iter::once(&method.name).chain(&method.aliases) {
            // Variants of one method behind opposite `#[cfg]`s never meet.
            match names.insert(name, method) {
                Some(other) if other.cfgs.is_empty() || method.cfgs.is_empty() => errors.at(
                    &method.ident,
                    format!(
                        "the name `{name}` already stands for the method `{}` on the wire; choose another with \
                         `#[rpc(name = \"…\")]`",
                        text_of(&other.ident)
                    ),
                ),
                _ => {}
            }
        }
    }
}

fn check_client_can_be_the_trait(methods: &[Method], errors: &mut Errors) -> bool {
    let before = errors.count();
    for method in methods {
        if let Output::Plain(_) = method.output {
            let value = if method.oneway { "()" } else { "T" };
            errors.at(
                &method.ident,
                format!(
                    "`client_impls_trait` requires every method to return `Result<T, E>` with `E: From<CallError>`, because \
                     any call can fail: let this one return `Result<{value}, E>`"
                ),
            );
        }
    }
    errors.count() == before
}

/// The trait as users implement it: its futures are `Send`, and so are its implementations.
fn rewrite(item: &mut ItemTrait) {
    for trait_item in &mut item.items {
        if let TraitItem::Fn(function) = trait_item {
            rewrite_method(function);
        }
    }
    for bound in [quote!(::core::marker::Send), quote!(::core::marker::Sync), quote!('static)] {
        item.supertraits.push(parse_quote!(#bound));
    }
    item.colon_token.get_or_insert_with(Default::default);
}

/// `async fn m(…) -> R` becomes `fn m(…) -> impl Future<Output = R> + Send`.
fn rewrite_method(function: &mut TraitItemFn) {
    let signature = &mut function.sig;
    for input in &mut signature.inputs {
        if let FnArg::Typed(typed) = input {
            // `#[rpc(default)]`, which the model has, or a mistake, which is reported already.
            typed.attrs.clear();
        }
    }
    if signature.asyncness.take().is_none() {
        return;
    }
    let output = match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => ty.to_token_stream(),
    };
    let span = signature.output.span();
    let future = quote::quote_spanned!(span=> ::core::future::Future<Output = #output> + ::core::marker::Send);
    signature.output = parse_quote!(-> impl #future);
    if let Some(body) = &mut function.default {
        let statements = &body.stmts;
        *body = parse_quote!({ async move { #(#statements)* } });
    }
}
