#[allow(dead_code)]
trait Half: ::core::marker::Send + ::core::marker::Sync + 'static {
    fn good(
        &self,
        n: u32,
    ) -> impl ::core::future::Future<Output = u32> + ::core::marker::Send;
    fn bad(
        &self,
        text: &str,
    ) -> impl ::core::future::Future<Output = u32> + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Half`] in another process. Clones share one reply queue.
struct HalfClient {
    client: ::rpc_core::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Half`] in a worker pool. Clones share it.
struct HalfServer<T> {
    service: ::std::sync::Arc<T>,
}
#[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
const _: () = {
    use ::rpc_core::__private::{NotAResult as _, PlainError as _};
    enum __TypesOf_good {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument",
        expecting = "the argument `n`, in a map or an array"
    )]
    struct __ArgumentsOf_good<A0> {
        n: A0,
    }
    impl ::rpc_core::__private::Method for __TypesOf_good {
        type Arguments = __ArgumentsOf_good<u32>;
        type Ok = u32;
    }
    const _: () = ::core::assert!(
        ! ::rpc_core::__private::Probe:: < u32 > ::IS_RESULT,
        "this is a `Result` under another name: write `Result<T, E>`"
    );
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "half",
        version: 1u32,
        queue: ::core::option::Option::None,
        codec: ::rpc_core::__private::Codec::MessagePack,
        max_length: ::core::option::Option::None,
        max_depth: ::rpc_core::__private::Codec::MAX_DEPTH,
        methods: &[::rpc_core::__private::MethodDescriptor::new("good", "half.good")],
    };
    enum __Method {
        good,
    }
    impl HalfClient {
        /// A client with the default options. Nothing is sent before the first call.
        fn new(connection: &::rpc_core::Connection) -> Self {
            Self {
                client: ::rpc_core::Client::new(connection),
            }
        }
        /// A client with other options.
        fn with_options(
            connection: &::rpc_core::Connection,
            options: ::rpc_core::ClientOptions,
        ) -> Self {
            Self {
                client: ::rpc_core::Client::with_options(connection, options),
            }
        }
        /// A client that shares the reply queue of `client`, which may be another service's.
        fn from_client(client: ::rpc_core::Client) -> Self {
            Self { client }
        }
        /// A client whose calls go to `service` in this process, without a broker: for unit tests.
        fn fake(service: impl Half) -> Self {
            Self {
                client: ::rpc_core::Client::fake(HalfServer::new(service)),
            }
        }
        /// A client whose calls also pass through `layer`, inside of the layers added before.
        fn layer(&self, layer: impl ::rpc_core::layer::RpcLayer) -> Self {
            Self {
                client: self.client.layer(layer),
            }
        }
        /// The client that sends the calls.
        fn client(&self) -> &::rpc_core::Client {
            &self.client
        }
        /// Calls `good`.
        fn good(&self, n: u32) -> ::rpc_core::Call<u32> {
            self.client
                .__call::<
                    __TypesOf_good,
                >(
                    &__SERVICE,
                    __Method::good as ::core::primitive::usize,
                    &__ArgumentsOf_good { n },
                )
        }
    }
    impl ::core::clone::Clone for HalfClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for HalfClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("HalfClient").field("client", &self.client).finish()
        }
    }
    impl<T> HalfServer<T> {
        /// Serves `service`.
        fn new(service: T) -> Self {
            Self {
                service: ::std::sync::Arc::new(service),
            }
        }
        /// Serves an implementation that is shared with other parts of the program.
        fn from_arc(service: ::std::sync::Arc<T>) -> Self {
            Self { service }
        }
    }
    impl<T> ::core::clone::Clone for HalfServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for HalfServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("HalfServer").finish_non_exhaustive()
        }
    }
    impl<__T: Half> ::rpc_core::__private::Sealed for HalfServer<__T> {}
    impl<__T: Half> ::rpc_core::__private::Dispatch for HalfServer<__T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::good as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_good>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Half>::good(&*__service, __arguments.n)
                            .await;
                        __request.reply::<__TypesOf_good>(&__result)
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
::core::compile_error! {
    "an argument is sent to another process and must own its data: write `String`"
}
