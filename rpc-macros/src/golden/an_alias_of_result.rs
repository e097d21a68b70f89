#[allow(dead_code)]
trait Aliased: ::core::marker::Send + ::core::marker::Sync + 'static {
    fn m(
        &self,
        context: tax::Context,
    ) -> impl ::core::future::Future<Output = crate::Result<u8>> + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Aliased`] in another process. Clones share one reply queue.
struct AliasedClient {
    client: ::rpc_core::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Aliased`] in a worker pool. Clones share it.
struct AliasedServer<T> {
    service: ::std::sync::Arc<T>,
}
#[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
const _: () = {
    use ::rpc_core::__private::{NotAResult as _, PlainError as _};
    enum __TypesOf_m {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::ContextArgument",
        expecting = "the argument `context`, in a map or an array"
    )]
    struct __ArgumentsOf_m<A0> {
        context: A0,
    }
    impl ::rpc_core::__private::Method for __TypesOf_m {
        type Arguments = __ArgumentsOf_m<tax::Context>;
        type Ok = <crate::Result<
            u8,
        > as ::rpc_core::__private::Sides<
            { ::rpc_core::__private::Probe::<crate::Result<u8>>::IS_RESULT },
        >>::Ok;
    }
    impl ::rpc_core::__private::FallibleMethod for __TypesOf_m {
        type Error = <crate::Result<
            u8,
        > as ::rpc_core::__private::Sides<
            { ::rpc_core::__private::Probe::<crate::Result<u8>>::IS_RESULT },
        >>::Error;
        const ERROR: ::rpc_core::__private::ErrorType<Self::Error> = ::rpc_core::__private::ErrorProbe::<
            Self::Error,
        >::TYPE;
    }
    const _: () = ::core::assert!(
        ::rpc_core::__private::Probe:: < crate ::Result < u8 > > ::IS_RESULT,
        "this type is called `Result`, but it is another one: write `Result<T, E>`, or give the type another name"
    );
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "aliased",
        version: 1u32,
        queue: ::core::option::Option::None,
        codec: ::rpc_core::__private::Codec::MessagePack,
        max_length: ::core::option::Option::None,
        max_depth: ::rpc_core::__private::Codec::MAX_DEPTH,
        methods: &[
            ::rpc_core::__private::MethodDescriptor {
                error_codes: ::rpc_core::__private::error_codes::<__TypesOf_m>(),
                ..::rpc_core::__private::MethodDescriptor::new("m", "aliased.m")
            },
        ],
    };
    enum __Method {
        m,
    }
    impl AliasedClient {
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
        fn fake(service: impl Aliased) -> Self {
            Self {
                client: ::rpc_core::Client::fake(AliasedServer::new(service)),
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
        /// Calls `m`.
        fn m(
            &self,
            context: tax::Context,
        ) -> ::rpc_core::Call<
            <crate::Result<
                u8,
            > as ::rpc_core::__private::Sides<
                { ::rpc_core::__private::Probe::<crate::Result<u8>>::IS_RESULT },
            >>::Ok,
            <crate::Result<
                u8,
            > as ::rpc_core::__private::Sides<
                { ::rpc_core::__private::Probe::<crate::Result<u8>>::IS_RESULT },
            >>::Error,
        > {
            self.client
                .__call_fallible::<
                    __TypesOf_m,
                >(
                    &__SERVICE,
                    __Method::m as ::core::primitive::usize,
                    &__ArgumentsOf_m { context },
                )
        }
    }
    impl ::core::clone::Clone for AliasedClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for AliasedClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("AliasedClient").field("client", &self.client).finish()
        }
    }
    impl<T> AliasedServer<T> {
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
    impl<T> ::core::clone::Clone for AliasedServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for AliasedServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("AliasedServer").finish_non_exhaustive()
        }
    }
    impl<__T: Aliased> ::rpc_core::__private::Sealed for AliasedServer<__T> {}
    impl<__T: Aliased> ::rpc_core::__private::Dispatch for AliasedServer<__T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::m as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_m>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Aliased>::m(
                                &*__service,
                                __arguments.context,
                            )
                            .await;
                        __request
                            .reply_sides::<
                                __TypesOf_m,
                            >(
                                <crate::Result<
                                    u8,
                                > as ::rpc_core::__private::Sides<
                                    {
                                        ::rpc_core::__private::Probe::<crate::Result<u8>>::IS_RESULT
                                    },
                                >>::sides(&__result),
                            )
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
    fn context() {}
};
