//! The object-safe twin: the same methods with boxed futures, and the trait for a box of it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Ident, Type, visit_mut::VisitMut};

use crate::model::{Argument, Method, Service};

/// The twin and what connects it with the trait.
pub(super) fn expand(service: &Service, twin: &Ident) -> TokenStream {
    let item = &service.item;
    let (vis, trait_ident) = (&item.vis, &item.ident);
    let doc = format!(" [`{trait_ident}`] as `dyn {twin}`: every implementation has it, and a box of it is one.");
    let declared = service.methods.iter().map(|method| {
        let signature = boxed_signature(method);
        let Method { shared_attributes, .. } = method;
        let doc = shared_attributes.iter().all(|attribute| !attribute.path().is_ident("doc")).then(|| {
            let doc = format!(" As [`{trait_ident}::{}`].", method.ident);
            quote!(#[doc = #doc])
        });
        quote!(#doc #(#shared_attributes)* #signature;)
    });
    let implemented = service.methods.iter().map(|method| {
        let Method { cfgs, ident, .. } = method;
        let signature = boxed_signature(method);
        let arguments = idents(method);
        quote! {
            #(#cfgs)*
            #signature {
                ::std::boxed::Box::pin(<T as #trait_ident>::#ident(self, #(#arguments),*))
            }
        }
    });
    let pointers = [quote!(::std::boxed::Box), quote!(::std::sync::Arc)].map(|pointer| {
        let methods = service.methods.iter().map(|method| {
            let Method { cfgs, ident, output, .. } = method;
            let parameters = super::parameters(method);
            let arguments = idents(method);
            let output = output.whole();
            quote! {
                #(#cfgs)*
                fn #ident(
                    &self,
                    #(#parameters),*
                ) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send {
                    async move { <dyn #twin as #twin>::#ident(&**self, #(#arguments),*).await }
                }
            }
        });
        quote! {
            #[allow(deprecated)]
            impl #trait_ident for #pointer<dyn #twin> {
                #(#methods)*
            }
        }
    });
    quote! {
        #[doc = #doc]
        #vis trait #twin: ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#declared)*
        }

        #[allow(deprecated)]
        impl<T: #trait_ident> #twin for T {
            #(#implemented)*
        }

        #(#pointers)*
    }
}

fn idents(method: &Method) -> impl Iterator<Item = &Ident> {
    method.arguments.iter().map(Argument::ident)
}

/// `fn m<'a>(&'a self, …) -> Pin<Box<dyn Future<Output = R> + Send + 'a>>`.
fn boxed_signature(method: &Method) -> TokenStream {
    struct Name;
    impl VisitMut for Name {
        fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
            reference.lifetime = Some(syn::parse_quote!('a));
        }
    }
    let ident = &method.ident;
    let output = method.output.whole();
    let parameters = method.arguments.iter().map(|argument| match argument {
        Argument::Value { ident, ty } => quote!(#ident: #ty),
        Argument::Context { ident, ty } => {
            let mut ty: Type = ty.clone();
            Name.visit_type_mut(&mut ty);
            quote!(#ident: #ty)
        }
    });
    quote! {
        fn #ident<'a>(
            &'a self,
            #(#parameters),*
        ) -> ::core::pin::Pin<
            ::std::boxed::Box<dyn ::core::future::Future<Output = #output> + ::core::marker::Send + 'a>,
        >
    }
}
