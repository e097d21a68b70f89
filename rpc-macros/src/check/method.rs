//! One method: its signature and its options.

use syn::{Attribute, LitStr, ReceiverKind, Safety, TraitItemFn};

use super::{arguments, output};
use crate::{
    attr::MethodOptions,
    errors::Errors,
    model::Method,
    names::{text_of, wire_name_mistake},
};

/// The method, if it can be called.
pub(super) fn check(
    function: &TraitItemFn,
    options: &MethodOptions,
    service: &str,
    bare: Option<&str>,
    errors: &mut Errors,
) -> Option<Method> {
    let signature = &function.sig;
    let is_well_formed = check_signature(function, errors);
    let arguments = arguments::check(function, bare.is_some(), errors);
    let output = output::check(&signature.output, options.oneway, errors);
    check_options(function, options, bare.is_some(), errors);
    let name = method_name(function, options, errors);
    let (arguments, output) = (arguments?, output?);
    if !is_well_formed {
        return None;
    }
    let queue = options.queue.as_ref().map(LitStr::value);
    let routing_key = match (bare, &queue) {
        (Some(bare), _) => bare.to_owned(),
        (None, Some(queue)) => format!("{service}.{queue}.{name}"),
        (None, None) => format!("{service}.{name}"),
    };
    Some(Method {
        shared_attributes: attributes(function, &["doc", "deprecated", "cfg", "allow"]),
        cfgs: attributes(function, &["cfg"]),
        ident: signature.ident.clone(),
        name,
        routing_key,
        aliases: options.aliases.iter().map(LitStr::value).collect(),
        timeout: options.timeout,
        idempotent: options.idempotent.is_some(),
        hedge: options.hedge.is_some(),
        oneway: options.oneway.is_some(),
        blocking: options.blocking.is_some(),
        no_cancel: options.no_cancel.is_some(),
        queue,
        priority: options.priority,
        arguments,
        output,
    })
}

fn method_name(function: &TraitItemFn, options: &MethodOptions, errors: &mut Errors) -> String {
    if let Some(name) = &options.name {
        return name.value();
    }
    let ident = &function.sig.ident;
    let name = text_of(ident);
    if let Some(mistake) = wire_name_mistake(&name) {
        errors.at(ident, format!("{mistake}; set the method's name with `#[rpc(name = \"…\")]`"));
    }
    name
}

/// The attributes of `function` with one of these names.
fn attributes(function: &TraitItemFn, names: &[&str]) -> Vec<Attribute> {
    let is_wanted = |attribute: &&Attribute| names.iter().any(|name| attribute.path().is_ident(name));
    function.attrs.iter().filter(is_wanted).cloned().collect()
}

fn check_signature(function: &TraitItemFn, errors: &mut Errors) -> bool {
    let signature = &function.sig;
    let before = errors.count();
    let name = text_of(&signature.ident);
    if CLIENT_FUNCTIONS.contains(&&*name) {
        errors.at(
            &signature.ident,
            format!(
                "`{name}` is a function of the generated client itself: rename the method; `#[rpc(name = \"{name}\")]` keeps \
                 its name on the wire"
            ),
        );
    }
    if signature.asyncness.is_none() {
        errors.at(
            signature.fn_token,
            "a remote method must be async: write `async fn`; for a long computation add `#[rpc(blocking)]`",
        );
    }
    if let Some(token) = &signature.constness {
        errors.at(token, "a remote method cannot be const: write `async fn`");
    }
    if let Safety::Unsafe(token) = &signature.safety {
        errors.at(
            token,
            "a remote method cannot be unsafe, because a caller in another process cannot uphold its contract; remove \
             `unsafe`",
        );
    }
    if let Some(abi) = &signature.abi {
        errors.at(abi, "a remote method cannot have an ABI: write `async fn`");
    }
    if !signature.generics.params.is_empty() {
        errors.at(
            &signature.generics,
            "a remote method cannot be generic, because a request does not name types; use concrete, owned types",
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        errors.at(clause, "a remote method cannot have a where clause; use concrete types");
    }
    check_receiver(function, errors);
    errors.count() == before
}

/// The functions of every generated client, beside which a method of the same name cannot be called.
const CLIENT_FUNCTIONS: [&str; 6] = ["new", "with_options", "from_client", "fake", "layer", "client"];

fn check_receiver(function: &TraitItemFn, errors: &mut Errors) {
    let Some(receiver) = function.sig.receiver() else {
        errors.at(&function.sig.ident, "a remote method is called on a service: add `&self` as its first argument");
        return;
    };
    match &receiver.kind {
        ReceiverKind::Reference(_, None, None) => {}
        ReceiverKind::Reference(_, Some(lifetime), None) => {
            errors.at(lifetime, "a lifetime on `&self` has no use here: write `&self`");
        }
        ReceiverKind::Reference(..) => errors.at(
            receiver,
            "handlers run concurrently and share the service: take `&self`, and keep mutable state in a `Mutex` or an \
             atomic",
        ),
        _ => errors.at(receiver, "a service handles many requests: take `&self`"),
    }
}

fn check_options(function: &TraitItemFn, options: &MethodOptions, is_bare: bool, errors: &mut Errors) {
    if let (Some(_), Some(idempotent)) = (options.oneway, options.idempotent) {
        errors.at_span(
            idempotent,
            "`idempotent` has no effect on a one-way method, whose request is sent once and confirmed by the broker: \
             remove it",
        );
    }
    if let (Some(hedge), None) = (options.hedge, options.idempotent) {
        errors.at_span(
            hedge,
            "`hedge` lets callers send a request twice at once, so the method must be `idempotent`: add it, or remove \
             `hedge`",
        );
    }
    if let (Some(_), Some(no_cancel)) = (options.oneway, options.no_cancel) {
        errors.at_span(
            no_cancel,
            "`no_cancel` has no effect on a one-way method, whose request is never cancelled: remove it",
        );
    }
    if let Some(queue) = options.queue.as_ref().filter(|queue| queue.value() == "dead") {
        errors.at(queue, "the queue name `dead` is reserved for the service's dead letters; choose another name");
    }
    if is_bare {
        if let Some(queue) = &options.queue {
            errors.at(queue, "the service already has a `queue`: remove this one");
        }
        if let Some(name) = options.name.as_ref().or_else(|| options.aliases.first()) {
            errors.at(name, "requests of a service with a `queue` carry no method name: remove this one");
        }
    }
    let aliases = &options.aliases;
    for (index, alias) in aliases.iter().enumerate() {
        if aliases[..index].iter().any(|other| other.value() == alias.value()) {
            errors.at(alias, format!("the alias `{}` is given twice; keep one", alias.value()));
        }
    }
    for attribute in &function.attrs {
        if attribute.path().is_ident("cfg_attr") {
            errors.at(attribute, "`cfg_attr` cannot be copied to the client; use `#[cfg]` on the method");
        }
    }
}
