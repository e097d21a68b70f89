//! Notifications of systemd, for units of `Type=notify`.

use std::{io, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Health;
use crate::task::AbortOnDrop;

/// Keeps systemd informed. Dropping it ends that, and with `WatchdogSec=` systemd then restarts the process.
#[derive(Debug)]
#[must_use = "dropping the notifier ends the notifications, and so does `let _ = …`"]
pub struct SystemdNotifier {
    _task: AbortOnDrop,
}

impl Health {
    /// Informs systemd, if it started the process as a unit of `Type=notify`; otherwise `None`.
    ///
    /// It sends `READY=1` once all parts are ready, `STATUS=` with the reasons whenever they change, `STOPPING=1` when the process begins to
    /// drain, and with `WatchdogSec=` a `WATCHDOG=1` twice in that time, for as long as the runtime runs tasks. It looks ten times a second.
    pub fn notify_systemd(&self) -> Option<SystemdNotifier> {
        std::env::var_os("NOTIFY_SOCKET")?;
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let notifier = Notifier::new(self.clone(), watchdog);
        Some(SystemdNotifier { _task: AbortOnDrop::spawn(notifier.run()) })
    }
}

/// The part that decides which notifications are due.
struct Notifier {
    health: Health,
    watchdog: Option<Duration>,
    last_watchdog: Option<Instant>,
    has_sent_ready: bool,
    has_sent_stopping: bool,
    status: String,
}

impl Notifier {
    fn new(health: Health, watchdog: Option<Duration>) -> Self {
        let status = String::new();
        Self { health, watchdog, last_watchdog: None, has_sent_ready: false, has_sent_stopping: false, status }
    }

    async fn run(mut self) {
        let mut looks = interval(LOOK.min(self.watchdog.unwrap_or(LOOK)).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let due = self.due();
            if !due.is_empty()
                && let Err(error) = send(due).await
            {
                tracing::warn!(%error, "systemd could not be notified");
            }
        }
    }

    /// The notifications that are due.
    fn due(&mut self) -> Vec<Due> {
        let mut due = Vec::new();
        let state = self.health.ready();
        if state.is_ok() && !self.has_sent_ready {
            self.has_sent_ready = true;
            due.push(Due::Ready);
        }
        if state.as_ref().is_err_and(|not_ready| not_ready.is_draining) && !self.has_sent_stopping {
            self.has_sent_stopping = true;
            due.push(Due::Stopping);
        }
        // One line: systemd reads one assignment in each.
        let status =
            state.map_or_else(|not_ready| not_ready.to_string().replace(['\n', '\r'], " "), |()| "ready".to_owned());
        if status != self.status {
            self.status.clone_from(&status);
            due.push(Due::Status(status));
        }
        if let Some(every) = self.watchdog
            && self.last_watchdog.is_none_or(|last| last.elapsed() >= every.saturating_sub(LOOK))
        {
            self.last_watchdog = Some(Instant::now());
            due.push(Due::Watchdog);
        }
        due
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    Ready,
    Stopping,
    Status(String),
    Watchdog,
}

/// On a thread that may block: systemd reads when it has the time.
async fn send(due: Vec<Due>) -> io::Result<()> {
    let sending = tokio::task::spawn_blocking(move || {
        let states: Vec<_> = due
            .iter()
            .map(|due| match due {
                Due::Ready => NotifyState::Ready,
                Due::Stopping => NotifyState::Stopping,
                Due::Status(status) => NotifyState::Status(status),
                Due::Watchdog => NotifyState::Watchdog,
            })
            .collect();
        sd_notify::notify(&states)
    });
    match timeout(SEND_MAX, sending).await {
        Ok(Ok(sent)) => sent,
        Ok(Err(panic)) => Err(io::Error::other(panic)),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

const LOOK: Duration = Duration::from_millis(100);
const SEND_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_change_is_told_once() {
        let health = Health::new();
        let mut notifier = Notifier::new(health.clone(), None);
        assert_eq!(notifier.due(), [Due::Status("not ready: the process: it has no part yet".to_owned())]);
        let is_up = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&is_up);
        health.check("cache", move || seen.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "a\nb".to_owned()));
        assert_eq!(notifier.due(), [Due::Ready, Due::Status("ready".to_owned())]);
        assert_eq!(notifier.due(), []);
        is_up.store(false, Ordering::Relaxed);
        assert_eq!(notifier.due(), [Due::Status("not ready: cache: a b".to_owned())]);
        is_up.store(true, Ordering::Relaxed);
        assert_eq!(notifier.due(), [Due::Status("ready".to_owned())]);
        health.drain();
        assert_eq!(notifier.due(), [Due::Stopping, Due::Status("not ready: the process: it stops".to_owned())]);
        assert_eq!(notifier.due(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_twice_in_its_time() {
        let health = Health::new();
        let mut notifier = Notifier::new(health, Some(Duration::from_secs(1)));
        let mut heard = 0;
        for _ in 0..100 {
            heard += notifier.due().iter().filter(|due| **due == Due::Watchdog).count();
            advance(LOOK).await;
        }
        // Ten seconds, in which systemd waits for at most two.
        assert!((10..=12).contains(&heard), "{heard}");
    }
}
