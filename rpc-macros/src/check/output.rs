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
    let before = errors.count();
    check_type(ty, "a result", errors);
    let output = (errors.count() == before).then(|| classify(ty))?;
    if oneway.is_some()
        && let Some(value) = value_of(&output).filter(|value| !is_unit(value))
    {
        errors.at(
            value,
            "a one-way method has no reply: return nothing, or `Result<(), E>` for an error that the pool logs and \
             dead-letters; or remove `oneway`",
        );
        return None;
    }
    Some(output)
}

/// The type of the value, as far as it is named.
fn value_of(output: &Output) -> Option<&Type> {
    match output {
        Output::Plain(ty) => Some(ty),
        Output::Fallible { sides, .. } => sides.as_ref().map(|sides| &sides.0),
    }
}

fn is_unit(ty: &Type) -> bool {
    matches!(bare(ty), Type::Tuple(tuple) if tuple.elems.is_empty())
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
