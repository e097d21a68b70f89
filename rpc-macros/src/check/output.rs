//! The return type of a method.

use proc_macro2::Span;
use syn::{GenericArgument, PathArguments, ReturnType, Type, parse_quote};

use super::types::{bare, check_type};
use crate::{errors::Errors, model::Output};

/// The return type, if it can be sent.
pub(super) fn check(output: &ReturnType, oneway: Option<Span>, errors: &mut Errors) -> Option<Output> {
    let ReturnType::Type(_, ty) = output else {
        return Some(Output::Plain(parse_quote!(())));
    };
    let ty = bare(ty);
    let is_unit = matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty());
    if oneway.is_some() && !is_unit {
        errors.at(ty, "a one-way method has no reply: remove the return type, or remove `oneway`");
        return None;
    }
    let before = errors.count();
    check_type(ty, "a result", errors);
    (errors.count() == before).then(|| classify(ty))
}

/// A type whose name is `Result` is taken for a `Result`; the expansion has the compiler prove it, and the opposite of all
/// other types.
fn classify(ty: &Type) -> Output {
    let Type::Path(path) = ty else {
        return Output::Plain(ty.clone());
    };
    let Some(last) = path.path.segments.last().filter(|segment| segment.ident == "Result") else {
        return Output::Plain(ty.clone());
    };
    let types: Vec<_> = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let sides = <[_; 2]>::try_from(types).ok().map(|[ok, error]| Box::new((ok, error)));
    Output::Fallible { whole: ty.clone(), sides }
}
