//! From the trait as written to the model, or to every mistake in it at once.
//!
//! A mistake in one method leaves the others alone: what can be generated is generated, so that one mistake makes one
//! error.

use std::collections::HashMap;

use proc_macro2::Span;
use quote::{ToTokens, quote};
use syn::{
    Attribute, FnArg, GenericArgument, Ident, ItemTrait, Pat, PathArguments, ReceiverKind, ReturnType, Safety,
    TraitItem, TraitItemFn, Type, parse_quote, spanned::Spanned, visit::Visit,
};

use crate::{
    attr::{Codec, MethodOptions, ServiceOptions},
    errors::Errors,
    model::{Argument, Method, Output, Service},
    names::{generated, snake_case, text_of, wire_name_mistake},
};

/// Checks a trait and its options.
pub(crate) fn check(mut item: ItemTrait, options: ServiceOptions, errors: &mut Errors) -> Service {
    check_trait(&item, errors);
    let bare = options.queue.as_ref().map(syn::LitStr::value);
    let name = service_name(&item.ident, options.name.as_ref(), errors);
    let mut methods = Vec::new();
    let mut bare_methods = 0;
    for trait_item in &mut item.items {
        let TraitItem::Fn(function) = trait_item else {
            errors.at(&*trait_item, "a service has methods only: move this to a trait of its own");
            continue;
        };
        bare_methods += 1;
        if bare.is_some() && bare_methods == 2 {
            errors.at(
                &function.sig.ident,
                "a service with a `queue` of its own has one method: its requests say nothing but the argument; give \
                 this one a trait of its own, or leave `queue` out",
            );
        }
        let options = MethodOptions::take(&mut function.attrs, errors);
        if let Some(method) = check_method(function, &options, &name, bare.as_deref(), errors) {
            methods.push(method);
        }
    }
    if item.items.is_empty() {
        errors.at(&item.ident, "a service without methods serves nothing: add `async fn method(&self, …) -> …;`");
    }
    check_wire_names(&methods, errors);
    let client_impls_trait = options.client_impls_trait.is_some() && check_client_can_be_the_trait(&methods, errors);
    for function in item.items.iter_mut().filter_map(as_function) {
        rewrite(function);
    }
    for bound in [quote!(::core::marker::Send), quote!(::core::marker::Sync), quote!('static)] {
        item.supertraits.push(parse_quote!(#bound));
    }
    item.colon_token.get_or_insert_with(Default::default);
    let default_codec = if bare.is_some() { Codec::Text } else { Codec::MessagePack };
    Service {
        krate: options.krate.unwrap_or_else(|| parse_quote!(::rpc_core)),
        name,
        version: options.version.unwrap_or(1),
        queue: bare,
        codec: options.codec.unwrap_or(default_codec),
        max_length: options.max_length,
        client: generated(&format!("{}Client", text_of(&item.ident)), &item.ident),
        server: generated(&format!("{}Server", text_of(&item.ident)), &item.ident),
        client_impls_trait,
        dyn_trait: options.dyn_trait.map(|_| generated(&format!("Dyn{}", text_of(&item.ident)), &item.ident)),
        methods,
        item,
    }
}

fn as_function(item: &mut TraitItem) -> Option<&mut TraitItemFn> {
    match item {
        TraitItem::Fn(function) => Some(function),
        _ => None,
    }
}

fn check_trait(item: &ItemTrait, errors: &mut Errors) {
    if !item.generics.params.is_empty() {
        errors.at(&item.generics, "a service cannot be generic: its name on the wire is one; use concrete types");
    }
    if let Some(clause) = &item.generics.where_clause {
        errors.at(clause, "a service cannot have a where clause; bound the server's type where it is made");
    }
    if let Some(token) = &item.unsafety {
        errors.at(token, "a service cannot be unsafe: a caller in another process can promise nothing");
    }
}

fn service_name(ident: &Ident, name: Option<&syn::LitStr>, errors: &mut Errors) -> String {
    if let Some(name) = name {
        return name.value();
    }
    let name = snake_case(&text_of(ident));
    if let Some(mistake) = wire_name_mistake(&name) {
        errors.at(ident, format!("{mistake}: name the service with `#[service(name = \"…\")]`"));
    }
    name
}

/// The method, when it can be called.
fn check_method(
    function: &TraitItemFn,
    options: &MethodOptions,
    service: &str,
    bare: Option<&str>,
    errors: &mut Errors,
) -> Option<Method> {
    let signature = &function.sig;
    let is_well_formed = check_signature(function, errors);
    let arguments = check_arguments(function, bare.is_some(), errors);
    let output = check_output(&signature.output, options.oneway, errors);
    check_options(function, options, bare.is_some(), errors);
    let name = match &options.name {
        Some(name) => name.value(),
        None => {
            let name = text_of(&signature.ident);
            if let Some(mistake) = wire_name_mistake(&name) {
                errors.at(&signature.ident, format!("{mistake}: name the method with `#[rpc(name = \"…\")]`"));
            }
            name
        }
    };
    let (arguments, output) = (arguments?, output?);
    if !is_well_formed {
        return None;
    }
    let queue = options.queue.as_ref().map(syn::LitStr::value);
    let routing_key = match (bare, &queue) {
        (Some(bare), _) => bare.to_owned(),
        (None, Some(queue)) => format!("{service}.{queue}.{name}"),
        (None, None) => format!("{service}.{name}"),
    };
    let with = |names: &[&str]| -> Vec<Attribute> {
        function
            .attrs
            .iter()
            .filter(|attribute| names.iter().any(|name| attribute.path().is_ident(name)))
            .cloned()
            .collect()
    };
    Some(Method {
        shared_attributes: with(&["doc", "deprecated", "cfg"]),
        cfgs: with(&["cfg"]),
        ident: signature.ident.clone(),
        name,
        routing_key,
        aliases: options.aliases.iter().map(syn::LitStr::value).collect(),
        timeout: options.timeout,
        idempotent: options.idempotent.is_some(),
        oneway: options.oneway.is_some(),
        blocking: options.blocking.is_some(),
        no_cancel: options.no_cancel.is_some(),
        queue,
        priority: options.priority,
        arguments,
        output,
    })
}

fn check_signature(function: &TraitItemFn, errors: &mut Errors) -> bool {
    let signature = &function.sig;
    let before = errors.count();
    if signature.asyncness.is_none() {
        errors.at(
            signature.fn_token,
            "a remote method is asynchronous: write `async fn`; one that computes for long takes `#[rpc(blocking)]` besides",
        );
    }
    if let Some(token) = &signature.constness {
        errors.at(token, "a remote method cannot be const: write `async fn`");
    }
    if let Safety::Unsafe(token) = &signature.safety {
        errors.at(token, "a remote method cannot be unsafe: a caller in another process can promise nothing");
    }
    if let Some(abi) = &signature.abi {
        errors.at(abi, "a remote method has no ABI: write `async fn`");
    }
    if !signature.generics.params.is_empty() {
        errors.at(
            &signature.generics,
            "a remote method cannot be generic: a request names no types; use concrete, owned types",
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        errors.at(clause, "a remote method cannot have a where clause; use concrete types");
    }
    match signature.receiver() {
        None => errors.at(&signature.ident, "a remote method belongs to a service: take `&self` first"),
        Some(receiver) => match &receiver.kind {
            ReceiverKind::Reference(_, None, None) => {}
            ReceiverKind::Reference(_, Some(lifetime), None) => {
                errors.at(lifetime, "`&self` needs no lifetime here: write `&self`");
            }
            ReceiverKind::Reference(..) => errors.at(
                receiver,
                "many requests are handled at once, so a handler gets `&self`; keep what changes in a Mutex or an atomic",
            ),
            _ => errors.at(receiver, "a service answers more than one request: take `&self`"),
        },
    }
    errors.count() == before
}

fn check_arguments(function: &TraitItemFn, is_bare: bool, errors: &mut Errors) -> Option<Vec<Argument>> {
    let before = errors.count();
    let mut arguments = Vec::new();
    let mut contexts = 0;
    let mut values = 0;
    for input in &function.sig.inputs {
        let FnArg::Typed(typed) = input else { continue };
        let ident = match &*typed.pat {
            Pat::Ident(pattern)
                if pattern.by_ref.is_none() && pattern.mutability.is_none() && pattern.subpat.is_none() =>
            {
                pattern.ident.clone()
            }
            Pat::Ident(pattern) if pattern.mutability.is_some() => {
                errors.at(
                    pattern,
                    "a trait's argument is not `mut`: write the name alone, and `mut` in the implementation",
                );
                continue;
            }
            other => {
                errors.at(other, "an argument travels under its name: write a plain name instead of a pattern");
                continue;
            }
        };
        for attribute in &typed.attrs {
            errors.at(attribute, "attributes on arguments are not carried over; put them on the argument's type");
        }
        let ty = (*typed.ty).clone();
        if is_context(&ty) {
            contexts += 1;
            if contexts == 2 {
                errors.at(&typed.ty, "one `&Context` says it all: take it once");
            }
            arguments.push(Argument::Context { ident, ty });
            continue;
        }
        values += 1;
        if is_bare && values == 2 {
            errors.at(
                &typed.pat,
                "in a service with a `queue` of its own the body is the argument, so there is one at most; put the \
                 others into a struct",
            );
        }
        check_type(&ty, "an argument", errors);
        arguments.push(Argument::Value { ident, ty });
    }
    (errors.count() == before).then_some(arguments)
}

/// `&Context`, however `Context` is reached.
fn is_context(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Context")
}

/// What travels owns its data, and is a type one can name.
fn check_type(ty: &Type, what: &str, errors: &mut Errors) {
    struct Look<'e> {
        what: &'e str,
        errors: &'e mut Errors,
    }
    impl<'ast> Visit<'ast> for Look<'_> {
        fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
            let owned = match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => "`String`".to_owned(),
                Type::Slice(slice) => {
                    let element = &slice.elem;
                    format!("`Vec<{}>`", element.to_token_stream())
                }
                other => format!("`{}`", other.to_token_stream()),
            };
            self.errors
                .at(reference, format!("{} travels to another process and owns its data: write {owned}", self.what));
        }
        fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
            self.errors.at(ty, format!("{} has one concrete type, known on both sides: name it", self.what));
        }
        fn visit_type_infer(&mut self, ty: &'ast syn::TypeInfer) {
            self.errors.at(ty, format!("{} has one concrete type, known on both sides: name it", self.what));
        }
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            if lifetime.ident != "static" {
                let what = self.what;
                self.errors
                    .at(lifetime, format!("{what} travels to another process and owns its data: borrow nothing"));
            }
        }
        fn visit_path(&mut self, path: &'ast syn::Path) {
            if let Some(first) = path.segments.first().filter(|segment| segment.ident == "Self") {
                let what = self.what;
                self.errors
                    .at(&first.ident, format!("{what} is the same for every implementation: name a concrete type"));
            }
            syn::visit::visit_path(self, path);
        }
    }
    Look { what, errors }.visit_type(ty);
}

fn check_output(output: &ReturnType, oneway: Option<Span>, errors: &mut Errors) -> Option<Output> {
    let ReturnType::Type(_, ty) = output else {
        return Some(Output::Plain(quote!(())));
    };
    let is_unit = matches!(&**ty, Type::Tuple(tuple) if tuple.elems.is_empty());
    if oneway.is_some() && !is_unit {
        errors.at(ty, "a one-way method has no reply: return nothing, or leave `oneway` out");
        return None;
    }
    let before = errors.count();
    check_type(ty, "a result", errors);
    if errors.count() > before {
        return None;
    }
    let Type::Path(path) = &**ty else {
        return Some(Output::Plain(ty.to_token_stream()));
    };
    let Some(last) = path.path.segments.last().filter(|segment| segment.ident == "Result") else {
        return Some(Output::Plain(ty.to_token_stream()));
    };
    let types: Vec<_> = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.to_token_stream()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    match <[_; 2]>::try_from(types) {
        Ok([ok, error]) => Some(Output::Fallible { whole: ty.to_token_stream(), ok, error }),
        Err(_) => {
            errors.at(last, "both types of the result are needed here: write `Result<T, E>`");
            None
        }
    }
}

fn check_options(function: &TraitItemFn, options: &MethodOptions, is_bare: bool, errors: &mut Errors) {
    if let (Some(_), Some(idempotent)) = (options.oneway, options.idempotent) {
        errors.at_span(
            idempotent,
            "a one-way request is sent once and confirmed by the broker: `idempotent` means nothing here, leave it out",
        );
    }
    if let (Some(_), Some(no_cancel)) = (options.oneway, options.no_cancel) {
        errors.at_span(
            no_cancel,
            "a one-way request has no caller who could give it up: `no_cancel` means nothing here, leave it out",
        );
    }
    if let Some(queue) = options.queue.as_ref().filter(|queue| queue.value() == "dead") {
        errors.at(queue, "the queue `dead` of a service holds its dead letters; choose another name");
    }
    if is_bare {
        if let Some(queue) = &options.queue {
            errors.at(queue, "the service has a `queue` of its own already: leave this one out");
        }
        if let Some(name) = options.name.as_ref().or_else(|| options.aliases.first()) {
            errors.at(name, "requests of a service with a `queue` of its own carry no method name: leave this out");
        }
    }
    let aliases = &options.aliases;
    for (index, alias) in aliases.iter().enumerate() {
        if aliases[..index].iter().any(|other| other.value() == alias.value()) {
            errors.at(alias, format!("`{}` is an alias already; keep one", alias.value()));
        }
    }
    for attribute in &function.attrs {
        if attribute.path().is_ident("cfg_attr") {
            errors.at(attribute, "`cfg_attr` cannot be carried over to the client; use `#[cfg]` on the method");
        }
    }
}

/// Every name on the wire means one method.
fn check_wire_names(methods: &[Method], errors: &mut Errors) {
    let mut names: HashMap<&str, &Method> = HashMap::new();
    for method in methods {
        for name in std::iter::once(&method.name).chain(&method.aliases) {
            // Variants of one method behind opposite `#[cfg]`s never meet.
            match names.insert(name, method) {
                Some(other) if other.cfgs.is_empty() || method.cfgs.is_empty() => errors.at(
                    &method.ident,
                    format!(
                        "`{name}` names `{}` on the wire already; choose another with `#[rpc(name = \"…\")]`",
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
            errors.at(
                &method.ident,
                "with `client_impls_trait` every method returns `Result<T, E>` with `E: From<CallError>`: a call can \
                 always fail",
            );
        }
    }
    errors.count() == before
}

/// `async fn m(…) -> R` becomes `fn m(…) -> impl Future<Output = R> + Send`.
fn rewrite(function: &mut TraitItemFn) {
    let signature = &mut function.sig;
    for input in &mut signature.inputs {
        if let FnArg::Typed(typed) = input {
            // A mistake, which is reported already.
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
