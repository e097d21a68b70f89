//! The client: one inherent method for each of the trait's, each returning a `Call`.

use proc_macro2::TokenStream;
use quote::quote;

use super::{arguments_struct, is_bare, option, parameters};
use crate::{
    attr::Codec,
    model::{Argument, Method, Output, Service},
};

/// The type, and what is implemented for it.
pub(super) fn expand(service: &Service) -> (TokenStream, TokenStream) {
    let Service { krate, client, item, .. } = service;
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

        #[allow(deprecated, dead_code)]
        impl #client {
            /// A client with the default options. Nothing is sent before the first call.
            #vis fn new(connection: &#krate::Connection) -> Self {
                Self { client: #krate::Client::new(connection) }
            }

            /// A client with other options.
            #vis fn with_options(connection: &#krate::Connection, options: #krate::ClientOptions) -> Self {
                Self { client: #krate::Client::with_options(connection, options) }
            }

            /// A client that shares the reply queue of another one, of whatever service.
            #vis fn from_client(client: #krate::Client) -> Self {
                Self { client }
            }

            /// The untyped client beneath.
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
    let parameters = method.values().map(|(ident, ty)| quote!(#ident: #ty));
    let (result, call) = match &method.output {
        Output::Plain(ty) => (quote!(#krate::Call<#ty>), quote!(__call)),
        Output::Fallible { ok, error, .. } => (quote!(#krate::Call<#ok, #error>), quote!(__call_fallible)),
    };
    let body = if is_bare(service) {
        let argument = match method.values().next() {
            Some((ident, _)) => quote!(&#ident),
            None => quote!(&()),
        };
        quote!(self.client.#call(&__SERVICE, __Method::#ident as usize, #argument))
    } else {
        let arguments = arguments_struct(service, method, "Serialize");
        let idents = method.values().map(|(ident, _)| ident);
        quote! {
            #arguments
            self.client.#call(&__SERVICE, __Method::#ident as usize, &__Arguments { #(#idents),* })
        }
    };
    quote! {
        #doc
        #(#shared_attributes)*
        #vis fn #ident(&self, #(#parameters),*) -> #result {
            #body
        }
    }
}

/// The service as a constant, and its methods' indices: an enum, so that `#[cfg]` leaves no gaps.
fn descriptor(service: &Service) -> TokenStream {
    let Service { krate, name, version, .. } = service;
    let queue = option(service.queue.as_ref());
    let max_length = option(service.max_length);
    let codec = match service.codec {
        Codec::MessagePack => quote!(MessagePack),
        Codec::Json => quote!(Json),
        Codec::Text => quote!(Text),
    };
    let variants = service.methods.iter().map(|Method { cfgs, ident, .. }| quote!(#(#cfgs)* #ident,));
    let methods = service.methods.iter().map(|method| {
        let Method {
            cfgs, name, routing_key, aliases, idempotent, oneway, blocking, no_cancel, queue, priority, ..
        } = method;
        let mut options = Vec::new();
        if !aliases.is_empty() {
            options.push(quote!(aliases: &[#(#aliases),*]));
        }
        if let Some(timeout) = method.timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            let timeout = option(Some(quote!(::core::time::Duration::from_millis(#milliseconds))));
            options.push(quote!(timeout: #timeout));
        }
        for (field, is_set) in
            [("idempotent", idempotent), ("oneway", oneway), ("blocking", blocking), ("no_cancel", no_cancel)]
        {
            if *is_set {
                let field = quote::format_ident!("{field}");
                options.push(quote!(#field: true));
            }
        }
        if let Some(queue) = queue {
            let queue = option(Some(queue));
            options.push(quote!(queue: #queue));
        }
        if let Some(priority) = priority {
            let priority = option(Some(priority));
            options.push(quote!(priority: #priority));
        }
        let new = quote!(#krate::__private::MethodDescriptor::new(#name, #routing_key));
        if options.is_empty() {
            quote!(#(#cfgs)* #new,)
        } else {
            quote!(#(#cfgs)* #krate::__private::MethodDescriptor { #(#options,)* ..#new },)
        }
    });
    quote! {
        static __SERVICE: #krate::__private::ServiceDescriptor = #krate::__private::ServiceDescriptor {
            name: #name,
            version: #version,
            queue: #queue,
            codec: #krate::__private::Codec::#codec,
            max_length: #max_length,
            methods: &[#(#methods)*],
        };

        #[allow(non_camel_case_types, dead_code)]
        enum __Method {
            #(#variants)*
        }
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
        let arguments = method.values().map(|(ident, _)| ident);
        let ignored = method.arguments.iter().filter_map(|argument| match argument {
            Argument::Context { ident, .. } => Some(quote!(let _ = #ident;)),
            Argument::Value { .. } => None,
        });
        quote! {
            #(#cfgs)*
            fn #ident(
                &self,
                #(#parameters),*
            ) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send {
                #(#ignored)*
                let call = #client::#ident(self, #(#arguments),*);
                async move {
                    match ::core::future::IntoFuture::into_future(call).await {
                        ::core::result::Result::Ok(value) => ::core::result::Result::Ok(value),
                        ::core::result::Result::Err(error) => {
                            ::core::result::Result::Err(#krate::CallError::into_service(error))
                        }
                    }
                }
            }
        }
    });
    quote! {
        #[allow(deprecated)]
        impl #trait_ident for #client {
            #(#methods)*
        }
    }
}
