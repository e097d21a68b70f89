//! The server: reads a request's arguments, calls the implementation, writes its result.

use proc_macro2::TokenStream;
use quote::quote;

use super::{arguments_struct, is_bare};
use crate::model::{Argument, Method, Output, Service};

/// The type, and what is implemented for it.
pub(super) fn expand(service: &Service) -> (TokenStream, TokenStream) {
    let Service { krate, server, item, .. } = service;
    let (vis, trait_ident) = (&item.vis, &item.ident);
    let doc = format!(" Serves an implementation of [`{trait_ident}`] in a worker pool. Clones share it.");
    let type_tokens = quote! {
        #[doc = #doc]
        #vis struct #server<T> {
            service: ::std::sync::Arc<T>,
        }
    };
    let name = server.to_string();
    let arms = service.methods.iter().map(|method| arm(service, method));
    let impls = quote! {
        #[allow(dead_code)]
        impl<T> #server<T> {
            /// Serves `service`.
            #vis fn new(service: T) -> Self {
                Self { service: ::std::sync::Arc::new(service) }
            }

            /// Serves an implementation that is used elsewhere too.
            #vis fn from_arc(service: ::std::sync::Arc<T>) -> Self {
                Self { service }
            }
        }

        impl<T> ::core::clone::Clone for #server<T> {
            fn clone(&self) -> Self {
                Self { service: ::core::clone::Clone::clone(&self.service) }
            }
        }

        impl<T> ::core::fmt::Debug for #server<T> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name).finish_non_exhaustive()
            }
        }

        #[allow(deprecated)]
        impl<T: #trait_ident> #krate::__private::Dispatch for #server<T> {
            fn descriptor(&self) -> &'static #krate::__private::ServiceDescriptor {
                &__SERVICE
            }

            fn dispatch(&self, __request: #krate::__private::Request) -> #krate::__private::Handler {
                let __service = ::core::clone::Clone::clone(&self.service);
                match __request.method() {
                    #(#arms)*
                    _ => {
                        let _ = __service;
                        __request.unknown_method()
                    }
                }
            }
        }
    };
    (type_tokens, impls)
}

fn arm(service: &Service, method: &Method) -> TokenStream {
    let Service { krate, item, .. } = service;
    let trait_ident = &item.ident;
    let Method { cfgs, ident, .. } = method;
    let (structure, pattern) = if is_bare(service) {
        match method.values().next() {
            Some((ident, ty)) => (quote!(), quote!(let #ident: #ty)),
            None => (quote!(), quote!(let (): ())),
        }
    } else {
        let idents = method.values().map(|(ident, _)| ident);
        (arguments_struct(service, method, "Deserialize"), quote!(let __Arguments { #(#idents),* }))
    };
    let arguments = method.arguments.iter().map(|argument| match argument {
        Argument::Value { ident, .. } => quote!(#ident),
        Argument::Context { .. } => quote!(__request.context()),
    });
    let call = quote!(<T as #trait_ident>::#ident(&*__service, #(#arguments),*).await);
    let answer = match &method.output {
        _ if method.oneway => quote! {
            #call;
            __request.done()
        },
        Output::Plain(_) => quote! {
            let __result = #call;
            __request.reply(&__result)
        },
        Output::Fallible { .. } => quote! {
            let __result = #call;
            __request.reply_result(&__result)
        },
    };
    let start = if method.blocking { quote!(#krate::__private::blocking) } else { quote!(::std::boxed::Box::pin) };
    quote! {
        #(#cfgs)*
        __method if __method == __Method::#ident as usize => {
            #structure
            #start(async move {
                #pattern = match __request.arguments() {
                    ::core::result::Result::Ok(arguments) => arguments,
                    ::core::result::Result::Err(refused) => return refused,
                };
                #answer
            })
        }
    }
}
