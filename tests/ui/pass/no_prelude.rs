//! There may be no prelude.
#![deny(missing_docs, warnings)]

/// A module without one.
pub mod bare {
    #![no_implicit_prelude]

    /// A service.
    #[::rpc_core::service(dyn_trait)]
    pub trait Service {
        /// A method.
        async fn m(&self, ctx: &::rpc_core::Context, n: u8) -> ::core::result::Result<u8, ::std::string::String>;
    }
}

fn main() {}
