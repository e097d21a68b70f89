//! Types may come from a macro's fragments, which are invisible groups, and their meaning stays the same.
#![deny(missing_docs, warnings)]

use rpc_core::{Call, Context, service};

macro_rules! declare {
    ($name:ident, $service:literal, $timeout:literal, $argument:ident: $input:ty, $context:ty => $output:ty, $error:ty) => {
        /// A service.
        #[service(name = $service, dyn_trait)]
        pub trait $name {
            /// The fragment is the whole type.
            #[rpc(timeout = $timeout)]
            async fn whole(&self, $argument: $input, context: $context) -> $output;
            /// The fragments are parts of it.
            async fn parts(&self, $argument: Vec<$input>) -> Result<Option<$input>, $error>;
        }
    };
}

declare!(Declared, "declared", "2s", text: String, &Context => Result<u32, u8>, u16);

macro_rules! oneway {
    ($name:ident, $nothing:ty) => {
        /// A one-way service.
        #[service]
        pub trait $name {
            /// A method.
            #[rpc(oneway)]
            async fn tell(&self, n: u32) -> $nothing;
        }
    };
}
oneway!(Ears, ());

macro_rules! borrowed {
    ($name:ident, $context:ty) => {
        /// A service whose context is half a fragment.
        #[service]
        pub trait $name {
            /// A method.
            async fn m(&self, context: &$context) -> u8;
        }
    };
}
borrowed!(Borrowed, Context);

macro_rules! plain {
    ($name:ident, $output:ty) => {
        /// A service.
        #[service]
        pub trait $name {
            /// A method.
            async fn m(&self) -> $output;
        }
    };
}
plain!(Plain, Option<Vec<u8>>);
plain!(Fallible, Result<u32, String>);

macro_rules! twice {
    ($name:ident, $output:ty) => {
        plain!($name, $output);
    };
}
twice!(Twice, Result<u8, String>);

fn calls(declared: &DeclaredClient, ears: &EarsClient, borrowed: &BorrowedClient, plain: &PlainClient, fallible: &FallibleClient, twice: &TwiceClient) {
    let _: Call<u32, u8> = declared.whole(String::new());
    let _: Call<Option<String>, u16> = declared.parts(Vec::new());
    let _: Call<()> = ears.tell(1);
    let _: Call<u8> = borrowed.m();
    let _: Call<Option<Vec<u8>>> = plain.m();
    let _: Call<u32, String> = fallible.m();
    let _: Call<u8, String> = twice.m();
}

fn main() {
    let _ = calls;
}
