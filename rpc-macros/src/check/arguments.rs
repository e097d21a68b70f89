//! The arguments of a method.

use syn::{FnArg, Ident, Pat, PatType, TraitItemFn, Type};

use super::types::{bare, check_type};
use crate::{
    attr::ArgumentOptions,
    errors::Errors,
    model::{Argument, Value},
};

/// The arguments, if each of them can be sent or is the context.
pub(super) fn check(function: &TraitItemFn, is_bare: bool, errors: &mut Errors) -> Option<Vec<Argument>> {
    let before = errors.count();
    let mut arguments = Vec::new();
    let mut contexts = 0;
    let mut values = 0;
    for input in &function.sig.inputs {
        let FnArg::Typed(typed) = input else { continue };
        let Some(ident) = name_of(typed, errors) else { continue };
        let options = ArgumentOptions::of(&typed.attrs, errors);
        let ty = bare(&typed.ty).clone();
        if is_context_reference(&ty) {
            contexts += 1;
            if contexts == 2 {
                errors.at(&ty, "a method takes one `&Context`: remove this one");
            }
            if let Some(default) = options.default {
                errors.at_span(default, "the server always gives the context: remove `default`");
            }
            arguments.push(Argument::Context { ident, ty });
            continue;
        }
        values += 1;
        if is_bare {
            check_bare(typed, values, &options, errors);
        }
        check_type(&ty, "an argument", errors);
        let (is_called_context, has_default) = (is_context(&ty), options.default.is_some());
        arguments.push(Argument::Value(Value { ident, ty, is_called_context, has_default }));
    }
    (errors.count() == before).then_some(arguments)
}

fn name_of(typed: &PatType, errors: &mut Errors) -> Option<Ident> {
    match &*typed.pat {
        Pat::Ident(pattern) if pattern.by_ref.is_none() && pattern.mutability.is_none() && pattern.subpat.is_none() => {
            return Some(pattern.ident.clone());
        }
        Pat::Ident(pattern) if pattern.mutability.is_some() => {
            errors.at(pattern, "`mut` belongs in the implementation: write the argument's name alone here");
        }
        other => errors.at(other, "an argument is sent under its name: write a plain name instead of a pattern"),
    }
    None
}

/// In the bare profile the argument alone is the body.
fn check_bare(typed: &PatType, values: usize, options: &ArgumentOptions, errors: &mut Errors) {
    if values == 2 {
        errors.at(
            &typed.pat,
            "a method of a service with a `queue` takes at most one argument, which alone is the body; put several values \
             into a struct",
        );
    }
    if let Some(default) = options.default {
        errors.at_span(
            default,
            "the argument of a service with a `queue` is the whole body and cannot be missing: remove `default`",
        );
    }
}

/// `&Context`, by whatever path.
fn is_context_reference(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if is_context(&reference.elem))
}

/// A type called `Context`, by whatever path.
fn is_context(ty: &Type) -> bool {
    matches!(bare(ty), Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == "Context"))
}
