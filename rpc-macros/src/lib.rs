//! The `service` attribute of `rpc-core`; use it as `rpc_core::service`.
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

use proc_macro::TokenStream;

#[doc = include_str!("../docs/service.md")]
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service_tokens(arguments.into(), &item.into()).into()
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
