#[allow(dead_code)]
trait Parcels: ::core::marker::Send + ::core::marker::Sync + 'static {
    fn ship(
        &self,
        parcel: u64,
    ) -> impl ::core::future::Future<
        Output = Result<(), ShipError>,
    > + ::core::marker::Send;
    fn lose(
        &self,
        parcel: u64,
    ) -> impl ::core::future::Future<Output = anyhow::Result<()>> + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Parcels`] in another process. Clones share one reply queue.
struct ParcelsClient {
    client: ::rpc_core::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Parcels`] in a worker pool. Clones share it.
struct ParcelsServer<T> {
    service: ::std::sync::Arc<T>,
}
#[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
const _: () = {
    use ::rpc_core::__private::{NotAResult as _, PlainError as _};
    enum __TypesOf_ship {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument",
        expecting = "the argument `parcel`, in a map or an array"
    )]
    struct __ArgumentsOf_ship<A0> {
        parcel: A0,
    }
    impl ::rpc_core::__private::Method for __TypesOf_ship {
        type Arguments = __ArgumentsOf_ship<u64>;
        type Ok = ();
    }
    impl ::rpc_core::__private::FallibleOneway for __TypesOf_ship {
        type Error = ShipError;
        const ERROR: ::rpc_core::__private::ErrorType<Self::Error> = ::rpc_core::__private::ErrorProbe::<
            Self::Error,
        >::TYPE;
    }
    enum __TypesOf_lose {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument",
        expecting = "the argument `parcel`, in a map or an array"
    )]
    struct __ArgumentsOf_lose<A0> {
        parcel: A0,
    }
    impl ::rpc_core::__private::Method for __TypesOf_lose {
        type Arguments = __ArgumentsOf_lose<u64>;
        type Ok = ();
    }
    impl ::rpc_core::__private::FallibleOneway for __TypesOf_lose {
        type Error = <anyhow::Result<
            (),
        > as ::rpc_core::__private::Sides<
            { ::rpc_core::__private::Probe::<anyhow::Result<()>>::IS_RESULT },
        >>::Error;
        const ERROR: ::rpc_core::__private::ErrorType<Self::Error> = ::rpc_core::__private::ErrorProbe::<
            Self::Error,
        >::TYPE;
    }
    const _: () = ::core::assert!(
        ::rpc_core::__private::Probe:: < anyhow::Result < () > > ::IS_RESULT,
        "this type is called `Result`, but it is another one: write `Result<T, E>`, or give the type another name"
    );
    const _: () = ::core::assert!(
        ::rpc_core::__private::Probe:: < anyhow::Result < () > > ::IS_WITHOUT_VALUE || !
        ::rpc_core::__private::Probe:: < anyhow::Result < () > > ::IS_RESULT,
        "a one-way method has no reply: return nothing, or `Result<(), E>`"
    );
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "parcels",
        version: 1u32,
        queue: ::core::option::Option::None,
        codec: ::rpc_core::__private::Codec::MessagePack,
        max_length: ::core::option::Option::None,
        max_depth: ::rpc_core::__private::Codec::MAX_DEPTH,
        methods: &[
            ::rpc_core::__private::MethodDescriptor {
                oneway: true,
                error_codes: ::rpc_core::__private::oneway_error_codes::<
                    __TypesOf_ship,
                >(),
                ..::rpc_core::__private::MethodDescriptor::new("ship", "parcels.ship")
            },
            ::rpc_core::__private::MethodDescriptor {
                oneway: true,
                error_codes: ::rpc_core::__private::oneway_error_codes::<
                    __TypesOf_lose,
                >(),
                ..::rpc_core::__private::MethodDescriptor::new("lose", "parcels.lose")
            },
        ],
    };
    enum __Method {
        ship,
        lose,
    }
    impl ParcelsClient {
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
        fn fake(service: impl Parcels) -> Self {
            Self {
                client: ::rpc_core::Client::fake(ParcelsServer::new(service)),
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
        /// Calls `ship`.
        fn ship(&self, parcel: u64) -> ::rpc_core::Call<()> {
            self.client
                .__call::<
                    __TypesOf_ship,
                >(
                    &__SERVICE,
                    __Method::ship as ::core::primitive::usize,
                    &__ArgumentsOf_ship { parcel },
                )
        }
        /// Calls `lose`.
        fn lose(&self, parcel: u64) -> ::rpc_core::Call<()> {
            self.client
                .__call::<
                    __TypesOf_lose,
                >(
                    &__SERVICE,
                    __Method::lose as ::core::primitive::usize,
                    &__ArgumentsOf_lose { parcel },
                )
        }
    }
    impl ::core::clone::Clone for ParcelsClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for ParcelsClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("ParcelsClient").field("client", &self.client).finish()
        }
    }
    impl Parcels for ParcelsClient {
        async fn ship(&self, parcel: u64) -> Result<(), ShipError> {
            ParcelsClient::ship(self, parcel).await.map_err(::core::convert::From::from)
        }
        async fn lose(&self, parcel: u64) -> anyhow::Result<()> {
            ParcelsClient::lose(self, parcel).await.map_err(::core::convert::From::from)
        }
    }
    impl<T> ParcelsServer<T> {
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
    impl<T> ::core::clone::Clone for ParcelsServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for ParcelsServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("ParcelsServer").finish_non_exhaustive()
        }
    }
    impl<__T: Parcels> ::rpc_core::__private::Sealed for ParcelsServer<__T> {}
    impl<__T: Parcels> ::rpc_core::__private::Dispatch for ParcelsServer<__T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::ship as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_ship>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Parcels>::ship(
                                &*__service,
                                __arguments.parcel,
                            )
                            .await;
                        __request
                            .done_or_failed::<
                                __TypesOf_ship,
                                _,
                            >(::core::result::Result::as_ref(&__result))
                    })
                }
                __method if __method == __Method::lose as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_lose>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Parcels>::lose(
                                &*__service,
                                __arguments.parcel,
                            )
                            .await;
                        __request
                            .done_or_failed::<
                                __TypesOf_lose,
                                _,
                            >(
                                <anyhow::Result<
                                    (),
                                > as ::rpc_core::__private::Sides<
                                    {
                                        ::rpc_core::__private::Probe::<
                                            anyhow::Result<()>,
                                        >::IS_RESULT
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
    fn parcel() {}
};
