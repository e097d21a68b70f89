#[allow(dead_code)]
/// Fibonacci numbers.
pub trait Fibonacci: ::core::marker::Send + ::core::marker::Sync + 'static {
    /// The n-th Fibonacci number.
    fn fib(
        &self,
        n: u32,
    ) -> impl ::core::future::Future<
        Output = Result<u64, FibError>,
    > + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Fibonacci`] in another process. Clones share one reply queue.
pub struct FibonacciClient {
    client: ::rpc_core::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Fibonacci`] in a worker pool. Clones share it.
pub struct FibonacciServer<T> {
    service: ::std::sync::Arc<T>,
}
#[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
const _: () = {
    use ::rpc_core::__private::{NotAResult as _, PlainError as _};
    enum __TypesOf_fib {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument",
        expecting = "the argument `n`, in a map or an array"
    )]
    struct __ArgumentsOf_fib<A0> {
        n: A0,
    }
    impl ::rpc_core::__private::Method for __TypesOf_fib {
        type Arguments = __ArgumentsOf_fib<u32>;
        type Ok = u64;
    }
    impl ::rpc_core::__private::FallibleMethod for __TypesOf_fib {
        type Error = FibError;
        const ERROR: ::rpc_core::__private::ErrorType<Self::Error> = ::rpc_core::__private::ErrorProbe::<
            Self::Error,
        >::TYPE;
    }
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "fibonacci",
        version: 1u32,
        queue: ::core::option::Option::None,
        codec: ::rpc_core::__private::Codec::MessagePack,
        max_length: ::core::option::Option::None,
        max_depth: ::rpc_core::__private::Codec::MAX_DEPTH,
        methods: &[
            ::rpc_core::__private::MethodDescriptor {
                timeout: ::core::option::Option::Some(
                    ::core::time::Duration::from_millis(2000u64),
                ),
                idempotent: true,
                error_codes: ::rpc_core::__private::error_codes::<__TypesOf_fib>(),
                ..::rpc_core::__private::MethodDescriptor::new("fib", "fibonacci.fib")
            },
        ],
    };
    enum __Method {
        fib,
    }
    impl FibonacciClient {
        /// A client with the default options. Nothing is sent before the first call.
        pub fn new(connection: &::rpc_core::Connection) -> Self {
            Self {
                client: ::rpc_core::Client::new(connection),
            }
        }
        /// A client with other options.
        pub fn with_options(
            connection: &::rpc_core::Connection,
            options: ::rpc_core::ClientOptions,
        ) -> Self {
            Self {
                client: ::rpc_core::Client::with_options(connection, options),
            }
        }
        /// A client that shares the reply queue of `client`, which may be another service's.
        pub fn from_client(client: ::rpc_core::Client) -> Self {
            Self { client }
        }
        /// A client whose calls go to `service` in this process, without a broker: for unit tests.
        pub fn fake(service: impl Fibonacci) -> Self {
            Self {
                client: ::rpc_core::Client::fake(FibonacciServer::new(service)),
            }
        }
        /// A client whose calls also pass through `layer`, inside of the layers added before.
        pub fn layer(&self, layer: impl ::rpc_core::layer::RpcLayer) -> Self {
            Self {
                client: self.client.layer(layer),
            }
        }
        /// The client that sends the calls.
        pub fn client(&self) -> &::rpc_core::Client {
            &self.client
        }
        /// The n-th Fibonacci number.
        pub fn fib(&self, n: u32) -> ::rpc_core::Call<u64, FibError> {
            self.client
                .__call_fallible::<
                    __TypesOf_fib,
                >(
                    &__SERVICE,
                    __Method::fib as ::core::primitive::usize,
                    &__ArgumentsOf_fib { n },
                )
        }
    }
    impl ::core::clone::Clone for FibonacciClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for FibonacciClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("FibonacciClient").field("client", &self.client).finish()
        }
    }
    impl<T> FibonacciServer<T> {
        /// Serves `service`.
        pub fn new(service: T) -> Self {
            Self {
                service: ::std::sync::Arc::new(service),
            }
        }
        /// Serves an implementation that is shared with other parts of the program.
        pub fn from_arc(service: ::std::sync::Arc<T>) -> Self {
            Self { service }
        }
    }
    impl<T> ::core::clone::Clone for FibonacciServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for FibonacciServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("FibonacciServer").finish_non_exhaustive()
        }
    }
    impl<__T: Fibonacci> ::rpc_core::__private::Sealed for FibonacciServer<__T> {}
    impl<__T: Fibonacci> ::rpc_core::__private::Dispatch for FibonacciServer<__T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::fib as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_fib>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Fibonacci>::fib(
                                &*__service,
                                __arguments.n,
                            )
                            .await;
                        __request.reply_result::<__TypesOf_fib>(&__result)
                    })
                }
                _ => {
                    let _ = __service;
                    __request.unknown_method()
                }
            }
        }
    }
    use ::rpc_core::__private::parameters::*;
    fn n() {}
};
