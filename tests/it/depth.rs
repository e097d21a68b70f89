//! Bodies that nest deeply: refused at either end, and the process lives.

use std::time::Duration;

use lapin::BasicProperties;
use rpc_core::{Call, CallError};
use rpc_tests::{
    Stage, on_both_brokers,
    raw::{header, kind},
};
use serde::{Deserialize, Serialize};

on_both_brokers!(
    a_request_that_nests_too_deeply_is_refused_and_the_worker_lives,
    a_result_or_an_error_that_nests_too_deeply_is_a_bad_reply,
    a_service_may_allow_more_levels,
);

/// An enum, of which rmp-serde counts no level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Tree {
    Leaf,
    Node(Box<Self>),
}

impl Tree {
    fn of(levels: usize) -> Self {
        (0..levels).fold(Self::Leaf, |tree, _| Self::Node(Box::new(tree)))
    }
}

/// The levels that are allowed by default, less the map of the arguments.
const ARGUMENT_LEVELS: usize = 127;

#[rpc_core::service(name = "depth-request", codec = "json")]
trait Shapes {
    async fn grow(&self, tree: Tree) -> Tree;
    async fn ping(&self) -> u32;
}

struct Shape;
impl Shapes for Shape {
    async fn grow(&self, tree: Tree) -> Tree {
        tree
    }
    async fn ping(&self) -> u32 {
        1
    }
}

async fn a_request_that_nests_too_deeply_is_refused_and_the_worker_lives(stage: &Stage) {
    const LEVELS: usize = 30_000;
    let pool = stage.pool(ShapesServer::new(Shape)).await.start().await.unwrap();
    let raw = stage.raw().await;
    let msgpack = |inside: &[u8]| [b"\x81\xa4tree", &*inside.repeat(LEVELS), b"\xa4Leaf"].concat();
    let json = |name: &str, open: &str, close: &str| {
        format!("{{\"{name}\":{}\"Leaf\"{}}}", open.repeat(LEVELS), close.repeat(LEVELS)).into_bytes()
    };
    let requests = [
        ("application/msgpack", msgpack(b"\x81\xa4Node")),
        ("application/msgpack", msgpack(b"\x91")),
        // An argument that this version does not know, before the one that it does.
        ("application/msgpack", [b"\x82\xa3new", &*b"\x91".repeat(LEVELS), b"\xc0\xa4tree\xa4Leaf"].concat()),
        ("application/json", json("tree", "{\"Node\":", "}")),
        ("application/json", json("tree", "[", "]")),
    ];
    for (content_type, body) in requests {
        let properties = BasicProperties::default().with_content_type(content_type.into());
        let reply = raw.call("rpc", "depth-request.grow", properties, &body).await;
        assert_eq!((kind(&reply), header(&reply, "rpc-code")), (Some("rpc.error"), Some("bad_request")));
    }
    let client = ShapesClient::new(&stage.connect().await);
    let deep = client.grow(Tree::of(ARGUMENT_LEVELS)).await.unwrap();
    assert_eq!(deep, Tree::of(ARGUMENT_LEVELS));
    let deeper = client.grow(Tree::of(ARGUMENT_LEVELS + 1)).await.unwrap_err();
    assert!(matches!(&deeper, CallError::BadRequest { .. }) && deeper.to_string().contains("max_depth"), "{deeper}");
    assert_eq!(client.ping().await.unwrap(), 1);
    pool.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[rpc_core::service(name = "depth-reply", max_depth = 1_000)]
trait Deep {
    async fn result(&self, levels: usize) -> Tree;
    async fn fail(&self, levels: usize) -> Result<(), Tree>;
    async fn echo(&self, tree: Tree) -> Tree;
}

struct Bottomless;
impl Deep for Bottomless {
    async fn result(&self, levels: usize) -> Tree {
        Tree::of(levels)
    }
    async fn fail(&self, levels: usize) -> Result<(), Tree> {
        Err(Tree::of(levels))
    }
    async fn echo(&self, tree: Tree) -> Tree {
        tree
    }
}

/// The same service as callers see it that allow fewer levels.
mod shallow {
    #[rpc_core::service(name = "depth-reply", max_depth = 5)]
    pub(crate) trait Deep {
        async fn result(&self, levels: usize) -> super::Tree;
        async fn fail(&self, levels: usize) -> Result<(), super::Tree>;
    }
}

/// The cases of this service in turn: they would take each other's requests.
static DEEP: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn a_result_or_an_error_that_nests_too_deeply_is_a_bad_reply(stage: &Stage) {
    let _alone = DEEP.lock().await;
    let _pool = stage.pool(DeepServer::new(Bottomless)).await.start().await.unwrap();
    let client = shallow::DeepClient::new(&stage.connect().await);
    assert_eq!(client.result(5).await.unwrap(), Tree::of(5));
    let CallError::Service { error, .. } = client.fail(5).await.unwrap_err() else { panic!("it is the service's") };
    assert_eq!(error, Tree::of(5));
    let result = client.result(6).await.unwrap_err();
    assert!(matches!(&result, CallError::BadReply { .. }) && result.to_string().contains("max_depth"), "{result}");
    let error = client.fail(6).await.unwrap_err();
    assert!(matches!(&error, CallError::BadReply { .. }) && error.maybe_executed(), "{error:?}");
}

async fn a_service_may_allow_more_levels(stage: &Stage) {
    let _alone = DEEP.lock().await;
    let _pool = stage.pool(DeepServer::new(Bottomless)).await.start().await.unwrap();
    let client = DeepClient::new(&stage.connect().await);
    let call: Call<Tree> = client.echo(Tree::of(300));
    assert_eq!(call.await.unwrap(), Tree::of(300));
}
