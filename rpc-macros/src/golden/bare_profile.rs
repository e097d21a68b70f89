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
const _: () = {
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "tutorial",
        version: 1u32,
        queue: ::core::option::Option::Some("rpc_queue"),
        codec: ::rpc_core::__private::Codec::Text,
        max_length: ::core::option::Option::None,
        methods: &[::rpc_core::__private::MethodDescriptor::new("fib", "rpc_queue")],
    };
    #[allow(non_camel_case_types, dead_code)]
    enum __Method {
        fib,
    }
    #[allow(deprecated, dead_code)]
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
        /// A client that shares the reply queue of another one, of whatever service.
        pub(crate) fn from_client(client: ::rpc_core::Client) -> Self {
            Self { client }
        }
        /// The untyped client beneath.
        pub(crate) fn client(&self) -> &::rpc_core::Client {
            &self.client
        }
        /// Calls `fib`.
        pub(crate) fn fib(&self, n: u32) -> ::rpc_core::Call<u64> {
            self.client.__call(&__SERVICE, __Method::fib as usize, &n)
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
    #[allow(dead_code)]
    impl<T> TutorialServer<T> {
        /// Serves `service`.
        pub(crate) fn new(service: T) -> Self {
            Self {
                service: ::std::sync::Arc::new(service),
            }
        }
        /// Serves an implementation that is used elsewhere too.
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
    #[allow(deprecated)]
    impl<T: Tutorial> ::rpc_core::__private::Dispatch for TutorialServer<T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::fib as usize => {
                    ::std::boxed::Box::pin(async move {
                        let n: u32 = match __request.arguments() {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(refused) => return refused,
                        };
                        let __result = <T as Tutorial>::fib(&*__service, n).await;
                        __request.reply(&__result)
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
