//! A fragment hides no `Result` under another name.

use rpc_core::service;

type Outcome = Result<u8, String>;

macro_rules! declare {
    ($name:ident, $output:ty) => {
        #[service]
        trait $name {
            async fn m(&self) -> $output;
        }
    };
}

declare!(Hidden, Outcome);

fn main() {}
