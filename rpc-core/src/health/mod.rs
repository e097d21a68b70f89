//! Whether a process is alive, has started and takes work: over HTTP for Kubernetes and scrapers, and for systemd.
//!
//! ```text
//!  PoolHandle ─┐                    ┌─ /livez     the process answers
//!  Client ─────┼─► Health ──page────┼─ /readyz    every part is ready, nothing drains
//!  check ──────┘     │              ├─ /startupz  every part has been ready once
//!  render ───────────┘              └─ /metrics   the text of an exporter
//!                    └──notify──► systemd: READY, STOPPING, WATCHDOG
//! ```
//!
#![cfg_attr(feature = "macros", doc = "```no_run")]
#![cfg_attr(not(feature = "macros"), doc = "```ignore")]
//! use std::time::Duration;
//!
//! use rpc_core::{Connection, ConnectionOptions, WorkerPool, health::Health, service};
//!
//! #[service]
//! trait Stock {
//!     async fn count(&self, article: String) -> u32;
//! }
//! # struct Shelves;
//! # impl Stock for Shelves { async fn count(&self, _article: String) -> u32 { 0 } }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let health = Health::new();
//! // Before anything else, so that `/livez` answers and `/startupz` says why the start takes its time.
//! let _server = health.serve("0.0.0.0:8080").await?;
//! let options = ConnectionOptions::default().wait_for_broker(Duration::from_secs(60));
//! let connection = Connection::open_with("amqp://rabbit", options).await?;
//! let pool = WorkerPool::new(&connection).serve(StockServer::new(Shelves)).start().await?;
//! health.pool("stock", &pool);
//! // `/readyz` is 503 from the signal on, `/livez` is 200 until the process ends.
//! pool.run_until_signal(Duration::from_secs(25)).await?;
//! # Ok(()) }
//! ```
//!
//! The guide's chapter on [workers](crate::guide::workers) shows a manifest for Kubernetes and a unit for systemd.

#[cfg(feature = "axum")]
mod axum;
mod page;
mod server;
#[cfg(feature = "systemd")]
mod systemd;

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

pub use self::server::HealthServer;
#[cfg(feature = "systemd")]
pub use self::systemd::SystemdNotifier;
use crate::{
    client::Client,
    lock::lock,
    worker::{PoolHandle, PoolState},
};

/// The parts of a process, and whether all of them are ready. Clones are views of the same process.
///
/// It is not ready before it has a part: a process that has not come so far takes no work.
#[derive(Clone, Default)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    parts: Mutex<Vec<Part>>,
    /// Renders the metrics.
    render: Mutex<Option<Render>>,
    has_started: AtomicBool,
    is_draining: AtomicBool,
}

#[derive(Clone)]
struct Part {
    name: Arc<str>,
    check: Arc<dyn Fn() -> State + Send + Sync>,
}

type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// The state of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Ready,
    NotReady(Cow<'static, str>),
    Draining,
}

/// Why a process is not ready: each part that is not, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("not ready: {}", reasons.join("; "))]
pub struct NotReady {
    /// `<part>: <reason>`; never empty.
    pub reasons: Vec<String>,
    /// The process stops, and will not be ready again.
    pub is_draining: bool,
}

impl Health {
    /// A process without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pool: ready while it [takes requests](PoolHandle::is_ready), draining from the beginning of its shutdown.
    pub fn pool(&self, name: impl Into<String>, pool: &PoolHandle) {
        let pool = pool.monitor();
        self.add(name.into(), move || match pool.state() {
            PoolState::Serving if pool.is_ready() => State::Ready,
            PoolState::Serving => State::NotReady("a queue has no consumer: its connection or channel is lost".into()),
            PoolState::Draining | PoolState::Stopped => State::Draining,
        });
    }

    /// Adds a client: ready while [a call would be sent at once](Client::is_ready). Let it open its reply queue first, with
    /// [`Client::ready`]: otherwise it is not ready before its first call.
    pub fn client(&self, name: impl Into<String>, client: &Client) {
        let client = client.clone();
        self.add(name.into(), move || {
            if client.is_ready() {
                return State::Ready;
            }
            State::NotReady("no connection, a blocked one, or no reply queue".into())
        });
    }

    /// Adds a part of another kind: a database, a cache. An `Err` says why it is not ready.
    ///
    /// `check` is called for each probe, in an async task: it must return at once. Let a task of yours look, and the check
    /// read the outcome.
    pub fn check(&self, name: impl Into<String>, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add(name.into(), move || match check() {
            Ok(()) => State::Ready,
            Err(reason) => State::NotReady(reason.into()),
        });
    }

    /// The text of the page `/metrics`: what an exporter renders, such as `PrometheusHandle::render` of metrics-exporter-prometheus.
    /// Without it there is no such page. A text that ends with `# EOF` is sent as OpenMetrics 1.0, any other one as Prometheus' text format
    /// 0.0.4.
    pub fn metrics(&self, render: impl Fn() -> String + Send + Sync + 'static) {
        *lock(&self.inner.render) = Some(Arc::new(render));
    }

    /// From now on the process is not ready: it stops. A pool's shutdown does the same; this is for programs that only call.
    pub fn drain(&self) {
        self.inner.is_draining.store(true, Ordering::Release);
    }

    /// Whether work can be sent here.
    ///
    /// # Errors
    /// The parts that are not ready, and whether the process is stopping.
    pub fn ready(&self) -> Result<(), NotReady> {
        let parts = lock(&self.inner.parts).clone();
        let mut reasons = Vec::new();
        let mut is_draining = self.inner.is_draining.load(Ordering::Acquire);
        if is_draining {
            reasons.push("the process: it stops".to_owned());
        }
        if parts.is_empty() {
            reasons.push("the process: it has no part yet".to_owned());
        }
        for part in parts {
            match (part.check)() {
                State::Ready => {}
                State::NotReady(reason) => reasons.push(format!("{}: {reason}", part.name)),
                State::Draining => {
                    is_draining = true;
                    reasons.push(format!("{}: it stops", part.name));
                }
            }
        }
        if !reasons.is_empty() {
            return Err(NotReady { reasons, is_draining });
        }
        self.inner.has_started.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether all parts have been ready at once, in a probe of any kind. It stays so.
    ///
    /// # Errors
    /// The parts that are not ready yet.
    pub fn started(&self) -> Result<(), NotReady> {
        if self.inner.has_started.load(Ordering::Acquire) { Ok(()) } else { self.ready() }
    }

    fn add(&self, name: String, check: impl Fn() -> State + Send + Sync + 'static) {
        lock(&self.inner.parts).push(Part { name: name.into(), check: Arc::new(check) });
    }

    fn render(&self) -> Option<String> {
        let render = lock(&self.inner.render).clone()?;
        Some(render())
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = lock(&self.inner.parts).iter().map(|part| Arc::clone(&part.name)).collect();
        f.debug_struct("Health").field("parts", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_parts_is_neither_ready_nor_started() {
        let health = Health::new();
        assert_eq!(health.started().unwrap_err().to_string(), "not ready: the process: it has no part yet");
    }

    #[test]
    fn every_part_that_is_not_ready_is_named() {
        let health = Health::new();
        let is_up = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_up);
        health.check(
            "database",
            move || {
                if seen.load(Ordering::Relaxed) { Ok(()) } else { Err("no connection".to_owned()) }
            },
        );
        health.check("cache", || Ok(()));
        let not_ready = health.ready().unwrap_err();
        assert_eq!(not_ready.reasons, ["database: no connection"]);
        assert!(!not_ready.is_draining && health.started().is_err());
        is_up.store(true, Ordering::Relaxed);
        health.started().unwrap();
        is_up.store(false, Ordering::Relaxed);
        assert!(health.ready().is_err());
        health.started().unwrap();
    }

    #[test]
    fn a_process_that_stops_is_not_ready_and_has_started() {
        let health = Health::new();
        health.check("cache", || Ok(()));
        health.ready().unwrap();
        health.drain();
        assert!(health.ready().unwrap_err().is_draining);
        health.started().unwrap();
    }
}
