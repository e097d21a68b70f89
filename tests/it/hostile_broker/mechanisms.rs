//! The mechanism of the login (SASL): the URI's, PLAIN by default, and never another one because a broker offers it.

use std::time::Duration;

use rpc_core::{Connection, ConnectionOptions, Error};
use rpc_tests::{framework_uri, within};

use super::{broker::Scripted, scenarios::Scenario};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_offers_anonymous_logins_too_is_given_user_and_password() {
    // RabbitMQ 4.3's list, in each of its orders.
    for offer in [
        "0 connection.start version_minor=9 mechanisms=\"ANONYMOUS PLAIN AMQPLAIN\" locales=en_US",
        "0 connection.start version_minor=9 mechanisms=\"PLAIN ANONYMOUS AMQPLAIN\" locales=en_US",
    ] {
        let (opened, mechanisms) = log_in(offer).await;
        assert!(opened.is_ok(), "{opened:?}");
        assert_eq!(mechanisms, ["PLAIN"], "{offer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_offers_anonymous_logins_alone_is_not_logged_in_to() {
    let offer = "0 connection.start version_minor=9 mechanisms=ANONYMOUS locales=en_US";
    let (opened, mechanisms) = log_in(offer).await;
    if std::env::var("RPC_TEST_TRANSPORT").is_ok_and(|transport| transport == "lapin") {
        // lapin sends user and password all the same; a real broker refuses them.
        assert_eq!(mechanisms, ["PLAIN"]);
        return;
    }
    let error = opened.unwrap_err();
    let words = "offers the authentication mechanisms 'ANONYMOUS' and not PLAIN";
    assert!(matches!(&error, Error::Configuration(text) if text.contains(words)), "{error:?}");
    assert!(mechanisms.is_empty(), "{mechanisms:?}");
}

/// Opens a connection to a broker that begins with `offer`; returns the mechanisms that it was answered with.
async fn log_in(offer: &'static str) -> (Result<Connection, Error>, Vec<String>) {
    let broker = Scripted::start(&Scenario::new("offer", "header", 0, &[offer])).await;
    let uri = framework_uri(broker.uri());
    let opening = Connection::open_with(&uri, ConnectionOptions::default());
    let opened = within(Duration::from_secs(10), "the end of the login", opening).await;
    let mechanisms = broker.counts().mechanisms.lock().unwrap().clone();
    (opened, mechanisms)
}
