//! The brokers seen from JavaScript, with amqplib.
//!
//! Needs Node, and amqplib in a directory named by `RPC_TEST_NODE_PATH`; `tests/run` makes one.

use rpc_tests::{Script, Stage, on_both_brokers};

on_both_brokers!(
    tutorial_1_hello,
    tutorial_2_work_queue,
    tutorial_3_fanout,
    tutorial_5_topic,
    tutorial_6_rpc,
    confirms,
    mandatory_messages_return,
    basic_get,
    close_codes,
);

/// Runs a script that checks everything itself.
async fn script(stage: &Stage, script: &str) {
    if let Some(node) = Script::node(script, &[stage.broker_uri()]) {
        node.succeeds().await;
    }
}

async fn tutorial_1_hello(stage: &Stage) {
    script(stage, "hello.js").await;
}

async fn tutorial_2_work_queue(stage: &Stage) {
    script(stage, "work_queue.js").await;
}

async fn tutorial_3_fanout(stage: &Stage) {
    script(stage, "fanout.js").await;
}

async fn tutorial_5_topic(stage: &Stage) {
    script(stage, "topic.js").await;
}

async fn tutorial_6_rpc(stage: &Stage) {
    script(stage, "rpc.js").await;
}

async fn confirms(stage: &Stage) {
    script(stage, "confirms.js").await;
}

async fn mandatory_messages_return(stage: &Stage) {
    script(stage, "mandatory.js").await;
}

async fn basic_get(stage: &Stage) {
    script(stage, "get.js").await;
}

async fn close_codes(stage: &Stage) {
    let unknown_type = stage.expects().unknown_exchange_type.to_string();
    if let Some(node) = Script::node("close_codes.js", &[stage.broker_uri(), &unknown_type]) {
        node.succeeds().await;
    }
}
