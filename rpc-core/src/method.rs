//! The types of a method, as generated code declares them.
//!
//! Each type that travels is proved to be a serde type once, in the `impl` of [`Method`], at the token of the trait. The
//! client and the server rely on that proof, so that a type without serde's traits makes one error instead of one for
//! each use.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::call_error::{ErrorDetails, ServiceError, is_code_of_framework};

/// A method of a service.
pub trait Method {
    /// Its arguments: a generated struct, or `()`.
    type Arguments: Serialize + DeserializeOwned;
    /// The value it returns; of a `Result`, the `Ok` side.
    type Ok: Outcome;
}

/// A method that returns a `Result`.
pub trait FallibleMethod: Method {
    /// The service's own error.
    type Error: Outcome;
    /// Its type, as far as it describes its errors.
    const ERROR: ErrorType<Self::Error>;
}

/// A one-way method that returns a `Result`, whose error stays in the pool.
pub trait FallibleOneway: Method {
    /// The error of the handler.
    type Error: Described;
    /// Its type, as far as it describes its errors.
    const ERROR: ErrorType<Self::Error>;
}

/// The type of a one-way method's error: the log and the dead letter have its text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a one-way method: it does not implement `Display`",
    label = "has no text for the log and the dead letter",
    note = "derive `thiserror::Error` for it, or implement `std::fmt::Display`"
)]
pub trait Described {
    /// Its text, with its causes where the alternate form of its `Display` has them.
    fn text(&self) -> String;
}

#[diagnostic::do_not_recommend]
impl<T: fmt::Display> Described for T {
    fn text(&self) -> String {
        format!("{self:#}")
    }
}

/// The type of a service's own error: whether it is a [`ServiceError`], and then, which ones there are.
#[derive(Debug)]
pub struct ErrorType<E> {
    pub(crate) describe: Option<fn(&E) -> ErrorDetails>,
    pub(crate) codes: &'static [&'static str],
}

/// The codes of the errors of a method, for its descriptor.
pub const fn error_codes<M: FallibleMethod>() -> &'static [&'static str] {
    M::ERROR.codes
}

/// The same of a one-way method.
pub const fn oneway_error_codes<M: FallibleOneway>() -> &'static [&'static str] {
    M::ERROR.codes
}

/// Finds the [`ErrorType`] of a concrete type, in a constant: `ErrorProbe::<E>::TYPE`.
///
/// The inherent constant, which only a [`ServiceError`] has, shadows the one of [`PlainError`].
#[derive(Debug)]
pub struct ErrorProbe<E>(PhantomData<E>);

impl<E: ServiceError> ErrorProbe<E> {
    /// An error that says how callers should treat it.
    pub const TYPE: ErrorType<E> = {
        let mut at = 0;
        while at < E::CODES.len() {
            assert!(!is_code_of_framework(E::CODES[at]), "a code of a `ServiceError` is one of the framework's own");
            at += 1;
        }
        ErrorType { describe: Some(ErrorDetails::of), codes: E::CODES }
    };
}

/// The answer for every other type; see [`ErrorProbe`].
pub trait PlainError<E> {
    /// An error that is data alone.
    const TYPE: ErrorType<E> = ErrorType { describe: None, codes: &[] };
}

impl<E> PlainError<E> for ErrorProbe<E> {}

/// The type of an argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a remote method: it does not implement both `Serialize` and \
               `Deserialize`",
    label = "cannot travel to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it; a type of another crate may have them behind that \
            crate's feature `serde`"
)]
pub trait Argument: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Argument for T {}

/// The type of an argument whose type is called `Context`: the same as [`Argument`], with a better error.
#[diagnostic::on_unimplemented(
    message = "an owned `Context` cannot be an argument of a remote method: take `ctx: &Context`",
    label = "write `&Context`",
    note = "the server gives each handler its context, which does not travel"
)]
pub trait ContextArgument: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> ContextArgument for T {}

/// The type of a result or of a service's error.
///
/// Not a subtrait of serde's: each supertrait that is missing would be an error of its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned by a remote method: it does not implement both `Serialize` and `Deserialize`",
    label = "cannot travel to another process",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it; a type of another crate may have them behind that \
            crate's feature `serde`"
)]
pub trait Outcome {
    /// `Self`, known to be a serde type.
    type Wire: Serialize + DeserializeOwned;

    /// The same value, to be written.
    fn as_wire(&self) -> &Self::Wire;

    /// The same value, as read.
    fn from_wire(wire: Self::Wire) -> Self;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Outcome for T {
    type Wire = T;

    fn as_wire(&self) -> &T {
        self
    }

    fn from_wire(wire: T) -> T {
        wire
    }
}

/// The two types of a type that is called `Result` and whose author named fewer than two.
///
/// Generated code asserts that the type is a `Result`. The implementation for other types spares the reader of that error
/// those that would follow from it.
pub trait Sides<const IS_RESULT: bool> {
    /// `T`.
    type Ok;
    /// `E`.
    type Error;

    /// The value or the error.
    ///
    /// # Errors
    /// The error.
    fn sides(&self) -> Result<&Self::Ok, &Self::Error>;
}

impl<T, E> Sides<true> for Result<T, E> {
    type Ok = T;
    type Error = E;

    fn sides(&self) -> Result<&T, &E> {
        self.as_ref()
    }
}

impl<T> Sides<false> for T {
    type Ok = ();
    type Error = ();

    fn sides(&self) -> Result<&(), &()> {
        Ok(&())
    }
}

/// Tells whether a concrete type is a `Result`, in a constant: `Probe::<T>::IS_RESULT`.
///
/// The inherent constant, which only a `Result` has, shadows the one of [`NotAResult`].
#[derive(Debug)]
pub struct Probe<T>(PhantomData<T>);

impl<T, E> Probe<Result<T, E>> {
    /// It is.
    pub const IS_RESULT: bool = true;
}

impl<E> Probe<Result<(), E>> {
    /// It is one without a value.
    pub const IS_WITHOUT_VALUE: bool = true;
}

/// The answer for every other type; see [`Probe`].
pub trait NotAResult {
    /// It is not.
    const IS_RESULT: bool = false;
    /// It is not, or it has a value.
    const IS_WITHOUT_VALUE: bool = false;
}

impl<T> NotAResult for Probe<T> {}
