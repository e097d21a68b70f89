//! From the model to code that a person might have written.
//!
//! Everything is named by absolute paths, so that it compiles where there is no prelude and whatever names the user
//! has. What is private lies in one `const _`, out of the way of the user's names.

mod client;
mod dyn_trait;
mod server;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::model::{Argument, Method, Service};

/// The trait, the client, the server.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let item = &service.item;
    if !item.generics.params.is_empty() {
        // A mistake, which is reported already: nothing generated could name the trait.
        return quote!(#item);
    }
    let (client_type, client_impls) = client::expand(service);
    let (server_type, server_impls) = server::expand(service);
    let twin = service.dyn_trait.as_ref().map(|twin| dyn_trait::expand(service, twin));
    // A program that only calls, or only serves, does not use the rest.
    quote! {
        #[allow(dead_code)]
        #item
        #[allow(dead_code)]
        #client_type
        #[allow(dead_code)]
        #server_type
        #twin
        const _: () = {
            #client_impls
            #server_impls
        };
    }
}

/// The arguments of a method, as declared.
fn parameters(method: &Method) -> Vec<TokenStream> {
    let parameter = |argument: &Argument| {
        let (ident, ty) = (argument.ident(), argument.ty());
        quote!(#ident: #ty)
    };
    method.arguments.iter().map(parameter).collect()
}

/// The struct in which a method's arguments travel, with one derive.
fn arguments_struct(service: &Service, method: &Method, derive: &str) -> TokenStream {
    let krate = &service.krate;
    let derive = quote::format_ident!("{derive}");
    let serde_path = quote!(#krate::__private::serde).to_string().replace(' ', "");
    let fields = method.values().map(|(ident, ty)| quote!(#ident: #ty));
    quote! {
        #[::core::prelude::v1::derive(#krate::__private::serde::#derive)]
        #[serde(crate = #serde_path)]
        struct __Arguments {
            #(#fields,)*
        }
    }
}

/// Whether the argument alone is the body.
fn is_bare(service: &Service) -> bool {
    service.queue.is_some()
}

fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
