//! `#[derive(ServiceError)]`: a code for each variant, and whether callers should try again.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Data, DeriveInput, Ident, LitStr, Path};

use crate::{
    attr::ErrorOptions,
    errors::Errors,
    names::{snake_case, text_of, wire_name_mistake},
};

/// An error of the service: a variant, or a struct as a whole.
struct Case {
    /// Matches it.
    pattern: TokenStream,
    code: String,
    /// Of the code, or of the name that it was made of.
    span: Span,
    is_retryable: bool,
    retry_after: Option<Duration>,
}

/// The implementation, and every mistake.
pub(crate) fn expand(item: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let (krate, cases) = read(item, &mut errors);
    check_codes(&cases, &mut errors);
    let implementation = implementation(item, &krate, &cases);
    let assertions = cases.iter().map(|case| assertion(&krate, case));
    let errors = errors.into_compile_errors();
    quote! {
        #implementation
        #(#assertions)*
        #errors
    }
}

fn read(item: &DeriveInput, errors: &mut Errors) -> (Path, Vec<Case>) {
    let (options, cases) = match &item.data {
        Data::Enum(data) => {
            let options = ErrorOptions::of(&item.attrs, "#[rpc] on an enum", &["crate"], errors);
            let cases = data.variants.iter().map(|variant| {
                let options = ErrorOptions::of(&variant.attrs, "#[rpc] on a variant", &CASE_KEYS, errors);
                let ident = &variant.ident;
                case(quote!(Self::#ident { .. }), ident, &options, errors)
            });
            (options, cases.collect())
        }
        Data::Struct(_) => {
            let known = [&CASE_KEYS[..], &["crate"]].concat();
            let options = ErrorOptions::of(&item.attrs, "#[rpc] on a struct", &known, errors);
            let case = case(quote!(Self { .. }), &item.ident, &options, errors);
            (options, vec![case])
        }
        Data::Union(data) => {
            errors.at(data.union_token, "a service's error is an enum or a struct: a union does not travel");
            (ErrorOptions::default(), Vec::new())
        }
    };
    (options.krate.unwrap_or_else(|| syn::parse_quote!(::rpc_core)), cases)
}

fn case(pattern: TokenStream, ident: &Ident, options: &ErrorOptions, errors: &mut Errors) -> Case {
    let name = snake_case(&text_of(ident));
    if options.code.is_none() && wire_name_mistake(&name).is_some() {
        errors.at(ident, format!("`{name}` cannot be a code; write one: `#[rpc(code = \"…\")]`"));
    }
    Case {
        pattern,
        code: options.code.as_ref().map_or(name, LitStr::value),
        span: options.code.as_ref().map_or_else(|| ident.span(), LitStr::span),
        // A time to wait for another attempt means that one may succeed.
        is_retryable: options.retryable.is_some() || options.retry_after.is_some(),
        retry_after: options.retry_after,
    }
}

/// A code names one error.
fn check_codes(cases: &[Case], errors: &mut Errors) {
    for (at, case) in cases.iter().enumerate() {
        if cases[..at].iter().any(|before| before.code == case.code) {
            errors.at_span(
                case.span,
                format!("another variant has the code `{}`; write `#[rpc(code = \"…\")]`", case.code),
            );
        }
    }
}

fn implementation(item: &DeriveInput, krate: &Path, cases: &[Case]) -> TokenStream {
    let ident = &item.ident;
    let (impl_generics, ty_generics, where_clause) = item.generics.split_for_impl();
    let codes = cases.iter().map(|case| &case.code);
    let code_arms = cases.iter().map(|Case { pattern, code, .. }| quote!(#pattern => #code,));
    let retryable = cases.iter().filter(|case| case.is_retryable).map(|case| &case.pattern).collect::<Vec<_>>();
    let is_retryable = (!retryable.is_empty()).then(|| {
        quote! {
            fn is_retryable(&self) -> ::core::primitive::bool {
                ::core::matches!(self, #(#retryable)|*)
            }
        }
    });
    // A type that nothing can have: its reference is no place that may stay unmatched.
    let code = if cases.is_empty() { quote!(match *self {}) } else { quote!(match self { #(#code_arms)* }) };
    let retry_after = retry_after(cases);
    // At the type's name, where the missing `Display` is to be pointed out.
    let name = quote_spanned!(ident.span()=> #ident #ty_generics);
    quote! {
        #[automatically_derived]
        impl #impl_generics #krate::ServiceError for #name #where_clause {
            const CODES: &'static [&'static ::core::primitive::str] = &[#(#codes),*];

            fn code(&self) -> &'static ::core::primitive::str {
                #code
            }
            #is_retryable
            #retry_after
        }
    }
}

fn retry_after(cases: &[Case]) -> Option<TokenStream> {
    let arms: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let (pattern, time) = (&case.pattern, case.retry_after?);
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Some(quote!(#pattern => ::core::option::Option::Some(::core::time::Duration::from_millis(#ms)),))
        })
        .collect();
    let rest = (arms.len() < cases.len()).then(|| quote!(_ => ::core::option::Option::None,));
    (!arms.is_empty()).then(|| {
        quote! {
            fn retry_after(&self) -> ::core::option::Option<::core::time::Duration> {
                match self {
                    #(#arms)*
                    #rest
                }
            }
        }
    })
}

/// The compiler's proof that a code is none of the framework's.
fn assertion(krate: &Path, case: &Case) -> TokenStream {
    let Case { code, span, .. } = case;
    let message =
        format!("`{code}` is a code of the framework's own errors: write another one, `#[rpc(code = \"…\")]`");
    let check = quote_spanned! {*span=>
        ::core::assert!(!#krate::__private::is_code_of_framework(#code), #message)
    };
    quote!(const _: () = #check;)
}

const CASE_KEYS: [&str; 3] = ["code", "retryable", "retry_after"];
