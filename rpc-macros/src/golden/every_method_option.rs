#[allow(dead_code)]
trait Jobs: ::core::marker::Send + ::core::marker::Sync + 'static {
    fn start_job(
        &self,
        ctx: &Context,
        name: String,
        arguments: Vec<HashMap<String, u8>>,
    ) -> impl ::core::future::Future<Output = u64> + ::core::marker::Send;
    fn stop(
        &self,
        id: u64,
    ) -> impl ::core::future::Future<Output = ()> + ::core::marker::Send;
    #[deprecated]
    fn crunch(
        &self,
    ) -> impl ::core::future::Future<Output = Vec<u8>> + ::core::marker::Send {
        async move {
            let nothing = Vec::new();
            nothing
        }
    }
    #[cfg(unix)]
    fn r#type(
        &self,
        r#ref: u8,
    ) -> impl ::core::future::Future<Output = ()> + ::core::marker::Send;
}
#[allow(dead_code)]
/// Calls [`Jobs`] in another process. Clones share one reply queue.
struct JobsClient {
    client: ::rpc_core::Client,
}
#[allow(dead_code)]
/// Serves an implementation of [`Jobs`] in a worker pool. Clones share it.
struct JobsServer<T> {
    service: ::std::sync::Arc<T>,
}
const _: () = {
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "jobs",
        version: 3u32,
        queue: ::core::option::Option::None,
        codec: ::rpc_core::__private::Codec::Json,
        max_length: ::core::option::Option::Some(500u32),
        methods: &[
            ::rpc_core::__private::MethodDescriptor {
                aliases: &["run", "begin"],
                queue: ::core::option::Option::Some("slow"),
                priority: ::core::option::Option::Some(7u8),
                ..::rpc_core::__private::MethodDescriptor::new(
                    "start",
                    "jobs.slow.start",
                )
            },
            ::rpc_core::__private::MethodDescriptor {
                oneway: true,
                ..::rpc_core::__private::MethodDescriptor::new("stop", "jobs.stop")
            },
            ::rpc_core::__private::MethodDescriptor {
                blocking: true,
                no_cancel: true,
                ..::rpc_core::__private::MethodDescriptor::new("crunch", "jobs.crunch")
            },
            #[cfg(unix)]
            ::rpc_core::__private::MethodDescriptor::new("type", "jobs.type"),
        ],
    };
    #[allow(non_camel_case_types, dead_code)]
    enum __Method {
        start_job,
        stop,
        crunch,
        #[cfg(unix)]
        r#type,
    }
    #[allow(deprecated, dead_code)]
    impl JobsClient {
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
        /// A client that shares the reply queue of another one, of whatever service.
        fn from_client(client: ::rpc_core::Client) -> Self {
            Self { client }
        }
        /// The untyped client beneath.
        fn client(&self) -> &::rpc_core::Client {
            &self.client
        }
        /// Calls `start`.
        fn start_job(
            &self,
            name: String,
            arguments: Vec<HashMap<String, u8>>,
        ) -> ::rpc_core::Call<u64> {
            #[::core::prelude::v1::derive(::rpc_core::__private::serde::Serialize)]
            #[serde(crate = "::rpc_core::__private::serde")]
            struct __Arguments {
                name: String,
                arguments: Vec<HashMap<String, u8>>,
            }
            self.client
                .__call(
                    &__SERVICE,
                    __Method::start_job as usize,
                    &__Arguments { name, arguments },
                )
        }
        /// Calls `stop`.
        fn stop(&self, id: u64) -> ::rpc_core::Call<()> {
            #[::core::prelude::v1::derive(::rpc_core::__private::serde::Serialize)]
            #[serde(crate = "::rpc_core::__private::serde")]
            struct __Arguments {
                id: u64,
            }
            self.client.__call(&__SERVICE, __Method::stop as usize, &__Arguments { id })
        }
        /// Calls `crunch`.
        #[deprecated]
        fn crunch(&self) -> ::rpc_core::Call<Vec<u8>> {
            #[::core::prelude::v1::derive(::rpc_core::__private::serde::Serialize)]
            #[serde(crate = "::rpc_core::__private::serde")]
            struct __Arguments {}
            self.client.__call(&__SERVICE, __Method::crunch as usize, &__Arguments {})
        }
        /// Calls `type`.
        #[cfg(unix)]
        fn r#type(&self, r#ref: u8) -> ::rpc_core::Call<()> {
            #[::core::prelude::v1::derive(::rpc_core::__private::serde::Serialize)]
            #[serde(crate = "::rpc_core::__private::serde")]
            struct __Arguments {
                r#ref: u8,
            }
            self.client
                .__call(&__SERVICE, __Method::r#type as usize, &__Arguments { r#ref })
        }
    }
    impl ::core::clone::Clone for JobsClient {
        fn clone(&self) -> Self {
            Self {
                client: ::core::clone::Clone::clone(&self.client),
            }
        }
    }
    impl ::core::fmt::Debug for JobsClient {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("JobsClient").field("client", &self.client).finish()
        }
    }
    #[allow(dead_code)]
    impl<T> JobsServer<T> {
        /// Serves `service`.
        fn new(service: T) -> Self {
            Self {
                service: ::std::sync::Arc::new(service),
            }
        }
        /// Serves an implementation that is used elsewhere too.
        fn from_arc(service: ::std::sync::Arc<T>) -> Self {
            Self { service }
        }
    }
    impl<T> ::core::clone::Clone for JobsServer<T> {
        fn clone(&self) -> Self {
            Self {
                service: ::core::clone::Clone::clone(&self.service),
            }
        }
    }
    impl<T> ::core::fmt::Debug for JobsServer<T> {
        fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
            f.debug_struct("JobsServer").finish_non_exhaustive()
        }
    }
    #[allow(deprecated)]
    impl<T: Jobs> ::rpc_core::__private::Dispatch for JobsServer<T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method == __Method::start_job as usize => {
                    #[::core::prelude::v1::derive(
                        ::rpc_core::__private::serde::Deserialize
                    )]
                    #[serde(crate = "::rpc_core::__private::serde")]
                    struct __Arguments {
                        name: String,
                        arguments: Vec<HashMap<String, u8>>,
                    }
                    ::std::boxed::Box::pin(async move {
                        let __Arguments { name, arguments } = match __request.arguments()
                        {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(refused) => return refused,
                        };
                        let __result = <T as Jobs>::start_job(
                                &*__service,
                                __request.context(),
                                name,
                                arguments,
                            )
                            .await;
                        __request.reply(&__result)
                    })
                }
                __method if __method == __Method::stop as usize => {
                    #[::core::prelude::v1::derive(
                        ::rpc_core::__private::serde::Deserialize
                    )]
                    #[serde(crate = "::rpc_core::__private::serde")]
                    struct __Arguments {
                        id: u64,
                    }
                    ::std::boxed::Box::pin(async move {
                        let __Arguments { id } = match __request.arguments() {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(refused) => return refused,
                        };
                        <T as Jobs>::stop(&*__service, id).await;
                        __request.done()
                    })
                }
                __method if __method == __Method::crunch as usize => {
                    #[::core::prelude::v1::derive(
                        ::rpc_core::__private::serde::Deserialize
                    )]
                    #[serde(crate = "::rpc_core::__private::serde")]
                    struct __Arguments {}
                    ::rpc_core::__private::blocking(async move {
                        let __Arguments {} = match __request.arguments() {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(refused) => return refused,
                        };
                        let __result = <T as Jobs>::crunch(&*__service).await;
                        __request.reply(&__result)
                    })
                }
                #[cfg(unix)]
                __method if __method == __Method::r#type as usize => {
                    #[::core::prelude::v1::derive(
                        ::rpc_core::__private::serde::Deserialize
                    )]
                    #[serde(crate = "::rpc_core::__private::serde")]
                    struct __Arguments {
                        r#ref: u8,
                    }
                    ::std::boxed::Box::pin(async move {
                        let __Arguments { r#ref } = match __request.arguments() {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(refused) => return refused,
                        };
                        let __result = <T as Jobs>::r#type(&*__service, r#ref).await;
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
