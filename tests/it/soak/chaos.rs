//! The broker and workers of the load, and the faults they suffer.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rpc_core::{
    Client, ClientOptions, Connection, ConnectionOptions, ConnectionState, PoolHandle, Transport, WorkerPool,
};
use rpc_tests::{
    eventually,
    proxy::{Direction, Proxy},
};
use tokio::time::sleep;

use super::{
    broker::Soaked,
    consumers::GRACE,
    load::{Ledger, SoakClient, SoakServer, Tally, Worker},
    random::Random,
};

/// Two clients and two pools, each behind a proxy of its own.
pub(super) struct Site {
    broker: Soaked,
    clients: Vec<(Proxy, Connection, Client)>,
    pools: Vec<(Proxy, Connection, Option<PoolHandle>)>,
}

/// How often each fault has struck.
#[derive(Debug, Default)]
pub(super) struct Count(BTreeMap<&'static str, u64>);

impl Site {
    pub(super) async fn open(broker: Soaked, ledger: &Arc<Ledger>) -> Self {
        let uri = broker.uri();
        let (mut clients, mut pools) = (Vec::new(), Vec::new());
        for transport in [Transport::Lapin, Transport::Native] {
            let proxy = Proxy::start(uri).await;
            let connection = connect(&proxy, transport).await;
            let client = Client::with_options(&connection, ClientOptions::default().grace(GRACE));
            clients.push((proxy, connection, client));
            let proxy = Proxy::start(uri).await;
            let connection = connect(&proxy, transport).await;
            let pool = serve(&connection, ledger).await;
            pools.push((proxy, connection, Some(pool)));
        }
        Self { broker, clients, pools }
    }

    pub(super) fn uri(&self) -> String {
        self.broker.uri().to_owned()
    }

    pub(super) fn client(&self, at: usize) -> Client {
        self.clients[at % self.clients.len()].2.clone()
    }

    /// How often the clients have looked for workers, and ended calls because there were none.
    pub(super) fn looks_and_unserved(&self) -> (u64, u64) {
        let stats = self.clients.iter().map(|(_, _, client)| client.stats());
        stats.fold((0, 0), |(looks, unserved), stats| (looks + stats.looks, unserved + stats.unserved))
    }

    /// The queues there are, by kind.
    pub(super) async fn queues(&self) -> Vec<String> {
        self.broker.queues().await
    }

    fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        let clients = self.clients.iter().map(|(proxy, ..)| proxy);
        clients.chain(self.pools.iter().map(|(proxy, ..)| proxy))
    }

    /// One fault, and its end.
    pub(super) async fn strike(&mut self, random: &mut Random, ledger: &Arc<Ledger>, tally: &Tally, count: &mut Count) {
        let at = random.between(0, 4) as usize;
        let lasting = Duration::from_millis(random.between(20, 1_200));
        if random.between(0, 100) < self.broker.share() {
            return self.broker.strike(random, lasting, ledger, tally, count).await;
        }
        let fault = random.between(0, 100);
        let proxy = self.proxies().nth(at).unwrap();
        match fault {
            0..30 => {
                count.add("cut");
                proxy.cut();
            }
            30..45 => {
                count.add("refused");
                proxy.refuse();
                proxy.cut();
                sleep(lasting).await;
                proxy.accept();
            }
            45..60 => {
                count.add("stalled");
                proxy.stall(if fault.is_multiple_of(2) { Direction::ToBroker } else { Direction::ToPeer });
                sleep(lasting).await;
                proxy.release();
            }
            60..70 => {
                count.add("stalled, then cut");
                proxy.stall(if fault.is_multiple_of(2) { Direction::ToBroker } else { Direction::ToPeer });
                sleep(lasting).await;
                proxy.cut();
            }
            70..85 => {
                count.add("blocked");
                self.proxies().for_each(Proxy::block);
                sleep(lasting).await;
                self.proxies().for_each(Proxy::unblock);
            }
            85..93 => {
                count.add("pool shut down");
                let (_, connection, pool) = &mut self.pools[at % 2];
                let drained = pool.take().unwrap().shutdown(Duration::from_secs(2)).await;
                if drained.is_err() {
                    count.add("shutdown cut short");
                }
                *pool = Some(serve(connection, ledger).await);
            }
            _ => {
                count.add("pool dropped");
                let (_, connection, pool) = &mut self.pools[at % 2];
                drop(pool.take());
                *pool = Some(serve(connection, ledger).await);
            }
        }
    }

    /// Waits until everything is connected and serves, and nothing waits.
    pub(super) async fn settle(&self) {
        let is_connected = async || {
            let mut connections = self.clients.iter().map(|(_, connection, _)| connection);
            let mut workers = self.pools.iter().map(|(_, connection, _)| connection);
            connections.all(|connection| connection.state() == ConnectionState::Connected)
                && workers.all(|connection| connection.state() == ConnectionState::Connected)
        };
        eventually(LIMIT, "everything is connected again", is_connected).await;
        for (_, _, client) in &self.clients {
            // A connection that was cut just now may not know it yet. One-way calls have a channel of their own: it is
            // open before and after the load.
            let soak = SoakClient::from_client(client.clone());
            let is_ready = async || client.ready().await.is_ok() && soak.note(0).await.is_ok();
            eventually(LIMIT, "the client is ready", is_ready).await;
        }
        let is_quiet = async || self.broker.queue("rpc.soak").await == (0, 2);
        eventually(LIMIT, "both pools serve and the queue is empty", is_quiet).await;
    }

    pub(super) async fn close(self) {
        for (_, connection, pool) in self.pools {
            pool.unwrap().shutdown(Duration::from_secs(5)).await.unwrap();
            connection.close().await.unwrap();
        }
        for (_, connection, _) in self.clients {
            connection.close().await.unwrap();
        }
        self.broker.shutdown().await;
    }
}

impl Count {
    pub(super) fn add(&mut self, fault: &'static str) {
        *self.0.entry(fault).or_default() += 1;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults", self.0.values().sum::<u64>())?;
        self.0.iter().try_for_each(|(fault, count)| write!(f, "  {fault} {count}"))
    }
}

async fn connect(proxy: &Proxy, transport: Transport) -> Connection {
    let options = ConnectionOptions::default().transport(transport).reconnect_delay_max(Duration::from_millis(200));
    // lapin's task for it sleeps for half as long, also when the connection is lost, and tasks are counted at the end.
    let uri = format!("{}?heartbeat=6", proxy.uri());
    Connection::open_with(&uri, options).await.unwrap()
}

/// Starts a pool, however often its connection is lost meanwhile.
async fn serve(connection: &Connection, ledger: &Arc<Ledger>) -> PoolHandle {
    loop {
        let pool = WorkerPool::new(connection).serve(SoakServer::new(Worker(Arc::clone(ledger))));
        match pool.concurrency(16).start().await {
            Ok(pool) => return pool,
            Err(rpc_core::Error::Disconnected { .. } | rpc_core::Error::TimedOut { .. }) => {}
            Err(error) => panic!("the pool cannot be started: {error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

const LIMIT: Duration = Duration::from_secs(30);
