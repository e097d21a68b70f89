//! Authentication: a client's [`TokenLayer`] sends a token, and a pool's [`AuthLayer`] checks it.

mod authenticator;
mod cache;
mod source;
mod token;

pub use self::{
    authenticator::{AuthLayer, AuthService, Authenticator, Denied},
    source::{Token, TokenSource},
    token::{TokenLayer, TokenService},
};

/// The header that carries the token unless another one is named.
const HEADER: &str = "authorization";

/// The code of a call whose token is missing, wrong or expired.
const UNAUTHENTICATED: &str = "unauthenticated";
/// The code of a call whose caller is known, and may not make it.
const PERMISSION_DENIED: &str = "permission_denied";
