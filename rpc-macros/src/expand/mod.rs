//! From the model to code that a person might have written.
//!
//! Generated code names everything by absolute paths, so that it compiles without a prelude and beside any names of the
//! user. Private items stand in one `const _`, where they cannot clash with the user's.

mod client;
mod dyn_trait;
mod server;
mod tokens;
mod types;

use proc_macro2::TokenStream;
use quote::quote;

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
    let twin = service.dyn_trait.as_ref().map(|twin| dyn_trait::expand(service, twin));
    // A program that only calls, or only serves, leaves the other half unused.
    quote! {
        #[allow(dead_code)]
        #item
        #[allow(dead_code)]
        #client_type
        #[allow(dead_code)]
        #server_type
        #twin
        #[allow(deprecated, dead_code, non_camel_case_types, unused_imports)]
        const _: () = {
            #types
            #client_impls
            #server_impls
        };
    }
}
