//! Constants, variants, statics and types in scope may be named like anything generated, or like an argument.
#![deny(warnings)]
#![allow(non_camel_case_types, non_upper_case_globals, dead_code, unused_imports)]

use rpc_core::{Context, service};

mod values {
    pub(crate) enum Kind {
        arguments,
        refused,
        call,
        value,
        error,
        service,
        f,
        client,
        connection,
        options,
        request,
        method,
        result,
        Ok,
        Err,
        Some,
        None,
    }
    pub(crate) const n: u8 = 1;
    pub(crate) static text: u8 = 2;
    pub(crate) struct key;
    pub(crate) struct pair(u8);
}
use values::{Kind::*, *};

mod types {
    pub(crate) struct Vec;
    pub(crate) struct Option;
    pub(crate) struct String;
    pub(crate) struct Arc;
    pub(crate) struct Self_;
    pub(crate) trait Future {}
    pub(crate) trait Send {}
    pub(crate) trait Sync {}
    pub(crate) trait Clone {}
    pub(crate) trait Debug {}
    pub(crate) trait Serialize {}
    pub(crate) trait Deserialize {}
    /// Also the name of generic parameters.
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(crate) struct T;
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(crate) struct A0;
    #[derive(serde::Serialize, serde::Deserialize)]
    pub(crate) struct E;
}
use types::*;

mod own {
    pub(crate) type Result<T> = std::result::Result<T, u8>;
}

#[service(dyn_trait)]
trait Names {
    async fn named(&self, n: T, text: A0, key: E, pair: u8, value: u8, error: u8, options: u8) -> Result<T, E>;
    async fn aliased(&self, ctx: &Context, call: A0) -> own::Result<T>;
    async fn plain(&self, f: u8, service: T) -> T;
    /// Named like generated variables and types.
    async fn service(&self, request: u8) -> u8;
    async fn request(&self, result: u8) -> u8;
    async fn result(&self, method: u8) -> u8;
    async fn method(&self, arguments: u8) -> u8;
    async fn arguments(&self) -> u8;
    async fn refused(&self) -> u8;
    #[rpc(name = "m")]
    #[allow(non_snake_case)]
    async fn Method(&self) -> u8;
    #[rpc(name = "s")]
    #[allow(non_snake_case)]
    async fn SERVICE(&self) -> u8;
    #[rpc(name = "a")]
    #[allow(non_snake_case)]
    async fn ArgumentsOf_m(&self, m: u8) -> u8;
    async fn from_arc(&self) -> u8;
    async fn clone(&self) -> u8;
    async fn fmt(&self, f: u8) -> u8;
}

/// A trait that is named like a generic parameter.
#[service(client_impls_trait)]
trait D {
    async fn m(&self, client: u8) -> Result<u8, Remote>;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Remote;

impl From<rpc_core::CallError> for Remote {
    fn from(_: rpc_core::CallError) -> Self {
        Self
    }
}

fn main() {}
