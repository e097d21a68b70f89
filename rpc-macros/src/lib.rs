//! The macros of `rpc-core`: the attribute `service`, and the derive `ServiceError`. Use them as `rpc_core::service` and
//! `rpc_core::ServiceError`.
//!
//! ```text
//!  tokens ──attr──► options ──check──► model (or mistakes) ──expand──► trait, client, server
//! ```

#![forbid(unsafe_code)]

mod attr;
mod check;
mod errors;
mod expand;
#[cfg(test)]
mod golden;
mod model;
mod names;
mod service_error;

use proc_macro::TokenStream;

#[doc = include_str!("../docs/service.md")]
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service_tokens(arguments.into(), &item.into()).into()
}

#[doc = include_str!("../docs/service_error.md")]
#[proc_macro_derive(ServiceError, attributes(rpc))]
pub fn service_error(item: TokenStream) -> TokenStream {
    service_error_tokens(item.into()).into()
}

fn service_error_tokens(item: proc_macro2::TokenStream) -> proc_macro2::TokenStream {
    syn::parse2(item).map_or_else(syn::Error::into_compile_error, |item| service_error::expand(&item))
}

fn service_tokens(arguments: proc_macro2::TokenStream, item: &proc_macro2::TokenStream) -> proc_macro2::TokenStream {
    let item: syn::ItemTrait = match syn::parse2(item.clone()) {
        Ok(item) => item,
        Err(_) => {
            let error = syn::Error::new_spanned(
                item,
                "`#[service]` belongs on a trait: write `trait Name { async fn method(&self, …) -> …; }` and implement it",
            );
            let error = error.into_compile_error();
            return quote::quote!(#item #error);
        }
    };
    let mut errors = errors::Errors::default();
    let options = attr::ServiceOptions::parse(arguments, &mut errors);
    let service = check::check(item, options, &mut errors);
    let expanded = expand::expand(&service);
    let errors = errors.into_compile_errors();
    quote::quote!(#expanded #errors)
}
