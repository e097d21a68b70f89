//! The broker under the load, and the faults that are its own.

use std::time::Duration;

use rpc_core::broker::{Broker, Restart};
use rpc_tests::{raw, within};
use tokio::{process::Command, time::sleep};

use super::{
    chaos::Count,
    load::{Ledger, Tally},
    random::Random,
};

/// A broker that nobody else uses.
pub(super) enum Soaked {
    Bundled(Broker),
    /// `ctl` is rabbitmqctl for the node.
    RabbitMq {
        uri: String,
        ctl: String,
    },
}

impl Soaked {
    pub(super) async fn bundled() -> Self {
        Self::Bundled(Broker::start().await.unwrap())
    }

    /// The node at `RPC_TEST_RABBITMQ_URL`, if `RPC_TEST_RABBITMQ_CTL` says how to hurt it: nobody else uses it then.
    pub(super) fn rabbitmq() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        Some(Self::RabbitMq { uri: variable("RPC_TEST_RABBITMQ_URL")?, ctl: variable("RPC_TEST_RABBITMQ_CTL")? })
    }

    pub(super) fn uri(&self) -> &str {
        match self {
            Self::Bundled(broker) => broker.uri(),
            Self::RabbitMq { uri, .. } => uri,
        }
    }

    /// How many of a hundred faults are its own; rabbitmqctl takes seconds for each.
    pub(super) fn share(&self) -> u64 {
        match self {
            Self::Bundled(_) => 50,
            Self::RabbitMq { .. } => 10,
        }
    }

    /// One fault of the broker's own, and its end.
    pub(super) async fn strike(
        &self,
        random: &mut Random,
        lasting: Duration,
        ledger: &Ledger,
        tally: &Tally,
        count: &mut Count,
    ) {
        match self {
            Self::Bundled(broker) => strike_bundled(broker, random, lasting, ledger, tally, count).await,
            Self::RabbitMq { ctl, .. } => strike_rabbitmq(ctl, random, lasting, count).await,
        }
    }

    /// The queues there are, without their numbers.
    pub(super) async fn queues(&self) -> Vec<String> {
        let names: Vec<String> = match self {
            Self::Bundled(broker) => broker.queues().into_iter().map(|queue| queue.name).collect(),
            Self::RabbitMq { ctl, .. } => {
                let names = rabbitmqctl(ctl, &["list_queues", "--quiet", "--no-table-headers", "name"]).await;
                names.lines().map(str::to_owned).collect()
            }
        };
        let mut kinds: Vec<_> = names.iter().map(|name| kind(name)).collect();
        kinds.sort_unstable();
        kinds
    }

    /// How many messages a queue holds and consumers it has.
    pub(super) async fn queue(&self, name: &str) -> (u32, u32) {
        let raw = raw::Peer::connect(self.uri()).await;
        let queue = raw.queue(name).await.unwrap();
        raw.close().await;
        (queue.ready, queue.consumers)
    }

    pub(super) async fn shutdown(self) {
        match self {
            Self::Bundled(broker) => broker.shutdown().await,
            Self::RabbitMq { uri, .. } => {
                let raw = raw::Peer::connect(&uri).await;
                raw.delete_queue("rpc.soak").await;
                raw.close().await;
            }
        }
    }
}

/// `rpc.reply.<uuid>.3` → `rpc.reply`.
fn kind(queue: &str) -> String {
    match ["rpc.reply", "rpc.control"].into_iter().find(|kind| queue.starts_with(*kind)) {
        Some(kind) => kind.to_owned(),
        None => queue.to_owned(),
    }
}

async fn strike_bundled(
    broker: &Broker,
    random: &mut Random,
    lasting: Duration,
    ledger: &Ledger,
    tally: &Tally,
    count: &mut Count,
) {
    let faults = broker.faults();
    match random.between(0, 100) {
        0..12 => {
            count.add("all dropped");
            faults.drop_connections();
        }
        12..22 => {
            count.add("broker away");
            faults.refuse_connections();
            faults.drop_connections();
            sleep(lasting).await;
            faults.allow_connections();
        }
        22..34 => {
            count.add("deliveries paused");
            faults.pause_deliveries();
            sleep(lasting).await;
            faults.resume_deliveries();
        }
        34..42 => {
            count.add("confirms delayed");
            faults.delay_confirms(lasting / 4);
            sleep(lasting).await;
            faults.release_confirms();
        }
        42..50 => {
            count.add("confirms withheld");
            faults.withhold_confirms();
            sleep(lasting).await;
            faults.release_confirms();
        }
        50..60 => {
            count.add("broker blocked");
            faults.block_connections("soaked");
            sleep(lasting).await;
            faults.unblock_connections();
        }
        60..70 => {
            count.add("delivery duplicated");
            faults.duplicate_next_delivery();
        }
        70..75 => {
            count.add("pool's consumers cancelled");
            faults.cancel_consumers("rpc.soak");
        }
        75..80 => {
            // Of a client or of a pool's control.
            let queues = broker.queues();
            let own: Vec<_> = queues.iter().filter(|queue| kind(&queue.name) != queue.name).collect();
            if !own.is_empty() {
                count.add("own consumer cancelled");
                faults.cancel_consumers(&own[random.between(0, own.len() as u64) as usize].name);
            }
        }
        80..84 => {
            count.add("publish returned");
            tally.explain("no_such_service");
            faults.return_next_publish();
        }
        84..88 => {
            count.add("publish refused");
            tally.explain("overloaded");
            faults.nack_next_publish();
        }
        88..95 => {
            count.add("restarted, durable kept");
            faults.restart(Restart::KeepDurable);
        }
        _ => {
            count.add("restarted, all lost");
            // The service is unknown until a pool is back.
            tally.explain("no_such_service");
            faults.restart(Restart::LoseEverything);
            ledger.excuse();
        }
    }
}

async fn strike_rabbitmq(ctl: &str, random: &mut Random, lasting: Duration, count: &mut Count) {
    match random.between(0, 100) {
        0..50 => {
            count.add("all dropped");
            rabbitmqctl(ctl, &["close_all_connections", "soaked"]).await;
        }
        50..75 => {
            count.add("broker blocked");
            rabbitmqctl(ctl, &["set_vm_memory_high_watermark", "0"]).await;
            sleep(lasting).await;
            rabbitmqctl(ctl, &["set_vm_memory_high_watermark", "0.4"]).await;
        }
        75..85 => {
            count.add("killed, restarted");
            rabbitmqctl(ctl, &["kill_node"]).await;
            sleep(lasting).await;
            rabbitmqctl(ctl, &["start_node"]).await;
        }
        _ => {
            count.add("restarted");
            rabbitmqctl(ctl, &["stop_app"]).await;
            sleep(lasting).await;
            rabbitmqctl(ctl, &["start_app"]).await;
        }
    }
}

/// Runs rabbitmqctl and returns what it prints.
async fn rabbitmqctl(ctl: &str, arguments: &[&str]) -> String {
    let output = Command::new(ctl).args(arguments).output();
    let output = within(CTL_LIMIT, &format!("rabbitmqctl {arguments:?}"), output).await.expect("it can be started");
    assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Two seconds when the machine is idle.
const CTL_LIMIT: Duration = Duration::from_secs(90);
