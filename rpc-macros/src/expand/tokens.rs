//! Pieces that several parts of the expansion share.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};

use crate::model::{Argument, Method};

/// The arguments of a method, as declared.
pub(super) fn parameters(method: &Method) -> Vec<TokenStream> {
    let parameter = |argument: &Argument| {
        let (ident, ty) = (argument.ident(), argument.ty());
        quote!(#ident: #ty)
    };
    method.arguments.iter().map(parameter).collect()
}

/// `Some(value)` or `None`.
pub(super) fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
