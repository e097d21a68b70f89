//! Headers that the calls of a handler carry on, whether there are layers or not.

use rpc_core::{
    Connection, Context, Error, HeaderValue, WorkerPool,
    layer::{self, Next, Request},
    service,
};
use rpc_tests::{Stage, on_both_brokers, with_parameter};

on_both_brokers!(
    headers_of_a_request_reach_those_of_its_handler,
    a_pool_says_which_headers_go_on,
    layers_see_the_headers_that_go_on,
    headers_without_room_are_dropped_and_counted,
);

/// The headers that a request of the inner service has had, by their names.
macro_rules! services {
    ($outer:literal, $inner:literal) => {
        #[service(name = $inner)]
        trait Inner {
            async fn seen(&self, ctx: &Context) -> String;
        }
        struct Reads;
        impl Inner for Reads {
            async fn seen(&self, ctx: &Context) -> String {
                let headers = ["traceparent", "tracestate", "baggage", "tenant"].into_iter();
                let seen = headers.filter_map(|name| Some(format!("{name}={}", shown(&ctx.header(name)?))));
                seen.collect::<Vec<_>>().join(" ")
            }
        }

        #[service(name = $outer)]
        trait Outer {
            async fn here(&self, own: Option<String>) -> String;
            async fn spawned(&self) -> String;
            #[rpc(blocking)]
            async fn thread(&self) -> String;
        }
        #[derive(Clone)]
        struct Calls(InnerClient);
        impl Outer for Calls {
            async fn here(&self, own: Option<String>) -> String {
                let call = self.0.seen();
                match own {
                    Some(own) => call.header("traceparent", own).await.unwrap(),
                    None => call.await.unwrap(),
                }
            }
            async fn spawned(&self) -> String {
                let client = self.0.clone();
                rpc_core::spawn(async move { client.seen().await.unwrap() }).await.unwrap()
            }
            async fn thread(&self) -> String {
                self.0.seen().await.unwrap()
            }
        }
    };
}

fn shown(value: &HeaderValue) -> String {
    match value {
        HeaderValue::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
        HeaderValue::Text(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

async fn headers_of_a_request_reach_those_of_its_handler(stage: &Stage) {
    services!("forward-outer", "forward-inner");
    let _inner = stage.pool(InnerServer::new(Reads)).await.start().await.unwrap();
    let inner = InnerClient::new(&stage.connect().await);
    let outer = stage.pool(OuterServer::new(Calls(inner))).await.start().await.unwrap();
    let client = OuterClient::new(&stage.connect().await);
    let all = "traceparent=p tracestate=s baggage=b";
    let with = |call: rpc_core::Call<String>| {
        let call = call.header("baggage", "b").header("tenant", "blue").header("tracestate", "s");
        call.header("traceparent", "p")
    };
    assert_eq!(with(client.here(None)).await.unwrap(), all);
    assert_eq!(with(client.spawned()).await.unwrap(), all);
    assert_eq!(with(client.thread()).await.unwrap(), all);
    assert_eq!(with(client.here(Some("own".to_owned()))).await.unwrap(), "traceparent=own baggage=b");
    // Bytes stay bytes, and a request without such headers has none to give.
    let bytes = client.here(None).header("traceparent", &b"p"[..]);
    assert_eq!(bytes.await.unwrap(), "traceparent=Bytes([112])");
    assert_eq!(client.here(None).await.unwrap(), "");
    assert_eq!(client.here(None).header("tenant", "blue").await.unwrap(), "");
    assert_eq!(outer.stats().headers_dropped, 0);
}

async fn a_pool_says_which_headers_go_on(stage: &Stage) {
    services!("forward-list", "forward-listed");
    let _inner = stage.pool(InnerServer::new(Reads)).await.start().await.unwrap();
    let calls = Calls(InnerClient::new(&stage.connect().await));
    let client = OuterClient::new(&stage.connect().await);
    let with = |call: rpc_core::Call<String>| call.header("tenant", "blue").header("traceparent", "p");
    for (names, seen) in [(&["tenant"][..], "tenant=blue"), (&[], ""), (&["traceparent"], "traceparent=p")] {
        let pool = stage.pool(OuterServer::new(calls.clone())).await.forward_headers(names.iter().copied());
        let pool = pool.start().await.unwrap();
        assert_eq!(with(client.here(None)).await.unwrap(), seen);
        pool.shutdown(super::SOON).await.unwrap();
    }
    let refused = WorkerPool::new(&stage.connect().await).serve(OuterServer::new(calls));
    let error = refused.forward_headers(["tenant", "rpc-attempt"]).start().await.unwrap_err();
    assert!(matches!(&error, Error::Configuration(words) if words.contains("'rpc-attempt'")), "{error:?}");
}

async fn layers_see_the_headers_that_go_on(stage: &Stage) {
    services!("forward-layers", "forward-layered");
    let _inner = stage.pool(InnerServer::new(Reads)).await.start().await.unwrap();
    let inner = InnerClient::new(&stage.connect().await).layer(layer::from_fn(|mut request: Request, next: Next| {
        // A layer of the client removes one, and replaces another one.
        assert_eq!(request.header("tracestate").and_then(HeaderValue::as_str), Some("s"));
        request.remove_header("tracestate");
        let changed = format!("{}+client", request.header("baggage").and_then(HeaderValue::as_str).unwrap_or("none"));
        request.set_header("baggage", changed);
        next.run(request)
    }));
    let pool = stage.pool(OuterServer::new(Calls(inner))).await;
    let pool = pool.layer(layer::from_fn(|mut request: Request, next: Next| {
        // So does one of the pool.
        request.set_header("baggage", "pool");
        if request.method() == "spawned" {
            request.remove_header("traceparent");
        }
        next.run(request)
    }));
    let _outer = pool.start().await.unwrap();
    let client = OuterClient::new(&stage.connect().await);
    let with =
        |call: rpc_core::Call<String>| call.header("traceparent", "p").header("tracestate", "s").header("baggage", "b");
    assert_eq!(with(client.here(None)).await.unwrap(), "traceparent=p baggage=pool+client");
    assert_eq!(with(client.thread()).await.unwrap(), "traceparent=p baggage=pool+client");
    assert_eq!(with(client.spawned()).await.unwrap(), "baggage=pool+client");
}

async fn headers_without_room_are_dropped_and_counted(stage: &Stage) {
    services!("forward-narrow", "forward-room");
    let _inner = stage.pool(InnerServer::new(Reads)).await.start().await.unwrap();
    // RabbitMQ 4.1 and later take no smaller frames.
    let narrow = Connection::open(&with_parameter(stage.uri(), "frame_max=8192")).await.unwrap();
    let plain = InnerClient::new(&narrow);
    let layered = plain.layer(layer::from_fn(|request: Request, next: Next| next.run(request)));
    let client = OuterClient::new(&stage.connect().await);
    for inner in [plain, layered] {
        let pool = stage.pool(OuterServer::new(Calls(inner))).await.start().await.unwrap();
        let with = |bytes: usize| {
            let call = client.here(None).header("traceparent", "p").header("tracestate", "s");
            call.header("baggage", "b".repeat(bytes))
        };
        let seen = with(6_000).await.unwrap();
        assert_eq!((&*seen, pool.stats().headers_dropped), ("traceparent=p tracestate=s baggage=6000 bytes", 0));
        let seen = with(8_192).await.unwrap();
        assert_eq!((&*seen, pool.stats().headers_dropped), ("traceparent=p tracestate=s", 1));
        pool.shutdown(super::SOON).await.unwrap();
    }
}
