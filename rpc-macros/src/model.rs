//! A service as the expansion needs it: every choice made, every name known.

use std::time::Duration;

use proc_macro2::TokenStream;
use syn::{Attribute, Ident, ItemTrait, Path, Type};

use crate::attr::Codec;

/// A checked service.
pub(crate) struct Service {
    /// The trait, without our attributes, its `async fn`s rewritten.
    pub(crate) item: ItemTrait,
    pub(crate) krate: Path,
    pub(crate) name: String,
    pub(crate) version: u32,
    /// The bare profile's queue.
    pub(crate) queue: Option<String>,
    pub(crate) codec: Codec,
    /// Requests its queues hold.
    pub(crate) max_length: Option<u32>,
    pub(crate) client: Ident,
    pub(crate) server: Ident,
    pub(crate) client_impls_trait: bool,
    /// The object-safe twin's name, when it is wanted.
    pub(crate) dyn_trait: Option<Ident>,
    /// Those that can be called; a method with a mistake is in the trait only.
    pub(crate) methods: Vec<Method>,
}

/// A method that can be called.
pub(crate) struct Method {
    /// `#[doc]`, `#[deprecated]`, `#[cfg]`.
    pub(crate) shared_attributes: Vec<Attribute>,
    /// `#[cfg]` alone.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) ident: Ident,
    pub(crate) name: String,
    pub(crate) routing_key: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotent: bool,
    pub(crate) oneway: bool,
    pub(crate) blocking: bool,
    pub(crate) no_cancel: bool,
    pub(crate) queue: Option<String>,
    pub(crate) priority: Option<u8>,
    /// In the trait's order.
    pub(crate) arguments: Vec<Argument>,
    pub(crate) output: Output,
}

/// An argument of a method.
pub(crate) enum Argument {
    /// One that travels.
    Value { ident: Ident, ty: Type },
    /// `&Context`, given by the server.
    Context { ident: Ident, ty: Type },
}

/// What a method gives back.
pub(crate) enum Output {
    /// `T`.
    Plain(TokenStream),
    /// `Result<T, E>`: the whole type, `T` and `E`.
    Fallible { whole: TokenStream, ok: TokenStream, error: TokenStream },
}

impl Method {
    /// The arguments that travel.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&Ident, &Type)> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Value { ident, ty } => Some((ident, ty)),
            Argument::Context { .. } => None,
        })
    }
}

impl Output {
    /// As written in the trait.
    pub(crate) fn whole(&self) -> &TokenStream {
        match self {
            Self::Plain(whole) | Self::Fallible { whole, .. } => whole,
        }
    }
}

impl Argument {
    /// Its name.
    pub(crate) fn ident(&self) -> &Ident {
        match self {
            Self::Value { ident, .. } | Self::Context { ident, .. } => ident,
        }
    }

    /// Its type.
    pub(crate) fn ty(&self) -> &Type {
        match self {
            Self::Value { ty, .. } | Self::Context { ty, .. } => ty,
        }
    }
}
