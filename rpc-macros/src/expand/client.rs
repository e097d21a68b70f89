//! The client: one inherent method for each of the trait's, each returning a `Call`.

use proc_macro2::TokenStream;
use quote::quote;

use super::{
    tokens::{option, parameters},
    types,
};
use crate::{
    attr::Codec,
    model::{Argument, Method, Output, Service, Value},
};

/// The type, and its implementations.
pub(super) fn expand(service: &Service) -> (TokenStream, TokenStream) {
    let Service { krate, client, server, item, .. } = service;
    let (vis, trait_ident) = (&item.vis, &item.ident);
    let doc = format!(" Calls [`{trait_ident}`] in another process. Clones share one reply queue.");
    let type_tokens = quote! {
        #[doc = #doc]
        #vis struct #client {
            client: #krate::Client,
        }
    };
    let methods = service.methods.iter().map(|method| method_tokens(service, method));
    let name = client.to_string();
    let descriptor = descriptor(service);
    let as_trait = service.client_impls_trait.then(|| as_trait(service));
    let impls = quote! {
        #descriptor

        impl #client {
            /// A client with the default options. Nothing is sent before the first call.
            #vis fn new(connection: &#krate::Connection) -> Self {
                Self { client: #krate::Client::new(connection) }
            }

            /// A client with other options.
            #vis fn with_options(connection: &#krate::Connection, options: #krate::ClientOptions) -> Self {
                Self { client: #krate::Client::with_options(connection, options) }
            }

            /// A client that shares the reply queue of `client`, which may be another service's.
            #vis fn from_client(client: #krate::Client) -> Self {
                Self { client }
            }

            /// A client whose calls go to `service` in this process, without a broker: for unit tests.
            #vis fn fake(service: impl #trait_ident) -> Self {
                Self { client: #krate::Client::fake(#server::new(service)) }
            }

            /// A client whose calls also pass through `layer`, inside of the layers added before.
            #vis fn layer(&self, layer: impl #krate::layer::RpcLayer) -> Self {
                Self { client: self.client.layer(layer) }
            }

            /// The client that sends the calls.
            #vis fn client(&self) -> &#krate::Client {
                &self.client
            }

            #(#methods)*
        }

        impl ::core::clone::Clone for #client {
            fn clone(&self) -> Self {
                Self { client: ::core::clone::Clone::clone(&self.client) }
            }
        }

        impl ::core::fmt::Debug for #client {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name).field("client", &self.client).finish()
            }
        }

        #as_trait
    };
    (type_tokens, impls)
}

fn method_tokens(service: &Service, method: &Method) -> TokenStream {
    let Service { krate, item, .. } = service;
    let vis = &item.vis;
    let Method { shared_attributes, ident, .. } = method;
    let doc = shared_attributes.iter().all(|attribute| !attribute.path().is_ident("doc")).then(|| {
        let doc = format!(" Calls `{}`.", method.name);
        quote!(#[doc = #doc])
    });
    let parameters = method.values().map(|Value { ident, ty, .. }| quote!(#ident: #ty));
    let (ok, error) = types::sides(service, &method.output);
    let (result, call) = match &method.output {
        // The handler's error does not travel.
        _ if method.oneway => (quote!(#krate::Call<()>), quote!(__call)),
        Output::Plain(_) => (quote!(#krate::Call<#ok>), quote!(__call)),
        Output::Fallible { .. } => (quote!(#krate::Call<#ok, #error>), quote!(__call_fallible)),
    };
    let marker = types::marker(method);
    let arguments = types::arguments(service, method);
    quote! {
        #doc
        #(#shared_attributes)*
        #vis fn #ident(&self, #(#parameters),*) -> #result {
            self.client.#call::<#marker>(&__SERVICE, __Method::#ident as ::core::primitive::usize, &#arguments)
        }
    }
}

/// The service as a constant, and the indices of its methods: an enum, so that `#[cfg]` leaves no gaps.
fn descriptor(service: &Service) -> TokenStream {
    let Service { krate, name, version, .. } = service;
    let queue = option(service.queue.as_ref());
    let max_length = option(service.max_length);
    let max_depth = match service.max_depth {
        Some(levels) => quote!(#levels),
        None => quote!(#krate::__private::Codec::MAX_DEPTH),
    };
    let codec = match service.codec {
        Codec::MessagePack => quote!(MessagePack),
        Codec::Json => quote!(Json),
        Codec::Text => quote!(Text),
    };
    let variants = service.methods.iter().map(|Method { cfgs, ident, .. }| quote!(#(#cfgs)* #ident,));
    let methods = service.methods.iter().map(|method| method_descriptor(service, method));
    quote! {
        static __SERVICE: #krate::__private::ServiceDescriptor = #krate::__private::ServiceDescriptor {
            name: #name,
            version: #version,
            queue: #queue,
            codec: #krate::__private::Codec::#codec,
            max_length: #max_length,
            max_depth: #max_depth,
            methods: &[#(#methods,)*],
        };

        enum __Method {
            #(#variants)*
        }
    }
}

/// A method with the options that differ from the defaults.
fn method_descriptor(service: &Service, method: &Method) -> TokenStream {
    let krate = &service.krate;
    let Method { cfgs, name, routing_key, aliases, .. } = method;
    let mut options = Vec::new();
    if !aliases.is_empty() {
        options.push(quote!(aliases: &[#(#aliases),*]));
    }
    if let Some(timeout) = method.timeout {
        let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let timeout = option(Some(quote!(::core::time::Duration::from_millis(#milliseconds))));
        options.push(quote!(timeout: #timeout));
    }
    let flags = [
        (method.idempotent, quote!(idempotent)),
        (method.hedge, quote!(hedge)),
        (method.oneway, quote!(oneway)),
        (method.blocking, quote!(blocking)),
        (method.no_cancel, quote!(no_cancel)),
    ];
    options.extend(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, field)| quote!(#field: true)));
    if let Some(queue) = &method.queue {
        let queue = option(Some(queue));
        options.push(quote!(queue: #queue));
    }
    if let Output::Fallible { .. } = method.output {
        let marker = types::marker(method);
        let codes = if method.oneway { quote!(oneway_error_codes) } else { quote!(error_codes) };
        options.push(quote!(error_codes: #krate::__private::#codes::<#marker>()));
    }
    if let Some(priority) = method.priority {
        let priority = option(Some(priority));
        options.push(quote!(priority: #priority));
    }
    let new = quote!(#krate::__private::MethodDescriptor::new(#name, #routing_key));
    if options.is_empty() {
        quote!(#(#cfgs)* #new)
    } else {
        quote!(#(#cfgs)* #krate::__private::MethodDescriptor { #(#options,)* ..#new })
    }
}

/// The client as the trait itself.
fn as_trait(service: &Service) -> TokenStream {
    let Service { krate, client, item, .. } = service;
    let trait_ident = &item.ident;
    let methods = service.methods.iter().map(|method| {
        let Method { cfgs, ident, output, .. } = method;
        let parameters = parameters(method);
        let output = output.whole();
        let arguments = method.value_idents();
        let into_error = match method.oneway {
            true => quote!(::core::convert::From::from),
            false => quote!(#krate::CallError::into_service),
        };
        let ignored = method.arguments.iter().filter_map(|argument| match argument {
            Argument::Context { ident, .. } => Some(quote!(let _ = #ident;)),
            Argument::Value(_) => None,
        });
        quote! {
            #(#cfgs)*
            async fn #ident(&self, #(#parameters),*) -> #output {
                #(#ignored)*
                #client::#ident(self, #(#arguments),*).await.map_err(#into_error)
            }
        }
    });
    quote! {
        impl #trait_ident for #client {
            #(#methods)*
        }
    }
}
