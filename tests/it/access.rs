//! The permissions that a user needs, and the error without one. The users are those of `parity/definitions.json`.

use rpc_core::{Connection, Error, WorkerPool};
use rpc_tests::{Answers, Stage, on_both_brokers, probe};

on_both_brokers!(
    the_rights_in_the_readme_are_enough,
    who_lacks_a_right_is_told_which,
    a_vhost_one_may_not_use_is_refused,
);

async fn the_rights_in_the_readme_are_enough(stage: &Stage) {
    probe!("access-enough");
    // The first pool as guest: it also removes what an earlier run left.
    let _guests = stage.pool(ProbeServer::new(Answers::echo())).await;
    let connection = Connection::open(&stage.uri_as("shop", "")).await.unwrap();
    let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
    let client = ProbeClient::new(&connection);
    for question in ["a", "b"] {
        assert_eq!(client.ask(question.to_owned()).await.unwrap(), question);
    }
    pool.shutdown(std::time::Duration::from_secs(5)).await.unwrap();
}

async fn who_lacks_a_right_is_told_which(stage: &Stage) {
    probe!("access-refused");
    let connection = Connection::open(&stage.uri_as("replier", "")).await.unwrap();
    let refused = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap_err();
    let Error::Refused { reply_code: 403, reply_text, .. } = refused else { panic!("{refused}") };
    // The exchange `rpc.cancel` where it is missing; where it is there, the queue bound to it.
    let is_named = ["exchange 'rpc", "queue 'rpc.control.replier."].iter().any(|name| reply_text.contains(name));
    assert!(reply_text.starts_with(stage.expects().configure_refused) && is_named, "{reply_text}");
    assert!(reply_text.ends_with("in vhost '/' refused for user 'replier'"), "{reply_text}");
}

async fn a_vhost_one_may_not_use_is_refused(stage: &Stage) {
    let refused = Connection::open(&stage.uri_as("shop", "parity")).await.unwrap_err();
    let Error::VhostRefused { vhost, reply_text } = refused else { panic!("{refused}") };
    assert_eq!(vhost, "parity");
    assert_eq!(reply_text, "NOT_ALLOWED - access to vhost 'parity' refused for user 'shop'");
}
