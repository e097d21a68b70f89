//! The broker under the cases, and how it is restarted and blocked.

use std::{path::Path, time::Duration};

use rpc_tests::{BrokerProcess, within};
use tokio::process::Command;

/// A broker of our own.
pub(crate) enum World {
    Bundled(BrokerProcess),
    RabbitMq { uri: String, ctl: String },
}

/// Where one case takes place.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) uri: String,
    pub(crate) service: String,
}

impl World {
    pub(crate) async fn bundled() -> Self {
        Self::Bundled(BrokerProcess::spawn(Path::new(env!("CARGO_BIN_EXE_test_broker"))).await)
    }

    /// The node at `RPC_TEST_RABBITMQ_URL`, if `RPC_TEST_RABBITMQ_CTL` says how to stop it: nobody else uses it then.
    pub(crate) fn rabbitmq() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        Some(Self::RabbitMq { uri: variable("RPC_TEST_RABBITMQ_URL")?, ctl: variable("RPC_TEST_RABBITMQ_CTL")? })
    }

    pub(crate) fn is_bundled(&self) -> bool {
        matches!(self, Self::Bundled(_))
    }

    pub(crate) fn place(&self, service: String) -> Place {
        let uri = match self {
            Self::Bundled(broker) => broker.uri().to_owned(),
            Self::RabbitMq { uri, .. } => uri.clone(),
        };
        Place { uri, service }
    }

    /// Ends the broker and starts it again.
    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Bundled(broker) => {
                broker.kill();
                broker.restart().await;
            }
            Self::RabbitMq { ctl, .. } => {
                rabbitmqctl(ctl, &["kill_node"]).await;
                rabbitmqctl(ctl, &["start_node"]).await;
            }
        }
    }

    /// Has every connection blocked that publishes. The proxies do it for the bundled broker.
    pub(crate) async fn block(&mut self) {
        if let Self::RabbitMq { ctl, .. } = self {
            rabbitmqctl(ctl, &["set_vm_memory_high_watermark", "0"]).await;
        }
    }

    pub(crate) async fn unblock(&mut self) {
        if let Self::RabbitMq { ctl, .. } = self {
            rabbitmqctl(ctl, &["set_vm_memory_high_watermark", "0.4"]).await;
        }
    }
}

async fn rabbitmqctl(ctl: &str, arguments: &[&str]) {
    let output = Command::new(ctl).args(arguments).output();
    let output = within(CTL_LIMIT, &format!("rabbitmqctl {arguments:?}"), output).await.expect("it can be started");
    assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two seconds when the machine is idle.
const CTL_LIMIT: Duration = Duration::from_secs(60);
