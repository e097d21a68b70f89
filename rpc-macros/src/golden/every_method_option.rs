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
        force: bool,
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
#[allow(deprecated, dead_code, non_camel_case_types, non_snake_case, unused_imports)]
const _: () = {
    use ::rpc_core::__private::{NotAResult as _, PlainError as _};
    enum __TypesOf_start_job {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument, A1: ::rpc_core::__private::Argument",
        expecting = "the arguments `name`, `arguments`, by name in a map or in this order in an array"
    )]
    struct __ArgumentsOf_start_job<A0, A1> {
        name: A0,
        arguments: A1,
    }
    impl ::rpc_core::__private::Method for __TypesOf_start_job {
        type Arguments = __ArgumentsOf_start_job<String, Vec<HashMap<String, u8>>>;
        type Ok = u64;
    }
    const _: () = ::core::assert!(
        ! ::rpc_core::__private::Probe:: < u64 > ::IS_RESULT,
        "this is a `Result` under another name: write `Result<T, E>`"
    );
    enum __TypesOf_stop {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument, A1: ::rpc_core::__private::Argument + ::core::default::Default",
        expecting = "the arguments `id`, `force`, by name in a map or in this order in an array"
    )]
    struct __ArgumentsOf_stop<A0, A1> {
        id: A0,
        #[serde(default)]
        force: A1,
    }
    impl ::rpc_core::__private::Method for __TypesOf_stop {
        type Arguments = __ArgumentsOf_stop<u64, bool>;
        type Ok = ();
    }
    enum __TypesOf_crunch {}
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "",
        expecting = "no arguments"
    )]
    struct __ArgumentsOf_crunch {}
    impl ::rpc_core::__private::Method for __TypesOf_crunch {
        type Arguments = __ArgumentsOf_crunch;
        type Ok = Vec<u8>;
    }
    const _: () = ::core::assert!(
        ! ::rpc_core::__private::Probe:: < Vec < u8 > > ::IS_RESULT,
        "this is a `Result` under another name: write `Result<T, E>`"
    );
    #[cfg(unix)]
    enum __TypesOf_type {}
    #[cfg(unix)]
    #[::core::prelude::v1::derive(
        ::rpc_core::__private::serde::Serialize,
        ::rpc_core::__private::serde::Deserialize,
    )]
    #[serde(
        crate = "::rpc_core::__private::serde",
        bound = "A0: ::rpc_core::__private::Argument",
        expecting = "the argument `ref`, in a map or an array"
    )]
    struct __ArgumentsOf_type<A0> {
        r#ref: A0,
    }
    #[cfg(unix)]
    impl ::rpc_core::__private::Method for __TypesOf_type {
        type Arguments = __ArgumentsOf_type<u8>;
        type Ok = ();
    }
    static __SERVICE: ::rpc_core::__private::ServiceDescriptor = ::rpc_core::__private::ServiceDescriptor {
        name: "jobs",
        version: 3u32,
        queue: ::core::option::Option::None,
        codec: ::rpc_core::__private::Codec::Json,
        max_length: ::core::option::Option::Some(500u32),
        max_depth: ::rpc_core::__private::Codec::MAX_DEPTH,
        methods: &[
            ::rpc_core::__private::MethodDescriptor {
                aliases: &["run", "begin"],
                idempotent: true,
                hedge: true,
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
    enum __Method {
        start_job,
        stop,
        crunch,
        #[cfg(unix)]
        r#type,
    }
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
        /// A client that shares the reply queue of `client`, which may be another service's.
        fn from_client(client: ::rpc_core::Client) -> Self {
            Self { client }
        }
        /// A client whose calls go to `service` in this process, without a broker: for unit tests.
        fn fake(service: impl Jobs) -> Self {
            Self {
                client: ::rpc_core::Client::fake(JobsServer::new(service)),
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
        /// Calls `start`.
        fn start_job(
            &self,
            name: String,
            arguments: Vec<HashMap<String, u8>>,
        ) -> ::rpc_core::Call<u64> {
            self.client
                .__call::<
                    __TypesOf_start_job,
                >(
                    &__SERVICE,
                    __Method::start_job as ::core::primitive::usize,
                    &__ArgumentsOf_start_job {
                        name,
                        arguments,
                    },
                )
        }
        /// Calls `stop`.
        fn stop(&self, id: u64, force: bool) -> ::rpc_core::Call<()> {
            self.client
                .__call::<
                    __TypesOf_stop,
                >(
                    &__SERVICE,
                    __Method::stop as ::core::primitive::usize,
                    &__ArgumentsOf_stop { id, force },
                )
        }
        /// Calls `crunch`.
        #[deprecated]
        fn crunch(&self) -> ::rpc_core::Call<Vec<u8>> {
            self.client
                .__call::<
                    __TypesOf_crunch,
                >(
                    &__SERVICE,
                    __Method::crunch as ::core::primitive::usize,
                    &__ArgumentsOf_crunch {},
                )
        }
        /// Calls `type`.
        #[cfg(unix)]
        fn r#type(&self, r#ref: u8) -> ::rpc_core::Call<()> {
            self.client
                .__call::<
                    __TypesOf_type,
                >(
                    &__SERVICE,
                    __Method::r#type as ::core::primitive::usize,
                    &__ArgumentsOf_type { r#ref },
                )
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
    impl<T> JobsServer<T> {
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
    impl<__T: Jobs> ::rpc_core::__private::Sealed for JobsServer<__T> {}
    impl<__T: Jobs> ::rpc_core::__private::Dispatch for JobsServer<__T> {
        fn descriptor(&self) -> &'static ::rpc_core::__private::ServiceDescriptor {
            &__SERVICE
        }
        fn dispatch(
            &self,
            __request: ::rpc_core::__private::Request,
        ) -> ::rpc_core::__private::Handler {
            let __service = ::core::clone::Clone::clone(&self.service);
            match __request.method() {
                __method if __method
                    == __Method::start_job as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request
                            .arguments::<__TypesOf_start_job>()
                        {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Jobs>::start_job(
                                &*__service,
                                __request.context(),
                                __arguments.name,
                                __arguments.arguments,
                            )
                            .await;
                        __request.reply::<__TypesOf_start_job>(&__result)
                    })
                }
                __method if __method == __Method::stop as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_stop>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        <__T as Jobs>::stop(
                                &*__service,
                                __arguments.id,
                                __arguments.force,
                            )
                            .await;
                        __request.done()
                    })
                }
                __method if __method == __Method::crunch as ::core::primitive::usize => {
                    ::rpc_core::__private::blocking(async move {
                        let __arguments = match __request.arguments::<__TypesOf_crunch>()
                        {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Jobs>::crunch(&*__service).await;
                        __request.reply::<__TypesOf_crunch>(&__result)
                    })
                }
                #[cfg(unix)]
                __method if __method == __Method::r#type as ::core::primitive::usize => {
                    ::std::boxed::Box::pin(async move {
                        let __arguments = match __request.arguments::<__TypesOf_type>() {
                            ::core::result::Result::Ok(__arguments) => __arguments,
                            ::core::result::Result::Err(__refused) => return __refused,
                        };
                        let __result = <__T as Jobs>::r#type(
                                &*__service,
                                __arguments.r#ref,
                            )
                            .await;
                        __request.reply::<__TypesOf_type>(&__result)
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
    fn ctx() {}
    fn name() {}
    fn arguments() {}
    fn id() {}
    fn force() {}
    fn r#ref() {}
};
