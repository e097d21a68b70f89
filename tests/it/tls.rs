//! TLS to a RabbitMQ that asks for a client certificate. `rpc-core/tests/broker_tls.rs` has the bundled broker's.

mod rabbitmq {
    use std::{path::PathBuf, time::Duration};

    use rpc_core::{ClientTlsOptions, Connection, ConnectionOptions, Error, WorkerPool};
    use rpc_tests::{Answers, framework_uri, probe, within};

    probe!("tls");

    #[tokio::test]
    async fn calls_go_over_tls() {
        let Some(node) = Node::find() else { return };
        let connection = within(LIMIT, "a connection", node.open("ca.pem", true)).await.unwrap();
        let pool = WorkerPool::new(&connection).serve(ProbeServer::new(Answers::echo())).start().await.unwrap();
        let client = ProbeClient::new(&connection);
        for length in [0, 1, 20_000, 3_000_000] {
            let question = "x".repeat(length);
            assert_eq!(client.ask_again(question.clone()).await.unwrap(), question);
        }
        pool.shutdown(LIMIT).await.unwrap();
        connection.close().await.unwrap();
    }

    #[tokio::test]
    async fn an_error_says_whose_certificate_is_missing_or_not_trusted() {
        let Some(node) = Node::find() else { return };
        for (ca, is_known, expected) in [
            // Whether the broker's alert or its reset is seen first is chance.
            ("ca.pem", false, "requires a client certificate"),
            ("other-ca.pem", true, "the broker's certificate has an issuer that this client does not trust"),
        ] {
            let refused = within(LIMIT, "an error", node.open(ca, is_known)).await.unwrap_err();
            let Error::Unreachable { reason, .. } = refused else { panic!("{refused:?}") };
            assert!(reason.contains(expected), "{reason}");
        }
    }

    /// The node's TLS port, and the folder of its certificates.
    struct Node {
        uri: String,
        folder: PathBuf,
    }

    impl Node {
        fn find() -> Option<Self> {
            let variable = |name| std::env::var(name).ok();
            let Some((uri, folder)) = variable("RPC_TEST_RABBITMQ_TLS_URL").zip(variable("RPC_TEST_RABBITMQ_TLS"))
            else {
                println!("skipped: RPC_TEST_RABBITMQ_TLS_URL and RPC_TEST_RABBITMQ_TLS are not set");
                return None;
            };
            Some(Self { uri: framework_uri(&uri), folder: folder.into() })
        }

        async fn open(&self, ca: &str, has_certificate: bool) -> Result<Connection, Error> {
            let read = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap();
            let mut tls = ClientTlsOptions::default().ca(read(ca));
            if has_certificate {
                tls = tls.identity(read("client.pem"), read("client.key"));
            }
            Connection::open_with(&self.uri, ConnectionOptions::default().tls(tls)).await
        }
    }

    const LIMIT: Duration = Duration::from_secs(20);
}
