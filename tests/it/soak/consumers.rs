//! Whether the broker counts a consumer of the service, for the calls that say that nobody was there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use lapin::{Channel, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use rpc_core::CallError;
use tokio::{
    runtime::{self, Runtime},
    time::{Instant, sleep, timeout},
};

/// Looks all the time; ends when dropped.
pub(super) struct Consumers {
    /// When the broker last counted none, or did not answer.
    missed_at: Arc<Mutex<Instant>>,
    /// lapin leaves a task behind for each attempt to connect that fails, and the soak counts those of its own runtime.
    runtime: Mutex<Option<Runtime>>,
}

impl Consumers {
    pub(super) fn watch(uri: String, queue: &'static str) -> Self {
        let missed_at = Arc::new(Mutex::new(Instant::now()));
        let noted = Arc::clone(&missed_at);
        let note = move || *noted.lock().unwrap() = Instant::now();
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            loop {
                note();
                let Ok(Some(channel)) = timeout(ANSWER_LIMIT, open(&uri)).await else {
                    sleep(PAUSE).await;
                    continue;
                };
                while let Ok(Some(consumers)) = timeout(ANSWER_LIMIT, count(&channel, queue)).await {
                    if consumers == 0 {
                        note();
                    }
                    sleep(PAUSE).await;
                }
            }
        });
        Self { missed_at, runtime: Mutex::new(Some(runtime)) }
    }

    /// Its connections end.
    pub(super) fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    /// Whether the broker has counted a consumer for longer than a call's grace, whenever that ended.
    pub(super) fn has_counted(&self) -> bool {
        self.missed_at.lock().unwrap().elapsed() > GRACE + LATE
    }
}

/// Whether the call ended by its grace.
pub(super) fn is_verdict<E>(error: &CallError<E>) -> bool {
    matches!(error, CallError::NoSuchService { message, .. } if message.contains("no worker"))
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `None` while there is no broker.
async fn open(uri: &str) -> Option<Channel> {
    let connection = lapin::Connection::connect(uri, ConnectionProperties::default()).await.ok()?;
    connection.create_channel().await.ok()
}

/// `None` when the connection or the queue is lost.
async fn count(channel: &Channel, queue: &str) -> Option<u32> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    Some(channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?.consumer_count())
}

/// Of the clients under load.
pub(super) const GRACE: Duration = Duration::from_millis(300);
/// From the look that ends a call to the end that its caller sees: a look may take two seconds.
const LATE: Duration = Duration::from_millis(3_500);
const PAUSE: Duration = Duration::from_millis(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
