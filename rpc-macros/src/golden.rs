//! Expansions as golden files: they show what the attribute generates.
//!
//! `UPDATE_GOLDEN=1 cargo test -p rpc-macros` rewrites them.

use std::{fs, path::PathBuf};

use quote::quote;

fn check(name: &str, arguments: proc_macro2::TokenStream, item: &proc_macro2::TokenStream) {
    compare(name, crate::service_tokens(arguments, item));
}

fn compare(name: &str, expanded: proc_macro2::TokenStream) {
    let file = syn::parse2(expanded).unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = prettyplease::unparse(&file);
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "src", "golden", &format!("{name}.rs")].iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs; UPDATE_GOLDEN=1 rewrites it. The expansion is now:\n{text}", path.display());
}

#[test]
fn fibonacci() {
    check(
        "fibonacci",
        quote!(),
        &quote! {
            /// Fibonacci numbers.
            pub trait Fibonacci {
                /// The n-th Fibonacci number.
                #[rpc(idempotent, timeout = "2s")]
                async fn fib(&self, n: u32) -> Result<u64, FibError>;
            }
        },
    );
}

#[test]
fn every_method_option() {
    check(
        "every_method_option",
        quote!(name = "jobs", version = 3, codec = "json", max_length = 500),
        &quote! {
            trait Jobs {
                #[rpc(name = "start", alias = "run", alias = "begin", idempotent, hedge, priority = 7, queue = "slow")]
                async fn start_job(&self, ctx: &Context, name: String, arguments: Vec<HashMap<String, u8>>) -> u64;
                #[rpc(oneway)]
                async fn stop(&self, id: u64, #[rpc(default)] force: bool);
                #[rpc(blocking, no_cancel)]
                #[deprecated]
                async fn crunch(&self) -> Vec<u8> {
                    let nothing = Vec::new();
                    nothing
                }
                #[cfg(unix)]
                async fn r#type(&self, r#ref: u8) -> ();
            }
        },
    );
}

#[test]
fn bare_profile() {
    check(
        "bare_profile",
        quote!(queue = "rpc_queue"),
        &quote! {
            pub(crate) trait Tutorial {
                async fn fib(&self, n: u32) -> u64;
            }
        },
    );
}

#[test]
fn client_impls_trait_and_dyn_trait() {
    check(
        "client_impls_trait_and_dyn_trait",
        quote!(client_impls_trait, dyn_trait, crate = "my::rpc"),
        &quote! {
            pub trait Store {
                async fn put(&self, ctx: &Context, key: String, value: Vec<u8>) -> Result<(), StoreError>;
            }
        },
    );
}

#[test]
fn a_mistake_in_one_method_leaves_the_others() {
    check(
        "a_mistake_in_one_method_leaves_the_others",
        quote!(),
        &quote! {
            trait Half {
                async fn good(&self, n: u32) -> u32;
                async fn bad(&self, text: &str) -> u32;
            }
        },
    );
}

#[test]
fn an_alias_of_result() {
    check(
        "an_alias_of_result",
        quote!(),
        &quote! {
            trait Aliased {
                async fn m(&self, context: tax::Context) -> crate::Result<u8>;
            }
        },
    );
}

#[test]
fn oneway_results() {
    check(
        "oneway_results",
        quote!(client_impls_trait),
        &quote! {
            trait Parcels {
                #[rpc(oneway)]
                async fn ship(&self, parcel: u64) -> Result<(), ShipError>;
                #[rpc(oneway)]
                async fn lose(&self, parcel: u64) -> anyhow::Result<()>;
            }
        },
    );
}

#[test]
fn service_error() {
    compare(
        "service_error",
        crate::service_error_tokens(quote! {
            #[rpc(crate = "my::rpc")]
            pub enum StockError {
                TooFew { left: u32 },
                #[rpc(code = "stocktaking", retry_after = "2s")]
                Counting,
                #[rpc(retryable)]
                Busy(String),
            }
        }),
    );
}
