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
/// [`Store`] as `dyn DynStore`: every implementation has it, and a box of it is one.
pub trait DynStore: ::core::marker::Send + ::core::marker::Sync + 'static {
    /// As [`Store::put`].
    fn put<'a>(
        &'a self,
        ctx: &'a Context,
        key: String,
        value: Vec<u8>,
    ) -> ::core::pin::Pin<
        ::std::boxed::Box<
            dyn ::core::future::Future<
                Output = Result<(), StoreError>,
            > + ::core::marker::Send + 'a,
        >,
    >;
}
#[allow(deprecated)]
impl<T: Store> DynStore for T {
    fn put<'a>(
        &'a self,
        ctx: &'a Context,
        key: String,
        value: Vec<u8>,
    ) -> ::core::pin::Pin<
        ::std::boxed::Box<
            dyn ::core::future::Future<
                Output = Result<(), StoreError>,
            > + ::core::marker::Send + 'a,
        >,
    > {
        ::std::boxed::Box::pin(<T as Store>::put(self, ctx, key, value))
    }
}
#[allow(deprecated)]
impl Store for ::std::boxed::Box<dyn DynStore> {
    fn put(
        &self,
        ctx: &Context,
        key: String,
        value: Vec<u8>,
    ) -> impl ::core::future::Future<
        Output = Result<(), StoreError>,
    > + ::core::marker::Send {
        async move { <dyn DynStore as DynStore>::put(&**self, ctx, key, value).await }
    }
}
#[allow(deprecated)]
impl Store for ::std::sync::Arc<dyn DynStore> {
    fn put(
        &self,
        ctx: &Context,
        key: String,
        value: Vec<u8>,
    ) -> impl ::core::future::Future<
        Output = Result<(), StoreError>,
    > + ::core::marker::Send {
        async move { <dyn DynStore as DynStore>::put(&**self, ctx, key, value).await }
    }
}
const _: () = {
    static __SERVICE: my::rpc::__private::ServiceDescriptor = my::rpc::__private::ServiceDescriptor {
        name: "store",
        version: 1u32,
        queue: ::core::option::Option::None,
        codec: my::rpc::__private::Codec::MessagePack,
        max_length: ::core::option::Option::None,
        methods: &[my::rpc::__private::MethodDescriptor::new("put", "store.put")],
    };
    #[allow(non_camel_case_types, dead_code)]
    enum __Method {
        put,
    }
    #[allow(deprecated, dead_code)]
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
        /// A client that shares the reply queue of another one, of whatever service.
        pub fn from_client(client: my::rpc::Client) -> Self {
            Self { client }
        }
        /// The untyped client beneath.
        pub fn client(&self) -> &my::rpc::Client {
            &self.client
        }
        /// Calls `put`.
        pub fn put(&self, key: String, value: Vec<u8>) -> my::rpc::Call<(), StoreError> {
            #[::core::prelude::v1::derive(my::rpc::__private::serde::Serialize)]
            #[serde(crate = "my::rpc::__private::serde")]
            struct __Arguments {
                key: String,
                value: Vec<u8>,
            }
            self.client
                .__call_fallible(
                    &__SERVICE,
                    __Method::put as usize,
                    &__Arguments { key, value },
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
    #[allow(deprecated)]
    impl Store for StoreClient {
        fn put(
            &self,
            ctx: &Context,
            key: String,
            value: Vec<u8>,
        ) -> impl ::core::future::Future<
            Output = Result<(), StoreError>,
        > + ::core::marker::Send {
            let _ = ctx;
            let call = StoreClient::put(self, key, value);
            async move {
                match ::core::future::IntoFuture::into_future(call).await {
                    ::core::result::Result::Ok(value) => {
                        ::core::result::Result::Ok(value)
                    }
                    ::core::result::Result::Err(error) => {
                        ::core::result::Result::Err(
                            my::rpc::CallError::into_service(error),
                        )
                    }
                }
            }
        }
    }
    #[allow(dead_code)]
    impl<T> StoreServer<T> {
        /// Serves `service`.
        pub fn new(service: T) -> Self {
            Self {
                service: ::std::sync::Arc::new(service),
            }
        }
        /// Serves an implementation that is used elsewhere too.
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
    #[allow(deprecated)]
    impl<T: Store> my::rpc::__private::Dispatch for StoreServer<T> {
        fn descriptor(&self) -> &'static my::rpc::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: my::rpc::__private::Request,
        ) -> my::rpc::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::put as usize => {
                    #[::core::prelude::v1::derive(
                        my::rpc::__private::serde::Deserialize
                    )]
                    #[serde(crate = "my::rpc::__private::serde")]
                    struct __Arguments {
                        key: String,
                        value: Vec<u8>,
                    }
                    ::std::boxed::Box::pin(async move {
                        let __Arguments { key, value } = match __request.arguments() {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(refused) => return refused,
                        };
                        let __result = <T as Store>::put(
                                &*__service,
                                __request.context(),
                                key,
                                value,
                            )
                            .await;
                        __request.reply_result(&__result)
                    })
                }
                _ => {
                    let _ = __service;
                    __request.unknown_method()
                }
            }
        }
    }
};
