//! The types of each method: its arguments as one struct, and the declaration that proves that they can be sent.
//!
//! The struct is generic, so that deriving for it asks nothing of the arguments' types. The compiler checks them once, where
//! `Method` is implemented.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Type, spanned::Spanned};

use crate::{
    model::{Method, Output, Service, Value},
    names::text_of,
};

/// For each method: a type that stands for it, its arguments, its declaration.
pub(super) fn expand(service: &Service) -> TokenStream {
    let krate = &service.krate;
    let methods = service.methods.iter().map(|method| declaration(service, method));
    quote! {
        use #krate::__private::{NotAResult as _, PlainError as _};

        #(#methods)*
    }
}

/// The type that stands for a method. It has no value, so no pattern is taken for it.
pub(super) fn marker(method: &Method) -> Ident {
    format_ident!("__TypesOf_{}", text_of(&method.ident), span = Span::call_site())
}

/// The expression of a method's arguments.
pub(super) fn arguments(service: &Service, method: &Method) -> TokenStream {
    if has_no_body(service, method) {
        return quote!(());
    }
    let structure = structure_ident(method);
    let idents = method.value_idents();
    quote!(#structure { #(#idents),* })
}

/// Whether it is a method of the bare profile without an argument.
fn has_no_body(service: &Service, method: &Method) -> bool {
    service.is_bare() && method.values().next().is_none()
}

fn structure_ident(method: &Method) -> Ident {
    format_ident!("__ArgumentsOf_{}", text_of(&method.ident), span = Span::call_site())
}

fn declaration(service: &Service, method: &Method) -> TokenStream {
    let krate = &service.krate;
    let cfgs = &method.cfgs;
    let marker = marker(method);
    let structure = (!has_no_body(service, method)).then(|| structure(service, method));
    let arguments = arguments_type(service, method);
    let (ok, fallible, check) = match &method.output {
        Output::Plain(ty) => (ty.to_token_stream(), None, not_a_result(service, method, ty)),
        Output::Fallible { whole, sides: named } => {
            let (ok, error) = sides(service, &method.output);
            let role = if method.oneway { quote!(FallibleOneway) } else { quote!(FallibleMethod) };
            let fallible = quote! {
                #(#cfgs)*
                impl #krate::__private::#role for #marker {
                    type Error = #error;
                    const ERROR: #krate::__private::ErrorType<Self::Error> =
                        #krate::__private::ErrorProbe::<Self::Error>::TYPE;
                }
            };
            let ok = if method.oneway { quote!(()) } else { ok };
            let check = named.is_none().then(|| a_result(service, method, whole));
            (ok, Some(fallible), check)
        }
    };
    quote! {
        #(#cfgs)*
        enum #marker {}

        #structure

        #(#cfgs)*
        impl #krate::__private::Method for #marker {
            type Arguments = #arguments;
            type Ok = #ok;
        }

        #fallible
        #check
    }
}

/// `T` and `E` of a method that returns `Result<T, E>`; of another method, its type and nothing.
pub(super) fn sides(service: &Service, output: &Output) -> (TokenStream, TokenStream) {
    match output {
        Output::Plain(ty) => (ty.to_token_stream(), TokenStream::new()),
        Output::Fallible { sides: Some(sides), .. } => (sides.0.to_token_stream(), sides.1.to_token_stream()),
        Output::Fallible { whole, sides: None } => {
            let sides = as_sides(service, whole);
            // Spanned as the type: an error about one of its sides points there.
            let span = whole.span();
            (quote_spanned!(span=> #sides::Ok), quote_spanned!(span=> #sides::Error))
        }
    }
}

/// `<R as Sides<…>>`, which has the two types of a `Result` named `R`.
pub(super) fn as_sides(service: &Service, whole: &Type) -> TokenStream {
    let krate = &service.krate;
    quote_spanned! {whole.span()=>
        <#whole as #krate::__private::Sides<{ #krate::__private::Probe::<#whole>::IS_RESULT }>>
    }
}

/// `__ArgumentsOf_m<u32, String>`, spanned from the first argument's type to the last one's: an error about one of them
/// points there.
fn arguments_type(service: &Service, method: &Method) -> TokenStream {
    if has_no_body(service, method) {
        return quote!(());
    }
    let structure = structure_ident(method);
    let types: Vec<_> = method.values().map(|value| &value.ty).collect();
    let (Some(first), Some(last)) = (types.first(), types.last()) else {
        return quote!(#structure);
    };
    let structure = Ident::new(&structure.to_string(), located_at(first.span()));
    let end = last.to_token_stream().into_iter().last().map_or_else(Span::call_site, |token| token.span());
    let close = quote_spanned!(located_at(end)=> >);
    quote!(#structure<#(#types),* #close)
}

pub(super) fn located_at(span: Span) -> Span {
    Span::call_site().located_at(span)
}

/// The struct in which a method's arguments are sent.
fn structure(service: &Service, method: &Method) -> TokenStream {
    let krate = &service.krate;
    let cfgs = &method.cfgs;
    let ident = structure_ident(method);
    let serde_path = path_text(&quote!(#krate::__private::serde));
    let parameters: Vec<_> = (0..method.values().count()).map(|index| format_ident!("A{index}")).collect();
    let generics = (!parameters.is_empty()).then(|| quote!(<#(#parameters),*>));
    let bounds = method.values().zip(&parameters).map(|(value, parameter)| bound(krate, value, parameter));
    let bounds = bounds.collect::<Vec<_>>().join(", ");
    let options = if service.is_bare() {
        quote!(transparent, bound = #bounds)
    } else {
        let expected = expectation(method);
        quote!(bound = #bounds, expecting = #expected)
    };
    let fields = method.values().zip(&parameters).map(|(value, parameter)| {
        let ident = &value.ident;
        let default = value.has_default.then(|| quote!(#[serde(default)]));
        quote!(#default #ident: #parameter)
    });
    quote! {
        #(#cfgs)*
        #[::core::prelude::v1::derive(
            #krate::__private::serde::Serialize,
            #krate::__private::serde::Deserialize,
        )]
        #[serde(crate = #serde_path, #options)]
        struct #ident #generics {
            #(#fields,)*
        }
    }
}

/// The text by which serde describes the arguments when a request has none of their shape.
fn expectation(method: &Method) -> String {
    let names: Vec<_> = method.value_idents().map(|ident| format!("`{}`", text_of(ident))).collect();
    match &*names {
        [] => "no arguments".to_owned(),
        [name] => format!("the argument {name}, in a map or an array"),
        names => format!("the arguments {}, by name in a map or in this order in an array", names.join(", ")),
    }
}

/// `A0: Argument`, as a text for serde.
fn bound(krate: &syn::Path, value: &Value, parameter: &Ident) -> String {
    let bound = if value.is_called_context { quote!(ContextArgument) } else { quote!(Argument) };
    let default = if value.has_default { " + ::core::default::Default" } else { "" };
    format!("{parameter}: {}{default}", path_text(&quote!(#krate::__private::#bound)))
}

fn path_text(path: &TokenStream) -> String {
    path.to_string().replace(' ', "")
}

/// The compiler's proof that a type which is not called `Result` is no alias of it. Its error would otherwise be sent as a
/// part of the value.
fn not_a_result(service: &Service, method: &Method, ty: &Type) -> Option<TokenStream> {
    if !matches!(ty, Type::Path(_) | Type::Macro(_)) {
        return None;
    }
    let krate = &service.krate;
    Some(assertion(
        method,
        &quote_spanned! {ty.span()=>
            ::core::assert!(
                !#krate::__private::Probe::<#ty>::IS_RESULT,
                "this is a `Result` under another name: write `Result<T, E>`"
            )
        },
    ))
}

/// The compiler's proof that a type which is called `Result` is one, and, of a one-way method, one without a value.
fn a_result(service: &Service, method: &Method, whole: &Type) -> TokenStream {
    let krate = &service.krate;
    let is_result = assertion(
        method,
        &quote_spanned! {whole.span()=>
            ::core::assert!(
                #krate::__private::Probe::<#whole>::IS_RESULT,
                "this type is called `Result`, but it is another one: write `Result<T, E>`, or give the type another name"
            )
        },
    );
    let has_no_value = method.oneway.then(|| {
        assertion(
            method,
            &quote_spanned! {whole.span()=>
                ::core::assert!(
                    #krate::__private::Probe::<#whole>::IS_WITHOUT_VALUE
                        || !#krate::__private::Probe::<#whole>::IS_RESULT,
                    "a one-way method has no reply: return nothing, or `Result<(), E>`"
                )
            },
        )
    });
    quote!(#is_result #has_no_value)
}

fn assertion(method: &Method, check: &TokenStream) -> TokenStream {
    let cfgs = &method.cfgs;
    quote! {
        #(#cfgs)*
        const _: () = #check;
    }
}
