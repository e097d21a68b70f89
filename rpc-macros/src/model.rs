//! A service as the expansion needs it: every option has its value, every name is known.

use std::time::Duration;

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
    /// The number of requests that each of its queues holds.
    pub(crate) max_length: Option<u32>,
    /// The number of levels that a body may nest.
    pub(crate) max_depth: Option<u32>,
    pub(crate) client: Ident,
    pub(crate) server: Ident,
    pub(crate) client_impls_trait: bool,
    /// The name of the object-safe twin, with `dyn_trait`.
    pub(crate) dyn_trait: Option<Ident>,
    /// The methods without a mistake; the others stand in the trait only.
    pub(crate) methods: Vec<Method>,
}

/// A method without a mistake.
pub(crate) struct Method {
    /// `#[doc]`, `#[deprecated]`, `#[cfg]`, `#[allow]`.
    pub(crate) shared_attributes: Vec<Attribute>,
    /// `#[cfg]` alone.
    pub(crate) cfgs: Vec<Attribute>,
    pub(crate) ident: Ident,
    pub(crate) name: String,
    pub(crate) routing_key: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idempotent: bool,
    pub(crate) hedge: bool,
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
    /// One that is sent.
    Value(Value),
    /// `&Context`, given by the server.
    Context { ident: Ident, ty: Type },
}

/// An argument that is sent.
pub(crate) struct Value {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    /// Whether its type is named like the context, which is not sent.
    pub(crate) is_called_context: bool,
    /// `#[rpc(default)]`.
    pub(crate) has_default: bool,
}

/// The return type of a method.
pub(crate) enum Output {
    /// Not a `Result`.
    Plain(Type),
    /// A `Result`: the type as written, and `T` and `E` if it names both.
    Fallible { whole: Type, sides: Option<Box<(Type, Type)>> },
}

impl Service {
    /// Whether it has the bare profile, where the argument alone is the body.
    pub(crate) fn is_bare(&self) -> bool {
        self.queue.is_some()
    }
}

impl Method {
    /// The arguments that are sent.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.arguments.iter().filter_map(|argument| match argument {
            Argument::Value(value) => Some(value),
            Argument::Context { .. } => None,
        })
    }

    /// The names of the arguments that are sent.
    pub(crate) fn value_idents(&self) -> impl Iterator<Item = &Ident> {
        self.values().map(|value| &value.ident)
    }
}

impl Output {
    /// The type as written in the trait.
    pub(crate) fn whole(&self) -> &Type {
        match self {
            Self::Plain(whole) | Self::Fallible { whole, .. } => whole,
        }
    }
}

impl Argument {
    /// Its name.
    pub(crate) fn ident(&self) -> &Ident {
        match self {
            Self::Value(Value { ident, .. }) | Self::Context { ident, .. } => ident,
        }
    }

    /// Its type.
    pub(crate) fn ty(&self) -> &Type {
        match self {
            Self::Value(Value { ty, .. }) | Self::Context { ty, .. } => ty,
        }
    }
}
