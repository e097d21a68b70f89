//! From the model to code that a person might have written.
//!
//! Generated code names everything by absolute paths, so that it compiles without a prelude and beside any names of the
//! user. Private items stand in one `const _`, where they cannot clash with the user's. A parameter whose name is also that of
//! a constant in scope would be a pattern instead; functions of these names, inside the `const _`, hide such constants.

mod client;
mod dyn_trait;
mod server;
mod tokens;
mod types;

use proc_macro2::TokenStream;
use quote::quote;
use syn::Ident;

use crate::model::Service;

/// The trait, the client, the server.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let item = &service.item;
    if !item.generics.params.is_empty() {
        // A mistake, which is reported already: generated code could not name the trait.
        return quote!(#item);
    }
    let (client_type, client_impls) = client::expand(service);
    let (server_type, server_impls) = server::expand(service);
    let types = types::expand(service);
    let (twin, twin_impls) = service.dyn_trait.as_ref().map(|twin| dyn_trait::expand(service, twin)).unzip();
    let krate = &service.krate;
    let parameters = parameter_names(service);
    // A program that only calls, or only serves, leaves the other half unused.
    quote! {
        #[allow(dead_code)]
        #item
        #[allow(dead_code)]
        #client_type
        #[allow(dead_code)]
        #server_type
        #twin
        #[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
        const _: () = {
            #types
            #client_impls
            #server_impls
            #twin_impls

            use #krate::__private::parameters::*;
            #(fn #parameters() {})*
        };
    }
}

/// The names of the methods' arguments, each once, in the order of the trait.
fn parameter_names(service: &Service) -> Vec<&Ident> {
    let mut names: Vec<&Ident> = Vec::new();
    for argument in service.methods.iter().flat_map(|method| &method.arguments) {
        if !names.contains(&argument.ident()) {
            names.push(argument.ident());
        }
    }
    names
}
