//! The server: reads a request's arguments, calls the implementation, writes its result.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::types;
use crate::model::{Argument, Method, Output, Service, Value};

/// The type, and its implementations.
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
        impl<T> #server<T> {
            /// Serves `service`.
            #vis fn new(service: T) -> Self {
                Self { service: ::std::sync::Arc::new(service) }
            }

            /// Serves an implementation that is shared with other parts of the program.
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

        impl<__T: #trait_ident> #krate::__private::Sealed for #server<__T> {}

        impl<__T: #trait_ident> #krate::__private::Dispatch for #server<__T> {
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
    let marker = types::marker(method);
    let arguments = method.arguments.iter().map(|argument| match argument {
        Argument::Value(Value { ident, .. }) => quote!(__arguments.#ident),
        Argument::Context { .. } => quote!(__request.context()),
    });
    let call = quote!(<__T as #trait_ident>::#ident(&*__service, #(#arguments),*).await);
    let answer = match &method.output {
        Output::Plain(_) if method.oneway => quote! {
            #call;
            __request.done()
        },
        Output::Fallible { whole, sides: None } if method.oneway => {
            let sides = types::as_sides(service, whole);
            quote! {
                let __result = #call;
                __request.done_or_failed::<#marker, _>(#sides::sides(&__result))
            }
        }
        Output::Fallible { whole, sides: Some(_) } if method.oneway => {
            let result = quote_spanned!(types::located_at(whole.span())=> &__result);
            quote! {
                let __result = #call;
                __request.done_or_failed::<#marker, _>(::core::result::Result::as_ref(#result))
            }
        }
        Output::Plain(_) => quote! {
            let __result = #call;
            __request.reply::<#marker>(&__result)
        },
        Output::Fallible { whole, sides: None } => {
            let sides = types::as_sides(service, whole);
            quote! {
                let __result = #call;
                __request.reply_sides::<#marker>(#sides::sides(&__result))
            }
        }
        Output::Fallible { whole, sides: Some(_) } => {
            // The error of a `Result` that is not the standard one points at the type. The name is resolved as in the line that
            // declares it: a type from a macro's fragment has another context.
            let result = quote_spanned!(types::located_at(whole.span())=> &__result);
            quote! {
                let __result = #call;
                __request.reply_result::<#marker>(#result)
            }
        }
    };
    let start = if method.blocking { quote!(#krate::__private::blocking) } else { quote!(::std::boxed::Box::pin) };
    quote! {
        #(#cfgs)*
        __method if __method == __Method::#ident as ::core::primitive::usize => {
            #start(async move {
                let __arguments = match __request.arguments::<#marker>() {
                    ::core::result::Result::Ok(__arguments) => __arguments,
                    ::core::result::Result::Err(__refused) => return __refused,
                };
                #answer
            })
        }
    }
}
