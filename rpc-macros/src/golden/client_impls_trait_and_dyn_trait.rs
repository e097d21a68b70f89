#[allow(dead_code)]
pub trait Store: ::core::marker::Send + ::core::marker::Sync + 'static {
    fn put(
        &self,
        ctx: &Context,
        key: String,
        value: Vec<u8>,
    ) -> impl ::core::future::Future<
        Output = Result<(), StoreError>,
    > + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Store`] in another process. Clones share one reply queue.
pub struct StoreClient {
    client: my::rpc::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Store`] in a worker pool. Clones share it.
pub struct StoreServer<T> {
    service: ::std::sync::Arc<T>,
}
#[allow(unused_imports)]
use my::rpc::__private::async_trait_prelude::*;
/// [`Store`] as an object-safe trait: every implementation of [`Store`] implements it, and `Box<dyn DynStore>` and `Arc<dyn DynStore>` implement [`Store`].
#[my::rpc::__private::async_trait]
pub trait DynStore: ::core::marker::Send + ::core::marker::Sync + 'static {
    /// As [`Store::put`].
    async fn put(
        &self,
        ctx: &Context,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), StoreError>;
}
#[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
const _: () = {
    use my::rpc::__private::{NotAResult as _, PlainError as _};
    enum __TypesOf_put {}
    #[::core::prelude::v1::derive(
        my::rpc::__private::serde::Serialize,
        my::rpc::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "my::rpc::__private::serde",
        bound = "A0: my::rpc::__private::Argument, A1: my::rpc::__private::Argument",
        expecting = "the arguments `key`, `value`, by name in a map or in this order in an array"
    )]
    struct __ArgumentsOf_put<A0, A1> {
        key: A0,
        value: A1,
    }
    impl my::rpc::__private::Method for __TypesOf_put {
        type Arguments = __ArgumentsOf_put<String, Vec<u8>>;
        type Ok = ();
    }
    impl my::rpc::__private::FallibleMethod for __TypesOf_put {
        type Error = StoreError;
        const ERROR: my::rpc::__private::ErrorType<Self::Error> = my::rpc::__private::ErrorProbe::<
            Self::Error,
        >::TYPE;
    }
    static __SERVICE: my::rpc::__private::ServiceDescriptor = my::rpc::__private::ServiceDescriptor {
        name: "store",
        version: 1u32,
        queue: ::core::option::Option::None,
        codec: my::rpc::__private::Codec::MessagePack,
        max_length: ::core::option::Option::None,
        max_depth: my::rpc::__private::Codec::MAX_DEPTH,
        methods: &[
            my::rpc::__private::MethodDescriptor {
                error_codes: my::rpc::__private::error_codes::<__TypesOf_put>(),
                ..my::rpc::__private::MethodDescriptor::new("put", "store.put")
            },
        ],
    };
    enum __Method {
        put,
    }
    impl StoreClient {
        /// A client with the default options. Nothing is sent before the first call.
        pub fn new(connection: &my::rpc::Connection) -> Self {
            Self {
                client: my::rpc::Client::new(connection),
            }
        }
        /// A client with other options.
        pub fn with_options(
            connection: &my::rpc::Connection,
            options: my::rpc::ClientOptions,
        ) -> Self {
            Self {
                client: my::rpc::Client::with_options(connection, options),
            }
        }
        /// A client that shares the reply queue of `client`, which may be another service's.
        pub fn from_client(client: my::rpc::Client) -> Self {
            Self { client }
        }
        /// A client whose calls go to `service` in this process, without a broker: for unit tests.
        pub fn fake(service: impl Store) -> Self {
            Self {
                client: my::rpc::Client::fake(StoreServer::new(service)),
            }
        }
        /// A client whose calls also pass through `layer`, inside of the layers added before.
        pub fn layer(&self, layer: impl my::rpc::layer::RpcLayer) -> Self {
            Self {
                client: self.client.layer(layer),
            }
        }
        /// The client that sends the calls.
        pub fn client(&self) -> &my::rpc::Client {
            &self.client
        }
        /// Calls `put`.
        pub fn put(&self, key: String, value: Vec<u8>) -> my::rpc::Call<(), StoreError> {
            self.client
                .__call_fallible::<
                    __TypesOf_put,
                >(
                    &__SERVICE,
                    __Method::put as ::core::primitive::usize,
                    &__ArgumentsOf_put { key, value },
                )
        }
    }
    impl ::core::clone::Clone for StoreClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for StoreClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("StoreClient").field("client", &self.client).finish()
        }
    }
    impl Store for StoreClient {
        async fn put(
            &self,
            ctx: &Context,
            key: String,
            value: Vec<u8>,
        ) -> Result<(), StoreError> {
            let _ = ctx;
            StoreClient::put(self, key, value)
                .await
                .map_err(my::rpc::CallError::into_service)
        }
    }
    impl<T> StoreServer<T> {
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
    impl<T> ::core::clone::Clone for StoreServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for StoreServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("StoreServer").finish_non_exhaustive()
        }
    }
    impl<__T: Store> my::rpc::__private::Sealed for StoreServer<__T> {}
    impl<__T: Store> my::rpc::__private::Dispatch for StoreServer<__T> {
        fn descriptor(&self) -> &'static my::rpc::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: my::rpc::__private::Request,
        ) -> my::rpc::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::put as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_put>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Store>::put(
                                &*__service,
                                __request.context(),
                                __arguments.key,
                                __arguments.value,
                            )
                            .await;
                        __request.reply_result::<__TypesOf_put>(&__result)
                    })
                }
                _ => {
                    let _ = __service;
                    __request.unknown_method()
                }
            }
        }
    }
    #[my::rpc::__private::async_trait]
    impl<__T: Store> DynStore for __T {
        async fn put(
            &self,
            ctx: &Context,
            key: String,
            value: Vec<u8>,
        ) -> Result<(), StoreError> {
            <__T as Store>::put(self, ctx, key, value).await
        }
    }
    impl Store for ::std::boxed::Box<dyn DynStore> {
        async fn put(
            &self,
            ctx: &Context,
            key: String,
            value: Vec<u8>,
        ) -> Result<(), StoreError> {
            <dyn DynStore as DynStore>::put(&**self, ctx, key, value).await
        }
    }
    impl Store for ::std::sync::Arc<dyn DynStore> {
        async fn put(
            &self,
            ctx: &Context,
            key: String,
            value: Vec<u8>,
        ) -> Result<(), StoreError> {
            <dyn DynStore as DynStore>::put(&**self, ctx, key, value).await
        }
    }
    use my::rpc::__private::parameters::*;
    fn ctx() {}
    fn key() {}
    fn value() {}
};
