//! The object-safe twin, written with `#[async_trait]`, and the service's trait for a box of it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Ident;

use super::tokens::parameters;
use crate::model::{Argument, Method, Service};

/// The twin; and its implementation for every server, with the trait's implementations for `Box<dyn Twin>` and `Arc<dyn Twin>`.
pub(super) fn expand(service: &Service, twin: &Ident) -> (TokenStream, TokenStream) {
    let Service { krate, item, .. } = service;
    let (vis, trait_ident) = (&item.vis, &item.ident);
    let doc = format!(
        " [`{trait_ident}`] as an object-safe trait: every implementation of [`{trait_ident}`] implements it, and \
         `Box<dyn {twin}>` and `Arc<dyn {twin}>` implement [`{trait_ident}`]."
    );
    let declared = service.methods.iter().map(|method| declaration(trait_ident, method));
    let forwarded = service.methods.iter().map(|method| {
        let Method { cfgs, ident, .. } = method;
        let signature = signature(method);
        let arguments = method.arguments.iter().map(Argument::ident);
        quote! {
            #(#cfgs)*
            #signature {
                <__T as #trait_ident>::#ident(self, #(#arguments),*).await
            }
        }
    });
    let pointers = [quote!(::std::boxed::Box), quote!(::std::sync::Arc)];
    let pointers = pointers.iter().map(|pointer| impl_for_pointer(service, twin, pointer));
    let trait_tokens = quote! {
        #[allow(unused_imports)]
        use #krate::__private::async_trait_prelude::*;

        #[doc = #doc]
        #[#krate::__private::async_trait]
        #vis trait #twin: ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#declared)*
        }
    };
    let impls = quote! {
        #[#krate::__private::async_trait]
        impl<__T: #trait_ident> #twin for __T {
            #(#forwarded)*
        }

        #(#pointers)*
    };
    (trait_tokens, impls)
}

fn declaration(trait_ident: &Ident, method: &Method) -> TokenStream {
    let Method { shared_attributes, ident, .. } = method;
    let doc = shared_attributes.iter().all(|attribute| !attribute.path().is_ident("doc")).then(|| {
        let doc = format!(" As [`{trait_ident}::{ident}`].");
        quote!(#[doc = #doc])
    });
    let signature = signature(method);
    quote!(#doc #(#shared_attributes)* #signature;)
}

/// `impl Trait for Box<dyn Twin>`.
fn impl_for_pointer(service: &Service, twin: &Ident, pointer: &TokenStream) -> TokenStream {
    let trait_ident = &service.item.ident;
    let methods = service.methods.iter().map(|method| {
        let Method { cfgs, ident, .. } = method;
        let signature = signature(method);
        let arguments = method.arguments.iter().map(Argument::ident);
        quote! {
            #(#cfgs)*
            #signature {
                <dyn #twin as #twin>::#ident(&**self, #(#arguments),*).await
            }
        }
    });
    quote! {
        impl #trait_ident for #pointer<dyn #twin> {
            #(#methods)*
        }
    }
}

/// `async fn m(&self, …) -> R`.
fn signature(method: &Method) -> TokenStream {
    let Method { ident, output, .. } = method;
    let parameters = parameters(method);
    let output = output.whole();
    quote!(async fn #ident(&self, #(#parameters),*) -> #output)
}
