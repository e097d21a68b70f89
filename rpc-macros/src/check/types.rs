//! The types of arguments and results: each owns its data, and has a name that both sides know.

use quote::ToTokens;
use syn::{Type, visit::Visit};

use crate::errors::Errors;

/// `ty` without what stands around it: parentheses, and the invisible group of a macro's `$t:ty`.
pub(super) fn bare(mut ty: &Type) -> &Type {
    loop {
        ty = match ty {
            Type::Group(group) => &group.elem,
            Type::Paren(paren) => &paren.elem,
            _ => return ty,
        };
    }
}

/// Notes every part of `ty` that cannot be sent. `what` is the subject of the errors, such as "an argument".
pub(super) fn check_type(ty: &Type, what: &str, errors: &mut Errors) {
    Look { what, errors }.visit_type(ty);
}

struct Look<'e> {
    what: &'e str,
    errors: &'e mut Errors,
}

impl Look<'_> {
    fn complain(&mut self, tokens: impl ToTokens, rule: &str) {
        self.errors.at(tokens, format!("{} {rule}", self.what));
    }
}

impl<'ast> Visit<'ast> for Look<'_> {
    fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
        let owned = match bare(&reference.elem) {
            Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
            Type::Slice(slice) => format!("Vec<{}>", slice.elem.to_token_stream()),
            other => other.to_token_stream().to_string(),
        };
        self.complain(reference, &format!("is sent to another process and must own its data: write `{owned}`"));
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
        self.complain(ty, "needs a concrete type that both sides know: name it");
    }

    fn visit_type_infer(&mut self, ty: &'ast syn::TypeInfer) {
        self.complain(ty, "needs a concrete type that both sides know: name it");
    }

    fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
        if lifetime.ident != "static" {
            self.complain(lifetime, "is sent to another process and must own its data: use a type without lifetimes");
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first().filter(|segment| segment.ident == "Self") {
            self.complain(&first.ident, "has the same type in every implementation: name a concrete type");
        }
        syn::visit::visit_path(self, path);
    }
}
