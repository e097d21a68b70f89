//! One call, stopped at its point, struck, and followed to its end.

use std::{path::Path, time::Duration};

use lapin::BasicProperties;
use rpc_core::{CallError, Client, ClientOptions, Connection, ConnectionOptions, ConnectionState};
use rpc_tests::{
    NamedProbe, WorkerProcess, eventually, framework_uri,
    proxy::{
        Direction::{ToBroker, ToPeer},
        Method, Proxy,
    },
    raw, within,
};
use tokio::task::JoinHandle;

use super::{
    table::{Ending, Fault, Outcome, Point},
    world::Place,
};

pub(super) struct Case {
    place: Place,
    point: Point,
    fault: Fault,
    is_idempotent: bool,
    promised_executions: usize,
    client_proxy: Proxy,
    worker_proxy: Proxy,
    /// The first, and its successor when it was killed.
    workers: Vec<WorkerProcess>,
    connection: Connection,
    probe: NamedProbe,
    call: Option<JoinHandle<Result<String, CallError>>>,
}

impl Case {
    /// Brings a call to its point.
    pub(super) async fn begin(
        place: Place,
        point: Point,
        fault: Fault,
        is_idempotent: bool,
        promised_executions: usize,
    ) -> Self {
        let raw = raw::Peer::connect(&place.uri).await;
        let queue = queue(&place);
        raw.delete_queue(&queue).await;
        let client_proxy = Proxy::start(&framework_uri(&place.uri)).await;
        let worker_proxy = Proxy::start(&framework_uri(&place.uri)).await;
        let mut worker = spawn(worker_proxy.uri(), &place, "first").await;
        if !matches!(point, Point::Queued | Point::MidHandler) {
            worker.open_gate();
        }
        let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
        let connection = Connection::open_with(client_proxy.uri(), options).await.unwrap();
        let options = ClientOptions::default();
        let options = if fault == Fault::WorkerGone { options.grace(GRACE) } else { options };
        let client = Client::with_options(&connection, options);
        client.ready().await.unwrap();
        let probe = NamedProbe::new(client, &place.service);
        let mut case = Self {
            place,
            point,
            fault,
            is_idempotent,
            promised_executions,
            client_proxy,
            worker_proxy,
            workers: vec![worker],
            connection,
            probe,
            call: None,
        };
        case.reach(&raw, &queue).await;
        raw.close().await;
        case
    }

    async fn reach(&mut self, raw: &raw::Peer, queue: &str) {
        match self.point {
            Point::BeforePublish => {}
            Point::Published => {
                self.client_proxy.hold(ToBroker, Method::Publish);
                self.call();
                self.client_proxy.is_holding(ToBroker).await;
            }
            Point::Queued => {
                let properties = BasicProperties::default().with_content_type("application/json".into());
                let routing_key = format!("{}.ask", self.place.service);
                raw.publish("rpc", &routing_key, properties, br#"["occupy"]"#).await;
                self.workers[0].begins("occupy").await;
                self.call();
                let is_queued = async || raw.queue(queue).await.is_some_and(|queue| queue.ready == 1);
                eventually(LIMIT, "the request is queued", is_queued).await;
            }
            Point::Delivered => {
                self.worker_proxy.hold(ToPeer, Method::Deliver);
                self.call();
                self.worker_proxy.is_holding(ToPeer).await;
            }
            Point::MidHandler => {
                self.call();
                self.workers[0].begins(QUESTION).await;
            }
            Point::HandlerDone => {
                self.worker_proxy.hold(ToBroker, Method::Publish);
                self.call();
                self.worker_proxy.is_holding(ToBroker).await;
            }
            Point::Replied => {
                self.worker_proxy.hold(ToBroker, Method::Ack);
                self.call();
                self.worker_proxy.is_holding(ToBroker).await;
                let call = self.call.as_ref().unwrap();
                eventually(LIMIT, "the caller has its answer", async || call.is_finished()).await;
            }
            Point::ReplyQueued => {
                self.client_proxy.hold(ToPeer, Method::Deliver);
                self.call();
                self.client_proxy.is_holding(ToPeer).await;
                self.worker_proxy.has_passed(ToBroker, Method::Ack, 1).await;
            }
        }
    }

    fn call(&mut self) {
        let call = self.probe.ask(QUESTION, self.is_idempotent).timeout(CALL_LIMIT);
        self.call = Some(tokio::spawn(call.into_future()));
    }

    /// Applies the fault to this call's own connections and worker.
    pub(super) fn strike(&mut self) {
        match self.fault {
            Fault::WorkerKilled | Fault::WorkerGone => {
                self.workers[0].kill();
                // Its unsent frames are lost with it.
                self.worker_proxy.cut();
            }
            Fault::WorkerCut => {
                self.worker_proxy.refuse();
                self.worker_proxy.cut();
            }
            Fault::ClientCut => {
                self.client_proxy.refuse();
                self.client_proxy.cut();
            }
            Fault::BrokerRestarted => {
                for proxy in [&self.client_proxy, &self.worker_proxy] {
                    proxy.refuse();
                    proxy.cut();
                }
            }
            Fault::BrokerBlocked => {}
        }
    }

    pub(super) fn block(&self) {
        self.client_proxy.block();
        self.worker_proxy.block();
    }

    /// Goes on while the broker is blocked.
    pub(super) fn resume(&mut self) {
        if self.point == Point::BeforePublish {
            self.call();
        }
        self.client_proxy.release();
        self.worker_proxy.release();
        self.open_gate();
    }

    /// Waits until whoever has something to publish was told that it cannot.
    pub(super) async fn feels_the_block(&self) {
        match self.point {
            Point::BeforePublish | Point::Published => {
                self.client_proxy.has_passed(ToPeer, Method::Blocked, 1).await;
                let is_blocked = async || matches!(self.connection.state(), ConnectionState::Blocked { .. });
                eventually(LIMIT, "the connection's state says it", is_blocked).await;
            }
            Point::Queued | Point::Delivered | Point::MidHandler | Point::HandlerDone => {
                self.worker_proxy.has_passed(ToPeer, Method::Blocked, 1).await;
                assert!(!self.call.as_ref().unwrap().is_finished(), "answered although nothing can be published");
            }
            Point::Replied | Point::ReplyQueued => {}
        }
    }

    /// The world goes on. How did the call end, and how often was it executed?
    pub(super) async fn finish(mut self) -> Outcome {
        let raw = raw::Peer::connect(&self.place.uri).await;
        self.heal(&raw).await;
        let call = self.call.take().unwrap();
        let what = format!("{:?}, {:?}: the call ends", self.point, self.fault);
        let ending = match within(CALL_LIMIT, &what, call).await.unwrap() {
            Ok(answer) => {
                assert!(answer.contains(QUESTION), "{answer}");
                Ending::Answered
            }
            Err(CallError::Disconnected { maybe_executed: true, .. }) => Ending::MayHaveRun,
            Err(CallError::NoSuchService { maybe_executed, .. }) => Ending::Unserved(maybe_executed),
            Err(error) => Ending::Other(error.code().to_owned().leak(), error.maybe_executed()),
        };
        if self.fault == Fault::WorkerGone {
            self.workers.push(spawn(self.worker_proxy.uri(), &self.place, "second").await);
            self.open_gate();
        }
        // All that was promised, and then, behind it in the queue, one more: nothing is executed after that.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.executions() < self.promised_executions && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let direct = Connection::open(&framework_uri(&self.place.uri)).await.unwrap();
        let last = NamedProbe::new(Client::new(&direct), &self.place.service).ask("last", true).timeout(CALL_LIMIT);
        within(CALL_LIMIT, "the last request is answered", last.into_future()).await.unwrap();
        let outcome = Outcome { ending, executions: self.executions() };
        raw.delete_queue(&queue(&self.place)).await;
        outcome
    }

    async fn heal(&mut self, raw: &raw::Peer) {
        let queue = queue(&self.place);
        let consumers = async || raw.queue(&queue).await.map(|queue| queue.consumers);
        match self.fault {
            Fault::WorkerKilled => {
                eventually(LIMIT, "the broker misses the worker", async || consumers().await == Some(0)).await;
                self.workers.push(spawn(self.worker_proxy.uri(), &self.place, "second").await);
            }
            Fault::WorkerCut => {
                eventually(LIMIT, "the broker misses the worker", async || consumers().await == Some(0)).await;
                self.worker_proxy.accept();
                eventually(LIMIT, "the worker is back", async || consumers().await == Some(1)).await;
            }
            Fault::WorkerGone => {
                eventually(LIMIT, "the broker misses the worker", async || consumers().await == Some(0)).await;
            }
            Fault::ClientCut => {}
            Fault::BrokerRestarted => {
                self.worker_proxy.accept();
                eventually(LIMIT, "the worker is back", async || consumers().await == Some(1)).await;
            }
            Fault::BrokerBlocked => {
                self.client_proxy.unblock();
                self.worker_proxy.unblock();
                return;
            }
        }
        if self.point == Point::BeforePublish {
            if matches!(self.fault, Fault::ClientCut | Fault::BrokerRestarted) {
                let is_lost = async || matches!(self.connection.state(), ConnectionState::Reconnecting { .. });
                eventually(LIMIT, "the client knows that it is cut off", is_lost).await;
            }
            self.call();
        }
        self.client_proxy.release();
        self.worker_proxy.release();
        if self.fault != Fault::WorkerGone {
            self.open_gate();
        }
        self.client_proxy.accept();
    }

    fn open_gate(&mut self) {
        self.workers.last_mut().unwrap().open_gate();
    }

    fn executions(&self) -> usize {
        self.workers.iter().map(|worker| worker.begun(QUESTION)).sum()
    }
}

async fn spawn(uri: &str, place: &Place, name: &str) -> WorkerProcess {
    WorkerProcess::spawn_gated(Path::new(env!("CARGO_BIN_EXE_test_worker")), uri, &place.service, name).await
}

fn queue(place: &Place) -> String {
    format!("rpc.{}", place.service)
}

/// Of the calls whose last worker is killed.
const GRACE: Duration = Duration::from_millis(300);
const QUESTION: &str = "question";
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than a restart of RabbitMQ on a busy machine.
const CALL_LIMIT: Duration = Duration::from_secs(90);
