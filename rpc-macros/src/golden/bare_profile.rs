#[allow(dead_code)]
pub(crate) trait Tutorial: ::core::marker::Send + ::core::marker::Sync + 'static {
    fn fib(
        &self,
        n: u32,
    ) -> impl ::core::future::Future<Output = u64> + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Tutorial`] in another process. Clones share one reply queue.
pub(crate) struct TutorialClient {
    client: ::rpc_core::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Tutorial`] in a worker pool. Clones share it.
pub(crate) struct TutorialServer<T> {
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
        transparent,
        bound = "A0: ::rpc_core::__private::Argument"
    )]
    struct __ArgumentsOf_fib<A0> {
        n: A0,
    }
    impl ::rpc_core::__private::Method for __TypesOf_fib {
        type Arguments = __ArgumentsOf_fib<u32>;
        type Ok = u64;
    }
    const _: () = ::core::assert!(
        ! ::rpc_core::__private::Probe:: < u64 > ::IS_RESULT,
        "this is a `Result` under another name: write `Result<T, E>`"
    );
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "tutorial",
        version: 1u32,
        queue: ::core::option::Option::Some("rpc_queue"),
        codec: ::rpc_core::__private::Codec::Text,
        max_length: ::core::option::Option::None,
        max_depth: ::rpc_core::__private::Codec::MAX_DEPTH,
        methods: &[::rpc_core::__private::MethodDescriptor::new("fib", "rpc_queue")],
    };
    enum __Method {
        fib,
    }
    impl TutorialClient {
        /// A client with the default options. Nothing is sent before the first call.
        pub(crate) fn new(connection: &::rpc_core::Connection) -> Self {
            Self {
                client: ::rpc_core::Client::new(connection),
            }
        }
        /// A client with other options.
        pub(crate) fn with_options(
            connection: &::rpc_core::Connection,
            options: ::rpc_core::ClientOptions,
        ) -> Self {
            Self {
                client: ::rpc_core::Client::with_options(connection, options),
            }
        }
        /// A client that shares the reply queue of `client`, which may be another service's.
        pub(crate) fn from_client(client: ::rpc_core::Client) -> Self {
            Self { client }
        }
        /// A client whose calls go to `service` in this process, without a broker: for unit tests.
        pub(crate) fn fake(service: impl Tutorial) -> Self {
            Self {
                client: ::rpc_core::Client::fake(TutorialServer::new(service)),
            }
        }
        /// A client whose calls also pass through `layer`, inside of the layers added before.
        pub(crate) fn layer(&self, layer: impl ::rpc_core::layer::RpcLayer) -> Self {
            Self {
                client: self.client.layer(layer),
            }
        }
        /// The client that sends the calls.
        pub(crate) fn client(&self) -> &::rpc_core::Client {
            &self.client
        }
        /// Calls `fib`.
        pub(crate) fn fib(&self, n: u32) -> ::rpc_core::Call<u64> {
            self.client
                .__call::<
                    __TypesOf_fib,
                >(
                    &__SERVICE,
                    __Method::fib as ::core::primitive::usize,
                    &__ArgumentsOf_fib { n },
                )
        }
    }
    impl ::core::clone::Clone for TutorialClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for TutorialClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("TutorialClient").field("client", &self.client).finish()
        }
    }
    impl<T> TutorialServer<T> {
        /// Serves `service`.
        pub(crate) fn new(service: T) -> Self {
            Self {
                service: ::std::sync::Arc::new(service),
            }
        }
        /// Serves an implementation that is shared with other parts of the program.
        pub(crate) fn from_arc(service: ::std::sync::Arc<T>) -> Self {
            Self { service }
        }
    }
    impl<T> ::core::clone::Clone for TutorialServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for TutorialServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("TutorialServer").finish_non_exhaustive()
        }
    }
    impl<__T: Tutorial> ::rpc_core::__private::Sealed for TutorialServer<__T> {}
    impl<__T: Tutorial> ::rpc_core::__private::Dispatch for TutorialServer<__T> {
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
                        let __result = <__T as Tutorial>::fib(&*__service, __arguments.n)
                            .await;
                        __request.reply::<__TypesOf_fib>(&__result)
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
